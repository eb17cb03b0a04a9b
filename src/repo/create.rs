//! Making a repository.
//!
//! The repository exists when `pgkeep-repository.json` is there, and that is put last. A crash before
//! leaves at most orphans of this very step, which the next `init` removes: as long as the repository
//! document is absent nobody can have relied on them.

use std::sync::Arc;

use bytes::Bytes;

use super::documents::{self, Encryption, EpochDocument, FORMAT, RepositoryDocument};
use super::error::RepoError;
use super::workers::Workers;
use super::{Keys, Repository, layout, recover_page};
use crate::codec::cut::ChunkParams;
use crate::codec::text;
use crate::codec::writer_key::WriterKey;
use crate::domain::ambient::Ambient;
use crate::domain::chunk::Hash;
use crate::domain::id::EpochId;
use crate::domain::key::ObjectKey;
use crate::store::Store;

/// Whether `init` made the repository or found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    Created,
    /// It was there, and this host's keys fit it.
    Found,
}

impl Repository {
    /// Creates the repository in `store`, or opens the one that is there.
    pub async fn create(
        store: Store,
        keys: Keys,
        chunking: ChunkParams,
        workers: Workers,
        ambient: Arc<dyn Ambient>,
    ) -> Result<(Self, Made), RepoError> {
        match Self::open(store.clone(), keys.clone(), workers.clone(), ambient.clone()).await {
            Ok(found) => return Ok((found, Made::Found)),
            Err(RepoError::NoRepository(_)) => {}
            Err(error) => return Err(error),
        }
        let writer = keys.writer.clone().ok_or(RepoError::NoWriterKey)?;
        let [a, b, c, d] = [(); 4].map(|()| ambient.random());
        let document = RepositoryDocument {
            format: FORMAT,
            id: format!("{a:08x}{b:08x}{c:08x}{d:08x}"),
            created_at: ambient.now(),
            chunking,
            encryption: if keys.insecure_plaintext { Encryption::None } else { Encryption::Age },
        };
        let epoch = epoch_document(&keys, &writer, &*ambient, Vec::new())?;
        let key = layout::epoch(&writer.epoch);
        replace_orphan(&store, &key).await?;
        let bytes = documents::render(&epoch).into();
        documents::put_signed(&*store, &document.id, &writer.signing, &key, bytes).await?;
        store.delete(&layout::recover()).await?;
        let page = recover_page::render(document.encryption);
        store.put(&layout::recover(), Bytes::from(page)).await?;
        let key = layout::repository();
        replace_orphan(&store, &key).await?;
        let bytes = documents::render(&document).into();
        documents::put_signed(&*store, &document.id, &writer.signing, &key, bytes).await?;
        let repository = Self::open(store, keys, workers, ambient).await?;
        Ok((repository, Made::Created))
    }
}

/// The document that opens the epoch of `writer` for the recipients of `keys`.
pub(super) fn epoch_document(
    keys: &Keys,
    writer: &WriterKey,
    ambient: &dyn Ambient,
    replaces: Vec<EpochId>,
) -> Result<EpochDocument, RepoError> {
    let sealer = keys.sealer.as_ref().ok_or(RepoError::NoRecipients)?;
    let hex = Hash(*writer.chunk_key.as_bytes()).to_hex();
    let sealed = sealer.seal(hex.as_bytes()).map_err(|source| RepoError::Seal {
        action: "seal",
        key: layout::epoch(&writer.epoch),
        source,
    })?;
    let mut recipients = keys.recipients.clone();
    recipients.sort();
    recipients.dedup();
    Ok(EpochDocument {
        format: FORMAT,
        epoch: writer.epoch.clone(),
        created_at: ambient.now(),
        recipients,
        signers: vec![writer.signing.public().to_string()],
        chunk_key: text::encode_base64(&sealed),
        replaces,
    })
}

/// Removes what an `init` that was killed left under a name that is about to be put.
async fn replace_orphan(store: &Store, key: &ObjectKey) -> Result<(), RepoError> {
    store.delete(key).await?;
    Ok(store.delete(&layout::signature(key)).await?)
}
