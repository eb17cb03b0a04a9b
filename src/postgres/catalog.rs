//! Reads the catalog of one database into an [`Inventory`].
//!
//! Contract: [`inventory`] runs on a session that nobody else uses, inside a transaction or not; it sets
//! the session's `search_path` to nothing and the settings that deparsed text depends on, so that two
//! servers of one major write one state alike. It reads and changes nothing. Inside a held snapshot its
//! queries see that snapshot; functions that deparse look at the newest catalog, which the held table locks
//! keep still for tables, and a function or view dropped meanwhile yields no definition instead of an error.
//! A crash leaves nothing.

mod objects;
mod relations;

use std::collections::BTreeMap;

use tokio_postgres::{Client, Row};

use super::PostgresError;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::inventory::{
    AclError, AclItem, DatabaseFacts, DatabaseSettings, Extension, ExtensionTable, Facts,
    INVENTORY_FORMAT, Inventory,
};

/// True for schemas whose content `pg_dump` dumps, `$n` being the alias of `pg_namespace`.
macro_rules! dumped_schema {
    ($n:literal) => {
        concat!("(", $n, ".nspname !~ '^pg_' AND ", $n, ".nspname <> 'information_schema')")
    };
}

/// True for what is no member of an extension, `$class` being its catalog and `$oid` its oid.
macro_rules! no_member {
    ($class:literal, $oid:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend x WHERE x.classid = 'pg_catalog.",
            $class,
            "'::pg_catalog.regclass AND x.objid = ",
            $oid,
            " AND x.deptype = 'e')"
        )
    };
}

pub(super) use {dumped_schema, no_member};

/// Why the catalog could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A query failed.
    #[error("could not read {what} from the catalog")]
    Query {
        /// What was asked for.
        what: &'static str,
        /// The server's word.
        source: PostgresError,
    },
    /// The server printed an access control list in a way this pgkeep does not know.
    #[error("could not understand the privileges of {of}")]
    Privileges {
        /// The object.
        of: String,
        /// What is wrong.
        source: AclError,
    },
    /// The server answered in a way this pgkeep does not know.
    #[error("could not understand {what}: `{value}`")]
    Unknown {
        /// What was asked for.
        what: &'static str,
        /// What came.
        value: String,
    },
}

impl Failure for CatalogError {
    fn kind(&self) -> FailureKind {
        FailureKind::Postgres
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Query { source, .. } => return source.hint(),
            Self::Privileges { .. } | Self::Unknown { .. } => {
                "the server may be newer than this pgkeep: look for a later version of pgkeep"
                    .to_owned()
            }
        })
    }
}

/// What the text of definitions depends on; `pg_dump` sets the same. Compiling these queries costs more than it saves.
const DEPARSE_SETTINGS: &str = "\
    SET search_path = '';\
    SET jit = off;\
    SET quote_all_identifiers = off;\
    SET standard_conforming_strings = on;\
    SET bytea_output = 'hex';\
    SET DateStyle = ISO;\
    SET IntervalStyle = postgres;\
    SET extra_float_digits = 3;\
    SET TimeZone = 'UTC'";

/// Reads everything but row counts and sequence values, which the dump itself tells.
pub async fn inventory(client: &Client) -> Result<Inventory, CatalogError> {
    let reader = Reader { client };
    client.batch_execute(DEPARSE_SETTINGS).await.map_err(|error| failed("settings", error))?;
    let version =
        reader.rows("version", "SELECT pg_catalog.current_setting('server_version_num')").await?;
    let version: String =
        version.first().map_or_else(|| Ok(String::new()), |row| reader.cell("version", row, 0))?;
    let server_version_num = version
        .parse()
        .map_err(|_| CatalogError::Unknown { what: "server_version_num", value: version })?;
    let (objects, mut also) = objects::read(&reader, server_version_num).await?;
    also.extend(reader.large_object_roles().await?);
    let inventory = Inventory {
        format: INVENTORY_FORMAT,
        server_version_num,
        database: reader.database().await?,
        relations: relations::read(&reader).await?,
        objects,
        extensions: reader.extensions().await?,
        extension_tables: reader.extension_tables().await?,
        comments: reader.count("comments", COMMENTS).await?,
        large_objects: reader.count("large objects", LARGE_OBJECTS).await?,
        roles_needed: Vec::new(),
        settings: reader.settings().await?,
        rows: Vec::new(),
        sequences: Vec::new(),
    };
    Ok(inventory.settled(also))
}

