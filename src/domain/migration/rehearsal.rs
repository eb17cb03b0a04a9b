//! A rehearsal: what a command did to a copy, what of it counts as a loss, and what fails it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::super::id::BackupId;
use super::super::verification::{Check, Outcome};
use super::{CommandEnd, Warning};

/// PostgreSQL's table locks, the strongest last.
pub const LOCK_MODES: [&str; 8] = [
    "AccessShareLock",
    "RowShareLock",
    "RowExclusiveLock",
    "ShareUpdateExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
];
/// The weakest that keeps writers away.
pub const BLOCKS_WRITES: usize = 4;

/// How strong a lock of `pg_locks` is; none for what is no table's.
pub fn strength(mode: &str) -> Option<usize> {
    LOCK_MODES.iter().position(|own| *own == mode)
}

/// The strongest lock that was seen on one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableLock {
    /// `schema.table`.
    pub table: String,
    /// As `pg_locks` calls it.
    pub mode: String,
    /// From the first look that saw it to the last, at least so long.
    pub held_ms: u64,
}

/// A relation that got another file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// `schema.relation`.
    pub relation: String,
    /// Before.
    pub size_before_bytes: u64,
    /// And after.
    pub size_after_bytes: u64,
}

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowChange {
    /// `schema.table`.
    pub table: String,
    /// None where it was not there.
    pub before: Option<u64>,
    /// None where it is gone.
    pub after: Option<u64>,
}

/// What kind of thing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// A table, with its rows.
    Table,
    /// A column, with its values.
    Column,
    /// A type that columns with values had.
    Type,
    /// Rows of a table that is still there.
    Rows,
    /// Values of a column that is still there.
    Values,
}

/// Data that was there before and is not after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// What kind.
    pub kind: LossKind,
    /// `schema.table`, `schema.table.column`, `schema.type`.
    pub name: String,
    /// Rows of a table, values that are not null of a column or a type.
    pub count: u64,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, count } = self;
        match kind {
            LossKind::Table => write!(f, "table {name} is dropped, with {count} rows"),
            LossKind::Column => write!(f, "column {name} is dropped, with {count} values"),
            LossKind::Type => write!(f, "type {name} is dropped, of {count} values"),
            LossKind::Rows => write!(f, "{count} rows of table {name} are gone"),
            LossKind::Values => write!(f, "{count} values of column {name} are gone"),
        }
    }
}

/// A column as it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenColumn {
    /// Its name.
    pub name: String,
    /// Values that are not null.
    pub values: u64,
    /// The type that was made for this database, if it has one.
    pub own_type: Option<u32>,
}

/// A relation as it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `schema.relation`.
    pub name: String,
    /// Whether it is no index: a table, partitioned or not, or a materialized view.
    pub is_table: bool,
    /// None of an index, and of a partitioned table, whose partitions have them.
    pub rows: Option<u64>,
    /// Its file.
    pub file: u32,
    /// All of its file.
    pub size_bytes: u64,
    /// By number, which a rename keeps.
    pub columns: BTreeMap<i16, SeenColumn>,
}

/// All relations of a database by oid, which a rename keeps, and the types that were made for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Tables, partitioned ones too, materialized views, indexes.
    pub relations: BTreeMap<u32, Seen>,
    /// `schema.type`.
    pub types: BTreeMap<u32, String>,
}

impl Sight {
    /// What was there and is not in `after`. A new thing under an old name brings nothing back.
    pub fn losses(&self, after: &Self) -> Vec<Loss> {
        let mut losses = BTreeSet::new();
        let mut typed: BTreeMap<u32, u64> = BTreeMap::new();
        for (oid, was) in &self.relations {
            let Some(rows) = was.rows else { continue };
            for column in was.columns.values() {
                *typed.entry(column.own_type.unwrap_or_default()).or_default() += column.values;
            }
            let Some(is) = after.relations.get(oid) else {
                losses.insert(Loss { kind: LossKind::Table, name: was.name.clone(), count: rows });
                continue;
            };
            let fewer = rows.saturating_sub(is.rows.unwrap_or_default());
            losses.insert(Loss { kind: LossKind::Rows, name: was.name.clone(), count: fewer });
            for (number, column) in &was.columns {
                let (kind, count) = match is.columns.get(number) {
                    None => (LossKind::Column, column.values),
                    // Rows that went took theirs with them.
                    Some(now) => {
                        let gone = column.values.saturating_sub(now.values);
                        (LossKind::Values, gone.saturating_sub(fewer))
                    }
                };
                let name = format!("{}.{}", was.name, column.name);
                losses.insert(Loss { kind, name, count });
            }
        }
        for (oid, name) in &self.types {
            if !after.types.contains_key(oid) {
                let count = typed.get(oid).copied().unwrap_or_default();
                losses.insert(Loss { kind: LossKind::Type, name: name.clone(), count });
            }
        }
        losses.into_iter().filter(|loss| loss.count > 0).collect()
    }

