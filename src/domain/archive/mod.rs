//! Reads a `pg_dump` custom-format archive as it streams by, without compression of its own.
//!
//! [`ArchiveReader`] takes the bytes in pieces of any size, in order, as a pipe gives them, and hands the
//! rows and large objects to a [`DataSink`]; [`RowCounter`] is the sink that counts. It never reads ahead
//! and keeps only the table of contents, so it can stand beside the stream on its way to the store and back.
//! Formats 1.14 to 1.16 (`pg_dump` of PostgreSQL 12 to 18).
//!
//! **Invariants.** Any input ends in a summary or an [`ArchiveError`], never in a panic. A summary means
//! that every entry with data had its block, once, and every block its end: an archive cut short anywhere
//! is told from a whole one. Nothing is kept between archives, so a crash leaves nothing.
//!
//! **Layout** after the head (`pg_backup_custom.c`): per entry with data a block, in the order of the
//! entries. A block is a type byte (1 rows, 3 large objects), the entry's number, and pieces, each with its
//! length before it; length 0 ends them. Large objects put an OID before the pieces of each; OID 0 ends them.

mod copy;
mod rows;
mod toc;

use std::collections::HashMap;

pub use copy::{CopyTarget, parse_copy};
pub(crate) use rows::table_of;
pub use rows::{ArchiveSummary, ROW_SETTINGS, RowCounter, TableRows};
pub use toc::{ArchiveHeader, MINOR_VERSIONS, Preamble, Section, Toc, TocEntry};

use super::failure::{Failure, FailureKind};
use toc::{Stop, Words};

/// Sign byte and four bytes.
const INT: usize = 5;
/// Type byte and the entry's number.
const BLOCK_HEAD: usize = 1 + INT;
const BLOCK_ROWS: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;

/// Why bytes are no archive, or not a whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// The first bytes are not `PGDMP`.
    #[error("this is no pg_dump archive in custom format")]
    NotAnArchive,
    /// A format that is older or newer than those that are read.
    #[error("pg_dump archive format {major}.{minor} is not known")]
    Version {
        /// Before the dot.
        major: u8,
        /// After the dot.
        minor: u8,
    },
    /// `pg_dump` compressed it itself.
    #[error("the pg_dump archive is compressed")]
    Compressed,
    /// Bytes that no `pg_dump` writes.
    #[error("damaged pg_dump archive, at byte {position}: {what}")]
    Shape {
        /// Where.
        position: u64,
        /// What is there.
        what: &'static str,
    },
    /// The bytes end within something.
    #[error("the pg_dump archive ends early, at byte {position}, within {within}")]
    Incomplete {
        /// Its length.
        position: u64,
        /// What has no end.
        within: String,
    },
    /// An entry's data block never came.
    #[error("the pg_dump archive ends early: {entry} is missing")]
    MissingData {
        /// The first such entry.
        entry: String,
    },
    /// The rows of a table stop without the end marker.
    #[error("the rows of {table} have no end marker")]
    Unterminated {
        /// Schema and name.
        table: String,
    },
    /// Rows as INSERT statements, or a COPY statement that is not understood.
    #[error("the rows of {table} are not in COPY format")]
    NotCopy {
        /// Schema and name.
        table: String,
    },
}

impl Failure for ArchiveError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::NotAnArchive | Self::Version { .. } | Self::Compressed | Self::NotCopy { .. } => {
                FailureKind::Usage
            }
            _ => FailureKind::Damage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotAnArchive => "only what `pg_dump --format=custom` writes is read".to_owned(),
            Self::Version { .. } => format!(
                "formats 1.{} to 1.{} are read (pg_dump 12 to 18); use another pg_dump, or a newer pgkeep",
                MINOR_VERSIONS.start(),
                MINOR_VERSIONS.end()
            ),
            Self::Compressed => "dump with `pg_dump --compress=0`".to_owned(),
            Self::NotCopy { .. } => "dump without `--inserts`".to_owned(),
            _ => "the dump was cut off or changed on its way; take another one".to_owned(),
        })
    }
}

/// Gets what the data blocks hold, in the archive's order.
pub trait DataSink {
    /// The rows of `entry` begin (desc `TABLE DATA`).
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError>;
    /// A large object begins.
    fn large_object(&mut self, oid: u32);
    /// More bytes of what began last: never empty, cut anywhere.
    fn bytes(&mut self, bytes: &[u8]);
    /// What began last is complete.
    fn end(&mut self) -> Result<(), ArchiveError>;
}

/// A sink for those who want the table of contents and the certainty that the archive is whole.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSink;

