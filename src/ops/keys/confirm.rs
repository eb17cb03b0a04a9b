//! `key confirm`: proof, from the host that keeps a recovery kit, that the kit is there and opens backups.

use jiff::Timestamp;

use super::error::KeysError;
use crate::domain::id::{BackupId, EpochId};
use crate::repo::Repository;
use crate::repo::catalog::Filter;

/// What was proved.
#[derive(Debug, Clone)]
pub struct Confirmed {
    /// The epoch whose chunk key the identity opens.
    pub epoch: EpochId,
    /// The newest backup of that epoch, which it opens too; none where there is none yet.
    pub backup: Option<BackupId>,
    /// This host, as the record names it.
    pub host: String,
    /// When.
    pub confirmed_at: Timestamp,
}

/// Opens what the epochs in force keep sealed, and leaves a record for each.
///
/// Refused where the writer key is: that host is the one whose loss a kit is for.
pub async fn confirm(repository: &Repository, host: &str) -> Result<Vec<Confirmed>, KeysError> {
    if repository.is_plaintext() {
        return Err(KeysError::NoEncryption);
    }
    if repository.keys().writer.is_some() {
        return Err(KeysError::WriterHere);
    }
    let catalog = repository.catalog(&Filter::default()).await?;
    let mut confirmed = Vec::new();
    for document in repository.epochs_in_force().await? {
        let epoch = document.epoch;
        let newest = catalog.entries.iter().find(|entry| entry.manifest.epoch == epoch);
        if let Some(entry) = newest {
            repository.sealed_part(&entry.manifest)?;
        }
        let record = repository.confirm(&epoch, host).await?;
        confirmed.push(Confirmed {
            epoch,
            backup: newest.map(|entry| entry.manifest.id.clone()),
            host: record.host,
            confirmed_at: record.confirmed_at,
        });
    }
    Ok(confirmed)
}
