//! Signed records of verifications.

use std::collections::HashMap;

use futures::stream::{self, StreamExt as _};

use super::error::RepoError;
use super::layout;
use super::remembered::Remembered;
use super::{Repository, documents};
use crate::codec::sign::SigningKey;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::verification::{Depth, Outcome, VerificationRecord};

impl Repository {
    /// Keeps a record beside the backups of `cluster`, behind those that are there, whatever the clock says: the
    /// order of a backup's records is that of their ids.
    pub async fn record_verification(
        &self,
        cluster: &ClusterName,
        mut record: VerificationRecord,
        signer: &SigningKey,
    ) -> Result<(), RepoError> {
        if let Some(newest) = self.record_ids(cluster, &record.backup).await?.last() {
            record.id = record.id.behind(newest);
        }
        let record = &record;
        let key = layout::verification(cluster, &record.backup, &record.id);
        let bytes = documents::render(record).into();
        documents::put_signed(&*self.store, &self.document.id, signer, &key, bytes).await
    }

    /// The trusted record of each backup that stands: the newest, but for a failure that a deeper look found before
    /// it. Records of strangers count for nothing.
    pub(super) async fn standing_verifications(
        &self,
        cluster: &ClusterName,
        known: &mut Remembered,
    ) -> Result<HashMap<BackupId, VerificationRecord>, RepoError> {
        let mut listed: HashMap<BackupId, Vec<BackupId>> = HashMap::new();
        for key in self.keys_below(&layout::verifications(cluster)).await? {
            if let Some((backup, record)) = layout::verification_of(&key) {
                listed.entry(backup).or_default().push(record);
            }
        }
        let mut all = HashMap::new();
        let mut unknown = Vec::new();
        for (backup, mut records) in listed {
            records.sort();
            match known.standing(&backup, &records) {
                Some(standing) => all.extend(standing.map(|record| (backup, record))),
                None => unknown.push((backup, records)),
            }
        }
        let read = unknown.into_iter().map(|(backup, records)| async move {
            let standing = self.standing_of(cluster, &backup, records.clone()).await?;
            Ok::<_, RepoError>((backup, records, standing))
        });
        let mut read = stream::iter(read).buffer_unordered(self.store.concurrency().max(1));
        while let Some(read) = read.next().await {
            let (backup, records, standing) = read?;
            all.extend(standing.clone().map(|record| (backup.clone(), record)));
            known.keep_standing(backup, records, standing);
        }
        Ok(all)
    }

    /// That of these records of a backup which stands.
    pub(super) async fn standing_of(
        &self,
        cluster: &ClusterName,
        backup: &BackupId,
        mut records: Vec<BackupId>,
    ) -> Result<Option<VerificationRecord>, RepoError> {
        records.sort();
        let mut standing: Option<VerificationRecord> = None;
        for record in records.iter().rev() {
            let Some(record) = self.trusted_record(cluster, backup, record).await? else {
                continue;
            };
            let deepest = record.depth == Depth::Full;
            match &standing {
                Some(newer) if !newer.leaves_standing(&record) => {}
                _ => standing = Some(record),
            }
            // What is older was looked at as deeply since, or changes nothing any more.
            if deepest || standing.as_ref().is_some_and(|one| one.result == Outcome::Failed) {
                break;
            }
        }
        Ok(standing)
    }

    /// All trusted records of one backup, oldest first.
    pub async fn verifications(
        &self,
        cluster: &ClusterName,
        backup: &BackupId,
    ) -> Result<Vec<VerificationRecord>, RepoError> {
        let mut records = Vec::new();
        for record in self.record_ids(cluster, backup).await? {
            records.extend(self.trusted_record(cluster, backup, &record).await?);
        }
        Ok(records)
    }

