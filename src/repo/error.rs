//! What can be wrong with a repository.

use crate::codec::seal::SealError;
use crate::codec::sign::SignError;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::id::{BackupId, EpochId};
use crate::domain::key::ObjectKey;
use crate::store::StoreError;

/// Why the repository could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// The transport failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is a place, but no repository in it.
    #[error("no repository at {0}")]
    NoRepository(String),
    /// Written by a pgkeep that is newer than this one.
    #[error("`{key}` has format {found}, and this pgkeep reads up to {known}")]
    NewerFormat {
        /// The document.
        key: String,
        /// Its version.
        found: u64,
        /// The newest version known here.
        known: u32,
    },
    /// A document that is not what its name says.
    #[error("`{key}` is damaged: {reason}")]
    Damaged {
        /// The document or chunk.
        key: ObjectKey,
        /// What is wrong with it.
        reason: String,
    },
    /// A part's chunks are damaged or gone.
    #[error("chunk `{key}` {reason}")]
    Chunk {
        /// The chunk.
        key: ObjectKey,
        /// What is wrong with it.
        reason: String,
    },
    /// A document that is not what its signer signed.
    #[error("`{key}` is not trusted")]
    Untrusted {
        /// The document.
        key: ObjectKey,
        /// Why.
        #[source]
        source: SignError,
    },
    /// A document without a signature beside it.
    #[error("`{0}` has no signature")]
    Unsigned(ObjectKey),
    /// A good signature of another object or repository, moved here.
    #[error("`{0}` carries the signature of another object")]
    Misplaced(ObjectKey),
    /// Signed by a key that nobody here trusts.
    #[error("`{key}` is signed by key {signer}, which is not trusted here")]
    Stranger {
        /// The document.
        key: ObjectKey,
        /// The id of the key.
        signer: String,
    },
    /// No signer is trusted here, so nothing can be.
    #[error("no trusted signer is configured")]
    NoTrustedSigner,
    /// This host holds no writer key.
    #[error("no writer key is configured")]
    NoWriterKey,
    /// This host holds no identity.
    #[error("no identity is configured")]
    NoIdentity,
    /// Nobody to encrypt to.
    #[error("no recipients are configured")]
    NoRecipients,
    /// An encrypted repository and a plaintext configuration, or the reverse.
    #[error(
        "the repository's encryption is `{repository}` and the configuration's is `{configured}`"
    )]
    Encryption {
        /// `age` or `none`.
        repository: &'static str,
        /// `age` or `none`.
        configured: &'static str,
    },
    /// The configured recipients are not those of the writer key's epoch.
    #[error("the configured recipients differ from those of epoch {0}")]
    RecipientsDiffer(EpochId),
    /// Another epoch was opened in place of this one.
    #[error("epoch {epoch} was replaced by epoch {by}")]
    EpochReplaced {
        /// The one this host would write in.
        epoch: EpochId,
        /// The one that `key rotate` opened.
        by: EpochId,
    },
    /// Two hosts rotated at the same time.
    #[error("epoch {other} was opened at the same time as epoch {epoch}")]
    EpochsCollided {
        /// Our own.
        epoch: EpochId,
        /// The other's.
        other: EpochId,
    },
    /// Sealing or unsealing failed.
    #[error("cannot {action} `{key}`")]
    Seal {
        /// `seal` or `unseal`.
        action: &'static str,
        /// The object.
        key: ObjectKey,
        /// Why.
        #[source]
        source: SealError,
    },
    /// Somebody declared this run dead.
    #[error("backup {0} was declared dead while it ran")]
    Broken(BackupId),
    /// The backup is already to be removed.
    #[error("backup {0} is condemned")]
    Condemned(BackupId),
    /// An object that a prune cannot take into account.
    #[error("`{0}` is not known to this pgkeep, and a prune must know all there is")]
    UnknownObject(ObjectKey),
    /// Nothing matches.
    #[error("no backup matches `{0}`")]
    NoMatch(String),
    /// Only backups of a server that the cluster's name does not know.
    #[error(
        "`{wanted}` fits only backups of a server that the cluster does not know, such as {id}"
    )]
    OnlyForeign {
        /// What was asked for.
        wanted: String,
        /// The newest of them.
        id: BackupId,
    },
    /// Several databases or ids match.
    #[error("`{wanted}` fits several: {}", choices.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// What it could mean.
        choices: Vec<String>,
    },
    /// The stream that was to be stored failed.
    #[error("the source of `{part}` failed")]
    Source {
        /// The part.
        part: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Failure for RepoError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::NoRepository(_) => FailureKind::Store,
            Self::NewerFormat { .. } | Self::Ambiguous { .. } | Self::UnknownObject(_) => {
                FailureKind::Usage
            }
            Self::Damaged { .. } | Self::Chunk { .. } => FailureKind::Damage,
            Self::Seal { .. }
            | Self::Untrusted { .. }
            | Self::Unsigned(_)
            | Self::Misplaced(_)
            | Self::Stranger { .. }
            | Self::NoTrustedSigner
            | Self::NoWriterKey
            | Self::NoIdentity
            | Self::NoRecipients
            | Self::Encryption { .. }
            | Self::RecipientsDiffer(_)
            | Self::EpochReplaced { .. } => FailureKind::Key,
            Self::Broken(_) | Self::Condemned(_) | Self::EpochsCollided { .. } => FailureKind::Busy,
            Self::NoMatch(_) | Self::OnlyForeign { .. } => FailureKind::NotFound,
            Self::Source { .. } => FailureKind::Postgres,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Store(error) => return error.hint(),
            Self::NoRepository(_) => "check the address, or create one with `pgkeep init`",
            Self::NewerFormat { .. } => "install a newer pgkeep; nothing was changed",
            Self::Damaged { .. } => {
                "restore the object from a copy of the repository, or use another backup"
            }
            Self::Chunk { .. } => {
                "use another backup (`pgkeep list`), or bring the object back from a copy of the repository; \
                 `pgkeep verify --check stored` finds all that is damaged, and the next snapshot stores what it \
                 still has afresh"
            }
            Self::Untrusted { .. }
            | Self::Unsigned(_)
            | Self::Misplaced(_)
            | Self::Stranger { .. } => {
                "somebody else wrote or changed this object; if the writer is yours, `pgkeep key trust` its \
                 public key, which `pgkeep key show` prints there"
            }
            Self::NoTrustedSigner => {
                "set encryption.trusted_signers or PGKEEP_TRUSTED_SIGNERS; the recovery kit holds them"
            }
            Self::NoWriterKey => {
                "set encryption.writer_key_file or PGKEEP_WRITER_KEY; `pgkeep init` made it; where it is lost everywhere, \
                 `pgkeep key rotate --lost-writer-key`"
            }
            Self::NoIdentity => {
                "set encryption.identity_file or PGKEEP_IDENTITY_FILE to the recovery kit"
            }
            Self::NoRecipients => {
                "set encryption.recipients or PGKEEP_RECIPIENTS to the public keys that may read backups"
            }
            Self::Encryption { .. } => {
                "plaintext is never chosen silently: run `init --insecure-plaintext` on an empty repository, \
                 or remove encryption.insecure_plaintext"
            }
            Self::RecipientsDiffer(_) => {
                "configure the epoch's recipients again, or run `pgkeep key rotate`, which opens a new epoch \
                 for those configured now"
            }
            Self::EpochReplaced { .. } => {
                "`pgkeep key rotate` opened it: on another host, then bring its writer key and its recipients here; on this \
                 one, then restart what still runs with the old key (`systemctl restart pgkeep`); nothing was kept, and \
                 no backup was lost"
            }
            Self::EpochsCollided { .. } => {
                "two hosts rotated at once, and both epochs are in force: run `pgkeep key rotate` again on one of \
                 them, and bring its writer key to the other"
            }
            Self::Seal { action: "unseal", .. } => {
                "check that the identity is one the backup was encrypted to"
            }
            Self::Seal { .. } => "check the configured recipients",
            Self::Broken(_) => "a prune took this run for dead; nothing was lost, run it again",
            Self::Condemned(_) => "a prune is removing it; choose another backup",
            Self::UnknownObject(_) => {
                "a newer pgkeep may have put it: prune with that one; a stray file has to go elsewhere"
            }
            Self::OnlyForeign { id, .. } => {
                return Some(format!(
                    "name it by its id, or let the server belong to the cluster: `pgkeep adopt {id}`"
                ));
            }
            Self::NoMatch(_) => {
                "`pgkeep list` shows the backups; `--database` and `--cluster` narrow them"
            }
            Self::Ambiguous { .. } => {
                "name one with `--database` or `--cluster`, or give more of the id"
            }
            Self::Source { .. } => "see the message above it",
        };
        Some(hint.to_owned())
    }
}
