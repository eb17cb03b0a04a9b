//! Bringing a backup's bytes back, each chunk proved before it is handed on.
//!
//! A chunk is checked four times: its sealed size and hash (the store gave what was stored), the age
//! file's own authentication, its plain size, and its keyed hash (it is the content that the manifest's
//! signature vouches for, not another valid chunk under this name).

use futures::stream::{self, FuturesOrdered, Stream, StreamExt as _};

use super::Repository;
use super::error::RepoError;
use super::layout;
use crate::codec::hash::{ChunkKey, plain_hash};
use crate::codec::seal::{Opener, SealError};
use crate::codec::text;
use crate::domain::chunk::{ChunkEntry, Hash};
use crate::domain::id::EpochId;
use crate::domain::key::ObjectKey;
use crate::domain::manifest::Manifest;

/// Plain bytes that are fetched ahead: some tens of chunks on average, so that a store that is far away keeps up
/// with a load, and never more of the process's 256 MiB.
const AHEAD_BYTES: usize = 48 << 20;
/// An inventory larger than this is no inventory.
const SEALED_MAX: usize = 1 << 30;

/// The keys that open one backup.
#[derive(Clone)]
pub struct ReadAccess {
    /// Unseals.
    pub opener: Opener,
    /// Proves that content belongs to its name.
    pub chunk_key: ChunkKey,
}

impl Repository {
    /// The keys that open `manifest`, from this host's identity.
    pub async fn read_access(&self, manifest: &Manifest) -> Result<ReadAccess, RepoError> {
        let chunk_key = self.chunk_key(&manifest.epoch).await?;
        Ok(ReadAccess { opener: self.opener()?.clone(), chunk_key })
    }

    /// The chunk list of a backup, if it is the one the signed manifest means.
    pub async fn chunk_list(&self, manifest: &Manifest) -> Result<Vec<ChunkEntry>, RepoError> {
        let key = layout::chunk_list(&manifest.cluster, &manifest.id);
        self.chunk_list_at(&key, manifest.chunk_list_hash(), manifest.chunks_total).await
    }

    /// The chunk list under that name, if it is the one of that hash and so many lines.
    pub(super) async fn chunk_list_at(
        &self,
        key: &ObjectKey,
        hash: Option<Hash>,
        chunks_total: u64,
    ) -> Result<Vec<ChunkEntry>, RepoError> {
        let bytes = self.store.get(key).await.map_err(|error| missing_is_damage(error, key))?;
        let damaged =
            |reason: &str| RepoError::Damaged { key: key.clone(), reason: reason.to_owned() };
        if Some(plain_hash(&bytes)) != hash {
            return Err(damaged("it is not the list that the manifest names"));
        }
        let list = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not text"))?;
        let entries: Result<Vec<ChunkEntry>, _> = list.lines().map(str::parse).collect();
        let entries = entries.map_err(|error| damaged(&error.to_string()))?;
        if entries.len() as u64 == chunks_total {
            Ok(entries)
        } else {
            Err(damaged("it has another number of lines than the manifest says"))
        }
    }

    /// What the manifest keeps sealed: the inventory's JSON.
    pub fn sealed_part(&self, manifest: &Manifest) -> Result<Vec<u8>, RepoError> {
        let key = layout::manifest(&manifest.cluster, &manifest.id);
        let sealed = text::decode_base64(&manifest.sealed).map_err(|_| RepoError::Damaged {
            key: key.clone(),
            reason: "the sealed part is not base64".to_owned(),
        })?;
        self.opener()?.open(&sealed, SEALED_MAX).map_err(|source| RepoError::Seal {
            action: "unseal",
            key,
            source,
        })
    }

    /// The plain bytes of one part, in order, chunk by chunk. The first error ends it.
    pub fn read_part<'a>(
        &'a self,
        manifest: &'a Manifest,
        list: &[ChunkEntry],
        part: &str,
        access: &'a ReadAccess,
    ) -> impl Stream<Item = Result<Vec<u8>, RepoError>> + 'a {
        let range = manifest.part(part).and_then(|part| {
            let first = usize::try_from(part.first_chunk).ok()?;
            let end = first.checked_add(usize::try_from(part.chunks).ok()?)?;
            list.get(first..end)
        });
        let entries = range.map(<[ChunkEntry]>::to_vec);
        let absent = entries.is_none().then(|| {
            let key = layout::manifest(&manifest.cluster, &manifest.id);
            Err(RepoError::Damaged { key, reason: format!("it has no part `{part}`") })
        });
        let epoch = &manifest.epoch;
        let at_once = self.store.concurrency().max(1);
        let chunks = ahead(entries.unwrap_or_default(), at_once, move |entry| {
            self.read_chunk(epoch, entry, access.clone())
        });
        stream::iter(absent).chain(chunks)
    }

    async fn read_chunk(
        &self,
        epoch: &EpochId,
        entry: ChunkEntry,
        access: ReadAccess,
    ) -> Result<Vec<u8>, RepoError> {
        let key = entry.name.key(epoch);
        let sealed = self.store.get(&key).await.map_err(|error| missing_is_damage(error, &key))?;
        let opened = self.workers.run(move || open_chunk(&sealed, &entry, &access)).await;
        opened.map_err(|fault| match fault {
            ChunkFault::Content(reason) => RepoError::Chunk { key, reason },
            ChunkFault::Seal(source) => RepoError::Seal { action: "unseal", key, source },
        })
    }
}

