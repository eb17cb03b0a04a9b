//! Why configuration was refused. All but unreadable keys are exit 2.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::domain::failure::{Failure, FailureKind, system_hint};
use crate::domain::schedule::ScheduleError;

/// Why configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was asked for could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file that is no UTF-8.
    #[error("{} is not a text file in UTF-8", .0.display())]
    Encoding(PathBuf),
    /// A file that is no TOML.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// The parser's words. The line itself is not repeated: it may hold a secret.
        message: String,
    },
    /// A key that pgkeep does not know.
    #[error("{origin}: unknown key `{key}`")]
    UnknownKey {
        /// File and line, or the variable.
        origin: String,
        /// The key as written.
        key: String,
        /// The known key nearest to it.
        nearest: String,
    },
    /// A `PGKEEP_…` variable that pgkeep does not know.
    #[error("unknown environment variable {name}")]
    UnknownVariable {
        /// Its name, with its file if it came from one.
        name: String,
        /// The known one nearest to it.
        nearest: String,
    },
    /// A value of the wrong shape. The value is not repeated: it may be a secret.
    #[error("{origin}: `{key}` must be {expected}")]
    Shape {
        /// File and line, or the variable.
        origin: String,
        /// The key.
        key: String,
        /// What it must be.
        expected: String,
    },
    /// A text that is no schedule. It is no secret, so it is repeated.
    #[error("{origin}: `{key}`: {reason}")]
    Schedule {
        /// File and line, or the variable.
        origin: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: ScheduleError,
    },
    /// A time zone that this host does not know.
    #[error("{origin}: `{key}`: this host knows no time zone `{name}`")]
    TimeZone {
        /// File and line, or the variable.
        origin: String,
        /// The key.
        key: String,
        /// The zone.
        name: String,
        /// The known one nearest to it; none where it knows none at all.
        nearest: Option<String>,
    },
    /// An address that other hosts can reach, and nobody agreed to that.
    #[error("{origin}: `daemon.listen` is {listen}, which other hosts can reach")]
    Remote {
        /// File and line, or the variable.
        origin: String,
        /// The address.
        listen: SocketAddr,
    },
    /// Two settings of one layer that say the same thing.
    #[error("`{first}` and `{second}` are both set in {origin}")]
    Rivals {
        /// Where.
        origin: String,
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// A line of an `--env-file` that is no `KEY=VALUE`.
    #[error("{}:{line}: not a KEY=VALUE line", path.display())]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A file with a secret that others can read.
    #[error("{} holds {what} and others can open it (mode {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: String,
        /// Its permission bits.
        mode: u32,
    },
    /// A cluster that was named but not configured.
    #[error("no cluster `{name}` is configured")]
    UnknownCluster {
        /// The name.
        name: String,
        /// Those that are.
        known: Vec<String>,
    },
    /// Several clusters and none named.
    #[error("several clusters are configured and none was named")]
    WhichCluster {
        /// Those that are.
        known: Vec<String>,
    },
    /// A variable named by `url_env` that is not set.
    #[error("`{key}` names the variable {name}, which is not set")]
    Unset {
        /// The key.
        key: String,
        /// The variable.
        name: String,
    },
    /// No repository is configured.
    #[error("no repository is configured")]
    NoRepository,
    /// A configuration file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A list could not be changed without changing more.
    #[error("cannot set `{key}` in {} and leave the rest as it is", path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The merging library refused; our own checks should have come first.
    #[error("cannot merge the configuration")]
    Merge(#[from] config::ConfigError),
}

impl Failure for ConfigError {
    fn kind(&self) -> FailureKind {
        FailureKind::Usage
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { path, source } => match system_hint(source) {
                Some(hint) => hint.to_owned(),
                None => {
                    format!("check that {} exists and that this user may read it", path.display())
                }
            },
            Self::Encoding(_) => "save it as UTF-8".to_owned(),
            Self::Syntax { .. } => "mend that line, then run `pgkeep config validate`".to_owned(),
            Self::UnknownKey { nearest, .. } => {
                format!(
                    "the nearest known key is `{nearest}`; `pgkeep config show` lists what is set"
                )
            }
            Self::UnknownVariable { nearest, .. } => {
                format!(
                    "the nearest known one is {nearest}; unset it if it is not meant for pgkeep"
                )
            }
            Self::Shape { .. } => "see `pgkeep config show --defaults` for every key".to_owned(),
            Self::Schedule { reason, .. } => match reason.nearest() {
                Some(nearest) => format!("the nearest that does is `{nearest}`"),
                None => "minute, hour, day of month, month and day of week: `0 2 * * *` is every \
                         day at 2:00"
                    .to_owned(),
            },
            Self::TimeZone { nearest: Some(nearest), .. } => {
                format!("the nearest known one is {nearest}")
            }
            Self::TimeZone { nearest: None, .. } => {
                "it has no time zone database: install tzdata, or use \"UTC\"".to_owned()
            }
            Self::Remote { .. } => "listen on 127.0.0.1 behind a proxy with TLS, or set \
                                    `daemon.allow_remote = true` if the network is trusted"
                .to_owned(),
            Self::Rivals { .. } => "keep one of them".to_owned(),
            Self::EnvFile { .. } => {
                "write NAME=value, with quotes around a value that holds spaces or #".to_owned()
            }
            Self::Exposed { path, .. } => format!("run `chmod 600 {}`", path.display()),
            Self::UnknownCluster { known, .. } if known.is_empty() => {
                "add a [clusters.NAME] section, or set PGKEEP_DATABASE_URL".to_owned()
            }
            Self::UnknownCluster { known, .. } => format!("known clusters: {}", known.join(", ")),
            Self::WhichCluster { known } => {
                format!("pass --cluster with one of: {}", known.join(", "))
            }
            Self::Unset { name, .. } => format!("set {name}, or pass --env-file"),
            Self::NoRepository => {
                "set `repository.url` in the configuration, or PGKEEP_REPOSITORY".to_owned()
            }
            Self::Write { source, .. } => {
                system_hint(source).unwrap_or("check the file's directory and its owner").to_owned()
            }
            Self::Edit { key, .. } => {
                format!("set `{key}` by hand, or give it a section of its own")
            }
            Self::Merge(_) => "run `pgkeep config validate`".to_owned(),
        })
    }
}
