//! The audit trail: who did what, when, with which result. One signed object for each run, below
//! `clusters/<cluster>/events/`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::BackupId;

/// A run: its id is found in logs, events, manifests and answers of the API alike. In the shape of a backup id.
pub type RunId = BackupId;

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Version of this document: 1.
    pub format: u32,
    /// The run's id, and the event's.
    pub id: RunId,
    /// The verb: `snapshot`, `verify`, `restore`, `prune`, `pin`, `unpin`, `adopt`, `import`.
    pub event: String,
    /// When it ended, by that host's clock.
    pub at: Timestamp,
    /// How long it took.
    #[serde(default)]
    pub duration_ms: u64,
    /// The database, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The backup, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupId>,
    /// Who asked: `command`, `schedule`, `api`.
    #[serde(default)]
    pub origin: String,
    /// The account that ran it.
    #[serde(default)]
    pub user: String,
    /// Where.
    pub host: String,
    /// pgkeep's version.
    pub pgkeep: String,
    /// The exit code of the contract: 0 when it succeeded.
    #[serde(default)]
    pub exit_code: u8,
    /// What went wrong, or what is worth telling, one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The backups that a prune is about to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<RemovedBackup>,
}

/// A backup that a prune is about to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedBackup {
    /// Its id.
    pub id: BackupId,
    /// Its database, where its manifest could be read.
    pub database: Option<String>,
    /// BLAKE3 of its manifest's bytes, in hex, likewise.
    pub manifest_blake3: Option<String>,
    /// `expired`, or that its run died.
    pub reason: String,
}
