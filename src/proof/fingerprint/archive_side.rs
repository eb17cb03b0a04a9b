//! The archive's half of the content proof: its own rows, summed as they stream by.

use std::collections::BTreeSet;

use super::large_objects::LargeObjectHasher;
use super::rows::{Fingerprint, RowHasher, Summed, order_of};
use crate::codec::hash::ChunkKey;
use crate::domain::archive::{ArchiveError, DataSink, TableRows, TocEntry, table_of};

/// What an archive holds, summed.
#[derive(Debug)]
pub struct ArchiveSums {
    /// Each table with its rows' sum, in the archive's order.
    pub(super) tables: Vec<(TableRows, Summed)>,
    pub(super) large_objects: Fingerprint,
}

/// The sink that sums. The rows of the tables in `bagged` are also counted one by one.
#[derive(Debug)]
pub struct Sums {
    key: ChunkKey,
    bagged: BTreeSet<(String, String)>,
    tables: Vec<(TableRows, Summed)>,
    current: Option<(TableRows, RowHasher)>,
    large_objects: LargeObjectHasher,
}

impl Sums {
    /// `key` hashes rows; tables of extensions are `bagged`, by schema and name.
    pub fn new(key: [u8; 32], bagged: BTreeSet<(String, String)>) -> Self {
        let key = ChunkKey::from_bytes(key);
        let large_objects = LargeObjectHasher::new(key.clone());
        Self { key, bagged, tables: Vec::new(), current: None, large_objects }
    }

    /// What all of it came to.
    pub fn finish(self) -> ArchiveSums {
        ArchiveSums { tables: self.tables, large_objects: self.large_objects.finish() }
    }
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