const DATABASE: &str = "
    SELECT d.datname::text, pg_catalog.pg_get_userbyid(d.datdba)::text,
           pg_catalog.pg_encoding_to_char(d.encoding)::text,
           CASE pg_catalog.to_jsonb(d) ->> 'datlocprovider'
                WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
           d.datcollate::text, d.datctype::text,
           coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale'),
           pg_catalog.to_jsonb(d) ->> 'daticurules',
           (SELECT s.reset_val FROM pg_catalog.pg_settings s WHERE s.name = 'lc_monetary'),
           t.spcname::text, d.datconnlimit, d.datistemplate,
           pg_catalog.shobj_description(d.oid, 'pg_database'),
           d.datacl::text[], pg_catalog.acldefault('d', d.datdba)::text[]
      FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
     WHERE d.datname = pg_catalog.current_database()";

const DATABASE_SETTINGS: &str = "
    SELECT CASE WHEN s.setrole <> 0 THEN pg_catalog.pg_get_userbyid(s.setrole)::text END, s.setconfig
      FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
     WHERE d.datname = pg_catalog.current_database()";

const EXTENSIONS: &str = "
    SELECT e.extname::text, e.extversion, n.nspname::text
      FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace";

/// `extcondition` has one entry for each of `extconfig`.
const EXTENSION_TABLES: &str = "
    SELECT n.nspname::text, c.relname::text, e.extname::text, coalesce(k.condition, '')
      FROM pg_catalog.pg_extension e
     CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) AS k(relation, condition)
      JOIN pg_catalog.pg_class c ON c.oid = k.relation
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p')";

/// Comments on members of extensions come with them, and those on invalid indexes are not dumped.
const COMMENTS: &str = "
    SELECT count(*) FROM pg_catalog.pg_description d
     WHERE d.objoid >= 16384
       AND d.classoid NOT IN ('pg_catalog.pg_extension'::pg_catalog.regclass,
                              'pg_catalog.pg_subscription'::pg_catalog.regclass)
       AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend x
                        WHERE x.classid = d.classoid AND x.objid = d.objoid AND x.deptype = 'e')
       AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_index i
                        WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
                          AND i.indexrelid = d.objoid AND NOT i.indisvalid)";

const LARGE_OBJECTS: &str = "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata";

const LARGE_OBJECT_ROLES: &str = "
    SELECT DISTINCT pg_catalog.pg_get_userbyid(r.role)::text
      FROM pg_catalog.pg_largeobject_metadata l
     CROSS JOIN LATERAL (
           SELECT l.lomowner UNION
           SELECT a.grantee FROM pg_catalog.aclexplode(l.lomacl) a WHERE a.grantee <> 0 UNION
           SELECT a.grantor FROM pg_catalog.aclexplode(l.lomacl) a) AS r(role)";

/// Commands and connection strings may hold secrets and tell nothing about the data.
const SETTINGS: &str = "
    SELECT s.name, coalesce(s.reset_val, '') FROM pg_catalog.pg_settings s
     WHERE (s.reset_val IS DISTINCT FROM s.boot_val
            AND s.source IN ('configuration file', 'command line', 'environment variable', 'global', 'session')
            AND s.name !~ '(command|conninfo|passphrase|password|secret|token|_file|_directory|_directories)')
        OR s.name IN ('block_size', 'data_checksums', 'server_encoding', 'server_version', 'wal_segment_size',
                      'TimeZone', 'DateStyle', 'default_text_search_config')";

fn failed(what: &'static str, error: tokio_postgres::Error) -> CatalogError {
    CatalogError::Query { what, source: error.into() }
}

/// Runs queries and decodes their cells, with one kind of error for both.
struct Reader<'a> {
    client: &'a Client,
}

