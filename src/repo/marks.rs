//! Pins: small objects beside a backup, added or removed, never edited.

use std::collections::HashSet;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};

use super::Repository;
use super::documents::{self, CondemnedDocument};
use super::error::RepoError;
use super::layout;
use crate::domain::id::{BackupId, ClusterName};

impl Repository {
    /// The backups of a cluster that are pinned.
    pub async fn pins(&self, cluster: &ClusterName) -> Result<HashSet<BackupId>, RepoError> {
        let keys = self.keys_below(&layout::marks(cluster)).await?;
        Ok(keys.iter().filter_map(layout::pinned).collect())
    }

    /// Pins a backup: the mark first, then a look whether a prune already condemned it.
    ///
    /// In the other order a prune could condemn it in between and neither would see the other.
    pub async fn pin(&self, cluster: &ClusterName, id: &BackupId) -> Result<(), RepoError> {
        self.put_pin(cluster, id).await?;
        let condemned = self.condemned().await?;
        let named = condemned.iter().flat_map(|list| &list.backups);
        if named.into_iter().any(|backup| backup.cluster == *cluster && backup.id == *id) {
            return Err(RepoError::Condemned(id.clone()));
        }
        Ok(())
    }

    /// Puts the mark alone: enough for a backup that nobody can see yet.
    pub(crate) async fn put_pin(
        &self,
        cluster: &ClusterName,
        id: &BackupId,
    ) -> Result<(), RepoError> {
        let mark = layout::pin(cluster, id, self.ambient().random());
        Ok(self.store.put(&mark, Bytes::new()).await?)
    }

    /// Takes every pin off a backup; how many there were.
    pub async fn unpin(&self, cluster: &ClusterName, id: &BackupId) -> Result<usize, RepoError> {
        let keys = self.keys_below(&layout::marks_of(cluster, id)).await?;
        let pins: Vec<_> = keys.iter().filter(|key| layout::pinned(key).is_some()).collect();
        for mark in &pins {
            self.store.delete(mark).await?;
        }
        Ok(pins.len())
    }

    /// The condemned lists that are there now.
    pub(crate) async fn condemned(&self) -> Result<Vec<CondemnedDocument>, RepoError> {
        let keys = self.keys_below(layout::CONDEMNED).await?.into_iter();
        let reads = keys.filter(layout::is_condemned_list).map(|key| async move {
            let read = self.store.get(&key).await;
            (key, read)
        });
        let mut reads = stream::iter(reads).buffer_unordered(self.store.concurrency().max(1));
        let mut lists = Vec::new();
        while let Some((key, read)) = reads.next().await {
            match read {
                Ok(bytes) => lists.push(documents::parse(&key, &bytes)?),
                // Swept since the listing.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(lists)
    }
}
