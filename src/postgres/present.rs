//! What a database holds that a dump of it would hold, each with the statement that removes it.
//!
//! For whoever makes room in a database instead of making another one. What an object brings along (indexes,
//! triggers, array types, sequences of identity columns) goes with it and is not listed. Objects of extensions
//! belong to the extension. Reads only; a crash leaves nothing.

use std::collections::BTreeSet;

use super::PostgresError;
use super::catalog::{dumped_schema, no_member};
use super::session::Session;

/// An object that a dump would hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Present {
    /// What is dropped first comes first.
    pub stage: i32,
    /// OID of its catalog.
    pub class: u32,
    /// Its own.
    pub oid: u32,
    /// PostgreSQL's word, as in `DROP …`.
    pub kind: String,
    /// Its name as SQL takes it, quoted and with its schema.
    pub identity: String,
    /// Whose it is.
    pub owner: String,
    /// Whether this session's role may drop it.
    pub droppable: bool,
}

impl Present {
    /// Removes it, and what hangs on it. A schema must be empty by then: whatever nobody listed is not lost.
    pub fn drop_statement(&self) -> String {
        let rest = if self.kind == SCHEMA { "RESTRICT" } else { "CASCADE" };
        format!("DROP {} IF EXISTS {} {rest}", self.kind, self.identity)
    }

    /// `table public.orders of app`, for messages.
    pub fn describe(&self) -> String {
        format!("{} {} of {}", self.kind.to_lowercase(), self.identity, self.owner)
    }
}

/// The kind of schemas.
pub const SCHEMA: &str = "SCHEMA";
/// The kind of what `LOCK TABLE` takes.
pub const TABLE: &str = "TABLE";

