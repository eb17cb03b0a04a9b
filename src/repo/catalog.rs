//! Which backups exist.
//!
//! A manifest counts when it is present, signed by someone trusted, and its intent is done or at least
//! not broken. One that cannot be trusted or read is a [`Fault`]: it is named, it never hides the good
//! ones, and `latest` refuses to answer when a fault is newer than what it would choose.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures::FutureExt as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use super::documents::Signed;
use super::error::RepoError;
use super::layout::{self, IntentState};
use super::remembered::Remembered;
use super::{Repository, documents};
use crate::codec::hash::plain_hash;
use crate::domain::chunk::Hash;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::key::ObjectKey;
use crate::domain::manifest::{Manifest, Trigger};
use crate::domain::retention;
use crate::domain::selector::Selector;
use crate::domain::suspect::Suspicion;
use crate::domain::verification::VerificationRecord;

/// Manifests are checked in batches of this size, so that a batch is worth a thread.
const BATCH: usize = 64;

/// Where a manifest lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestName {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub id: BackupId,
}

/// A backup that exists.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its manifest.
    pub manifest: Manifest,
    /// BLAKE3 of the manifest's bytes.
    pub manifest_hash: Hash,
    /// Kept from retention by hand.
    pub pinned: bool,
    /// The verification that stands: the newest, but for a failure that only a deeper look can refute.
    pub verification: Option<VerificationRecord>,
    /// Why it is suspect, unless somebody has adopted it.
    pub suspect: Option<Suspicion>,
    /// Of a server that the cluster's name does not know; never `latest`.
    pub foreign: bool,
}

/// A manifest that is there and cannot be used.
#[derive(Debug)]
pub struct Fault {
    /// Which.
    pub name: ManifestName,
    /// Why.
    pub error: RepoError,
}

/// What a caller wants to see.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this cluster.
    pub cluster: Option<ClusterName>,
    /// Only this database.
    pub database: Option<String>,
}

/// The backups, newest first, and what could not be read.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Backups that exist.
    pub entries: Vec<Entry>,
    /// Manifests that are damaged or not trusted.
    pub faults: Vec<Fault>,
}

impl Catalog {
    /// Newest first. Ids are only as fine as seconds, and which of two in one second came first is in the manifest.
    fn sort(&mut self) {
        self.entries.sort_by(|a, b| {
            let key = |entry: &Entry| (entry.manifest.started_at, entry.manifest.id.clone());
            key(b).cmp(&key(a))
        });
    }

    /// The databases that there are backups of, by cluster and in their order.
    pub fn databases(&self) -> BTreeMap<ClusterName, Vec<String>> {
        let places = self.entries.iter().map(|one| (&one.manifest.cluster, &one.manifest.database));
        let mut found: BTreeMap<ClusterName, Vec<String>> = BTreeMap::new();
        for (cluster, database) in places.collect::<BTreeSet<_>>() {
            found.entry(cluster.clone()).or_default().push(database.clone());
        }
        found
    }

    /// The one backup that `selector` names.
    pub fn resolve(&mut self, selector: &Selector, wanted: &str) -> Result<Entry, RepoError> {
        let at = match selector {
            Selector::Prefix(prefix) => self.by_prefix(prefix, wanted)?,
            Selector::Latest { back, trigger } => {
                let wanted_trigger =
                    |entry: &Entry| trigger.is_none_or(|t| entry.manifest.trigger == t);
                // Asked for by their trigger, imported ones are what is meant.
                let newest = self.may_be_latest();
                let triggered =
                    |entry: &Entry| !entry.foreign && !entry.manifest.is_safety_snapshot();
                let may: HashSet<BackupId> = self
                    .entries
                    .iter()
                    .filter(
                        |entry| if trigger.is_some() { triggered(entry) } else { newest(entry) },
                    )
                    .map(|entry| entry.manifest.id.clone())
                    .collect();
                let fits =
                    |entry: &Entry| wanted_trigger(entry) && may.contains(&entry.manifest.id);
                let foreign = |entry: &&Entry| wanted_trigger(entry) && entry.foreign;
                let only_foreign =
                    self.entries.iter().find(foreign).map(|entry| entry.manifest.id.clone());
                let fitting = |entry: &&Entry| fits(entry);
                let mut choices: Vec<String> =
                    self.entries.iter().filter(fitting).map(Entry::place).collect();
                choices.sort();
                choices.dedup();
                if choices.len() > 1 {
                    return Err(RepoError::Ambiguous { wanted: wanted.to_owned(), choices });
                }
                let at = (0..self.entries.len()).filter(|at| fits(&self.entries[*at])).nth(*back);
                let chosen = at.map(|at| self.entries[at].manifest.id.clone());
                self.refuse_newer_fault(chosen.as_ref())?;
                at.ok_or_else(|| match only_foreign {
                    Some(id) if *back == 0 => {
                        RepoError::OnlyForeign { wanted: wanted.to_owned(), id }
                    }
                    _ => RepoError::NoMatch(wanted.to_owned()),
                })?
            }
        };
        Ok(self.entries.remove(at))
    }

