//! The life of a run: it waits for its turn, is claimed, works, and is told of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::engine::{Dueness, Finished, Message, queued};
use super::jobs::Job;
use super::listener::Listener;
use super::runs::{State, Work};
use super::work::{Ended, Place};
use super::{Cause, Tasks};
use crate::domain::audit::RunId;
use crate::domain::failure::FailureKind;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::manifest::Trigger;
use crate::domain::told::Failed;
use crate::ops;
use crate::ops::run::Ending;
use crate::wiring;

/// How long a snapshot that was asked for waits for another one of the same database.
const WAIT_FOR_ANOTHER: Duration = Duration::from_mins(10);
/// How often it tries.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// A turn; none where the daemon goes down first.
async fn turn(tasks: &Tasks, permits: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        permit = permits.acquire_owned() => permit.ok(),
        () = tasks.claims.cancelled() => None,
    }
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
    let claim = match place.claim(&first, occurrence, &listener).await {
        Ok(Err(held)) => return tasks.send(Message::Held(jobs, held)).await,
        Ok(Ok(claim)) => Ok(claim),
        Err(error) => Err(error),
    };
    let trigger = (first.work == Work::Snapshot).then_some(Trigger::Scheduled);
    tasks.shared.runs.add(queued(&id, &first, trigger, ambient.now()));
    let clusters: Vec<ClusterName> = jobs.iter().map(|(job, _)| job.cluster.clone()).collect();
    let began = Instant::now();
    let mut begun = tasks.begun(&place, &id, &first, &Cause::Schedule);
    for cluster in &clusters {
        begun.concerns(cluster);
    }
    let ended = match claim {
        Err(error) => Ended::Failed(error, None),
        Ok(_claim) => {
            let (place, job) = (place.clone(), first.clone());
            let id = id.clone();
            caught(move || work(place, id, job, Cause::Schedule, clusters, listener)).await
        }
    };
    tasks.over(&place, begun, &first, Some(occurrence), began, &ended).await;
    let finished = Finished { id, jobs, began, ended };
    tasks.send(Message::Ended(Box::new(finished))).await;
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
    let begun = tasks.begun(&place, &id, &job, &cause);
    let ended = if permit.is_some() {
        patiently(&tasks, &place, &id, &job, &cause, began).await
    } else {
        Ended::Failed(Failed::interrupted(), None)
    };
    tasks.over(&place, begun, &job, None, began, &ended).await;
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
        let ended = caught(move || work(place, run, job, cause, Vec::new(), listener)).await;
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
    listener: Listener,
) -> Ended {
    let origin = cause.origin();
    match (job.work, &job.database) {
        (Work::Snapshot, Some(database)) => {
            let (trigger, labels) = match cause {
                Cause::Schedule => (Trigger::Scheduled, std::collections::BTreeMap::new()),
                Cause::Api { trigger, labels } => (trigger, labels),
            };
            place.snapshot(id, &job.cluster, database, trigger, labels, &listener).await
        }
        (Work::Verify, _) => place.verify(&job, &listener).await,
        _ => place.prune(id, &clusters, origin, &listener).await,
    }
}

/// On a thread of its own, of which there are as many as runs at once. One that panics has failed; the daemon goes on.
async fn caught<F: Future<Output = Ended>>(work: impl FnOnce() -> F + Send + 'static) -> Ended {
    let runtime = Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work()));
    done.await.unwrap_or_else(|_| Ended::Failed(Failed::panicked(), None))
}

impl Tasks {
    /// A run begins.
    fn begun(&self, place: &Place, id: &RunId, job: &Job, cause: &Cause) -> ops::run::Run {
        let origin = cause.origin();
        tracing::info!(run = %id, origin = origin.as_str(), "{} begins", job.name());
        if matches!(cause, Cause::Schedule) {
            self.teller.begun(&place.settings, job);
        }
        let now = place.repository.ambient().now();
        self.shared.runs.update(id, |run| {
            run.state = State::Running;
            run.started_at = Some(now);
        });
        let (cluster, database) = (Some(&job.cluster), job.database.as_deref());
        let (verb, by) = (job.work.as_str(), wiring::actor(origin));
        ops::run::Run::begin_as(id.clone(), &place.repository, verb, cluster, database, &by)
    }

    /// A run has ended: it is logged, kept in the audit trail, shown and told.
    async fn over(
        &self,
        place: &Place,
        begun: ops::run::Run,
        job: &Job,
        occurrence: Option<Timestamp>,
        began: Instant,
        ended: &Ended,
    ) {
        let id = begun.id().clone();
        let ms = began.elapsed().as_millis();
        let ending = match ended {
            Ended::Done(_, backup) => {
                let told = backup.as_ref().map(ToString::to_string);
                tracing::info!(run = %id, backup = told, ms, "{} done", job.name());
                about(Ending::succeeded(), backup.as_ref())
            }
            Ended::Failed(error, backup)
                if error.kind == FailureKind::Busy && occurrence.is_some() =>
            {
                tracing::info!(run = %id, ms, "{} waits: {}", job.name(), error.message);
                about(Ending::failed(error), backup.as_ref())
            }
            Ended::Failed(error, backup) => {
                let (exit_code, hint) = (error.kind.exit_code(), error.hint.as_deref());
                let told = &error.message;
                tracing::error!(run = %id, exit_code, hint, ms, "{} failed: {told}", job.name());
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
            self.teller.over(&place.settings, job, occurrence, &run, ended);
        }
    }
}

fn about(ending: Ending, backup: Option<&BackupId>) -> Ending {
    match backup {
        Some(backup) => ending.about(backup),
        None => ending,
    }
}
