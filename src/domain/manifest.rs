//! The manifest: the object that makes a backup exist.
//!
//! Its open part can be read by everyone who reads the bucket; what tells of the data (the inventory)
//! is the sealed part. The byte format is `docs/repository-format.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::audit::RunId;
use super::chunk::Hash;
use super::id::{BackupId, ClusterName, EpochId};
use super::suspect::{RowFigures, Suspicion};

/// Logical or physical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupKind {
    /// A logical backup of one database, made by `pg_dump`.
    Snapshot,
}

/// Why a backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// By a schedule: the daemon, or cron.
    Scheduled,
    /// Before a migration.
    PreMigration,
    /// By hand.
    Manual,
    /// From a dump that another tool made.
    Imported,
}

impl Trigger {
    /// The word of the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::PreMigration => "pre-migration",
            Self::Manual => "manual",
            Self::Imported => "imported",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no trigger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a trigger: scheduled, pre-migration, manual or imported")]
pub struct TriggerError(pub String);

impl FromStr for Trigger {
    type Err = TriggerError;
    fn from_str(text: &str) -> Result<Self, TriggerError> {
        [Self::Scheduled, Self::PreMigration, Self::Manual, Self::Imported]
            .into_iter()
            .find(|trigger| trigger.as_str() == text)
            .ok_or_else(|| TriggerError(text.to_owned()))
    }
}

/// What a part holds. Named from the first version on, so that later kinds need no new format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartKind {
    /// A `pg_dump` custom-format archive without compression of its own.
    Archive,
    /// Rows of one table.
    TableRange,
    /// Roles and their settings: the script of `pg_dumpall --globals-only`.
    Globals,
    /// A tar of a data directory or a tablespace.
    Tar,
    /// PostgreSQL's own `backup_manifest`.
    BackupManifest,
}

/// One stream of a backup: `chunks` entries of the chunk list, from `first_chunk` on, joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it holds.
    pub kind: PartKind,
    /// A name that is unique in the backup: `archive`, `globals`.
    pub name: String,
    /// Size of the joined plaintext.
    pub size_bytes: u64,
    /// Index of its first entry in the chunk list.
    pub first_chunk: u64,
    /// Number of entries.
    pub chunks: u64,
}

/// The chunk list, an object beside the manifest (`<id>.chunks`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkListRef {
    /// Size of the list object.
    pub size_bytes: u64,
    /// BLAKE3 of the list object, in hex.
    pub blake3: String,
}

/// The versions that made a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// `server_version_num`, such as 150018.
    pub server_version_num: u32,
    /// `server_version`, as the server says it.
    pub server_version: String,
    /// The first line of `pg_dump --version`.
    pub pg_dump: String,
    /// pgkeep's own version.
    pub pgkeep: String,
}

/// The backup before this one (same cluster, kind and database), named and hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Its id.
    pub id: BackupId,
    /// BLAKE3 of its manifest's bytes, in hex.
    pub blake3: String,
}