    /// Which backups `latest` may mean: none of a server that the cluster does not know, none of a database that
    /// was about to be replaced, and an imported one only of a database that has no others, since its rows may be
    /// of any age.
    pub fn may_be_latest(&self) -> impl Fn(&Entry) -> bool + use<> {
        let may = |entry: &Entry| !entry.foreign && !entry.manifest.is_safety_snapshot();
        let own = self.entries.iter().filter(|entry| may(entry) && !entry.is_imported());
        let taken: HashSet<String> = own.map(Entry::place).collect();
        move |entry| may(entry) && (!entry.is_imported() || !taken.contains(&entry.place()))
    }

    /// What has to be told of a backup that is about to be used: that `latest` passed over newer ones of a
    /// server that the cluster does not know, imported ones, or one of a database that was about to be
    /// replaced, and that it is suspect.
    pub fn remarks(&self, chosen: &Entry, selector: &Selector) -> Vec<String> {
        let mut remarks = Vec::new();
        let newer = |entry: &&Entry| {
            entry.place() == chosen.place()
                && entry.manifest.started_at >= chosen.manifest.started_at
        };
        let passed_over = |wanted: fn(&Entry) -> bool| {
            let by_time = matches!(selector, Selector::Latest { .. });
            self.entries.iter().filter(newer).find(|entry| by_time && wanted(entry))
        };
        let imported = |entry: &Entry| entry.is_imported() && !entry.foreign;
        if matches!(selector, Selector::Latest { trigger: None, .. })
            && !chosen.is_imported()
            && let Some(imported) = passed_over(imported)
        {
            remarks.push(format!(
                "backup {} is newer and imported, so `latest` is {}; `latest:imported` means it",
                imported.manifest.id, chosen.manifest.id
            ));
        }
        if let Some(safety) = passed_over(|entry| entry.manifest.is_safety_snapshot()) {
            remarks.push(format!(
                "backup {} is newer and was taken before a restore, so `latest` is {}",
                safety.manifest.id, chosen.manifest.id
            ));
        }
        if let Some(foreign) = passed_over(|entry| entry.foreign) {
            let id = &foreign.manifest.id;
            remarks.push(format!(
                "backup {id} is newer and of a server that the cluster does not know, so `latest` is {}; \
                 `pgkeep adopt {id}` makes it count",
                chosen.manifest.id
            ));
        }
        if let Some(suspect) = &chosen.suspect {
            let id = &chosen.manifest.id;
            remarks.push(format!("backup {id} is suspect: {}", suspect.reason()));
        }
        remarks
    }

    fn by_prefix(&mut self, prefix: &str, wanted: &str) -> Result<usize, RepoError> {
        let fits: Vec<usize> = (0..self.entries.len())
            .filter(|at| self.entries[*at].manifest.id.as_str().starts_with(prefix))
            .collect();
        match fits[..] {
            [at] => Ok(at),
            [] => match self.faults.iter().position(|f| f.name.id.as_str().starts_with(prefix)) {
                Some(at) => Err(self.faults.swap_remove(at).error),
                None => Err(RepoError::NoMatch(wanted.to_owned())),
            },
            _ => {
                let id = |at: usize| self.entries[at].manifest.id.to_string();
                let choices = fits.into_iter().take(8).map(id).collect();
                Err(RepoError::Ambiguous { wanted: wanted.to_owned(), choices })
            }
        }
    }

    /// A newest manifest that is damaged or forged must not quietly make `latest` an older one.
    fn refuse_newer_fault(&mut self, chosen: Option<&BackupId>) -> Result<(), RepoError> {
        let newer = |fault: &Fault| chosen.is_none_or(|id| fault.name.id.second() >= id.second());
        match self.faults.iter().position(newer) {
            Some(at) => Err(self.faults.swap_remove(at).error),
            None => Ok(()),
        }
    }
}

impl Entry {
    /// Whether somebody has to look before it counts in full.
    pub const fn is_in_doubt(&self) -> bool {
        self.foreign || self.suspect.is_some()
    }

    /// Whether it is of a dump that another tool made.
    pub fn is_imported(&self) -> bool {
        self.manifest.trigger == Trigger::Imported
    }

    /// Whether a schedule could have made it.
    pub fn is_run(&self) -> bool {
        !self.is_imported() && !self.manifest.is_safety_snapshot()
    }

