//! The archive's half of the content proof: its own rows, streamed out of it in one pass.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::large_objects::LargeObjectHasher;
use super::rows::{Fingerprint, RowHasher, Summed, order_of};
use crate::codec::hash::ChunkKey;
use crate::domain::archive::{
    ArchiveError, ArchiveReader, DataSink, TableRows, TocEntry, table_of,
};
use crate::proof::ProofError;
use crate::proof::spool::{READ_BYTES, read_through};

/// What an archive holds, summed.
#[derive(Debug)]
pub(super) struct ArchiveSums {
    /// Each table with its rows' sum, in the archive's order.
    pub(super) tables: Vec<(TableRows, Summed)>,
    pub(super) large_objects: Fingerprint,
}

/// Tells a pass over a file to stop when nobody waits for it any more.
#[derive(Debug, Default)]
pub(super) struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Sums {
    key: ChunkKey,
    bagged: BTreeSet<(String, String)>,
    tables: Vec<(TableRows, Summed)>,
    current: Option<(TableRows, RowHasher)>,
    large_objects: LargeObjectHasher,
}

impl DataSink for Sums {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        let table = table_of(entry)?;
        let bag = self.bagged.contains(&(table.schema.clone(), table.name.clone()));
        let hasher = RowHasher::new(self.key.clone(), order_of(&table.columns), bag);
        self.current = Some((table, hasher));
        Ok(())
    }

    fn large_object(&mut self, oid: u32) {
        self.large_objects.begin(oid);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        match &mut self.current {
            Some((_, hasher)) => hasher.bytes(bytes),
            None => self.large_objects.bytes(bytes),
        }
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        match self.current.take() {
            Some((table, hasher)) => self.tables.push((table, hasher.finish())),
            None => self.large_objects.end(),
        }
        Ok(())
    }
}

/// Reads the archive at `path` from end to end. Blocking: belongs on a thread of its own.
///
/// The rows of the tables in `bagged` are also counted one by one.
pub(super) fn archive_sums(
    path: &Path,
    key: ChunkKey,
    bagged: BTreeSet<(String, String)>,
    stop: &AtomicBool,
) -> Result<ArchiveSums, ProofError> {
    let failed = |source| ProofError::Spool { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(failed)?;
    let mut reader = ArchiveReader::new(Sums {
        key: key.clone(),
        bagged,
        tables: Vec::new(),
        current: None,
        large_objects: LargeObjectHasher::new(key),
    });
    read_through(&mut BufReader::with_capacity(READ_BYTES, file), path, |bytes| {
        if stop.load(Ordering::Relaxed) {
            return Err(failed(std::io::ErrorKind::Interrupted.into()));
        }
        Ok(reader.push(bytes)?)
    })?;
    let (_, sums) = reader.complete()?;
    Ok(ArchiveSums { tables: sums.tables, large_objects: sums.large_objects.finish() })
}
