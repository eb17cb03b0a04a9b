//! Whether a snapshot gets on: a step begins, or bytes come. What stands still for too long has stalled.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SnapshotError;
use crate::domain::observer::{Observer, Severity};

/// Listens to one snapshot, and hands everything on.
pub(super) struct Pulse<'a> {
    observer: &'a dyn Observer,
    database: &'a str,
    idle: Duration,
    last: Mutex<(Instant, String)>,
}

impl<'a> Pulse<'a> {
    /// Stopped when nothing happened for `idle`.
    pub(super) fn new(observer: &'a dyn Observer, database: &'a str, idle: Duration) -> Self {
        Self { observer, database, idle, last: Mutex::new((Instant::now(), String::new())) }
    }

    /// Does `work`, unless it is cancelled or stalls: then it is dropped.
    pub(super) async fn guard<T>(
        &self,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, SnapshotError>>,
    ) -> Result<T, SnapshotError> {
        tokio::select! {
            () = cancel.cancelled() => Err(SnapshotError::Interrupted),
            stalled = self.stopped() => Err(stalled),
            result = work => result,
        }
    }

    /// Waits until nothing happened for too long.
    async fn stopped(&self) -> SnapshotError {
        loop {
            // A limit beyond all time is none.
            let (at, step) = self.last().clone();
            let Some(due) = at.checked_add(self.idle) else { std::future::pending().await };
            if due <= Instant::now() {
                let database = self.database.to_owned();
                return SnapshotError::Stalled { database, step, idle: self.idle };
            }
            tokio::time::sleep_until(due).await;
        }
    }

    fn last(&self) -> MutexGuard<'_, (Instant, String)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Pulse<'_> {
    fn step(&self, name: &str, subject: &str) {
        *self.last() = (Instant::now(), name.to_owned());
        self.observer.step(name, subject);
    }
    fn bytes(&self, done: u64, total: Option<u64>) {
        self.last().0 = Instant::now();
        self.observer.bytes(done, total);
    }
    fn finding(&self, severity: Severity, message: &str) {
        self.observer.finding(severity, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::observer::Silent;

    #[tokio::test(start_paused = true)]
    async fn bytes_and_steps_are_life_and_silence_names_the_step() {
        let pulse = Pulse::new(&Silent, "shop", Duration::from_secs(10));
        let cancel = CancellationToken::new();
        let work = async {
            pulse.step("dumping", "shop");
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                pulse.bytes(1, None);
            }
            tokio::time::sleep(Duration::from_secs(11)).await;
            Ok(())
        };
        let error = pulse.guard(&cancel, work).await.expect_err("it stalls");
        assert_eq!(error.to_string(), "the snapshot of `shop` stood still for 10 s while dumping");
    }
}
