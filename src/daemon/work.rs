//! One run: the claim, a last look whether somebody else has done it, and the verb.
//!
//! Two daemons on one configuration find the same things due. Whoever gets the advisory lock of the job looks at the
//! catalog again before he begins: what the other one did while he waited for his turn is not done twice. A prune or a
//! verification whose server is out of reach goes on without a claim, since doing it twice does no harm.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::Cause;
use super::jobs::Job;
use super::runs::Work;
use crate::config::{ClusterSettings, Settings};
use crate::domain::audit::{Origin, RunId};
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::manifest::Trigger;
use crate::domain::observer::{Observer, Severity, Silent};
use crate::domain::schedule;
use crate::domain::told::Failed;
use crate::domain::verification::Outcome;
use crate::ops::claim::{self, Claim};
use crate::ops::prune::{self, PruneOptions};
use crate::ops::snapshot::{self, SnapshotError, SnapshotOptions, Turn};
use crate::ops::verify::{self, Choice, VerifyError};
use crate::postgres::pooler;
use crate::repo::Repository;
use crate::repo::catalog::{Entry, Filter};
use crate::wiring::{self, Proving};

/// What a run works with.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) settings: Arc<Settings>,
    pub(super) repository: Repository,
    /// Backups that were seen far in the future: they stand for no run.
    pub(super) ahead: Arc<HashSet<BackupId>>,
    /// Ends it.
    pub(super) cancel: CancellationToken,
}

/// What became of a run.
#[derive(Debug)]
pub(super) enum Ended {
    /// Done: the document of the verb, and the backup that it is about.
    Done(Json, Option<BackupId>),
    /// Failed. The backup, where it is about one that is there.
    Failed(Failed, Option<BackupId>),
}

/// What keeps others away from a job for as long as it is held.
#[derive(Debug)]
pub(super) struct Claimed {
    /// Other daemons; none where the server is out of reach and the job does not need it.
    pub(super) claim: Option<Claim>,
    /// Whoever else takes snapshots of that database.
    pub(super) turn: Option<Turn>,
}

/// Why a scheduled run need not be begun.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    /// Somebody else is at it.
    Busy,
    /// Somebody else has done it.
    Done,
}

fn filter(job: &Job) -> Filter {
    Filter { cluster: Some(job.cluster.clone()), database: job.database.clone() }
}

fn failed(error: &dyn Failure) -> Failed {
    Failed::of(error)
}

impl Place {
    fn cluster(&self, name: &ClusterName) -> Result<&ClusterSettings, Failed> {
        self.settings.clusters.get(name).ok_or_else(|| {
            let hint = "`pgkeep config show` lists the clusters that are configured";
            Failed::usage(format!("cluster `{name}` is not configured"), hint)
        })
    }

    fn connection(&self, name: &ClusterName) -> Result<ConnectionInfo, Failed> {
        let cluster = self.cluster(name)?;
        wiring::connection(&self.settings, name, cluster).map_err(|error| failed(&error))
    }

    /// Takes the job for this process, if it is still to be done for that time of its schedule.
    pub(super) async fn claim(
        &self,
        job: &Job,
        occurrence: Timestamp,
        observer: &dyn Observer,
    ) -> Result<Result<Claimed, Held>, Failed> {
        let claim = match self.try_claim(job, observer).await {
            Ok(None) => return Ok(Err(Held::Busy)),
            Ok(claim) => claim,
            // Nothing can be dumped without the server; the rest can be done.
            Err(error) if job.work == Work::Snapshot => return Err(error),
            Err(error) => {
                let told = format!("goes on without a lock against others: {}", error.message);
                observer.finding(Severity::Notice, &told);
                None
            }
        };
        let turn = match self.turn(job).await? {
            Err(held) => return Ok(Err(held)),
            Ok(turn) => turn,
        };
        // At the last: whoever had the claim or the turn before may have done it.
        let is_done = self.is_done(job, occurrence).await?;
        Ok(if is_done { Err(Held::Done) } else { Ok(Claimed { claim, turn }) })
    }

