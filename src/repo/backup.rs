//! Writing a backup: REMOVAL.md's protocol, step by step.
//!
//! 1. put the intent;
//! 2. list what is condemned;
//! 3. list manifests: known chunks are theirs, minus all that is condemned;
//! 4. put new chunks;
//! 5. list: every name present with its size;
//! 6. put the chunk list and the signature, then the manifest;
//! 7. look whether somebody declared this run broken, or replaced its epoch;
//! 8. put `.done`;
//! 9. report success.
//!
//! A crash before 6 leaves an intent and chunks that no manifest names; a crash after the manifest
//! leaves a good backup whose success nobody heard of. The intent comes first, because a prune that
//! does not see it may condemn what this run is about to rely on; the condemned lists are read before
//! the manifests, because a name that is condemned later makes that prune wait for this intent.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::Stream;
use jiff::Timestamp;

use super::catalog::Entry;
use super::chunks::{PartWriter, PlainChunk, Progress};
use super::documents::{self, FORMAT, IntentDocument, RenewalDocument};
use super::error::RepoError;
use super::history::{History, Measured, TableNames};
use super::layout::{self, IntentState};
use super::{Repository, WriteAccess};
use crate::codec::hash::plain_hash;
use crate::codec::text;
use crate::domain::audit::RunId;
use crate::domain::chunk::{ChunkEntry, ChunkName, Hash};
use crate::domain::id::{BackupId, ClusterName, EpochId};
use crate::domain::inventory::TableCount;
use crate::domain::manifest::{
    BackupKind, ChunkListRef, Manifest, Part, PartKind, Trigger, Versions,
};
use crate::domain::observer::Observer;
use crate::failpoint;

/// An intent is renewed at least this often, far below any sensible `repository.grace`.
const RENEW_AFTER: Duration = Duration::from_mins(5);
/// And after this many new chunks, so that a dead writer's chunks are known by name.
const RENEW_CHUNKS: usize = 512;
/// Chunks are taken as known from this many of the database's own newest backups, and from the newest
/// of every other database of the cluster: what a nightly backup repeats is there, and a repository of
/// thousands need not be read for it.
const KNOWN_BACKUPS: usize = 3;

/// What is going to be backed up.
#[derive(Debug, Clone)]
pub struct BackupSpec {
    /// Snapshot or base backup.
    pub kind: BackupKind,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its database.
    pub database: String,
    /// This host.
    pub host: String,
}

/// What only the conductor knows, for the manifest.
#[derive(Debug, Clone)]
pub struct Description {
    /// Why it was taken.
    pub trigger: Trigger,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Who made it.
    pub versions: Versions,
    /// The cluster's identifier.
    pub system_identifier: Option<String>,
    /// The server's timeline.
    pub timeline: Option<u32>,
    /// WAL position of the snapshot.
    pub lsn: Option<String>,
    /// Tables without rows, on purpose.
    pub excluded_table_data: Vec<String>,
    /// Rows of every table, to be compared with the backup before; the manifest tells of them in figures.
    pub rows: Vec<TableCount>,
    /// What goes sealed: the inventory's JSON.
    pub inventory: Vec<u8>,
    /// Keep it from retention.
    pub pinned: bool,
    /// The run that takes it.
    pub run: Option<RunId>,
}

/// A backup being written. Nothing of it exists before [`Backup::commit`] has put the manifest.
pub struct Backup<'a> {
    repository: &'a Repository,
    access: WriteAccess,
    /// Those that were there when it began; none of them replaces its own.
    epochs: BTreeSet<EpochId>,
    spec: BackupSpec,
    id: BackupId,
    started_at: Timestamp,
    history: History,
    known: HashMap<Hash, ChunkEntry>,
    entries: Vec<ChunkEntry>,
    parts: Vec<Part>,
    source_bytes: u64,
    stored_bytes: u64,
    chunks_new: u64,
    renewals: u32,
    renewed_at: Duration,
    /// Stored since the last renewal.
    unsaid: Vec<ChunkName>,
}

