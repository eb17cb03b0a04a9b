//! Signed records of verifications.

use std::collections::HashMap;

use futures::stream::{self, StreamExt as _};

use super::error::RepoError;
use super::layout;
use super::{Repository, documents};
use crate::codec::sign::SigningKey;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::verification::VerificationRecord;

impl Repository {
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
        let read = newest.into_iter().map(|(backup, records)| async move {
            let newest = self.newest_of(cluster, &backup, records).await?;
            Ok(newest.map(|record| (backup, record)))
        });
        let read: Vec<Result<_, RepoError>> =
            stream::iter(read).buffer_unordered(self.store.concurrency().max(1)).collect().await;
        read.into_iter().filter_map(Result::transpose).collect()
    }

    /// The newest trusted one of these records of a backup.
    pub(super) async fn newest_of(
        &self,
        cluster: &ClusterName,
        backup: &BackupId,
        mut records: Vec<BackupId>,
    ) -> Result<Option<VerificationRecord>, RepoError> {
        records.sort();
        for record in records.iter().rev() {
            if let Some(record) = self.trusted_record(cluster, backup, record).await? {
                return Ok(Some(record));
            }
        }
        Ok(None)
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
