//! Connections: how many, and for how long they may do nothing. `axum::serve` has no such limits, and a client that
//! sends its request byte by byte (slow-loris), or never reads its answer, would hold a place for ever.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context as Task, Poll};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{Context, routes};

/// Connections at once; more wait with the kernel. Prometheus, a browser, a probe and dozens of waiting pipelines
/// fit, and their memory is nothing.
const CONNECTIONS_MAX: usize = 64;
/// A request's head, or the next request of a kept connection, must be there within this time: heads are small, and
/// a scrape interval is longer anyway.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// A body must be there within this time: it is 64 KiB at most.
const BODY_MAX: Duration = Duration::from_secs(10);
/// An answer of which nobody takes a byte for so long is given up.
const STILL_MAX: Duration = Duration::from_secs(30);
/// All headers of a request together; ours are short, and cookies of other services on `localhost` come along.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// How long answers may still go out once the daemon ends; systemd waits 90 s before it kills.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Until the next try after a connection could not be taken (no file descriptor left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// The limits above; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) head: Duration,
    pub(super) body: Duration,
    pub(super) still: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: CONNECTIONS_MAX, head: HEAD_MAX, body: BODY_MAX, still: STILL_MAX }
    }
}

/// Takes connections until the daemon ends.
pub(super) async fn accept(listener: TcpListener, context: Arc<Context>) {
    let tasks = TaskTracker::new();
    tokio::select! {
        () = context.stop.cancelled() => {}
        () = take(&listener, &context, &tasks) => {}
    }
    drop(listener);
    tasks.close();
    // What is left then belongs to clients that do not read; it ends with the process.
    drop(tokio::time::timeout(DRAIN_MAX, tasks.wait()).await);
}

/// A place first, and then a connection for it: those that find none wait with the kernel.
async fn take(listener: &TcpListener, context: &Arc<Context>, tasks: &TaskTracker) {
    let router = routes::router(Arc::clone(context));
    let places = Arc::new(Semaphore::new(context.limits.connections));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = serve(stream, router.clone(), Arc::clone(context));
                tasks.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("a connection was not taken: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, until either side ends it or it stands still.
async fn serve(stream: TcpStream, router: Router, context: Arc<Context>) {
    let pulse = Arc::new(Pulse::new());
    let inner = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let working = Working::begin(&pulse);
        let answer = inner.call(request);
        async move {
            let answer = answer.await;
            drop(working);
            answer
        }
    });
    let io = TokioIo::new(Watched { stream, pulse: Arc::clone(&pulse) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(context.limits.head)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut stopping = false;
    let mut still = pin!(pulse.stands_still(context.limits.still));
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("a connection ended early: {error}");
                }
                return;
            }
            () = still.as_mut() => {
                tracing::debug!("a connection that stood still was given up");
                return;
            }
            () = context.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// When bytes last moved on a connection, and whether an answer is being thought about: then nothing has to move.
struct Pulse {
    origin: Instant,
    moved_ms: AtomicU64,
    working: AtomicUsize,
}

impl Pulse {
    fn new() -> Self {
        Self { origin: Instant::now(), moved_ms: AtomicU64::new(0), working: AtomicUsize::new(0) }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn beat(&self) {
        self.moved_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Returns once nothing has moved for that long and nobody works on an answer.
    async fn stands_still(&self, limit: Duration) {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        loop {
            tokio::time::sleep(limit / 4).await;
            let idle = self.elapsed_ms().saturating_sub(self.moved_ms.load(Ordering::Relaxed));
            if idle > limit_ms && self.working.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

/// An answer is being thought about for as long as this lives.
struct Working(Arc<Pulse>);

impl Working {
    fn begin(pulse: &Arc<Pulse>) -> Self {
        pulse.working.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        // An answer that took long has its whole time to be read.
        self.0.beat();
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that tells when its bytes move.
struct Watched {
    stream: TcpStream,
    pulse: Arc<Pulse>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(task, buffer);
        if buffer.filled().len() > before {
            self.pulse.beat();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(task, bytes);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.pulse.beat();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(task, slices);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            self.pulse.beat();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