    /// The turn of a snapshot, taken here, so that a command that is at it lets no run begin that would come to nothing.
    async fn turn(&self, job: &Job) -> Result<Result<Option<Turn>, Held>, Failed> {
        let (Work::Snapshot, Some(database)) = (job.work, &job.database) else {
            return Ok(Ok(None));
        };
        let options = self.options(None, &job.cluster, Trigger::Scheduled, BTreeMap::new())?;
        let (repository, cancel) = (&self.repository, &self.cancel);
        Ok(match snapshot::turn(repository, &options, database, &Silent, cancel).await {
            Ok(turn) => Ok(Some(turn)),
            Err(SnapshotError::Busy(_)) => Err(Held::Busy),
            // The run meets it again and tells it, with its hooks.
            Err(_) => Ok(None),
        })
    }

    fn options(
        &self,
        run: Option<RunId>,
        name: &ClusterName,
        trigger: Trigger,
        labels: BTreeMap<String, String>,
    ) -> Result<SnapshotOptions, Failed> {
        let cluster = self.cluster(name)?;
        Ok(SnapshotOptions {
            cluster: name.clone(),
            connection: self.connection(name)?,
            trigger,
            labels,
            pinned: false,
            exclude_table_data: cluster.exclude_table_data.clone(),
            hooks: wiring::hooks(cluster),
            bin_dir: wiring::bin_dir(&self.settings, cluster),
            host: wiring::host_name(),
            idle: cluster.idle_timeout,
            run,
        })
    }

    async fn try_claim(&self, job: &Job, observer: &dyn Observer) -> Result<Option<Claim>, Failed> {
        let mut connection = self.connection(&job.cluster)?;
        if let Some(database) = &job.database {
            connection = connection.with_database(database);
        }
        let id = &self.repository.document.id;
        let name = match job.work {
            // All clusters of a repository are pruned by one.
            Work::Prune => format!("pgkeep daemon {id} prune"),
            _ => format!("pgkeep daemon {id} {}", job.name()),
        };
        let pooling = pooler::refuse_transaction_pooling(&connection).await;
        let pooling = pooling.map_err(|error| failed(&error))?;
        let claim = claim::take(&connection, pooling, &name, observer).await;
        claim.map_err(|error| failed(&error))
    }

    /// Whether the catalog, read just now, shows a run for that time.
    async fn is_done(&self, job: &Job, occurrence: Timestamp) -> Result<bool, Failed> {
        let Some(database) = &job.database else { return Ok(false) };
        let repository = &self.repository;
        let limit = schedule::latest(repository.ambient().now());
        match job.work {
            Work::Snapshot => {
                let fits = |entry: &Entry| {
                    let manifest = &entry.manifest;
                    let known = manifest.database == *database && entry.is_run();
                    known && manifest.started_at <= limit && !self.ahead.contains(&manifest.id)
                };
                let newest = repository.newest(&job.cluster, fits).await;
                let newest = newest.map_err(|error| failed(&error))?;
                Ok(newest.is_some_and(|newest| newest.manifest.started_at >= occurrence))
            }
            Work::Verify => {
                let filter = filter(job);
                let catalog = repository.catalog(&filter).await.map_err(|error| failed(&error))?;
                let mut records = catalog.entries.iter().filter_map(|e| e.verification.as_ref());
                Ok(records.any(|record| (occurrence..=limit).contains(&record.started_at)))
            }
            Work::Prune => Ok(false),
        }
    }

    /// A snapshot of one database, in that turn where it was taken already.
    pub(super) async fn snapshot(
        &self,
        run: RunId,
        job: &Job,
        cause: Cause,
        turn: Option<Turn>,
        observer: &dyn Observer,
    ) -> Ended {
        let (trigger, labels) = match cause {
            Cause::Schedule => (Trigger::Scheduled, BTreeMap::new()),
            Cause::Api { trigger, labels } => (trigger, labels),
        };
        let options = match self.options(Some(run), &job.cluster, trigger, labels) {
            Ok(options) => options,
            Err(error) => return Ended::Failed(error, None),
        };
        let database = job.database.as_deref().unwrap_or_default();
        let (repository, cancel) = (&self.repository, &self.cancel);
        let taken = match turn {
            Some(turn) => {
                snapshot::one_in(&turn, repository, &options, database, observer, cancel).await
            }
            None => snapshot::one(repository, &options, database, observer, cancel).await,
        };
        match taken {
            Ok(manifest) => Ended::Done(manifest.summary(), Some(manifest.id)),
            Err(SnapshotError::Interrupted) => Ended::Failed(Failed::interrupted(), None),
            Err(error) => Ended::Failed(failed(&error), None),
        }
    }

