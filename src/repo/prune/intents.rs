//! Who is writing, who has ended, and how a run that died is told from one that lives.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Clause, Prune};
use crate::domain::id::BackupId;
use crate::domain::key::ObjectKey;
use crate::repo::documents::{self, IntentDocument};
use crate::repo::error::RepoError;
use crate::repo::layout::{self, IntentPart, IntentState};

/// What one listing of `intents/` showed.
#[derive(Debug, Clone, Default)]
pub struct Intents {
    /// Those that have begun, and how often each was renewed.
    pub(super) begun: BTreeMap<BackupId, u32>,
    pub(super) done: BTreeSet<BackupId>,
    pub(super) broken: BTreeSet<BackupId>,
    pub(super) dead: BTreeSet<BackupId>,
}

impl Intents {
    fn add(&mut self, key: &ObjectKey) -> Result<(), RepoError> {
        let known = layout::intent_part_of(key);
        let (id, part) = known.ok_or_else(|| RepoError::UnknownObject(key.clone()))?;
        match part {
            IntentPart::Begun => _ = self.begun.entry(id).or_default(),
            // A renewal comes after its intent, though a listing may have passed that one by.
            IntentPart::Renewed(number) => {
                let renewals = self.begun.entry(id).or_default();
                *renewals = number.saturating_add(1).max(*renewals);
            }
            IntentPart::Ended(IntentState::Done) => _ = self.done.insert(id),
            IntentPart::Ended(IntentState::Broken) => _ = self.broken.insert(id),
            IntentPart::Ended(IntentState::Dead) => _ = self.dead.insert(id),
        }
        Ok(())
    }

    /// Whether that backup counts, or certainly never will. An intent of which nothing is left was removed by a
    /// prune, after its end.
    pub(super) fn has_ended(&self, id: &BackupId) -> bool {
        let is_gone = !self.begun.contains_key(id) && !self.broken.contains(id);
        self.done.contains(id) || self.dead.contains(id) || is_gone
    }

    /// Whether the run died and its backup never counts.
    pub(super) fn is_dead(&self, id: &BackupId) -> bool {
        self.dead.contains(id) && !self.done.contains(id)
    }

    /// Those that may still be at work, with how often each was renewed.
    pub fn unfinished(&self) -> impl Iterator<Item = (&BackupId, u32)> {
        let unfinished = self.begun.iter().filter(|(id, _)| !self.has_ended(id));
        unfinished.map(|(id, renewals)| (id, *renewals))
    }

    /// As if these had been settled.
    pub(super) fn assume(&mut self, settled: &[Settled]) {
        for one in settled {
            match one.end {
                End::Done => _ = self.done.insert(one.id.clone()),
                End::Dead => _ = self.dead.insert(one.id.clone()),
                End::Undecided => {}
            }
        }
    }
}

/// What became of a run that was not heard of for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its backup was whole, and counts.
    Done,
    /// It came to nothing.
    Dead,
    /// It was declared broken while its manifest came to be: nobody can tell but its writer.
    Undecided,
}

/// A run that was settled, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Its backup.
    pub id: BackupId,
    /// Its cluster and database.
    pub place: String,
    /// Its host.
    pub host: String,
    /// What became of it.
    pub end: End,
}

impl Prune<'_> {
    /// Lists `intents/`.
    pub async fn intents(&self) -> Result<Intents, RepoError> {
        let mut intents = Intents::default();
        for object in self.repository.list_all(layout::INTENTS).await? {
            intents.add(&object.key)?;
        }
        if self.lacks(Clause::Certificate) {
            intents.dead.clone_from(&intents.broken);
        }
        Ok(intents)
    }

    /// Settles these runs, which nobody has heard of for long; or tells what they would come to.
    ///
    /// A manifest without `.broken` was waited for by every prune, so it may be ended in its writer's name. Of one
    /// that has no manifest, `.broken` is put, and `.dead` only if there is none afterwards either: the writer's own
    /// look comes after its manifest, and so finds `.broken`.
    pub async fn settle(
        &self,
        overdue: &[BackupId],
        really: bool,
    ) -> Result<Vec<Settled>, RepoError> {
        let mut settled = Vec::new();
        for id in overdue {
            let key = layout::intent(id);
            let bytes = match self.repository.store.get(&key).await {
                // It was tidied away since: it had ended.
                Err(error) if error.is_not_found() => continue,
                bytes => bytes?,
            };
            let intent: IntentDocument = documents::parse(&key, &bytes)?;
            documents::check_format(&key, intent.format)?;
            let end = self.settle_one(&intent, really).await?;
            let place = format!("{}/{}", intent.cluster, intent.database);
            settled.push(Settled { id: id.clone(), place, host: intent.host, end });
        }
        Ok(settled)
    }

    async fn settle_one(&self, intent: &IntentDocument, really: bool) -> Result<End, RepoError> {
        let manifest = layout::manifest(&intent.cluster, &intent.id);
        let end = |state| layout::intent_end(&intent.id, state);
        if self.is_there(&manifest).await? {
            if self.is_there(&end(IntentState::Broken)).await? {
                return Ok(End::Undecided);
            }
            if really {
                self.repository.store.put(&end(IntentState::Done), Bytes::new()).await?;
            }
            return Ok(End::Done);
        }
        if really {
            self.repository.store.put(&end(IntentState::Broken), Bytes::new()).await?;
            crate::failpoint::hit("prune.broken-put");
            if self.is_there(&manifest).await? {
                return Ok(End::Undecided);
            }
            self.repository.store.put(&end(IntentState::Dead), Bytes::new()).await?;
        }
        Ok(End::Dead)
    }

    pub(super) async fn is_there(&self, key: &ObjectKey) -> Result<bool, RepoError> {
        match self.repository.store.get(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_listing_shows_is_taken_apart_and_what_is_unknown_ends_it() {
        let id: BackupId = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        let mut intents = Intents::default();
        assert!(intents.has_ended(&id), "nothing is left of it");
        intents.add(&layout::renewal(&id, 3)).expect("known");
        assert_eq!(intents.unfinished().collect::<Vec<_>>(), [(&id, 4)]);
        intents.add(&layout::intent_end(&id, IntentState::Broken)).expect("known");
        assert!(!intents.has_ended(&id));
        intents.add(&layout::intent_end(&id, IntentState::Dead)).expect("known");
        assert!(intents.has_ended(&id) && intents.is_dead(&id));
        intents.add(&layout::intent_end(&id, IntentState::Done)).expect("known");
        assert!(intents.has_ended(&id) && !intents.is_dead(&id), "what counts, counts");
        let odd = ObjectKey::parse(format!("intents/{id}.frozen")).expect("a key");
        assert!(matches!(intents.add(&odd), Err(RepoError::UnknownObject(_))));
    }
}
