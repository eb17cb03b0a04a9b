//! A stream of plain chunks becomes stored ones: known ones are skipped, the rest sealed and put.
//!
//! Memory is bounded by [`IN_FLIGHT_BYTES`], whatever the store does: the source is only asked for more
//! while there is room. Everything runs inside the caller's one future, so dropping it stops all of it,
//! and a test can drive it step by step.
//!
//! A crash here leaves chunks that no manifest names. They are swept once the intent that wrote them is
//! done or broken.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream, StreamExt as _};

use super::WriteAccess;
use super::error::RepoError;
use super::workers::Workers;
use crate::codec::hash::plain_hash;
use crate::domain::chunk::{ChunkEntry, ChunkName, Hash};
use crate::domain::id::BackupId;
use crate::store::Store;

/// Plain bytes that may be waiting to be sealed and stored at once. With chunks of 1 MiB on average it
/// keeps some tens of uploads in flight, and leaves most of the 256 MiB the process may use.
pub const IN_FLIGHT_BYTES: usize = 48 << 20;

/// A piece of a stream with its keyed hash.
#[derive(Debug, Clone)]
pub struct PlainChunk {
    /// The content.
    pub bytes: Vec<u8>,
    /// BLAKE3 of it, keyed with the epoch's chunk key.
    pub hash: Hash,
}

/// What goes on while a part is stored, in the order it happened.
#[derive(Debug)]
pub(super) enum Progress {
    /// The source gave this many bytes.
    Read(u64),
    /// This chunk is stored, durably.
    Stored(ChunkEntry),
    /// The source has ended and everything is stored.
    Ended,
}

type Pending = FuturesUnordered<BoxFuture<'static, Result<ChunkEntry, RepoError>>>;

/// Stores one part.
pub(super) struct PartWriter<'a, S> {
    source: S,
    part: &'a str,
    access: &'a WriteAccess,
    store: &'a Store,
    workers: &'a Workers,
    id: &'a BackupId,
    known: &'a HashMap<Hash, ChunkEntry>,
    /// In the order of the stream; what is still being stored is not there yet.
    entries: Vec<Option<ChunkEntry>>,
    /// Places that wait for a hash that is being stored.
    waiting: HashMap<Hash, Vec<usize>>,
    /// A place of each hash that this part has stored: content comes back long after, and what is sealed
    /// twice is not the same twice, so its name would be refused.
    stored: HashMap<Hash, usize>,
    pending: Pending,
    in_flight_bytes: usize,
    source_ended: bool,
}

