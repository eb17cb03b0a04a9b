//! Signed records of verifications.

use std::collections::{HashMap, HashSet};

use futures::stream::{self, StreamExt as _};

use super::catalog::{Entry, ManifestName};
use super::error::RepoError;
use super::layout;
use super::{Repository, documents};
use crate::codec::sign::SigningKey;
use crate::domain::chunk::ChunkName;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::verification::VerificationRecord;

/// So many of a cluster's newest verifications are asked for damage, besides those of the backups at hand:
/// enough for what was found lately, few enough for a repository of thousands.
const RECORDS_ASKED: usize = 64;

impl Repository {
    /// The chunks of backups whose verification found damage in the repository itself.
    ///
    /// Which of a backup's chunks is damaged no record says, and none of them must be relied on: a damaged
    /// chunk keeps its name and may keep its size, so a new backup would be as dead as the old one.
    pub(super) async fn distrusted(
        &self,
        cluster: &ClusterName,
        at_hand: &[Entry],
    ) -> Result<HashSet<ChunkName>, RepoError> {
        let keys = self.keys_below(&layout::verifications(cluster)).await?;
        let mut records: Vec<_> = keys.iter().filter_map(layout::verification_of).collect();
        records.sort_by(|(_, a), (_, b)| b.cmp(a));
        let mut asked = HashSet::new();
        let mut damaged = Vec::new();
        for (at, (backup, record)) in records.into_iter().enumerate() {
            let near = at_hand.iter().any(|entry| entry.manifest.id == backup);
            // Of each backup the newest record counts, as everywhere.
            if !(near || at < RECORDS_ASKED) || asked.contains(&backup) {
                continue;
            }
            let record = match self.trusted_record(cluster, &backup, &record).await {
                Ok(record) => record,
                Err(RepoError::Store(error)) => return Err(error.into()),
                // It cannot be read, so it says nothing.
                Err(_) => None,
            };
            if let Some(record) = record {
                asked.insert(backup.clone());
                if record.found_damage() {
                    damaged.push(ManifestName { cluster: cluster.clone(), id: backup });
                }
            }
        }
        let mut distrusted = HashSet::new();
        for entry in self.manifests(&damaged).await?.entries {
            match self.chunk_list(&entry.manifest).await {
                Ok(list) => distrusted.extend(list.into_iter().map(|chunk| chunk.name)),
                Err(RepoError::Store(error)) => return Err(error.into()),
                // The list is what is damaged; it offers nothing either.
                Err(_) => {}
            }
        }
        Ok(distrusted)
    }

    /// Keeps a record beside the backups of `cluster`.
    pub async fn record_verification(
        &self,
        cluster: &ClusterName,
        record: &VerificationRecord,
        signer: &SigningKey,
    ) -> Result<(), RepoError> {
        let key = layout::verification(cluster, &record.backup, &record.id);
        let bytes = documents::render(record).into();
        documents::put_signed(&*self.store, &self.document.id, signer, &key, bytes).await
    }

    /// The newest trusted record of each backup. Records of strangers count for nothing.
    pub(crate) async fn newest_verifications(
        &self,
        cluster: &ClusterName,
    ) -> Result<HashMap<BackupId, VerificationRecord>, RepoError> {
        let mut newest: HashMap<BackupId, Vec<BackupId>> = HashMap::new();
        for key in self.keys_below(&layout::verifications(cluster)).await? {
            if let Some((backup, record)) = layout::verification_of(&key) {
                newest.entry(backup).or_default().push(record);
            }
        }
        let read = newest.into_iter().map(|(backup, mut records)| async move {
            records.sort();
            for record in records.iter().rev() {
                if let Some(record) = self.trusted_record(cluster, &backup, record).await? {
                    return Ok(Some((backup, record)));
                }
            }
            Ok(None)
        });
        let read: Vec<Result<_, RepoError>> =
            stream::iter(read).buffer_unordered(self.store.concurrency().max(1)).collect().await;
        read.into_iter().filter_map(Result::transpose).collect()
    }

    /// All trusted records of one backup, oldest first.
    pub async fn verifications(
        &self,
        cluster: &ClusterName,
        backup: &BackupId,
    ) -> Result<Vec<VerificationRecord>, RepoError> {
        let prefix = format!("{}{backup}/", layout::verifications(cluster));
        let keys = self.keys_below(&prefix).await?;
        let mut ids: Vec<_> = keys.iter().filter_map(layout::verification_of).collect();
        ids.sort();
        let mut records = Vec::new();
        for (_, record) in ids {
            records.extend(self.trusted_record(cluster, backup, &record).await?);
        }
        Ok(records)
    }

    async fn trusted_record(
        &self,
        cluster: &ClusterName,
        backup: &BackupId,
        record: &BackupId,
    ) -> Result<Option<VerificationRecord>, RepoError> {
        let key = layout::verification(cluster, backup, record);
        let bytes = match self.get_signed(&key).await {
            Ok(bytes) => bytes,
            Err(
                RepoError::Untrusted { .. }
                | RepoError::Unsigned(_)
                | RepoError::Misplaced(_)
                | RepoError::Stranger { .. },
            ) => return Ok(None),
            Err(RepoError::Store(error)) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let record: VerificationRecord = documents::parse(&key, &bytes)?;
        Ok((record.backup == *backup).then_some(record))
    }
}
