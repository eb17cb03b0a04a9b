//! All chunks that a listing showed, in little room, with what is known of each.

use std::collections::{BTreeMap, HashSet};

use crate::domain::chunk::{ChunkName, Hash};
use crate::domain::id::EpochId;
use crate::domain::key::ObjectKey;
use crate::repo::error::RepoError;
use crate::repo::layout;
use crate::store::ObjectMeta;

/// A chunk as it is stored: its epoch is a number here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Chunk {
    hash: Hash,
    suffix: u32,
    epoch: u32,
    size: u32,
}

/// Sorted by hash, and found by its first two bytes.
#[derive(Debug, Default)]
pub(super) struct ChunkTable {
    epochs: Vec<EpochId>,
    numbers: BTreeMap<EpochId, u32>,
    chunks: Vec<Chunk>,
    starts: Vec<u32>,
    needed: Vec<bool>,
}

fn prefix(hash: Hash) -> usize {
    usize::from(hash.0[0]) << 8 | usize::from(hash.0[1])
}

impl ChunkTable {
    /// Takes in an object of a listing of `chunks/`.
    pub(super) fn add(&mut self, object: &ObjectMeta) -> Result<(), RepoError> {
        let unknown = || RepoError::UnknownObject(object.key.clone());
        let (epoch, name) = layout::chunk_of(&object.key).ok_or_else(unknown)?;
        let size = u32::try_from(object.size_bytes).map_err(|_| unknown())?;
        let epoch = if let Some(number) = self.numbers.get(&epoch) {
            *number
        } else {
            let number = u32::try_from(self.epochs.len()).map_err(|_| unknown())?;
            self.epochs.push(epoch.clone());
            self.numbers.insert(epoch, number);
            number
        };
        self.chunks.push(Chunk { hash: name.hash, suffix: name.suffix, epoch, size });
        Ok(())
    }

    /// All are in; none is needed yet.
    pub(super) fn seal(&mut self) {
        self.chunks.sort_unstable();
        self.chunks.dedup();
        self.needed = vec![false; self.chunks.len()];
        let mut starts = vec![0_u32; (1 << 16) + 1];
        for chunk in &self.chunks {
            starts[prefix(chunk.hash) + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        self.starts = starts;
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.chunks.len()
    }

    /// The number of an epoch; none where no chunk of it was listed.
    pub(super) fn epoch(&self, epoch: &EpochId) -> Option<u32> {
        self.numbers.get(epoch).copied()
    }

    /// Where a chunk is.
    pub(super) fn find(&self, epoch: u32, name: ChunkName) -> Option<usize> {
        let at = prefix(name.hash);
        let (from, to) = (self.starts[at] as usize, self.starts[at + 1] as usize);
        let key = (name.hash, name.suffix, epoch);
        let found = self.chunks[from..to]
            .binary_search_by(|chunk| (chunk.hash, chunk.suffix, chunk.epoch).cmp(&key));
        found.ok().map(|at| from + at)
    }

    /// A manifest that stays names these.
    pub(super) fn need(&mut self, epoch: &EpochId, names: impl Iterator<Item = ChunkName>) {
        let Some(epoch) = self.epoch(epoch) else { return };
        for name in names {
            if let Some(at) = self.find(epoch, name) {
                self.needed[at] = true;
            }
        }
    }

    /// Whether a manifest that stays names it.
    pub(super) fn is_needed(&self, at: usize) -> bool {
        self.needed[at]
    }

    /// Those that nobody needs: no manifest names them, none of `writers` may have put them for one to come, and
    /// they are on no list yet.
    pub(super) fn unneeded<'t>(
        &'t self,
        writers: &'t HashSet<u32>,
        listed: &'t HashSet<usize>,
    ) -> impl Iterator<Item = usize> + 't {
        (0..self.chunks.len()).filter(move |at| {
            let written = writers.contains(&self.chunks[*at].suffix);
            !self.needed[*at] && !written && !listed.contains(at)
        })
    }

    /// Its stored size.
    pub(super) fn size(&self, at: usize) -> u64 {
        self.chunks[at].size.into()
    }

    /// Its name, as lists have it.
    pub(super) fn name(&self, at: usize) -> (&EpochId, ChunkName) {
        let chunk = self.chunks[at];
        let name = ChunkName { hash: chunk.hash, suffix: chunk.suffix };
        (&self.epochs[chunk.epoch as usize], name)
    }

    /// Its key.
    pub(super) fn key(&self, at: usize) -> ObjectKey {
        let (epoch, name) = self.name(at);
        name.key(epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_found_by_epoch_and_name_and_what_is_no_chunk_ends_it() {
        let mut table = ChunkTable::default();
        let epochs = [EpochId::new(1), EpochId::new(2)];
        let name = |number: u32, suffix| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
            ChunkName { hash: Hash(hash), suffix }
        };
        for number in (0..3000).rev() {
            for (epoch, suffix) in epochs.iter().zip([7, 8]) {
                let key = name(number, suffix).key(epoch);
                table.add(&ObjectMeta { key, size_bytes: 5 }).expect("a chunk");
            }
        }
        table.seal();
        assert_eq!(table.len(), 6000);
        let second = table.epoch(&epochs[1]).expect("seen");
        assert_eq!(table.find(second, name(4, 7)), None);
        let at = table.find(second, name(4, 8)).expect("there");
        assert_eq!(table.key(at), name(4, 8).key(&epochs[1]));
        table.need(&epochs[1], [name(4, 8), name(9999, 8)].into_iter());
        table.need(&EpochId::new(3), [name(5, 8)].into_iter());
        let (writers, listed) = (HashSet::from([7]), HashSet::from([at + 1]));
        let unneeded: Vec<usize> = table.unneeded(&writers, &listed).collect();
        assert!(!unneeded.contains(&at) && table.is_needed(at));
        assert!(unneeded.len() >= 2998 && unneeded.len() < 3000);
        let odd = ObjectKey::parse("chunks/notes").expect("a key");
        let refused = table.add(&ObjectMeta { key: odd, size_bytes: 1 });
        assert!(matches!(refused, Err(RepoError::UnknownObject(_))));
    }
}
