//! Floor 2: scratch clusters and databases, and the registry of what a killed run left.
//!
//! A scratch thing is where a copy proves itself. It is isolated (DESIGN.md rule 11), it belongs to one
//! live process that holds a lock on it, and it never outlives its command: it goes when dropped, and what
//! a SIGKILL leaves carries a mark and a free lock, by which the next run knows it and removes it.

use std::path::{Path, PathBuf};

use crate::domain::failure::{FILES_HINT, Failure, FailureKind, system_hint};
use crate::postgres::PostgresError;

pub mod account;
pub mod cluster;
pub mod database;
pub mod directory;
mod named;
mod postmaster;
pub mod properties;
pub mod registry;
pub mod space;
pub mod sql;

/// Why scratch could not be had, or not be cleared away.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The file system said no.
    #[error("{action} `{}`", path.display())]
    Io {
        /// Such as `cannot create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// No room for the copy.
    #[error(
        "`{}`{} has {} MiB free, and {} MiB are needed",
        path.display(),
        if *memory { " (held in memory)" } else { "" },
        free_bytes >> 20,
        needed_bytes.div_ceil(1 << 20)
    )]
    Space {
        /// The directory that was looked at.
        path: PathBuf,
        /// Whether it is a tmpfs.
        memory: bool,
        /// Bytes that an unprivileged process may still write.
        free_bytes: u64,
        /// Bytes that the work wants.
        needed_bytes: u64,
    },
    /// A unix socket's path has room for about 100 bytes.
    #[error("the socket `{}` would have a path longer than the system allows", .0.display())]
    SocketPath(PathBuf),
    /// PostgreSQL refuses root, and there is no one else to be.
    #[error("a server cannot run as root, and there is no user `postgres` or `nobody`")]
    NoAccount,
    /// The account that the server runs under cannot come to its directory.
    #[error("the user `{user}` cannot enter `{}`", path.display())]
    Unreachable {
        /// The unprivileged account.
        user: String,
        /// The first directory on the way that is closed to it.
        path: PathBuf,
    },
    /// `initdb` or `postgres` gave up.
    #[error("the scratch cluster's {program} failed: {log}")]
    Server {
        /// `initdb` or `postgres`.
        program: &'static str,
        /// The end of what it wrote, on one line.
        log: String,
    },
    /// The database that shall be made, renamed or dropped is not what it was.
    #[error("the scratch database `{0}` is no longer ours")]
    Lost(String),
    /// Every database that could hold the lock is the one to be replaced, or out of reach.
    #[error("no database to connect to beside `{0}`")]
    NoMaintenance(String),
    /// The token was cancelled.
    #[error("interrupted")]
    Interrupted,
    /// A session or a program failed.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

const NO_ROOM: &str = "No space left on device";
const NO_FILES: &str = "insufficient file descriptors";

impl ScratchError {
    /// Whether this host has too little of something that its operator can give. The programs of a scratch
    /// cluster say it in English.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Space { .. } => true,
            Self::Io { source, .. } => system_hint(source).is_some(),
            Self::Server { log, .. } => log.contains(NO_ROOM) || log.contains(NO_FILES),
            _ => false,
        }
    }

    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

impl Failure for ScratchError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied
                | std::io::ErrorKind::NotFound
                | std::io::ErrorKind::NotADirectory
                | std::io::ErrorKind::ReadOnlyFilesystem => FailureKind::Usage,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    FailureKind::Postgres
                }
                _ => FailureKind::Unexpected,
            },
            Self::SocketPath(_) | Self::Unreachable { .. } => FailureKind::Usage,
            Self::Space { .. }
            | Self::NoAccount
            | Self::Server { .. }
            | Self::Lost(_)
            | Self::NoMaintenance(_) => FailureKind::Postgres,
            Self::Interrupted => FailureKind::Interrupted,
            Self::Postgres(source) => source.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "free some space, or name a roomier `scratch_dir`".to_owned()
            }
            Self::Io { source, .. } => system_hint(source)
                .unwrap_or("check `scratch_dir`: it must exist and be writable")
                .to_owned(),
            Self::Space { memory: true, .. } => {
                "name a `scratch_dir` on a disk instead of a tmpfs".to_owned()
            }
            Self::Space { .. } => "free some space, or name a roomier `scratch_dir`".to_owned(),
            Self::SocketPath(_) => {
                "name a `scratch_dir` with a shorter path, such as /var/tmp".to_owned()
            }
            Self::NoAccount => {
                "create the user `postgres`, run pgkeep as another user than root, or name a \
                 server in the setting `verify.scratch`"
                    .to_owned()
            }
            Self::Unreachable { user, path } => format!(
                "name a `scratch_dir` that `{user}` can reach, such as /var/tmp, or run `chmod o+x \
                 {}`",
                path.display()
            ),
            Self::Server { log, .. } if log.contains(NO_FILES) => FILES_HINT.to_owned(),
            Self::Server { log, .. } if log.contains(NO_ROOM) => {
                "free some space, or name a roomier `scratch_dir`".to_owned()
            }
            Self::Server { .. } => {
                "check the PostgreSQL programs in `bin_dir`, the space and the limits of this host"
                    .to_owned()
            }
            Self::Lost(_) => {
                "someone dropped or renamed it, or the session that held its lock was ended; run \
                 it again"
                    .to_owned()
            }
            Self::NoMaintenance(_) => "let the role connect to the database `postgres`".to_owned(),
            Self::Interrupted => return None,
            Self::Postgres(source) => return source.hint(),
        })
    }
}

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
