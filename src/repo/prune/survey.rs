//! All that is there, and what retention says to it: the plan of a prune, with a reason for every backup.
//!
//! Chunks are listed before intents, and those before manifests: a chunk that is seen was put for a manifest that is
//! seen, or by a writer that is, or for nobody. What a manifest is read for once need not be read again, since
//! objects never change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures::future::join_all;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;

use super::Prune;
use super::intents::{Intents, Settled};
use super::lists::Lists;
use super::objects::Objects;
use super::table::ChunkTable;
use crate::domain::adoption::Adoption;
use crate::domain::chunk::{ChunkName, Hash};
use crate::domain::failure::{Failure as _, FailureKind};
use crate::domain::id::{BackupId, ClusterName, EpochId};
use crate::domain::manifest::Trigger;
use crate::domain::retention::{Backup, Cause, Reason, State, Verdict, decide};
use crate::domain::verification::Outcome;
use crate::repo::catalog::{Entry, ManifestName};
use crate::repo::error::RepoError;
use crate::repo::layout;

/// Lines of chunk lists that are in memory at once, about 250 bytes each; one list may be longer.
const LINES_AT_ONCE: u64 = 1 << 18;

/// What is kept of a manifest.
#[derive(Debug)]
pub(super) struct Held {
    /// As its manifest has it.
    backup: Backup,
    pub(super) manifest_hash: Hash,
    system_identifier: Option<String>,
    epoch: EpochId,
    list: Option<Hash>,
    chunks_total: u64,
    stored_bytes: u64,
}

impl Held {
    fn of(entry: &Entry) -> Self {
        let manifest = &entry.manifest;
        // As it was read: marks, records and the end of its run are looked at each time.
        let backup = Backup { state: State::Open, ..entry.for_retention() };
        Self {
            backup,
            manifest_hash: entry.manifest_hash,
            system_identifier: manifest.system_identifier.clone(),
            epoch: manifest.epoch.clone(),
            list: manifest.chunk_list_hash(),
            chunks_total: manifest.chunks_total,
            stored_bytes: manifest.stored_bytes,
        }
    }
}

/// What was read and never changes.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) held: HashMap<ManifestName, Held>,
    /// By the records that were there.
    verified: HashMap<ManifestName, (Vec<BackupId>, Option<Outcome>)>,
}

/// A backup and what becomes of it.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The backup; its database is empty where the manifest of a dead one cannot be read.
    pub backup: Backup,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The condemned list that names it already.
    pub listed: Option<BackupId>,
    /// What its chunks that were new took when it was taken.
    pub stored_bytes: u64,
    /// Whether the prune is about it at all.
    pub in_scope: bool,
}

/// All that is there, and what is to be done.
#[derive(Debug)]
pub struct Survey {
    /// Newest first.
    pub backups: Vec<Planned>,
    /// Those that are to be condemned.
    pub(super) expired: Vec<ManifestName>,
    /// Likewise.
    pub(super) chunks: Vec<usize>,
    pub(super) intents: Intents,
    pub(super) objects: Objects,
    pub(super) lists: Lists,
    pub(super) table: ChunkTable,
    pub(super) seen: Seen,
    /// Whose chunks the table knows to be needed.
    pub(super) counted: HashSet<ManifestName>,
}

impl Survey {
    /// Whether nothing is to be condemned.
    pub fn condemns_nothing(&self) -> bool {
        self.expired.is_empty() && self.chunks.is_empty()
    }

    /// Backups and chunks that are to be condemned, and the stored size of those chunks.
    pub fn to_condemn(&self) -> (usize, usize, u64) {
        let bytes = self.chunks.iter().map(|at| self.table.size(*at)).sum();
        (self.expired.len(), self.chunks.len(), bytes)
    }

    /// Chunks that were listed.
    pub const fn chunks_total(&self) -> usize {
        self.table.len()
    }

    /// Writers that may be at work.
    pub fn writers(&self) -> Vec<BackupId> {
        self.intents.unfinished().map(|(id, _)| id.clone()).collect()
    }

