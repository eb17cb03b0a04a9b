//! Suspect snapshots: one that holds far fewer rows than the one before it.
//!
//! What is compared stands in the open part of a manifest, since the host that writes backups cannot read
//! its own: the exact total, and the largest tables by a keyed hash of their names with their rows rounded to
//! two digits. The reasons for the numbers here are `docs/decisions/0004-suspect-and-foreign.md`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::id::BackupId;

/// A fall by half counts from this many lost rows on: fewer are a person's work of a minute.
pub const LOST_MIN: u64 = 50;
/// A database that held at least so many rows and holds none now counts however small it was.
pub const EMPTIED_MIN: u64 = 10;
/// Tables below this many rows are not recorded.
pub const TABLE_MIN: u64 = 1000;
/// And no more tables than this, the largest.
pub const TABLES_MAX: usize = 32;
/// A table that is empty or gone counts by itself when it held at least this share of all rows.
const TABLE_SHARE: u64 = 10;

/// How many rows a backup holds, as its manifest tells openly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowFigures {
    /// All rows, exactly.
    pub total: u64,
    /// The largest tables, by name.
    pub tables: Vec<TableFigure>,
}

/// About how many rows a table holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFigure {
    /// 16 hex digits of the keyed hash of `schema.name`.
    pub table: String,
    /// Rows, rounded to two digits.
    pub rows: u64,
}

/// What a database holds, by the same hidden names, exactly and completely: only its writer knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// All rows.
    pub total: u64,
    /// Rows of every table.
    pub tables: BTreeMap<String, u64>,
}

/// Why a snapshot is suspect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspicion {
    /// The backup that it was compared with: the newest that is not suspect itself.
    pub against: BackupId,
    /// Rows of that one, without tables whose rows are left out now.
    pub rows_before: u64,
    /// Rows of this one.
    pub rows: u64,
    /// The tables that fell by half or more, by what they lost.
    pub tables: Vec<TableFall>,
}

/// A table that fell by half or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFall {
    /// As in [`TableFigure`].
    pub table: String,
    /// About how many rows it held.
    pub rows_before: u64,
    /// How many it holds.
    pub rows: u64,
}

impl Suspicion {
    /// In words, for people and scripts alike.
    pub fn reason(&self) -> String {
        let Self { against, rows_before, rows, tables } = self;
        let fell = match tables.len() {
            0 => String::new(),
            1 => "; one large table fell by half or more".to_owned(),
            many => format!("; {many} large tables fell by half or more"),
        };
        format!("{rows} rows, and backup {against} held {rows_before}{fell}")
    }
}

impl Counted {
    /// What of it is written into the manifest.
    pub fn figures(&self) -> RowFigures {
        let mut large: Vec<(&String, u64)> = self
            .tables
            .iter()
            .filter(|(_, rows)| **rows >= TABLE_MIN)
            .map(|(name, rows)| (name, *rows))
            .collect();
        large.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        large.truncate(TABLES_MAX);
        let mut tables: Vec<TableFigure> = large
            .into_iter()
            .map(|(name, rows)| TableFigure { table: name.clone(), rows: rounded(rows) })
            .collect();
        tables.sort();
        RowFigures { total: self.total, tables }
    }
}

/// Two digits, half rounded up: 5,349 is 5,300.
fn rounded(rows: u64) -> u64 {
    let mut unit = 1;
    while rows / unit >= 100 {
        unit *= 10;
    }
    rows.saturating_add(unit / 2) / unit * unit
}

/// By half or more, and by more than a person loses by hand; or to nothing.
const fn fell(before: u64, now: u64) -> bool {
    let lost = before.saturating_sub(now);
    (now <= before / 2 && lost >= LOST_MIN) || (now == 0 && before >= EMPTIED_MIN)
}

