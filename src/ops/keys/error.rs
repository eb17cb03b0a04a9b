//! Why keys were not changed.

use std::path::PathBuf;

use crate::codec::kit::KitError;
use crate::codec::random::RandomError;
use crate::codec::writer_key::WriterKeyError;
use crate::config::ConfigError;
use crate::domain::failure::{Failure, FailureKind, system_hint};
use crate::repo::RepoError;

/// Why keys were not changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A recovery kit.
    #[error(transparent)]
    Kit(#[from] KitError),
    /// What an earlier rotation left.
    #[error(transparent)]
    WriterKey(#[from] WriterKeyError),
    /// No chance to be had.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A key file.
    #[error("cannot write `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Rotation without the key that shall go, and nobody said that it is lost.
    #[error("this host holds no writer key for {0}")]
    NoWriterKey(String),
    /// The key that is said to be lost is here.
    #[error("the writer key is not lost: it is `{}`", .0.display())]
    NotLost(PathBuf),
    /// A confirmation on a host that writes.
    #[error("this host holds the writer key, so it is not where a recovery kit is safe")]
    WriterHere,
    /// There is nothing to confirm.
    #[error("the repository is not encrypted: there is no identity to confirm")]
    NoEncryption,
}

impl Failure for KeysError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Repo(error) => error.kind(),
            Self::Config(error) => error.kind(),
            Self::Kit(error) => error.kind(),
            Self::WriterKey(error) => error.kind(),
            Self::Random(error) => error.kind(),
            Self::NoWriterKey(_) => FailureKind::Key,
            Self::File { .. } | Self::NotLost(_) | Self::WriterHere | Self::NoEncryption => {
                FailureKind::Usage
            }
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Repo(error) => return error.hint(),
            Self::Config(error) => return error.hint(),
            Self::Kit(error) => return error.hint(),
            Self::WriterKey(error) => return error.hint(),
            Self::Random(error) => return error.hint(),
            Self::File { source, .. } => system_hint(source)
                .unwrap_or("check its directory, and who may write there")
                .to_owned(),
            Self::NoWriterKey(_) => {
                "run it where the writer key is; where no host and no copy has it any more, add --lost-writer-key"
                    .to_owned()
            }
            Self::NotLost(_) => "leave out --lost-writer-key".to_owned(),
            Self::WriterHere => {
                "run it on the host that keeps the kit; a host that only verifies needs no writer key"
                    .to_owned()
            }
            Self::NoEncryption => "nothing is to be done: whoever reads the store reads the data".to_owned(),
        })
    }
}