    /// What got another file.
    pub fn rewrites(&self, after: &Self) -> Vec<Rewrite> {
        let both = self.relations.iter().filter_map(|(oid, was)| {
            let is = after.relations.get(oid)?;
            (was.file != is.file && was.file != 0).then(|| Rewrite {
                relation: was.name.clone(),
                size_before_bytes: was.size_bytes,
                size_after_bytes: is.size_bytes,
            })
        });
        both.collect()
    }

    /// Rows of every table that was or is there.
    pub fn rows(&self, after: &Self) -> Vec<RowChange> {
        let oids: BTreeSet<&u32> = self.relations.keys().chain(after.relations.keys()).collect();
        let mut rows: Vec<RowChange> = Vec::new();
        for oid in oids {
            let (was, is) = (self.relations.get(oid), after.relations.get(oid));
            let rows_of = |seen: Option<&Seen>| seen.and_then(|seen| seen.rows);
            let (before, after) = (rows_of(was), rows_of(is));
            if let (Some(seen), true) = (was.or(is), before.is_some() || after.is_some()) {
                rows.push(RowChange { table: seen.name.clone(), before, after });
            }
        }
        rows.sort_by(|one, other| one.table.cmp(&other.table));
        rows
    }
}

/// What fails a rehearsal beside the command itself and the assertions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailOn {
    /// Any loss.
    pub data_loss: bool,
    /// A lock that keeps writers away, held longer than this.
    pub lock_ms: Option<u64>,
    /// A rewrite of a relation that is larger than this.
    pub rewrite_bytes: Option<u64>,
}

impl FromStr for FailOn {
    type Err = String;

    /// `data-loss,lock>5s,rewrite>1GiB`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        for word in text.split(',').map(str::trim) {
            let limit = word.split_once('>').map(|(name, value)| (name.trim(), value.trim()));
            match limit {
                None if word == "data-loss" => all.data_loss = true,
                Some(("lock", value)) => {
                    all.lock_ms = Some(number(value, &[("ms", 1), ("s", 1000), ("min", 60_000)])?);
                }
                Some(("rewrite", value)) => {
                    let units = [
                        ("KiB", 1 << 10),
                        ("MiB", 1 << 20),
                        ("GiB", 1 << 30),
                        ("TiB", 1 << 40),
                        ("B", 1),
                    ];
                    all.rewrite_bytes = Some(number(value, &units)?);
                }
                None if matches!(word, "lock" | "rewrite") => {
                    return Err(format!(
                        "`{word}` wants a limit; a shell keeps `>` to itself without quotes"
                    ));
                }
                _ => {
                    return Err(format!("`{word}` is none of data-loss, lock>5s, rewrite>1GiB"));
                }
            }
        }
        Ok(all)
    }
}

fn number(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let factor = units.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| factor);
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    let wrong = || format!("`{text}` is no whole number with one of {}", names.join(", "));
    let value: u64 = digits.parse().map_err(|_| wrong())?;
    value.checked_mul(*factor.ok_or_else(wrong)?).ok_or_else(wrong)
}

/// What a rehearsal says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing speaks against the command.
    Passed,
    /// Something does.
    Failed,
    /// The command did not work on the copy, or not on it alone.
    None,
}

impl Verdict {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::None => "no verdict",
        }
    }
}

