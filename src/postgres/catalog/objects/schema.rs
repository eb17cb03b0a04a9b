//! Schemas, and what lives in them on its own feet: types, functions, operators, text search.

use super::super::{dumped_schema, no_member};
use super::Query;

pub(super) const QUERIES: &[Query] = &[
    ("schemas", SCHEMAS),
    ("functions", FUNCTIONS),
    ("types", TYPES),
    ("operators", OPERATORS),
    ("operator classes", OPERATOR_CLASSES),
    ("operator families", OPERATOR_FAMILIES),
    ("collations", COLLATIONS),
    ("conversions", CONVERSIONS),
    ("text search configurations", TEXT_SEARCH_CONFIGURATIONS),
    ("text search dictionaries", TEXT_SEARCH_DICTIONARIES),
    ("text search parsers and templates", TEXT_SEARCH_PARSERS),
    ("statistics objects", STATISTICS),
];

/// `public` with its initial owner has none, since that owner's name depends on the server. The initial
/// privileges of a schema are those that `initdb` gave it.
const SCHEMAS: &str = concat!(
    "SELECT 'schema', NULL::text, NULL::text, n.nspname::text,
            CASE WHEN n.nspname = 'public' AND (pg_catalog.pg_get_userbyid(n.nspowner) = 'pg_database_owner'
                      OR (n.nspowner = 10 AND pg_catalog.current_setting('server_version_num')::int < 150000))
                 THEN NULL ELSE pg_catalog.pg_get_userbyid(n.nspowner)::text END,
            NULL::text, NULL::text, n.nspacl::text[],
            coalesce((SELECT i.initprivs FROM pg_catalog.pg_init_privs i
                       WHERE i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                         AND i.objoid = n.oid AND i.objsubid = 0),
                     pg_catalog.acldefault('n', n.nspowner))::text[], NULL::text[]
       FROM pg_catalog.pg_namespace n WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_namespace", "n.oid")
);

/// Constructors of range types come with the type. The hash is over the bytes as the server keeps them.
const FUNCTIONS: &str = concat!(
    "SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
            n.nspname::text, NULL::text,
            p.proname || '(' || CASE WHEN p.prokind = 'a' AND p.pronargs = 0 THEN '*' ELSE coalesce(
                (SELECT pg_catalog.string_agg(pg_catalog.format_type(t.type, NULL), ', ' ORDER BY t.place)
                   FROM unnest(p.proargtypes) WITH ORDINALITY AS t(type, place)), '') END || ')',
            pg_catalog.pg_get_userbyid(p.proowner)::text,
            CASE WHEN p.prokind <> 'a' THEN 'sha256:' || pg_catalog.encode(pg_catalog.sha256(
                pg_catalog.convert_to(pg_catalog.pg_get_functiondef(p.oid), 'SQL_ASCII')), 'hex') END,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'returns', pg_catalog.pg_get_function_result(p.oid),
              'language', l.lanname,
              'window', CASE WHEN p.prokind = 'w' THEN 'yes' END,
              'volatility', CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
              'strict', CASE WHEN p.proisstrict THEN 'yes' END,
              'security', CASE WHEN p.prosecdef THEN 'definer' END,
              'leakproof', CASE WHEN p.proleakproof THEN 'yes' END,
              'parallel', CASE p.proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END,
              'settings', (SELECT pg_catalog.string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest(p.proconfig) o),
              'source sha256', CASE WHEN p.prosqlbody IS NULL AND p.prokind <> 'a' THEN pg_catalog.encode(
                 pg_catalog.sha256(pg_catalog.convert_to(p.prosrc, 'SQL_ASCII')), 'hex') END,
              'aggregate', (SELECT pg_catalog.concat_ws(' ', g.aggtransfn, g.aggfinalfn, g.aggcombinefn,
                                   g.aggmtransfn, g.aggmfinalfn, pg_catalog.format_type(g.aggtranstype, NULL),
                                   g.agginitval)
                              FROM pg_catalog.pg_aggregate g WHERE g.aggfnoid = p.oid)))::text,
            p.proacl::text[], pg_catalog.acldefault('f', p.proowner)::text[], NULL::text[]
       FROM pg_catalog.pg_proc p
       JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
       JOIN pg_catalog.pg_language l ON l.oid = p.prolang
      WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend i
                         WHERE i.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objid = p.oid
                           AND i.deptype = 'i') AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_proc", "p.oid")
);

