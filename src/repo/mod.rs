//! Floor 2: the repository: what lies where, and what counts as present.
//!
//! A backup exists when its manifest is present and either its intent is done or nobody declared it
//! broken (REMOVAL.md; [`catalog`]). [`backup`] writes one, [`reader`] brings its bytes back, [`create`]
//! makes a repository. Objects never change; every document that decides anything is signed, and whose
//! signature counts comes from this host's configuration, never from the store.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures::stream::TryStreamExt as _;

use crate::codec::hash::ChunkKey;
use crate::codec::seal::{Opener, Sealer};
use crate::codec::sign::{PublicKey, SigningKey};
use crate::codec::writer_key::WriterKey;
use crate::domain::ambient::Ambient;
use crate::domain::chunk::Hash;
use crate::domain::id::EpochId;
use crate::domain::key::ObjectKey;
use crate::store::{ObjectMeta, Store, StoreError};

pub mod adoptions;
pub mod backup;
pub mod catalog;
pub mod chunks;
pub mod create;
pub mod damage;
pub mod documents;
pub mod epochs;
pub mod error;
pub mod events;
pub mod guards;
pub mod history;
pub mod layout;
pub mod marks;
mod present;
pub mod prune;
pub mod reader;
pub mod recover_page;
pub mod remembered;
pub mod verifications;
pub mod workers;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod walk;

use documents::{Encryption, EpochDocument, RepositoryDocument};
pub use error::RepoError;
use workers::Workers;

/// What this host knows of keys. A writer holds `writer` and `recipients`; a reader `opener`.
#[derive(Clone, Default)]
pub struct Keys {
    /// Chunk key and signing key of this host.
    pub writer: Option<WriterKey>,
    /// Who can read what is written, as configured.
    pub recipients: Vec<String>,
    /// Seals to these recipients; or compresses only, when plaintext was asked for.
    pub sealer: Option<Sealer>,
    /// Opens what was sealed.
    pub opener: Option<Opener>,
    /// Whose signatures count, the own writer key's aside.
    pub trusted: Vec<PublicKey>,
    /// Plaintext was asked for.
    pub insecure_plaintext: bool,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("recipients", &self.recipients).finish_non_exhaustive()
    }
}

impl Keys {
    /// Everyone whose signature counts here.
    pub fn trusted(&self) -> Vec<PublicKey> {
        let own = self.writer.as_ref().map(|writer| writer.signing.public());
        own.into_iter().chain(self.trusted.iter().copied()).collect()
    }

    const fn encryption(&self) -> Encryption {
        if self.insecure_plaintext { Encryption::None } else { Encryption::Age }
    }
}

/// What a host that writes backups has in hand: checked, so that nothing is missing halfway.
#[derive(Clone)]
pub struct WriteAccess {
    /// The epoch it writes in.
    pub epoch: EpochId,
    /// Names chunks.
    pub chunk_key: ChunkKey,
    /// Signs manifests.
    pub signer: SigningKey,
    /// Seals chunks.
    pub sealer: Sealer,
}

/// An opened repository.
#[derive(Clone)]
pub struct Repository {
    /// The transport.
    pub store: Store,
    /// `pgkeep-repository.json`.
    pub document: RepositoryDocument,
    keys: Keys,
    trusted: Arc<[PublicKey]>,
    workers: Workers,
    ambient: Arc<dyn Ambient>,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("id", &self.document.id).finish_non_exhaustive()
    }
}

impl Repository {
    /// Opens the repository in `store`, if someone trusted made it and its format is known.
    pub async fn open(
        store: Store,
        keys: Keys,
        workers: Workers,
        ambient: Arc<dyn Ambient>,
    ) -> Result<Self, RepoError> {
        let key = layout::repository();
        let (bytes, signature) = match documents::get_with_signature(&*store, &key).await {
            Err(RepoError::Store(StoreError::NotFound(_))) => {
                return Err(RepoError::NoRepository(store.address()));
            }
            other => other?,
        };
        let document: RepositoryDocument = documents::parse(&key, &bytes)?;
        documents::check_format(&key, document.format)?;
        let trusted: Arc<[PublicKey]> = keys.trusted().into();
        if trusted.is_empty() {
            return Err(RepoError::NoTrustedSigner);
        }
        documents::check_signature(&trusted, &document.id, &key, &bytes, &signature)?;
        Ok(Self { store, document, keys, trusted, workers, ambient })
    }

    /// The same, with one more signer that counts: one whose key this host has just made.
    #[must_use]
    pub fn trusting(&self, signer: PublicKey) -> Self {
        let trusted = self.trusted.iter().copied().chain([signer]).collect();
        Self { trusted, ..self.clone() }
    }

