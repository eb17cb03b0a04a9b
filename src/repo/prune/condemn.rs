//! Putting the list of what is to go.
//!
//! Before it is put nothing has happened. Once it is there no later backup relies on what it names, and those that
//! were at work are known from a listing made after it: whoever that listing does not show began later, and has read
//! the list.

use std::collections::{BTreeMap, HashSet};

use super::survey::{Planned, Survey};
use super::{Clause, Prune};
use crate::domain::id::BackupId;
use crate::domain::retention::State;
use crate::failpoint;
use crate::repo::catalog::ManifestName;
use crate::repo::documents::{self, CondemnedBackup, CondemnedDocument, CondemnedReason, FORMAT};
use crate::repo::error::RepoError;
use crate::repo::layout;
use crate::store::StoreError;

/// Names on one list at most: every backup reads all lists before it begins.
const NAMES_MAX: usize = 50_000;

impl Prune<'_> {
    /// Condemns what the survey says, in one list or more; their ids. None when there is nothing to condemn, or when
    /// another prune condemned the rest of a history at the same time.
    pub async fn condemn(&self, survey: &Survey) -> Result<Vec<BackupId>, RepoError> {
        if survey.condemns_nothing() {
            return Ok(Vec::new());
        }
        let mut chunks = survey.chunks.chunks(NAMES_MAX);
        let mut lists = vec![self.put_list(survey, &survey.expired, chunks.next()).await?];
        for part in chunks {
            lists.push(self.put_list(survey, &[], Some(part)).await?);
        }
        failpoint::hit("prune.list-put");
        let intents = if self.lacks(Clause::IntentsAfterTheList) {
            survey.intents.clone()
        } else {
            self.intents().await?
        };
        let waits: Vec<BackupId> = intents.unfinished().map(|(id, _)| id.clone()).collect();
        for list in &lists {
            self.put_waits(list, &waits).await?;
        }
        failpoint::hit("prune.waits-put");
        if self.would_empty(survey, &lists).await? {
            for list in &lists {
                self.remove_list(list).await?;
            }
            lists.clear();
        }
        Ok(lists)
    }

    async fn put_list(
        &self,
        survey: &Survey,
        backups: &[ManifestName],
        chunks: Option<&[usize]>,
    ) -> Result<BackupId, RepoError> {
        let ambient = self.repository.ambient();
        let created_at = ambient.now();
        let id = BackupId::new(created_at, ambient.random());
        // Who may not delete shall not begin: what is on a list is stored again by later backups. Nothing has this
        // name.
        self.repository.store.delete(&layout::probe(&id)).await?;
        let backup = |name: &ManifestName| CondemnedBackup {
            cluster: name.cluster.clone(),
            id: name.id.clone(),
        };
        let name = |at: &usize| {
            let (epoch, name) = survey.table.name(*at);
            format!("{epoch}/{name}")
        };
        let list = CondemnedDocument {
            format: FORMAT,
            id: id.clone(),
            created_at,
            reason: CondemnedReason::Unneeded,
            backups: backups.iter().map(backup).collect(),
            chunks: chunks.unwrap_or_default().iter().map(name).collect(),
        };
        let bytes = documents::render(&list).into();
        self.repository.store.put(&layout::condemned(&id), bytes).await?;
        Ok(id)
    }

    /// Whoever looked at the list before us may have noted others: each looked after it was put, so either will do.
    pub(super) async fn put_waits(
        &self,
        list: &BackupId,
        waits: &[BackupId],
    ) -> Result<(), RepoError> {
        let bytes = documents::render(&waits).into();
        match self.repository.store.put(&layout::waits(list), bytes).await {
            Ok(()) | Err(StoreError::Exists(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The list, then its note: a list without a note would be waited for anew.
    pub(super) async fn remove_list(&self, list: &BackupId) -> Result<(), RepoError> {
        self.repository.store.delete(&layout::condemned(list)).await?;
        failpoint::hit("prune.list-deleted");
        Ok(self.repository.store.delete(&layout::waits(list)).await?)
    }

    /// Whether an earlier list and ours together name all that is left of a database.
    async fn would_empty(&self, survey: &Survey, own: &[BackupId]) -> Result<bool, RepoError> {
        if survey.expired.is_empty() {
            return Ok(false);
        }
        let lists = self.lists().await?.lists;
        let earlier = |list: &BackupId| own.iter().all(|id| list < id);
        let others = lists.iter().filter(|list| earlier(&list.id));
        let others: HashSet<&ManifestName> = others.flat_map(|list| &list.backups).collect();
        let ours: HashSet<&ManifestName> = survey.expired.iter().collect();
        let mut left: BTreeMap<_, (bool, bool, bool)> = BTreeMap::new();
        for Planned { backup, .. } in &survey.backups {
            if backup.state != State::Done {
                continue;
            }
            let name = ManifestName { cluster: backup.cluster.clone(), id: backup.id.clone() };
            let (mine, another) = (ours.contains(&name), others.contains(&name));
            let history = left.entry((&backup.cluster, &backup.database)).or_default();
            history.0 |= mine;
            history.1 |= another;
            history.2 |= !mine && !another;
        }
        Ok(left.values().any(|(mine, another, stays)| *mine && *another && !*stays))
    }
}
