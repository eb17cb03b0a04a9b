//! Removing what lists name, once nobody can need it.
//!
//! A list's time has come when every writer of its note has ended. All that is decided is decided by looks made
//! **after** that: what those writers committed is seen, and so is a pin that came meanwhile. Manifests go first,
//! each after a signed record of it; then what lies beside them; then the chunks that no manifest needs, whatever a
//! list says; the list last, when none of its names is listed any more.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::intents::Intents;
use super::lists::{List, Lists};
use super::objects::Objects;
use super::survey::{Survey, cause};
use super::{Clause, Prune};
use crate::domain::audit::{Event, RemovedBackup};
use crate::domain::chunk::ChunkName;
use crate::domain::id::{BackupId, ClusterName, EpochId};
use crate::domain::key::ObjectKey;
use crate::domain::retention::{Backup, Cause};
use crate::failpoint;
use crate::repo::catalog::ManifestName;
use crate::repo::documents::{self, CondemnedReason, FORMAT};
use crate::repo::error::RepoError;
use crate::repo::layout;

/// A list that has to stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The list.
    pub list: BackupId,
    /// Backups on it.
    pub backups: usize,
    /// Chunks on it.
    pub chunks: usize,
    /// The writers it waits for; none where something on it is still needed, or still listed.
    pub writers: Vec<BackupId>,
}

/// What a sweep did.
#[derive(Debug, Default)]
pub struct Swept {
    /// Backups that are gone.
    pub backups: Vec<ManifestName>,
    /// Chunks that are gone.
    pub chunks: u64,
    /// Their stored size.
    pub bytes: u64,
    /// Lists that stay.
    pub waiting: Vec<Waiting>,
}

/// The second look: intents, and after them all else.
pub(super) struct SecondLook {
    pub(super) intents: Intents,
    pub(super) objects: Objects,
    pub(super) orphaned_notes: Vec<ObjectKey>,
    /// Of the lists that stay.
    pub(super) waited_for: HashSet<BackupId>,
}