    /// Of one backup's records, oldest first.
    async fn record_ids(
        &self,
        cluster: &ClusterName,
        backup: &BackupId,
    ) -> Result<Vec<BackupId>, RepoError> {
        let prefix = format!("{}{backup}/", layout::verifications(cluster));
        let keys = self.keys_below(&prefix).await?;
        let ids = keys.iter().filter_map(layout::verification_of).map(|(_, record)| record);
        let mut ids: Vec<BackupId> = ids.collect();
        ids.sort();
        Ok(ids)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::test_support::{Still, plaintext_keys};
    use super::*;
    use crate::codec::cut::ChunkParams;
    use crate::repo::workers::Workers;
    use crate::store::memory::MemoryStore;

    const BACKUP: &str = "20261121T020000Z-5f3a9c21";

    /// A repository with these records, the oldest first, each made by a clock that shows that second.
    async fn with(records: &[(&str, Depth, Outcome)]) -> (Repository, ClusterName, BackupId) {
        let (store, ambient) = (Arc::new(MemoryStore::new()), Arc::new(Still::default()));
        let keys = plaintext_keys();
        let signer = keys.writer.as_ref().expect("a writer").signing.clone();
        let made =
            Repository::create(store, keys, ChunkParams::default(), Workers::Inline, ambient);
        let repository = made.await.expect("it is made").0;
        let (cluster, backup) = ("main".parse().expect("a name"), BACKUP.parse().expect("an id"));
        for (at, (second, depth, result)) in records.iter().enumerate() {
            let record = VerificationRecord {
                format: 1,
                id: format!("20261121T0300{second}Z-{at:08x}").parse().expect("an id"),
                backup: BACKUP.parse().expect("an id"),
                manifest_blake3: String::new(),
                started_at: jiff::Timestamp::UNIX_EPOCH,
                duration_ms: at as u64,
                depth: *depth,
                result: *result,
                checks: Vec::new(),
                host: "vault".to_owned(),
                pgkeep: "0.1.0".to_owned(),
            };
            repository.record_verification(&cluster, record, &signer).await.expect("kept");
        }
        (repository, cluster, backup)
    }

    #[tokio::test]
    async fn a_failure_stands_until_as_deep_a_look_refutes_it() {
        use Depth::{Counts, Full};
        use Outcome::{Failed, Passed};
        // What is shown is the record with that place.
        for (records, shown) in [
            (&[("00", Full, Failed), ("01", Counts, Passed)][..], 0),
            (&[("00", Full, Failed), ("01", Counts, Passed), ("02", Counts, Passed)], 0),
            (&[("00", Full, Failed), ("01", Counts, Failed), ("02", Counts, Passed)], 0),
            (&[("00", Full, Failed), ("01", Full, Passed), ("02", Counts, Passed)], 2),
            (&[("00", Counts, Failed), ("01", Counts, Passed)], 1),
            (&[("00", Counts, Failed), ("01", Full, Passed)], 1),
            (&[("00", Full, Passed), ("01", Counts, Failed)], 1),
            (&[("00", Full, Passed), ("01", Counts, Passed)], 1),
        ] {
            let (repository, cluster, backup) = with(records).await;
            let standing = repository
                .standing_verifications(&cluster, &mut Remembered::default())
                .await
                .expect("read");
            assert_eq!(standing[&backup].duration_ms, shown, "{records:?}");
        }
    }

    #[tokio::test]
    async fn a_clock_that_stands_behind_puts_no_record_before_an_earlier_one() {
        let records = [("30", Depth::Full, Outcome::Passed), ("10", Depth::Full, Outcome::Failed)];
        let (repository, cluster, backup) = with(&records).await;
        let standing = repository
            .standing_verifications(&cluster, &mut Remembered::default())
            .await
            .expect("read");
        assert_eq!(standing[&backup].result, Outcome::Failed);
        let all = repository.verifications(&cluster, &backup).await.expect("read");
        let order: Vec<u64> = all.iter().map(|record| record.duration_ms).collect();
        assert_eq!(order, [0, 1]);
        assert_eq!(all[1].id.as_str(), "20261121T030031Z-00000001");
    }
}
