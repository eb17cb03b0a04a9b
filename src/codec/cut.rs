//! Cuts a stream where its content says so (FastCDC, the 2020 variant), so that an insertion changes the
//! chunks around it and no others.
//!
//! **Keyed.** The gear table, 256 random words that decide where cuts fall, is derived from the epoch's
//! chunk key instead of taken from the algorithm's paper. Who sees only the sizes of stored chunks can
//! then not compute where a document he knows would have been cut, and look for that pattern. The crate's
//! own `seed` would only XOR 64 bits over the public table; a table of our own is wholly unknown, at the
//! same speed. This hampers such an observer, it is no proof against one who can also have data of his
//! choosing stored and watch what comes of it.
//!
//! **Invariants.** The chunks, joined, are the stream. Every chunk but the last is between the smallest and
//! the largest size. The cuts depend on content, key and sizes alone, never on how reads were split.
//! Changing any of those (or the masks) makes a repository forget its chunks: nothing is damaged, and
//! nothing is shared any more. Pinned by a test.

use std::io::{self, Read};

use fastcdc::v2020::{self, Normalization};
use serde::{Deserialize, Serialize};

use super::hash::ChunkKey;
use crate::domain::failure::{Failure, FailureKind};

const GEAR_CONTEXT: &str = "pgkeep 2026 fastcdc gear table v1";

/// Why a stream could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// Its reader failed. What was cut before is no whole stream.
    #[error("cannot read the stream")]
    Read(#[source] io::Error),
    /// Sizes out of order or out of range.
    #[error("chunk sizes {min}, {avg}, {max} are out of range")]
    Params {
        /// Smallest.
        min: u32,
        /// Aimed at.
        avg: u32,
        /// Largest.
        max: u32,
    },
}

impl Failure for CutError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Read(_) => FailureKind::Unexpected,
            Self::Params { .. } => FailureKind::Damage,
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read(_) => "the program that produces the stream may have been killed".to_owned(),
            Self::Params { .. } => {
                "the repository's own description is damaged, or was written by a \
                                    newer version"
                    .to_owned()
            }
        })
    }
}

/// The sizes of chunks; fixed for a repository when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawParams", deny_unknown_fields)]
pub struct ChunkParams {
    /// No chunk but a stream's last is smaller.
    pub min_bytes: u32,
    /// What is aimed at.
    pub avg_bytes: u32,
    /// No chunk is larger.
    pub max_bytes: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the names of the stored form")]
struct RawParams {
    min_bytes: u32,
    avg_bytes: u32,
    max_bytes: u32,
}

impl TryFrom<RawParams> for ChunkParams {
    type Error = CutError;
    fn try_from(raw: RawParams) -> Result<Self, CutError> {
        Self::new(raw.min_bytes, raw.avg_bytes, raw.max_bytes)
    }
}

impl ChunkParams {
    /// Checked sizes: even, in order, within what the algorithm was made for.
    pub const fn new(min_bytes: u32, avg_bytes: u32, max_bytes: u32) -> Result<Self, CutError> {
        let params = Self { min_bytes, avg_bytes, max_bytes };
        if params.are_sound() {
            Ok(params)
        } else {
            Err(CutError::Params { min: min_bytes, avg: avg_bytes, max: max_bytes })
        }
    }

