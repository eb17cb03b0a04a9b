//! The scheduler: one task that owns all that is decided, and never waits for anything slow.
//!
//! Looks at the catalog and at servers, and the runs themselves, are tasks that send a message when they end. What is
//! due is decided anew ([`super::jobs`]) whenever something changed or the time has come, from the catalog; so a daemon
//! that was killed at any moment, and is started again, goes on where the catalog is. Nothing is written down.
//!
//! What is in force, configuration and repository, is the matter of [`force`]; what the API asks for, of [`asked`].
//!
//! The first signal drains: nothing new is begun, what runs ends by itself. The second cancels what runs, which then
//! leaves nothing half-made (`ops::snapshot`, `ops::verify`, `repo::prune`).

mod again;
mod asked;
mod force;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use self::again::Again;
use super::jobs::{self, Job, Memory, Past};
use super::looks::{Look, Reloaded};
use super::runs::{Run, State, Work};
use super::shared::Asked;
use super::work::{Ended, Held, Place};
use super::{Tasks, service, tasks};
use crate::config::Settings;
use crate::domain::audit::RunId;
use crate::domain::failure::FailureKind;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::schedule::{Attempts, Moment};
use crate::domain::told::Failed;
use crate::repo::Repository;
use crate::repo::catalog::Catalog;
use crate::repo::remembered::Remembered;

/// How old a look at the catalog may be: what other hosts do is seen by then.
const LOOK_EVERY: Duration = Duration::from_mins(10);
/// How old the list of a server's databases may be.
const LIST_EVERY: Duration = Duration::from_mins(5);
/// How soon a job that somebody else is at is looked at again.
const BUSY_AGAIN: Duration = Duration::from_mins(1);
/// Clocks that part by more than this have jumped.
const JUMP: Duration = Duration::from_secs(5);

/// What a task says when it ends.
pub(super) enum Message {
    /// A look at the catalog, begun under that configuration.
    Looked(u64, Result<Box<Look>, Failed>),
    /// The databases of a cluster, asked for under that configuration; none on a host that names no server.
    Listed(u64, ClusterName, Result<Option<Vec<String>>, Failed>),
    /// The repository that could not be opened before.
    Opened(Result<Repository, Failed>),
    /// The configuration, read again.
    Reloaded(Result<Reloaded, Failed>),
    /// Scheduled jobs were not begun: somebody else is at them, or has done them.
    Held(Vec<Dueness>, Held),
    /// A run ended.
    Ended(Box<Finished>),
}

/// A job, and the time of its schedule that it is due for.
pub(super) type Dueness = (Job, Timestamp);

/// A run that ended.
pub(super) struct Finished {
    pub(super) id: RunId,
    /// What it did of the schedules; nothing where it was asked for.
    pub(super) jobs: Vec<Dueness>,
    pub(super) began: Instant,
    pub(super) ended: Ended,
}

/// The scheduler's state.
pub(super) struct Engine {
    pub(super) tasks: Tasks,
    settings: Arc<Settings>,
    /// Which configuration that is, counted: what was begun under an earlier one says nothing any more.
    generation: u64,
    /// What is read at the start only.
    bound: (SocketAddr, bool),
    repository: Option<Repository>,
    /// The id of the repository that all below is known of.
    known: Option<String>,
    started: Instant,
    /// The wall clock less the other one, in seconds: it stays, unless somebody sets a clock.
    apart: Option<Timestamp>,
    look: Again,
    /// Of the catalog, since the repository was opened.
    remembered: Arc<Mutex<Remembered>>,
    opening: Again,
    lists: BTreeMap<ClusterName, Again>,
    databases: BTreeMap<ClusterName, Vec<String>>,
    past: Option<Past>,
    ahead: Arc<HashSet<BackupId>>,
    memories: HashMap<Job, Memory>,
    /// Done since the last look was begun, which may not have seen it.
    unseen: HashSet<Job>,
    /// Snapshots that were asked for of databases that no list holds so far.
    unlisted: Vec<Asked>,
    /// Nothing is due before this, if nothing changes.
    again: Option<Timestamp>,
    changed: bool,
    permits: Arc<Semaphore>,
    asked_permits: Arc<Semaphore>,
    asked_running: usize,
    running: JoinSet<()>,
    /// What each of them does of the schedules.
    at_work: HashMap<task::Id, Vec<Dueness>>,
}