/// Row types of relations, array types and multiranges come with what they belong to.
const TYPES: &str = concat!(
    "SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, n.nspname::text, NULL::text, t.typname::text,
            pg_catalog.pg_get_userbyid(t.typowner)::text,
            CASE WHEN t.typtype = 'd' THEN pg_catalog.pg_get_expr(t.typdefaultbin, 0) END,
            pg_catalog.jsonb_strip_nulls(CASE t.typtype
              WHEN 'd' THEN pg_catalog.jsonb_build_object(
                'base', pg_catalog.format_type(t.typbasetype, t.typtypmod),
                'not null', CASE WHEN t.typnotnull THEN 'yes' END,
                'collation', CASE WHEN t.typcollation <> b.typcollation THEN
                             t.typcollation::pg_catalog.regcollation::text END)
              WHEN 'e' THEN pg_catalog.jsonb_build_object('is', 'enum', 'labels',
                (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                   FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid))
              WHEN 'c' THEN pg_catalog.jsonb_build_object('is', 'composite', 'attributes',
                (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname) || ' '
                          || pg_catalog.format_type(a.atttypid, a.atttypmod)
                          || CASE WHEN a.attcollation <> at.typcollation
                                  THEN ' collate ' || a.attcollation::pg_catalog.regcollation ELSE '' END,
                          ', ' ORDER BY a.attnum)
                   FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type at ON at.oid = a.atttypid
                  WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
              WHEN 'r' THEN (SELECT pg_catalog.jsonb_build_object('is', 'range',
                  'subtype', pg_catalog.format_type(r.rngsubtype, NULL),
                  'canonical', NULLIF(r.rngcanonical::text, '-'), 'difference', NULLIF(r.rngsubdiff::text, '-'),
                  'multirange', pg_catalog.format_type(r.rngmultitypid, NULL))
                FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid)
              ELSE pg_catalog.jsonb_build_object('is', 'base', 'input', t.typinput::text,
                'output', t.typoutput::text, 'length', t.typlen::text, 'default', t.typdefault) END)::text,
            t.typacl::text[], pg_catalog.acldefault('T', t.typowner)::text[], NULL::text[]
       FROM pg_catalog.pg_type t
       JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
       LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
      WHERE t.typisdefined AND t.typtype IN ('b', 'c', 'd', 'e', 'r')
        AND (t.typtype <> 'c' OR EXISTS (SELECT 1 FROM pg_catalog.pg_class c
                                          WHERE c.oid = t.typrelid AND c.relkind = 'c'))
        AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_type e WHERE e.typarray = t.oid) AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_type", "t.oid")
);

const OPERATORS: &str = concat!(
    "SELECT 'operator', n.nspname::text, NULL::text,
            o.oprname || '(' || CASE WHEN o.oprleft = 0 THEN 'NONE' ELSE pg_catalog.format_type(o.oprleft, NULL) END
              || ', ' || CASE WHEN o.oprright = 0 THEN 'NONE' ELSE pg_catalog.format_type(o.oprright, NULL) END || ')',
            pg_catalog.pg_get_userbyid(o.oprowner)::text, NULL::text,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'function', o.oprcode::pg_catalog.regprocedure::text,
              'commutator', NULLIF(o.oprcom, 0)::pg_catalog.regoperator::text,
              'negator', NULLIF(o.oprnegate, 0)::pg_catalog.regoperator::text,
              'restrict', NULLIF(o.oprrest::text, '-'), 'join', NULLIF(o.oprjoin::text, '-'),
              'merges', CASE WHEN o.oprcanmerge THEN 'yes' END,
              'hashes', CASE WHEN o.oprcanhash THEN 'yes' END))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
      WHERE o.oprcode <> 0 AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_operator", "o.oid")
);

const OPERATOR_CLASSES: &str = concat!(
    "SELECT 'operator-class', n.nspname::text, NULL::text, o.opcname || ' using ' || am.amname,
            pg_catalog.pg_get_userbyid(o.opcowner)::text, NULL::text,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'for', pg_catalog.format_type(o.opcintype, NULL),
              'default', CASE WHEN o.opcdefault THEN 'yes' END,
              'stores', CASE WHEN o.opckeytype <> 0 THEN pg_catalog.format_type(o.opckeytype, NULL) END,
              'family', fn.nspname || '.' || f.opfname))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_opclass o
       JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace
       JOIN pg_catalog.pg_am am ON am.oid = o.opcmethod
       JOIN pg_catalog.pg_opfamily f ON f.oid = o.opcfamily
       JOIN pg_catalog.pg_namespace fn ON fn.oid = f.opfnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_opclass", "o.oid")
);

