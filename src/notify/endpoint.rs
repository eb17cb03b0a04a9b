//! One endpoint: its queue, the task that empties it in order, and what the log hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Limits;
use super::http::{Client, Content, Place, Refused};

/// Something to be delivered.
pub(super) struct Letter {
    place: Place,
    content: Content,
    told: Instant,
}

impl Letter {
    /// Told just now.
    pub(super) fn new(place: Place, content: Content) -> Self {
        Self { place, content, told: Instant::now() }
    }
}

/// The way in.
pub(super) struct Endpoint {
    queue: mpsc::Sender<Letter>,
    streak: Arc<Streak>,
}

impl Endpoint {
    /// With a task that ends when the endpoint is dropped and its queue is empty, or at `stop`.
    pub(super) fn start(
        what: String,
        client: Arc<Client>,
        limits: Limits,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(limits.queue.max(1));
        let streak = Arc::new(Streak {
            what,
            keep: limits.keep,
            failing: AtomicBool::new(false),
            dropped: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
        });
        let postman = Postman { client, limits, streak: streak.clone() };
        let stop = stop.clone();
        tasks.spawn(async move {
            if stop.run_until_cancelled(postman.deliver_all(waiting)).await.is_none() {
                postman.streak.given_up();
            }
        });
        Self { queue, streak }
    }

    /// Takes a letter, or drops it where too many wait already.
    pub(super) fn put(&self, letter: Letter) {
        self.streak.pending.fetch_add(1, Ordering::Relaxed);
        match self.queue.try_send(letter) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.streak.failed("too many messages wait for it");
                self.streak.dropped();
            }
            Err(TrySendError::Closed(_)) => self.streak.dropped(),
        }
    }

    /// Whether nothing waits behind what is under way.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.queue.capacity() == self.queue.max_capacity()
    }
}

struct Postman {
    client: Arc<Client>,
    limits: Limits,
    streak: Arc<Streak>,
}

impl Postman {
    async fn deliver_all(&self, mut waiting: mpsc::Receiver<Letter>) {
        while let Some(letter) = waiting.recv().await {
            if self.is_delivered(&letter).await {
                self.streak.delivered();
            } else {
                self.streak.dropped();
            }
        }
    }

    /// Tries until it is taken, refused for good, or too old.
    async fn is_delivered(&self, letter: &Letter) -> bool {
        let Limits { keep, longest_pause, .. } = self.limits;
        let mut pause = self.limits.first_pause;
        while letter.told.elapsed() < keep {
            match self.client.send(&letter.place, &letter.content).await {
                Ok(()) => return true,
                Err(Refused::ForGood(why)) => {
                    self.streak.failed(&why);
                    return false;
                }
                Err(Refused::ForNow(why, asked)) => {
                    self.streak.failed(&why);
                    let wait = pause.max(asked.unwrap_or_default()).min(longest_pause);
                    // Not slept through to the end: those behind it may have more time.
                    if letter.told.elapsed() + wait >= keep {
                        return false;
                    }
                    tokio::time::sleep(wait).await;
                    pause = pause.saturating_mul(2);
                }
            }
        }
        self.streak.failed("messages wait too long for it");
        false
    }
}

/// For how long it has been failing, and so what has been said of it.
struct Streak {
    what: String,
    keep: Duration,
    failing: AtomicBool,
    /// Since it fails.
    dropped: AtomicUsize,
    /// Told, and neither delivered nor dropped yet.
    pending: AtomicUsize,
}

impl Streak {
    /// One warning for as long as it fails.
    fn failed(&self, why: &str) {
        let Self { what, keep, .. } = self;
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!("{what}: {why}");
        } else {
            let minutes = keep.as_secs_f64() / 60.0;
            tracing::warn!(
                "{what} cannot be told: {why}; each message is tried for {minutes:.0} min"
            );
        }
    }

    fn dropped(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        self.dropped.fetch_add(1, Ordering::Relaxed);
        tracing::info!("{}: a message was dropped", self.what);
    }

    fn delivered(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        if self.failing.swap(false, Ordering::Relaxed) {
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            tracing::info!("{} answers again; {dropped} messages were dropped", self.what);
        }
    }

    /// At the end of the process.
    fn given_up(&self) {
        let pending = self.pending.load(Ordering::Relaxed);
        if pending > 0 {
            tracing::warn!("{}: {pending} messages are dropped, pgkeep ends", self.what);
        }
    }
}
