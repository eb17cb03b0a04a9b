//! What one listing of `clusters/` showed: manifests, marks, verifications, what lies beside each, and old events.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::stream::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};

use super::Prune;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::key::ObjectKey;
use crate::repo::catalog::ManifestName;
use crate::repo::error::RepoError;
use crate::repo::events::KEPT_DAYS;
use crate::repo::layout::{self, Part};

#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) manifests: BTreeSet<ManifestName>,
    pub(super) pinned: HashSet<ManifestName>,
    /// Adoptions without their signatures, and whose they are.
    pub(super) adoptions: Vec<(ManifestName, ObjectKey)>,
    pub(super) records: HashMap<ManifestName, Vec<BackupId>>,
    /// What means nothing without its backup: signatures, chunk lists, pins, verification records.
    pub(super) beside: HashMap<ManifestName, Vec<ObjectKey>>,
    pub(super) events: Events,
}

/// Of the audit trail, what may be too old to be kept.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Whatever begins before this is old by this host's clock.
    cutoff: String,
    /// Those, with their signatures.
    old: Vec<(ClusterName, BackupId, ObjectKey)>,
    /// The newest of each cluster.
    newest: HashMap<ClusterName, BackupId>,
}

impl Events {
    fn add(&mut self, cluster: ClusterName, id: BackupId, key: ObjectKey) {
        if *id.second() < *self.cutoff {
            self.old.push((cluster.clone(), id.clone(), key));
        }
        match self.newest.get_mut(&cluster) {
            Some(newest) if *newest >= id => {}
            Some(newest) => *newest = id,
            None => _ = self.newest.insert(cluster, id),
        }
    }

    /// Those that began so long before the newest of their cluster, too: a clock that stands ahead makes none old.
    pub(super) fn expired(&self) -> impl Iterator<Item = (&ClusterName, &ObjectKey)> {
        let cutoffs: HashMap<&ClusterName, String> =
            self.newest.iter().map(|(name, newest)| (name, cutoff(newest.began()))).collect();
        self.old
            .iter()
            .filter(move |(cluster, id, _)| {
                cutoffs.get(cluster).is_some_and(|cutoff| *id.second() < **cutoff)
            })
            .map(|(cluster, _, key)| (cluster, key))
    }
}

/// What the ids of events begin with that are just old enough to go at that time.
fn cutoff(at: Option<Timestamp>) -> String {
    let kept = SignedDuration::from_hours(KEPT_DAYS * 24);
    let before = at.and_then(|at| at.checked_sub(kept).ok());
    before.map_or_else(String::new, |before| BackupId::new(before, 0).second().to_owned())
}

impl Objects {
    fn add(&mut self, key: ObjectKey) -> Result<(), RepoError> {
        let Some((cluster, id, part)) = layout::part_of(&key) else {
            return Err(RepoError::UnknownObject(key));
        };
        let name = ManifestName { cluster, id };
        match part {
            Part::Manifest => _ = self.manifests.insert(name),
            Part::Adoption => {
                if layout::adopted(&key).is_some() {
                    self.adoptions.push((name, key));
                }
            }
            Part::Event => self.events.add(name.cluster, name.id, key),
            Part::Pin => {
                self.pinned.insert(name.clone());
                self.beside.entry(name).or_default().push(key);
            }
            Part::Record(record) => {
                self.records.entry(name.clone()).or_default().push(record);
                self.beside.entry(name).or_default().push(key);
            }
            Part::Beside => self.beside.entry(name).or_default().push(key),
        }
        Ok(())
    }
}

impl Prune<'_> {
    /// Lists `clusters/`. What is not known there may be a kind of backup of a later version, whose chunks would
    /// seem to be nobody's.
    pub(super) async fn objects(&self) -> Result<Objects, RepoError> {
        let now = self.repository.ambient().now();
        let events = Events { cutoff: cutoff(Some(now)), ..Events::default() };
        let mut objects = Objects { events, ..Objects::default() };
        let mut listed = self.repository.store.list(layout::CLUSTERS);
        while let Some(object) = listed.try_next().await? {
            objects.add(object.key)?;
        }
        Ok(objects)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(now: &str, ids: &[&str]) -> Vec<String> {
        let cluster: ClusterName = "main".parse().expect("a name");
        let now = now.parse().expect("a time");
        let mut events = Events { cutoff: cutoff(Some(now)), ..Events::default() };
        for id in ids {
            let id: BackupId = format!("{id}T020000Z-00000001").parse().expect("an id");
            let key = layout::event(&cluster, &id);
            events.add(cluster.clone(), id, key);
        }
        events.expired().map(|(_, key)| key.file_name()[..8].to_owned()).collect()
    }

    #[test]
    fn an_event_goes_after_400_days_and_a_clock_that_stands_ahead_makes_none_old() {
        let ids = ["20251001", "20251018", "20251022", "20261121", "20261101"];
        assert_eq!(events("2026-11-22T00:00:00Z", &ids), ["20251001"]);
        assert_eq!(events("2026-11-30T00:00:00Z", &ids), ["20251001"]);
        assert_eq!(events("2036-11-22T00:00:00Z", &ids), ["20251001"]);
        assert_eq!(events("2016-11-22T00:00:00Z", &ids), [""; 0]);
        assert_eq!(events("2036-11-22T00:00:00Z", &ids[..1]), [""; 0]);
    }
}