impl DataSink for NoSink {
    fn begin(&mut self, _entry: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn large_object(&mut self, _oid: u32) {}
    fn bytes(&mut self, _bytes: &[u8]) {}
    fn end(&mut self) -> Result<(), ArchiveError> {
        Ok(())
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Header,
    Entry {
        left: u32,
    },
    Block,
    LargeObject,
    PieceLength,
    Piece {
        left: usize,
    },
    /// Nothing: the input was refused before.
    Failed,
}

/// The push parser; see the module.
#[derive(Debug)]
pub struct ArchiveReader<S> {
    sink: S,
    toc: Toc,
    expect: Expect,
    /// Bytes of the head that are not understood yet.
    head: Vec<u8>,
    /// The beginning of a small field that the last push cut.
    cut: [u8; BLOCK_HEAD],
    cut_bytes: usize,
    /// Length of the archive so far, all pushes.
    length: u64,
    /// Where the head ends and the data blocks begin, once that is known.
    head_bytes: Option<u64>,
    words: Words,
    /// Entries with data, by number.
    by_id: HashMap<u32, usize>,
    /// The entry whose block is being read.
    current: usize,
    in_large_objects: bool,
}

impl<S: DataSink> ArchiveReader<S> {
    /// A reader of one archive.
    pub fn new(sink: S) -> Self {
        let header = ArchiveHeader {
            minor: 0,
            database: String::new(),
            server_version: String::new(),
            dump_version: String::new(),
        };
        Self {
            sink,
            toc: Toc { header, entries: Vec::new() },
            expect: Expect::Header,
            head: Vec::new(),
            cut: [0; BLOCK_HEAD],
            cut_bytes: 0,
            length: 0,
            head_bytes: None,
            words: Words::default(),
            by_id: HashMap::new(),
            current: 0,
            in_large_objects: false,
        }
    }

    /// The next bytes. After an error every further push fails.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.length += bytes.len() as u64;
        let outcome = match self.expect {
            Expect::Header | Expect::Entry { .. } => self.push_head(bytes),
            _ => self.push_data(bytes),
        };
        if outcome.is_err() {
            self.expect = Expect::Failed;
        }
        outcome
    }

    /// The table of contents, once it is complete, and the length of the head that it ends.
    pub fn head(&self) -> Option<(&Toc, u64)> {
        Some((&self.toc, self.head_bytes?))
    }

    /// The sink.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// Length of the archive so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Says that the input has ended; gives table of contents and sink if the archive is whole.
    pub fn complete(self) -> Result<(Toc, S), ArchiveError> {
        let within = match self.expect {
            Expect::Header => "its header".to_owned(),
            Expect::Entry { .. } => "its table of contents".to_owned(),
            Expect::Block if self.cut_bytes == 0 => {
                let missing = self.toc.entries.iter().find(|e| e.has_data && e.data_at.is_none());
                return match missing {
                    Some(entry) => Err(ArchiveError::MissingData { entry: entry.describe() }),
                    None => Ok((self.toc, self.sink)),
                };
            }
            Expect::Block => "the head of a data block".to_owned(),
            Expect::LargeObject | Expect::PieceLength | Expect::Piece { .. } => {
                self.toc.entries[self.current].describe()
            }
            Expect::Failed => {
                return Err(ArchiveError::Shape { position: self.length, what: "it was refused" });
            }
        };
        Err(ArchiveError::Incomplete { position: self.length, within })
    }

    fn push_head(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.head.extend_from_slice(bytes);
        let head = std::mem::take(&mut self.head);
        let start = self.length - head.len() as u64;
        let mut used = 0;
        let step = loop {
            let (rest, position) = (&head[used..], start + used as u64);
            let step = match self.expect {
                Expect::Header => toc::read_header(rest).map(|(header, entries, bytes)| {
                    self.toc.header = header;
                    (entries, bytes)
                }),
                Expect::Entry { left } => {
                    toc::read_entry(rest, position, self.toc.header.minor, &mut self.words).map(
                        |(entry, bytes)| {
                            self.toc.entries.push(entry);
                            (left - 1, bytes)
                        },
                    )
                }
                _ => break Ok(()),
            };
            match step {
                Ok((0, bytes)) => {
                    used += bytes;
                    self.open_data(start + used as u64)?;
                }
                Ok((left, bytes)) => {
                    used += bytes;
                    self.expect = Expect::Entry { left };
                }
                Err(Stop::Short) => {
                    self.head = head[used..].to_vec();
                    return Ok(());
                }
                Err(Stop::Bad(what)) => break Err(ArchiveError::Shape { position, what }),
                Err(Stop::Refused(error)) => break Err(error),
            }
        };
        step?;
        self.push_data(&head[used..])
    }

    /// The table of contents is complete.
    fn open_data(&mut self, position: u64) -> Result<(), ArchiveError> {
        self.words = Words::default();
        for (at, entry) in self.toc.entries.iter().enumerate().filter(|(_, entry)| entry.has_data) {
            if self.by_id.insert(entry.dump_id, at).is_some() {
                return Err(ArchiveError::Shape { position, what: "two entries of one number" });
            }
        }
        self.head_bytes = Some(position);
        self.expect = Expect::Block;
        Ok(())
    }

    fn shape(&self, rest: &[u8], what: &'static str) -> ArchiveError {
        ArchiveError::Shape { position: self.length - rest.len() as u64, what }
    }

    fn push_data(&mut self, mut rest: &[u8]) -> Result<(), ArchiveError> {
        while !rest.is_empty() {
            match self.expect {
                Expect::Piece { left } => {
                    let (bytes, after) = rest.split_at(left.min(rest.len()));
                    self.sink.bytes(bytes);
                    rest = after;
                    let left = left - bytes.len();
                    self.expect =
                        if left == 0 { Expect::PieceLength } else { Expect::Piece { left } };
                }
                Expect::PieceLength => rest = self.pieces(rest)?,
                Expect::LargeObject => {
                    let Some(field) = self.field::<INT>(&mut rest) else { break };
                    match int(field) {
                        Some((_, 0)) => {
                            self.in_large_objects = false;
                            self.expect = Expect::Block;
                        }
                        // An OID above 2^31 went through a signed integer.
                        Some((true, oid)) => self.open_large_object(oid.wrapping_neg()),
                        Some((false, oid)) => self.open_large_object(oid),
                        None => return Err(self.shape(rest, "a large object without an OID")),
                    }
                }
                Expect::Block => {
                    let Some(field) = self.field::<BLOCK_HEAD>(&mut rest) else { break };
                    self.open_block(field, rest)?;
                }
                Expect::Header | Expect::Entry { .. } | Expect::Failed => {
                    return Err(self.shape(rest, "it was refused"));
                }
            }
        }
        Ok(())
    }

    fn open_large_object(&mut self, oid: u32) {
        self.sink.large_object(oid);
        self.expect = Expect::PieceLength;
    }

    /// As many whole pieces as `rest` holds. `pg_dump` writes one piece a row: this is the hot loop.
    fn pieces<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], ArchiveError> {
        if self.cut_bytes == 0 {
            while let Some((&field, after)) = rest.split_first_chunk::<INT>() {
                let Some((false, length)) = int(field) else { break };
                let Some((piece, after)) = after.split_at_checked(length as usize) else { break };
                if piece.is_empty() {
                    break;
                }
                self.sink.bytes(piece);
                rest = after;
            }
        }
        // What ends a block, or goes beyond these bytes, or is wrong.
        let Some(field) = self.field::<INT>(&mut rest) else { return Ok(&[]) };
        match int(field) {
            Some((_, 0)) => {
                self.sink.end()?;
                self.expect =
                    if self.in_large_objects { Expect::LargeObject } else { Expect::Block };
            }
            Some((false, length)) if i32::try_from(length).is_ok() => {
                self.expect = Expect::Piece { left: length as usize };
            }
            _ => return Err(self.shape(rest, "a piece of impossible length")),
        }
        Ok(rest)
    }

