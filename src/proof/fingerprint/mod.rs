//! Proves content: the rows of an archive against those of the database it was restored into.
//!
//! Both sides print rows as COPY does, under the same settings ([`ROW_SETTINGS`](crate::domain::archive::ROW_SETTINGS) and the source's
//! `lc_monetary`), the columns in the order of their names and without generated ones, and are summed per
//! table ([`rows`]). The archive's rows come out of the archive itself: nothing is asked of the source.
//! Materialized views and foreign tables have no rows in an archive, so they are proved by definition only.
//!
//! The archive is summed while it is loaded ([`Sums`]), then each table is read once; one row per session is in
//! memory, and for tables of extensions one number per different row. A crash leaves nothing.

mod archive_side;
mod large_objects;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;

use rows::Bag;
pub use rows::Fingerprint;

use super::checks::partitions;
use super::pool::{Job, work_off};
use super::{ProofError, row_settings, verdict};
use crate::codec::hash::ChunkKey;
use crate::domain::archive::{ArchiveSummary, TableRows};
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::display_name;
use crate::domain::verification::Check;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident, quote_literal};
pub use archive_side::{ArchiveSums, Sums};
use rows::{RowHasher, Summed, order_of};

/// The name of the check.
const CONTENT: &str = "content";

/// What a content proof works with.
#[derive(Debug, Clone)]
pub struct ContentRequest<'a> {
    /// What the restored archive holds.
    pub archive: &'a ArchiveSummary,
    /// And its rows' sums.
    pub sums: &'a ArchiveSums,
    /// The database it was restored into.
    pub target: &'a ConnectionInfo,
    /// What row hashes are keyed with.
    pub key: [u8; 32],
    /// `lc_monetary` of the source.
    pub lc_monetary: &'a str,
    /// Tables of extensions, by schema and name: a restored one may hold rows of its own besides the dumped.
    pub extension_tables: BTreeSet<(String, String)>,
    /// Tables that were not restored.
    pub left_out: BTreeSet<(String, String)>,
    /// Whether large objects were restored.
    pub large_objects: bool,
    /// Sessions in the target.
    pub sessions: usize,
}

/// Compares every row and every large object.
pub async fn content(request: ContentRequest<'_>) -> Result<Check, ProofError> {
    let key = ChunkKey::from_bytes(request.key);
    let session = Session::connect(request.target, "verify").await?;
    let units = units(&session, &request).await?;
    let job = TableSums {
        key: key.clone(),
        encoding: request.archive.toc.encoding().unwrap_or("UTF8").to_owned(),
        lc_monetary: request.lc_monetary.to_owned(),
    };
    let items = units.iter().flat_map(|unit| unit.restored.iter().cloned()).collect();
    let restored = work_off(request.target, request.sessions, job, items).await?;
    let restored_objects = if request.large_objects {
        Some(large_objects::database_sum(&session, key).await?)
    } else {
        None
    };
    Ok(compare(&units, request.sums, restored, restored_objects))
}

/// What is compared as a whole: one table, or all partitions that rows may have been spread over anew.
#[derive(Debug)]
struct Unit {
    name: String,
    /// Schema and name of tables in the archive.
    archived: Vec<(String, String)>,
    restored: Vec<RestoredTable>,
    contained: bool,
}

/// A table to read in the target.
#[derive(Debug, Clone)]
struct RestoredTable {
    schema: String,
    name: String,
    columns: Vec<String>,
    bag: bool,
}

