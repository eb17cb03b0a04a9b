//! What a verification found.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::id::BackupId;

/// Of one check, or of a whole verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Compared and equal.
    Passed,
    /// Compared and different, or could not be loaded.
    Failed,
    /// Not applicable here; the detail says why. A skipped check proves nothing.
    Skipped,
}

/// How deep a verification goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Restore, inventory, row counts, sequences, assertions.
    Counts,
    /// `Counts`, and every row's content, and `pg_amcheck`.
    Full,
}

/// One check with its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `load`, `inventory`, `row-counts`, `sequences`, `assertions`, `content`, `amcheck`; `fetch` and
    /// the names of parts that are fetched and not loaded (`globals`).
    pub name: String,
    /// What it found.
    pub result: Outcome,
    /// One line: what was compared, or the first differences by name.
    pub detail: String,
}

impl Check {
    /// A check that found no difference.
    pub fn passed(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), result: Outcome::Passed, detail: detail.into() }
    }
    /// A check that found one.
    pub fn failed(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), result: Outcome::Failed, detail: detail.into() }
    }
    /// A check that could not apply.
    pub fn skipped(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), result: Outcome::Skipped, detail: detail.into() }
    }
}

/// A verification as it is recorded, signed, under `verifications/<backup id>/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationRecord {
    /// Version of this document: 1.
    pub format: u32,
    /// The record's own id, in the shape of a backup id.
    pub id: BackupId,
    /// The backup that was verified.
    pub backup: BackupId,
    /// BLAKE3 of that backup's manifest bytes, in hex.
    pub manifest_blake3: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long fetching, restoring and checking took: the real recovery time.
    pub duration_ms: u64,
    /// How deep it went.
    pub depth: Depth,
    /// Failed if any check failed.
    pub result: Outcome,
    /// The checks in order.
    pub checks: Vec<Check>,
    /// The host that verified, and its pgkeep version.
    pub host: String,
    /// pgkeep's version.
    pub pgkeep: String,
}

impl VerificationRecord {
    /// When it ended.
    pub fn finished_at(&self) -> Timestamp {
        let took = SignedDuration::from_millis(i64::try_from(self.duration_ms).unwrap_or(0));
        self.started_at.checked_add(took).unwrap_or(self.started_at)
    }

    /// Whether this one, being the newer, leaves `earlier` standing: what a deeper look found is not refuted by one
    /// that did not look there.
    pub fn leaves_standing(&self, earlier: &Self) -> bool {
        earlier.result == Outcome::Failed
            && self.result != Outcome::Failed
            && self.depth < earlier.depth
    }
}

/// The check that fails when the backup could not be fetched whole: damage in the repository itself.
pub const FETCH: &str = "fetch";

/// The verdict over checks: failed if one failed, and a verification that compared nothing has failed.
pub fn outcome_of(checks: &[Check]) -> Outcome {
    let any = |result| checks.iter().any(|check| check.result == result);
    if any(Outcome::Failed) || !any(Outcome::Passed) { Outcome::Failed } else { Outcome::Passed }
}
