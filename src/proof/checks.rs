//! The checks that ask a database: inventory, row counts, sequences, assertions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{ProofError, told, verdict};
use crate::domain::archive::ArchiveSummary;
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::{CompareOptions, Inventory, SequenceValue, TableCount};
use crate::domain::verification::Check;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, catalog, quote_ident};

/// A query that must return no row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// What it asserts.
    pub name: String,
    /// The query.
    pub sql: String,
}

/// Compares the catalog with the recorded inventory, or with a part of it; also what should be known, though it
/// fails nothing.
pub(super) async fn inventory(
    session: &Session,
    expected: &Inventory,
    options: &CompareOptions,
    partial: bool,
) -> Result<(Check, Vec<String>), ProofError> {
    let restored = catalog::inventory(session.client()).await?;
    let found = expected.compare(&restored, options);
    let equal = if partial {
        "what was asked for is as recorded".to_owned()
    } else {
        format!(
            "{} relations, {} other objects and {} extensions as recorded",
            expected.relations.len(),
            expected.objects.len(),
            expected.extensions.len()
        )
    };
    Ok((verdict("inventory", equal, &found.differences), found.notices))
}

/// The same as [`row_counts`], of the session's own transaction, which a table that cannot be counted would abort:
/// an error.
pub(super) async fn row_counts_within(
    session: &Session,
    expected: &Inventory,
    archive: &ArchiveSummary,
    options: &CompareOptions,
) -> Result<Check, ProofError> {
    let mut restored = Vec::new();
    for table in tables(session, expected).await? {
        restored.push(count(session, table).await?);
    }
    row_counts(session, restored, expected, archive, options).await
}

/// Compares the rows that were counted with the dump's.
pub(super) async fn row_counts(
    session: &Session,
    mut restored: Vec<TableCount>,
    expected: &Inventory,
    archive: &ArchiveSummary,
    options: &CompareOptions,
) -> Result<Check, ProofError> {
    let roots = roots(session, archive).await?;
    let lines = if roots.is_empty() {
        expected.row_differences(&restored, options)
    } else {
        let mut together = expected.clone();
        join_partitions(&mut together.rows, &roots);
        join_partitions(&mut restored, &roots);
        together.row_differences(&restored, options)
    };
    let kept = |table: &&TableCount| {
        let names = [table.name.clone()];
        !options.is_left_out(&["TABLE", "TABLE DATA"], Some(&table.schema), &names)
    };
    let (rows, count) = expected
        .rows
        .iter()
        .filter(kept)
        .fold((0, 0), |(rows, count), table| (rows + table.rows, count + 1));
    Ok(verdict("row-counts", format!("{rows} rows in {count} tables, as dumped"), &lines))
}

