//! Objects without a schema, and default privileges.

use super::super::no_member;
use super::Query;

pub(super) const QUERIES: &[Query] = &[
    ("languages", LANGUAGES),
    ("access methods", ACCESS_METHODS),
    ("casts", CASTS),
    ("transforms", TRANSFORMS),
    ("foreign-data wrappers", FOREIGN_DATA_WRAPPERS),
    ("foreign servers", FOREIGN_SERVERS),
    ("user mappings", USER_MAPPINGS),
    ("event triggers", EVENT_TRIGGERS),
    ("subscriptions", SUBSCRIPTIONS),
    ("default privileges", DEFAULT_PRIVILEGES),
];

/// Objects below this oid were made by `initdb`.
macro_rules! first_normal_oid {
    () => {
        "16384"
    };
}

const LANGUAGES: &str = concat!(
    "SELECT 'language', NULL::text, NULL::text, l.lanname::text, pg_catalog.pg_get_userbyid(l.lanowner)::text,
            NULL::text, pg_catalog.jsonb_build_object('handler', l.lanplcallfoid::pg_catalog.regproc::text)::text,
            l.lanacl::text[], pg_catalog.acldefault('l', l.lanowner)::text[], NULL::text[]
       FROM pg_catalog.pg_language l WHERE l.oid >= ",
    first_normal_oid!(),
    " AND ",
    no_member!("pg_language", "l.oid")
);

const ACCESS_METHODS: &str = concat!(
    "SELECT 'access-method', NULL::text, NULL::text, a.amname::text, NULL::text, NULL::text,
            pg_catalog.jsonb_build_object('handler', a.amhandler::text)::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_am a WHERE a.oid >= ",
    first_normal_oid!(),
    " AND ",
    no_member!("pg_am", "a.oid")
);

/// The cast of a range to its multirange comes with the type.
const CASTS: &str = concat!(
    "SELECT 'cast', NULL::text, NULL::text, '(' || pg_catalog.format_type(c.castsource, NULL) || ' AS '
              || pg_catalog.format_type(c.casttarget, NULL) || ')', NULL::text, NULL::text,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
              'context', CASE c.castcontext WHEN 'i' THEN 'implicit' WHEN 'a' THEN 'assignment' ELSE 'explicit' END,
              'method', CASE c.castmethod WHEN 'f' THEN 'function' WHEN 'i' THEN 'inout' ELSE 'binary' END,
              'function', CASE WHEN c.castfunc <> 0 THEN c.castfunc::pg_catalog.regprocedure::text END))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_cast c
      WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_range r
                         WHERE r.rngtypid = c.castsource AND r.rngmultitypid = c.casttarget)
        AND c.oid >= ",
    first_normal_oid!(),
    " AND ",
    no_member!("pg_cast", "c.oid")
);

const TRANSFORMS: &str = concat!(
    "SELECT 'transform', NULL::text, NULL::text,
            'FOR ' || pg_catalog.format_type(t.trftype, NULL) || ' LANGUAGE ' || l.lanname, NULL::text, NULL::text,
            pg_catalog.jsonb_build_object('from', t.trffromsql::text, 'to', t.trftosql::text)::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_transform t JOIN pg_catalog.pg_language l ON l.oid = t.trflang WHERE ",
    no_member!("pg_transform", "t.oid")
);

const FOREIGN_DATA_WRAPPERS: &str = concat!(
    "SELECT 'foreign-data-wrapper', NULL::text, NULL::text, w.fdwname::text,
            pg_catalog.pg_get_userbyid(w.fdwowner)::text, NULL::text,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('handler', NULLIF(w.fdwhandler::pg_catalog.regproc::text, '-'),
              'options', (SELECT pg_catalog.string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest(w.fdwoptions) o)))::text,
            w.fdwacl::text[], pg_catalog.acldefault('F', w.fdwowner)::text[], NULL::text[]
       FROM pg_catalog.pg_foreign_data_wrapper w WHERE ",
    no_member!("pg_foreign_data_wrapper", "w.oid")
);

const FOREIGN_SERVERS: &str = concat!(
    "SELECT 'foreign-server', NULL::text, NULL::text, s.srvname::text,
            pg_catalog.pg_get_userbyid(s.srvowner)::text, NULL::text,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('wrapper', w.fdwname,
              'type', s.srvtype, 'version', s.srvversion,
              'options', (SELECT pg_catalog.string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest(s.srvoptions) o)))::text,
            s.srvacl::text[], pg_catalog.acldefault('S', s.srvowner)::text[], NULL::text[]
       FROM pg_catalog.pg_foreign_server s
       JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw WHERE ",
    no_member!("pg_foreign_server", "s.oid")
);