    /// Lists that lie there already: id, backups, chunks.
    pub fn listed(&self) -> impl Iterator<Item = (&BackupId, usize, usize)> {
        self.lists.lists.iter().map(|list| (&list.id, list.backups.len(), list.chunks.len()))
    }
}

impl Prune<'_> {
    /// Looks at everything and decides; `assumed` are taken to be settled.
    pub async fn survey(&self, assumed: &[Settled]) -> Result<Survey, RepoError> {
        let lists = self.lists().await?;
        let mut table = ChunkTable::default();
        let mut listed = self.repository.store.list(layout::ALL_CHUNKS);
        while let Some(object) = listed.try_next().await? {
            table.add(&object)?;
        }
        table.seal();
        let mut intents = self.intents().await?;
        intents.assume(assumed);
        let mut objects = self.objects().await?;
        let mut seen = Seen::default();
        let backups = self.view(&intents, &mut objects, &mut seen).await?;
        let mut survey = Survey {
            backups: Vec::new(),
            expired: Vec::new(),
            chunks: Vec::new(),
            intents,
            objects,
            lists,
            table,
            seen,
            counted: HashSet::new(),
        };
        self.plan(&mut survey, &backups);
        self.count(&mut survey).await?;
        Ok(survey)
    }

    /// Verdicts: of what is on no list, as if that were gone; of what is on one, as its sweep will see it.
    fn plan(&self, survey: &mut Survey, backups: &BTreeMap<ManifestName, Backup>) {
        let now = self.repository.ambient().now();
        let mut on: HashMap<&ManifestName, &BackupId> = HashMap::new();
        for list in &survey.lists.lists {
            on.extend(list.backups.iter().map(|name| (name, &list.id)));
        }
        let swept = self.verdicts(backups.iter(), now);
        let fresh = self.verdicts(backups.iter().filter(|(name, _)| !on.contains_key(name)), now);
        for (name, backup) in backups {
            let listed = on.get(name).map(|list| (*list).clone());
            let verdict = if listed.is_some() { &swept[name] } else { &fresh[name] };
            if listed.is_none() && verdict.is_removed() {
                survey.expired.push(name.clone());
            }
            let held = survey.seen.held.get(name);
            survey.backups.push(Planned {
                backup: backup.clone(),
                verdict: verdict.clone(),
                listed,
                stored_bytes: held.map_or(0, |held| held.stored_bytes),
                in_scope: self.is_meant(backup),
            });
        }
        survey.backups.sort_by(|a, b| {
            let key = |one: &Planned| (one.backup.started_at, one.backup.id.clone());
            key(b).cmp(&key(a))
        });
    }

    /// What retention says to these; what the prune is not about stays.
    pub(super) fn verdicts<'b>(
        &self,
        backups: impl Iterator<Item = (&'b ManifestName, &'b Backup)>,
        now: Timestamp,
    ) -> HashMap<&'b ManifestName, Verdict> {
        let (names, backups): (Vec<_>, Vec<_>) = backups.unzip();
        let verdicts = decide(&backups, &self.terms.policies, now);
        let judged = names.into_iter().zip(backups).zip(verdicts);
        judged
            .map(|((name, backup), verdict)| {
                let stays = || Verdict::Kept(vec![Reason::NoPolicy]);
                (name, if self.is_meant(backup) { verdict } else { stays() })
            })
            .collect()
    }

    fn is_meant(&self, backup: &Backup) -> bool {
        let wanted = self.terms.database.as_ref();
        self.terms.policies.contains_key(&backup.cluster)
            && wanted.is_none_or(|wanted| *wanted == backup.database)
    }

    /// Reads what stays for the chunks it needs, and finds those that nobody does.
    async fn count(&self, survey: &mut Survey) -> Result<(), RepoError> {
        let mut goes: HashSet<&ManifestName> = survey.expired.iter().collect();
        goes.extend(survey.lists.lists.iter().flat_map(|list| &list.backups));
        let stay = survey.objects.manifests.iter().filter(|name| !goes.contains(name));
        let stay: Vec<ManifestName> = stay.cloned().collect();
        self.need(&stay, &survey.intents, &survey.seen, &mut survey.table).await?;
        survey.counted.extend(stay);
        let suffix = |id: &BackupId| ChunkName::new(Hash([0; 32]), id).suffix;
        let writers = survey.intents.unfinished().map(|(id, _)| suffix(id)).collect();
        let named = survey.lists.lists.iter().flat_map(|list| &list.chunks);
        let table = &survey.table;
        let listed = named.filter_map(|(epoch, name)| table.find(table.epoch(epoch)?, *name));
        let listed = listed.collect();
        survey.chunks = table.unneeded(&writers, &listed).collect();
        Ok(())
    }

    /// Marks the chunks that these manifests name, a few lists at once.
    pub(super) async fn need(
        &self,
        names: &[ManifestName],
        intents: &Intents,
        seen: &Seen,
        table: &mut ChunkTable,
    ) -> Result<(), RepoError> {
        let mut left: Vec<(&ManifestName, &Held)> =
            names.iter().rev().filter_map(|name| Some((name, seen.held.get(name)?))).collect();
        while !left.is_empty() {
            let (mut batch, mut lines) = (Vec::new(), 0);
            while let Some((_, held)) = left.last()
                && (batch.is_empty() || lines + held.chunks_total <= LINES_AT_ONCE)
                && batch.len() < self.repository.store.concurrency().max(1)
            {
                lines += held.chunks_total;
                batch.extend(left.pop());
            }
            let reads = batch.iter().map(|(name, held)| self.names_of(name, held, intents));
            for (read, (_, held)) in join_all(reads).await.into_iter().zip(&batch) {
                table.need(&held.epoch, read?.into_iter());
            }
        }
        Ok(())
    }

    async fn names_of(
        &self,
        name: &ManifestName,
        held: &Held,
        intents: &Intents,
    ) -> Result<Vec<ChunkName>, RepoError> {
        let key = layout::chunk_list(&name.cluster, &name.id);
        match self.repository.chunk_list_at(&key, held.list, held.chunks_total).await {
            Ok(list) => Ok(list.into_iter().map(|chunk| chunk.name).collect()),
            // A frozen writer may put the manifest of a run that was tidied away. It never counts.
            Err(error) if error.kind() == FailureKind::Damage && intents.is_dead(&name.id) => {
                Ok(Vec::new())
            }
            // Another prune removed the backup: its manifest went first.
            Err(error @ RepoError::Chunk { .. }) => {
                if self.is_there(&layout::manifest(&name.cluster, &name.id)).await? {
                    Err(error)
                } else {
                    Ok(Vec::new())
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The backups as retention wants them: manifests, and what intents, marks and verifications say of each.
    pub(super) async fn view(
        &self,
        intents: &Intents,
        objects: &mut Objects,
        seen: &mut Seen,
    ) -> Result<BTreeMap<ManifestName, Backup>, RepoError> {
        let new: Vec<ManifestName> = objects
            .manifests
            .iter()
            .filter(|name| !seen.held.contains_key(name))
            .cloned()
            .collect();
        let mut unread = BTreeSet::new();
        let take = |checked: Result<Entry, crate::repo::catalog::Fault>| match checked {
            Ok(entry) => {
                let (cluster, id) = (entry.manifest.cluster.clone(), entry.manifest.id.clone());
                seen.held.insert(ManifestName { cluster, id }, Held::of(&entry));
                Ok(())
            }
            // It never counts, so it need not be read in order to go.
            Err(fault) if intents.is_dead(&fault.name.id) => {
                unread.insert(fault.name);
                Ok(())
            }
            Err(fault) => Err(fault.error),
        };
        self.repository.each_manifest(&new, take).await?;
        // Others were removed since the listing.
        objects.manifests.retain(|name| seen.held.contains_key(name) || unread.contains(name));
        let adoptions = self.adoptions(objects, seen).await?;
        self.read_verifications(objects, seen).await?;
        let mut backups = BTreeMap::new();
        for name in &objects.manifests {
            let mut backup = match seen.held.get(name) {
                Some(held) => adopted(held, adoptions.get(&name.cluster)),
                None => unreadable(name),
            };
            backup.state = if intents.done.contains(&name.id) {
                State::Done
            } else if intents.is_dead(&name.id) {
                State::Dead
            } else {
                State::Open
            };
            backup.pinned = objects.pinned.contains(name);
            backup.verification = seen.verified.get(name).and_then(|(_, outcome)| *outcome);
            backups.insert(name.clone(), backup);
        }
        Ok(backups)
    }

    /// By cluster; they are read only where there is a doubt.
    async fn adoptions(
        &self,
        objects: &Objects,
        seen: &Seen,
    ) -> Result<HashMap<ClusterName, Vec<Adoption>>, RepoError> {
        let mut adoptions = HashMap::new();
        let doubted = |held: &&Held| held.backup.foreign || held.backup.suspect.is_some();
        let present = objects.manifests.iter().filter_map(|name| seen.held.get(name));
        let clusters: BTreeSet<&ClusterName> =
            present.filter(doubted).map(|held| &held.backup.cluster).collect();
        for cluster in clusters {
            let keys = objects.adoptions.iter().filter(|(name, _)| name.cluster == *cluster);
            let keys = keys.map(|(_, key)| key.clone()).collect::<Vec<_>>();
            let read = self.repository.adoptions_among(keys.into_iter()).await?;
            adoptions.insert(cluster.clone(), read);
        }
        Ok(adoptions)
    }

    /// What the newest trusted record of each backup says, if it is about its manifest; where its records are not those
    /// that were there before.
    async fn read_verifications(
        &self,
        objects: &Objects,
        seen: &mut Seen,
    ) -> Result<(), RepoError> {
        let mut reads = Vec::new();
        seen.verified.retain(|name, _| objects.records.contains_key(name));
        for (name, records) in &objects.records {
            let Some(held) = seen.held.get(name) else { continue };
            let mut records = records.clone();
            records.sort();
            if seen.verified.get(name).is_none_or(|(before, _)| *before != records) {
                reads.push((name, held.manifest_hash.to_hex(), records));
            }
        }
        let reads = reads.into_iter().map(|(name, hash, records)| async move {
            let (cluster, id) = (&name.cluster, &name.id);
            let newest = self.repository.standing_of(cluster, id, records.clone()).await?;
            let newest = newest.filter(|record| record.manifest_blake3 == hash);
            let outcome = newest.map(|record| record.result);
            Ok::<_, RepoError>((name.clone(), (records, outcome)))
        });
        let at_once = self.repository.store.concurrency().max(1);
        let read: Vec<_> = stream::iter(reads).buffer_unordered(at_once).try_collect().await?;
        seen.verified.extend(read);
        Ok(())
    }
}

fn adopted(held: &Held, adoptions: Option<&Vec<Adoption>>) -> Backup {
    let mut backup = held.backup.clone();
    for adoption in adoptions.into_iter().flatten() {
        if adoption.knows_server(held.system_identifier.as_deref()) {
            backup.foreign = false;
        }
        if adoption.accepts_rows(&backup.database, &backup.id) {
            backup.suspect = None;
        }
    }
    backup
}

fn unreadable(name: &ManifestName) -> Backup {
    Backup {
        id: name.id.clone(),
        cluster: name.cluster.clone(),
        database: String::new(),
        started_at: Timestamp::UNIX_EPOCH,
        trigger: Trigger::Manual,
        state: State::Dead,
        pinned: false,
        verification: None,
        suspect: None,
        previous: None,
        foreign: false,
        safety: false,
    }
}

/// Why it goes, in words; none where it stays.
pub(super) fn cause(verdict: &Verdict) -> Option<Cause> {
    match verdict {
        Verdict::Kept(_) => None,
        Verdict::Removed(cause) => Some(*cause),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::Terms;
    use super::*;
    use crate::codec::cut::ChunkParams;
    use crate::domain::retention::RetentionPolicy;
    use crate::repo::Repository;
    use crate::repo::test_support::{Still, plaintext_keys};
    use crate::repo::workers::Workers;
    use crate::store::ObjectMeta;
    use crate::store::memory::MemoryStore;

    /// What this process holds, in MiB.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        number.unwrap_or(0) / 1024
    }

    fn chunk(number: u32) -> ChunkName {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
        ChunkName { hash: Hash(hash), suffix: number / 10 }
    }

    fn held(number: u32, cluster: &ClusterName, epoch: &EpochId) -> Held {
        let started_at = Timestamp::from_second(1_700_000_000 + i64::from(number) * 600);
        let started_at = started_at.expect("this century");
        let name = ManifestName { cluster: cluster.clone(), id: BackupId::new(started_at, number) };
        let database = format!("database_{}", number % 5);
        let backup = Backup { database, started_at, ..unreadable(&name) };
        let (manifest_hash, list) = (Hash([0; 32]), None);
        Held {
            backup,
            manifest_hash,
            system_identifier: Some("7300000000000000000".to_owned()),
            epoch: epoch.clone(),
            list,
            chunks_total: 100,
            stored_bytes: 1,
        }
    }

    /// 100,000 manifests of 100 chunks each, 10 of them new, in a release build: `cargo test --release --lib planned`.
    /// A tenth of that without optimisation. `PLAN_SECONDS` is a limit, which `make soak` sets.
    #[tokio::test]
    async fn a_hundred_thousand_manifests_are_planned_in_seconds_and_little_room() {
        let count: u32 = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
        let before = resident();
        let (params, ambient) = (ChunkParams::default(), Arc::new(Still::default()));
        let store = Arc::new(MemoryStore::new());
        let made = Repository::create(store, plaintext_keys(), params, Workers::Inline, ambient);
        let repository = made.await.expect("it is made").0;
        let cluster: ClusterName = "main".parse().expect("a name");
        let policies = [(cluster.clone(), RetentionPolicy::default())].into();
        let terms = Terms { policies, ..Terms::default() };
        let prune = Prune::new(&repository, &terms);
        let epoch = EpochId::new(1);
        let (mut table, mut seen) = (ChunkTable::default(), Seen::default());
        for number in 0..count * 10 {
            let key = chunk(number).key(&epoch);
            table.add(&ObjectMeta { key, size_bytes: 300_000 }).expect("a chunk");
        }
        let mut objects = Objects::default();
        for number in 0..count {
            let one = held(number, &cluster, &epoch);
            let name = ManifestName { cluster: cluster.clone(), id: one.backup.id.clone() };
            objects.manifests.insert(name.clone());
            seen.held.insert(name, one);
        }
        let begun = Instant::now();
        table.seal();
        let done = |name: &ManifestName| {
            let state = State::Done;
            (name.clone(), Backup { state, ..seen.held[name].backup.clone() })
        };
        let backups: BTreeMap<_, _> = objects.manifests.iter().map(done).collect();
        let mut survey = Survey {
            backups: Vec::new(),
            expired: Vec::new(),
            chunks: Vec::new(),
            intents: Intents::default(),
            objects,
            lists: Lists::default(),
            table,
            seen,
            counted: HashSet::new(),
        };
        prune.plan(&mut survey, &backups);
        // As if nothing expired: then every list is looked at.
        for number in 0..count {
            let names = (number * 10..number * 10 + 100).map(|at| chunk(at % (count * 10)));
            survey.table.need(&epoch, names);
        }
        survey.chunks = survey.table.unneeded(&HashSet::new(), &HashSet::new()).collect();
        let (took, held) = (begun.elapsed(), resident().saturating_sub(before));
        println!("{count} manifests, {} chunks: {took:?}, {held} MiB", survey.table.len());
        assert!(survey.expired.len() > count as usize - 300 && survey.chunks.is_empty());
        assert!(held < 512, "{held} MiB");
        if let Ok(limit) = std::env::var("PLAN_SECONDS") {
            let limit = limit.parse().expect("PLAN_SECONDS is a number");
            assert!(took.as_secs_f64() <= limit, "{took:?}");
        }
    }
}