    /// What retention has to know of it, its run taken to be done.
    pub fn for_retention(&self) -> retention::Backup {
        let manifest = &self.manifest;
        retention::Backup {
            id: manifest.id.clone(),
            cluster: manifest.cluster.clone(),
            database: manifest.database.clone(),
            started_at: manifest.started_at,
            trigger: manifest.trigger,
            state: retention::State::Done,
            pinned: self.pinned,
            verification: self.verification.as_ref().map(|record| record.result),
            suspect: self.suspect.as_ref().map(|suspect| suspect.against.clone()),
            previous: manifest.previous.as_ref().map(|previous| previous.id.clone()),
            foreign: self.foreign,
            safety: manifest.is_safety_snapshot(),
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.manifest.cluster, self.manifest.database)
    }
}

impl Repository {
    /// The manifests that count as present, newest first.
    pub async fn manifest_names(
        &self,
        cluster: Option<&ClusterName>,
    ) -> Result<Vec<ManifestName>, RepoError> {
        let mut listed = Vec::new();
        for prefix in self.sections(cluster, layout::snapshots).await? {
            listed.extend(self.list_all(&prefix).await?);
        }
        let broken = self.broken_intents().await?;
        let mut names: Vec<ManifestName> = listed
            .iter()
            .filter_map(|object| layout::manifest_of(&object.key))
            .filter(|(_, id)| !broken.contains(id))
            .map(|(cluster, id)| ManifestName { cluster, id })
            .collect();
        names.sort_by(|a, b| b.id.cmp(&a.id).then_with(|| a.cluster.cmp(&b.cluster)));
        Ok(names)
    }

    /// Where to list one section of a cluster, or of all: each by itself where the store can tell them, so that years of
    /// events and records are not listed for it.
    pub(crate) async fn sections(
        &self,
        cluster: Option<&ClusterName>,
        section: fn(&ClusterName) -> String,
    ) -> Result<Vec<String>, RepoError> {
        if let Some(cluster) = cluster {
            return Ok(vec![section(cluster)]);
        }
        Ok(match self.store.directories(layout::CLUSTERS).await? {
            None => vec![layout::CLUSTERS.to_owned()],
            Some(directories) => {
                let clusters = directories.iter().filter_map(|one| layout::cluster_of(one));
                clusters.map(|cluster| section(&cluster)).collect()
            }
        })
    }

    async fn broken_intents(&self) -> Result<HashSet<BackupId>, RepoError> {
        let mut broken = HashSet::new();
        let mut done = HashSet::new();
        for object in self.list_all(layout::INTENTS).await? {
            match layout::intent_end_of(&object.key) {
                Some((id, IntentState::Broken)) => broken.insert(id),
                Some((id, IntentState::Done)) => done.insert(id),
                Some((_, IntentState::Dead)) | None => continue,
            };
        }
        Ok(broken.difference(&done).cloned().collect())
    }

    /// Reads and checks these manifests; newest first.
    pub async fn manifests(&self, names: &[ManifestName]) -> Result<Catalog, RepoError> {
        let mut catalog = Catalog::default();
        self.each_manifest(names, |checked| {
            match checked {
                Ok(entry) => catalog.entries.push(entry),
                Err(fault) => catalog.faults.push(fault),
            }
            Ok(())
        })
        .await?;
        catalog.sort();
        Ok(catalog)
    }

    /// Reads and checks these manifests, in their order, and keeps none of them. One that was removed since it was
    /// listed is passed over; any other failure of the store ends it.
    pub(crate) async fn each_manifest(
        &self,
        names: &[ManifestName],
        mut take: impl FnMut(Result<Entry, Fault>) -> Result<(), RepoError>,
    ) -> Result<(), RepoError> {
        let batches: Vec<_> = names.chunks(BATCH).map(<[ManifestName]>::to_vec).collect();
        let mut batches = stream::iter(batches)
            .map(|names| self.fetch(names))
            .buffered(2)
            .map_ok(|batch| {
                let repository = self.clone();
                self.workers.run(move || repository.check_batch(batch)).map(Ok::<_, RepoError>)
            })
            .try_buffered(2);
        while let Some(batch) = batches.try_next().await? {
            for checked in batch {
                match checked {
                    // A backup that was removed since the listing is no fault.
                    Err(Fault { error: RepoError::Store(error), .. }) if error.is_not_found() => {}
                    Err(Fault { error: RepoError::Store(error), .. }) => return Err(error.into()),
                    other => take(other)?,
                }
            }
        }
        Ok(())
    }

    async fn fetch(&self, names: Vec<ManifestName>) -> Result<Vec<Fetched>, RepoError> {
        let key = |name: &ManifestName| layout::manifest(&name.cluster, &name.id);
        let keys: Vec<ObjectKey> = names.iter().map(key).collect();
        let read = documents::get_each_with_signature(&*self.store, &keys).await?;
        let named = names.into_iter().zip(keys).zip(read);
        Ok(named.map(|((name, key), read)| (name, key, read)).collect())
    }

