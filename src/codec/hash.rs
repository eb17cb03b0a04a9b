//! BLAKE3: what a chunk is called, and what proves stored bytes.
//!
//! A chunk's name is a hash keyed with the epoch's chunk key, so that a reader of the bucket cannot test a
//! guess at the content against the names. Stored (sealed) bytes are hashed without a key, so that a host
//! without keys can check them. Keys for other purposes are derived from the chunk key under a context
//! each, so that no two uses share a key.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::domain::chunk::Hash;

/// An epoch's chunk key: names chunks, seeds their cutting. Wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ChunkKey([u8; 32]);

impl ChunkKey {
    /// The key made of these bytes, drawn by chance or read from a writer key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key itself, to be sealed or written into a writer key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The keyed hash of a chunk's plaintext.
    pub fn hash(&self, plain: &[u8]) -> Hash {
        Hash(*blake3::keyed_hash(&self.0, plain).as_bytes())
    }

    /// A key for another purpose. `context` is a constant of the program, unique to that purpose.
    pub fn derive(&self, context: &str) -> [u8; 32] {
        let mut key = [0; 32];
        self.derive_into(context, &mut key);
        key
    }

    /// As [`ChunkKey::derive`], for any number of bytes.
    pub fn derive_into(&self, context: &str, out: &mut [u8]) {
        blake3::Hasher::new_derive_key(context).update(&self.0).finalize_xof().fill(out);
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkKey(…)")
    }
}

/// The plain (unkeyed) hash of stored bytes; `b3sum` prints the same.
pub fn plain_hash(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_hashes_are_those_of_b3sum() {
        // The first test vector of the BLAKE3 specification: no input.
        assert_eq!(
            plain_hash(b"").to_hex(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn another_key_gives_another_name() {
        let (one, two) = (ChunkKey::from_bytes([1; 32]), ChunkKey::from_bytes([2; 32]));
        assert_ne!(one.hash(b"rows"), two.hash(b"rows"));
        assert_ne!(one.hash(b"rows"), plain_hash(b"rows"));
        assert_eq!(one.hash(b"rows"), ChunkKey::from_bytes([1; 32]).hash(b"rows"));
    }

    #[test]
    fn derived_keys_are_apart_and_stable() {
        let key = ChunkKey::from_bytes([7; 32]);
        assert_ne!(key.derive("pgkeep a"), key.derive("pgkeep b"));
        let mut long = [0; 100];
        key.derive_into("pgkeep a", &mut long);
        assert_eq!(long[..32], key.derive("pgkeep a"));
        assert_eq!(key.derive("pgkeep a"), blake3::derive_key("pgkeep a", &[7; 32]));
    }

    #[test]
    fn a_chunk_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", ChunkKey::from_bytes([0xab; 32])), "ChunkKey(…)");
    }
}
