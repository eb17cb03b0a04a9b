//! The audit trail: one signed object for each event, put once and never changed. A prune of all databases of a cluster
//! removes those that are older than [`KEPT_DAYS`] (`repo::prune::tidy`).

use std::collections::HashSet;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::catalog::ManifestName;
use super::error::RepoError;
use super::layout::{self, Part};
use super::{Repository, documents};
use crate::domain::audit::{Event, Recorded};
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::key::ObjectKey;

/// So long an event is there to be read: more than a year, so that yearly work can be compared with the last time.
pub const KEPT_DAYS: i64 = 400;

/// So many events are looked through behind the place where one of a run would be.
const NEAR: usize = 200;
/// So many characters of an id are its time.
const SECOND: usize = 16;

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only of this cluster.
    pub cluster: Option<ClusterName>,
    /// Only about this database.
    pub database: Option<String>,
    /// The newest so many.
    pub limit: usize,
}

/// Events, newest first, and those that are there and cannot be used.
#[derive(Debug, Default)]
pub struct Trail {
    /// The events.
    pub events: Vec<Recorded>,
    /// Those that are damaged or not trusted.
    pub faults: Vec<RepoError>,
}

impl Repository {
    /// Puts an event, signed with this host's writer key.
    pub async fn put_event(&self, cluster: &ClusterName, event: &Event) -> Result<(), RepoError> {
        let writer = self.keys().writer.as_ref().ok_or(RepoError::NoWriterKey)?;
        let (key, bytes) = (layout::event(cluster, &event.id), documents::render(event).into());
        let repository = &self.document.id;
        documents::put_signed(&*self.store, repository, &writer.signing, &key, bytes).await
    }

    /// The newest events; names are listed, and only as many objects are read as are needed.
    pub async fn newest_events(&self, wanted: &Wanted) -> Result<Trail, RepoError> {
        let mut names = self.event_names(wanted.cluster.as_ref()).await?;
        names.sort_by(|a, b| b.id.cmp(&a.id).then_with(|| a.cluster.cmp(&b.cluster)));
        let recorded: HashSet<ManifestName> = names.iter().cloned().collect();
        // That a command was begun is told until its end is.
        let has_ended = |cluster: &ClusterName, event: &Event| {
            let end = ManifestName { cluster: cluster.clone(), id: event.run().clone() };
            event.is_begin() && recorded.contains(&end)
        };
        let is_wanted = |cluster: &ClusterName, event: &Event| {
            !has_ended(cluster, event)
                && wanted.database.as_ref().is_none_or(|database| event.is_about(database))
        };
        let mut trail = Trail::default();
        let mut read = stream::iter(names)
            .map(|name| async move {
                let read = self.event(&name).await;
                (name, read)
            })
            .buffered(self.store.concurrency().clamp(1, wanted.limit.max(1)));
        while let Some((ManifestName { cluster, id }, read)) = read.next().await {
            // All of one second, since their ids are in no order.
            let last = trail.events.last().map(|one| one.event.id.second());
            if trail.events.len() >= wanted.limit && last.is_none_or(|last| last != id.second()) {
                break;
            }
            match read {
                Ok(event) if is_wanted(&cluster, &event) => {
                    trail.events.push(Recorded { cluster, event });
                }
                // About another database; or swept since it was listed.
                Ok(_) => {}
                Err(RepoError::Store(error)) if error.is_not_found() => {}
                Err(RepoError::Store(error)) => return Err(error.into()),
                Err(fault) => trail.faults.push(fault),
            }
        }
        // Ids are only as fine as seconds; which of two in one second ended first is in the events.
        trail.events.sort_by(|a, b| {
            let key = |one: &Recorded| (one.event.id.second().to_owned(), one.event.at);
            key(b).cmp(&key(a))
        });
        trail.events.truncate(wanted.limit);
        Ok(trail)
    }

