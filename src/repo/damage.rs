//! Stored bytes compared with what was stored, without any key; and the names that are damaged condemned.
//!
//! A damaged name is condemned as an unneeded one is: on a list below `condemned/` that every backup reads
//! before it relies on anything. So its content is stored afresh, under another name, by the next backup that
//! has it. The list is unsigned, because whoever checks may hold no key, and because it may be: a sweep
//! removes a chunk only after every writer that could rely on it has ended and no manifest that is there names
//! it, whatever a list says (`docs/decisions/0005-damaged-names-are-condemned.md`). A list that lies costs
//! space: what it names is stored again.
//!
//! Crash story: before the list is put nothing has happened, and the next check finds the same damage. A
//! backup that began before the list was put may still rely on a damaged name: then it is damaged too, the
//! next check says so, and the backup after it is whole.

use std::collections::BTreeSet;
use std::fmt;

use super::documents::{self, CondemnedDocument, CondemnedReason, FORMAT};
use super::error::RepoError;
use super::layout;
use super::{Repository, documents::Encryption};
use crate::codec::hash::plain_hash;
use crate::codec::seal::is_age_file;
use crate::codec::text;
use crate::domain::chunk::{ChunkEntry, ChunkName};
use crate::domain::id::{BackupId, EpochId};
use crate::domain::manifest::Manifest;

/// What is wrong with a stored chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredFault {
    /// It is not there.
    Missing,
    /// It has another size.
    Size {
        /// What is there.
        found: u64,
        /// What was stored.
        stored: u64,
    },
    /// It has other bytes.
    Content,
    /// It is what was stored, and is no age file in a repository that is encrypted.
    NotEncrypted,
}

impl fmt::Display for StoredFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Size { found, stored } => {
                write!(f, "is {found} bytes long and was stored with {stored}")
            }
            Self::Content => f.write_str("is damaged: its bytes are not those that were stored"),
            Self::NotEncrypted => f.write_str("is not encrypted"),
        }
    }
}

/// A chunk by its epoch and name.
pub type ChunkAddress = (EpochId, ChunkName);