/// Event triggers first, since they fire on drops; sequences behind the tables that own them; schemas last.
const OBJECTS: &str = concat!(
    "WITH here(stage, class, oid, owner, kind) AS (
       SELECT 0, 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, e.oid, e.evtowner, 'EVENT TRIGGER'
         FROM pg_catalog.pg_event_trigger e WHERE ",
    no_member!("pg_event_trigger", "e.oid"),
    " UNION ALL
       SELECT 1, 'pg_catalog.pg_publication'::pg_catalog.regclass, p.oid, p.pubowner, 'PUBLICATION'
         FROM pg_catalog.pg_publication p WHERE ",
    no_member!("pg_publication", "p.oid"),
    " UNION ALL
       SELECT CASE c.relkind WHEN 'S' THEN 3 ELSE 2 END, 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, c.relowner,
              CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
                             WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
          AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend i
                           WHERE i.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.objid = c.oid
                             AND i.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.deptype = 'i'
                             AND c.relkind = 'S') AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_class", "c.oid"),
    " UNION ALL
       SELECT 4, 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.proowner, 'ROUTINE'
         FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend i
                           WHERE i.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objid = p.oid
                             AND i.deptype = 'i') AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_proc", "p.oid"),
    " UNION ALL
       SELECT 5, 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid, o.opcowner, 'OPERATOR CLASS'
         FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_opclass", "o.oid"),
    " UNION ALL
       SELECT 5, 'pg_catalog.pg_opfamily'::pg_catalog.regclass, f.oid, f.opfowner, 'OPERATOR FAMILY'
         FROM pg_catalog.pg_opfamily f JOIN pg_catalog.pg_namespace n ON n.oid = f.opfnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_opfamily", "f.oid"),
    " UNION ALL
       SELECT 5, 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, o.oprowner, 'OPERATOR'
         FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_operator", "o.oid"),
    " UNION ALL
       SELECT 5, 'pg_catalog.pg_cast'::pg_catalog.regclass, c.oid,
              CASE WHEN pg_catalog.pg_has_role(s.typowner, 'USAGE') THEN s.typowner ELSE t.typowner END, 'CAST'
         FROM pg_catalog.pg_cast c JOIN pg_catalog.pg_type s ON s.oid = c.castsource
         JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
        WHERE c.oid >= 16384 AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_range r
                                WHERE r.rngtypid = c.castsource AND r.rngmultitypid = c.casttarget) AND ",
    no_member!("pg_cast", "c.oid"),
    " UNION ALL
       SELECT 6, 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typowner, 'TYPE'
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
        WHERE t.typtype IN ('b', 'c', 'd', 'e', 'r', 'p')
          AND (t.typtype <> 'c' OR EXISTS (SELECT 1 FROM pg_catalog.pg_class c
                                            WHERE c.oid = t.typrelid AND c.relkind = 'c'))
          AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_type e WHERE e.typarray = t.oid) AND ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_type", "t.oid"),
    " UNION ALL
       SELECT 7, 'pg_catalog.pg_collation'::pg_catalog.regclass, c.oid, c.collowner, 'COLLATION'
         FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_collation", "c.oid"),
    " UNION ALL
       SELECT 7, 'pg_catalog.pg_conversion'::pg_catalog.regclass, c.oid, c.conowner, 'CONVERSION'
         FROM pg_catalog.pg_conversion c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_conversion", "c.oid"),
    " UNION ALL
       SELECT 7, 'pg_catalog.pg_ts_config'::pg_catalog.regclass, c.oid, c.cfgowner, 'TEXT SEARCH CONFIGURATION'
         FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_ts_config", "c.oid"),
    " UNION ALL
       SELECT 8, 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, d.oid, d.dictowner, 'TEXT SEARCH DICTIONARY'
         FROM pg_catalog.pg_ts_dict d JOIN pg_catalog.pg_namespace n ON n.oid = d.dictnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_ts_dict", "d.oid"),
    " UNION ALL
       SELECT 9, 'pg_catalog.pg_ts_parser'::pg_catalog.regclass, p.oid, 10, 'TEXT SEARCH PARSER'
         FROM pg_catalog.pg_ts_parser p JOIN pg_catalog.pg_namespace n ON n.oid = p.prsnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_ts_parser", "p.oid"),
    " UNION ALL
       SELECT 9, 'pg_catalog.pg_ts_template'::pg_catalog.regclass, t.oid, 10, 'TEXT SEARCH TEMPLATE'
         FROM pg_catalog.pg_ts_template t JOIN pg_catalog.pg_namespace n ON n.oid = t.tmplnamespace WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_ts_template", "t.oid"),
    " UNION ALL
       SELECT 10, 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, s.oid, s.srvowner, 'SERVER'
         FROM pg_catalog.pg_foreign_server s WHERE ",
    no_member!("pg_foreign_server", "s.oid"),
    " UNION ALL
       SELECT 11, 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, w.oid, w.fdwowner, 'FOREIGN DATA WRAPPER'
         FROM pg_catalog.pg_foreign_data_wrapper w WHERE ",
    no_member!("pg_foreign_data_wrapper", "w.oid"),
    " UNION ALL
       SELECT 11, 'pg_catalog.pg_am'::pg_catalog.regclass, a.oid, 10, 'ACCESS METHOD'
         FROM pg_catalog.pg_am a WHERE a.oid >= 16384 AND ",
    no_member!("pg_am", "a.oid"),
    " UNION ALL
       SELECT 11, 'pg_catalog.pg_language'::pg_catalog.regclass, l.oid, l.lanowner, 'LANGUAGE'
         FROM pg_catalog.pg_language l WHERE l.oid >= 16384 AND ",
    no_member!("pg_language", "l.oid"),
    " UNION ALL
       SELECT 13, 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, n.nspowner, 'SCHEMA'
         FROM pg_catalog.pg_namespace n WHERE ",
    dumped_schema!("n"),
    " AND ",
    no_member!("pg_namespace", "n.oid"),
    ")
     SELECT h.stage, h.class::pg_catalog.oid, h.oid, h.kind, i.identity, pg_catalog.pg_get_userbyid(h.owner)::text,
            pg_catalog.pg_has_role(h.owner, 'USAGE')
       FROM here h, LATERAL pg_catalog.pg_identify_object(h.class, h.oid, 0) i
      WHERE i.identity IS NOT NULL"
);

/// All of them, in an order in which they can be dropped.
pub async fn objects(session: &Session) -> Result<BTreeSet<Present>, PostgresError> {
    let rows = session.client().query(OBJECTS, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Present {
                stage: row.try_get(0)?,
                class: row.try_get(1)?,
                oid: row.try_get(2)?,
                kind: row.try_get(3)?,
                identity: row.try_get(4)?,
                owner: row.try_get(5)?,
                droppable: row.try_get(6)?,
            })
        })
        .collect()
}

/// An installed extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// The schema that its objects are in.
    pub schema: String,
    /// Whether this session's role may drop it.
    pub droppable: bool,
}

/// The installed extensions.
pub async fn extensions(session: &Session) -> Result<Vec<Installed>, PostgresError> {
    let sql = "SELECT e.extname::text, n.nspname::text, pg_catalog.pg_has_role(e.extowner, 'USAGE') \
               FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
               ORDER BY 1";
    let rows = session.client().query(sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Installed {
                name: row.try_get(0)?,
                schema: row.try_get(1)?,
                droppable: row.try_get(2)?,
            })
        })
        .collect()
}

