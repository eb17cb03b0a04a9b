//! Where work that keeps a processor busy is done.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Runs closures off the reactor, at most one per core; or, in deterministic tests, at once and in place.
#[derive(Debug, Clone)]
pub enum Workers {
    /// Threads of the runtime's blocking pool.
    Threads(Arc<Semaphore>),
    /// The caller's own thread.
    Inline,
}

impl Workers {
    /// One worker for each processor the process may use.
    pub fn threads() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self::Threads(Arc::new(Semaphore::new(cores)))
    }

    /// Runs `work` to its end and gives its result.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Inline => work(),
            Self::Threads(permits) => {
                let _permit = permits.acquire().await.expect("the semaphore is never closed");
                match tokio::task::spawn_blocking(work).await {
                    Ok(value) => value,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                }
            }
        }
    }
}