impl Repository {
    /// Steps 1 to 3: declares the intent and learns what is stored already.
    pub async fn begin_backup(&self, spec: BackupSpec) -> Result<Backup<'_>, RepoError> {
        let (access, epochs) = self.write_access_among(&BTreeSet::new()).await?;
        let started_at = self.ambient.now();
        let id = BackupId::new(started_at, self.ambient.random());
        let intent = IntentDocument {
            format: FORMAT,
            id: id.clone(),
            kind: spec.kind,
            cluster: spec.cluster.clone(),
            database: spec.database.clone(),
            epoch: access.epoch.clone(),
            host: spec.host.clone(),
            started_at,
        };
        self.store.put(&layout::intent(&id), documents::render(&intent).into()).await?;
        failpoint::hit("snapshot.intent-put");
        let (known, history) = self.known(&access.epoch, &spec).await?;
        Ok(Backup {
            repository: self,
            access,
            epochs,
            spec,
            id,
            started_at,
            history,
            known,
            entries: Vec::new(),
            parts: Vec::new(),
            source_bytes: 0,
            stored_bytes: 0,
            chunks_new: 0,
            renewals: 0,
            renewed_at: self.ambient.monotonic(),
            unsaid: Vec::new(),
        })
    }

    /// Steps 2 and 3, in this order, and by the way what the backup is measured against.
    async fn known(
        &self,
        epoch: &EpochId,
        spec: &BackupSpec,
    ) -> Result<(HashMap<Hash, ChunkEntry>, History), RepoError> {
        let condemned = self.condemned().await?;
        let own = |entry: &&Entry| entry.manifest.database == spec.database;
        let mut entries = self
            .newest_manifests(&spec.cluster, |seen| {
                seen.iter().filter(own).count() >= KNOWN_BACKUPS
                    && History::suffices(&spec.database, seen)
            })
            .await?;
        let adoptions = self.adopt_entries(&spec.cluster, &mut entries).await?;
        let history = History::of(&spec.database, &entries, &adoptions);
        let backups: HashSet<&BackupId> =
            condemned.iter().flat_map(|list| &list.backups).map(|backup| &backup.id).collect();
        let names: HashSet<&str> =
            condemned.iter().flat_map(|list| &list.chunks).map(String::as_str).collect();
        let mut seen: HashMap<(&str, bool), usize> = HashMap::new();
        let mut known = HashMap::new();
        for entry in &entries {
            let manifest = &entry.manifest;
            if manifest.epoch != *epoch || backups.contains(&manifest.id) {
                continue;
            }
            // Old dumps, imported in a row, must not make the next nightly one store everything again.
            let nth = seen.entry((&manifest.database, entry.is_imported())).or_default();
            *nth += 1;
            if *nth > if own(&entry) { KNOWN_BACKUPS } else { 1 } {
                continue;
            }
            // A list that cannot be read offers nothing; what it named is simply stored again.
            let Ok(list) = self.chunk_list(manifest).await else { continue };
            let offered = list.into_iter().filter(|chunk| {
                names.is_empty() || !names.contains(format!("{epoch}/{}", chunk.name).as_str())
            });
            for chunk in offered {
                known.entry(chunk.name.hash).or_insert(chunk);
            }
        }
        // What is gone or cut short in the store is written afresh instead of being relied on.
        let present = self.present(epoch, known.values().map(|chunk| chunk.name)).await?;
        known.retain(|_, chunk| present.get(&chunk.name) == Some(&u64::from(chunk.sealed_bytes)));
        Ok((known, history))
    }

    /// What a backup is measured against, as it is now.
    async fn history(&self, spec: &BackupSpec) -> Result<History, RepoError> {
        let enough = |seen: &[Entry]| History::suffices(&spec.database, seen);
        let mut entries = self.newest_manifests(&spec.cluster, enough).await?;
        let adoptions = self.adopt_entries(&spec.cluster, &mut entries).await?;
        Ok(History::of(&spec.database, &entries, &adoptions))
    }

    /// Declares this host's own failed run dead, so that prunes need not wait for it.
    ///
    /// Only the run itself may do so unseen: it knows that it will never put `.done`.
    pub async fn abandon(&self, id: &BackupId) -> Result<(), RepoError> {
        // Also of a manifest that is there already (an epoch that was replaced meanwhile): without `.done` it
        // counts no more.
        for state in [IntentState::Broken, IntentState::Dead] {
            self.store.put(&layout::intent_end(id, state), Bytes::new()).await?;
        }
        Ok(())
    }
}

