//! What hangs on a relation or a domain: indexes, constraints, triggers, rules, policies.

use super::super::{dumped_schema, no_member};
use super::Query;

pub(super) const QUERIES: &[Query] = &[
    ("indexes", INDEXES),
    ("constraints", CONSTRAINTS),
    ("domain constraints", DOMAIN_CONSTRAINTS),
    ("triggers", TRIGGERS),
    ("rules", RULES),
    ("policies", POLICIES),
];

const INDEXES: &str = concat!(
    "SELECT 'index', n.nspname::text, c.relname::text, ic.relname::text, NULL::text,
            pg_catalog.pg_get_indexdef(i.indexrelid),
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'valid', CASE WHEN NOT i.indisvalid THEN 'no' END,
              'unique', CASE WHEN i.indisunique THEN 'yes' END,
              'primary', CASE WHEN i.indisprimary THEN 'yes' END,
              'method', am.amname,
              'clustered', CASE WHEN i.indisclustered THEN 'yes' END,
              'partition of', (SELECT pn.nspname || '.' || p.relname FROM pg_catalog.pg_inherits h
                                 JOIN pg_catalog.pg_class p ON p.oid = h.inhparent
                                 JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
                                WHERE h.inhrelid = i.indexrelid)))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_index i
       JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
       JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
       JOIN pg_catalog.pg_am am ON am.oid = ic.relam
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE c.relkind IN ('r', 'p', 'm') AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_class", "c.oid")
);

/// Not listed: `n` (NOT NULL, a column's fact, in this catalog since PostgreSQL 18), `t` (constraint
/// triggers, listed as triggers), and foreign keys that a partition got from its parent, whose names
/// PostgreSQL makes up anew.
const CONSTRAINTS: &str = concat!(
    "SELECT 'constraint', n.nspname::text, c.relname::text, k.conname::text, NULL::text,
            pg_catalog.pg_get_constraintdef(k.oid),
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'kind', CASE k.contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique' WHEN 'f' THEN 'foreign key'
                                     WHEN 'c' THEN 'check' WHEN 'x' THEN 'exclusion' ELSE k.contype::text END,
              'references', (SELECT fn.nspname || '.' || f.relname FROM pg_catalog.pg_class f
                               JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace WHERE f.oid = k.confrelid),
              'validated', CASE WHEN NOT k.convalidated THEN 'no' END,
              'enforced', CASE WHEN pg_catalog.to_jsonb(k) ->> 'conenforced' = 'false' THEN 'no' END,
              'deferrable', CASE WHEN k.condeferred THEN 'initially deferred'
                                 WHEN k.condeferrable THEN 'yes' END))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_constraint k
       JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE k.contype NOT IN ('n', 't') AND NOT (k.contype = 'f' AND k.conparentid <> 0) AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_class", "c.oid")
);

const DOMAIN_CONSTRAINTS: &str = concat!(
    "SELECT 'constraint', n.nspname::text, t.typname::text, k.conname::text, NULL::text,
            pg_catalog.pg_get_constraintdef(k.oid),
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('kind', 'check',
              'validated', CASE WHEN NOT k.convalidated THEN 'no' END))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_constraint k
       JOIN pg_catalog.pg_type t ON t.oid = k.contypid
       JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
      WHERE k.contype = 'c' AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_type", "t.oid")
);

/// A trigger that a partition got from its parent is listed only when it is switched otherwise.
const TRIGGERS: &str = concat!(
    "SELECT 'trigger', n.nspname::text, c.relname::text, t.tgname::text, NULL::text,
            pg_catalog.pg_get_triggerdef(t.oid),
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'function', t.tgfoid::pg_catalog.regproc::text,
              'enabled', CASE t.tgenabled WHEN 'D' THEN 'no' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' ELSE 'yes' END))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_trigger t
       JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       LEFT JOIN pg_catalog.pg_trigger parent ON parent.oid = t.tgparentid
      WHERE CASE WHEN t.tgparentid = 0 THEN NOT t.tgisinternal ELSE parent.tgenabled <> t.tgenabled END AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_class", "c.oid")
);

const RULES: &str = concat!(
    "SELECT 'rule', n.nspname::text, c.relname::text, r.rulename::text, NULL::text,
            pg_catalog.pg_get_ruledef(r.oid),
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'on', CASE r.ev_type WHEN '1' THEN 'select' WHEN '2' THEN 'update' WHEN '3' THEN 'insert'
                                   WHEN '4' THEN 'delete' END,
              'instead', CASE WHEN r.is_instead THEN 'yes' END,
              'enabled', CASE r.ev_enabled WHEN 'D' THEN 'no' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' ELSE 'yes' END))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_rewrite r
       JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE r.rulename <> '_RETURN' AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_class", "c.oid")
);

const POLICIES: &str = concat!(
    "SELECT 'policy', n.nspname::text, c.relname::text, p.polname::text, NULL::text,
            pg_catalog.concat_ws(' ', 'using ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid),
                                      'with check ' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)),
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'for', CASE p.polcmd WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert' WHEN 'w' THEN 'update'
                                   WHEN 'd' THEN 'delete' ELSE 'all' END,
              'restrictive', CASE WHEN NOT p.polpermissive THEN 'yes' END,
              'to', coalesce(pg_catalog.array_to_string(roles.names, ', '), 'PUBLIC')))::text,
            NULL::text[], NULL::text[], roles.names
       FROM pg_catalog.pg_policy p
       JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN LATERAL (
            SELECT pg_catalog.array_agg(r.rolname::text ORDER BY r.rolname COLLATE \"C\") AS names
              FROM pg_catalog.pg_roles r WHERE r.oid = ANY (p.polroles)) AS roles
      WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_class", "c.oid")
);
