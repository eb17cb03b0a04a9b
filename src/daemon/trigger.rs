//! Wakes the scheduler. What is due is decided elsewhere, from the catalog: this only rings.
//!
//! tokio-cron-scheduler freezes the offset of a time zone at its first tick, lets a job overlap itself, and forgets what
//! it missed. None of it matters to a job in UTC that does nothing but ring.

use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// How often, with seconds first.
const EVERY: &str = "*/15 * * * * *";

/// Why it does not ring.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TriggerError(#[from] JobSchedulerError);

/// Rings until it is dropped.
pub(super) struct Trigger(JobScheduler);

impl std::fmt::Debug for Trigger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trigger").finish_non_exhaustive()
    }
}

impl Trigger {
    /// Rings `bell`; one that still rings is not rung again.
    pub(super) async fn start(bell: mpsc::Sender<()>) -> Result<Self, TriggerError> {
        let scheduler = JobScheduler::new().await?;
        let ring = move |_, _| {
            let bell = bell.clone();
            let ring: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
                // Full means that somebody is about to look anyway.
                let _ = bell.try_send(());
            });
            ring
        };
        scheduler.add(Job::new_async(EVERY, ring)?).await?;
        scheduler.start().await?;
        Ok(Self(scheduler))
    }

    /// No more.
    pub(super) async fn stop(mut self) {
        let _ = self.0.shutdown().await;
    }
}
