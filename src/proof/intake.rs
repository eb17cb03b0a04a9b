//! An archive on its way into a database: read once, as it comes from the store.
//!
//! The head (header and table of contents) goes into a file, which is all that `pg_restore` needs for what it
//! does; rows and large objects are cut into batches that any session can take. On the way the archive is proved
//! whole, its rows are counted and, where content is to be compared, hashed. So no second copy of the archive
//! lies on any disk, and it is read while it is loaded.
//!
//! Memory holds a few batches. A batch is cut between rows, so one row is in memory whole, as it is in the
//! server and in `pg_dump`. A crash leaves the head in the caller's scratch directory, which goes with it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::ProofError;
use super::fingerprint::{ArchiveSums, Sums};
use crate::domain::archive::{
    ArchiveError, ArchiveReader, ArchiveSummary, DataSink, NoSink, RowCounter, Toc, TocEntry,
    table_of,
};
use crate::postgres::quote_literal;

/// Rows are handed on in batches of about this size: large enough that a batch costs nothing beside its rows,
/// small enough that the allocator does not map and unmap each of them (128 KiB in glibc).
const BATCH_BYTES: usize = 96 << 10;
/// Parts of a large object begin at its multiples, so that two sessions never write one page of it.
const OBJECT_PART_BYTES: usize = 512 << 10;
/// Batches that wait for a session.
const BATCHES: usize = 32;

/// An archive's bytes as they come, and how many there will be.
#[derive(Debug)]
pub struct Incoming {
    /// The bytes in order. The sender goes when all were sent, or when something went wrong.
    pub chunks: mpsc::Receiver<Vec<u8>>,
    /// Length of the whole: fewer are an archive cut short.
    pub bytes: u64,
}

/// A table that rows go into.
#[derive(Debug)]
pub(super) struct Table {
    /// Schema and name, for messages.
    pub(super) name: String,
    /// The COPY statement.
    pub(super) copy: String,
    /// The entry of the table that has all its rows once these are in; none where they go to the partitions of another.
    pub(super) fills: Option<u32>,
}

/// A piece of work for any session.
#[derive(Debug)]
pub(super) enum Batch {
    /// Whole rows in COPY's text format. The last batch of a table ends in the end marker.
    Rows {
        table: Arc<Table>,
        lines: Vec<u8>,
    },
    Objects(Vec<ObjectPart>),
}

/// Bytes of a large object.
#[derive(Debug)]
pub(super) struct ObjectPart {
    pub(super) oid: u32,
    pub(super) offset: i64,
    pub(super) bytes: Vec<u8>,
}

/// What the head says, as soon as it is complete.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) toc: Toc,
    /// The head alone, in a file: an archive whose data `pg_restore` must not be asked for.
    pub(super) path: PathBuf,
}

/// Which data goes into the database.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// `TABLE DATA` entries.
    pub(super) tables: BTreeSet<u32>,
    pub(super) large_objects: bool,
}

/// What the whole archive came to.
#[derive(Debug)]
pub struct Contents {
    /// Tables, rows, sequences.
    pub summary: ArchiveSummary,
    /// Its rows' fingerprints, where they were asked for.
    pub sums: Option<ArchiveSums>,
}

/// Reads an archive on a thread of its own.
pub(super) struct Intake {
    /// Comes first.
    pub(super) head: oneshot::Receiver<Head>,
    /// Then this says which data is wanted; without it nothing goes on.
    pub(super) wanted: oneshot::Sender<Wanted>,
    /// Then the batches, until they end.
    pub(super) batches: mpsc::Receiver<Batch>,
    /// And what it came to. An early end of the batches is an error here.
    pub(super) contents: tokio::task::JoinHandle<Result<Contents, ProofError>>,
}