/// What `fetch` makes of the entries, in their order, with so many at work at once as [`AHEAD_BYTES`] and `at_once`
/// allow.
fn ahead<F: Future>(
    entries: Vec<ChunkEntry>,
    at_once: usize,
    fetch: impl Fn(ChunkEntry) -> F,
) -> impl Stream<Item = F::Output> {
    let begin = (entries.into_iter().peekable(), FuturesOrdered::new(), 0, fetch);
    stream::unfold(begin, move |(mut entries, mut pending, mut held, fetch)| async move {
        let size = |entry: &ChunkEntry| entry.plain_bytes as usize;
        while let Some(entry) = entries.next_if(|next| {
            pending.is_empty() || (pending.len() < at_once && held + size(next) <= AHEAD_BYTES)
        }) {
            held += size(&entry);
            let fetched = fetch(entry);
            pending.push_back(async move { (size(&entry), fetched.await) });
        }
        let (size, fetched) = pending.next().await?;
        held -= size;
        Some((fetched, (entries, pending, held, fetch)))
    })
}

enum ChunkFault {
    Content(String),
    Seal(SealError),
}

fn open_chunk(
    sealed: &[u8],
    entry: &ChunkEntry,
    access: &ReadAccess,
) -> Result<Vec<u8>, ChunkFault> {
    let content = |reason: &str| Err(ChunkFault::Content(reason.to_owned()));
    if sealed.len() as u64 != u64::from(entry.sealed_bytes) {
        let reason =
            format!("is {} bytes long and was stored with {}", sealed.len(), entry.sealed_bytes);
        return Err(ChunkFault::Content(reason));
    }
    if plain_hash(sealed) != entry.sealed_hash {
        return content("is damaged: its bytes are not those that were stored");
    }
    // From here on the bytes are what the signed manifest names, so a failure is one of keys.
    let plain = access.opener.open(sealed, entry.plain_bytes as usize).map_err(ChunkFault::Seal)?;
    if plain.len() != entry.plain_bytes as usize || access.chunk_key.hash(&plain) != entry.name.hash
    {
        return content("holds other content than its name says");
    }
    Ok(plain)
}

fn missing_is_damage(error: crate::store::StoreError, key: &ObjectKey) -> RepoError {
    if error.is_not_found() {
        return RepoError::Chunk { key: key.clone(), reason: "is missing".to_owned() };
    }
    error.into()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;
    use crate::domain::chunk::ChunkName;

    fn entry(plain_bytes: u32) -> ChunkEntry {
        let id = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        let name = ChunkName::new(Hash([0; 32]), &id);
        ChunkEntry { name, plain_bytes, sealed_bytes: 1, sealed_hash: Hash([0; 32]) }
    }

    /// The most that were at work at once, after all came in order.
    async fn most(sizes: &[u32], at_once: usize) -> usize {
        let (now, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let entries = sizes.iter().copied().map(entry).collect();
        let fetched = ahead(entries, at_once, |entry| {
            let (now, most) = (now.clone(), most.clone());
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            async move {
                tokio::task::yield_now().await;
                now.set(now.get() - 1);
                entry.plain_bytes
            }
        });
        assert_eq!(fetched.collect::<Vec<_>>().await, sizes);
        most.get()
    }

    #[tokio::test]
    async fn what_is_fetched_ahead_is_bounded_by_bytes_and_by_the_store() {
        assert_eq!(most(&[1000; 50], 32).await, 32);
        assert_eq!(most(&[4 << 20; 50], 32).await, 12);
        assert_eq!(most(&[64 << 20, 1, 64 << 20], 32).await, 1);
        assert_eq!(most(&[1; 5], 1).await, 1);
        assert_eq!(most(&[], 32).await, 0);
    }
}
