//! `verify --check stored`: every stored chunk compared with its chunk list, without any key.
//!
//! Runbook: the manifests, each with a signature that is trusted here; their chunk lists, each the one that its
//! manifest names; every chunk they name, once however many backups share it: there, of its size, of its hash,
//! an age file. What is damaged is told with all backups that need it, and condemned, so that the next backup
//! stores its content afresh (`repo::damage`).
//!
//! Memory: a hundred bytes for each distinct chunk, and as many chunks as the store takes calls at once.
//!
//! Crash story: the work done is noted every few seconds in a file on this host ([`super::progress`]). The next
//! run with the same choice goes on behind it, about the backups that were there when the first began; newer
//! ones are the run's after it. Damage is noted too, and condemned again if need be, which adds nothing. A lost
//! note costs reading again.
//!
//! A prune meanwhile takes manifests before chunks: what is missing is damage only if a backup that needs it is
//! still there afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::progress::{Damaged, Progress};
use super::{VerifyError, VerifyReport, chain, milliseconds};
use crate::domain::chunk::{ChunkEntry, ChunkName, Hash};
use crate::domain::failure::{Failure as _, FailureKind};
use crate::domain::id::{BackupId, EpochId};
use crate::domain::observer::{Observer, Severity};
use crate::domain::verification::{Check, outcome_of};
use crate::repo::catalog::{Catalog, Entry, Fault, Filter};
use crate::repo::damage::ChunkAddress;
use crate::repo::{RepoError, Repository};

/// Progress is noted this often.
const NOTE_AFTER: Duration = Duration::from_secs(2);
/// Chunks in memory at once; one is at most a few MiB.
const IN_FLIGHT_MAX: usize = 16;
/// So many damaged chunks are named in one line.
const NAMED_MAX: usize = 4;

/// What a check of stored bytes works with.
#[derive(Clone, Copy)]
pub struct CheckingStored<'a> {
    /// Where the backups are.
    pub repository: &'a Repository,
    /// Bytes to read in a second at most.
    pub rate: Option<u64>,
    /// Where the work done is noted.
    pub note: &'a Path,
    /// Begin anew, whatever is noted.
    pub restart: bool,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Ends it; what was done is noted.
    pub cancel: &'a CancellationToken,
}

/// A chunk that is not what was stored.
#[derive(Debug, Clone)]
pub struct DamagedChunk {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
    /// All backups that need it, newest first.
    pub needed_by: Vec<BackupId>,
}

/// What a check of stored bytes found.
#[derive(Debug, Default)]
pub struct StoredReport {
    /// One for each backup, newest first.
    pub backups: Vec<VerifyReport>,
    /// What is damaged.
    pub damaged: Vec<DamagedChunk>,
    /// Manifests that cannot be trusted or read.
    pub faults: Vec<Fault>,
    /// Distinct chunks that were compared, by this run and those it went on from.
    pub chunks: u64,
    /// Their stored size.
    pub stored_bytes: u64,
    /// Chunks that this run put on a list of the condemned.
    pub condemned: usize,
}

/// Which backups a run is about, as they were asked for.
#[derive(Debug, Clone)]
pub struct StoredChoice<'a> {
    /// These, as people name them; none means all.
    pub ids: &'a [String],
    /// Narrowed to these.
    pub filter: &'a Filter,
}

impl StoredChoice<'_> {
    /// Tells this choice from another.
    fn text(&self) -> String {
        let cluster = self.filter.cluster.as_ref().map(ToString::to_string);
        let database = self.filter.database.clone();
        format!("{cluster:?} {database:?} {:?}", self.ids)
    }
}

