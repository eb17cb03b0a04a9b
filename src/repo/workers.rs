//! Where work that keeps a processor busy is done.
//!
//! In threads of its own, which stand back behind everything else on the host: the server that is backed up, the
//! program that dumps it and the thread that reads the dump hand rows to one another through small buffers, and each
//! waits when the next one does not run. What seals has 48 MiB of room, and catches up.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use tokio::sync::oneshot;

/// How far they stand back: a third of the share that others have, and they are not let in front of them.
const NICENESS: i32 = 5;

type Job = Box<dyn FnOnce() + Send>;

/// Runs closures off the reactor, at most one per core; or, in deterministic tests, at once and in place.
#[derive(Debug, Clone)]
pub enum Workers {
    /// Threads of its own, which end with the last clone.
    Threads(mpsc::Sender<Job>),
    /// The caller's own thread.
    Inline,
}

impl Workers {
    /// One worker for each processor the process may use.
    pub fn threads() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let (jobs, waiting) = mpsc::channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..cores {
            let waiting = Arc::clone(&waiting);
            std::thread::spawn(move || {
                // Of this thread alone, as Linux counts it; where it may not be, it is as before.
                let _ = rustix::process::nice(NICENESS);
                loop {
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    job();
                }
            });
        }
        Self::Threads(jobs)
    }

    /// Runs `work` to its end and gives its result.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Self::Threads(jobs) = self else { return work() };
        let (tell, result) = oneshot::channel();
        let job = Box::new(move || {
            // Who gave the job up does not listen.
            let _ = tell.send(catch_unwind(AssertUnwindSafe(work)));
        });
        jobs.send(job).expect("the threads live as long as a sender");
        match result.await.expect("a job tells its result") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_takes_no_thread_with_it() {
        let workers = Workers::threads();
        for _ in 0..100 {
            let own = workers.clone();
            let panics = tokio::spawn(async move { own.run(|| panic!("on purpose")).await });
            assert!(panics.await.is_err_and(|error| error.is_panic()));
        }
        assert_eq!(workers.run(|| 7).await, 7);
    }

    #[tokio::test]
    async fn they_stand_back_and_nobody_else_does() {
        let niceness = || rustix::process::nice(0).expect("it is told");
        let own = niceness();
        let workers = Workers::threads();
        assert_eq!(workers.run(niceness).await, (own + NICENESS).min(19));
        assert_eq!(niceness(), own);
    }
}
