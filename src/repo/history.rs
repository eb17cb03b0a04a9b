//! What a new backup is measured against: the backups of its database before it, and the servers that its
//! cluster's name knows.
//!
//! Known at the start of a run, judged at its end, when the server and the rows are known. Who knew no server at the
//! start looks again right before he commits. Two servers whose very first backups under one name commit at the same
//! moment both find nothing known, and neither is foreign.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::Entry;
use crate::codec::hash::ChunkKey;
use crate::domain::adoption::Adoption;
use crate::domain::id::EpochId;
use crate::domain::inventory::TableCount;
use crate::domain::manifest::{Previous, Trigger};
use crate::domain::suspect::{Counted, RowFigures, Suspicion, judge};
use crate::postgres::quote_ident;

/// A backup of the same database.
struct Past {
    previous: Previous,
    epoch: EpochId,
    trigger: Trigger,
    rows: Option<RowFigures>,
    suspect: bool,
    foreign: bool,
    system_identifier: Option<String>,
}

/// What is known when a backup begins.
pub(super) struct History {
    /// Newest first.
    past: Vec<Past>,
    servers: BTreeSet<String>,
}

/// What a new backup is, measured against a history.
pub(super) struct Verdict {
    pub(super) previous: Option<Previous>,
    pub(super) foreign: bool,
    pub(super) suspect: Option<Suspicion>,
}

/// What of a new backup is measured.
pub(super) struct Measured<'a> {
    pub(super) system_identifier: Option<&'a str>,
    pub(super) trigger: Trigger,
    pub(super) epoch: &'a EpochId,
    pub(super) rows: &'a Counted,
    pub(super) left_out: &'a BTreeSet<String>,
}

impl History {
    /// Of `database`, from its cluster's manifests (newest first) and adoptions.
    pub(super) fn of(database: &str, entries: &[Entry], adoptions: &[Adoption]) -> Self {
        let known = entries.iter().filter(|entry| !entry.foreign);
        let known = known.filter_map(|entry| entry.manifest.system_identifier.clone());
        let adopted = adoptions.iter().filter_map(|adoption| adoption.system_identifier.clone());
        let past = |entry: &Entry| Past {
            previous: Previous {
                id: entry.manifest.id.clone(),
                blake3: entry.manifest_hash.to_hex(),
            },
            epoch: entry.manifest.epoch.clone(),
            trigger: entry.manifest.trigger,
            rows: entry.manifest.rows.clone(),
            suspect: entry.suspect.is_some(),
            foreign: entry.foreign,
            system_identifier: entry.manifest.system_identifier.clone(),
        };
        let own = entries.iter().filter(|entry| entry.manifest.database == database);
        Self { past: own.map(past).collect(), servers: known.chain(adopted).collect() }
    }

    /// Whether enough is known to judge by: more backups need not be read then.
    pub(super) fn suffices(database: &str, seen: &[Entry]) -> bool {
        seen.iter().any(|entry| {
            let own = entry.manifest.database == database;
            own && !entry.foreign && entry.suspect.is_none() && !entry.is_imported()
        })
    }

    /// Whether the cluster's name knows no server yet.
    pub(super) fn knows_none(&self) -> bool {
        self.servers.is_empty()
    }

    /// Judges a new backup. A server that hides its identifier cannot be told apart, and is taken for known.
    pub(super) fn judge(&self, new: &Measured<'_>) -> Verdict {
        let server = new.system_identifier;
        let foreign =
            server.is_some_and(|server| !self.servers.is_empty() && !self.servers.contains(server));
        // A foreign server's backups follow each other, and nobody else's.
        let in_line = |past: &&Past| {
            past.foreign == foreign && (!foreign || past.system_identifier.as_deref() == server)
        };
        let previous = self.past.iter().find(in_line).map(|past| past.previous.clone());
        // Beside one that is suspect itself the loss would look like the usual; and an imported dump may be of
        // any age.
        let measure = |past: &&Past| !past.suspect && past.trigger != Trigger::Imported;
        let compared = self.past.iter().filter(in_line).find(measure);
        let suspect = compared.filter(|_| new.trigger != Trigger::Imported).and_then(|past| {
            let same_names = past.epoch == *new.epoch;
            judge(&past.previous.id, past.rows.as_ref()?, new.rows, same_names, new.left_out)
        });
        Verdict { previous, foreign, suspect }
    }
}

/// Hides the names of tables from whoever reads the store and has no key of this epoch.
pub struct TableNames(ChunkKey);

impl TableNames {
    /// Those of an epoch.
    pub fn of(chunk_key: &ChunkKey) -> Self {
        Self(ChunkKey::from_bytes(chunk_key.derive("pgkeep table names v1")))
    }