impl Reader<'_> {
    async fn rows(&self, what: &'static str, sql: &str) -> Result<Vec<Row>, CatalogError> {
        self.client.query_typed(sql, &[]).await.map_err(|error| failed(what, error))
    }

    #[expect(clippy::unused_self, reason = "reads as the second half of `rows`")]
    fn cell<'r, T: tokio_postgres::types::FromSql<'r>>(
        &self,
        what: &'static str,
        row: &'r Row,
        index: usize,
    ) -> Result<T, CatalogError> {
        row.try_get(index).map_err(|error| failed(what, error))
    }

    async fn count(&self, what: &'static str, sql: &str) -> Result<u64, CatalogError> {
        let rows = self.rows(what, sql).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| self.cell(what, row, 0))?;
        Ok(count.unsigned_abs())
    }

    /// Two adjacent cells, an access control list and its default.
    fn acl(
        &self,
        what: &'static str,
        row: &Row,
        index: usize,
        of: &str,
    ) -> Result<Vec<AclItem>, CatalogError> {
        let acl: Option<Vec<String>> = self.cell(what, row, index)?;
        let default: Option<Vec<String>> = self.cell(what, row, index + 1)?;
        AclItem::parse_list(acl.as_deref(), default.as_deref().unwrap_or_default())
            .map_err(|source| CatalogError::Privileges { of: of.to_owned(), source })
    }

    /// A cell of JSON text: an object of strings.
    fn facts(&self, what: &'static str, row: &Row, index: usize) -> Result<Facts, CatalogError> {
        let text: Option<String> = self.cell(what, row, index)?;
        let text = text.unwrap_or_else(|| "{}".to_owned());
        serde_json::from_str(&text).map_err(|_| CatalogError::Unknown { what, value: text })
    }

    async fn database(&self) -> Result<DatabaseFacts, CatalogError> {
        const WHAT: &str = "the database";
        let rows = self.rows(WHAT, DATABASE).await?;
        let row = rows
            .first()
            .ok_or_else(|| CatalogError::Unknown { what: WHAT, value: String::new() })?;
        let mut settings = Vec::new();
        for row in self.rows("database settings", DATABASE_SETTINGS).await? {
            settings.push(DatabaseSettings {
                role: self.cell(WHAT, &row, 0)?,
                settings: self.cell(WHAT, &row, 1)?,
            });
        }
        settings.sort();
        let name: String = self.cell(WHAT, row, 0)?;
        Ok(DatabaseFacts {
            owner: self.cell(WHAT, row, 1)?,
            encoding: self.cell(WHAT, row, 2)?,
            locale_provider: self.cell(WHAT, row, 3)?,
            collate: self.cell(WHAT, row, 4)?,
            ctype: self.cell(WHAT, row, 5)?,
            icu_locale: self.cell(WHAT, row, 6)?,
            icu_rules: self.cell(WHAT, row, 7)?,
            lc_monetary: self.cell::<Option<String>>(WHAT, row, 8)?.unwrap_or_default(),
            tablespace: self.cell(WHAT, row, 9)?,
            connection_limit: self.cell(WHAT, row, 10)?,
            is_template: self.cell(WHAT, row, 11)?,
            comment: self.cell(WHAT, row, 12)?,
            acl: self.acl(WHAT, row, 13, &name)?,
            settings,
            name,
        })
    }

    async fn extensions(&self) -> Result<Vec<Extension>, CatalogError> {
        const WHAT: &str = "extensions";
        let mut extensions = Vec::new();
        for row in self.rows(WHAT, EXTENSIONS).await? {
            extensions.push(Extension {
                name: self.cell(WHAT, &row, 0)?,
                version: self.cell(WHAT, &row, 1)?,
                schema: self.cell(WHAT, &row, 2)?,
            });
        }
        Ok(extensions)
    }

    async fn extension_tables(&self) -> Result<Vec<ExtensionTable>, CatalogError> {
        const WHAT: &str = "tables of extensions";
        let mut tables = Vec::new();
        for row in self.rows(WHAT, EXTENSION_TABLES).await? {
            tables.push(ExtensionTable {
                schema: self.cell(WHAT, &row, 0)?,
                name: self.cell(WHAT, &row, 1)?,
                extension: self.cell(WHAT, &row, 2)?,
                condition: self.cell(WHAT, &row, 3)?,
            });
        }
        Ok(tables)
    }

    async fn large_object_roles(&self) -> Result<Vec<String>, CatalogError> {
        const WHAT: &str = "owners of large objects";
        let rows = self.rows(WHAT, LARGE_OBJECT_ROLES).await?;
        rows.iter().map(|row| self.cell(WHAT, row, 0)).collect()
    }

    async fn settings(&self) -> Result<BTreeMap<String, String>, CatalogError> {
        const WHAT: &str = "settings";
        let rows = self.rows(WHAT, SETTINGS).await?;
        rows.iter().map(|row| Ok((self.cell(WHAT, row, 0)?, self.cell(WHAT, row, 1)?))).collect()
    }
}