    fn open_block(
        &mut self,
        [kind, number @ ..]: [u8; BLOCK_HEAD],
        rest: &[u8],
    ) -> Result<(), ArchiveError> {
        let found = match int(number) {
            Some((false, id)) => self.by_id.get(&id).copied(),
            _ => None,
        };
        let Some(at) = found else {
            return Err(self.shape(rest, "a data block that the table of contents does not know"));
        };
        let begins = self.length - rest.len() as u64 - BLOCK_HEAD as u64;
        let entry = &mut self.toc.entries[at];
        if entry.data_at.is_some() {
            return Err(self.shape(rest, "a second data block of one entry"));
        }
        entry.data_at = Some(begins);
        let large_objects = entry.is_large_objects();
        self.current = at;
        self.in_large_objects = large_objects;
        match (kind, large_objects) {
            (BLOCK_LARGE_OBJECTS, true) => self.expect = Expect::LargeObject,
            (BLOCK_ROWS, false) => {
                self.sink.begin(&self.toc.entries[at])?;
                self.expect = Expect::PieceLength;
            }
            _ => return Err(self.shape(rest, "a data block of another kind than its entry's")),
        }
        Ok(())
    }

    /// A field of `N` bytes, also when the last push cut it; none when it is still not all there.
    fn field<const N: usize>(&mut self, rest: &mut &[u8]) -> Option<[u8; N]> {
        let (bytes, after) = rest.split_at((N - self.cut_bytes).min(rest.len()));
        self.cut[self.cut_bytes..self.cut_bytes + bytes.len()].copy_from_slice(bytes);
        self.cut_bytes += bytes.len();
        *rest = after;
        let whole = self.cut.first_chunk::<N>().filter(|_| self.cut_bytes == N).copied()?;
        self.cut_bytes = 0;
        Some(whole)
    }
}

impl ArchiveReader<RowCounter> {
    /// A reader that counts rows.
    pub fn counting() -> Self {
        Self::new(RowCounter::default())
    }

    /// Says that the input has ended; what was counted, if the archive is whole.
    pub fn finish(self) -> Result<ArchiveSummary, ArchiveError> {
        let length = self.length;
        let (toc, counter) = self.complete()?;
        ArchiveSummary::new(toc, counter, length)
    }
}

/// Whether it is negative, and its magnitude; none when the sign is no sign.
fn int([sign, a, b, c, d]: [u8; INT]) -> Option<(bool, u32)> {
    (sign <= 1).then(|| (sign == 1, u32::from_le_bytes([a, b, c, d])))
}

#[cfg(test)]
mod tests;
