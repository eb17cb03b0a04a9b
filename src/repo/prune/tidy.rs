//! What ended runs and removed backups left.
//!
//! **Beside no manifest** (a signature, a chunk list, a pin, a verification record): goes if its manifest was absent
//! when it was listed, its writer was not at work in a listing of intents made **after** that (a writer's intent is
//! there before anything else of it), and the manifest is absent in a listing made after both.
//!
//! **Of intents:** the intent and its renewals, once there is an end. `.done` goes when its backup is gone: manifests
//! were listed after it was, and a manifest is put before its `.done`. It stays where `.broken` is there too, or a list
//! waits for it. `.broken` and `.dead` stay for ever: a writer that was frozen for long may yet come to look for the
//! one, and put the manifest that the other explains.
//!
//! **Events** that began 400 days before the newest of their cluster, where the prune is about all of it. Of each the
//! signature may stay when a prune is cut short; it goes with the next.
//!
//! Adoptions stay.

use std::collections::HashSet;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::survey::Survey;
use super::sweep::SecondLook;
use super::{Clause, Prune};
use crate::domain::id::{BackupId, ClusterName};
use crate::failpoint;
use crate::repo::catalog::ManifestName;
use crate::repo::error::RepoError;
use crate::repo::layout::{self, IntentState};

impl Prune<'_> {
    pub(super) async fn tidy(
        &self,
        survey: &Survey,
        look: &SecondLook,
        removed: &[ManifestName],
    ) -> Result<(), RepoError> {
        let intents =
            if self.lacks(Clause::LeftoversAfterIntents) { &survey.intents } else { &look.intents };
        let is_leftover = |name: &ManifestName| {
            !survey.objects.manifests.contains(name)
                && intents.has_ended(&name.id)
                && !look.objects.manifests.contains(name)
        };
        let beside = survey.objects.beside.iter().filter(|(name, _)| is_leftover(name));
        self.delete_all(beside.flat_map(|(_, keys)| keys).cloned(), None).await?;
        self.delete_all(look.orphaned_notes.iter().cloned(), None).await?;
        let is_meant = |cluster: &ClusterName| {
            self.terms.database.is_none() && self.terms.policies.contains_key(cluster)
        };
        let expired = look.objects.events.expired().filter(|(cluster, _)| is_meant(cluster));
        let (events, signatures): (Vec<_>, Vec<_>) =
            expired.map(|(_, key)| key.clone()).partition(|key| !layout::is_signature(key));
        self.delete_all(events.into_iter(), None).await?;
        self.delete_all(signatures.into_iter(), None).await?;
        self.tidy_intents(look, removed).await
    }

    async fn tidy_intents(
        &self,
        look: &SecondLook,
        removed: &[ManifestName],
    ) -> Result<(), RepoError> {
        let removed: HashSet<&ManifestName> = removed.iter().collect();
        let left = look.objects.manifests.iter().filter(|name| !removed.contains(name));
        let present: HashSet<&BackupId> = left.map(|name| &name.id).collect();
        let intents = &look.intents;
        let begun = intents.begun.iter().map(|(id, renewals)| (id, Some(*renewals)));
        let ended = intents.done.iter().filter(|id| !intents.begun.contains_key(*id));
        let all = begun.chain(ended.map(|id| (id, None)));
        let over = all.filter(|(id, _)| intents.done.contains(*id) || intents.dead.contains(*id));
        stream::iter(over)
            .map(Ok::<_, RepoError>)
            .try_for_each_concurrent(self.repository.store.concurrency().max(1), |(id, begun)| {
                let done = intents.done.contains(id)
                    && !intents.broken.contains(id)
                    && !present.contains(id)
                    && !look.waited_for.contains(id);
                self.tidy_intent(id, begun, done)
            })
            .await
    }

    /// The renewals and the intent, where they were listed, before the end that explains them.
    async fn tidy_intent(
        &self,
        id: &BackupId,
        renewals: Option<u32>,
        done: bool,
    ) -> Result<(), RepoError> {
        let store = &self.repository.store;
        if let Some(renewals) = renewals {
            for number in 0..renewals {
                store.delete(&layout::renewal(id, number)).await?;
            }
            store.delete(&layout::intent(id)).await?;
            failpoint::hit("prune.intent-deleted");
        }
        if done {
            store.delete(&layout::intent_end(id, IntentState::Done)).await?;
        }
        Ok(())
    }
}
