//! Why a rehearsal could not be made, or what it says against the command.

use crate::domain::failure::{Failure, FailureKind};
use crate::domain::migration::Rehearsal;
use crate::domain::migration::rehearsal::Verdict;
use crate::ops::inspect::InspectError;
use crate::ops::snapshot::SnapshotError;
use crate::ops::verify::VerifyError;
use crate::postgres::PostgresError;
use crate::proof::ProofError;

/// Why there is no verdict, or not a good one.
#[derive(Debug, thiserror::Error)]
pub enum RehearseError {
    /// There is no such program.
    #[error("the command `{program}` {why}, and nothing was done")]
    CommandNotFound {
        /// The program.
        program: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It was there and could not be started.
    #[error("the command `{program}` cannot be started")]
    NotStarted {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its words lead it past the copy.
    #[error("the command names a server itself, and would work there and not on the copy")]
    NamesAServer,
    /// Our variables may not reach what it runs.
    #[error("the command runs through {0}, where the address of the copy may not arrive")]
    Forwarded(String),
    /// It works on another database than the one that is rehearsed.
    #[error("the command works on {named}, and the rehearsal would be of {guarded}")]
    AnotherDatabase {
        /// Which would be restored.
        guarded: String,
        /// Which it names.
        named: String,
    },
    /// The snapshot could not be found.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A fresh one could not be taken.
    #[error("the snapshot failed")]
    Snapshot(#[source] SnapshotError),
    /// There is no copy.
    #[error("the copy cannot be made")]
    Copy(#[from] VerifyError),
    /// The copy's server went away.
    #[error("the copy's server failed: {log}")]
    Lost {
        /// The end of its log.
        log: String,
        /// What was seen of it.
        #[source]
        source: PostgresError,
    },
    /// A server.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The assertions could not be asked.
    #[error("the assertions cannot be asked")]
    Proof(#[from] ProofError),
    /// No chance for a password.
    #[error("no password can be drawn")]
    Random(#[from] crate::codec::random::RandomError),
    /// Somebody migrates the live database.
    #[error("somebody holds {0} in the live database")]
    Busy(String),
    /// The live database cannot be fenced.
    #[error("table {table} of the live database cannot be locked against the command")]
    Unfenced {
        /// The tool's table.
        table: String,
        /// Why not.
        #[source]
        source: PostgresError,
    },
    /// Nor through a pooler.
    #[error("the live database cannot be locked against the command through a pooler")]
    Pooled,
    /// It was made, and says no, or nothing.
    #[error("the rehearsal {}: {}", match .verdict { Verdict::None => "gives no verdict", _ => "failed" }, .reasons.join("; "))]
    NotPassed {
        /// Which of both.
        verdict: Verdict,
        /// Why.
        reasons: Vec<String>,
    },
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
}

impl RehearseError {
    /// What a rehearsal that was made says against its command.
    pub fn of(rehearsal: &Rehearsal) -> Option<Self> {
        let (verdict, reasons) = (rehearsal.verdict, rehearsal.reasons.clone());
        (verdict != Verdict::Passed).then_some(Self::NotPassed { verdict, reasons })
    }

    fn cause(&self) -> Option<&dyn Failure> {
        Some(match self {
            Self::Inspect(error) => error,
            Self::Snapshot(error) => error,
            Self::Copy(error) => error,
            Self::Postgres(error) => error,
            Self::Proof(error) => error,
            Self::Random(error) => error,
            _ => return None,
        })
    }
}

impl Failure for RehearseError {
    /// Whatever keeps it from passing is [`FailureKind::NotRun`], unless it is wrong use, somebody else, a signal, or there
    /// is no such snapshot.
    fn kind(&self) -> FailureKind {
        match self {
            Self::CommandNotFound { .. } | Self::NotStarted { .. } => FailureKind::CommandNotFound,
            Self::NamesAServer | Self::Forwarded(_) | Self::AnotherDatabase { .. } => {
                FailureKind::Usage
            }
            Self::Busy(_) => FailureKind::Busy,
            Self::Interrupted => FailureKind::Interrupted,
            error => match error.cause().map(Failure::kind) {
                Some(
                    kind @ (FailureKind::Usage
                    | FailureKind::Busy
                    | FailureKind::NotFound
                    | FailureKind::Interrupted),
                ) => kind,
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
                "the command stands behind `--`, as you would type it: `pgkeep rehearse -- npx prisma migrate deploy`"
                    .to_owned()
            }
            Self::NamesAServer => {
                "have it take the address from DATABASE_URL, DIRECT_URL, the PG* variables, or one that --env names"
                    .to_owned()
            }
            Self::Forwarded(_) => {
                "run the tool itself, or hand DATABASE_URL on, to this host's 127.0.0.1, and add --forwarded"
                    .to_owned()
            }
            Self::AnotherDatabase { .. } => {
                "have both name the same one: --database, PGKEEP_DATABASE_URL, or the command's own DATABASE_URL"
                    .to_owned()
            }
            Self::Lost { .. } => {
                "this says nothing about the command: check this host's memory and disk space, and run it again"
                    .to_owned()
            }
            Self::Busy(_) => "a migration may be at work: run it again, or --wait longer".to_owned(),
            Self::Unfenced { .. } => {
                "GRANT UPDATE ON that table TO pgkeep's role, or rehearse as a role that may lock it"
                    .to_owned()
            }
            Self::Pooled => "name the server itself in pgkeep's own address".to_owned(),
            Self::NotPassed { .. } => "the report above has what was found".to_owned(),
            Self::Interrupted => "the copy is gone; run it again".to_owned(),
            _ => "run `pgkeep check`".to_owned(),
        })
    }
}
