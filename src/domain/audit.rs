//! The audit trail: who did what, when, with which result. One signed object for each run, below
//! `clusters/<cluster>/events/`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{BackupId, ClusterName};
use super::migration::{GuardOutcome, MigrationRecord, Rehearsal};

/// A run: its id is found in logs, events, manifests and answers of the API alike. In the shape of a backup id.
pub type RunId = BackupId;

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Version of this document: 1.
    pub format: u32,
    /// The event's id: that of its run, unless `run` names it.
    pub id: RunId,
    /// The run, where it has another event that bears its id: of a prune, what it was about to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The verb: `snapshot`, `verify`, `restore`, `migrate`, `rehearse`, `rollback`, `prune`, `pin`, `unpin`, `adopt`, `import`.
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
    /// The report of a guarded migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Box<MigrationRecord>>,
    /// The report of a rehearsal that was made for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Box<Rehearsal>>,
}

impl Event {
    /// The run that it is of.
    pub fn run(&self) -> &RunId {
        self.run.as_ref().unwrap_or(&self.id)
    }

    /// Whether it only says that a guarded command is about to begin.
    pub fn is_begin(&self) -> bool {
        let outcome = self.migration.as_ref().map(|record| record.outcome);
        outcome == Some(GuardOutcome::Begun)
    }

    /// Whether it is about that database.
    pub fn is_about(&self, database: &str) -> bool {
        let of = |removed: &RemovedBackup| removed.database.as_deref() == Some(database);
        self.database.as_deref() == Some(database) || self.backups.iter().any(of)
    }
}

/// An event, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The cluster below whose name it lies.
    pub cluster: ClusterName,
    /// The event.
    pub event: Event,
}

/// Who asks for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// Somebody, on the command line.
    #[default]
    Command,
    /// The daemon's schedule.
    Schedule,
    /// The daemon's API.
    Api,
}

impl Origin {
    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Schedule => "schedule",
            Self::Api => "api",
        }
    }
}

/// By whom and where something is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Actor {
    /// Who asked.
    pub origin: Origin,
    /// The account that this process runs under.
    pub user: String,
    /// This host.
    pub host: String,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_of_before_is_readable_and_a_new_one_writes_nothing_that_is_not_so() {
        let before = json!({
            "format": 1, "id": "20261121T020000Z-5f3a9c21", "event": "prune",
            "at": "2026-11-21T02:00:00Z", "host": "db1", "pgkeep": "0.1.0",
            "backups": [{
                "id": "20261001T020000Z-00000001", "database": "shop", "manifest_blake3": null,
                "reason": "expired",
            }],
        });
        let event: Event = serde_json::from_value(before).expect("readable");
        assert_eq!((event.run(), event.exit_code, event.origin.as_str()), (&event.id, 0, ""));
        assert!(event.is_about("shop") && !event.is_about("other"));
        let later = Event { run: Some(event.id.clone()), backups: Vec::new(), ..event.clone() };
        assert_eq!(later.run(), &event.id);
        let plain = serde_json::to_value(Event { run: None, ..later }).expect("JSON");
        let keys: Vec<&String> = plain.as_object().expect("an object").keys().collect();
        let always = [
            "at",
            "duration_ms",
            "event",
            "exit_code",
            "format",
            "host",
            "id",
            "origin",
            "pgkeep",
            "user",
        ];
        assert_eq!(keys, always);
    }
}