const OPERATOR_FAMILIES: &str = concat!(
    "SELECT 'operator-family', n.nspname::text, NULL::text, f.opfname || ' using ' || am.amname,
            pg_catalog.pg_get_userbyid(f.opfowner)::text, NULL::text,
            pg_catalog.jsonb_build_object(
              'operators', (SELECT count(*)::text FROM pg_catalog.pg_amop o WHERE o.amopfamily = f.oid),
              'functions', (SELECT count(*)::text FROM pg_catalog.pg_amproc p WHERE p.amprocfamily = f.oid))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_opfamily f
       JOIN pg_catalog.pg_namespace n ON n.oid = f.opfnamespace
       JOIN pg_catalog.pg_am am ON am.oid = f.opfmethod WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_opfamily", "f.oid")
);

const COLLATIONS: &str = concat!(
    "SELECT 'collation', n.nspname::text, NULL::text, c.collname::text,
            pg_catalog.pg_get_userbyid(c.collowner)::text, NULL::text,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'provider', CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
              'deterministic', CASE WHEN NOT c.collisdeterministic THEN 'no' END))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_collation", "c.oid")
);

const CONVERSIONS: &str = concat!(
    "SELECT 'conversion', n.nspname::text, NULL::text, c.conname::text,
            pg_catalog.pg_get_userbyid(c.conowner)::text, NULL::text,
            pg_catalog.jsonb_build_object('converts', pg_catalog.pg_encoding_to_char(c.conforencoding) || ' to '
              || pg_catalog.pg_encoding_to_char(c.contoencoding), 'function', c.conproc::text,
              'default', c.condefault::text)::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_conversion c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_conversion", "c.oid")
);

const TEXT_SEARCH_CONFIGURATIONS: &str = concat!(
    "SELECT 'text-search-configuration', n.nspname::text, NULL::text, c.cfgname::text,
            pg_catalog.pg_get_userbyid(c.cfgowner)::text, NULL::text,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'parser', pn.nspname || '.' || p.prsname,
              'mappings', (SELECT pg_catalog.string_agg(m.maptokentype || ' ' || m.mapdict::pg_catalog.regdictionary,
                                  ', ' ORDER BY m.maptokentype, m.mapseqno)
                             FROM pg_catalog.pg_ts_config_map m WHERE m.mapcfg = c.oid)))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_ts_config c
       JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
       JOIN pg_catalog.pg_ts_parser p ON p.oid = c.cfgparser
       JOIN pg_catalog.pg_namespace pn ON pn.oid = p.prsnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_ts_config", "c.oid")
);

const TEXT_SEARCH_DICTIONARIES: &str = concat!(
    "SELECT 'text-search-dictionary', n.nspname::text, NULL::text, d.dictname::text,
            pg_catalog.pg_get_userbyid(d.dictowner)::text, NULL::text,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'template', tn.nspname || '.' || t.tmplname, 'options', d.dictinitoption))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_ts_dict d
       JOIN pg_catalog.pg_namespace n ON n.oid = d.dictnamespace
       JOIN pg_catalog.pg_ts_template t ON t.oid = d.dicttemplate
       JOIN pg_catalog.pg_namespace tn ON tn.oid = t.tmplnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_ts_dict", "d.oid")
);

const TEXT_SEARCH_PARSERS: &str = concat!(
    "SELECT 'text-search-parser', n.nspname::text, NULL::text, p.prsname::text, NULL::text, NULL::text,
            NULL::text, NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_ts_parser p JOIN pg_catalog.pg_namespace n ON n.oid = p.prsnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_ts_parser", "p.oid"),
    " UNION ALL
     SELECT 'text-search-template', n.nspname::text, NULL::text, t.tmplname::text, NULL::text, NULL::text,
            NULL::text, NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_ts_template t JOIN pg_catalog.pg_namespace n ON n.oid = t.tmplnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_ts_template", "t.oid")
);

const STATISTICS: &str = concat!(
    "SELECT 'statistics', n.nspname::text, NULL::text, s.stxname::text,
            pg_catalog.pg_get_userbyid(s.stxowner)::text, pg_catalog.pg_get_statisticsobjdef(s.oid),
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'table', tn.nspname || '.' || t.relname, 'kinds', s.stxkind::text,
              'target', CASE WHEN s.stxstattarget >= 0 THEN s.stxstattarget::text END))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_statistic_ext s
       JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
       JOIN pg_catalog.pg_class t ON t.oid = s.stxrelid
       JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_statistic_ext", "s.oid")
);