    /// The events of runs whose id begins with `prefix`, newest first; a run may have two.
    ///
    /// One that is named otherwise than its run follows it soon: of a prune, and of a command that was begun.
    pub async fn events_of(
        &self,
        cluster: Option<&ClusterName>,
        prefix: &str,
    ) -> Result<Trail, RepoError> {
        let mut names = self.event_names(cluster).await?;
        names.sort_by(|a, b| a.id.cmp(&b.id).then_with(|| a.cluster.cmp(&b.cluster)));
        // Ids of one second are in no order.
        let second = &prefix[..prefix.len().min(SECOND)];
        names.retain(|name| name.id.as_str() >= second);
        let own = names.iter().filter(|name| name.id.as_str().starts_with(prefix)).count();
        names.truncate(own.saturating_add(NEAR));
        let mut trail = Trail::default();
        let mut read = stream::iter(names)
            .map(|name| async move {
                let read = self.event(&name).await;
                (name, read)
            })
            .buffered(self.store.concurrency().max(1));
        while let Some((ManifestName { cluster, id }, read)) = read.next().await {
            match read {
                Ok(event) if event.run().as_str().starts_with(prefix) => {
                    trail.events.push(Recorded { cluster, event });
                }
                Err(RepoError::Store(error)) if error.is_not_found() => {}
                Err(RepoError::Store(error)) => return Err(error.into()),
                Err(fault) if id.as_str().starts_with(prefix) => trail.faults.push(fault),
                Ok(_) | Err(_) => {}
            }
        }
        trail.events.sort_by_key(|one| std::cmp::Reverse(one.event.at));
        Ok(trail)
    }

    /// All that are there, each by the name that a backup of that id would have.
    pub(super) async fn event_names(
        &self,
        cluster: Option<&ClusterName>,
    ) -> Result<Vec<ManifestName>, RepoError> {
        let mut names = Vec::new();
        for prefix in self.sections(cluster, layout::events).await? {
            let mut listed = self.store.list(&prefix);
            while let Some(object) = listed.try_next().await? {
                let event = event_of(&object.key);
                names.extend(event.map(|(cluster, id)| ManifestName { cluster, id }));
            }
        }
        Ok(names)
    }

    pub(super) async fn event(&self, name: &ManifestName) -> Result<Event, RepoError> {
        let key = layout::event(&name.cluster, &name.id);
        let bytes = self.get_signed(&key).await?;
        let event: Event = documents::parse(&key, &bytes)?;
        documents::check_format(&key, event.format)?;
        if event.id != name.id {
            let reason = "it names another event".to_owned();
            return Err(RepoError::Damaged { key, reason });
        }
        Ok(event)
    }
}

