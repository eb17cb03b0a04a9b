//! Looks at the live database before it is replaced: its tables, their rows, and what the server's counters say.
//!
//! Reads only, and the catalog alone tells of tables and columns, so that a migration that hangs with its locks hides
//! nothing of them. Rows are counted where that is soon done; else the server's statistics tell, and that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::lost::{Live, LiveColumn, LiveTable};
use crate::domain::ambient::Ambient;
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::display_name;
use crate::postgres::PostgresError;
use crate::postgres::dumped::{self, DumpedKind, DumpedRelation};
use crate::postgres::session::Session;
use crate::proof::count_rows;
use crate::scratch::sql::Statements as _;

/// What is counted, and not asked of the statistics: about a second of reading.
const COUNTED_BYTES_MAX: u64 = 256 << 20;
/// Somebody waits to be asked; tables that are left then are told from the statistics.
const COUNTING_MAX: Duration = Duration::from_secs(30);
/// Somebody else's lock is not waited for, a slow count is given up, and policies hide no rows from it.
const SETTINGS: &str = "SET search_path = ''; SET default_transaction_read_only = on; \
                        SET lock_timeout = '1s'; SET statement_timeout = '20s'; SET row_security = off";
/// When all counters began: since their last reset, and since a crash lost them, which resets those of the server too.
const COUNTERS: &str = "
    SELECT (extract(epoch FROM greatest(
               (SELECT stats_reset FROM pg_catalog.pg_stat_database
                 WHERE datname = pg_catalog.current_database()),
               (SELECT stats_reset FROM pg_catalog.pg_stat_bgwriter))) * 1000)::int8,
           pg_catalog.current_setting('track_counts')::bool";

/// When the database was made, and with it its counters: a copy that an earlier restore put here has counted none of
/// what happened to the one before it. A superuser's to know, or whoever may ask for files.
const MADE: &str = "
    SELECT (extract(epoch FROM (pg_catalog.pg_stat_file(pg_catalog.regexp_replace(
               pg_catalog.pg_relation_filepath('pg_catalog.pg_class'), '[^/]*$', 'PG_VERSION')
           )).modification) * 1000)::int8";

const TABLES: &str = "
    SELECT c.oid, c.relispartition,
           c.relpages::int8 * pg_catalog.current_setting('block_size')::int8,
           greatest(s.n_live_tup, c.reltuples::int8, 0), s.n_tup_upd + s.n_tup_del,
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  ORDER BY a.attnum),
           ARRAY(SELECT a.attislocal FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  ORDER BY a.attnum),
           c.relkind = 'r' AND pg_catalog.pg_relation_filenode(c.oid) <> c.oid
      FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
     WHERE c.oid = ANY ($1)";

const LARGE_OBJECTS: &str = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata";

/// Looks at the database of `info`.
pub(super) async fn look(
    info: &ConnectionInfo,
    ambient: &dyn Ambient,
) -> Result<Live, PostgresError> {
    let session = Session::connect(info, "rollback").await?;
    session.execute(SETTINGS).await?;
    let counters = session.query_one(COUNTERS, &[]).await?;
    let reset: Option<i64> = counters.get(0);
    let counting: bool = counters.get(1);
    let made = number(&session, MADE).await?;
    let large_objects = number(&session, LARGE_OBJECTS).await?.map(i64::unsigned_abs);
    let relations = dumped::relations(session.client(), &BTreeSet::new()).await?;
    let (of_extensions, own): (Vec<_>, Vec<_>) = relations
        .into_iter()
        .filter(DumpedRelation::is_locked)
        .partition(|relation| relation.of_extension);
    let tables: BTreeMap<u32, DumpedRelation> =
        own.into_iter().map(|relation| (relation.oid, relation)).collect();
    let oids: Vec<u32> = tables.keys().copied().collect();
    let mut found = Vec::new();
    for row in session.query(TABLES, &[&oids]).await? {
        let Some(relation) = tables.get(&row.get::<_, u32>(0)) else { continue };
        let (names, own): (Vec<String>, Vec<bool>) = (row.get(5), row.get(6));
        let estimate = row.get::<_, i64>(3).unsigned_abs();
        let columns = names.into_iter().zip(own).map(|(name, own)| LiveColumn { name, own });
        let table = LiveTable {
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            holds_rows: relation.kind == DumpedKind::Table,
            is_partition: row.get(1),
            columns: columns.collect(),
            // Statistics that say none may never have been gathered.
            rows: (estimate > 0).then_some(estimate),
            exact: false,
            changed: row.get::<_, Option<i64>>(4).filter(|_| counting).map(i64::unsigned_abs),
            rewritten: row.get::<_, Option<bool>>(7).unwrap_or(false),
        };
        found.push((row.get::<_, i64>(2).unsigned_abs(), table));
    }
    count(&session, &mut found, ambient).await?;
    Ok(Live {
        tables: found.into_iter().map(|(_, table)| table).collect(),
        counters_since: reset.max(made).and_then(|since| Timestamp::from_millisecond(since).ok()),
        counters_certain: made.is_some(),
        large_objects,
        extension_tables: of_extensions
            .iter()
            .map(|relation| display_name(Some(&relation.schema), &relation.name))
            .collect(),
    })
}

/// A number, where the server tells it.
async fn number(session: &Session, sql: &str) -> Result<Option<i64>, PostgresError> {
    match session.query_one(sql, &[]).await {
        Ok(row) => Ok(Some(row.get(0))),
        Err(error) if is_about_one(session, &error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether one statement failed, for whatever reason, and the next may go better: a lock, a right that this role
/// lacks, too much time, a damaged file. One table must not hide the others.
fn is_about_one(session: &Session, error: &PostgresError) -> bool {
    error.sqlstate().is_some() && !session.is_closed()
}

/// Counts what is small, the smallest first, as long as there is time.
async fn count(
    session: &Session,
    tables: &mut [(u64, LiveTable)],
    ambient: &dyn Ambient,
) -> Result<(), PostgresError> {
    tables.sort_by_key(|(bytes, _)| *bytes);
    let begun = ambient.monotonic();
    for (bytes, table) in tables {
        let in_time = ambient.monotonic().saturating_sub(begun) < COUNTING_MAX;
        if !table.holds_rows || *bytes > COUNTED_BYTES_MAX || !in_time {
            continue;
        }
        match count_rows(session, (table.schema.clone(), table.name.clone())).await {
            Ok(Some(counted)) => (table.rows, table.exact) = (Some(counted.rows), true),
            Ok(None) => {}
            Err(error) if is_about_one(session, &error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