impl<'a, S: Stream<Item = std::io::Result<PlainChunk>> + Unpin> PartWriter<'a, S> {
    pub(super) fn new(
        source: S,
        part: &'a str,
        (access, store, workers): (&'a WriteAccess, &'a Store, &'a Workers),
        id: &'a BackupId,
        known: &'a HashMap<Hash, ChunkEntry>,
    ) -> Self {
        Self {
            source,
            part,
            access,
            store,
            workers,
            id,
            known,
            entries: Vec::new(),
            waiting: HashMap::new(),
            stored: HashMap::new(),
            pending: Pending::new(),
            in_flight_bytes: 0,
            source_ended: false,
        }
    }

    /// Goes on until something is worth telling. Safe to drop and call again.
    pub(super) async fn advance(&mut self) -> Result<Progress, RepoError> {
        if self.source_ended && self.pending.is_empty() {
            return Ok(Progress::Ended);
        }
        let room = self.in_flight_bytes < IN_FLIGHT_BYTES
            && self.pending.len() < self.store.concurrency().max(1);
        tokio::select! {
            biased;
            Some(stored) = self.pending.next(), if !self.pending.is_empty() => {
                let entry = stored?;
                self.in_flight_bytes -= entry.plain_bytes as usize;
                for place in self.waiting.remove(&entry.name.hash).unwrap_or_default() {
                    self.entries[place] = Some(entry);
                    self.stored.insert(entry.name.hash, place);
                }
                Ok(Progress::Stored(entry))
            }
            item = self.source.next(), if room && !self.source_ended => {
                let Some(chunk) = item else {
                    self.source_ended = true;
                    return Ok(Progress::Read(0));
                };
                let part = self.part;
                let chunk =
                    chunk.map_err(|source| RepoError::Source { part: part.to_owned(), source })?;
                let size = chunk.bytes.len() as u64;
                self.take(chunk);
                Ok(Progress::Read(size))
            }
        }
    }

    fn take(&mut self, chunk: PlainChunk) {
        if let Some(entry) = self.known.get(&chunk.hash) {
            self.entries.push(Some(*entry));
            return;
        }
        if let Some(place) = self.stored.get(&chunk.hash) {
            self.entries.push(self.entries[*place]);
            return;
        }
        let place = self.entries.len();
        self.entries.push(None);
        match self.waiting.entry(chunk.hash) {
            Slot::Occupied(mut places) => places.get_mut().push(place),
            Slot::Vacant(slot) => {
                slot.insert(vec![place]);
                self.in_flight_bytes += chunk.bytes.len();
                self.pending.push(self.store_chunk(chunk));
            }
        }
    }

    fn store_chunk(&self, chunk: PlainChunk) -> BoxFuture<'static, Result<ChunkEntry, RepoError>> {
        let name = ChunkName::new(chunk.hash, self.id);
        let key = name.key(&self.access.epoch);
        let (store, workers) = (self.store.clone(), self.workers.clone());
        let sealer = self.access.sealer.clone();
        Box::pin(async move {
            let plain_bytes = size_of_chunk(chunk.bytes.len());
            let sealed = workers
                .run(move || sealer.seal(&chunk.bytes).map(|sealed| (plain_hash(&sealed), sealed)))
                .await;
            let (sealed_hash, sealed) = sealed.map_err(|source| RepoError::Seal {
                action: "seal",
                key: key.clone(),
                source,
            })?;
            let sealed_bytes = size_of_chunk(sealed.len());
            store.put(&key, Bytes::from(sealed)).await?;
            Ok(ChunkEntry { name, plain_bytes, sealed_bytes, sealed_hash })
        })
    }

    /// The entries, once [`Progress::Ended`] was told.
    pub(super) fn into_entries(self) -> Vec<ChunkEntry> {
        let stored = |entry: Option<ChunkEntry>| entry.expect("ended means every chunk is stored");
        self.entries.into_iter().map(stored).collect()
    }
}

fn size_of_chunk(size: usize) -> u32 {
    u32::try_from(size).expect("a chunk is at most a few MiB")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::codec::hash::ChunkKey;
    use crate::codec::seal::Sealer;
    use crate::codec::sign::SigningKey;
    use crate::domain::id::EpochId;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn content_that_comes_back_long_after_it_was_stored_is_stored_once() {
        let chunk_key = ChunkKey::from_bytes([1; 32]);
        let chunk = |byte: u8| {
            let bytes = vec![byte; 100];
            PlainChunk { hash: chunk_key.hash(&bytes), bytes }
        };
        let access = WriteAccess {
            epoch: EpochId::new(1),
            chunk_key: chunk_key.clone(),
            signer: SigningKey::generate(&[2; SigningKey::BYTES]),
            sealer: Sealer::insecure_plaintext(1),
        };
        let store: Store = Arc::new(MemoryStore::new());
        let (id, known) = ("20261121T020000Z-5f3a9c21".parse().expect("an id"), HashMap::new());
        let (send, mut receive) = mpsc::unbounded_channel();
        let source = futures::stream::poll_fn(move |context| receive.poll_recv(context));
        let workers = Workers::threads();
        let tools = (&access, &store, &workers);
        let mut writer = PartWriter::new(source, "archive", tools, &id, &known);
        let mut stored = 0;
        // Each is stored before the next one comes.
        for byte in [1, 2, 1, 1, 2] {
            send.send(Ok(chunk(byte))).expect("it listens");
            assert!(matches!(writer.advance().await, Ok(Progress::Read(100))));
            while !writer.pending.is_empty() {
                assert!(matches!(writer.advance().await, Ok(Progress::Stored(_))));
                stored += 1;
            }
        }
        drop(send);
        while !matches!(writer.advance().await, Ok(Progress::Ended)) {}
        assert_eq!(stored, 2);
        let hashes = writer.into_entries().into_iter().map(|entry| entry.name.hash);
        let expected = [1, 2, 1, 1, 2].map(|byte| chunk(byte).hash);
        assert_eq!(hashes.collect::<Vec<_>>(), expected);
    }
}