impl Engine {
    pub(super) fn new(
        tasks: Tasks,
        settings: Arc<Settings>,
        repository: Result<Repository, Failed>,
    ) -> Self {
        let concurrency = settings.daemon.concurrency;
        let mut engine = Self {
            tasks,
            generation: 0,
            bound: (settings.daemon.listen, settings.daemon.allow_remote),
            settings,
            repository: None,
            known: None,
            started: Instant::now(),
            apart: None,
            look: Again::default(),
            remembered: Arc::default(),
            opening: Again::default(),
            lists: BTreeMap::new(),
            databases: BTreeMap::new(),
            past: None,
            ahead: Arc::default(),
            memories: HashMap::new(),
            unseen: HashSet::new(),
            unlisted: Vec::new(),
            again: None,
            changed: true,
            permits: Arc::new(Semaphore::new(concurrency)),
            asked_permits: Arc::new(Semaphore::new(concurrency)),
            asked_running: 0,
            running: JoinSet::new(),
            at_work: HashMap::new(),
        };
        engine.opened(repository);
        engine
    }

    /// Goes round until it has drained.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut asked: mpsc::Receiver<Asked>,
        mut bell: mpsc::Receiver<()>,
        mut reload: mpsc::Receiver<()>,
        drain: CancellationToken,
    ) {
        let alive_every = service::watchdog().unwrap_or(Duration::from_mins(1));
        let mut alive = tokio::time::interval(alive_every);
        loop {
            self.round();
            tokio::select! {
                biased;
                () = drain.cancelled() => break,
                Some(message) = inbox.recv() => self.take(message),
                Some(asked) = asked.recv() => self.asked(asked),
                Some(()) = reload.recv() => self.reload(),
                Some(gone) = self.running.join_next_with_id() => self.gone(&gone),
                Some(()) = bell.recv() => {}
                _ = alive.tick() => {}
            }
        }
        self.drain(inbox, asked, alive_every).await;
    }

    /// What is due is begun.
    fn round(&mut self) {
        service::alive();
        self.tasks.shared.update_health(|health| health.last_round = Some(Instant::now()));
        self.watch_clock();
        self.begin_looks();
        self.begin_due();
    }

    fn begin_due(&mut self) {
        let now = self.now();
        let time_has_come = self.again.is_some_and(|again| again <= now.wall);
        if !self.changed && !time_has_come {
            return;
        }
        let Some(past) = &self.past else { return };
        self.changed = false;
        let settings = Arc::clone(&self.settings);
        // Where no server gave its list, those that have backups are meant: that they cannot be taken is told.
        let meant =
            |name: &ClusterName| self.databases.get(name).or_else(|| past.databases.get(name));
        let jobs = jobs::timetable(&settings, meant);
        let retry_for = settings.daemon.retry_for;
        let (due, again) = jobs::decide(&jobs, past, &self.memories, retry_for, now);
        self.again = again;
        service::status(&match again {
            Some(again) => format!("{} jobs, the next one at {again:.0}", jobs.len()),
            None => format!("{} jobs", jobs.len()),
        });
        let (prunes, others): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(job, _)| job.work == Work::Prune);
        for one in others {
            self.begin(vec![one]);
        }
        // One walk through the repository does for all.
        if !prunes.is_empty() {
            self.begin(prunes);
        }
    }

    fn now(&self) -> Moment {
        Moment { wall: Timestamp::now(), monotonic: self.started.elapsed() }
    }

    /// A clock that jumped changes what is due.
    fn watch_clock(&mut self) {
        let now = self.now();
        let Ok(apart) = now.wall.checked_sub(now.monotonic) else { return };
        if let Some(before) = self.apart
            && before.duration_until(apart).unsigned_abs() > JUMP
        {
            tracing::warn!("this host's clock jumped by {:#}", before.duration_until(apart));
            self.changed = true;
        }
        self.apart = Some(apart);
    }

    fn begin_looks(&mut self) {
        let Some(repository) = &self.repository else {
            if self.opening.is_due(again::AFTER_FAILURE) {
                self.opening.begin();
                self.tasks.open(Arc::clone(&self.settings));
            }
            return;
        };
        for (name, cluster) in &self.settings.clusters {
            let list = self.lists.entry(name.clone()).or_default();
            if list.is_due(LIST_EVERY) {
                list.begin();
                self.tasks.list(self.generation, &self.settings, name, cluster);
            }
        }
        // Before the first lists are in, every database would look as if it were not configured.
        let listed = self.lists.values().all(|list| list.at.is_some());
        if listed && self.look.is_due(LOOK_EVERY) {
            self.look.begin();
            self.unseen.clear();
            let (remembered, databases) = (Arc::clone(&self.remembered), self.databases.clone());
            let (generation, repository) = (self.generation, repository.clone());
            self.tasks.look(generation, repository, remembered, &self.settings, databases);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Looked(generation, _) | Message::Listed(generation, ..)
                if generation != self.generation => {}
            Message::Looked(_, result) => self.looked(result),
            Message::Listed(_, name, result) => self.listed(&name, result),
            Message::Opened(result) => {
                self.opening.end(again::AFTER_FAILURE, result.is_ok());
                self.opened(result);
                self.reload_again();
            }
            Message::Reloaded(result) => {
                self.opening.end(again::AFTER_FAILURE, result.is_ok());
                self.reloaded(result);
                self.reload_again();
            }
            Message::Held(jobs, held) => self.held(jobs, held),
            Message::Ended(finished) => self.ended(*finished),
        }
    }

    fn looked(&mut self, result: Result<Box<Look>, Failed>) {
        self.look.end(LOOK_EVERY, result.is_ok());
        let trouble = result.as_ref().err().map(|error| error.message.clone());
        self.tasks.shared.update_health(|health| {
            health.ready = health.ready || trouble.is_none();
            health.repository_error.clone_from(&trouble);
        });
        match result {
            Ok(look) => {
                self.past = Some(self.past_of(&look.catalog));
                self.changed = true;
                // First, so that what is about to be made is not told as missing.
                self.begin_due();
                self.tasks.stands(look.status, &self.under_way());
            }
            Err(error) => {
                tracing::warn!("the repository cannot be looked at: {}", error.message);
            }
        }
    }

    /// What is at work, here or elsewhere, or was just done.
    fn under_way(&self) -> Vec<Job> {
        let now = self.started.elapsed();
        let is_at_work =
            |memory: &Memory| memory.busy || memory.not_before.is_some_and(|then| then > now);
        let at_work = self.memories.iter().filter(|(_, memory)| is_at_work(memory));
        at_work.map(|(job, _)| job).chain(&self.unseen).cloned().collect()
    }

    fn past_of(&mut self, catalog: &Catalog) -> Past {
        let mut ahead = (*self.ahead).clone();
        let past = jobs::past(catalog, Timestamp::now(), &mut ahead);
        self.ahead = Arc::new(ahead);
        past
    }

    fn listed(&mut self, name: &ClusterName, result: Result<Option<Vec<String>>, Failed>) {
        let list = self.lists.entry(name.clone()).or_default();
        list.end(LIST_EVERY, result.is_ok());
        let trouble = match result {
            Ok(databases) => {
                if self.databases.get(name) != databases.as_ref() {
                    tell_changes(name, self.databases.get(name), databases.as_ref());
                    match databases {
                        Some(databases) => self.databases.insert(name.clone(), databases),
                        None => self.databases.remove(name),
                    };
                    self.look.wanted = true;
                    self.changed = true;
                }
                None
            }
            // Those that were there before are still meant.
            Err(error) => {
                tracing::warn!(cluster = %name, "its databases cannot be listed: {}", error.message);
                Some(error)
            }
        };
        self.answer_unlisted(name, trouble.as_ref());
    }

    /// Begins a scheduled run: whether it is still to be done, its task finds out.
    fn begin(&mut self, jobs: Vec<Dueness>) {
        let Some(place) = self.place() else { return };
        for (job, _) in &jobs {
            self.memories.entry(job.clone()).or_default().busy = true;
        }
        let permits = Arc::clone(&self.permits);
        let tasks = self.tasks.clone();
        let task = self.running.spawn(tasks::scheduled(tasks, place, permits, jobs.clone()));
        self.at_work.insert(task.id(), jobs);
    }

    /// A task is over, and has said what came of it; unless it panicked.
    fn gone(&mut self, gone: &Result<(task::Id, ()), JoinError>) {
        let id = gone.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let jobs = self.at_work.remove(&id).unwrap_or_default();
        if gone.is_ok() {
            return;
        }
        let now = self.started.elapsed();
        for (job, occurrence) in jobs {
            tracing::error!("{} panicked", job.name());
            let memory = self.memories.entry(job).or_default();
            if memory.end() {
                memory.attempts = Some(Attempts::and(memory.attempts, occurrence, now, now));
            }
        }
        self.changed = true;
    }

    fn place(&self) -> Option<Place> {
        Some(Place {
            settings: Arc::clone(&self.settings),
            repository: self.repository.clone()?,
            ahead: Arc::clone(&self.ahead),
            cancel: self.tasks.now.clone(),
        })
    }

    fn held(&mut self, jobs: Vec<Dueness>, held: Held) {
        let now = self.started.elapsed();
        for (job, occurrence) in jobs {
            tracing::debug!(job = job.name(), ?held, "somebody else does it");
            let memory = self.memories.entry(job.clone()).or_default();
            if !memory.end() {
                continue;
            }
            match held {
                Held::Busy => memory.not_before = Some(now + BUSY_AGAIN),
                Held::Done => {
                    memory.done = memory.done.max(Some(occurrence));
                    self.unseen.insert(job);
                }
            }
        }
        self.look.wanted = true;
        self.changed = true;
    }

    fn ended(&mut self, finished: Finished) {
        let Finished { id, jobs, began, ended } = finished;
        let now = self.started.elapsed();
        let began = began.saturating_duration_since(self.started);
        let busy = matches!(&ended, Ended::Failed(error, _) if error.kind == FailureKind::Busy);
        let stopped =
            matches!(&ended, Ended::Failed(error, _) if error.kind == FailureKind::Interrupted);
        if jobs.is_empty() {
            self.asked_running = self.asked_running.saturating_sub(1);
        }
        for (job, occurrence) in jobs {
            let work = job.work;
            let memory = self.memories.entry(job.clone()).or_default();
            if !memory.end() {
                continue;
            }
            // What a verification found is a result: the same would be found again.
            let found = work == Work::Verify
                && matches!(&ended, Ended::Failed(error, Some(_)) if error.kind == FailureKind::Damage);
            if matches!(ended, Ended::Done(..)) || found {
                memory.done = memory.done.max(Some(occurrence));
                memory.attempts = None;
                self.unseen.insert(job);
            } else if busy {
                memory.not_before = Some(now + BUSY_AGAIN);
            } else if !stopped {
                memory.attempts = Some(Attempts::and(memory.attempts, occurrence, began, now));
            }
        }
        tracing::debug!(run = %id, "ended");
        self.look.wanted = true;
        self.changed = true;
    }

    /// Nothing new; what runs ends by itself, or is cancelled by the second signal.
    async fn drain(
        &mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut asked: mpsc::Receiver<Asked>,
        alive_every: Duration,
    ) {
        asked.close();
        self.unlisted.clear();
        self.tasks.shared.update_health(|health| (health.ready, health.draining) = (false, true));
        self.tasks.claims.cancel();
        let waiting = format!("going down: {} runs end first", self.running.len());
        tracing::info!("{waiting}");
        service::stopping(&waiting);
        let mut alive = tokio::time::interval(alive_every);
        loop {
            tokio::select! {
                ended = self.running.join_next() => if ended.is_none() { break },
                Some(message) = inbox.recv() => {
                    if let Message::Ended(finished) = message {
                        self.ended(*finished);
                    }
                }
                _ = alive.tick() => service::alive(),
            }
        }
    }
}

/// Which of a cluster's databases came and went since they were listed before.
fn tell_changes(name: &ClusterName, before: Option<&Vec<String>>, now: Option<&Vec<String>>) {
    let (Some(before), Some(now)) = (before, now) else { return };
    for one in now.iter().filter(|one| !before.contains(one)) {
        tracing::info!(cluster = %name, "database `{one}` is backed up from now on");
    }
    for one in before.iter().filter(|one| !now.contains(one)) {
        tracing::warn!(
            cluster = %name,
            "database `{one}` is no longer among those that are backed up; its backups stay"
        );
    }
}

/// A run that waits for its turn.
pub(super) fn queued(
    id: &RunId,
    job: &Job,
    trigger: Option<crate::domain::manifest::Trigger>,
    at: Timestamp,
) -> Run {
    Run {
        id: id.clone(),
        work: job.work,
        cluster: job.cluster.clone(),
        database: job.database.clone(),
        trigger,
        state: State::Queued,
        queued_at: at,
        started_at: None,
        finished_at: None,
        step: String::new(),
        bytes: 0,
        result: None,
        error: None,
    }
}