/// Compares what is stored with what was.
pub async fn check_stored(
    checking: &CheckingStored<'_>,
    choice: &StoredChoice<'_>,
) -> Result<StoredReport, VerifyError> {
    let repository = checking.repository;
    let begun = repository.ambient().monotonic();
    let mut catalog = chosen(repository, choice).await?;
    if catalog.entries.is_empty() && catalog.faults.is_empty() {
        return Err(VerifyError::Nothing);
    }
    let mut progress = resume(checking, choice, &mut catalog);
    let work = Work::read(repository, &catalog.entries, checking.cancel).await?;
    let result = compare(checking, &work, &mut progress).await;
    if !progress.save(checking.note) && result.is_err() {
        let told =
            format!("`{}` cannot be written: the next run begins anew", checking.note.display());
        checking.observer.finding(Severity::Warning, &told);
    }
    result?;
    let mut report = StoredReport { faults: catalog.faults, ..StoredReport::default() };
    (report.chunks, report.stored_bytes) = (progress.chunks, progress.bytes);
    let mut damaged = BTreeMap::new();
    if !progress.damaged.is_empty() {
        // What a prune took meanwhile lacks nothing; it takes manifests before chunks.
        let present: BTreeSet<BackupId> =
            repository.manifest_names(None).await?.into_iter().map(|name| name.id).collect();
        catalog.entries.retain(|entry| present.contains(&entry.manifest.id));
        damaged = needed(repository, &catalog.entries, &progress.damaged).await?;
    }
    let addresses = damaged.keys().cloned().collect();
    report.condemned = condemn_all(repository, &addresses, checking.observer).await;
    let spent = repository.ambient().monotonic().saturating_sub(begun);
    for entry in &catalog.entries {
        let verdict = verdict(repository, entry, &work, &damaged);
        report.backups.push(of_backup(entry, verdict, milliseconds(spent)));
    }
    report.damaged = damaged.into_values().collect();
    Progress::forget(checking.note);
    Ok(report)
}

async fn chosen(
    repository: &Repository,
    choice: &StoredChoice<'_>,
) -> Result<Catalog, VerifyError> {
    let mut catalog = repository.catalog(choice.filter).await?;
    if choice.ids.is_empty() {
        return Ok(catalog);
    }
    let mut entries = Vec::new();
    for name in choice.ids {
        let mut again = Catalog { entries: catalog.entries.clone(), faults: Vec::new() };
        std::mem::swap(&mut again.faults, &mut catalog.faults);
        entries.push(again.resolve(&name.parse()?, name)?);
        catalog.faults = again.faults;
    }
    Ok(Catalog { entries, faults: Vec::new() })
}

/// The work noted by a run that was cut short, if it was about the same; else a new beginning.
fn resume(
    checking: &CheckingStored<'_>,
    choice: &StoredChoice<'_>,
    catalog: &mut Catalog,
) -> Progress {
    let repository = checking.repository;
    let ids = || catalog.entries.iter().map(|entry| entry.manifest.id.clone()).collect();
    let noted = Progress::load(checking.note)
        .filter(|noted| !checking.restart && noted.fits(&repository.document.id, &choice.text()));
    let Some(noted) = noted else {
        return Progress::new(&repository.document.id, choice.text(), ids());
    };
    let told = format!("going on behind {} chunks that were compared before", noted.chunks);
    checking.observer.finding(Severity::Notice, &told);
    let all = catalog.entries.len();
    catalog.entries.retain(|entry| noted.backups.contains(&entry.manifest.id));
    let newer = all - catalog.entries.len();
    if newer > 0 {
        let told = format!("{newer} backups are newer than the beginning: run it again for those");
        checking.observer.finding(Severity::Notice, &told);
    }
    noted
}

/// What is to be read: every distinct chunk of the backups once, in the order of epoch and name.
struct Work {
    /// Sorted, so that their places are in their order.
    epochs: Vec<EpochId>,
    chunks: Vec<(usize, ChunkEntry)>,
    /// What each backup's list holds: distinct chunks and their stored size; or why it cannot be used.
    lists: HashMap<BackupId, Result<(usize, u64), String>>,
}

const fn order((epoch, chunk): &(usize, ChunkEntry)) -> (usize, ChunkName, u32, Hash) {
    (*epoch, chunk.name, chunk.sealed_bytes, chunk.sealed_hash)
}

