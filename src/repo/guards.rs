//! Guarded runs whose end is not recorded.
//!
//! Right before a guarded command starts, an event is put that has the id of the run's snapshot and names the run; the
//! run's end is an event of the run's own id. So which run was begun and which has ended is told by names alone, and
//! what is read is little. A run that was killed has no end, nor has one whose end the store did not take.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use super::Repository;
use super::catalog::ManifestName;
use super::error::RepoError;
use super::events::KEPT_DAYS;
use crate::domain::audit::RunId;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::manifest::Trigger;
use crate::domain::migration::MigrationRecord;

/// So many of the newest are read: a run that was killed is told to the next one, not years later.
const READ_MAX: usize = 16;

/// A guarded run whose end is not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unended {
    /// The run.
    pub run: RunId,
    /// Its snapshot.
    pub snapshot: BackupId,
    /// When its command was about to begin, or the snapshot began where none was.
    pub at: Timestamp,
    /// Where.
    pub host: String,
    /// What was recorded right before its command began; none where that was not reached.
    pub begun: Option<MigrationRecord>,
}

impl Repository {
    /// The newest guarded run of a database, if its end is not recorded. Who holds the lock of that database's
    /// snapshots knows that it is not at work either; its command may be.
    pub async fn unended_guard(
        &self,
        cluster: &ClusterName,
        database: &str,
    ) -> Result<Option<Unended>, RepoError> {
        let events = self.event_names(Some(cluster)).await?;
        let events: HashSet<BackupId> = events.into_iter().map(|name| name.id).collect();
        let names = self.manifest_names(Some(cluster)).await?;
        let begun = self.newest_begun(&names, &events, database).await?;
        let newest = &names[..names.len().min(READ_MAX)];
        let entries = self.manifests(newest).await?.entries;
        let kept = SignedDuration::from_hours(24 * KEPT_DAYS);
        let since = self.ambient().now().checked_sub(kept).unwrap_or(Timestamp::MIN);
        let taken = entries.into_iter().map(|entry| entry.manifest).find(|manifest| {
            manifest.database == database && manifest.trigger == Trigger::PreMigration
        });
        let begun_at = begun.as_ref().map(|begun| &begun.snapshot);
        if let Some(manifest) = taken
            && let Some(run) = &manifest.run
            && manifest.started_at > since
            && !events.contains(run)
            && begun_at.is_none_or(|snapshot| *snapshot < manifest.id)
        {
            let (run, at, host) = (run.clone(), manifest.started_at, manifest.host.clone());
            return Ok(Some(Unended { run, snapshot: manifest.id, at, host, begun: None }));
        }
        Ok(begun.filter(|begun| !events.contains(&begun.run)))
    }

    /// The newest command that was begun: its event has the name of a backup.
    async fn newest_begun(
        &self,
        names: &[ManifestName],
        events: &HashSet<BackupId>,
        database: &str,
    ) -> Result<Option<Unended>, RepoError> {
        let both = names.iter().filter(|name| events.contains(&name.id));
        for name in both.take(READ_MAX) {
            let event = match self.event(name).await {
                Ok(event) => event,
                Err(RepoError::Store(error)) if !error.is_not_found() => return Err(error.into()),
                // One that cannot be trusted tells nothing.
                Err(_) => continue,
            };
            if event.is_begin() && event.is_about(database) {
                return Ok(Some(Unended {
                    run: event.run().clone(),
                    snapshot: event.id,
                    at: event.at,
                    host: event.host,
                    begun: event.migration.map(|record| *record),
                }));
            }
        }
        Ok(None)
    }
}
