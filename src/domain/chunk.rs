//! Chunks as manifests name them.

use std::fmt;
use std::str::FromStr;

use super::id::{BackupId, EpochId};
use super::key::ObjectKey;

/// Why a line of a chunk list was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a chunk entry")]
pub struct ChunkEntryError(pub String);

/// A 32-byte BLAKE3 value, keyed or not as its field says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// 64 lower-case hex digits.
    pub fn to_hex(self) -> String {
        blake3_hex(&self.0)
    }

    /// Reads 64 lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut value = [0; 32];
        for (at, pair) in bytes.chunks_exact(2).enumerate() {
            value[at] = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(value))
    }
}

fn blake3_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// The name of a stored chunk: keyed hash of the plaintext, and the suffix of the backup that wrote it.
///
/// `chunks/<epoch>/<2 hex>/<64 hex>-<8 hex>`. Two backups that write the same content use two names,
/// so a name once deleted never comes back (REMOVAL.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkName {
    /// BLAKE3 of the plaintext, keyed with the epoch's chunk key.
    pub hash: Hash,
    /// The random half of the writing backup's id.
    pub suffix: u32,
}

impl ChunkName {
    /// The name that `backup` gives content of that hash.
    pub fn new(hash: Hash, backup: &BackupId) -> Self {
        let suffix = u32::from_str_radix(backup.suffix(), 16).expect("an id ends in 8 hex digits");
        Self { hash, suffix }
    }

    /// Where the chunk lies.
    pub fn key(&self, epoch: &EpochId) -> ObjectKey {
        let name = self.to_string();
        ObjectKey::parse(format!("chunks/{epoch}/{}/{name}", &name[..2])).expect("hex and dashes")
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.hash.to_hex(), self.suffix)
    }
}

impl FromStr for ChunkName {
    type Err = ChunkEntryError;
    fn from_str(text: &str) -> Result<Self, ChunkEntryError> {
        let refused = || ChunkEntryError(text.to_owned());
        let (hash, suffix) = text.split_once('-').ok_or_else(refused)?;
        if suffix.len() != 8 || suffix.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refused());
        }
        let hash = Hash::from_hex(hash).ok_or_else(refused)?;
        let suffix = u32::from_str_radix(suffix, 16).map_err(|_| refused())?;
        Ok(Self { hash, suffix })
    }
}

/// One line of a chunk list: `<name> <plain bytes> <sealed bytes> <BLAKE3 of the sealed bytes>`.
///
/// The last two let a host without keys check what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// The stored name.
    pub name: ChunkName,
    /// Size before sealing.
    pub plain_bytes: u32,
    /// Size as stored.
    pub sealed_bytes: u32,
    /// Plain (unkeyed) BLAKE3 of the stored bytes.
    pub sealed_hash: Hash,
}

impl fmt::Display for ChunkEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = self.sealed_hash.to_hex();
        write!(f, "{} {} {} {hash}", self.name, self.plain_bytes, self.sealed_bytes)
    }
}

impl FromStr for ChunkEntry {
    type Err = ChunkEntryError;
    fn from_str(line: &str) -> Result<Self, ChunkEntryError> {
        let parse = || {
            let mut words = line.split(' ');
            let entry = Self {
                name: words.next()?.parse().ok()?,
                plain_bytes: words.next()?.parse().ok()?,
                sealed_bytes: words.next()?.parse().ok()?,
                sealed_hash: Hash::from_hex(words.next()?)?,
            };
            words.next().is_none().then_some(entry)
        };
        parse().ok_or_else(|| ChunkEntryError(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_as_written() {
        let entry = ChunkEntry {
            name: ChunkName { hash: Hash([7; 32]), suffix: 0x00c0_ffee },
            plain_bytes: 1 << 20,
            sealed_bytes: 300_000,
            sealed_hash: Hash([250; 32]),
        };
        assert_eq!(entry.to_string().parse(), Ok(entry));
        assert!(format!("{entry} x").parse::<ChunkEntry>().is_err());
    }
}
