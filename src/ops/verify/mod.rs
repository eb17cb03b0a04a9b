//! `verify`: a backup is restored into scratch and compared with what was recorded of its source.
//!
//! Nothing live is touched. The result is a signed record beside the backup, good or bad: damage in the
//! repository is a failed verification too, not only an error. What keeps a verification from being made at
//! all (a wrong identity, a store out of reach, no room) is an error and leaves no record. A record that the
//! store does not take is an error beside the result.
//!
//! Crash story: scratch goes with the command; what a SIGKILL leaves of it is removed by the next run. A
//! crash before the record is written means the verification did not happen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

mod choose;
mod error;
mod ground;
mod progress;
mod standing;
mod stored;

pub use choose::{Choice, choose};
pub use error::VerifyError;
pub use standing::{StandingCopy, stand};
pub use stored::{CheckingStored, DamagedChunk, StoredChoice, StoredReport, check_stored};

use super::copy::{CopyError, OpenedBackup};
use crate::codec::sign::SigningKey;
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::{Failure as _, FailureKind};
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::observer::{Observer, Severity};
use crate::domain::verification::{Check, Depth, FETCH, Outcome, VerificationRecord, outcome_of};
use crate::proof::{Assertion, ProofError};
use crate::repo::catalog::Entry;
use crate::repo::damage::ChunkAddress;
use crate::repo::{RepoError, Repository, layout};
use crate::scratch::{ScratchError, registry, space};

/// Where copies are proved.
#[derive(Debug, Clone)]
pub enum ScratchChoice {
    /// An ephemeral cluster below the scratch directory; where that cannot be, a database on the server
    /// of the backup's cluster, which is said aloud.
    Auto,
    /// An ephemeral cluster below this directory, or nowhere.
    Directory(PathBuf),
    /// A database on this server.
    Server(Box<ConnectionInfo>),
}

/// What a verification works with.
#[derive(Clone, Copy)]
pub struct Verifying<'a> {
    /// Where the backups are.
    pub repository: &'a Repository,
    /// The server of their cluster, where it is configured.
    pub server: Option<&'a ConnectionInfo>,
    /// Where PostgreSQL's programs are looked for first.
    pub bin_dir: Option<&'a Path>,
    /// Where clusters are made, and what `pg_restore` reads.
    pub scratch_dir: &'a Path,
    /// Where copies are proved.
    pub scratch: &'a ScratchChoice,
    /// What must hold in a copy.
    pub assertions: &'a [Assertion],
    /// How deep.
    pub depth: Depth,
    /// How long the server that takes the copy may be silent.
    pub idle: Duration,
    /// Signs the record; without one there is none.
    pub signer: Option<&'a SigningKey>,
    /// This host's name, for the record.
    pub host: &'a str,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Ends it.
    pub cancel: &'a CancellationToken,
}

/// What a verification found.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// The backup.
    pub id: BackupId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its database.
    pub database: String,
    /// Failed if any check failed.
    pub result: Outcome,
    /// The checks in order.
    pub checks: Vec<Check>,
    /// How long fetching, restoring and checking took: the real recovery time.
    pub duration_ms: u64,
    /// Whether a signed record was kept.
    pub recorded: bool,
    /// Why not, where this host signs them.
    pub unrecorded: Option<Arc<RepoError>>,
}

impl VerifyReport {
    /// The document that `verify --json` promises.
    pub fn summary(&self) -> Json {
        json!({
            "id": self.id,
            "result": self.result,
            "checks": self.checks,
            "duration_ms": self.duration_ms,
            "cluster": self.cluster,
            "database": self.database,
            "recorded": self.recorded,
        })
    }
}

/// One backup's verification: a report (which may tell of failed checks), or why there is none.
pub type Verified = (BackupId, Result<VerifyReport, VerifyError>);

/// Verifies `entries` one after the other; one that fails does not stop the next, an interruption does.
///
/// `done` is told each result as it comes. The gravest of them is the command's exit code.
pub async fn run(
    verifying: &Verifying<'_>,
    entries: &[Entry],
    mut done: impl FnMut(&Verified),
) -> Result<Vec<Verified>, VerifyError> {
    sweep(verifying).await?;
    let mut all = Vec::with_capacity(entries.len());
    for entry in entries {
        let verified = (entry.manifest.id.clone(), one(verifying, entry).await);
        done(&verified);
        all.push(verified);
        if verifying.cancel.is_cancelled() {
            break;
        }
    }
    Ok(all)
}

/// The kind that decides over the exit code; none when all passed.
pub fn gravest(all: &[Verified]) -> Option<FailureKind> {
    let kind = |(_, result): &Verified| match result {
        Ok(report) if report.result == Outcome::Passed => {
            report.unrecorded.as_ref().map(|error| error.kind())
        }
        Ok(_) => Some(FailureKind::Damage),
        Err(error) => Some(error.kind()),
    };
    all.iter().filter_map(kind).min()
}

