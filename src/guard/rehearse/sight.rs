//! Looks at a copy: every relation with its file, its rows, and its values that are not null.

use std::collections::BTreeMap;

use crate::domain::connection::ConnectionInfo;
use crate::domain::migration::rehearsal::{Seen, SeenColumn, Sight};
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident};

/// Nothing that the copy brings with it steers or ends these.
const SETTINGS: &str =
    "SET search_path = ''; SET row_security = off; SET statement_timeout = 0; SET lock_timeout = 0";

const RELATIONS: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
           coalesce(pg_catalog.pg_relation_filenode(c.oid), 0::oid),
           coalesce(pg_catalog.pg_table_size(c.oid), 0),
           c.relkind = 'r' OR (c.relkind = 'm' AND c.relispopulated), c.relkind <> 'i'
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm', 'i', 'p') AND c.relpersistence <> 't'
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
     ORDER BY 1";

/// An array's type is its element's.
const COLUMNS: &str = "
    SELECT a.attrelid, a.attnum, a.attname::text, a.attnotnull,
           CASE WHEN t.typelem <> 0 AND t.typlen = -1 THEN t.typelem ELSE t.oid END
      FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
     WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY ($1)
     ORDER BY 1, 2";

/// Enumerations, domains, ranges, and composite types that are no table's.
const TYPES: &str = "
    SELECT t.oid, n.nspname::text, t.typname::text
      FROM pg_catalog.pg_type t
      JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
      LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
     WHERE (t.typtype IN ('d', 'e', 'r') OR (t.typtype = 'c' AND c.relkind = 'c'))
       AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'";

/// The copy's own oid, which is none of a database that was made anew under its name.
pub(super) async fn oid_of(session: &Session, database: &str) -> Result<u32, PostgresError> {
    let asked = "SELECT oid FROM pg_catalog.pg_database WHERE datname::text = $1";
    Ok(session.client().query_one(asked, &[&database]).await?.try_get(0)?)
}

/// Looks at all of it, and counts.
pub(super) async fn look(session: &Session) -> Result<Sight, PostgresError> {
    session.batch(SETTINGS).await?;
    let client = session.client();
    let mut sight = Sight::default();
    for row in client.query(TYPES, &[]).await? {
        let (schema, name): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        sight.types.insert(row.try_get(0)?, format!("{schema}.{name}"));
    }
    let mut tables = BTreeMap::new();
    for row in client.query(RELATIONS, &[]).await? {
        let oid: u32 = row.try_get(0)?;
        let (schema, name): (String, String) = (row.try_get(1)?, row.try_get(2)?);
        let size: i64 = row.try_get(5)?;
        if row.try_get(6)? {
            tables.insert(oid, format!("{}.{}", quote_ident(&schema), quote_ident(&name)));
        }
        let seen = Seen {
            name: format!("{schema}.{name}"),
            is_table: row.try_get(7)?,
            rows: None,
            file: row.try_get(4)?,
            size_bytes: size.unsigned_abs(),
            columns: BTreeMap::new(),
        };
        sight.relations.insert(oid, seen);
    }
    let oids: Vec<u32> = tables.keys().copied().collect();
    let mut columns: BTreeMap<u32, Vec<Column>> = BTreeMap::new();
    for row in client.query(COLUMNS, &[&oids]).await? {
        let column = Column {
            number: row.try_get(1)?,
            name: row.try_get(2)?,
            is_full: row.try_get(3)?,
            of_type: row.try_get(4)?,
        };
        columns.entry(row.try_get(0)?).or_default().push(column);
    }
    for (oid, table) in tables {
        let columns = columns.remove(&oid).unwrap_or_default();
        let (rows, columns) = count(session, &table, columns, &sight.types).await?;
        let seen = sight.relations.get_mut(&oid).expect("it was seen just now");
        (seen.rows, seen.columns) = (Some(rows), columns);
    }
    Ok(sight)
}

struct Column {
    number: i16,
    name: String,
    /// Whether it is NOT NULL.
    is_full: bool,
    of_type: u32,
}

/// One scan: what cannot be null need not be counted.
async fn count(
    session: &Session,
    table: &str,
    columns: Vec<Column>,
    types: &BTreeMap<u32, String>,
) -> Result<(u64, BTreeMap<i16, SeenColumn>), PostgresError> {
    let mut query = "SELECT pg_catalog.count(*)".to_owned();
    for column in columns.iter().filter(|column| !column.is_full) {
        query.push_str(", pg_catalog.count(");
        query.push_str(&quote_ident(&column.name));
        query.push(')');
    }
    let row = session.client().query_one(&format!("{query} FROM ONLY {table}"), &[]).await?;
    let number = |at: usize| row.try_get::<_, i64>(at).map(i64::unsigned_abs);
    let rows = number(0)?;
    let (mut counted, mut at) = (BTreeMap::new(), 0);
    for Column { number: attnum, name, is_full, of_type } in columns {
        let values = if is_full {
            rows
        } else {
            at += 1;
            number(at)?
        };
        let own_type = types.contains_key(&of_type).then_some(of_type);
        counted.insert(attnum, SeenColumn { name, values, own_type });
    }
    Ok((rows, counted))
}

/// Of a database that is there; nothing of one that is gone.
pub(super) async fn session(connection: &ConnectionInfo) -> Result<Option<Session>, PostgresError> {
    match Session::connect(connection, "rehearse").await {
        Ok(session) => Ok(Some(session)),
        Err(PostgresError::DatabaseMissing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