impl Repository {
    /// Reads one chunk and compares it with its line of a chunk list; none when it is as it was stored.
    /// An error means that it could not be read, which says nothing about it.
    pub async fn check_stored(
        &self,
        epoch: &EpochId,
        entry: &ChunkEntry,
    ) -> Result<Option<StoredFault>, RepoError> {
        let bytes = match self.store.get(&entry.name.key(epoch)).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(Some(StoredFault::Missing)),
            Err(error) => return Err(error.into()),
        };
        let (found, stored) = (bytes.len() as u64, u64::from(entry.sealed_bytes));
        if found != stored {
            return Ok(Some(StoredFault::Size { found, stored }));
        }
        let (expected, encrypted) = (entry.sealed_hash, self.is_encrypted());
        let judge = move || {
            if plain_hash(&bytes) != expected {
                Some(StoredFault::Content)
            } else if encrypted && !is_age_file(&bytes) {
                Some(StoredFault::NotEncrypted)
            } else {
                None
            }
        };
        Ok(self.workers.run(judge).await)
    }

    fn is_encrypted(&self) -> bool {
        self.document.encryption == Encryption::Age
    }

    /// Whether what a manifest keeps sealed is an age file, where it should be one.
    pub fn sealed_part_is_encrypted(&self, manifest: &Manifest) -> bool {
        let sealed = text::decode_base64(&manifest.sealed);
        !self.is_encrypted() || sealed.is_ok_and(|sealed| is_age_file(&sealed))
    }

    /// Puts these damaged names on a list, so that no later backup relies on them; those that are on one
    /// already are left out. How many are new.
    pub async fn condemn_damaged(
        &self,
        damaged: &BTreeSet<ChunkAddress>,
    ) -> Result<usize, RepoError> {
        let known = self.condemned().await?;
        let known: BTreeSet<&str> =
            known.iter().flat_map(|list| &list.chunks).map(String::as_str).collect();
        let text = |(epoch, name): &ChunkAddress| format!("{epoch}/{name}");
        let chunks: Vec<String> =
            damaged.iter().map(text).filter(|name| !known.contains(name.as_str())).collect();
        if chunks.is_empty() {
            return Ok(0);
        }
        let created_at = self.ambient().now();
        let id = BackupId::new(created_at, self.ambient().random());
        let (key, new) = (layout::condemned(&id), chunks.len());
        let list = CondemnedDocument {
            format: FORMAT,
            id,
            created_at,
            reason: CondemnedReason::Damaged,
            backups: Vec::new(),
            chunks,
        };
        self.store.put(&key, documents::render(&list).into()).await?;
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::codec::cut::ChunkParams;
    use crate::codec::encrypt::{Recipients, generate_identity};
    use crate::codec::seal::Sealer;
    use crate::domain::chunk::Hash;
    use crate::repo::Keys;
    use crate::repo::test_support::{Still, plaintext_keys};
    use crate::repo::workers::Workers;
    use crate::store::memory::MemoryStore;

    /// A repository and the store below it.
    async fn repository(encrypted: bool) -> (Repository, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new());
        let mut keys: Keys = plaintext_keys();
        if encrypted {
            let recipients = Recipients::parse(&[generate_identity().1]).expect("own key");
            keys.recipients = recipients.as_strings();
            keys.sealer = Some(Sealer::new(&recipients, 1));
            keys.insecure_plaintext = false;
        }
        let (chunking, ambient) = (ChunkParams::default(), Arc::new(Still::default()));
        let made = Repository::create(store.clone(), keys, chunking, Workers::Inline, ambient);
        (made.await.expect("it is made").0, store)
    }

    async fn put(repository: &Repository, bytes: &'static [u8]) -> (EpochId, ChunkEntry) {
        let (epoch, name) = (EpochId::new(1), ChunkName { hash: Hash([7; 32]), suffix: 9 });
        repository.store.put(&name.key(&epoch), Bytes::from_static(bytes)).await.expect("put");
        let sealed_bytes = u32::try_from(bytes.len()).expect("small");
        let sealed_hash = plain_hash(bytes);
        (epoch, ChunkEntry { name, plain_bytes: 1, sealed_bytes, sealed_hash })
    }

    #[tokio::test]
    async fn each_way_to_be_other_than_stored_is_told_apart() {
        let (repository, store) = repository(true).await;
        let (epoch, entry) = put(&repository, b"age-encryption.org/v1\nrows").await;
        let key = entry.name.key(&epoch);
        let found = || async { repository.check_stored(&epoch, &entry).await.expect("read") };
        assert_eq!(found().await, None);
        store.damage(&key, Some(Bytes::from_static(b"age-encryption.org/v1\nrowz")));
        assert_eq!(found().await, Some(StoredFault::Content));
        store.damage(&key, Some(Bytes::from_static(b"age")));
        assert_eq!(found().await, Some(StoredFault::Size { found: 3, stored: 26 }));
        store.damage(&key, None);
        assert_eq!(found().await, Some(StoredFault::Missing));
    }

    #[tokio::test]
    async fn what_is_not_encrypted_is_found_though_it_is_what_was_stored() {
        let (sealed, _) = repository(true).await;
        let (epoch, entry) = put(&sealed, b"rows").await;
        let found = sealed.check_stored(&epoch, &entry).await.expect("read");
        assert_eq!(found, Some(StoredFault::NotEncrypted));
        let (open, _) = repository(false).await;
        let (epoch, entry) = put(&open, b"rows").await;
        assert_eq!(open.check_stored(&epoch, &entry).await.expect("read"), None);
    }

    #[tokio::test]
    async fn a_damaged_name_is_listed_once() {
        let (repository, store) = repository(false).await;
        let name = |suffix| (EpochId::new(1), ChunkName { hash: Hash([7; 32]), suffix });
        assert_eq!(repository.condemn_damaged(&[].into()).await.expect("nothing"), 0);
        assert_eq!(repository.condemn_damaged(&[name(1), name(2)].into()).await.expect("put"), 2);
        assert_eq!(repository.condemn_damaged(&[name(2), name(3)].into()).await.expect("put"), 1);
        assert_eq!(repository.condemn_damaged(&[name(3)].into()).await.expect("put"), 0);
        let lists = store.objects().into_keys().filter(layout::is_condemned_list);
        assert_eq!(lists.count(), 2);
        let lists = repository.condemned().await.expect("read");
        assert!(lists.iter().all(|list| list.reason == CondemnedReason::Damaged));
    }
}