    const fn are_sound(self) -> bool {
        let Self { min_bytes: min, avg_bytes: avg, max_bytes: max } = self;
        min >= 64
            && min <= 1 << 20
            && avg >= 256
            && avg <= 4 << 20
            && max >= 1024
            && max <= 16 << 20
            && min < avg
            && avg < max
            && min % 2 == 0
            && avg % 2 == 0
            && max % 2 == 0
    }
}

impl Default for ChunkParams {
    /// What `init` writes: 256 KiB, 1 MiB, 4 MiB.
    fn default() -> Self {
        Self { min_bytes: 256 << 10, avg_bytes: 1 << 20, max_bytes: 4 << 20 }
    }
}

/// Cuts all of `reader` into chunks. After an error the iterator ends.
///
/// Holds twice the largest chunk in memory. Blocks where the reader blocks.
pub fn cut<R: Read>(reader: R, params: ChunkParams, key: &ChunkKey) -> Cutter<R> {
    assert!(params.are_sound(), "chunk sizes are checked where they come from");
    let mut table = [0; 256 * 8];
    key.derive_into(GEAR_CONTEXT, &mut table);
    let mut gear = Box::new([0; 256]);
    let mut gear_shifted = Box::new([0; 256]);
    for (at, word) in table.chunks_exact(8).enumerate() {
        gear[at] = u64::from_le_bytes(word.try_into().expect("8 bytes"));
        gear_shifted[at] = gear[at] << 1;
    }
    let (mask_strict, mask_loose) =
        v2020::select_masks(params.avg_bytes as usize, Normalization::Level1);
    Cutter {
        reader,
        params,
        gear,
        gear_shifted,
        mask_strict,
        mask_loose,
        buffer: vec![0; 2 * params.max_bytes as usize],
        start: 0,
        end: 0,
        ended: false,
    }
}

/// The chunks of a stream; made by [`cut`].
pub struct Cutter<R> {
    reader: R,
    params: ChunkParams,
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
    mask_strict: u64,
    mask_loose: u64,
    /// `buffer[start..end]` is read and not yet cut.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
}

impl<R: Read> Cutter<R> {
    /// Reads until a largest chunk is at hand or the stream ends: less would move the cuts.
    fn fill(&mut self) -> io::Result<()> {
        let wanted = self.params.max_bytes as usize;
        if self.ended || self.end - self.start >= wanted {
            return Ok(());
        }
        // The rest moves to the front only where room runs out, so once in several chunks.
        if self.buffer.len() - self.start < wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < wanted {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => {
                    self.ended = true;
                    break;
                }
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<R: Read> Iterator for Cutter<R> {
    type Item = Result<Vec<u8>, CutError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            self.ended = true;
            self.start = self.end;
            return Some(Err(CutError::Read(error)));
        }
        if self.start == self.end {
            return None;
        }
        let (_, length) = v2020::cut_gear(
            &self.buffer[self.start..self.end],
            self.params.min_bytes as usize,
            self.params.avg_bytes as usize,
            self.params.max_bytes as usize,
            self.mask_strict,
            self.mask_loose,
            self.mask_strict << 1,
            self.mask_loose << 1,
            &self.gear[..],
            &self.gear_shifted[..],
        );
        let chunk = self.buffer[self.start..self.start + length].to_vec();
        self.start += length;
        Some(Ok(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::hash::plain_hash;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const SMALL: ChunkParams = ChunkParams { min_bytes: 64, avg_bytes: 256, max_bytes: 1024 };

    fn key() -> ChunkKey {
        ChunkKey::from_bytes([42; 32])
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        ChunkKey::from_bytes([1; 32]).derive_into("noise", &mut out);
        out
    }

    fn chunks(data: impl Read, params: ChunkParams, key: &ChunkKey) -> Vec<Vec<u8>> {
        cut(data, params, key).collect::<Result<_, _>>().expect("a reader that does not fail")
    }

    /// Gives at most as many bytes a read as its turn in a list says, interrupted in between.
    struct Dribble<'a>(&'a [u8], Vec<usize>, usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.2 += 1;
            if self.2.is_multiple_of(5) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let most = self.1[self.2 % self.1.len()].min(buffer.len()).min(self.0.len());
            buffer[..most].copy_from_slice(&self.0[..most]);
            self.0 = &self.0[most..];
            Ok(most)
        }
    }

    proptest! {
        #[test]
        fn joined_chunks_are_the_stream_and_keep_to_their_sizes(
            data in proptest::collection::vec(any::<u8>(), 0..20_000),
        ) {
            let chunks = chunks(&data[..], SMALL, &key());
            prop_assert_eq!(chunks.concat(), data);
            for (at, chunk) in chunks.iter().enumerate() {
                prop_assert!(chunk.len() <= 1024 && !chunk.is_empty());
                prop_assert!(chunk.len() >= 64 || at + 1 == chunks.len());
            }
        }

        #[test]
        fn cuts_do_not_depend_on_how_reads_are_split(
            data in proptest::collection::vec(any::<u8>(), 0..20_000),
            sizes in proptest::collection::vec(1_usize..3000, 1..9),
        ) {
            let whole = chunks(&data[..], SMALL, &key());
            prop_assert_eq!(chunks(Dribble(&data, sizes, 0), SMALL, &key()), whole);
        }
    }

    #[test]
    fn an_insertion_changes_the_chunks_around_it_and_no_others() {
        let before = noise(400_000);
        let mut after = before.clone();
        after.splice(200_000..200_000, *b"seventeen bytes !");
        let known: HashSet<Vec<u8>> = chunks(&before[..], SMALL, &key()).into_iter().collect();
        let after = chunks(&after[..], SMALL, &key());
        let new = after.iter().filter(|chunk| !known.contains(*chunk)).count();
        assert!((1..=4).contains(&new), "{new} of {} chunks are new", after.len());
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = noise(100_000);
        let ends = |key: &ChunkKey| -> HashSet<usize> {
            let lengths = chunks(&data[..], SMALL, key).into_iter().map(|chunk| chunk.len());
            lengths
                .scan(0, |end, length| {
                    *end += length;
                    Some(*end)
                })
                .collect()
        };
        let (one, two) = (ends(&key()), ends(&ChunkKey::from_bytes([43; 32])));
        // Some cuts coincide by chance: about one position in 300 is one.
        let shared = one.intersection(&two).count();
        assert!(shared * 20 < one.len(), "{shared} of {} cuts are shared", one.len());
    }

    #[test]
    fn the_shipped_sizes_average_about_a_mebibyte() {
        let data = noise(48 << 20);
        let count = chunks(&data[..], ChunkParams::default(), &key()).len();
        assert!((32..=60).contains(&count), "{count} chunks of 48 MiB");
    }

    #[test]
    fn content_without_cuts_is_cut_at_the_largest_size() {
        let lengths: Vec<_> = chunks(&[0; 2500][..], SMALL, &key()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [1024, 1024, 452]);
        assert!(chunks(&[][..], SMALL, &key()).is_empty());
    }

    #[test]
    fn the_cuts_of_this_format_never_move() {
        let lengths: Vec<_> = chunks(&noise(8 << 20)[..], ChunkParams::default(), &key())
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(
            lengths,
            [1_788_723, 1_376_628, 1_066_120, 1_082_550, 1_180_148, 267_878, 1_626_561]
        );
        let small: String = chunks(&noise(100_000)[..], SMALL, &key())
            .iter()
            .map(|c| c.len().to_string())
            .collect();
        assert_eq!(plain_hash(small.as_bytes()).to_hex()[..16], *"7dffa3452bad396d");
    }

    #[test]
    fn a_failing_reader_ends_the_stream_with_its_error() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 > 2 {
                    Err(io::ErrorKind::BrokenPipe.into())
                } else {
                    Ok(buffer.len().min(700))
                }
            }
        }
        let all: Vec<_> = cut(Broken(0), SMALL, &key()).collect();
        let failed = all.iter().filter(|chunk| chunk.is_err()).count();
        assert_eq!((failed, all.last().is_some_and(Result::is_err)), (1, true));
    }

    #[test]
    fn unsound_sizes_are_refused_at_the_door() {
        for (min, avg, max) in [
            (65, 256, 1024),
            (256, 256, 1024),
            (64, 2048, 1024),
            (0, 256, 1024),
            (64, 256, 32 << 20),
        ] {
            assert!(ChunkParams::new(min, avg, max).is_err(), "{min} {avg} {max}");
        }
        let text = serde_json::to_string(&ChunkParams::default()).expect("plain numbers");
        assert_eq!(text, r#"{"min_bytes":262144,"avg_bytes":1048576,"max_bytes":4194304}"#);
        assert_eq!(serde_json::from_str::<ChunkParams>(&text).ok(), Some(ChunkParams::default()));
        assert!(serde_json::from_str::<ChunkParams>(&text.replace("262144", "262145")).is_err());
    }
}
