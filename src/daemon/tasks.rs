//! The life of a run: it waits for its turn, is claimed, works, and is told of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::engine::{Dueness, Finished, Message, queued};
use super::jobs::Job;
use super::listener::Listener;
use super::runs::{State, Work};
use super::teller::JobOfRun;
use super::work::{Claimed, Ended, Held, Place};
use super::{Cause, Tasks};
use crate::domain::audit::RunId;
use crate::domain::failure::FailureKind;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::manifest::Trigger;
use crate::domain::told::Failed;
use crate::ops;
use crate::ops::run::Ending;
use crate::ops::snapshot;
use crate::wiring;

/// How long a snapshot that was asked for waits for another one of the same database.
const WAIT_FOR_ANOTHER: Duration = Duration::from_mins(10);
/// How often it tries.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// What comes of that; none where the daemon goes down first. Both at once is first, too: nothing new is begun then.
async fn unless_draining<T>(
    claims: &CancellationToken,
    coming: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        () = claims.cancelled() => None,
        come = coming => Some(come),
    }
}

/// A turn; none where the daemon goes down first.
async fn turn(tasks: &Tasks, permits: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    unless_draining(&tasks.claims, permits.acquire_owned()).await?.ok()
}

/// Does scheduled jobs: one, or the prunes of several clusters.
pub(super) async fn scheduled(
    tasks: Tasks,
    place: Place,
    permits: Arc<Semaphore>,
    jobs: Vec<Dueness>,
) {
    let Some((first, occurrence)) = jobs.first().cloned() else { return };
    let Some(_permit) = turn(&tasks, permits).await else { return };
    let ambient = place.repository.ambient().clone();
    let id = RunId::new(ambient.now(), ambient.random());
    let listener = Listener::new(tasks.shared.runs.clone(), id.clone());
    let claim = match claimed(&tasks, &place, &first, occurrence, &id).await {
        Ok(None) => return,
        Ok(Some(Err(held))) => return tasks.send(Message::Held(jobs, held)).await,
        Ok(Some(Ok(claim))) => Ok(claim),
        Err(error) => Err(error),
    };
    // The last moment: from here on a drain waits for its end.
    if tasks.claims.is_cancelled() {
        return;
    }
    let trigger = (first.work == Work::Snapshot).then_some(Trigger::Scheduled);
    tasks.shared.runs.add(queued(&id, &first, trigger, ambient.now()));
    let of_run: Vec<JobOfRun> = jobs.iter().cloned().map(|(job, at)| (job, Some(at))).collect();
    let began = Instant::now();
    let begun = tasks.begun(&place, &id, &of_run, &Cause::Schedule);
    let ended = match claim {
        Err(error) => Ended::Failed(error, None),
        Ok(Claimed { turn, claim: _claim }) => {
            let clusters = jobs.iter().map(|(job, _)| job.cluster.clone()).collect();
            let (place, job) = (place.clone(), first.clone());
            let id = id.clone();
            done(move || work(place, id, job, Cause::Schedule, clusters, turn, listener)).await
        }
    };
    tasks.over(&place, begun, &of_run, began, &ended).await;
    let finished = Finished { id, jobs, began, ended };
    tasks.send(Message::Ended(Box::new(finished))).await;
}

/// What keeps others away from the job, or why it need not be begun; none where the daemon goes down first.
async fn claimed(
    tasks: &Tasks,
    place: &Place,
    job: &Job,
    occurrence: Timestamp,
    id: &RunId,
) -> Result<Option<Result<Claimed, Held>>, Failed> {
    let listener = Listener::new(tasks.shared.runs.clone(), id.clone());
    let (claims, place, job) = (tasks.claims.clone(), place.clone(), job.clone());
    let claiming = move || async move {
        let claiming = Box::pin(place.claim(&job, occurrence, &listener));
        unless_draining(&claims, claiming).await
    };
    caught(claiming).await?.transpose()
}

/// Takes a snapshot that somebody asked for.
pub(super) async fn asked(
    tasks: Tasks,
    place: Place,
    permits: Arc<Semaphore>,
    id: RunId,
    job: Job,
    cause: Cause,
) {
    let permit = turn(&tasks, permits).await;
    let began = Instant::now();
    let of_run = [(job, None)];
    let begun = tasks.begun(&place, &id, &of_run, &cause);
    let ended = if permit.is_some() {
        patiently(&tasks, &place, &id, &of_run[0].0, &cause, began).await
    } else {
        Ended::Failed(Failed::interrupted(), None)
    };
    tasks.over(&place, begun, &of_run, began, &ended).await;
    let finished = Finished { id, jobs: Vec::new(), began, ended };
    tasks.send(Message::Ended(Box::new(finished))).await;
}

/// A dump of that database that still runs is waited for.
async fn patiently(
    tasks: &Tasks,
    place: &Place,
    id: &RunId,
    job: &Job,
    cause: &Cause,
    began: Instant,
) -> Ended {
    loop {
        let listener = Listener::new(tasks.shared.runs.clone(), id.clone());
        let (place, run, job, cause) = (place.clone(), id.clone(), job.clone(), cause.clone());
        let ended = done(move || work(place, run, job, cause, Vec::new(), None, listener)).await;
        let busy = matches!(&ended, Ended::Failed(error, _) if error.kind == FailureKind::Busy);
        if !busy || began.elapsed() > WAIT_FOR_ANOTHER {
            return ended;
        }
        let waits = "waiting for another snapshot of this database";
        tasks.shared.runs.update(id, |run| waits.clone_into(&mut run.step));
        tokio::select! {
            () = tokio::time::sleep(TRY_AGAIN) => {}
            () = tasks.claims.cancelled() => return ended,
        }
    }
}

