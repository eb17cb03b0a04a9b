//! The held snapshot: one transaction that keeps every table to be dumped as it is while `pg_dump` runs.
//!
//! A TRUNCATE or a rewriting ALTER that commits between the export of a snapshot and `pg_dump`'s own lock
//! makes `pg_dump` read an empty table and exit 0. So the locks come first:
//!
//! 1. list the tables to be dumped, in a transaction of its own;
//! 2. `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`, then ACCESS SHARE on all of them. `LOCK TABLE` takes
//!    no snapshot, so what commits before the last lock is granted is still seen;
//! 3. `pg_export_snapshot()`: the transaction's snapshot, younger than every lock;
//! 4. list again inside; another list (a table made, dropped, renamed meanwhile) means ROLLBACK and again.
//!    Rewritten files of the same tables need no look: the lock was there before the snapshot.
//!
//! Locks are taken with NOWAIT, so that this session never waits while it holds one: it can be no part of a
//! deadlock (whose victim could be a migration), and whoever queues behind it queues for the dump alone. A
//! table that is not free is waited for with empty hands, at most [`HoldOptions::lock_wait`] at a time,
//! behind whatever waits there already; then all begins anew, at most [`HoldOptions::attempts_max`] times.
//!
//! Invariant: while a [`HeldSnapshot`] lives and [`HeldSnapshot::is_alive`], no table in `tables` with
//! [`DumpedRelation::is_locked`] can be dropped, truncated or rewritten, and `snapshot` can be imported. Views,
//! materialized views, sequences and foreign tables cannot be locked in PostgreSQL or need no lock: no rows of
//! theirs are dumped but sequence values, which ignore snapshots anyway.
//! Crash story: the connection ends, the server rolls back, locks and snapshot are gone, and a `pg_dump` that
//! imported the snapshot before goes on unprotected. So a dump counts only if the holder outlived it.

mod locks;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::PostgresError;
use super::dumped::DumpedRelation;
use super::preflight::PreflightError;
use super::session::Session;
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::observer::Observer;

pub use locks::hold;

/// How a snapshot is to be held.
#[derive(Debug, Clone)]
pub struct HoldOptions {
    /// Patterns of tables whose rows are left out, as for `pg_dump --exclude-table-data`.
    pub exclude_table_data: Vec<String>,
    /// How long to wait at a time for one table that another session holds; nothing is locked meanwhile.
    pub lock_wait: Duration,
    /// How many times to begin anew.
    pub attempts_max: u32,
}

impl Default for HoldOptions {
    /// At most about ten minutes in all.
    fn default() -> Self {
        Self {
            exclude_table_data: Vec::new(),
            lock_wait: Duration::from_secs(10),
            attempts_max: 60,
        }
    }
}

/// Why no snapshot is held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// No session.
    #[error(transparent)]
    Connect(PostgresError),
    /// The role cannot dump this database.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// Others hold or want tables exclusively, all the time.
    #[error("could not lock {tables} in {attempts} attempts{}", after_colon(.blockers))]
    Blocked {
        /// The tables, as far as known.
        tables: String,
        /// How often it was tried.
        attempts: u32,
        /// Who holds or wants them, and which of the two.
        blockers: Vec<String>,
    },
    /// Tables come and go faster than they can be locked.
    #[error("the list of tables changed in each of {attempts} attempts, last by {changed}")]
    Changing {
        /// How often it was tried.
        attempts: u32,
        /// A table that came, went or changed its name.
        changed: String,
    },
    /// The server's table of locks is too small.
    #[error("the server has no room for locks on {tables} tables")]
    TooManyTables {
        /// How many would have to be locked.
        tables: usize,
        /// The server's word.
        source: PostgresError,
    },
    /// A statement failed.
    #[error("could not {step}")]
    Statement {
        /// What was to be done.
        step: &'static str,
        /// The server's word.
        source: PostgresError,
    },
    /// The command was cancelled.
    #[error("interrupted while locking the tables to be dumped")]
    Interrupted,
}

/// What to do about a table that is never free.
pub const LOCKED_HINT: &str = "a migration or another exclusive lock is in the way: let it finish, or look at \
                               pg_stat_activity and pg_locks, then run the command again";

/// The end of a message that names who is in the way, as far as that is known.
pub fn after_colon(blockers: &[String]) -> String {
    if blockers.is_empty() { String::new() } else { format!(": {}", blockers.join(", ")) }
}