/// Removes what killed runs left here. What they left on servers is looked for when one is used.
async fn sweep(verifying: &Verifying<'_>) -> Result<(), VerifyError> {
    let mut parents = vec![verifying.scratch_dir.to_owned()];
    if let ScratchChoice::Directory(directory) = verifying.scratch {
        parents.push(directory.clone());
    }
    for parent in parents {
        let swept = tokio::task::spawn_blocking(move || registry::sweep_directories(&parent));
        for path in swept.await.expect("a sweep does not panic")? {
            let told = format!("removed `{}`, which a killed run left", path.display());
            verifying.observer.finding(Severity::Notice, &told);
        }
    }
    Ok(())
}

async fn one(verifying: &Verifying<'_>, entry: &Entry) -> Result<VerifyReport, VerifyError> {
    let manifest = &entry.manifest;
    let ambient = verifying.repository.ambient();
    let (started_at, begun) = (ambient.now(), ambient.monotonic());
    let checks = match checks(verifying, entry).await {
        Ok(checks) => checks,
        // What is wrong with the backup itself is what a verification is made to find.
        Err(error) => {
            let named = error.chunk();
            let detail = error.damage()?;
            let repository = verifying.repository;
            // Before the record: what is damaged must be in no later backup, told or not.
            match stored::condemn_of(repository, entry, named, verifying.observer).await {
                Ok(0) => {}
                Ok(new) => {
                    let told = format!(
                        "{new} damaged chunks are condemned: the next backup stores their content afresh"
                    );
                    verifying.observer.finding(Severity::Notice, &told);
                }
                Err(error) => {
                    let told = format!("what else is damaged could not be told: {}", chain(&error));
                    verifying.observer.finding(Severity::Warning, &told);
                }
            }
            vec![Check::failed(FETCH, detail)]
        }
    };
    let spent = ambient.monotonic().saturating_sub(begun);
    let mut report = VerifyReport {
        id: manifest.id.clone(),
        cluster: manifest.cluster.clone(),
        database: manifest.database.clone(),
        result: outcome_of(&checks),
        checks,
        duration_ms: milliseconds(spent),
        recorded: false,
        unrecorded: None,
    };
    let Some(signer) = verifying.signer else {
        let told = "no signing key on this host: the verification leaves no record";
        verifying.observer.finding(Severity::Warning, told);
        return Ok(report);
    };
    let record = VerificationRecord {
        format: 1,
        id: BackupId::new(started_at, ambient.random()),
        backup: manifest.id.clone(),
        manifest_blake3: entry.manifest_hash.to_hex(),
        started_at,
        duration_ms: report.duration_ms,
        depth: verifying.depth,
        result: report.result,
        checks: report.checks.clone(),
        host: verifying.host.to_owned(),
        pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
    };
    // What was found is told all the same: a store that may only be read hides no damage.
    match verifying.repository.record_verification(&manifest.cluster, record, signer).await {
        Ok(()) => report.recorded = true,
        Err(error) => report.unrecorded = Some(Arc::new(error)),
    }
    Ok(report)
}

/// Fetches, restores and compares.
async fn checks(verifying: &Verifying<'_>, entry: &Entry) -> Result<Vec<Check>, VerifyError> {
    let backup = OpenedBackup::open(verifying.repository, entry).await?;
    let scratch_dir = verifying.scratch_dir;
    std::fs::create_dir_all(scratch_dir).map_err(ScratchError::io("cannot create", scratch_dir))?;
    space::require(scratch_dir, 0)?;
    let others = backup.prove_other_parts(verifying.observer, verifying.cancel).await?;
    let standing::Stood { server, mut checks, .. } =
        standing::load(verifying, &backup, None).await?;
    server.stop().await?;
    for (part, size_bytes) in others {
        checks.push(Check::passed(part, format!("{size_bytes} bytes are as they were stored")));
    }
    Ok(checks)
}

impl VerifyError {
    /// The chunk that a restore stumbled over.
    fn chunk(&self) -> Option<ChunkAddress> {
        let Self::Copy(CopyError::Repo(RepoError::Chunk { key, .. })) = self else { return None };
        layout::chunk_of(key)
    }

    /// The words of a failed check, where the backup itself is at fault; else the error.
    fn damage(self) -> Result<String, Self> {
        let copy = matches!(&self, Self::Copy(error) if error.is_damage());
        let proof = matches!(&self, Self::Proof(error) if error.kind() == FailureKind::Damage);
        if !copy && !proof {
            return Err(self);
        }
        let hint = self.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        Ok(format!("{}{hint}", chain(&self)))
    }
}

/// An error with its causes, as one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        source = cause.source();
    }
    line
}

impl From<ProofError> for VerifyError {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::Stopped => Self::Interrupted,
            error => Self::Proof(error),
        }
    }
}

impl From<CopyError> for VerifyError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Interrupted => Self::Interrupted,
            error => Self::Copy(error),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