    /// The name in a manifest's open part.
    pub fn hidden(&self, schema: &str, name: &str) -> String {
        self.hidden_quoted(&format!("{}.{}", quote_ident(schema), quote_ident(name)))
    }

    /// The same of `"schema"."name"`.
    pub(super) fn hidden_quoted(&self, name: &str) -> String {
        self.0.hash(name.as_bytes()).to_hex()[..16].to_owned()
    }

    /// All tables of a dump under their hidden names.
    pub(super) fn counted(&self, rows: &[TableCount]) -> Counted {
        let tables: BTreeMap<String, u64> = rows
            .iter()
            .map(|table| (self.hidden(&table.schema, &table.name), table.rows))
            .collect();
        Counted { total: rows.iter().map(|table| table.rows).sum(), tables }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(id: &str, server: &str, foreign: bool, suspect: bool, rows: u64) -> Past {
        Past {
            previous: Previous { id: id.parse().expect("an id"), blake3: String::new() },
            epoch: EpochId::new(1),
            trigger: Trigger::Manual,
            rows: Some(RowFigures { total: rows, tables: Vec::new() }),
            suspect,
            foreign,
            system_identifier: Some(server.to_owned()),
        }
    }

    fn judged(history: &History, server: Option<&str>, trigger: Trigger, rows: u64) -> Verdict {
        let rows = Counted { total: rows, ..Counted::default() };
        let left_out = BTreeSet::new();
        history.judge(&Measured {
            system_identifier: server,
            trigger,
            epoch: &EpochId::new(1),
            rows: &rows,
            left_out: &left_out,
        })
    }

    const GOOD: &str = "20261119T020000Z-00000001";
    const BAD: &str = "20261120T020000Z-00000002";
    const OTHER: &str = "20261121T020000Z-00000003";

    fn history() -> History {
        History {
            past: vec![
                past(OTHER, "222", true, false, 9_000_000),
                past(BAD, "111", false, true, 10),
                past(GOOD, "111", false, false, 6000),
            ],
            servers: BTreeSet::from(["111".to_owned()]),
        }
    }

    #[test]
    fn a_second_bad_night_is_measured_by_the_last_good_one() {
        let verdict = judged(&history(), Some("111"), Trigger::Scheduled, 10);
        assert_eq!(verdict.previous.expect("one").id.as_str(), BAD);
        assert_eq!(verdict.suspect.expect("suspect").against.as_str(), GOOD);
        assert!(!verdict.foreign);
        assert!(judged(&history(), Some("111"), Trigger::Imported, 10).suspect.is_none());
    }

    #[test]
    fn a_night_is_measured_behind_what_was_imported_after_the_last_good_one() {
        let mut history = history();
        let import = Past {
            trigger: Trigger::Imported,
            system_identifier: None,
            ..past("20261121T090000Z-00000004", "", false, false, 1)
        };
        history.past.insert(0, import);
        let verdict = judged(&history, Some("111"), Trigger::Scheduled, 10);
        assert_eq!(verdict.suspect.expect("suspect").against.as_str(), GOOD);
        assert!(!judged(&history, None, Trigger::Imported, 10).foreign);
    }

    #[test]
    fn foreign_backups_follow_each_other_and_nobody_elses() {
        let verdict = judged(&history(), Some("222"), Trigger::Manual, 9_000_000);
        assert!(verdict.foreign && verdict.suspect.is_none());
        assert_eq!(verdict.previous.expect("one").id.as_str(), OTHER);
        let third = judged(&history(), Some("333"), Trigger::Manual, 1);
        assert!(third.foreign && third.previous.is_none() && third.suspect.is_none());
    }

    #[test]
    fn a_server_that_hides_its_identifier_and_the_first_one_are_known() {
        assert!(!judged(&history(), None, Trigger::Manual, 6000).foreign);
        let empty = History { past: Vec::new(), servers: BTreeSet::new() };
        let first = judged(&empty, Some("1"), Trigger::Manual, 0);
        assert!(!first.foreign && first.previous.is_none() && first.suspect.is_none());
    }

    #[test]
    fn names_are_hidden_by_the_key_and_the_quoted_form_is_the_same() {
        let names = TableNames::of(&ChunkKey::from_bytes([1; 32]));
        let hidden = names.hidden("public", "Or\"ders");
        assert_eq!(hidden, names.hidden_quoted("\"public\".\"Or\"\"ders\""));
        assert_eq!(hidden.len(), 16);
        let others = TableNames::of(&ChunkKey::from_bytes([2; 32]));
        assert_ne!(hidden, others.hidden("public", "Or\"ders"));
    }
}