impl Failure for HoldError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Connect(error) => error.kind(),
            Self::Preflight(error) => error.kind(),
            Self::Interrupted => FailureKind::Interrupted,
            _ => FailureKind::Postgres,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Connect(error) | Self::Statement { source: error, .. } => return error.hint(),
            Self::Preflight(error) => return error.hint(),
            Self::Blocked { .. } => LOCKED_HINT,
            Self::Changing { .. } => {
                "something creates or drops tables all the time: keep such tables temporary, or run at a quieter hour"
            }
            Self::TooManyTables { .. } => {
                "raise max_locks_per_transaction (needs a restart); pg_dump itself needs as many locks"
            }
            Self::Interrupted => return None,
        }
        .to_owned())
    }
}

/// What is known of a snapshot that a session holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// The name to give to `pg_dump --snapshot`.
    pub snapshot: String,
    /// What the dump will hold, in the order of the names.
    pub tables: Vec<DumpedRelation>,
    /// Patterns of `exclude_table_data` that name nothing.
    pub unmatched: Vec<String>,
    /// `server_version_num`.
    pub server_version_num: u32,
    /// `server_version`.
    pub server_version: String,
    /// Whether the server is a standby.
    pub in_recovery: bool,
    /// WAL position, replayed on a standby, written on a primary; none where the server hides it.
    pub lsn: Option<String>,
    /// Timeline; none where the server hides it.
    pub timeline: Option<u32>,
    /// System identifier in decimal; none where the server hides it.
    pub system_identifier: Option<String>,
    /// How often it was tried; more than 1 means that something was in the way.
    pub attempts: u32,
}

impl Held {
    /// Relations whose rows are left out, `"schema"."name"` each: exact patterns for `--exclude-table-data`.
    pub fn excluded(&self) -> impl Iterator<Item = String> {
        self.tables.iter().filter(|table| table.rows_excluded).map(DumpedRelation::quoted)
    }
}

/// Who keeps others from tables of a dump.
#[derive(Debug, Clone)]
pub struct InTheWay {
    /// The tables, as far as known.
    pub tables: String,
    /// Who holds or wants them, and which of the two.
    pub blockers: Vec<String>,
}

/// A session that holds a snapshot and the locks that keep it true; dropping it lets go of them.
#[derive(Debug)]
pub struct HeldSnapshot {
    session: Session,
    /// What is known of it.
    pub held: Held,
}

impl HeldSnapshot {
    /// Connects and holds. Cancelling ends the wait at the server as well.
    pub async fn take(
        info: &ConnectionInfo,
        options: &HoldOptions,
        observer: &dyn Observer,
        cancel: &CancellationToken,
    ) -> Result<Self, HoldError> {
        let connect = Session::connect(info, "snapshot");
        let session = tokio::select! {
            () = cancel.cancelled() => return Err(HoldError::Interrupted),
            session = connect => session.map_err(HoldError::Connect)?,
        };
        let held = tokio::select! {
            () = cancel.cancelled() => None,
            held = hold(session.client(), options, observer) => Some(held?),
        };
        let Some(held) = held else {
            // Dropping the session alone would leave a backend that waits for its lock.
            let _ = session.cancel().await;
            return Err(HoldError::Interrupted);
        };
        Ok(Self { session, held })
    }

    /// The session, inside its transaction: what is read here is read from the snapshot. A statement that
    /// fails ends the hold.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Who queues for the tables, in front of everybody who comes after this session.
    pub async fn in_the_way(&self) -> Result<InTheWay, HoldError> {
        let blockers = locks::blockers(self.session.client(), &self.held.tables).await?;
        Ok(InTheWay { tables: blockers.tables(), blockers: blockers.who })
    }

    /// Whether locks and snapshot are still held, as far as an answer within `patience` tells.
    pub async fn is_alive(&self, patience: Duration) -> bool {
        // In a transaction that failed, every statement fails.
        let ping = self.session.client().batch_execute("SELECT 1");
        !self.session.is_closed()
            && matches!(tokio::time::timeout(patience, ping).await, Ok(Ok(())))
    }

    /// Ends the transaction. A failure means that it had ended before, and the dump was not protected.
    pub async fn release(self) -> Result<(), HoldError> {
        let end = self.session.client().batch_execute("COMMIT").await;
        end.map_err(|error| HoldError::Statement {
            step: "release the held snapshot",
            source: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_hold_names_table_and_holder() {
        let error = HoldError::Blocked {
            tables: "table shop.orders".into(),
            attempts: 3,
            blockers: vec!["held by pid 7 (psql, active)".into()],
        };
        assert_eq!(
            error.to_string(),
            "could not lock table shop.orders in 3 attempts: held by pid 7 (psql, active)"
        );
        assert_eq!(error.kind().exit_code(), 4);
        assert!(error.hint().is_some());
    }
}