/// Tables whose rows are to be counted, the biggest first: those the dump has rows of, and all others that
/// are no extension's, so that rows which the dump lacks are seen too.
pub(super) async fn tables(
    session: &Session,
    expected: &Inventory,
) -> Result<Vec<(String, String)>, PostgresError> {
    let schemas: Vec<&str> = expected.rows.iter().map(|table| &*table.schema).collect();
    let names: Vec<&str> = expected.rows.iter().map(|table| &*table.name).collect();
    let rows = session
        .client()
        .query(
            "SELECT n.nspname::text, c.relname::text \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND c.relpersistence <> 't' \
               AND (n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
                    AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d \
                                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                                      AND d.objid = c.oid AND d.deptype = 'e') \
                    OR (n.nspname::text, c.relname::text) IN \
                       (SELECT * FROM unnest($1::text[], $2::text[]))) \
             ORDER BY c.relpages DESC, 1, 2",
            &[&schemas, &names],
        )
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Counts one table; none when it cannot be read.
pub async fn count_rows(
    session: &Session,
    table: (String, String),
) -> Result<Option<TableCount>, PostgresError> {
    match count(session, table).await {
        Ok(counted) => Ok(Some(counted)),
        Err(error) if error.is_verdict() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn count(
    session: &Session,
    (schema, name): (String, String),
) -> Result<TableCount, PostgresError> {
    let (quoted_schema, quoted_name) = (quote_ident(&schema), quote_ident(&name));
    let query = format!("SELECT pg_catalog.count(*) FROM ONLY {quoted_schema}.{quoted_name}");
    let row = session.client().query_one(&query, &[]).await?;
    let rows: i64 = row.try_get(0)?;
    Ok(TableCount { schema, name, rows: rows.unsigned_abs() })
}

/// Partitions whose rows may lie in another one after a restore, each with the name of their root.
type Roots = BTreeMap<(String, String), (String, String)>;

async fn roots(session: &Session, archive: &ArchiveSummary) -> Result<Roots, PostgresError> {
    let wanted: BTreeSet<_> =
        archive.tables.iter().filter_map(|table| table.via_root.clone()).collect();
    let mut roots = Roots::new();
    for root in wanted {
        for leaf in partitions(session, &root).await? {
            roots.insert(leaf, root.clone());
        }
    }
    Ok(roots)
}

/// The leaves below a partitioned table; none when it is not there.
pub(super) async fn partitions(
    session: &Session,
    (schema, name): &(String, String),
) -> Result<Vec<(String, String)>, PostgresError> {
    let root = format!("{}.{}", quote_ident(schema), quote_ident(name));
    let rows = session
        .client()
        .query(
            "SELECT n.nspname::text, c.relname::text \
             FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) t \
             JOIN pg_catalog.pg_class c ON c.oid = t.relid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE t.isleaf AND c.relkind = 'r' ORDER BY 1, 2",
            &[&root],
        )
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Replaces such partitions by one line with the sum of their rows.
fn join_partitions(rows: &mut Vec<TableCount>, roots: &Roots) {
    let mut sums: BTreeMap<&(String, String), u64> = BTreeMap::new();
    rows.retain(|table| {
        let Some(root) = roots.get(&(table.schema.clone(), table.name.clone())) else {
            return true;
        };
        *sums.entry(root).or_default() += table.rows;
        false
    });
    rows.extend(sums.into_iter().map(|((schema, name), rows)| TableCount {
        schema: schema.clone(),
        name: name.clone(),
        rows,
    }));
}

/// How many sequences one query asks.
const SEQUENCES_A_QUERY: usize = 100;

/// Compares where sequences stand with the dump's values.
pub(super) async fn sequences(
    session: &Session,
    expected: &Inventory,
    options: &CompareOptions,
) -> Result<Check, ProofError> {
    let client = session.client();
    let there = client
        .query(
            "SELECT n.nspname::text, c.relname::text \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'S'",
            &[],
        )
        .await
        .map_err(PostgresError::from)?;
    let there = there
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<BTreeSet<(String, String)>, PostgresError>>()?;
    let wanted: Vec<&SequenceValue> = expected
        .sequences
        .iter()
        .filter(|sequence| there.contains(&(sequence.schema.clone(), sequence.name.clone())))
        .collect();
    let mut restored = Vec::with_capacity(wanted.len());
    for some in wanted.chunks(SEQUENCES_A_QUERY) {
        let parts: Vec<String> = some
            .iter()
            .enumerate()
            .map(|(at, sequence)| {
                let (schema, name) = (quote_ident(&sequence.schema), quote_ident(&sequence.name));
                format!("SELECT {at}, last_value, is_called FROM {schema}.{name}")
            })
            .collect();
        let rows =
            client.query(&parts.join(" UNION ALL "), &[]).await.map_err(PostgresError::from)?;
        for row in rows {
            let cell = || -> Result<(i32, i64, bool), PostgresError> {
                Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
            };
            let (at, last_value, is_called) = cell()?;
            let of = usize::try_from(at).ok().and_then(|at| some.get(at));
            restored.extend(of.map(|sequence| SequenceValue {
                last_value,
                is_called,
                ..(*sequence).clone()
            }));
        }
    }
    let lines = expected.sequence_differences(&restored, options);
    let equal = format!("{} sequences stand as dumped", restored.len());
    Ok(verdict("sequences", equal, &lines))
}

/// Runs each assertion in a read-only transaction of its own. Rows are never shown: records are not sealed.
pub(super) async fn assertions(
    target: &ConnectionInfo,
    expected: &Inventory,
    assertions: &[Assertion],
    timeout: Option<Duration>,
) -> Result<Check, ProofError> {
    let mut session = Session::connect(target, "verify").await?;
    if let Some(path) = search_path(expected) {
        let set = "SELECT pg_catalog.set_config('search_path', $1, false)";
        session.client().query(set, &[&path]).await.map_err(PostgresError::from)?;
    }
    ask(&mut session, assertions, timeout).await
}

/// Runs each assertion in a live database, as its own role sees it.
pub async fn assertions_hold(
    live: &ConnectionInfo,
    assertions: &[Assertion],
    timeout: Option<Duration>,
) -> Result<Check, ProofError> {
    let mut session = Session::connect(live, "migrate").await?;
    ask(&mut session, assertions, timeout).await
}

async fn ask(
    session: &mut Session,
    assertions: &[Assertion],
    timeout: Option<Duration>,
) -> Result<Check, ProofError> {
    let timeout_ms = timeout.map_or(0, |timeout| timeout.as_millis().max(1));
    session.batch(&format!("SET statement_timeout = {timeout_ms}")).await?;
    let mut broken = Vec::new();
    for assertion in assertions {
        match holds(session, &assertion.sql).await {
            Ok(true) => {}
            Ok(false) => broken.push(format!("`{}` does not hold", assertion.name)),
            Err(error) if error.sqlstate().is_some() => {
                broken.push(format!("`{}` cannot be run: {error}", assertion.name));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let all = assertions.len();
    if broken.is_empty() {
        return Ok(Check::passed("assertions", format!("{all} hold")));
    }
    Ok(Check::failed("assertions", format!("{} of {all}: {}", broken.len(), told(&broken))))
}

async fn holds(session: &mut Session, sql: &str) -> Result<bool, PostgresError> {
    let transaction = session.client_mut().build_transaction().read_only(true).start().await?;
    // One statement only, whatever its text holds, and one row is enough to know.
    let statement = transaction.prepare(sql).await?;
    let portal = transaction.bind(&statement, &[]).await?;
    let rows = transaction.query_portal(&portal, 1).await?;
    transaction.rollback().await?;
    Ok(rows.is_empty())
}

/// The source's own setting of its database: a scratch database has none.
fn search_path(expected: &Inventory) -> Option<&str> {
    let everyone = expected.database.settings.iter().filter(|settings| settings.role.is_none());
    everyone
        .flat_map(|settings| &settings.settings)
        .find_map(|one| one.strip_prefix("search_path="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_rerouted_root_are_counted_together() {
        let count = |name: &str, rows| TableCount { schema: "s".into(), name: name.into(), rows };
        let pair = |name: &str| ("s".to_owned(), name.to_owned());
        let roots = Roots::from([(pair("p1"), pair("p")), (pair("p2"), pair("p"))]);
        let mut rows = vec![count("p1", 3), count("t", 1), count("p2", 4)];
        join_partitions(&mut rows, &roots);
        assert_eq!(rows, [count("t", 1), count("p", 7)]);
    }
}