    /// The clocks and the dice of this run.
    pub fn ambient(&self) -> &Arc<dyn Ambient> {
        &self.ambient
    }

    /// The keys this host holds.
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether every stored object is readable by whoever reads the store.
    pub fn is_plaintext(&self) -> bool {
        self.document.encryption == Encryption::None
    }

    /// Reads a signed document's bytes, if the signature is good.
    pub async fn get_signed(&self, key: &ObjectKey) -> Result<bytes::Bytes, RepoError> {
        let (bytes, signature) = documents::get_with_signature(&*self.store, key).await?;
        self.check_signature(key, &bytes, &signature)?;
        Ok(bytes)
    }

    pub(crate) fn check_signature(
        &self,
        key: &ObjectKey,
        bytes: &[u8],
        signature: &str,
    ) -> Result<(), RepoError> {
        documents::check_signature(&self.trusted, &self.document.id, key, bytes, signature)
    }

    /// Everything that writing needs, or the first thing that is missing or does not fit.
    ///
    /// The epoch's document must be signed by someone trusted and name exactly the configured
    /// recipients: else a recipient that was removed could go on reading, or a stranger begin to. For the
    /// same reason no other epoch may have replaced it.
    pub async fn write_access(&self) -> Result<WriteAccess, RepoError> {
        Ok(self.write_access_among(&BTreeSet::new()).await?.0)
    }

    /// As [`Repository::write_access`], with the epochs that were seen not to replace the own one; those of
    /// `judged` are not read again.
    pub(crate) async fn write_access_among(
        &self,
        judged: &BTreeSet<EpochId>,
    ) -> Result<(WriteAccess, BTreeSet<EpochId>), RepoError> {
        let writer = self.keys.writer.clone().ok_or(RepoError::NoWriterKey)?;
        self.check_encryption()?;
        let sealer = self.keys.sealer.clone().ok_or(RepoError::NoRecipients)?;
        let (document, judged) =
            tokio::join!(self.epoch(&writer.epoch), self.refuse_replaced(&writer.epoch, judged));
        let document = document?;
        // Before the recipients: whoever has to fetch the new writer key need not mend those of the old one.
        let judged = judged?;
        let mut configured = self.keys.recipients.clone();
        configured.sort();
        configured.dedup();
        if document.recipients != configured {
            return Err(RepoError::RecipientsDiffer(writer.epoch));
        }
        let access = WriteAccess {
            epoch: writer.epoch,
            chunk_key: writer.chunk_key,
            signer: writer.signing,
            sealer,
        };
        Ok((access, judged))
    }

    pub(crate) fn check_encryption(&self) -> Result<(), RepoError> {
        let (repository, configured) = (self.document.encryption, self.keys.encryption());
        if repository == configured {
            return Ok(());
        }
        let (repository, configured) = (repository.as_str(), configured.as_str());
        Err(RepoError::Encryption { repository, configured })
    }

    /// The document of an epoch.
    pub async fn epoch(&self, epoch: &EpochId) -> Result<EpochDocument, RepoError> {
        let key = layout::epoch(epoch);
        let bytes = self.get_signed(&key).await?;
        let document: EpochDocument = documents::parse(&key, &bytes)?;
        documents::check_format(&key, document.format)?;
        Ok(document)
    }

    /// What opens sealed objects here.
    pub fn opener(&self) -> Result<&Opener, RepoError> {
        self.keys.opener.as_ref().ok_or(RepoError::NoIdentity)
    }

    /// An epoch's chunk key, unsealed with this host's identity.
    pub async fn chunk_key(&self, epoch: &EpochId) -> Result<ChunkKey, RepoError> {
        let key = layout::epoch(epoch);
        let opener = self.opener()?;
        let document = self.epoch(epoch).await?;
        let damaged =
            |reason: &str| RepoError::Damaged { key: key.clone(), reason: reason.to_owned() };
        let sealed = crate::codec::text::decode_base64(&document.chunk_key)
            .map_err(|_| damaged("the chunk key is not base64"))?;
        let hex = opener.open(&sealed, 128).map_err(|source| RepoError::Seal {
            action: "unseal",
            key: key.clone(),
            source,
        })?;
        let hex = String::from_utf8_lossy(&hex);
        let hash = Hash::from_hex(hex.trim()).ok_or_else(|| damaged("the chunk key is not hex"))?;
        Ok(ChunkKey::from_bytes(hash.0))
    }

    pub(crate) async fn list_all(&self, prefix: &str) -> Result<Vec<ObjectMeta>, RepoError> {
        Ok(self.store.list(prefix).try_collect().await?)
    }
}