    /// A verification of the newest backup of one database.
    pub(super) async fn verify(&self, job: &Job, observer: &dyn Observer) -> Ended {
        match self.verified(job, observer).await {
            Ok(ended) => ended,
            Err(error) => Ended::Failed(error, None),
        }
    }

    async fn verified(&self, job: &Job, observer: &dyn Observer) -> Result<Ended, Failed> {
        let cluster = self.cluster(&job.cluster)?;
        let (filter, choice) = (filter(job), Choice::LatestOfEach);
        let chosen = verify::choose(&self.repository, &filter, &choice, observer);
        let entries = chosen.await.map_err(|error| failed(&error))?;
        let proving = Proving::of(&self.settings, &job.cluster, cluster);
        let proving = proving.map_err(|error| failed(&error))?;
        let depth = cluster.verify_depth;
        let verifying = proving.verifying(&self.repository, depth, observer, &self.cancel);
        let verified = verify::run(&verifying, &entries, |_| {}).await;
        let mut verified = verified.map_err(|error| failed(&error))?;
        let (id, result) = verified.pop().ok_or_else(|| failed(&VerifyError::Nothing))?;
        let report = match result {
            Ok(report) => report,
            Err(VerifyError::Interrupted) => return Ok(Ended::Failed(Failed::interrupted(), None)),
            Err(error) => return Ok(Ended::Failed(failed(&error), Some(id))),
        };
        if report.result != Outcome::Passed {
            let error = Failed {
                kind: FailureKind::Damage,
                message: format!("backup {id} failed its verification"),
                hint: Some(format!("`pgkeep show {id}` has the checks; take a new snapshot now")),
            };
            return Ok(Ended::Failed(error, Some(id)));
        }
        if let Some(error) = &report.unrecorded {
            let error = failed(&**error);
            let message = format!("the verification is not recorded: {}", error.message);
            return Ok(Ended::Failed(Failed { message, ..error }, Some(id)));
        }
        Ok(Ended::Done(report.summary(), Some(id)))
    }

    /// A prune of these clusters.
    pub(super) async fn prune(
        &self,
        run: RunId,
        clusters: &[ClusterName],
        origin: Origin,
        observer: &dyn Observer,
    ) -> Ended {
        let settings = &self.settings;
        let configured = |name: &ClusterName| {
            Some((name.clone(), settings.clusters.get(name)?.retention.clone()))
        };
        let state = settings.environment.state_home();
        let note = state.join(format!("prune-{}.json", self.repository.document.id));
        let options = PruneOptions {
            policies: clusters.iter().filter_map(configured).collect(),
            database: None,
            grace: settings.repository.grace,
            clock: wiring::boot_clock(),
            note: &note,
            dry_run: false,
            by: wiring::actor(origin),
            run: Some(run),
        };
        // It may be dropped at any step (repo::prune).
        let pruned = tokio::select! {
            pruned = prune::run(&self.repository, options, observer) => pruned,
            () = self.cancel.cancelled() => return Ended::Failed(Failed::interrupted(), None),
        };
        match pruned {
            Ok(report) if report.withdrawn => Ended::Failed(
                Failed {
                    kind: FailureKind::Busy,
                    message: "another prune is at work".to_owned(),
                    hint: Some("it is tried again".to_owned()),
                },
                None,
            ),
            Ok(report) => Ended::Done(
                json!({
                    "clusters": clusters,
                    "backups_removed": report.swept.backups.len(),
                    "chunks_removed": report.swept.chunks,
                    "freed_bytes": report.swept.bytes,
                    "waiting": report.swept.waiting.len(),
                }),
                None,
            ),
            Err(error) => Ended::Failed(failed(&error), None),
        }
    }
}