/// Whether a snapshot that holds `now` is suspect beside the backup `against`, which held `before`.
///
/// `same_names`: both hide table names with the same key; otherwise only the totals are compared. Tables in
/// `left_out` hold no rows now on purpose, and count on neither side.
pub fn judge(
    against: &BackupId,
    before: &RowFigures,
    now: &Counted,
    same_names: bool,
    left_out: &BTreeSet<String>,
) -> Option<Suspicion> {
    let known: Vec<&TableFigure> =
        if same_names { before.tables.iter().collect() } else { Vec::new() };
    let on_purpose: u64 =
        known.iter().filter(|t| left_out.contains(&t.table)).map(|table| table.rows).sum();
    let rows_before = before.total.saturating_sub(on_purpose);
    let lost = rows_before.saturating_sub(now.total);
    let mut tables: Vec<TableFall> = known
        .into_iter()
        .filter(|figure| !left_out.contains(&figure.table))
        .map(|figure| TableFall {
            table: figure.table.clone(),
            rows_before: figure.rows,
            rows: now.tables.get(&figure.table).copied().unwrap_or(0),
        })
        .filter(|fall| fell(fall.rows_before, fall.rows))
        .collect();
    // One that was renamed seems gone, but the total still holds its rows.
    let emptied = tables.iter().any(|fall| {
        fall.rows == 0
            && fall.rows_before >= rows_before / TABLE_SHARE
            && lost >= fall.rows_before / 2
    });
    if !fell(rows_before, now.total) && !emptied {
        return None;
    }
    tables.sort_by_key(|fall| std::cmp::Reverse(fall.rows_before - fall.rows));
    Some(Suspicion { against: against.clone(), rows_before, rows: now.total, tables })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> BackupId {
        "20261121T020000Z-5f3a9c21".parse().expect("an id")
    }

    fn counted(tables: &[(&str, u64)]) -> Counted {
        Counted {
            total: tables.iter().map(|(_, rows)| rows).sum(),
            tables: tables.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect(),
        }
    }

    fn against(before: &Counted, now: &Counted) -> Option<Suspicion> {
        judge(&id(), &before.figures(), now, true, &BTreeSet::new())
    }

    fn totals(before: u64, now: u64) -> bool {
        against(&counted(&[("a", before)]), &counted(&[("a", now)])).is_some()
    }

    #[test]
    fn a_fall_by_half_is_suspect_and_a_small_database_does_not_cry_wolf() {
        for (before, now) in [(1_000_000, 500_000), (6000, 1000), (100, 50), (10, 0), (200, 0)] {
            assert!(totals(before, now), "{before} to {now}");
        }
        for (before, now) in [(3, 1), (3, 0), (9, 0), (99, 50), (80, 40), (6000, 3001), (5, 500)] {
            assert!(!totals(before, now), "{before} to {now}");
        }
    }

    #[test]
    fn a_large_table_that_is_empty_or_gone_is_suspect_although_others_hide_it() {
        let before = counted(&[("orders", 5000), ("events", 40_000), ("queue", 1200)]);
        let emptied = counted(&[("orders", 0), ("events", 40_000), ("queue", 1200)]);
        let told = against(&before, &emptied).expect("suspect");
        assert_eq!((told.rows_before, told.rows, told.tables.len()), (46_200, 41_200, 1));
        assert_eq!(told.tables[0].table, "orders");
        assert!(against(&before, &counted(&[("events", 40_000), ("queue", 1200)])).is_some());
        // A queue that runs dry is everyday life.
        let drained = counted(&[("orders", 5000), ("events", 40_000), ("queue", 0)]);
        assert_eq!(against(&before, &drained), None);
        // Renamed, not lost.
        let renamed = counted(&[("orders_2", 5000), ("events", 40_000), ("queue", 1200)]);
        assert_eq!(against(&before, &renamed), None);
    }

    #[test]
    fn rows_that_are_left_out_on_purpose_are_no_loss() {
        let before = counted(&[("orders", 5000), ("audit", 90_000)]).figures();
        let now = counted(&[("orders", 5000)]);
        let left_out = BTreeSet::from(["audit".to_owned()]);
        assert!(judge(&id(), &before, &now, true, &BTreeSet::new()).is_some());
        assert_eq!(judge(&id(), &before, &now, true, &left_out), None);
    }

    #[test]
    fn after_a_change_of_keys_only_totals_are_compared() {
        let before = counted(&[("old hash", 5000), ("other", 40_000)]).figures();
        let now = counted(&[("new hash", 4900), ("another", 36_000)]);
        assert_eq!(judge(&id(), &before, &now, false, &BTreeSet::new()), None);
        let now = counted(&[("new hash", 50)]);
        let told = judge(&id(), &before, &now, false, &BTreeSet::new()).expect("suspect");
        assert_eq!(told.tables, []);
        assert_eq!(told.reason(), format!("50 rows, and backup {} held 45000", id()));
    }

    #[test]
    fn the_open_figures_are_few_and_rounded() {
        let tables: BTreeMap<String, u64> =
            (0..100_u64).map(|n| (format!("{n:02}"), n * 111)).collect();
        let figures = Counted { total: 7, tables }.figures();
        assert_eq!(figures.tables.len(), TABLES_MAX);
        assert!(figures.tables.iter().all(|table| table.rows >= TABLE_MIN));
        let shown = figures.tables.iter().find(|table| table.table == "70").expect("recorded");
        assert_eq!(shown.rows, 7800);
        assert_eq!(
            [0, 7, 99, 100, 105, 9999, 10_500].map(rounded),
            [0, 7, 99, 100, 110, 10_000, 11_000]
        );
        assert!(rounded(u64::MAX) > 0);
    }

    proptest! {
        #[test]
        fn growth_and_small_losses_never_are(before in 0..1_000_000_u64, more in 0..1000_u64, lost in 0..10_u64) {
            prop_assert!(!totals(before, before + more));
            prop_assert!(before < 10 || !totals(before, before.saturating_sub(lost).max(1)));
        }

        #[test]
        fn whoever_lost_more_is_suspect_too(before in 0..1_000_000_u64, now in 0..1_000_000_u64, less in 0..1_000_000_u64) {
            prop_assert!(!totals(before, now) || totals(before, now.saturating_sub(less)));
        }

        #[test]
        fn many_rows_halved_always_are(before in 100..u64::MAX / 4, now in 0..u64::MAX / 8) {
            prop_assert_eq!(totals(before, now), now <= before / 2);
        }
    }
}