impl Prune<'_> {
    /// Sweeps every list whose time has come, then tidies.
    pub async fn sweep(&self, survey: &mut Survey) -> Result<Swept, RepoError> {
        let Lists { lists, orphans } = self.lists().await?;
        let notes = self.notes(&lists).await?;
        let intents = self.intents().await?;
        let (mut ready, mut swept) = (Vec::new(), Swept::default());
        let mut waited_for = HashSet::new();
        for (list, note) in lists.into_iter().zip(notes) {
            let unfinished = || intents.unfinished().map(|(id, _)| id.clone()).collect();
            let writers = if let Some(note) = note {
                note.into_iter().filter(|id| !intents.has_ended(id)).collect()
            } else {
                let writers: Vec<BackupId> = unfinished();
                self.put_waits(&list.id, &writers).await?;
                writers
            };
            if writers.is_empty() || self.lacks(Clause::Wait) {
                ready.push(list);
            } else {
                waited_for.extend(writers.iter().cloned());
                swept.waiting.push(waiting(&list, writers));
            }
        }
        let mut objects = self.objects().await?;
        let backups = self.view(&intents, &mut objects, &mut survey.seen).await?;
        let look = SecondLook { intents, objects, orphaned_notes: orphans, waited_for };
        let removed = self.to_remove(&ready, &backups);
        self.need_what_stays(survey, &look, &removed).await?;
        self.remove_manifests(survey, &look, &backups, &removed).await?;
        let gone = self.remove_chunks(survey, &ready, &mut swept).await?;
        swept.backups = removed.into_keys().collect();
        self.remove_lists(survey, ready, &look, &gone, &mut swept).await?;
        self.tidy(survey, &look, &swept.backups).await?;
        Ok(swept)
    }

    /// Whom each list waits for; none where nobody has noted it yet.
    async fn notes(&self, lists: &[List]) -> Result<Vec<Option<Vec<BackupId>>>, RepoError> {
        let mut notes = Vec::new();
        for list in lists {
            let key = layout::waits(&list.id);
            notes.push(match self.repository.store.get(&key).await {
                Ok(bytes) => Some(documents::parse(&key, &bytes)?),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            });
        }
        Ok(notes)
    }

    /// What lists name, is there, and is not kept now.
    fn to_remove(
        &self,
        ready: &[List],
        backups: &BTreeMap<ManifestName, Backup>,
    ) -> BTreeMap<ManifestName, Cause> {
        let verdicts = self.verdicts(backups.iter(), self.repository.ambient().now());
        let named: BTreeSet<&ManifestName> = ready.iter().flat_map(|list| &list.backups).collect();
        let removed = named.into_iter().filter_map(|name| {
            let cause = cause(verdicts.get(name)?);
            let cause = if self.lacks(Clause::SecondLook) { Some(Cause::Expired) } else { cause };
            Some((name.clone(), cause?))
        });
        removed.collect()
    }

    /// Marks the chunks of manifests that stay and were not counted before.
    async fn need_what_stays(
        &self,
        survey: &mut Survey,
        look: &SecondLook,
        removed: &BTreeMap<ManifestName, Cause>,
    ) -> Result<(), RepoError> {
        let stay = look
            .objects
            .manifests
            .iter()
            .filter(|name| !removed.contains_key(*name) && !survey.counted.contains(*name));
        let stay: Vec<ManifestName> = stay.cloned().collect();
        self.need(&stay, &look.intents, &survey.seen, &mut survey.table).await
    }

    async fn remove_manifests(
        &self,
        survey: &Survey,
        look: &SecondLook,
        backups: &BTreeMap<ManifestName, Backup>,
        removed: &BTreeMap<ManifestName, Cause>,
    ) -> Result<(), RepoError> {
        let clusters: BTreeSet<&ClusterName> = removed.keys().map(|name| &name.cluster).collect();
        for cluster in clusters {
            let of_cluster = removed.iter().filter(|(name, _)| name.cluster == *cluster);
            let record = of_cluster.map(|(name, cause)| RemovedBackup {
                id: name.id.clone(),
                database: backups
                    .get(name)
                    .map(|backup| backup.database.clone())
                    .filter(|database| !database.is_empty()),
                manifest_blake3: survey.seen.held.get(name).map(|held| held.manifest_hash.to_hex()),
                reason: cause.to_string(),
            });
            self.record(cluster, record.collect()).await?;
        }
        failpoint::hit("prune.record-put");
        let manifests = removed.keys().map(|name| layout::manifest(&name.cluster, &name.id));
        self.delete_all(manifests, Some("prune.manifest-deleted")).await?;
        let beside = removed.keys().filter_map(|name| look.objects.beside.get(name)).flatten();
        self.delete_all(beside.cloned(), Some("prune.beside-deleted")).await
    }

    /// Says, signed, what is going to be removed: a backup that is gone without such a record was not pruned.
    async fn record(
        &self,
        cluster: &ClusterName,
        backups: Vec<RemovedBackup>,
    ) -> Result<(), RepoError> {
        let (ambient, terms) = (self.repository.ambient(), self.terms);
        let at = ambient.now();
        let event = Event {
            format: FORMAT,
            id: terms.run.clone().unwrap_or_else(|| BackupId::new(at, ambient.random())),
            run: None,
            event: "prune".to_owned(),
            at,
            duration_ms: 0,
            database: terms.database.clone(),
            backup: None,
            origin: terms.by.origin.as_str().to_owned(),
            user: terms.by.user.clone(),
            host: terms.by.host.clone(),
            pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
            exit_code: 0,
            message: Some(format!("about to remove {} backups", backups.len())),
            backups,
            migration: None,
            rehearsal: None,
        };
        self.repository.put_event(cluster, &event).await
    }

    /// Removes the chunks that no manifest needs; those that are gone.
    async fn remove_chunks(
        &self,
        survey: &Survey,
        ready: &[List],
        swept: &mut Swept,
    ) -> Result<HashSet<usize>, RepoError> {
        let table = &survey.table;
        let mut goes = HashSet::new();
        for list in ready {
            let believed = self.lacks(Clause::SecondLook)
                || self.lacks(Clause::DamageIsNeeded) && list.reason == CondemnedReason::Damaged;
            for (epoch, name) in &list.chunks {
                // One that was not listed is gone; or newer than the listing, and left for another time.
                let at = table.epoch(epoch).and_then(|epoch| table.find(epoch, *name));
                goes.extend(at.filter(|at| believed || !table.is_needed(*at)));
            }
        }
        let keys = goes.iter().map(|at| table.key(*at));
        self.delete_all(keys, Some("prune.chunk-deleted")).await?;
        failpoint::hit("prune.chunks-deleted");
        swept.chunks = goes.len() as u64;
        swept.bytes = goes.iter().map(|at| table.size(*at)).sum();
        Ok(goes)
    }

    /// Removes the lists of which no name is listed any more. What was deleted is looked for, not taken for gone.
    async fn remove_lists(
        &self,
        survey: &Survey,
        ready: Vec<List>,
        look: &SecondLook,
        gone: &HashSet<usize>,
        swept: &mut Swept,
    ) -> Result<(), RepoError> {
        let manifests = self.manifests_left(look, &swept.backups).await?;
        let table = &survey.table;
        // Those that were deleted, and those that the first listing did not show: gone, or newer than it.
        let may_be_gone = |(epoch, name): &&(EpochId, ChunkName)| {
            let at = table.epoch(epoch).and_then(|epoch| table.find(epoch, *name));
            at.is_none_or(|at| gone.contains(&at))
        };
        let mut wanted: BTreeMap<&EpochId, Vec<ChunkName>> = BTreeMap::new();
        for (epoch, name) in ready.iter().flat_map(|list| &list.chunks).filter(may_be_gone) {
            wanted.entry(epoch).or_default().push(*name);
        }
        let mut still: HashSet<(EpochId, ChunkName)> = HashSet::new();
        for (epoch, names) in wanted {
            let there = self.repository.present(epoch, names.into_iter()).await?;
            still.extend(there.into_keys().map(|name| (epoch.clone(), name)));
        }
        for list in &ready {
            let left = list.backups.iter().any(|name| manifests.contains(name))
                || list.chunks.iter().any(|chunk| !may_be_gone(&chunk) || still.contains(chunk));
            if left {
                swept.waiting.push(waiting(list, Vec::new()));
            } else {
                self.remove_list(&list.id).await?;
            }
        }
        Ok(())
    }

    /// The manifests that are listed now, as far as it matters to lists.
    async fn manifests_left(
        &self,
        look: &SecondLook,
        removed: &[ManifestName],
    ) -> Result<BTreeSet<ManifestName>, RepoError> {
        let mut manifests = look.objects.manifests.clone();
        let clusters: BTreeSet<&ClusterName> = removed.iter().map(|name| &name.cluster).collect();
        manifests.retain(|name| !clusters.contains(&name.cluster));
        for cluster in clusters {
            let listed = self.repository.keys_below(&layout::snapshots(cluster)).await?;
            let there = listed.iter().filter_map(layout::manifest_of);
            manifests.extend(there.map(|(cluster, id)| ManifestName { cluster, id }));
        }
        Ok(manifests)
    }

    pub(super) async fn delete_all(
        &self,
        keys: impl Iterator<Item = ObjectKey>,
        after: Option<&'static str>,
    ) -> Result<(), RepoError> {
        let store = &self.repository.store;
        let at_once = store.concurrency().max(1);
        stream::iter(keys)
            .map(Ok::<_, RepoError>)
            .try_for_each_concurrent(at_once, |key| async move {
                store.delete(&key).await?;
                if let Some(name) = after {
                    failpoint::hit(name);
                }
                Ok(())
            })
            .await
    }
}

fn waiting(list: &List, writers: Vec<BackupId>) -> Waiting {
    let (backups, chunks) = (list.backups.len(), list.chunks.len());
    Waiting { list: list.id.clone(), backups, chunks, writers }
}