/// What a rehearsal found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsal {
    /// The command, its secrets masked.
    pub command: Vec<String>,
    /// The snapshot that was restored.
    pub snapshot: BackupId,
    /// How long that took.
    pub restore_ms: u64,
    /// How the command ended.
    pub ended: CommandEnd,
    /// The largest pause between two looks at the locks.
    pub resolution_ms: u64,
    /// The strongest lock on each table that was there before, and weaker ones that kept writers away for longer.
    pub locks: Vec<TableLock>,
    /// What got another file.
    pub rewrites: Vec<Rewrite>,
    /// Rows of each table.
    pub rows: Vec<RowChange>,
    /// What is gone.
    pub losses: Vec<Loss>,
    /// The assertions.
    pub checks: Vec<Check>,
    /// Invalid indexes and constraints that are NOT VALID.
    pub warnings: Vec<Warning>,
    /// How the copy differed from the database itself.
    pub differs: Vec<String>,
    /// What it says.
    pub verdict: Verdict,
    /// Why it is not passed.
    pub reasons: Vec<String>,
}

impl Rehearsal {
    /// Says what it says. Where the command was not at work on the copy alone, nothing else counts.
    pub fn judge(&mut self, fail_on: &FailOn, elsewhere: Vec<String>) {
        (self.verdict, self.reasons) = if elsewhere.is_empty() {
            let reasons = self.against(fail_on);
            let verdict = if reasons.is_empty() { Verdict::Passed } else { Verdict::Failed };
            (verdict, reasons)
        } else {
            (Verdict::None, elsewhere)
        };
    }

    /// One line for the list of events.
    pub fn summary(&self) -> String {
        let mut told = vec![format!("`{}`", self.command.join(" "))];
        told.push(format!("rehearsed on {}: {}", self.snapshot, self.verdict.as_str()));
        told.extend(self.reasons.iter().cloned());
        told.join("; ")
    }

