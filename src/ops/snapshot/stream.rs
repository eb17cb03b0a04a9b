//! A dump on its way from a pipe to chunks: read, counted, cut and hashed on a thread of its own.
//!
//! The thread blocks where the pipe blocks, and ends when the pipe ends or nobody takes its chunks any
//! more: dropping the stream, and with it the child program, is enough to stop it.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::Stream;
use tokio::sync::{mpsc, oneshot};

use crate::codec::cut::{ChunkParams, CutError, cut};
use crate::codec::hash::ChunkKey;
use crate::domain::archive::{ArchiveError, ArchiveReader, ArchiveSummary};
use crate::repo::chunks::PlainChunk;

/// Chunks that may wait for the other side: enough to bridge a moment, little enough to hold.
const QUEUE: usize = 4;
/// By itself `pg_dump` writes 4 KiB at a time ([`ChildSpec::buffered_stdout`](crate::postgres::child::ChildSpec::buffered_stdout)), and
/// waking a reader for each costs both of them more than the bytes do. So what brought less than this is given a moment to
/// become more, in a pipe that holds a megabyte.
const WORTHWHILE: usize = 64 << 10;
/// Long enough for that at a hundred megabytes a second, and no time at all for whoever waits for a small dump.
const PAUSE: Duration = Duration::from_micros(500);

/// What the thread found when the dump had ended.
pub(super) type Summary = oneshot::Receiver<Result<ArchiveSummary, ArchiveError>>;

/// The chunks of a stream.
pub(super) struct ChunkStream(mpsc::Receiver<io::Result<PlainChunk>>);

impl Stream for ChunkStream {
    type Item = io::Result<PlainChunk>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Cuts what `pipe` gives; what comes of counting it arrives after the last chunk.
pub(super) fn archive(
    pipe: impl Read + Send + 'static,
    params: ChunkParams,
    key: ChunkKey,
) -> (ChunkStream, Summary) {
    let (chunks, stream) = mpsc::channel(QUEUE);
    let (tell, summary) = oneshot::channel();
    std::thread::spawn(move || {
        let mut tee = Counted { pipe, reader: ArchiveReader::counting(), refused: None };
        if send_all(&mut tee, params, &key, &chunks) {
            let found = match tee.refused {
                Some(error) => Err(error),
                None => tee.reader.finish(),
            };
            // Nobody listens when the snapshot was given up.
            let _ = tell.send(found);
        }
    });
    (ChunkStream(stream), summary)
}

/// Cuts bytes that are there already.
pub(super) fn bytes(
    bytes: Vec<u8>,
    params: ChunkParams,
    key: ChunkKey,
) -> impl Stream<Item = io::Result<PlainChunk>> + Unpin {
    let chunks = cut(io::Cursor::new(bytes), params, &key);
    futures::stream::iter(chunks.map(move |chunk| plain(chunk, &key)))
}

/// Whether everything was read and taken.
fn send_all(
    tee: &mut Counted<impl Read>,
    params: ChunkParams,
    key: &ChunkKey,
    chunks: &mpsc::Sender<io::Result<PlainChunk>>,
) -> bool {
    for chunk in cut(tee, params, key) {
        let chunk = plain(chunk, key);
        let failed = chunk.is_err();
        if chunks.blocking_send(chunk).is_err() || failed {
            return false;
        }
    }
    true
}

fn plain(chunk: Result<Vec<u8>, CutError>, key: &ChunkKey) -> io::Result<PlainChunk> {
    let bytes = chunk.map_err(io::Error::other)?;
    let hash = key.hash(&bytes);
    Ok(PlainChunk { bytes, hash })
}

/// Lets an archive through, and counts its rows by the way.
struct Counted<R> {
    pipe: R,
    reader: ArchiveReader<crate::domain::archive::RowCounter>,
    /// What was wrong with the archive. The bytes still pass: if `pg_dump` failed, its own exit code and
    /// message say more than the end of its output.
    refused: Option<ArchiveError>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.pipe.read(buffer)?;
        if (1..WORTHWHILE).contains(&count) {
            std::thread::sleep(PAUSE);
        }
        if self.refused.is_none() {
            self.refused = self.reader.push(&buffer[..count]).err();
        }
        Ok(count)
    }
}