    fn check_batch(&self, batch: Vec<Fetched>) -> Vec<Result<Entry, Fault>> {
        let check = |(name, key, read): Fetched| {
            let checked = read.and_then(|(bytes, signature)| {
                self.check_manifest(&name, &key, &bytes, &signature)
            });
            checked.map_err(|error| Fault { name, error })
        };
        batch.into_iter().map(check).collect()
    }

    fn check_manifest(
        &self,
        name: &ManifestName,
        key: &ObjectKey,
        bytes: &[u8],
        signature: &str,
    ) -> Result<Entry, RepoError> {
        self.check_signature(key, bytes, signature)?;
        let manifest: Manifest = documents::parse(key, bytes)?;
        documents::check_format(key, manifest.format)?;
        if manifest.id != name.id || manifest.cluster != name.cluster {
            let reason = "it names another backup".to_owned();
            return Err(RepoError::Damaged { key: key.clone(), reason });
        }
        Ok(Entry {
            manifest_hash: plain_hash(bytes),
            pinned: false,
            verification: None,
            suspect: manifest.suspect.clone(),
            foreign: manifest.foreign,
            manifest,
        })
    }

    /// The backups that `filter` lets through, with their marks and the verifications that stand.
    pub async fn catalog(&self, filter: &Filter) -> Result<Catalog, RepoError> {
        let names = self.manifest_names(filter.cluster.as_ref()).await?;
        let catalog = self.manifests(&names).await?;
        self.marked(catalog, filter, &mut Remembered::default()).await
    }

    /// All backups, without their sealed parts; what was read before is not read again.
    pub async fn catalog_again(&self, known: &mut Remembered) -> Result<Catalog, RepoError> {
        let names = self.manifest_names(None).await?;
        let mut catalog = self.manifests(&known.unknown(&names)).await?;
        catalog.entries = known.exchange(catalog.entries, &names);
        catalog.sort();
        self.marked(catalog, &Filter::default(), known).await
    }

    async fn marked(
        &self,
        mut catalog: Catalog,
        filter: &Filter,
        known: &mut Remembered,
    ) -> Result<Catalog, RepoError> {
        if let Some(database) = &filter.database {
            catalog.entries.retain(|entry| entry.manifest.database == *database);
        }
        let clusters: HashSet<ClusterName> =
            catalog.entries.iter().map(|entry| entry.manifest.cluster.clone()).collect();
        let mut pinned = HashSet::new();
        let mut verified = HashMap::new();
        for cluster in &clusters {
            let standing = self.standing_verifications(cluster, known);
            let marks = tokio::try_join!(self.pins(cluster), standing)?;
            pinned.extend(marks.0);
            verified.extend(marks.1);
            self.adopt_entries(cluster, &mut catalog.entries).await?;
        }
        for entry in &mut catalog.entries {
            entry.pinned = pinned.contains(&entry.manifest.id);
            // A record that vouches for other bytes vouches for nothing here.
            entry.verification = verified
                .remove(&entry.manifest.id)
                .filter(|record| record.manifest_blake3 == entry.manifest_hash.to_hex());
        }
        Ok(catalog)
    }

    /// The newest manifests of a cluster, read until `enough` says so.
    pub(crate) async fn newest_manifests(
        &self,
        cluster: &ClusterName,
        mut enough: impl FnMut(&[Entry]) -> bool,
    ) -> Result<Vec<Entry>, RepoError> {
        let names = self.manifest_names(Some(cluster)).await?;
        let mut entries = Vec::new();
        for batch in names.chunks(BATCH) {
            entries.extend(self.manifests(batch).await?.entries);
            if enough(&entries) {
                break;
            }
        }
        Ok(entries)
    }

    /// The newest backup of a cluster that `fits`; no more manifests are read than it takes.
    pub async fn newest(
        &self,
        cluster: &ClusterName,
        fits: impl Fn(&Entry) -> bool,
    ) -> Result<Option<Entry>, RepoError> {
        let entries = self.newest_manifests(cluster, |seen| seen.iter().any(&fits)).await?;
        Ok(entries.into_iter().find(fits))
    }

    /// All objects whose names begin with `prefix`, names only.
    pub(crate) async fn keys_below(&self, prefix: &str) -> Result<HashSet<ObjectKey>, RepoError> {
        let keys = self.store.list(prefix).map_ok(|object| object.key);
        Ok(keys.try_collect().await?)
    }
}

type Fetched = (ManifestName, ObjectKey, Result<Signed, RepoError>);