/// Makes units of the archive's tables, the biggest first so that the sessions end together.
async fn units(
    session: &Session,
    request: &ContentRequest<'_>,
) -> Result<Vec<Unit>, PostgresError> {
    let key = |table: &TableRows| (table.schema.clone(), table.name.clone());
    let tables = &request.archive.tables;
    let mut units = Vec::new();
    let mut rerouted = BTreeSet::new();
    let roots: BTreeSet<_> = tables.iter().filter_map(|table| table.via_root.clone()).collect();
    for (schema, name) in roots {
        let leaves = partitions(session, &(schema.clone(), name.clone())).await?;
        let inside = |table: &&TableRows| {
            table.via_root.as_ref() == Some(&(schema.clone(), name.clone()))
                || leaves.contains(&key(table))
        };
        let members: Vec<&TableRows> = tables.iter().filter(inside).collect();
        let columns = members.first().map(|table| table.columns.clone()).unwrap_or_default();
        rerouted.extend(members.iter().map(|table| key(table)));
        units.push(Unit {
            name: display_name(Some(&schema), &name),
            archived: members.iter().map(|table| key(table)).collect(),
            restored: leaves
                .into_iter()
                .map(|(schema, name)| RestoredTable {
                    schema,
                    name,
                    columns: columns.clone(),
                    bag: false,
                })
                .collect(),
            contained: false,
        });
    }
    let mut alone: Vec<&TableRows> = tables
        .iter()
        .filter(|table| !rerouted.contains(&key(table)) && !request.left_out.contains(&key(table)))
        .collect();
    alone.sort_by_key(|table| std::cmp::Reverse(table.rows));
    units.extend(alone.into_iter().map(|table| {
        let contained = request.extension_tables.contains(&key(table));
        Unit {
            name: display_name(Some(&table.schema), &table.name),
            archived: vec![key(table)],
            restored: vec![RestoredTable {
                schema: table.schema.clone(),
                name: table.name.clone(),
                columns: table.columns.clone(),
                bag: contained,
            }],
            contained,
        }
    }));
    Ok(units)
}

/// Sums tables of the target. A table that cannot be read is an answer too.
#[derive(Debug, Clone)]
struct TableSums {
    key: ChunkKey,
    encoding: String,
    lc_monetary: String,
}

impl Job for TableSums {
    type Item = RestoredTable;
    type Output = Result<Summed, String>;

    async fn prepare(&self, session: &Session) -> Result<(), PostgresError> {
        let lc_monetary = quote_literal(&self.lc_monetary);
        session.batch(&format!("{}SET lc_monetary = {lc_monetary}", row_settings())).await
    }