/// Their options hold passwords, and are not read.
const USER_MAPPINGS: &str = concat!(
    "SELECT 'user-mapping', NULL::text, NULL::text, u.usename || ' SERVER ' || u.srvname, NULL::text, NULL::text,
            NULL::text, NULL::text[], NULL::text[],
            CASE WHEN u.umuser <> 0 THEN ARRAY[u.usename::text] END
       FROM pg_catalog.pg_user_mappings u WHERE ",
    no_member!("pg_user_mapping", "u.umid"),
    " AND ",
    no_member!("pg_foreign_server", "u.srvid")
);

const EVENT_TRIGGERS: &str = concat!(
    "SELECT 'event-trigger', NULL::text, NULL::text, e.evtname::text, pg_catalog.pg_get_userbyid(e.evtowner)::text,
            NULL::text,
            pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('on', e.evtevent,
              'function', e.evtfoid::pg_catalog.regproc::text,
              'tags', (SELECT pg_catalog.string_agg(t, ', ' ORDER BY t COLLATE \"C\") FROM unnest(e.evttags) t),
              'enabled', CASE e.evtenabled WHEN 'D' THEN 'no' WHEN 'R' THEN 'replica' WHEN 'A' THEN 'always' ELSE 'yes' END))::text,
            NULL::text[], NULL::text[], NULL::text[]
       FROM pg_catalog.pg_event_trigger e WHERE ",
    no_member!("pg_event_trigger", "e.oid")
);

/// Names only: the other columns are for superusers, and connection strings hold passwords.
const SUBSCRIPTIONS: &str = "
    SELECT 'subscription', NULL::text, NULL::text, s.subname::text, NULL::text, NULL::text,
           NULL::text, NULL::text[], NULL::text[], NULL::text[]
      FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
     WHERE d.datname = pg_catalog.current_database()";

/// The name begins with the word that `pg_dump` uses in its tag.
const DEFAULT_PRIVILEGES: &str = "
    SELECT 'default-privileges', n.nspname::text, NULL::text,
           CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions'
                WHEN 'T' THEN 'types' WHEN 'n' THEN 'schemas' WHEN 'L' THEN 'large objects'
                ELSE d.defaclobjtype::text END
             || ' created by ' || pg_catalog.pg_get_userbyid(d.defaclrole),
           NULL::text, NULL::text, NULL::text, d.defaclacl::text[],
           CASE WHEN d.defaclnamespace = 0 THEN
             pg_catalog.acldefault(CASE d.defaclobjtype WHEN 'S' THEN 's' ELSE d.defaclobjtype END::\"char\", d.defaclrole)
           END::text[],
           ARRAY[pg_catalog.pg_get_userbyid(d.defaclrole)::text]
      FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace";

/// Row filters, column lists and whole schemas came with PostgreSQL 15.
pub(super) fn publications(version: u32) -> &'static str {
    if version >= 150_000 { PUBLICATIONS_15 } else { PUBLICATIONS_14 }
}

macro_rules! publications {
    ($definition:literal, $schemas:literal) => {
        concat!(
            "SELECT 'publication', NULL::text, NULL::text, p.pubname::text,
                    pg_catalog.pg_get_userbyid(p.pubowner)::text, ",
            $definition,
            ", pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
                 'for', CASE WHEN p.puballtables THEN 'all tables' END,
                 'publishes', pg_catalog.concat_ws(', ', CASE WHEN p.pubinsert THEN 'insert' END,
                    CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END,
                    CASE WHEN p.pubtruncate THEN 'truncate' END),
                 'via root', CASE WHEN p.pubviaroot THEN 'yes' END,
                 'tables', (SELECT pg_catalog.string_agg(n.nspname || '.' || c.relname, ', '
                                     ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\")
                              FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
                              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid),
                 'schemas', ",
            $schemas,
            "))::text, NULL::text[], NULL::text[], NULL::text[]
               FROM pg_catalog.pg_publication p WHERE ",
            no_member!("pg_publication", "p.oid")
        )
    };
}

const PUBLICATIONS_14: &str = publications!("NULL::text", "NULL::text");
const PUBLICATIONS_15: &str = publications!(
    "(SELECT pg_catalog.string_agg(n.nspname || '.' || c.relname
               || coalesce((SELECT ' (' || pg_catalog.string_agg(a.attname, ', ' ORDER BY a.attnum) || ')'
                              FROM pg_catalog.pg_attribute a
                             WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs)), '')
               || coalesce(' where ' || pg_catalog.pg_get_expr(r.prqual, r.prrelid), ''), ', '
               ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\")
       FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid)",
    "(SELECT pg_catalog.string_agg(n.nspname, ', ' ORDER BY n.nspname COLLATE \"C\")
        FROM pg_catalog.pg_publication_namespace s JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
       WHERE s.pnpubid = p.oid)"
);
