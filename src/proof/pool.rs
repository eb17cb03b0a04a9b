//! A few sessions that work off a list of tables.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::domain::connection::ConnectionInfo;
use crate::postgres::PostgresError;
use crate::postgres::session::Session;

/// What is done with each item of a list.
pub(super) trait Job: Clone + Send + 'static {
    /// An item.
    type Item: Send + 'static;
    /// What it comes to.
    type Output: Send + 'static;

    /// Runs once in each session before its first item.
    fn prepare(&self, session: &Session) -> impl Future<Output = Result<(), PostgresError>> + Send;

    /// Does one item.
    fn run(
        &self,
        session: &Session,
        item: Self::Item,
    ) -> impl Future<Output = Result<Self::Output, PostgresError>> + Send;
}

/// Does all `items` in up to `sessions` sessions of `target`; the outputs come in the items' order.
///
/// The first error ends all of it. Dropping the future ends the sessions.
pub(super) async fn work_off<J: Job>(
    target: &ConnectionInfo,
    sessions: usize,
    job: J,
    items: Vec<J::Item>,
) -> Result<Vec<J::Output>, PostgresError> {
    let total = items.len();
    let queue: VecDeque<(usize, J::Item)> = items.into_iter().enumerate().collect();
    let queue = Arc::new(Mutex::new(queue));
    let next = |queue: &Mutex<VecDeque<_>>| {
        queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    };
    let mut tasks = JoinSet::new();
    for _ in 0..sessions.clamp(1, total.max(1)) {
        let (queue, job, target) = (Arc::clone(&queue), job.clone(), target.clone());
        tasks.spawn(async move {
            let mut done = Vec::new();
            let mut item = next(&queue);
            if item.is_none() {
                return Ok(done);
            }
            let session = Session::connect(&target, "verify").await?;
            job.prepare(&session).await?;
            while let Some((place, now)) = item {
                done.push((place, job.run(&session, now).await?));
                item = next(&queue);
            }
            Ok::<_, PostgresError>(done)
        });
    }
    let mut outputs: Vec<(usize, J::Output)> = Vec::with_capacity(total);
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(done) => outputs.extend(done?),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => unreachable!("nobody aborts these tasks while they are waited for"),
        }
    }
    outputs.sort_by_key(|(place, _)| *place);
    Ok(outputs.into_iter().map(|(_, output)| output).collect())
}