fn event_of(key: &ObjectKey) -> Option<(ClusterName, BackupId)> {
    match layout::part_of(key)? {
        (cluster, id, Part::Event) if !layout::is_signature(key) => Some((cluster, id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::test_support::{Still, plaintext_keys};
    use super::*;
    use crate::codec::cut::ChunkParams;
    use crate::codec::sign::SigningKey;
    use crate::domain::failure::{Failure, FailureKind};
    use crate::repo::workers::Workers;
    use crate::store::memory::MemoryStore;

    async fn made() -> Repository {
        let (store, ambient) = (Arc::new(MemoryStore::new()), Arc::new(Still::default()));
        let (keys, params) = (plaintext_keys(), ChunkParams::default());
        let made = Repository::create(store, keys, params, Workers::Inline, ambient).await;
        made.expect("it is made").0
    }

    fn event(second: u32, database: Option<&str>) -> Event {
        let id = format!("20261121T0200{second:02}Z-{second:08x}");
        serde_json::from_value(serde_json::json!({
            "format": 1, "id": id, "event": "snapshot", "at": "2026-11-21T02:00:00Z",
            "database": database, "host": "db1", "pgkeep": "0.1.0",
        }))
        .expect("an event")
    }

    fn wanted(cluster: Option<&str>, database: Option<&str>, limit: usize) -> Wanted {
        let cluster = cluster.map(|name| name.parse().expect("a name"));
        Wanted { cluster, database: database.map(str::to_owned), limit }
    }

    async fn seconds(repository: &Repository, wanted: &Wanted) -> Vec<String> {
        let trail = repository.newest_events(wanted).await.expect("read");
        assert!(trail.faults.is_empty(), "{:?}", trail.faults);
        let second = |one: &Recorded| format!("{} {}", one.cluster, &one.event.id.second()[13..15]);
        trail.events.iter().map(second).collect()
    }

    #[tokio::test]
    async fn the_newest_events_of_what_is_meant_come_first_and_no_more_than_asked_for() {
        let repository = made().await;
        let (one, two) = ("one".parse().expect("a name"), "two".parse().expect("a name"));
        for second in 0..20 {
            let database = if second % 2 == 0 { "shop" } else { "blog" };
            let cluster = if second < 10 { &one } else { &two };
            repository.put_event(cluster, &event(second, Some(database))).await.expect("put");
        }
        let all = seconds(&repository, &wanted(None, None, 3)).await;
        assert_eq!(all, ["two 19", "two 18", "two 17"]);
        assert_eq!(seconds(&repository, &wanted(Some("one"), None, 2)).await, ["one 09", "one 08"]);
        let shop = seconds(&repository, &wanted(Some("one"), Some("shop"), 9)).await;
        assert_eq!(shop, ["one 08", "one 06", "one 04", "one 02", "one 00"]);
        assert!(seconds(&repository, &wanted(Some("three"), None, 9)).await.is_empty());
        assert!(seconds(&repository, &wanted(None, None, 0)).await.is_empty());
    }

    #[tokio::test]
    async fn what_is_forged_damaged_or_of_a_later_version_is_told_and_hides_no_other() {
        let repository = made().await;
        let cluster: ClusterName = "main".parse().expect("a name");
        for second in [1, 5] {
            repository.put_event(&cluster, &event(second, None)).await.expect("put");
        }
        let put = |event: Event, id: BackupId, signer: SigningKey| {
            let (store, document) = (repository.store.clone(), repository.document.id.clone());
            let (key, bytes) = (layout::event(&cluster, &id), documents::render(&event));
            async move { documents::put_signed(&*store, &document, &signer, &key, bytes.into()).await }
        };
        let own = || SigningKey::generate(&[2; SigningKey::BYTES]);
        let (forged, later, moved) = (event(2, None), event(3, None), event(4, None));
        put(forged.clone(), forged.id, SigningKey::generate(&[9; 40])).await.expect("put");
        put(Event { format: 2, ..later.clone() }, later.id, own()).await.expect("put");
        put(event(1, None), moved.id, own()).await.expect("put");
        let trail = repository.newest_events(&wanted(None, None, 50)).await.expect("read");
        assert_eq!(trail.events.len(), 2);
        let kinds: Vec<FailureKind> = trail.faults.iter().map(Failure::kind).collect();
        assert_eq!(kinds, [FailureKind::Damage, FailureKind::Usage, FailureKind::Key]);
    }

    #[tokio::test]
    async fn events_of_a_run_are_found_by_its_id_also_where_theirs_is_another() {
        let repository = made().await;
        let cluster: ClusterName = "main".parse().expect("a name");
        for second in [1, 2, 3] {
            repository.put_event(&cluster, &event(second, None)).await.expect("put");
        }
        let run = event(2, None).id;
        let closing = Event { run: Some(run.clone()), ..event(4, None) };
        repository.put_event(&cluster, &closing).await.expect("put");
        let found = async |prefix: &str| {
            let trail = repository.events_of(None, prefix).await.expect("read");
            assert!(trail.faults.is_empty(), "{:?}", trail.faults);
            let mut ids: Vec<BackupId> = trail.events.into_iter().map(|one| one.event.id).collect();
            ids.sort();
            ids
        };
        assert_eq!(found(run.as_str()).await, [run.clone(), closing.id.clone()]);
        assert_eq!(found(&run.as_str()[..17]).await, [run, closing.id.clone()]);
        assert_eq!(found(closing.id.as_str()).await, []);
        assert_eq!(found("20261121T0200").await.len(), 4);
        assert_eq!(found("20991121").await, []);
    }

    #[tokio::test]
    async fn without_a_writer_key_there_is_no_event() {
        let mut repository = made().await;
        repository.keys.writer = None;
        let told = repository.put_event(&"main".parse().expect("a name"), &event(1, None)).await;
        assert!(matches!(told, Err(RepoError::NoWriterKey)));
    }
}
