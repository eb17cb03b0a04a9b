//! `status`: how it stands with everything that is configured here and all that the repository holds of it.
//!
//! Reading comes first: who can read the repository. The catalog is given, since the daemon looks at it anyway. What
//! follows from it is told by [`judge`], which is pure.

mod judge;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use self::judge::{Facts, Terms, judge};
use crate::config::Settings;
use crate::domain::id::ClusterName;
use crate::domain::status::{KeyStatus, Status};
use crate::repo::catalog::Catalog;
use crate::repo::{RepoError, Repository};

/// How it stands, where `databases` are those that are to be backed up of each cluster: named in the configuration, or
/// as the server has them. Clusters and databases that only the catalog knows are told of too.
pub async fn look(
    repository: &Repository,
    settings: &Settings,
    databases: &BTreeMap<ClusterName, Vec<String>>,
    catalog: &Catalog,
) -> Result<Status, RepoError> {
    Ok(judge(Facts {
        at: repository.ambient().now(),
        repository: repository.store.address(),
        keys: keys(repository).await?,
        clusters: terms(settings, databases),
        catalog,
    }))
}

/// What is configured, of the one cluster that was named or of all.
fn terms<'a>(
    settings: &'a Settings,
    databases: &'a BTreeMap<ClusterName, Vec<String>>,
) -> Vec<Terms<'a>> {
    let meant = |name: &ClusterName| settings.selected.as_ref().is_none_or(|one| one == name);
    let clusters = settings.clusters.iter().filter(|(name, _)| meant(name));
    let terms = clusters.map(|(name, cluster)| Terms {
        name,
        snapshot: cluster.snapshot.as_ref().map(|job| &job.schedule),
        verify: cluster.verify.as_ref().map(|job| &job.schedule),
        prune: cluster.prune.as_ref().map(|job| &job.schedule),
        alarm: cluster.alarm,
        retention: &cluster.retention,
        databases: databases.get(name).map(Vec::as_slice).unwrap_or_default(),
    });
    terms.collect()
}

/// Who can read the repository, as far as this host can tell.
async fn keys(repository: &Repository) -> Result<KeyStatus, RepoError> {
    let held = repository.keys();
    let encrypted = !repository.is_plaintext();
    let in_force = repository.epochs_in_force().await?;
    let mut confirmed_elsewhere = encrypted.then_some(true);
    for document in in_force.iter().filter(|_| encrypted) {
        match repository.confirmations(&document.epoch).await {
            Ok(confirmations) if confirmations.is_empty() => {
                confirmed_elsewhere = confirmed_elsewhere.map(|_| false);
            }
            Ok(_) => {}
            Err(RepoError::Store(error)) if !error.is_not_found() => return Err(error.into()),
            // Only who writes in that epoch, or reads it, can check a confirmation.
            Err(_) => confirmed_elsewhere = None,
        }
    }
    let mut recipients: Vec<String> =
        in_force.into_iter().flat_map(|document| document.recipients).collect();
    recipients.sort();
    recipients.dedup();
    Ok(KeyStatus {
        encrypted,
        epoch: held.writer.as_ref().map(|writer| writer.epoch.to_string()),
        recipients,
        signer: held.writer.as_ref().map(|writer| writer.signing.public().key_id()),
        identity_here: encrypted && held.opener.is_some(),
        confirmed_elsewhere,
    })
}
