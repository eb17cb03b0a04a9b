//! Condemned lists as they lie there, in little room.

use futures::stream::{self, StreamExt as _};

use super::Prune;
use crate::domain::chunk::ChunkName;
use crate::domain::id::{BackupId, EpochId};
use crate::domain::key::ObjectKey;
use crate::repo::catalog::ManifestName;
use crate::repo::documents::{self, CondemnedDocument, CondemnedReason};
use crate::repo::error::RepoError;
use crate::repo::layout;

#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) id: BackupId,
    pub(super) reason: CondemnedReason,
    pub(super) backups: Vec<ManifestName>,
    pub(super) chunks: Vec<(EpochId, ChunkName)>,
}

#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Oldest first.
    pub(super) lists: Vec<List>,
    /// Notes of lists that are gone.
    pub(super) orphans: Vec<ObjectKey>,
}

fn compact(key: &ObjectKey, bytes: &[u8]) -> Result<List, RepoError> {
    let document: CondemnedDocument = documents::parse(key, bytes)?;
    documents::check_format(key, document.format)?;
    let damaged = || RepoError::Damaged {
        key: key.clone(),
        reason: "it names something that is no chunk, or another list".to_owned(),
    };
    if layout::condemned(&document.id) != *key {
        return Err(damaged());
    }
    let chunk = |text: &String| {
        let (epoch, name) = text.split_once('/')?;
        Some((epoch.parse().ok()?, name.parse().ok()?))
    };
    let chunks: Option<Vec<_>> = document.chunks.iter().map(chunk).collect();
    let backups = document.backups.into_iter();
    Ok(List {
        id: document.id,
        reason: document.reason,
        backups: backups.map(|one| ManifestName { cluster: one.cluster, id: one.id }).collect(),
        chunks: chunks.ok_or_else(damaged)?,
    })
}

impl Prune<'_> {
    /// Reads every condemned list. One that cannot be read ends the prune.
    pub(super) async fn lists(&self) -> Result<Lists, RepoError> {
        let store = &self.repository.store;
        let (mut keys, mut notes) = (Vec::new(), Vec::new());
        for object in self.repository.list_all(layout::CONDEMNED).await? {
            match layout::condemned_part_of(&object.key) {
                Some((_, true)) => keys.push(object.key),
                Some((list, false)) => notes.push((list, object.key)),
                None => return Err(RepoError::UnknownObject(object.key)),
            }
        }
        let orphan = |(list, key): (BackupId, ObjectKey)| {
            (!keys.contains(&layout::condemned(&list))).then_some(key)
        };
        let orphans = notes.into_iter().filter_map(orphan).collect();
        let reads = keys.into_iter().map(|key| async move { (store.get(&key).await, key) });
        let mut reads = stream::iter(reads).buffered(store.concurrency().max(1));
        let mut lists = Vec::new();
        while let Some((read, key)) = reads.next().await {
            match read {
                Ok(bytes) => lists.push(compact(&key, &bytes)?),
                // Swept since the listing.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        lists.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Lists { lists, orphans })
    }
}
