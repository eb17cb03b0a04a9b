//! When something is looked at again.

use std::time::{Duration, Instant};

/// How soon a look that failed is made again.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// A look that is made again and again.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// When the last one ended; none before the first.
    pub(super) at: Option<Instant>,
    pub(super) under_way: bool,
    /// Sooner than its time.
    pub(super) wanted: bool,
}

impl Again {
    /// Whether to begin one now.
    pub(super) fn is_due(&self, every: Duration) -> bool {
        let old = self.at.is_none_or(|at| at.elapsed() >= every);
        !self.under_way && (self.wanted || old)
    }

    pub(super) fn begin(&mut self) {
        (self.under_way, self.wanted) = (true, false);
    }

    /// One that failed is old sooner.
    pub(super) fn end(&mut self, every: Duration, good: bool) {
        self.under_way = false;
        let now = Instant::now();
        let stale = now.checked_sub(every.saturating_sub(AFTER_FAILURE));
        self.at = if good { Some(now) } else { stale.or(Some(now)) };
    }
}