    async fn run(
        &self,
        session: &Session,
        table: RestoredTable,
    ) -> Result<Self::Output, PostgresError> {
        match self.table_sum(session, &table).await {
            Ok(summed) => Ok(Ok(summed)),
            Err(error) if error.sqlstate().is_some() => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

impl TableSums {
    async fn table_sum(
        &self,
        session: &Session,
        table: &RestoredTable,
    ) -> Result<Summed, PostgresError> {
        let mut columns = table.columns.clone();
        columns.sort();
        let list: Vec<String> = columns.iter().map(|column| quote_ident(column)).collect();
        let list = if list.is_empty() { String::new() } else { format!(" ({})", list.join(", ")) };
        let statement = format!(
            "COPY {}.{}{list} TO STDOUT (ENCODING {})",
            quote_ident(&table.schema),
            quote_ident(&table.name),
            quote_literal(&self.encoding)
        );
        let mut hasher = RowHasher::new(self.key.clone(), order_of(&columns), table.bag);
        let stream = session.client().copy_out(&statement).await?;
        let mut stream = std::pin::pin!(stream);
        while let Some(bytes) = stream.try_next().await? {
            hasher.bytes(&bytes);
        }
        Ok(hasher.finish())
    }
}

fn compare(
    units: &[Unit],
    archive: &ArchiveSums,
    restored: Vec<Result<Summed, String>>,
    restored_objects: Option<Fingerprint>,
) -> Check {
    let archived: BTreeMap<_, _> =
        archive.tables.iter().map(|(table, sum)| ((&table.schema, &table.name), sum)).collect();
    let mut restored = restored.into_iter();
    let mut lines = Vec::new();
    let mut rows = 0;
    for unit in units {
        let mut theirs = Fingerprint::default();
        let mut their_bag = None;
        let mut unread = None;
        for summed in restored.by_ref().take(unit.restored.len()) {
            match summed {
                Ok(summed) => {
                    theirs = theirs.plus(summed.sum);
                    their_bag = summed.bag;
                }
                Err(error) => unread = Some(error),
            }
        }
        let mut ours = Fingerprint::default();
        let mut our_bag = None;
        for (schema, name) in &unit.archived {
            if let Some(summed) = archived.get(&(schema, name)) {
                ours = ours.plus(summed.sum);
                our_bag = summed.bag.as_ref();
                if summed.misshapen {
                    lines.push(format!("table {}: rows of wrong shape in the archive", unit.name));
                }
            }
        }
        rows += ours.rows;
        let contained = || contains(their_bag.as_ref(), our_bag);
        if let Some(error) = unread {
            lines.push(format!("table {}: {error}", unit.name));
        } else if unit.contained && !contained() {
            lines.push(format!("table {}: dumped rows are missing", unit.name));
        } else if !unit.contained && ours.rows != theirs.rows {
            let (ours, theirs) = (ours.rows, theirs.rows);
            lines.push(format!("table {}: {ours} rows, restored {theirs}", unit.name));
        } else if !unit.contained && ours != theirs {
            let rows = ours.rows;
            lines
                .push(format!("table {}: {rows} rows, as restored, with other content", unit.name));
        }
    }
    let mut equal = format!("{rows} rows in {} tables", units.len());
    if let Some(theirs) = restored_objects {
        let ours = archive.large_objects;
        if ours.rows != theirs.rows {
            lines.push(format!("large objects: {}, restored {}", ours.rows, theirs.rows));
        } else if ours != theirs {
            lines.push(format!("large objects: {}, as restored, with other content", ours.rows));
        }
        equal = format!("{equal} and {} large objects", ours.rows);
    }
    equal.push_str(" equal");
    verdict(CONTENT, equal, &lines)
}

/// Whether each row comes at least as often in `all` as in `some`.
fn contains(all: Option<&Bag>, some: Option<&Bag>) -> bool {
    let empty = Bag::new();
    let (all, some) = (all.unwrap_or(&empty), some.unwrap_or(&empty));
    some.iter().all(|(row, times)| all.get(row).is_some_and(|there| there >= times))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::verification::Outcome;

    fn summed(lines: &str, bag: bool) -> Summed {
        let mut hasher = RowHasher::new(ChunkKey::from_bytes([3; 32]), None, bag);
        hasher.bytes(lines.as_bytes());
        hasher.finish()
    }

    fn table(name: &str, lines: &str, bag: bool) -> (TableRows, Summed) {
        let rows = TableRows {
            schema: "s".into(),
            name: name.into(),
            columns: vec!["a".into()],
            rows: 0,
            via_root: None,
        };
        (rows, summed(lines, bag))
    }

    fn unit(names: &[&str], restored: usize, contained: bool) -> Unit {
        let any = RestoredTable {
            schema: "s".into(),
            name: "t".into(),
            columns: vec!["a".into()],
            bag: contained,
        };
        Unit {
            name: names[0].to_owned(),
            archived: names.iter().map(|name| ("s".to_owned(), (*name).to_owned())).collect(),
            restored: vec![any; restored],
            contained,
        }
    }

    fn compared(
        units: &[Unit],
        tables: Vec<(TableRows, Summed)>,
        restored: Vec<Result<Summed, String>>,
    ) -> Check {
        let archive = ArchiveSums { tables, large_objects: Fingerprint::default() };
        compare(units, &archive, restored, Some(Fingerprint::default()))
    }

    #[test]
    fn equal_rows_pass_and_another_content_is_named() {
        let units = [unit(&["t"], 1, false)];
        let ours = || vec![table("t", "1\n2\n", false)];
        let same = compared(&units, ours(), vec![Ok(summed("2\n1\n", false))]);
        assert_eq!(same.result, Outcome::Passed, "{}", same.detail);
        for (theirs, told) in [("1\n3\n", "other content"), ("1\n", "2 rows, restored 1")] {
            let other = compared(&units, ours(), vec![Ok(summed(theirs, false))]);
            assert_eq!(other.result, Outcome::Failed);
            assert!(other.detail.contains(told), "{}", other.detail);
        }
        let unread = compared(&units, ours(), vec![Err("no such column".to_owned())]);
        assert!(unread.detail.contains("no such column"));
    }

    #[test]
    fn partitions_that_rows_were_spread_over_anew_count_together() {
        let units = [unit(&["p1", "p2"], 2, false)];
        let ours = vec![table("p1", "1\n2\n", false), table("p2", "3\n", false)];
        let theirs = vec![Ok(summed("3\n1\n", false)), Ok(summed("2\n", false))];
        assert_eq!(compared(&units, ours, theirs).result, Outcome::Passed);
    }

    #[test]
    fn a_table_of_an_extension_may_hold_rows_of_its_own() {
        let units = [unit(&["t"], 1, true)];
        let ours = || vec![table("t", "1\n1\n", true)];
        let more = compared(&units, ours(), vec![Ok(summed("0\n1\n1\n", true))]);
        assert_eq!(more.result, Outcome::Passed, "{}", more.detail);
        let fewer = compared(&units, ours(), vec![Ok(summed("0\n1\n", true))]);
        assert_eq!(fewer.result, Outcome::Failed);
    }
}