impl Intake {
    /// Begins to read; the head goes into a new file in `directory`.
    pub(super) fn start(incoming: Incoming, directory: &Path, sums: Option<Sums>) -> Self {
        let (told, head) = oneshot::channel();
        let (wanted, answer) = oneshot::channel();
        let (out, batches) = mpsc::channel(BATCHES);
        let path = directory.join("head");
        let contents = tokio::task::spawn_blocking(move || {
            let mut reading = Reading { incoming, behind: Vec::new().into_iter() };
            let head = reading.head(&path)?;
            let mut sink = Sink::new(&head.toc, sums, out);
            if told.send(head).is_err() {
                return Err(ProofError::Stopped);
            }
            sink.wanted = answer.blocking_recv().map_err(|_| ProofError::Stopped)?;
            reading.data(sink)
        });
        Self { head, wanted, batches, contents }
    }
}

struct Reading {
    incoming: Incoming,
    /// Chunks that hold the head; where it ends is known only after the last of them came.
    behind: std::vec::IntoIter<Vec<u8>>,
}

impl Reading {
    fn head(&mut self, path: &Path) -> Result<Head, ProofError> {
        let failed = |source| ProofError::Head { path: path.to_owned(), source };
        let mut file =
            File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let mut reader = ArchiveReader::new(NoSink);
        let mut behind = Vec::new();
        loop {
            let Some(chunk) = self.incoming.chunks.blocking_recv() else {
                reader.complete()?;
                return Err(ProofError::Stopped);
            };
            reader.push(&chunk)?;
            file.write_all(&chunk).map_err(failed)?;
            behind.push(chunk);
            if let Some((toc, bytes)) = reader.head() {
                file.set_len(bytes).map_err(failed)?;
                self.behind = behind.into_iter();
                return Ok(Head { toc: toc.clone(), path: path.to_owned() });
            }
        }
    }

    fn data(mut self, sink: Sink) -> Result<Contents, ProofError> {
        let mut reader = ArchiveReader::new(sink);
        while let Some(chunk) = self.behind.next().or_else(|| self.incoming.chunks.blocking_recv())
        {
            reader.push(&chunk)?;
            if reader.sink().batches.stopped {
                return Err(ProofError::Stopped);
            }
        }
        let length = reader.length();
        let (toc, mut sink) = reader.complete()?;
        if length != self.incoming.bytes {
            let within = "an archive of another length".to_owned();
            return Err(ArchiveError::Incomplete { position: length, within }.into());
        }
        sink.batches.flush_objects();
        Ok(Contents {
            summary: ArchiveSummary::new(toc, sink.counter, length)?,
            sums: sink.sums.map(Sums::finish),
        })
    }
}

/// Everything that looks at the data, in one pass.
struct Sink {
    counter: RowCounter,
    sums: Option<Sums>,
    wanted: Wanted,
    batches: Batches,
    encoding: String,
}

impl Sink {
    fn new(toc: &Toc, sums: Option<Sums>, out: mpsc::Sender<Batch>) -> Self {
        Self {
            counter: RowCounter::default(),
            sums,
            wanted: Wanted::default(),
            batches: Batches { out, now: None, waiting: Vec::new(), stopped: false },
            encoding: toc.encoding().unwrap_or("UTF8").to_owned(),
        }
    }
}

impl DataSink for Sink {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.counter.begin(entry)?;
        if let Some(sums) = &mut self.sums {
            sums.begin(entry)?;
        }
        self.batches.flush_objects();
        self.batches.now = None;
        if self.wanted.tables.contains(&entry.dump_id) {
            let copy = copy_statement(entry, &self.encoding);
            let fills = match entry.dependencies[..] {
                [id] if table_of(entry)?.via_root.is_none() => Some(id),
                _ => None,
            };
            let table = Arc::new(Table { name: entry.describe(), copy, fills });
            self.batches.now = Some(Current::Rows { table, lines: Vec::new() });
        }
        Ok(())
    }

    fn large_object(&mut self, oid: u32) {
        self.counter.large_object(oid);
        if let Some(sums) = &mut self.sums {
            sums.large_object(oid);
        }
        let object = || Current::Object(ObjectPart { oid, offset: 0, bytes: Vec::new() });
        self.batches.now = self.wanted.large_objects.then(object);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.counter.bytes(bytes);
        if let Some(sums) = &mut self.sums {
            sums.bytes(bytes);
        }
        self.batches.bytes(bytes);
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        self.counter.end()?;
        if let Some(sums) = &mut self.sums {
            sums.end()?;
        }
        self.batches.end();
        Ok(())
    }
}

