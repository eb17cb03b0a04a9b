//! Large objects, summed as rows are: of each object the blocks, each with its OID and number.
//!
//! Blocks keep the memory small on both sides and let a server be read a piece at a time. A hole in a sparse
//! object reads as zeros, for `pg_dump` and for `lo_get` alike.

use futures::TryStreamExt;

use super::rows::{Fingerprint, hash_of};
use crate::codec::hash::ChunkKey;
use crate::postgres::PostgresError;
use crate::postgres::session::Session;

/// Of one block, but for the last of an object.
const BLOCK_BYTES: usize = 256 << 10;
/// OID and number go before the block's bytes.
const PREFIX_BYTES: usize = 4 + 8;

/// Takes the content of one large object after the other, cut anywhere.
#[derive(Debug)]
pub(super) struct LargeObjectHasher {
    key: ChunkKey,
    /// Prefix and block.
    block: Vec<u8>,
    oid: u32,
    number: u64,
    blocks: Fingerprint,
    objects: u64,
}

impl LargeObjectHasher {
    pub(super) fn new(key: ChunkKey) -> Self {
        Self {
            key,
            block: Vec::new(),
            oid: 0,
            number: 0,
            blocks: Fingerprint::default(),
            objects: 0,
        }
    }

    pub(super) fn begin(&mut self, oid: u32) {
        self.oid = oid;
        self.number = 0;
        self.objects += 1;
        self.prefix();
    }

    fn prefix(&mut self) {
        self.block.clear();
        self.block.extend_from_slice(&self.oid.to_le_bytes());
        self.block.extend_from_slice(&self.number.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = PREFIX_BYTES + BLOCK_BYTES - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == PREFIX_BYTES + BLOCK_BYTES {
                self.close_block();
            }
        }
    }

    fn close_block(&mut self) {
        let sum = hash_of(&self.key, &self.block);
        self.blocks = self.blocks.plus(Fingerprint { rows: 1, sum });
        self.number += 1;
        self.prefix();
    }

    /// The object is complete; an empty one counts as one empty block.
    pub(super) fn end(&mut self) {
        if self.block.len() > PREFIX_BYTES || self.number == 0 {
            self.close_block();
        }
    }

    /// The number of objects, and the sum of all their blocks.
    pub(super) fn finish(self) -> Fingerprint {
        Fingerprint { rows: self.objects, sum: self.blocks.sum }
    }
}

/// The large objects of the session's database.
pub(super) async fn database_sum(
    session: &Session,
    key: ChunkKey,
) -> Result<Fingerprint, PostgresError> {
    let client = session.client();
    let block = i32::try_from(BLOCK_BYTES).expect("a block is small");
    let first = "SELECT oid, pg_catalog.lo_get(oid, 0, $1) \
                 FROM pg_catalog.pg_largeobject_metadata ORDER BY oid";
    let next = client.prepare("SELECT pg_catalog.lo_get($1, $2, $3)").await?;
    let mut hasher = LargeObjectHasher::new(key);
    let rows = client.query_raw(first, [block]).await?;
    let mut rows = std::pin::pin!(rows);
    let mut long = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let (oid, bytes): (u32, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        if bytes.len() == BLOCK_BYTES {
            long.push(oid);
        } else {
            hasher.begin(oid);
            hasher.bytes(bytes);
            hasher.end();
        }
    }
    for oid in long {
        hasher.begin(oid);
        let mut offset = 0_i64;
        loop {
            let row = client.query_one(&next, &[&oid, &offset, &block]).await?;
            let bytes: &[u8] = row.try_get(0)?;
            hasher.bytes(bytes);
            offset += i64::from(block);
            if bytes.len() < BLOCK_BYTES {
                break;
            }
        }
        hasher.end();
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(objects: &[(u32, &[u8])], piece: usize) -> Fingerprint {
        let mut hasher = LargeObjectHasher::new(ChunkKey::from_bytes([1; 32]));
        for (oid, content) in objects {
            hasher.begin(*oid);
            for bytes in content.chunks(piece) {
                hasher.bytes(bytes);
            }
            hasher.end();
        }
        hasher.finish()
    }

    #[test]
    fn content_and_oid_both_count_and_cutting_does_not() {
        let big = vec![5_u8; BLOCK_BYTES * 2 + 17];
        let objects: [(u32, &[u8]); 3] = [(1, b"a"), (2, b""), (3, &big)];
        let whole = sum(&objects, usize::MAX);
        assert_eq!(whole.rows, 3);
        assert_eq!(whole, sum(&objects, 1000));
        assert_eq!(whole, sum(&[objects[2], objects[0], objects[1]], 64));
        assert_ne!(whole, sum(&[(1, b""), (2, b"a"), (3, &big)], 64));
        assert_ne!(whole, sum(&[(1, b"a"), (2, b""), (3, &big[1..])], 64));
        assert_ne!(sum(&[(1, &big[..BLOCK_BYTES])], 64), sum(&[(1, &big[..BLOCK_BYTES * 2])], 64));
    }

    #[test]
    fn an_object_of_whole_blocks_has_no_empty_one() {
        let big = vec![5_u8; BLOCK_BYTES];
        let mut hasher = LargeObjectHasher::new(ChunkKey::from_bytes([1; 32]));
        hasher.begin(1);
        hasher.bytes(&big);
        hasher.bytes(&[]);
        hasher.end();
        assert_eq!(hasher.finish(), sum(&[(1, &big)], 1000));
    }
}
