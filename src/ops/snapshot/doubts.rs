//! What is in doubt about a snapshot that was just taken, said aloud: it is a good backup all the same.

use std::collections::BTreeMap;

use crate::domain::inventory::{TableCount, display_name};
use crate::domain::manifest::Manifest;
use crate::domain::observer::{Observer, Severity};
use crate::domain::suspect::TableFall;
use crate::repo::history::TableNames;

/// How many tables one message names.
const NAMED: usize = 5;

/// Warns if `manifest` is suspect or foreign. `rows` are the tables it holds.
pub(super) fn tell(
    manifest: &Manifest,
    rows: &[TableCount],
    names: &TableNames,
    observer: &dyn Observer,
) {
    let id = &manifest.id;
    if manifest.foreign {
        let server = manifest.system_identifier.as_deref().unwrap_or_default();
        let message = format!(
            "backup {id} is of the server {server}, which cluster `{}` does not know: `latest` passes over it \
             until `pgkeep adopt {id}`",
            manifest.cluster
        );
        observer.finding(Severity::Warning, &message);
    }
    let Some(suspect) = &manifest.suspect else { return };
    let hidden: BTreeMap<String, String> = rows
        .iter()
        .map(|t| (names.hidden(&t.schema, &t.name), display_name(Some(&t.schema), &t.name)))
        .collect();
    let message = format!(
        "backup {id} is suspect: it holds {} rows, and {} held {}{}; if that is right: `pgkeep adopt {id}`",
        suspect.rows,
        suspect.against,
        suspect.rows_before,
        falls(&suspect.tables, &hidden)
    );
    observer.finding(Severity::Warning, &message);
}

/// `: orders fell from about 5000 to 0`; a table that is gone has no name any more.
fn falls(tables: &[TableFall], names: &BTreeMap<String, String>) -> String {
    let mut told: Vec<String> = tables
        .iter()
        .take(NAMED)
        .map(|fall| match names.get(&fall.table) {
            Some(name) => format!("{name} fell from about {} to {}", fall.rows_before, fall.rows),
            None => format!("a table of about {} rows is gone", fall.rows_before),
        })
        .collect();
    let more = tables.len().saturating_sub(NAMED);
    if more > 0 {
        told.push(format!("{more} more tables fell"));
    }
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_fell_are_named_and_those_that_are_gone_are_counted() {
        let fall =
            |table: &str, rows| TableFall { table: table.to_owned(), rows_before: 5000, rows };
        let names = BTreeMap::from([("aa".to_owned(), "public.orders".to_owned())]);
        assert_eq!(
            falls(&[fall("aa", 7), fall("bb", 0)], &names),
            " (public.orders fell from about 5000 to 7, a table of about 5000 rows is gone)"
        );
        assert_eq!(falls(&[], &names), "");
        assert!(falls(&vec![fall("bb", 0); 7], &names).ends_with("2 more tables fell)"));
    }
}
