//! A prune as REMOVAL.md tells it, for histories: retention keeps the newest few of one database.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{KEEP_LAST, Mutant};
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::key::ObjectKey;
use crate::repo::documents::{self, CondemnedBackup, CondemnedDocument, CondemnedReason, FORMAT};
use crate::repo::layout::{self, IntentState};
use crate::repo::{RepoError, Repository};

pub(super) struct Prune<'a> {
    pub(super) repository: &'a Repository,
    /// The clause that is left out.
    pub(super) without: Option<Mutant>,
}

#[derive(Default)]
struct Intents {
    all: HashSet<BackupId>,
    done: HashSet<BackupId>,
    broken: HashSet<BackupId>,
    dead: HashSet<BackupId>,
}

impl Intents {
    fn has_ended(&self, id: &BackupId) -> bool {
        self.done.contains(id) || self.dead.contains(id)
    }

    fn unfinished(&self) -> impl Iterator<Item = &BackupId> {
        self.all.iter().filter(|id| !self.has_ended(id))
    }
}

struct Present {
    id: BackupId,
    done: bool,
    dead: bool,
    chunks: HashSet<String>,
}

fn cluster() -> ClusterName {
    "main".parse().unwrap()
}

fn waits_key(list: &BackupId) -> ObjectKey {
    ObjectKey::parse(format!("condemned/{list}.waits")).unwrap()
}

fn list_key(list: &BackupId) -> ObjectKey {
    ObjectKey::parse(format!("condemned/{list}")).unwrap()
}