/// A manifest as it is stored: JSON, signed beside (`<id>.json.minisig`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this document: 1.
    pub format: u32,
    /// The backup's id, also its object's name.
    pub id: BackupId,
    /// Snapshot or base backup.
    pub kind: BackupKind,
    /// The cluster's name, also part of the object's name.
    pub cluster: ClusterName,
    /// The database of a snapshot.
    pub database: String,
    /// Why it was taken.
    pub trigger: Trigger,
    /// When the command began, by this host's clock.
    pub started_at: Timestamp,
    /// When the last chunk was acknowledged.
    pub finished_at: Timestamp,
    /// The host that took it.
    pub host: String,
    /// Free labels of the operator.
    pub labels: BTreeMap<String, String>,
    /// Who made it.
    pub versions: Versions,
    /// `pg_control_system()`'s identifier, in decimal; none where the role may not read it.
    pub system_identifier: Option<String>,
    /// The timeline the server was on; none on a managed server that hides it.
    pub timeline: Option<u32>,
    /// WAL position when the dump's snapshot was exported.
    pub lsn: Option<String>,
    /// The epoch whose keys seal this backup.
    pub epoch: EpochId,
    /// Tables whose rows were left out on purpose.
    pub excluded_table_data: Vec<String>,
    /// Plain size of all parts.
    pub source_bytes: u64,
    /// Sealed size of the chunks this backup added.
    pub stored_bytes: u64,
    /// Entries in the chunk list.
    pub chunks_total: u64,
    /// Chunks this backup added.
    pub chunks_new: u64,
    /// The streams.
    pub parts: Vec<Part>,
    /// Where the streams' chunks are listed.
    pub chunk_list: ChunkListRef,
    /// The predecessor.
    pub previous: Option<Previous>,
    /// How many rows it holds, for the next one to be compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowFigures>,
    /// Why it was suspect when it was taken. Whether it still is, marks tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Suspicion>,
    /// Whether the cluster's name did not know the server when it was taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// The run that took it, as logs and the audit trail name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The sealed part in base64: an age file around a zstd frame around the inventory's JSON.
    pub sealed: String,
}

/// The label of a snapshot that was taken of a database just before a restore replaced what it held; its value
/// is the id of the backup that was restored.
pub const BEFORE_RESTORE_OF: &str = "before-restore-of";

impl Manifest {
    /// Whether it holds what somebody was about to replace: then it is never meant by `latest`.
    pub fn is_safety_snapshot(&self) -> bool {
        self.labels.contains_key(BEFORE_RESTORE_OF)
    }

    /// How long it took, by the clock of its host; zero where that was set back meanwhile.
    pub fn duration_ms(&self) -> u64 {
        let elapsed = self.started_at.duration_until(self.finished_at);
        u64::try_from(elapsed.as_millis()).unwrap_or(0)
    }

    /// The document that `snapshot --json` promises.
    pub fn summary(&self) -> Json {
        json!({
            "id": self.id,
            "kind": self.kind,
            "cluster": self.cluster,
            "database": self.database,
            "trigger": self.trigger,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "duration_ms": self.duration_ms(),
            "source_bytes": self.source_bytes,
            "stored_bytes": self.stored_bytes,
            "chunks_total": self.chunks_total,
            "chunks_new": self.chunks_new,
            "labels": self.labels,
            "suspect": self.suspect.as_ref().map(Suspicion::reason),
            "foreign": self.foreign,
        })
    }

    /// The part of that name.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// The hash of the chunk list, when it is well formed.
    pub fn chunk_list_hash(&self) -> Option<Hash> {
        Hash::from_hex(&self.chunk_list.blake3)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_manifest_of_before_is_readable_and_without_doubts_none_are_written() {
        let before = json!({
            "format": 1, "id": "20261121T020000Z-5f3a9c21", "kind": "snapshot", "cluster": "main",
            "database": "shop", "trigger": "manual", "started_at": "2026-11-21T02:00:00Z",
            "finished_at": "2026-11-21T02:00:03Z", "host": "db1", "labels": {},
            "versions": {"server_version_num": 150_018, "server_version": "15.18", "pg_dump": "", "pgkeep": "0.1.0"},
            "system_identifier": null, "timeline": null, "lsn": null, "epoch": "0badcafe",
            "excluded_table_data": [], "source_bytes": 1, "stored_bytes": 1, "chunks_total": 1,
            "chunks_new": 1, "parts": [], "chunk_list": {"size_bytes": 1, "blake3": "00"},
            "previous": null, "sealed": "",
        });
        let mut manifest: Manifest = serde_json::from_value(before.clone()).expect("readable");
        assert!(manifest.rows.is_none() && manifest.suspect.is_none() && !manifest.foreign);
        assert!(manifest.run.is_none());
        assert_eq!(serde_json::to_value(&manifest).expect("JSON"), before);
        manifest.foreign = true;
        assert_eq!(serde_json::to_value(&manifest).expect("JSON")["foreign"], Value::Bool(true));
    }
}
