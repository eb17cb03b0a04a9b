//! Why a guarded command was not run, or what is wrong although it succeeded.

use crate::domain::failure::{Failure, FailureKind};
use crate::domain::migration::{Failed, Tool};
use crate::domain::told::Failed as Told;
use crate::guard::rehearse::RehearseError;
use crate::notify::NotifyError;
use crate::ops::inspect::InspectError;
use crate::ops::snapshot::SnapshotError;
use crate::ops::verify::VerifyError;
use crate::postgres::PostgresError;
use crate::proof::ProofError;

/// Why it came to nothing, or to nothing good.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There is no such program.
    #[error("the command `{program}` {why}, and nothing was done")]
    CommandNotFound {
        /// The program.
        program: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What would be saved is not what it works on.
    #[error(
        "the command works on {named}, and the snapshot would be of {guarded}: the command was not run"
    )]
    AnotherDatabase {
        /// Which would be saved.
        guarded: String,
        /// Which it names.
        named: String,
    },
    /// It was there and could not be started.
    #[error("the command `{program}` cannot be started, and the database is as it was")]
    NotStarted {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The server, before the command.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Its tool has failed migrations, and would refuse.
    #[error(
        "{} holds a migration that failed, `{}`: {} would refuse, and the command was not run",
        .table.as_deref().unwrap_or("its history"), .failed.name, .tool.name()
    )]
    FailedBefore {
        /// The tool.
        tool: Tool,
        /// Its table.
        table: Option<String>,
        /// The first of them.
        failed: Failed,
    },
    /// The way back is not open from here.
    #[error("a rollback could not run from here, and the command was not run: {0}")]
    NoWayBack(String),
    /// The snapshot.
    #[error("the snapshot failed, and the command was not run")]
    Snapshot(#[source] SnapshotError),
    /// Somebody else is at that database.
    #[error(
        "another run is at database `{database}`: waited {waited} s, and the command was not run"
    )]
    Busy {
        /// The database.
        database: String,
        /// For so long.
        waited: u64,
    },
    /// Others are kept away no more.
    #[error("the lock on database `{0}` was lost, and the command was not run")]
    LockLost(String),
    /// The plan was another.
    #[error("database `{0}` holds something by now, and the command was not run")]
    NoLongerEmpty(String),
    /// The snapshot could not be looked up.
    #[error("the snapshot cannot be found again, and the command was not run")]
    Inspect(#[from] InspectError),
    /// The snapshot could not be verified.
    #[error("the snapshot cannot be verified, and the command was not run")]
    Verify(#[from] VerifyError),
    /// The snapshot is not what was recorded.
    #[error("the snapshot failed its verification, and the command was not run: {0}")]
    NotProved(String),
    /// The rehearsal says no, or could not be made.
    #[error("the command was not run")]
    Rehearsal(#[from] RehearseError),
    /// The assertions could not be asked.
    #[error("the assertions cannot be asked")]
    Proof(#[from] ProofError),
    /// Health cannot be asked.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// It succeeded, and yet.
    #[error("the command succeeded, but {0}")]
    ChecksFailed(String),
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
}

impl MigrateError {
    fn cause(&self) -> Option<&dyn Failure> {
        Some(match self {
            Self::Postgres(error) => error,
            Self::Snapshot(error) => error,
            Self::Inspect(error) => error,
            Self::Verify(error) => error,
            Self::Rehearsal(error) => error,
            Self::Proof(error) => error,
            Self::Notify(error) => error,
            _ => return None,
        })
    }
}

impl Failure for MigrateError {
    /// Whatever kept the command from being run is [`FailureKind::NotRun`], unless it is wrong use, somebody else, or a
    /// signal: other codes may be the command's own.
    fn kind(&self) -> FailureKind {
        match self {
            Self::CommandNotFound { .. } | Self::NotStarted { .. } => FailureKind::CommandNotFound,
            Self::AnotherDatabase { .. } => FailureKind::Usage,
            Self::Busy { .. } => FailureKind::Busy,
            Self::ChecksFailed(_) => FailureKind::ChecksFailed,
            Self::Interrupted => FailureKind::Interrupted,
            error => match error.cause().map(Failure::kind) {
                Some(kind @ (FailureKind::Usage | FailureKind::Interrupted)) => kind,
                _ => FailureKind::NotRun,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(hint) = self.cause().and_then(Failure::hint) {
            return Some(hint);
        }
        Some(match self {
            Self::CommandNotFound { .. } | Self::NotStarted { .. } => {
                "the command stands behind `--`, as you would type it: `pgkeep migrate -- npx prisma migrate deploy`"
                    .to_owned()
            }
            Self::AnotherDatabase { .. } => {
                "have both name the same one: --database, PGKEEP_DATABASE_URL, or the command's own DATABASE_URL; \
                 --elsewhere goes on all the same"
                    .to_owned()
            }
            Self::FailedBefore { tool, failed, .. } => tool.after_failure(failed),
            Self::NoWayBack(_) => {
                "leave out --require-rollback to go on without, or run it where the recovery kit is, as a role \
                 that may create databases, and with room for a copy"
                    .to_owned()
            }
            Self::Busy { .. } => {
                "a snapshot or another guarded migration: `pgkeep log` shows those that ended; --wait waits longer"
                    .to_owned()
            }
            Self::LockLost(_) => {
                "the server ended the session that held it: run it again".to_owned()
            }
            Self::NoLongerEmpty(_) => "run it again, for a snapshot of that".to_owned(),
            Self::NotProved(_) => {
                "`pgkeep show` has the verification; find out why before you migrate".to_owned()
            }
            Self::ChecksFailed(_) => {
                "the database is as the command left it; the way back is told above".to_owned()
            }
            Self::Interrupted => "the command was not run; run it again".to_owned(),
            _ => "run `pgkeep check`".to_owned(),
        })
    }
}

/// What kept the repository or the server from being used at all, as the guard tells it.
pub fn before_anything(told: Told) -> Told {
    match told.kind {
        FailureKind::Usage
        | FailureKind::Busy
        | FailureKind::CommandNotFound
        | FailureKind::Interrupted => told,
        _ => Told { kind: FailureKind::NotRun, ..told },
    }
}
