//! The life of a run: it waits for its turn, is claimed, works, and is told of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::engine::{Finished, Message, queued};
use super::jobs::Job;
use super::listener::Listener;
use super::runs::{State, Work};
use super::work::{Ended, Held, Place};
use super::{Origin, Tasks};
use crate::domain::audit::RunId;
use crate::domain::failure::FailureKind;
use crate::domain::id::ClusterName;
use crate::domain::manifest::Trigger;
use crate::domain::told::Failed;

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
    jobs: Vec<Job>,
    occurrence: Timestamp,
) {
    let Some(first) = jobs.first().cloned() else { return };
    let Some(_permit) = turn(&tasks, permits).await else { return };
    let ambient = place.repository.ambient().clone();
    let id = RunId::new(ambient.now(), ambient.random());
    let listener = Listener::new(tasks.shared.runs.clone(), id.clone());
    let claim = match place.claim(&first, occurrence, &listener).await {
        Ok(claim) => Ok(claim),
        Err(Held::Failed(error)) => Err(error),
        Err(held) => return tasks.send(Message::Held(jobs, occurrence, held)).await,
    };
    tasks.shared.runs.add(queued(&id, &first, Some(Trigger::Scheduled), ambient.now()));
    let clusters: Vec<ClusterName> = jobs.iter().map(|job| job.cluster.clone()).collect();
    let began = Instant::now();
    tasks.begun(&place, &id, &first, &Origin::Schedule).await;
    let ended = match claim {
        Err(error) => Ended::Failed(error, None),
        Ok(_claim) => {
            let work = work(place.clone(), first.clone(), Origin::Schedule, clusters, listener);
            caught(work).await
        }
    };
    tasks.over(&place, &id, &first, &Origin::Schedule, began, &ended).await;
    let finished = Finished { id, jobs, occurrence: Some(occurrence), began, ended };
    tasks.send(Message::Ended(Box::new(finished))).await;
}

/// Takes a snapshot that somebody asked for.
pub(super) async fn asked(
    tasks: Tasks,
    place: Place,
    permits: Arc<Semaphore>,
    id: RunId,
    job: Job,
    origin: Origin,
) {
    let permit = turn(&tasks, permits).await;
    let began = Instant::now();
    tasks.begun(&place, &id, &job, &origin).await;
    let ended = if permit.is_some() {
        patiently(&tasks, &place, &id, &job, &origin, began).await
    } else {
        Ended::Failed(Failed::interrupted(), None)
    };
    tasks.over(&place, &id, &job, &origin, began, &ended).await;
    let finished = Finished { id, jobs: Vec::new(), occurrence: None, began, ended };
    tasks.send(Message::Ended(Box::new(finished))).await;
}

/// A dump of that database that still runs is waited for.
async fn patiently(
    tasks: &Tasks,
    place: &Place,
    id: &RunId,
    job: &Job,
    origin: &Origin,
    began: Instant,
) -> Ended {
    loop {
        let listener = Listener::new(tasks.shared.runs.clone(), id.clone());
        let work = work(place.clone(), job.clone(), origin.clone(), Vec::new(), listener);
        let ended = caught(work).await;
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
    job: Job,
    origin: Origin,
    clusters: Vec<ClusterName>,
    listener: Listener,
) -> Ended {
    match (job.work, &job.database) {
        (Work::Snapshot, Some(database)) => {
            let (trigger, labels) = match origin {
                Origin::Schedule => (Trigger::Scheduled, std::collections::BTreeMap::new()),
                Origin::Api { trigger, labels } => (trigger, labels),
            };
            place.snapshot(&job.cluster, database, trigger, labels, &listener).await
        }
        (Work::Verify, _) => place.verify(&job, &listener).await,
        _ => place.prune(&clusters, &listener).await,
    }
}

/// A run that panics has failed; the daemon goes on.
async fn caught(work: impl Future<Output = Ended> + Send + 'static) -> Ended {
    tokio::spawn(work).await.unwrap_or_else(|_| {
        let error = Failed {
            kind: FailureKind::Unexpected,
            message: "the run panicked".to_owned(),
            hint: Some("the log has its words; please report them".to_owned()),
        };
        Ended::Failed(error, None)
    })
}

impl Tasks {
    /// A run begins.
    async fn begun(&self, place: &Place, id: &RunId, job: &Job, origin: &Origin) {
        tracing::info!(run = %id, origin = origin.as_str(), "{} begins", job.name());
        let now = place.repository.ambient().now();
        self.shared.runs.update(id, |run| {
            run.state = State::Running;
            run.started_at = Some(now);
        });
    }

    /// A run has ended.
    async fn over(
        &self,
        place: &Place,
        id: &RunId,
        job: &Job,
        _origin: &Origin,
        began: Instant,
        ended: &Ended,
    ) {
        let took = began.elapsed();
        match ended {
            Ended::Done(_, backup) => {
                let backup = backup.as_ref().map(ToString::to_string);
                tracing::info!(run = %id, backup, ms = took.as_millis(), "{} done", job.name());
            }
            Ended::Failed(error, _) => {
                let code = error.kind.exit_code();
                let hint = error.hint.as_deref();
                let told = &error.message;
                tracing::error!(run = %id, exit_code = code, hint, "{} failed: {told}", job.name());
            }
        }
        let now = place.repository.ambient().now();
        self.shared.runs.update(id, |run| {
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
    }
}