impl Prune<'_> {
    async fn intents(&self) -> Result<Intents, RepoError> {
        let mut intents = Intents::default();
        for key in self.repository.keys_below(layout::INTENTS).await? {
            match layout::intent_end_of(&key) {
                Some((id, IntentState::Done)) => intents.done.insert(id),
                Some((id, IntentState::Broken)) => intents.broken.insert(id),
                Some((id, IntentState::Dead)) => intents.dead.insert(id),
                None => match key.as_str()[layout::INTENTS.len()..].parse() {
                    Ok(id) => intents.all.insert(id),
                    Err(_) => false,
                },
            };
        }
        if self.without == Some(Mutant::DeathNotCertified) {
            intents.dead = intents.broken.clone();
        }
        Ok(intents)
    }

    /// All manifests, those that do not count included, newest first.
    async fn manifests(&self) -> Result<Vec<Present>, RepoError> {
        let keys = self.repository.keys_below(&layout::snapshots(&cluster())).await?;
        let mut ids: Vec<BackupId> =
            keys.iter().filter_map(layout::manifest_of).map(|(_, id)| id).collect();
        ids.sort();
        let intents = self.intents().await?;
        let mut present = Vec::new();
        for id in ids.into_iter().rev() {
            let key = layout::manifest(&cluster(), &id);
            let bytes = match self.repository.get_signed(&key).await {
                Err(RepoError::Store(error)) if error.is_not_found() => continue,
                other => other?,
            };
            let manifest = documents::parse(&key, &bytes)?;
            let list = self.repository.chunk_list(&manifest).await?;
            let done = intents.done.contains(&id);
            let dead = !done && intents.dead.contains(&id);
            let epoch = &manifest.epoch;
            let chunks = list.iter().map(|chunk| format!("{epoch}/{}", chunk.name)).collect();
            present.push(Present { id, done, dead, chunks });
        }
        Ok(present)
    }

    /// Declares a random unfinished writer broken, as if it had not been heard of for long; then makes
    /// sure. The look for the manifest comes after the declaration: if it is absent then, the writer's own
    /// look, which follows its manifest, will find the declaration.
    pub(super) async fn judge(&self) -> Result<(), RepoError> {
        let intents = self.intents().await?;
        let mut unfinished: Vec<&BackupId> = intents.unfinished().collect();
        unfinished.sort();
        let dice = self.repository.ambient().random() as usize;
        let Some(id) = unfinished.get(dice % unfinished.len().max(1)) else { return Ok(()) };
        let store = &self.repository.store;
        store.put(&layout::intent_end(id, IntentState::Broken), bytes::Bytes::new()).await?;
        match store.get(&layout::manifest(&cluster(), id)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => {
                let dead = layout::intent_end(id, IntentState::Dead);
                Ok(store.put(&dead, bytes::Bytes::new()).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Finishes for a writer that crashed between its manifest and `.done`: what was never declared broken
    /// was waited for, so nothing it relies on is gone.
    pub(super) async fn complete(&self) -> Result<(), RepoError> {
        for backup in self.manifests().await?.iter().filter(|backup| !backup.done && !backup.dead) {
            let store = &self.repository.store;
            match store.get(&layout::intent_end(&backup.id, IntentState::Broken)).await {
                Ok(_) => {}
                Err(error) if error.is_not_found() => {
                    let done = layout::intent_end(&backup.id, IntentState::Done);
                    store.put(&done, bytes::Bytes::new()).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) async fn condemn(&self) -> Result<(), RepoError> {
        let others = self.repository.condemned().await?;
        let gone: HashSet<BackupId> =
            others.iter().flat_map(|list| &list.backups).map(|b| b.id.clone()).collect();
        let listed = self.repository.keys_below("chunks/").await?;
        let intents = self.intents().await?;
        let present = self.manifests().await?;
        let expired = expired(&present, &gone);
        let kept: HashSet<&String> = present
            .iter()
            .filter(|backup| !expired.contains(&backup.id))
            .flat_map(|backup| &backup.chunks)
            .collect();
        let writing: HashSet<&str> = intents.unfinished().map(BackupId::suffix).collect();
        let chunks: Vec<String> = listed
            .iter()
            .filter_map(chunk_of)
            .filter(|(name, suffix)| !kept.contains(name) && !writing.contains(suffix.as_str()))
            .map(|(name, _)| name)
            .collect();
        let backups: Vec<CondemnedBackup> = expired
            .iter()
            .map(|id| CondemnedBackup { cluster: cluster(), id: (*id).clone() })
            .collect();
        if backups.is_empty() && chunks.is_empty() {
            return Ok(());
        }
        let ambient = self.repository.ambient();
        let created_at = ambient.now();
        let id = BackupId::new(created_at, ambient.random());
        let list = CondemnedDocument {
            format: FORMAT,
            id: id.clone(),
            created_at,
            reason: CondemnedReason::Unneeded,
            backups,
            chunks,
        };
        let store = &self.repository.store;
        store.put(&list_key(&id), documents::render(&list).into()).await?;
        let intents = match self.without {
            Some(Mutant::IntentsListedBeforeTheList) => intents,
            _ => self.intents().await?,
        };
        let waits: Vec<&BackupId> = intents.unfinished().collect();
        store.put(&waits_key(&id), documents::render(&waits).into()).await?;
        self.withdraw_if_two_would_empty(&id, &present).await
    }

    async fn withdraw_if_two_would_empty(
        &self,
        own: &BackupId,
        present: &[Present],
    ) -> Result<(), RepoError> {
        let lists = self.repository.condemned().await?;
        let gone: HashSet<&BackupId> =
            lists.iter().flat_map(|list| &list.backups).map(|backup| &backup.id).collect();
        let emptied = present.iter().all(|backup| !backup.done || gone.contains(&backup.id));
        let later = lists.iter().any(|list| list.id < *own);
        if emptied && later && present.iter().any(|backup| backup.done) {
            self.repository.store.delete(&list_key(own)).await?;
            self.repository.store.delete(&waits_key(own)).await?;
        }
        Ok(())
    }

    pub(super) async fn sweep(&self) -> Result<(), RepoError> {
        for list in self.repository.condemned().await? {
            if self.without != Some(Mutant::NoWaitForIntents)
                && !self.waited_for_have_ended(&list.id).await?
            {
                continue;
            }
            self.remove(&list).await?;
        }
        Ok(())
    }

    async fn waited_for_have_ended(&self, list: &BackupId) -> Result<bool, RepoError> {
        let key = waits_key(list);
        let waits: Vec<BackupId> = match self.repository.store.get(&key).await {
            Ok(bytes) => documents::parse(&key, &bytes)?,
            Err(error) if error.is_not_found() => {
                let waits: Vec<BackupId> = self.intents().await?.unfinished().cloned().collect();
                self.repository.store.put(&key, documents::render(&waits).into()).await?;
                waits
            }
            Err(error) => return Err(error.into()),
        };
        let intents = self.intents().await?;
        Ok(waits.iter().all(|id| intents.has_ended(id)))
    }

    async fn remove(&self, list: &CondemnedDocument) -> Result<(), RepoError> {
        let store = &self.repository.store;
        let condemned: HashSet<&BackupId> = list.backups.iter().map(|backup| &backup.id).collect();
        let present = self.manifests().await?;
        let expired = expired(&present, &HashSet::new());
        let second_look = self.without != Some(Mutant::NoSecondLook);
        let removed: HashSet<&BackupId> =
            condemned.into_iter().filter(|id| !second_look || expired.contains(*id)).collect();
        for id in &removed {
            let key = layout::manifest(&cluster(), id);
            store.delete(&key).await?;
            store.delete(&layout::signature(&key)).await?;
            store.delete(&layout::chunk_list(&cluster(), id)).await?;
        }
        let referred: HashSet<&String> = present
            .iter()
            .filter(|backup| !removed.contains(&backup.id))
            .flat_map(|backup| &backup.chunks)
            .collect();
        let by_name: HashMap<String, ObjectKey> = self
            .repository
            .keys_below("chunks/")
            .await?
            .into_iter()
            .filter_map(|key| Some((chunk_of(&key)?.0, key)))
            .collect();
        // What a verification condemned is still needed by whoever needed it before.
        let believed = self.without == Some(Mutant::DamageListsBelieved)
            && list.reason == CondemnedReason::Damaged;
        let mut left = false;
        for name in &list.chunks {
            let Some(key) = by_name.get(name) else { continue };
            if second_look && !believed && referred.contains(name) {
                left = true;
                continue;
            }
            store.delete(key).await?;
        }
        if !left {
            store.delete(&list_key(&list.id)).await?;
            store.delete(&waits_key(&list.id)).await?;
        }
        Ok(())
    }
}

/// What is dead, and what is older than the `keep_last`th that is done. One that is not done yet may
/// still fail, so it must not take the place of one that is; nor may it be removed.
fn expired<'p>(present: &'p [Present], gone: &HashSet<BackupId>) -> BTreeSet<&'p BackupId> {
    let mut counted = 0;
    let mut expired = BTreeSet::new();
    for backup in present {
        if backup.dead || gone.contains(&backup.id) {
            expired.insert(&backup.id);
        } else if backup.done {
            counted += 1;
            if counted > KEEP_LAST {
                expired.insert(&backup.id);
            }
        }
    }
    expired
}

/// `<epoch>/<name>` and the suffix of a chunk's key.
fn chunk_of(key: &ObjectKey) -> Option<(String, String)> {
    let (epoch, name) = layout::chunk_of(key)?;
    Some((format!("{epoch}/{name}"), format!("{:08x}", name.suffix)))
}