impl Backup<'_> {
    /// The backup's id.
    pub const fn id(&self) -> &BackupId {
        &self.id
    }

    /// The keys it writes with.
    pub const fn access(&self) -> &WriteAccess {
        &self.access
    }

    /// Step 4: stores one stream. The source's error, the store's or a `.broken` ends it.
    pub async fn write_part(
        &mut self,
        kind: PartKind,
        name: &str,
        source: impl Stream<Item = std::io::Result<PlainChunk>> + Unpin,
        observer: &dyn Observer,
    ) -> Result<(), RepoError> {
        let repository = self.repository;
        let access = self.access.clone();
        let id = self.id.clone();
        let known = std::mem::take(&mut self.known);
        let tools = (&access, &repository.store, &repository.workers);
        let mut writer = PartWriter::new(source, name, tools, &id, &known);
        let mut size_bytes = 0;
        let mut new = Vec::new();
        loop {
            let renewal_due = repository.ambient.sleep(self.until_renewal());
            let progress = tokio::select! {
                biased;
                progress = writer.advance() => Some(progress?),
                () = renewal_due => None,
            };
            match progress {
                Some(Progress::Read(bytes)) => {
                    size_bytes += bytes;
                    observer.bytes(self.source_bytes + size_bytes, None);
                }
                Some(Progress::Stored(entry)) => {
                    new.push(entry);
                    self.count(&entry);
                }
                Some(Progress::Ended) => break,
                None => {}
            }
            if self.until_renewal().is_zero() {
                self.renew().await?;
            }
        }
        let entries = writer.into_entries();
        self.known = known;
        self.known.extend(new.into_iter().map(|entry| (entry.name.hash, entry)));
        self.parts.push(Part {
            kind,
            name: name.to_owned(),
            size_bytes,
            first_chunk: self.entries.len() as u64,
            chunks: entries.len() as u64,
        });
        self.source_bytes += size_bytes;
        self.entries.extend(entries);
        Ok(())
    }

    fn count(&mut self, entry: &ChunkEntry) {
        self.stored_bytes += u64::from(entry.sealed_bytes);
        self.chunks_new += 1;
        self.unsaid.push(entry.name);
    }

    fn until_renewal(&self) -> Duration {
        if self.unsaid.len() >= RENEW_CHUNKS {
            return Duration::ZERO;
        }
        let since = self.repository.ambient.monotonic().saturating_sub(self.renewed_at);
        RENEW_AFTER.saturating_sub(since)
    }

    /// Says that this run lives and what it stored, and hears whether it was declared dead.
    async fn renew(&mut self) -> Result<(), RepoError> {
        let renewal = RenewalDocument {
            format: FORMAT,
            id: self.id.clone(),
            chunks: self.unsaid.drain(..).map(|name| name.to_string()).collect(),
        };
        let key = layout::renewal(&self.id, self.renewals);
        self.renewals += 1;
        self.renewed_at = self.repository.ambient.monotonic();
        self.repository.store.put(&key, documents::render(&renewal).into()).await?;
        self.refuse_if_broken().await
    }

    async fn refuse_if_broken(&self) -> Result<(), RepoError> {
        let key = layout::intent_end(&self.id, IntentState::Broken);
        match self.repository.store.get(&key).await {
            Ok(_) => Err(RepoError::Broken(self.id.clone())),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Steps 5 to 9: makes the backup exist.
    pub async fn commit(mut self, description: Description) -> Result<Manifest, RepoError> {
        failpoint::hit("snapshot.chunks-put");
        self.refuse_missing_chunks().await?;
        failpoint::hit("snapshot.chunks-seen");
        if description.system_identifier.is_some() && self.history.knows_none() {
            // Another server's first backup may have come to exist while this one ran.
            self.history = self.repository.history(&self.spec).await?;
        }
        let Self { repository, spec, id, .. } = &self;
        if description.pinned {
            // Before the manifest: nobody can condemn what nobody can see.
            repository.put_pin(&spec.cluster, id).await?;
        }
        let list = self.render_chunk_list();
        let list_ref =
            ChunkListRef { size_bytes: list.len() as u64, blake3: plain_hash(&list).to_hex() };
        let manifest = self.manifest(description, list_ref)?;
        let key = layout::manifest(&spec.cluster, id);
        let bytes = Bytes::from(documents::render(&manifest));
        let comment = documents::trusted_comment(&repository.document.id, &key);
        let signature = self.access.signer.sign(&bytes, &comment);
        let (list_key, signature_key) =
            (layout::chunk_list(&spec.cluster, id), layout::signature(&key));
        let put_list = async {
            repository.store.put(&list_key, list.into()).await?;
            failpoint::hit("snapshot.list-put");
            Ok::<_, RepoError>(())
        };
        let put_signature = async {
            repository.store.put(&signature_key, signature.into()).await?;
            failpoint::hit("snapshot.signature-put");
            Ok(())
        };
        // Neither means anything without the manifest, which comes when both are there.
        tokio::try_join!(put_list, put_signature)?;
        repository.store.put(&key, bytes).await?;
        failpoint::hit("snapshot.manifest-put");
        // Both looks come after the manifest and before `.done`.
        let (broken, replaced) = tokio::join!(
            self.refuse_if_broken(),
            repository.refuse_replaced(&self.access.epoch, &self.epochs),
        );
        broken?;
        replaced?;
        let done = layout::intent_end(id, IntentState::Done);
        repository.store.put(&done, Bytes::new()).await?;
        failpoint::hit("snapshot.done-put");
        Ok(manifest)
    }

    async fn refuse_missing_chunks(&self) -> Result<(), RepoError> {
        let names = self.entries.iter().map(|entry| entry.name);
        let present = self.repository.present(&self.access.epoch, names).await?;
        for entry in &self.entries {
            let reason = match present.get(&entry.name) {
                Some(size) if *size == u64::from(entry.sealed_bytes) => continue,
                Some(size) => {
                    format!("is {size} bytes long and was stored with {}", entry.sealed_bytes)
                }
                None => "was stored and is not there".to_owned(),
            };
            return Err(RepoError::Chunk { key: entry.name.key(&self.access.epoch), reason });
        }
        Ok(())
    }

    fn render_chunk_list(&self) -> Vec<u8> {
        let mut list = String::with_capacity(self.entries.len() * 156);
        for entry in &self.entries {
            list.push_str(&entry.to_string());
            list.push('\n');
        }
        list.into_bytes()
    }

    fn manifest(
        &self,
        description: Description,
        chunk_list: ChunkListRef,
    ) -> Result<Manifest, RepoError> {
        let sealed = self.access.sealer.seal(&description.inventory).map_err(|source| {
            let key = layout::manifest(&self.spec.cluster, &self.id);
            RepoError::Seal { action: "seal", key, source }
        })?;
        let names = TableNames::of(&self.access.chunk_key);
        let rows = names.counted(&description.rows);
        let excluded = &description.excluded_table_data;
        let left_out: BTreeSet<String> =
            excluded.iter().map(|table| names.hidden_quoted(table)).collect();
        let verdict = self.history.judge(&Measured {
            system_identifier: description.system_identifier.as_deref(),
            trigger: description.trigger,
            epoch: &self.access.epoch,
            rows: &rows,
            left_out: &left_out,
        });
        Ok(Manifest {
            format: FORMAT,
            id: self.id.clone(),
            kind: self.spec.kind,
            cluster: self.spec.cluster.clone(),
            database: self.spec.database.clone(),
            trigger: description.trigger,
            started_at: self.started_at,
            finished_at: self.repository.ambient.now(),
            host: self.spec.host.clone(),
            labels: description.labels,
            versions: description.versions,
            system_identifier: description.system_identifier,
            timeline: description.timeline,
            lsn: description.lsn,
            epoch: self.access.epoch.clone(),
            excluded_table_data: description.excluded_table_data,
            source_bytes: self.source_bytes,
            stored_bytes: self.stored_bytes,
            chunks_total: self.entries.len() as u64,
            chunks_new: self.chunks_new,
            parts: self.parts.clone(),
            chunk_list,
            previous: verdict.previous,
            rows: Some(rows.figures()),
            suspect: verdict.suspect,
            foreign: verdict.foreign,
            run: description.run,
            sealed: text::encode_base64(&sealed),
        })
    }
}
