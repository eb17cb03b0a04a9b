//! The scheduler: one task that owns all that is decided, and never waits for anything slow.
//!
//! Looks at the catalog and at servers, and the runs themselves, are tasks that send a message when they end. What is
//! due is decided anew ([`super::jobs`]) whenever something changed or the time has come, from the catalog; so a daemon
//! that was killed at any moment, and is started again, goes on where the catalog is. Nothing is written down.
//!
//! The first signal drains: nothing new is begun, what runs ends by itself. The second cancels what runs, which then
//! leaves nothing half-made (`ops::snapshot`, `ops::verify`, `repo::prune`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::jobs::{self, Job, Memory, Past};
use super::looks::{self, Look, Reloaded};
use super::runs::{Run, State, Work};
use super::shared::{Asked, Refusal};
use super::work::{Ended, Held, Place};
use super::{Cause, Tasks, service, tasks};
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
/// How soon a look that failed is made again.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How soon a job that somebody else is at is looked at again.
const BUSY_AGAIN: Duration = Duration::from_mins(1);
/// Clocks that part by more than this have jumped.
const JUMP: Duration = Duration::from_secs(5);
/// So many snapshots that were asked for may wait or run.
const ASKED_MAX: usize = 64;

/// What a task says when it ends.
#[expect(clippy::large_enum_variant, reason = "a few a minute")]
pub(super) enum Message {
    /// A look at the catalog.
    Looked(Result<Box<Look>, Failed>),
    /// The databases of a cluster.
    Listed(ClusterName, Result<Vec<String>, Failed>),
    /// The repository was opened, with these settings.
    Opened(Result<Reloaded, Failed>),
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

/// A look that is made again and again.
#[derive(Debug, Default)]
struct Again {
    at: Option<Instant>,
    under_way: bool,
    wanted: bool,
}

impl Again {
    /// Whether to begin one now.
    fn is_due(&self, every: Duration) -> bool {
        let old = self.at.is_none_or(|at| at.elapsed() >= every);
        !self.under_way && (self.wanted || old)
    }

    fn begin(&mut self) {
        (self.under_way, self.wanted) = (true, false);
    }

