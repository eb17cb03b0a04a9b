//! How it stands: what `status`, the status page, the metrics and the dead-man rule tell. Values only; `ops::status`
//! finds them out.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::id::{BackupId, ClusterName};
use super::manifest::Trigger;
use super::verification::Depth;

/// How it stands with everything that this host is configured for, and all that the repository holds of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// When this was found out.
    pub at: Timestamp,
    /// pgkeep's version.
    pub pgkeep: String,
    /// The repository's address, without credentials.
    pub repository: String,
    /// Who can read it.
    pub keys: KeyStatus,
    /// The clusters by name.
    pub clusters: Vec<ClusterStatus>,
    /// Backups whose manifests cannot be read or trusted, one line each.
    pub faults: Vec<String>,
}

impl Status {
    /// All that is overdue, and what cannot be read: with any, `--strict` fails.
    pub fn failures(&self) -> Vec<String> {
        let overdue = self.clusters.iter().flat_map(|cluster| {
            let of = |database: &DatabaseStatus| {
                let name = format!("{}/{}", cluster.name, database.name);
                database.overdue.iter().map(|why| format!("{name}: {why}")).collect::<Vec<_>>()
            };
            cluster.databases.iter().flat_map(of).collect::<Vec<_>>()
        });
        overdue.chain(self.faults.iter().cloned()).collect()
    }
}

/// Who can read the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyStatus {
    /// Whether stored objects are encrypted.
    pub encrypted: bool,
    /// The epoch that this host writes in, if it writes.
    pub epoch: Option<String>,
    /// The recipients that backups are encrypted to: public keys.
    pub recipients: Vec<String>,
    /// The key id of this host's signer (minisign's form), if it writes.
    pub signer: Option<String>,
    /// Whether this host holds an identity.
    pub identity_here: bool,
    /// Whether an identity is known to be kept elsewhere (`key confirm`); none where this host cannot tell.
    pub confirmed_elsewhere: Option<bool>,
}

impl KeyStatus {
    /// Whether losing this host may lose every backup.
    pub fn is_kept_only_here(&self) -> bool {
        self.encrypted && self.identity_here && self.confirmed_elsewhere == Some(false)
    }
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterStatus {
    /// Its name.
    pub name: ClusterName,
    /// The IANA zone that its schedules are in.
    pub timezone: String,
    /// What runs when, as configured.
    pub schedules: Schedules,
    /// When it is pruned next.
    pub next_prune: Option<Timestamp>,
    /// Its databases by name.
    pub databases: Vec<DatabaseStatus>,
    /// Continuous WAL.
    pub wal: WalStatus,
    /// To which times it can be recovered.
    pub recovery_windows: Vec<RecoveryWindow>,
}

/// Cron expressions, none where nothing is scheduled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Schedules {
    /// Of snapshots.
    pub snapshot: Option<String>,
    /// Of verifications.
    pub verify: Option<String>,
    /// Of prunes.
    pub prune: Option<String>,
}

/// Continuous WAL of a cluster. This pgkeep keeps none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WalStatus {
    /// `off`.
    pub mode: String,
    /// How much WAL is not in the repository yet.
    pub lag_bytes: Option<u64>,
    /// How old the newest WAL there is.
    pub lag_ms: Option<u64>,
    /// The newest whole segment there.
    pub last_segment: Option<String>,
    /// Segments that are missing.
    pub gaps: Vec<String>,
}

impl WalStatus {
    /// None is kept.
    pub fn off() -> Self {
        Self {
            mode: "off".to_owned(),
            lag_bytes: None,
            lag_ms: None,
            last_segment: None,
            gaps: Vec::new(),
        }
    }
}

/// A stretch of time to which a cluster can be recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecoveryWindow {
    /// The timeline.
    pub timeline: u32,
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// A database.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatabaseStatus {
    /// Its name.
    pub name: String,
    /// Whether the configuration means it; false for one that only has backups.
    pub configured: bool,
    /// How many backups there are.
    pub backups: u64,
    /// What they take up together, where each chunk counts for the backup that stored it.
    pub stored_bytes: u64,
    /// The newest backup that is in no doubt: not suspect, not foreign, no failed verification.
    pub last_good: Option<BackupFacts>,
    /// The newest backup, where that is another one, and what is wrong with it (`why`).
    #[serde(serialize_with = "in_doubt")]
    pub newest_in_doubt: Option<(BackupFacts, String)>,
    /// The newest verification that passed.
    pub last_verified: Option<VerifiedFacts>,
    /// The median size of the good backups before the last good one, up to seven.
    pub usual_bytes: Option<u64>,
    /// The next run of its schedule.
    pub next_snapshot: Option<Timestamp>,
    /// Likewise.
    pub next_verify: Option<Timestamp>,
    /// What the next prune removes.
    pub removes_next: Vec<Removal>,
    /// What should have happened and did not (`alarm` in the configuration).
    pub overdue: Vec<Overdue>,
    /// Backups and verifications of the last 30 days, oldest first, at most 200.
    pub timeline: Vec<Mark>,
}

/// A rule of `alarm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A good backup, often enough.
    Backup,
    /// A verified restore, often enough.
    Verified,
}

impl Rule {
    /// What it asks for.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "good backup",
            Self::Verified => "verified restore",
        }
    }
}

/// A rule that is broken. Its line, which is all that a document holds of it, grows with time; the rule stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// The rule.
    pub rule: Rule,
    /// What should have happened and did not.
    pub line: String,
}

impl Overdue {
    /// Of [`Rule::Backup`].
    pub fn backup(line: impl Into<String>) -> Self {
        Self { rule: Rule::Backup, line: line.into() }
    }

    /// Of [`Rule::Verified`].
    pub fn verified(line: impl Into<String>) -> Self {
        Self { rule: Rule::Verified, line: line.into() }
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl Serialize for Overdue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.line)
    }
}

impl PartialEq<&str> for Overdue {
    fn eq(&self, line: &&str) -> bool {
        self.line == *line
    }
}

/// One object, as scripts would have it.
#[expect(clippy::ref_option, reason = "serde hands it over so")]
fn in_doubt<S: Serializer>(
    value: &Option<(BackupFacts, String)>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct InDoubt<'a> {
        #[serde(flatten)]
        facts: &'a BackupFacts,
        why: &'a str,
    }
    value.as_ref().map(|(facts, why)| InDoubt { facts, why }).serialize(serializer)
}

/// A backup in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupFacts {
    /// Its id.
    pub id: BackupId,
    /// Why it was taken.
    pub trigger: Trigger,
    /// When it was whole.
    pub finished_at: Timestamp,
    /// How long ago that was.
    pub age_ms: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// Plain size.
    pub source_bytes: u64,
    /// What it added to the repository.
    pub stored_bytes: u64,
}

/// A verification that passed, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedFacts {
    /// The backup.
    pub id: BackupId,
    /// When it was proved.
    pub verified_at: Timestamp,
    /// How long ago that was.
    pub age_ms: u64,
    /// How long fetching, restoring and checking took: the real recovery time.
    pub duration_ms: u64,
    /// How deep it went.
    pub depth: Depth,
}

/// A backup that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// Which.
    pub id: BackupId,
    /// Why.
    pub reason: String,
}

/// Something on the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: MarkKind,
    /// The backup.
    pub id: BackupId,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkKind {
    /// A backup was taken.
    Backup,
    /// A backup was taken that is in doubt.
    DoubtfulBackup,
    /// A verification passed.
    Verified,
    /// A verification failed.
    Failed,
}