    /// Why it fails, by the command, the assertions and what was asked for.
    pub fn against(&self, fail_on: &FailOn) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.ended.signal {
            Some(signal) => reasons.push(format!("the command was ended by signal {signal}")),
            None if self.ended.exit_code != 0 => {
                reasons.push(format!("the command ended with exit {}", self.ended.exit_code));
            }
            None => {}
        }
        let broken = self.checks.iter().filter(|check| check.result == Outcome::Failed);
        reasons.extend(broken.map(|check| format!("{}: {}", check.name, check.detail)));
        if fail_on.data_loss {
            reasons.extend(self.losses.iter().map(ToString::to_string));
        }
        let held = |lock: &&TableLock| {
            let blocks = strength(&lock.mode).is_some_and(|strength| strength >= BLOCKS_WRITES);
            blocks && fail_on.lock_ms.is_some_and(|limit| lock.held_ms > limit)
        };
        let locks = self.locks.iter().filter(held);
        reasons.extend(locks.map(|lock| {
            format!("{} on {} was held for {} ms", lock.mode, lock.table, lock.held_ms)
        }));
        let large = |one: &&Rewrite| {
            let size = one.size_before_bytes.max(one.size_after_bytes);
            fail_on.rewrite_bytes.is_some_and(|limit| size > limit)
        };
        let rewrites = self.rewrites.iter().filter(large);
        reasons.extend(
            rewrites.map(|one| {
                format!("{} is rewritten, {} bytes", one.relation, one.size_before_bytes)
            }),
        );
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, rows: u64, columns: &[(i16, &str, u64)]) -> Seen {
        let column = |&(number, name, values): &(i16, &str, u64)| {
            (number, SeenColumn { name: name.to_owned(), values, own_type: None })
        };
        Seen {
            name: name.to_owned(),
            is_table: true,
            rows: Some(rows),
            file: 1,
            size_bytes: 8192,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn sight(relations: Vec<(u32, Seen)>) -> Sight {
        Sight { relations: relations.into_iter().collect(), types: BTreeMap::new() }
    }

    fn told(before: &Sight, after: &Sight) -> Vec<String> {
        before.losses(after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_held_data_and_is_gone_is_a_loss_and_a_new_thing_of_its_name_is_no_comfort() {
        let before = sight(vec![(1, table("s.pet", 5, &[(1, "id", 5), (2, "chip", 3)]))]);
        // The name came back with a default in every row.
        let after = sight(vec![(1, table("s.pet", 5, &[(1, "id", 5), (3, "chip", 5)]))]);
        assert_eq!(told(&before, &after), ["column s.pet.chip is dropped, with 3 values"]);
        let replaced = sight(vec![(9, table("s.pet", 5, &[(1, "id", 5), (2, "chip", 3)]))]);
        assert_eq!(told(&before, &replaced), ["table s.pet is dropped, with 5 rows"]);
        let renamed = sight(vec![(1, table("s.animal", 5, &[(1, "id", 5), (2, "tag", 3)]))]);
        assert_eq!(told(&before, &renamed), Vec::<String>::new());
        let emptied = sight(vec![(1, table("s.pet", 5, &[(1, "id", 5), (2, "chip", 1)]))]);
        assert_eq!(told(&before, &emptied), ["2 values of column s.pet.chip are gone"]);
        let fewer = sight(vec![(1, table("s.pet", 4, &[(1, "id", 4), (2, "chip", 2)]))]);
        assert_eq!(told(&before, &fewer), ["1 rows of table s.pet are gone"]);
        // What held nothing is no loss.
        let empty = sight(vec![(1, table("s.pet", 0, &[(1, "id", 0)]))]);
        assert_eq!(told(&empty, &sight(vec![])), Vec::<String>::new());
    }

    #[test]
    fn limits_are_read_with_their_units_and_others_are_refused() {
        let all: FailOn = "data-loss,lock>5s,rewrite>1GiB".parse().expect("limits");
        let wanted = FailOn { data_loss: true, lock_ms: Some(5000), rewrite_bytes: Some(1 << 30) };
        assert_eq!(all, wanted);
        for wrong in ["loss", "lock", "lock>5", "lock>s", "rewrite>1GB", "lock>5h", ""] {
            assert!(wrong.parse::<FailOn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn locks_are_ordered_as_the_manual_orders_them() {
        assert!(strength("AccessExclusiveLock") > strength("ShareLock"));
        assert!(strength("ShareLock") > strength("RowExclusiveLock"));
        assert_eq!(strength("SIReadLock"), None);
    }

    #[test]
    fn a_verdict_has_every_reason_and_a_limit_that_is_met_is_none() {
        let mut rehearsal = Rehearsal {
            command: vec!["x".to_owned()],
            snapshot: "20261121T020000Z-5f3a9c21".parse().expect("an id"),
            restore_ms: 1,
            ended: CommandEnd { exit_code: 1, signal: None, duration_ms: 1 },
            resolution_ms: 5,
            locks: [("AccessExclusiveLock", 5001), ("RowExclusiveLock", 9000)]
                .map(|(mode, held_ms)| TableLock {
                    table: "s.pet".to_owned(),
                    mode: mode.to_owned(),
                    held_ms,
                })
                .to_vec(),
            rewrites: vec![Rewrite {
                relation: "s.pet".to_owned(),
                size_before_bytes: 1 << 30,
                size_after_bytes: 0,
            }],
            rows: Vec::new(),
            losses: vec![Loss { kind: LossKind::Column, name: "s.pet.chip".to_owned(), count: 3 }],
            checks: vec![Check::failed("assertions", "no pet without an owner")],
            warnings: Vec::new(),
            differs: Vec::new(),
            verdict: Verdict::Failed,
            reasons: Vec::new(),
        };
        let told = |limits: &str| rehearsal.against(&limits.parse().expect("limits"));
        let own = ["the command ended with exit 1", "assertions: no pet without an owner"];
        assert_eq!(rehearsal.against(&FailOn::default()), own);
        assert_eq!(told("data-loss")[2..], ["column s.pet.chip is dropped, with 3 values"]);
        // One that writers pass is held for as long as it likes.
        let lock = "AccessExclusiveLock on s.pet was held for 5001 ms";
        assert_eq!(told("lock>5s")[2..], [lock]);
        assert_eq!(told("lock>6s,rewrite>1GiB"), own);
        assert_eq!(told("rewrite>1MiB").len(), 3);
        // One that was elsewhere is not judged at all.
        rehearsal.judge(&FailOn::default(), vec!["it was elsewhere".to_owned()]);
        let said = (rehearsal.verdict, rehearsal.reasons.as_slice());
        assert_eq!(said, (Verdict::None, ["it was elsewhere".to_owned()].as_slice()));
        rehearsal.judge(&FailOn::default(), Vec::new());
        assert_eq!((rehearsal.verdict, rehearsal.reasons.len()), (Verdict::Failed, 2));
    }
}