impl Work {
    /// Reads the lists one after the other and keeps of each only what is new.
    async fn read(
        repository: &Repository,
        entries: &[Entry],
        cancel: &CancellationToken,
    ) -> Result<Self, VerifyError> {
        let epochs: BTreeSet<&EpochId> =
            entries.iter().map(|entry| &entry.manifest.epoch).collect();
        let epochs: Vec<EpochId> = epochs.into_iter().cloned().collect();
        let (mut chunks, mut lists) = (Vec::new(), HashMap::new());
        for entry in entries {
            if cancel.is_cancelled() {
                return Err(VerifyError::Interrupted);
            }
            let manifest = &entry.manifest;
            let epoch = epochs.binary_search(&manifest.epoch).expect("every epoch was collected");
            let mut list = match repository.chunk_list(manifest).await {
                Ok(list) => list,
                Err(error) if error.kind() == FailureKind::Damage => {
                    lists.insert(manifest.id.clone(), Err(chain(&error)));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            list.sort_by_key(|chunk| chunk.name);
            list.dedup();
            let bytes = list.iter().map(|chunk| u64::from(chunk.sealed_bytes)).sum();
            lists.insert(manifest.id.clone(), Ok((list.len(), bytes)));
            // Two sorted runs: the sort merges them.
            chunks.extend(list.into_iter().map(|chunk| (epoch, chunk)));
            chunks.sort_by_key(order);
            chunks.dedup_by_key(|chunk| order(chunk));
        }
        Ok(Self { epochs, chunks, lists })
    }

    fn address(&self, (epoch, chunk): &(usize, ChunkEntry)) -> ChunkAddress {
        (self.epochs[*epoch].clone(), chunk.name)
    }
}

/// Who needs what is damaged. The lists are read again, since keeping them all would take room for every backup.
async fn needed(
    repository: &Repository,
    entries: &[Entry],
    damaged: &[Damaged],
) -> Result<BTreeMap<ChunkAddress, DamagedChunk>, VerifyError> {
    let reasons: BTreeMap<ChunkAddress, &str> =
        damaged.iter().map(|one| ((one.epoch.clone(), one.name), one.reason.as_str())).collect();
    let mut found: BTreeMap<ChunkAddress, DamagedChunk> = BTreeMap::new();
    for entry in entries {
        let manifest = &entry.manifest;
        let list = match repository.chunk_list(manifest).await {
            Ok(list) => list,
            Err(error) if error.kind() == FailureKind::Damage => continue,
            Err(error) => return Err(error.into()),
        };
        let names: BTreeSet<ChunkName> = list.into_iter().map(|chunk| chunk.name).collect();
        for (address, reason) in &reasons {
            if address.0 == manifest.epoch && names.contains(&address.1) {
                let one = found.entry(address.clone()).or_insert_with(|| DamagedChunk {
                    key: address.1.key(&address.0).to_string(),
                    reason: (*reason).to_owned(),
                    needed_by: Vec::new(),
                });
                one.needed_by.push(manifest.id.clone());
            }
        }
    }
    Ok(found)
}

fn verdict(
    repository: &Repository,
    entry: &Entry,
    work: &Work,
    damaged: &BTreeMap<ChunkAddress, DamagedChunk>,
) -> Vec<Check> {
    let manifest = &entry.manifest;
    let mut checks =
        vec![Check::passed("signature", "the manifest is as a trusted signer wrote it")];
    if !repository.sealed_part_is_encrypted(manifest) {
        checks.push(Check::failed("sealed", "what the manifest keeps sealed is not encrypted"));
    }
    match &work.lists[&manifest.id] {
        Err(reason) => checks.push(Check::failed("chunk-list", reason)),
        Ok((chunks, bytes)) => {
            let own = |one: &&DamagedChunk| one.needed_by.contains(&manifest.id);
            let bad: Vec<&DamagedChunk> = damaged.values().filter(own).collect();
            checks.push(Check::passed("chunk-list", format!("{chunks} distinct chunks")));
            checks.push(stored(repository, *bytes, &bad));
        }
    }
    checks
}

fn of_backup(entry: &Entry, checks: Vec<Check>, duration_ms: u64) -> VerifyReport {
    let manifest = &entry.manifest;
    VerifyReport {
        id: manifest.id.clone(),
        cluster: manifest.cluster.clone(),
        database: manifest.database.clone(),
        result: outcome_of(&checks),
        checks,
        duration_ms,
        recorded: false,
        unrecorded: None,
    }
}

fn stored(repository: &Repository, bytes: u64, bad: &[&DamagedChunk]) -> Check {
    if bad.is_empty() {
        let sealed = if repository.is_plaintext() { "" } else { ", each an age file" };
        return Check::passed("stored", format!("{bytes} bytes are as they were stored{sealed}"));
    }
    let named = bad.iter().take(NAMED_MAX).map(|one| format!("chunk `{}` {}", one.key, one.reason));
    let mut detail = named.collect::<Vec<_>>().join("; ");
    if bad.len() > NAMED_MAX {
        detail = format!("{detail}; and {} more", bad.len() - NAMED_MAX);
    }
    Check::failed("stored", detail)
}

/// Reads what is left of `work`, in its order, and notes how far it came.
async fn compare(
    checking: &CheckingStored<'_>,
    work: &Work,
    progress: &mut Progress,
) -> Result<(), VerifyError> {
    let CheckingStored { repository, observer, cancel, .. } = *checking;
    let ambient = repository.ambient();
    let left = work.chunks.partition_point(|one| {
        progress.behind.as_ref().is_some_and(|behind| work.address(one) <= *behind)
    });
    let total: u64 = work.chunks.iter().map(|(_, chunk)| u64::from(chunk.sealed_bytes)).sum();
    observer.step("reading what is stored", &repository.store.address());
    let mut allowed = Duration::ZERO;
    let reads = work.chunks[left..].iter().map(|one| {
        // A read may begin when those before it would have ended at the asked rate.
        let wait = allowed;
        if let Some(rate) = checking.rate {
            allowed += Duration::from_secs_f64(ratio(one.1.sealed_bytes, rate));
        }
        (one, wait)
    });
    let begun = ambient.monotonic();
    let mut reads = stream::iter(reads)
        .map(|(one, wait)| async move {
            let early = wait.saturating_sub(ambient.monotonic().saturating_sub(begun));
            if !early.is_zero() {
                ambient.sleep(early).await;
            }
            (one, repository.check_stored(&work.epochs[one.0], &one.1).await)
        })
        .buffered(repository.store.concurrency().clamp(1, IN_FLIGHT_MAX));
    let mut noted_at = begun;
    loop {
        let next = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(VerifyError::Interrupted),
            next = reads.next() => next,
        };
        let Some((one, found)) = next else { return Ok(()) };
        if let Some(fault) = found? {
            let (epoch, name) = work.address(one);
            progress.damaged.push(Damaged { epoch, name, reason: fault.to_string() });
        }
        progress.behind = Some(work.address(one));
        progress.chunks += 1;
        progress.bytes += u64::from(one.1.sealed_bytes);
        observer.bytes(progress.bytes, Some(total));
        if ambient.monotonic().saturating_sub(noted_at) >= NOTE_AFTER {
            noted_at = ambient.monotonic();
            progress.save(checking.note);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
fn ratio(size: u32, rate: u64) -> f64 {
    f64::from(size) / rate.max(1) as f64
}

/// Keeps later backups from relying on what is damaged. A store that may only be read is no reason to fail: the
/// damage is told all the same.
async fn condemn_all(
    repository: &Repository,
    damaged: &BTreeSet<ChunkAddress>,
    observer: &dyn Observer,
) -> usize {
    if damaged.is_empty() {
        return 0;
    }
    match repository.condemn_damaged(damaged).await {
        Ok(new) => new,
        Err(error) => {
            let told = format!(
                "what is damaged could not be condemned ({}): until a host that may write runs this check, \
                 later backups can rely on it",
                chain(&error)
            );
            observer.finding(Severity::Warning, &told);
            0
        }
    }
}

/// Which chunks of one backup are damaged, after a restore of it found that something is; `named` is what that
/// restore stumbled over, which stored bytes alone need not show.
pub(super) async fn condemn_of(
    repository: &Repository,
    entry: &Entry,
    named: Option<ChunkAddress>,
    observer: &dyn Observer,
) -> Result<usize, RepoError> {
    let mut damaged: BTreeSet<ChunkAddress> = named.into_iter().collect();
    let epoch = &entry.manifest.epoch;
    let list = match repository.chunk_list(&entry.manifest).await {
        Ok(list) => list,
        // The list is what is damaged; nothing relies on it.
        Err(error) if error.kind() == FailureKind::Damage => Vec::new(),
        Err(error) => return Err(error),
    };
    let reads = list.iter().map(|chunk| async move {
        Ok::<_, RepoError>((chunk.name, repository.check_stored(epoch, chunk).await?))
    });
    let mut reads =
        stream::iter(reads).buffered(repository.store.concurrency().clamp(1, IN_FLIGHT_MAX));
    while let Some(read) = reads.next().await {
        if let (name, Some(_)) = read? {
            damaged.insert((epoch.clone(), name));
        }
    }
    Ok(condemn_all(repository, &damaged, observer).await)
}
