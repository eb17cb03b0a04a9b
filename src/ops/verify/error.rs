//! Why a verification could not be made.

use crate::domain::failure::{Failure, FailureKind};
use crate::domain::selector::SelectorError;
use crate::ops::copy::CopyError;
use crate::postgres::PostgresError;
use crate::proof::ProofError;
use crate::repo::RepoError;
use crate::scratch::ScratchError;

/// Why a verification could not be made; a copy that differs is no error but a result.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A text that names no backup.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// There is nothing to verify.
    #[error("there is no backup to verify")]
    Nothing,
    /// A manifest that is there and cannot be used.
    #[error("backup {id} cannot be read")]
    Fault {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: RepoError,
    },
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The backup could not be brought back.
    #[error(transparent)]
    Copy(CopyError),
    /// Loading and comparing.
    #[error(transparent)]
    Proof(ProofError),
    /// The scratch server went away; its log tells more than the client's error.
    #[error("the scratch cluster failed: {log}")]
    Server {
        /// The end of its log.
        log: String,
        /// What the client saw.
        #[source]
        source: ProofError,
    },
    /// No scratch cluster can be had, and no server is configured to stand in.
    #[error("no scratch cluster of PostgreSQL {major} or newer can be had")]
    NoGround {
        /// The snapshot's major.
        major: u32,
        /// Why not.
        #[source]
        source: ScratchError,
    },
    /// The server that shall take the copy is older than its source.
    #[error("the snapshot is of PostgreSQL {major}, and {server} is PostgreSQL {server_major}")]
    OlderServer {
        /// The snapshot's major.
        major: u32,
        /// The server.
        server: String,
        /// Its major.
        server_major: u32,
    },
    /// The copy differs, where one was wanted to work with.
    #[error("the copy is not what was recorded of its source: {0}")]
    NotProved(String),
    /// Scratch.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// A session.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The token was cancelled.
    #[error("interrupted")]
    Interrupted,
}

impl VerifyError {
    /// Whether it says nothing about the backup, and another try may go better with nothing changed.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Proof(source) | Self::Server { source, .. } => source.is_passing(),
            _ => false,
        }
    }
}

impl Failure for VerifyError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Selector(_) => FailureKind::Usage,
            Self::Nothing => FailureKind::NotFound,
            Self::Fault { source, .. } | Self::Repo(source) => source.kind(),
            Self::Copy(source) => source.kind(),
            Self::Proof(source) => source.kind(),
            Self::Server { .. } | Self::NoGround { .. } | Self::OlderServer { .. } => {
                FailureKind::Postgres
            }
            Self::NotProved(_) => FailureKind::Damage,
            Self::Scratch(source) => source.kind(),
            Self::Postgres(source) => source.kind(),
            Self::Interrupted => FailureKind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Selector(_) => {
                "an id or its beginning, `latest`, `latest~1` or `latest:pre-migration`".to_owned()
            }
            Self::Nothing => "take one with `pgkeep snapshot`; `pgkeep list` shows them".to_owned(),
            Self::Fault { source, .. } | Self::Repo(source) => return source.hint(),
            Self::Copy(source) => return source.hint(),
            Self::Proof(source) => return source.hint(),
            Self::Server { .. } => {
                "this says nothing about the backup: check this host's memory and disk space, and run it again"
                    .to_owned()
            }
            Self::NoGround { major, .. } => format!(
                "install PostgreSQL {major}'s server programs, or name a server in the cluster's verify.scratch"
            ),
            Self::OlderServer { major, .. } => {
                format!("install PostgreSQL {major}'s server programs on this host")
            }
            Self::NotProved(_) => {
                "`pgkeep verify` has all of it; take another snapshot, or use another".to_owned()
            }
            Self::Scratch(source) => return source.hint(),
            Self::Postgres(source) => return source.hint(),
            Self::Interrupted => return None,
        })
    }
}