/// Takes back what default privileges add: an object made afterwards has what PostgreSQL gives it.
const DEFAULT_PRIVILEGES: &str = "
    SELECT pg_catalog.pg_get_userbyid(d.defaclrole)::text, pg_catalog.pg_has_role(d.defaclrole, 'USAGE'),
           coalesce((SELECT pg_catalog.string_agg(DISTINCT a.what || ' REVOKE ALL ON ' || a.kind || ' FROM ' || a.who, '; ')
              FROM (SELECT pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I', pg_catalog.pg_get_userbyid(d.defaclrole))
                             || coalesce(' IN SCHEMA ' || pg_catalog.quote_ident(n.nspname), '') AS what, k.kind,
                           CASE x.grantee WHEN 0 THEN 'PUBLIC'
                                ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END || ' CASCADE' AS who
                      FROM pg_catalog.aclexplode(d.defaclacl) x) a), 'SELECT')
           -- Those of the whole database replace the built-in ones, those of a schema add to them.
           || CASE WHEN n.nspname IS NULL THEN
                pg_catalog.format('; ALTER DEFAULT PRIVILEGES FOR ROLE %1$I GRANT ALL ON %2$s TO %1$I',
                                  pg_catalog.pg_get_userbyid(d.defaclrole), k.kind)
                || CASE d.defaclobjtype
                     WHEN 'f' THEN pg_catalog.format('; ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT EXECUTE ON FUNCTIONS TO PUBLIC',
                                                     pg_catalog.pg_get_userbyid(d.defaclrole))
                     WHEN 'T' THEN pg_catalog.format('; ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT USAGE ON TYPES TO PUBLIC',
                                                     pg_catalog.pg_get_userbyid(d.defaclrole))
                     ELSE '' END
              ELSE '' END
      FROM pg_catalog.pg_default_acl d
      LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace,
           LATERAL (SELECT CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                                WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS' END) k(kind)";

/// Default privileges of one role for one kind of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultPrivileges {
    /// Whose objects get them.
    pub role: String,
    /// Whether this session's role may change them.
    pub changeable: bool,
    /// The statements that take them back.
    pub reset: String,
}

/// All default privileges of the database.
pub async fn default_privileges(
    session: &Session,
) -> Result<Vec<DefaultPrivileges>, PostgresError> {
    let rows = session.client().query(DEFAULT_PRIVILEGES, &[]).await?;
    rows.iter()
        .map(|row| {
            let reset: Option<String> = row.try_get(2)?;
            Ok(DefaultPrivileges {
                role: row.try_get(0)?,
                changeable: row.try_get(1)?,
                reset: reset.unwrap_or_default(),
            })
        })
        .collect()
}

/// Gives a schema the privileges it was made with; nothing when it has them.
const SCHEMA_PRIVILEGES: &str = "
    SELECT pg_catalog.string_agg(s.statement, '; ' ORDER BY s.place)
      FROM pg_catalog.pg_namespace n,
           LATERAL (SELECT coalesce((SELECT i.initprivs FROM pg_catalog.pg_init_privs i
                       WHERE i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                         AND i.objoid = n.oid AND i.objsubid = 0), pg_catalog.acldefault('n', n.nspowner))) AS b(base),
           LATERAL (SELECT DISTINCT 1 AS place, pg_catalog.format('REVOKE ALL ON SCHEMA %I FROM %s CASCADE', n.nspname,
                           CASE x.grantee WHEN 0 THEN 'PUBLIC'
                                ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END) AS statement
                      FROM pg_catalog.aclexplode(n.nspacl) x
                    UNION ALL
                    SELECT 2, pg_catalog.format('GRANT %s ON SCHEMA %I TO %s', x.privilege_type, n.nspname,
                           CASE x.grantee WHEN 0 THEN 'PUBLIC'
                                ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END)
                      FROM pg_catalog.aclexplode(b.base) x) s
     WHERE n.nspname = $1 AND n.nspacl IS NOT NULL AND n.nspacl IS DISTINCT FROM b.base";

/// The statements that give a schema its first privileges again; none when it has them.
pub async fn schema_privileges(
    session: &Session,
    schema: &str,
) -> Result<Option<String>, PostgresError> {
    let row = session.client().query_one(SCHEMA_PRIVILEGES, &[&schema]).await?;
    Ok(row.try_get(0)?)
}

/// How many large objects there are, and whose they are that this session's role may not remove.
pub async fn large_objects(session: &Session) -> Result<(i64, Vec<String>), PostgresError> {
    let sql = "SELECT count(*), coalesce(pg_catalog.array_agg(DISTINCT pg_catalog.pg_get_userbyid(lomowner)::text) \
                 FILTER (WHERE NOT pg_catalog.pg_has_role(lomowner, 'USAGE')), '{}') \
               FROM pg_catalog.pg_largeobject_metadata";
    let row = session.client().query_one(sql, &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Removes them all.
pub const UNLINK_LARGE_OBJECTS: &str =
    "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata";