async fn work(
    place: Place,
    id: RunId,
    job: Job,
    cause: Cause,
    clusters: Vec<ClusterName>,
    turn: Option<snapshot::Turn>,
    listener: Listener,
) -> Ended {
    match job.work {
        Work::Snapshot => place.snapshot(id, &job, cause, turn, &listener).await,
        Work::Verify => place.verify(&job, &listener).await,
        Work::Prune => place.prune(id, &clusters, cause.origin(), &listener).await,
    }
}

async fn done<F: Future<Output = Ended>>(work: impl FnOnce() -> F + Send + 'static) -> Ended {
    caught(work).await.unwrap_or_else(|error| Ended::Failed(error, None))
}

/// On a thread of its own, of which there are as many as runs at once. One that panics has failed; the daemon goes on.
async fn caught<T: Send + 'static, F: Future<Output = T>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T, Failed> {
    let runtime = Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work()));
    done.await.map_err(|_| Failed::panicked())
}

impl Tasks {
    /// A run of these jobs begins.
    fn begun(&self, place: &Place, id: &RunId, jobs: &[JobOfRun], cause: &Cause) -> ops::run::Run {
        let (origin, job) = (cause.origin(), &jobs[0].0);
        tracing::info!(run = %id, origin = origin.as_str(), "{} begins", names(jobs));
        self.teller.begun(&place.settings, jobs);
        let now = place.repository.ambient().now();
        self.shared.runs.update(id, |run| {
            run.state = State::Running;
            run.started_at = Some(now);
        });
        let (cluster, database) = (Some(&job.cluster), job.database.as_deref());
        let (verb, by) = (job.work.as_str(), wiring::actor(origin));
        let repository = &place.repository;
        let mut begun =
            ops::run::Run::begin_as(id.clone(), repository, verb, cluster, database, &by);
        for (job, _) in jobs {
            begun.concerns(&job.cluster);
        }
        begun
    }

    /// A run has ended: it is logged, kept in the audit trail, shown and told. A scheduled one that somebody else was at
    /// has not failed (0011) and is tried again: it is as if it had not begun.
    async fn over(
        &self,
        place: &Place,
        begun: ops::run::Run,
        jobs: &[JobOfRun],
        began: Instant,
        ended: &Ended,
    ) {
        let id = begun.id().clone();
        let (ms, names) = (began.elapsed().as_millis(), names(jobs));
        let scheduled = jobs.iter().any(|(_, occurrence)| occurrence.is_some());
        let ending = match ended {
            Ended::Done(_, backup) => {
                let told = backup.as_ref().map(ToString::to_string);
                tracing::info!(run = %id, backup = told, ms, "{names} done");
                about(Ending::succeeded(), backup.as_ref())
            }
            Ended::Failed(error, _) if error.kind == FailureKind::Busy && scheduled => {
                tracing::info!(run = %id, ms, "{names} waits: {}", error.message);
                return self.shared.runs.forget(&id);
            }
            Ended::Failed(error, backup) => {
                let (exit_code, hint) = (error.kind.exit_code(), error.hint.as_deref());
                let told = &error.message;
                tracing::error!(run = %id, exit_code, hint, ms, "{names} failed: {told}");
                about(Ending::failed(error), backup.as_ref())
            }
        };
        let listener = Listener::new(self.shared.runs.clone(), id.clone());
        begun.end(&place.repository, ending, &listener).await;
        let now = place.repository.ambient().now();
        self.shared.runs.update(&id, |run| {
            run.finished_at = Some(now);
            match ended {
                Ended::Done(document, _) => {
                    run.state = State::Succeeded;
                    run.result = Some(document.clone());
                }
                Ended::Failed(error, _) => {
                    run.state = State::Failed;
                    run.error = Some(error.json()["error"].clone());
                }
            }
        });
        if let Some(run) = self.shared.runs.get(&id) {
            self.teller.over(&place.settings, jobs, &run, ended);
        }
    }
}

/// `prune erp, prune main`.
fn names(jobs: &[JobOfRun]) -> String {
    jobs.iter().map(|(job, _)| job.name()).collect::<Vec<_>>().join(", ")
}

fn about(ending: Ending, backup: Option<&BackupId>) -> Ending {
    match backup {
        Some(backup) => ending.about(backup),
        None => ending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_goes_down_begins_nothing_even_if_its_turn_has_come() {
        let claims = CancellationToken::new();
        assert_eq!(unless_draining(&claims, async { 7 }).await, Some(7));
        let stop = async { claims.cancel() };
        let (waited, ()) =
            tokio::join!(unless_draining(&claims, std::future::pending::<()>()), stop);
        assert_eq!(waited, None);
        // Chance would choose the turn in one of two.
        for _ in 0..64 {
            assert_eq!(unless_draining(&claims, async { 7 }).await, None);
        }
    }
}
