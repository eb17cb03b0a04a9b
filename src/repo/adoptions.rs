//! Adoptions: signed marks that take a doubt off backups. Put once, never edited, never removed.
//!
//! One that cannot be trusted or read counts for nothing: the doubt stays, and nothing is lost by that.

use super::Repository;
use super::catalog::Entry;
use super::documents;
use super::error::RepoError;
use super::layout;
use crate::domain::adoption::Adoption;
use crate::domain::id::ClusterName;
use crate::domain::key::ObjectKey;

impl Repository {
    /// Takes the doubts off those of one cluster's `entries` that somebody trusted has adopted; the adoptions.
    ///
    /// They are read only where there is a doubt.
    pub(super) async fn adopt_entries(
        &self,
        cluster: &ClusterName,
        entries: &mut [Entry],
    ) -> Result<Vec<Adoption>, RepoError> {
        let of_cluster = |entry: &&mut Entry| entry.manifest.cluster == *cluster;
        if !entries.iter_mut().filter(of_cluster).any(|entry| entry.is_in_doubt()) {
            return Ok(Vec::new());
        }
        let adoptions = self.adoptions(cluster).await?;
        for entry in entries.iter_mut().filter(of_cluster) {
            let manifest = &entry.manifest;
            if adoptions.iter().any(|adoption| adoption.knows_server_of(manifest)) {
                entry.foreign = false;
            }
            if adoptions.iter().any(|adoption| adoption.accepts_rows_of(manifest)) {
                entry.suspect = None;
            }
        }
        Ok(adoptions)
    }

    async fn adoptions(&self, cluster: &ClusterName) -> Result<Vec<Adoption>, RepoError> {
        let keys = self.keys_below(&layout::marks(cluster)).await?;
        self.adoptions_among(keys.into_iter()).await
    }

    /// The trusted adoptions among these objects.
    pub(super) async fn adoptions_among(
        &self,
        keys: impl Iterator<Item = ObjectKey>,
    ) -> Result<Vec<Adoption>, RepoError> {
        let mut adoptions = Vec::new();
        for key in keys {
            if let Some(backup) = layout::adopted(&key)
                && let Some(adoption) = self.trusted_adoption(&key).await?
                && adoption.backup == backup
            {
                adoptions.push(adoption);
            }
        }
        Ok(adoptions)
    }

    async fn trusted_adoption(&self, key: &ObjectKey) -> Result<Option<Adoption>, RepoError> {
        match self.get_signed(key).await {
            Ok(bytes) => Ok(documents::parse(key, &bytes).ok()),
            Err(RepoError::Store(error)) if !error.is_not_found() => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// Puts an adoption, signed with this host's writer key.
    pub async fn put_adoption(
        &self,
        cluster: &ClusterName,
        adoption: &Adoption,
    ) -> Result<(), RepoError> {
        let writer = self.keys().writer.as_ref().ok_or(RepoError::NoWriterKey)?;
        let key = layout::adoption(cluster, &adoption.backup, self.ambient().random());
        let bytes = documents::render(adoption).into();
        documents::put_signed(&*self.store, &self.document.id, &writer.signing, &key, bytes).await
    }
}
