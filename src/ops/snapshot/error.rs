//! Why a snapshot was not taken.

use super::hooks::HookError;
use crate::domain::archive::ArchiveError;
use crate::domain::failure::{Failure, FailureKind};
use crate::postgres::PostgresError;
use crate::postgres::catalog::CatalogError;
use crate::postgres::hold::{HoldError, LOCKED_HINT, after_colon};
use crate::repo::RepoError;

/// Why a snapshot was not taken. Nothing half-made is listed, whatever it was.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The server, or a client program.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Its tables could not be held still, or not be read by this role.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// What `pg_dump` wrote is no whole archive.
    #[error("`pg_dump` wrote an archive that is not whole")]
    Archive(#[from] ArchiveError),
    /// `pg_dump` passed over rows that were to be kept.
    #[error("`pg_dump` left out the rows of {}", .0.join(", "))]
    Unread(Vec<String>),
    /// Others queued for tables in front of `pg_dump`, each time anew.
    #[error("could not lock {tables} for `pg_dump` in {attempts} attempts{}", after_colon(.blockers))]
    Overtaken {
        /// The tables, as far as known.
        tables: String,
        /// How often it was tried.
        attempts: u32,
        /// Who wants them.
        blockers: Vec<String>,
    },
    /// Another run is at it.
    #[error("another snapshot of `{0}` is being taken")]
    Busy(String),
    /// The `before` hook.
    #[error("the `before` hook failed, and the snapshot was not taken")]
    Hook(#[from] HookError),
    /// The session that protected the dump ended before it.
    #[error("the session that held the tables of `{0}` ended before the dump")]
    HolderLost(String),
    /// Nothing happened for too long.
    #[error("the snapshot of `{database}` stood still for {} while {step}", told(.idle))]
    Stalled {
        /// The database.
        database: String,
        /// What was being done.
        step: String,
        /// The limit.
        idle: std::time::Duration,
    },
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
}

impl Failure for SnapshotError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Repo(error) => error.kind(),
            Self::Postgres(error) => error.kind(),
            Self::Hold(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::Archive(_)
            | Self::Unread(_)
            | Self::Overtaken { .. }
            | Self::HolderLost(_)
            | Self::Stalled { .. } => FailureKind::Postgres,
            Self::Busy(_) => FailureKind::Busy,
            Self::Hook(_) => FailureKind::Unexpected,
            Self::Interrupted => FailureKind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Repo(error) => return error.hint(),
            Self::Postgres(error) => return error.hint(),
            Self::Hold(error) => return error.hint(),
            Self::Catalog(error) => return error.hint(),
            Self::Archive(_) => "nothing was kept; check the server's log and run it again",
            Self::Unread(_) => {
                "nothing was kept; check which `pg_dump` is run (`bin_dir`), and name tables whose rows \
                 are not wanted in `exclude_table_data`"
            }
            Self::Overtaken { .. } => LOCKED_HINT,
            Self::Busy(_) => "wait for it to end and run it again",
            Self::Hook(_) => "run the command by hand to see why; an empty list turns the hook off",
            Self::HolderLost(_) => {
                "nothing was kept; was the server restarted, or the session ended? run it again"
            }
            Self::Stalled { .. } => {
                "nothing was kept; see what the server is doing (pg_stat_activity, its log) and whether the \
                 network loses connections; the cluster's `idle_timeout` gives it longer"
            }
            Self::Interrupted => "nothing was kept",
        };
        Some(hint.to_owned())
    }
}

fn told(duration: &std::time::Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 120 && seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
