//! Floor 2: loads a copy and compares it with what was recorded.
//!
//! [`verify`] puts an archive into an empty database of the caller's and proves it: inventory, row counts,
//! sequences, assertions, and with [`Depth::Full`] every row's content and `pg_amcheck`. A difference is a
//! failed [`Check`]; only what keeps a check from being made at all is an error. Nothing here touches the
//! source, and the target is the caller's to remove: a crash leaves what the caller made, no more.
//!
//! [`Depth::Full`]: crate::domain::verification::Depth::Full

mod accident;
mod amcheck;
mod build;
mod checks;
mod fill;
mod fingerprint;
mod intake;
mod load;
mod pool;
pub mod selection;
mod verify;
mod within;

use std::path::PathBuf;

pub use checks::{Assertion, assertions_hold, count_rows};
pub use fingerprint::{ArchiveSums, ContentRequest, Fingerprint, Sums, content};
pub use intake::{Contents, Incoming};
pub use load::{LoadReport, LoadRequest, Missing, load, missing};
pub use verify::{Proof, ProofRequest, verify};
pub use within::{Staying, WithinRequest, load_within, prepare};

use crate::domain::archive::{ArchiveError, ROW_SETTINGS};
use crate::domain::failure::{Failure, FailureKind, system_hint};
use crate::domain::verification::Check;
use crate::postgres::PostgresError;
use crate::postgres::catalog::CatalogError;

/// What keeps a copy from being loaded or compared.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The target's server, a session in it, or a client program.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The target's catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The archive is not what it should be.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The local file of the archive's head, or of the list for `pg_restore`.
    #[error("cannot write `{}`", path.display())]
    Head {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The server does not take rows or large objects: what is wrong is the copy.
    #[error("{what}: {source}")]
    Refused {
        /// Which.
        what: String,
        /// Why; told in the message.
        source: PostgresError,
    },
    /// The server failed, or somebody ended its work: what a program says then is no word about the copy.
    #[error("{source}")]
    Accident {
        /// What the program said.
        source: PostgresError,
        /// Whether another try may go better with nothing changed.
        passing: bool,
    },
    /// The role may not do what the archive's statements say: no word about the copy either.
    #[error("{source}")]
    Forbidden {
        /// What the server said.
        source: PostgresError,
    },
    /// Found before anything was created.
    #[error("the target server lacks {0}")]
    Missing(Missing),
    /// Found before anything was created: entries with rows that the role cannot restore.
    #[error("the role cannot restore {}", entries.join("; "))]
    Rights {
        /// Each with its reason.
        entries: Vec<String>,
    },
    /// Statements in another encoding than the session's.
    #[error("the archive's statements are not UTF-8")]
    Encoding,
    /// What was asked for is not in the backup.
    #[error("the backup holds no {0}")]
    Absent(String),
    /// The work ended before its end.
    #[error("the comparison was stopped")]
    Stopped,
}

impl ProofError {
    /// Whether it says nothing about the backup, and another try may go better with nothing changed.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Accident { passing, .. } => *passing,
            Self::Postgres(error) | Self::Catalog(CatalogError::Query { source: error, .. }) => {
                error.is_transient()
            }
            _ => false,
        }
    }
}

impl Failure for ProofError {
    #[expect(clippy::match_same_arms, reason = "each error stands with its own why")]
    fn kind(&self) -> FailureKind {
        match self {
            Self::Postgres(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::Archive(error) => error.kind(),
            Self::Refused { source, .. } | Self::Accident { source, .. } => source.kind(),
            Self::Forbidden { .. } => FailureKind::Postgres,
            Self::Head { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                FailureKind::Postgres
            }
            Self::Head { .. } => FailureKind::Unexpected,
            Self::Missing(_) | Self::Rights { .. } | Self::Encoding => FailureKind::Postgres,
            Self::Absent(_) => FailureKind::NotFound,
            Self::Stopped => FailureKind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Postgres(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Archive(error) => error.hint(),
            Self::Refused { source, .. } => source.hint(),
            Self::Forbidden { .. } => Some(
                "this says nothing about the backup: restore as a superuser, or leave owners and grants out with `--no-owner`"
                    .to_owned(),
            ),
            Self::Accident { passing: true, .. } => Some(
                "this says nothing about the backup: run it again; the server's log tells more"
                    .to_owned(),
            ),
            Self::Accident { .. } => Some(
                "this says nothing about the backup: give the server room or memory (a scratch cluster lies in `scratch_dir`), and run it again"
                    .to_owned(),
            ),
            Self::Head { source, .. } => Some(match source.kind() {
                std::io::ErrorKind::StorageFull => {
                    "free some space there, or set scratch_dir to a larger file system".to_owned()
                }
                _ => system_hint(source)
                    .unwrap_or("check that scratch_dir can be written")
                    .to_owned(),
            }),
            Self::Missing(missing) => Some(missing.hint()),
            Self::Rights { .. } => Some(
                "restore as a superuser, or have one create what is needed in the target first"
                    .to_owned(),
            ),
            Self::Encoding => {
                Some("restore it beside the live database: `--as NAME`, `--replace`".to_owned())
            }
            Self::Absent(_) => Some(
                "`pgkeep show ID` lists its tables; names are case-sensitive: schema.table, each quoted if it holds a dot"
                    .to_owned(),
            ),
            Self::Stopped => Some("run it again".to_owned()),
        }
    }
}

/// Settings of a session that reads or writes rows as the archive has them.
fn row_settings() -> String {
    let settings = ROW_SETTINGS.iter().map(|(name, value)| format!("SET {name} = '{value}'; "));
    let settings: String = settings.collect();
    format!("{settings}SET search_path = ''; SET row_security = off; SET statement_timeout = 0; ")
}

/// Differences that are told by name before the rest is only counted.
const LINES_MAX: usize = 8;

/// Passed with `equal` when there is no line, failed with the first lines otherwise.
fn verdict(name: &str, equal: impl Into<String>, lines: &[String]) -> Check {
    if lines.is_empty() {
        return Check::passed(name, equal);
    }
    Check::failed(name, told(lines))
}

/// The first of `lines` on one line.
fn told(lines: &[String]) -> String {
    let shown: Vec<String> =
        lines.iter().take(LINES_MAX).map(|line| line.replace(['\n', '\r'], " ")).collect();
    let more = lines.len() - shown.len();
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_differences_is_cut_and_stays_on_one_line() {
        let lines: Vec<String> = (0..20).map(|at| format!("table t{at}:\nother")).collect();
        let check = verdict("row-counts", "equal", &lines);
        assert!(check.detail.starts_with("table t0: other; table t1"), "{}", check.detail);
        assert!(check.detail.ends_with("; and 12 more"), "{}", check.detail);
        assert_eq!(verdict("row-counts", "equal", &[]), Check::passed("row-counts", "equal"));
    }

    #[test]
    fn every_error_has_a_hint() {
        let missing = Missing { roles: vec!["app".into()], extensions: vec![] };
        let errors = [
            ProofError::Archive(ArchiveError::NotAnArchive),
            ProofError::Head { path: "x".into(), source: std::io::ErrorKind::StorageFull.into() },
            ProofError::Missing(missing),
            ProofError::Rights { entries: vec![] },
            ProofError::Stopped,
        ];
        for error in errors {
            assert!(error.hint().is_some(), "{error}");
        }
    }
}