    /// One that failed is old sooner.
    fn end(&mut self, every: Duration, good: bool) {
        self.under_way = false;
        let now = Instant::now();
        let stale = now.checked_sub(every.saturating_sub(LOOK_AGAIN));
        self.at = if good { Some(now) } else { stale.or(Some(now)) };
    }
}

/// The scheduler's state.
pub(super) struct Engine {
    pub(super) tasks: Tasks,
    settings: Arc<Settings>,
    repository: Option<Repository>,
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
        repository: Option<Repository>,
    ) -> Self {
        let concurrency = settings.daemon.concurrency;
        Self {
            tasks,
            settings,
            repository,
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
            again: None,
            changed: true,
            permits: Arc::new(Semaphore::new(concurrency)),
            asked_permits: Arc::new(Semaphore::new(concurrency)),
            asked_running: 0,
            running: JoinSet::new(),
            at_work: HashMap::new(),
        }
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
        // Where a server never gave its list, those that have backups are meant: that they cannot be taken is told.
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
            if self.opening.is_due(LOOK_AGAIN) {
                self.opening.begin();
                self.tasks.open(Arc::clone(&self.settings));
            }
            return;
        };
        for (name, cluster) in &self.settings.clusters {
            let list = self.lists.entry(name.clone()).or_default();
            if list.is_due(LIST_EVERY) {
                list.begin();
                looks::list(&self.tasks, &self.settings, name, cluster);
            }
        }
        // Before the first lists are in, every database would look as if it were not configured.
        let listed = self.lists.values().all(|list| list.at.is_some());
        if listed && self.look.is_due(LOOK_EVERY) {
            self.look.begin();
            self.unseen.clear();
            let remembered = Arc::clone(&self.remembered);
            self.tasks.look(repository.clone(), remembered, &self.settings, self.databases.clone());
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Looked(result) => self.looked(result),
            Message::Listed(name, result) => self.listed(name, result),
            Message::Opened(result) => self.opened(result),
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

    fn listed(&mut self, name: ClusterName, result: Result<Vec<String>, Failed>) {
        let list = self.lists.entry(name.clone()).or_default();
        list.end(LIST_EVERY, result.is_ok());
        match result {
            Ok(databases) => {
                if self.databases.get(&name) != Some(&databases) {
                    self.databases.insert(name, databases);
                    self.look.wanted = true;
                    self.changed = true;
                }
            }
            // Those that were there before are still meant.
            Err(error) => {
                tracing::warn!(cluster = %name, "its databases cannot be listed: {}", error.message);
            }
        }
    }

    fn opened(&mut self, result: Result<Reloaded, Failed>) {
        self.opening.end(LOOK_AGAIN, result.is_ok());
        match result {
            Ok(Reloaded { settings, repository, token, notifier }) => {
                self.tasks.shared.set_token(token);
                let concurrency = settings.daemon.concurrency;
                if concurrency != self.settings.daemon.concurrency {
                    self.permits = Arc::new(Semaphore::new(concurrency));
                    self.asked_permits = Arc::new(Semaphore::new(concurrency));
                }
                if settings.daemon.listen != self.settings.daemon.listen {
                    tracing::warn!("daemon.listen is read at the start only: restart the daemon");
                }
                self.settings = settings;
                self.repository = repository;
                let reloaded = notifier.is_some();
                if let Some(notifier) = notifier {
                    self.tasks.teller.replace(notifier);
                }
                // What was read with other keys counts no more.
                self.remembered = Arc::default();
                self.lists.clear();
                self.databases.retain(|name, _| self.settings.clusters.contains_key(name));
                self.look.wanted = true;
                self.changed = true;
                if reloaded {
                    tracing::info!("the configuration is in force");
                } else {
                    tracing::info!("the repository can be reached");
                }
            }
            Err(error) => {
                tracing::error!("{}", error.message);
                if let Some(hint) = &error.hint {
                    tracing::error!("hint: {hint}");
                }
            }
        }
        if std::mem::take(&mut self.opening.wanted) {
            self.reload();
        }
    }

    fn reload(&mut self) {
        if self.opening.under_way {
            // It will be read again when that has ended.
            self.opening.wanted = true;
            return;
        }
        tracing::info!("reading the configuration again");
        self.opening.begin();
        self.tasks.reload();
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
            memory.busy = false;
            memory.attempts = Some(Attempts::and(memory.attempts, occurrence, now, now));
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
            memory.busy = false;
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
            memory.busy = false;
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

    fn asked(&mut self, asked: Asked) {
        let Asked { cluster, database, trigger, labels, answer } = asked;
        let begun = self.begin_asked(cluster, database, Cause::Api { trigger, labels });
        // Whoever asked may have gone.
        let _ = answer.send(begun);
    }

    fn begin_asked(
        &mut self,
        cluster: ClusterName,
        database: String,
        cause: Cause,
    ) -> Result<RunId, Refusal> {
        if !self.settings.clusters.contains_key(&cluster) {
            return Err(Refusal::Unknown(format!("cluster `{cluster}` is not configured")));
        }
        // A list that never came knows nothing of what is not there.
        if let Some(known) = self.databases.get(&cluster)
            && !known.contains(&database)
        {
            let told = format!("cluster `{cluster}` has no database `{database}`");
            return Err(Refusal::Unknown(told));
        }
        let out_of_reach = || Refusal::Busy("the repository is out of reach".to_owned());
        let place = self.place().ok_or_else(out_of_reach)?;
        if self.asked_running >= ASKED_MAX {
            return Err(Refusal::Busy(format!("{ASKED_MAX} snapshots wait already")));
        }
        self.asked_running += 1;
        let ambient = place.repository.ambient();
        let id = RunId::new(ambient.now(), ambient.random());
        let job = Job { work: Work::Snapshot, cluster, database: Some(database) };
        self.tasks.shared.runs.add(queued(&id, &job, cause.trigger(), ambient.now()));
        let (tasks, permits) = (self.tasks.clone(), Arc::clone(&self.asked_permits));
        self.running.spawn(tasks::asked(tasks, place, permits, id.clone(), job, cause));
        Ok(id)
    }

    /// Nothing new; what runs ends by itself, or is cancelled by the second signal.
    async fn drain(
        &mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut asked: mpsc::Receiver<Asked>,
        alive_every: Duration,
    ) {
        asked.close();
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