/// The statement as the archive has it, with the encoding of its bytes: the session keeps its own.
fn copy_statement(entry: &TocEntry, encoding: &str) -> String {
    let statement = entry.copy_stmt.as_deref().unwrap_or_default();
    let statement = statement.trim_end().trim_end_matches(';');
    format!("{statement} WITH (ENCODING {})", quote_literal(encoding))
}

enum Current {
    Rows { table: Arc<Table>, lines: Vec<u8> },
    Object(ObjectPart),
}

/// Cuts data into batches and hands them on.
struct Batches {
    out: mpsc::Sender<Batch>,
    now: Option<Current>,
    /// Small large objects, together.
    waiting: Vec<ObjectPart>,
    /// Nobody takes any more.
    stopped: bool,
}

impl Batches {
    fn send(&mut self, batch: Batch) {
        self.stopped |= self.out.blocking_send(batch).is_err();
    }

    #[inline]
    fn bytes(&mut self, mut bytes: &[u8]) {
        match &mut self.now {
            None => {}
            Some(Current::Rows { table, lines }) => {
                if lines.capacity() < BATCH_BYTES {
                    lines.reserve(BATCH_BYTES + BATCH_BYTES / 8 - lines.len());
                }
                // In a row that is longer than a batch, what was searched is not searched again.
                let searched = if lines.len() < BATCH_BYTES { 0 } else { lines.len() };
                lines.extend_from_slice(bytes);
                if lines.len() < BATCH_BYTES {
                    return;
                }
                // A newline within a value is written `\n`, so each one ends a row.
                let Some(last) = memchr::memrchr(b'\n', &lines[searched..]) else { return };
                let rest = lines.split_off(searched + last + 1);
                let lines = std::mem::replace(lines, rest);
                let table = Arc::clone(table);
                self.send(Batch::Rows { table, lines });
            }
            Some(Current::Object(_)) => {
                while !bytes.is_empty() {
                    let Some(Current::Object(part)) = &mut self.now else { return };
                    let room = OBJECT_PART_BYTES - part.bytes.len();
                    let (taken, rest) = bytes.split_at(room.min(bytes.len()));
                    part.bytes.extend_from_slice(taken);
                    bytes = rest;
                    if part.bytes.len() == OBJECT_PART_BYTES {
                        self.close_part();
                    }
                }
            }
        }
    }

    /// The table or large object is complete.
    fn end(&mut self) {
        if matches!(self.now, Some(Current::Object(_))) {
            self.close_part();
            self.now = None;
        } else if let Some(Current::Rows { table, lines }) = self.now.take() {
            self.send(Batch::Rows { table, lines });
        }
    }

    fn close_part(&mut self) {
        let Some(Current::Object(part)) = &mut self.now else { return };
        let bytes = std::mem::take(&mut part.bytes);
        if bytes.is_empty() {
            return;
        }
        let offset = part.offset;
        part.offset += i64::try_from(bytes.len()).expect("a part is small");
        let part = ObjectPart { oid: part.oid, offset, bytes };
        self.waiting.push(part);
        if self.waiting.iter().map(|part| part.bytes.len()).sum::<usize>() >= OBJECT_PART_BYTES {
            self.flush_objects();
        }
    }

    fn flush_objects(&mut self) {
        if !self.waiting.is_empty() {
            let parts = std::mem::take(&mut self.waiting);
            self.send(Batch::Objects(parts));
        }
    }
}
