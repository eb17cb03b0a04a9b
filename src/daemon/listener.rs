//! Listens to a run: its step is shown, its findings are logged.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::runs::Runs;
use crate::domain::audit::RunId;
use crate::domain::observer::{Observer, Severity};

/// Bytes are told that often: whoever looks does not look more often, and every telling wakes those who wait.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Listens to one run.
#[derive(Debug)]
pub(super) struct Listener {
    runs: Runs,
    id: RunId,
    told: Mutex<Option<Instant>>,
}

impl Listener {
    pub(super) fn new(runs: Runs, id: RunId) -> Self {
        Self { runs, id, told: Mutex::new(None) }
    }

    fn is_time(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if due {
            *told = Some(Instant::now());
        }
        due
    }
}

impl Observer for Listener {
    fn step(&self, name: &str, subject: &str) {
        tracing::info!(run = %self.id, subject, "{name}");
        self.runs.update(&self.id, |run| {
            name.clone_into(&mut run.step);
            run.bytes = 0;
        });
    }

    fn bytes(&self, done: u64, _total: Option<u64>) {
        if self.is_time() {
            self.runs.update(&self.id, |run| run.bytes = done);
        }
    }

    fn finding(&self, severity: Severity, message: &str) {
        match severity {
            Severity::Notice => tracing::info!(run = %self.id, "{message}"),
            Severity::Warning => tracing::warn!(run = %self.id, "{message}"),
        }
    }
}
