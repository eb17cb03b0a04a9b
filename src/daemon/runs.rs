//! The runs of this process: what is at work, and what became of those before. In memory only: what lasts is in the
//! catalog and the audit trail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value as Json;
use tokio::sync::watch;

use crate::domain::audit::RunId;
use crate::domain::id::ClusterName;
use crate::domain::manifest::Trigger;

/// How many ended runs are remembered.
const REMEMBERED: usize = 1000;

/// Upper bounds, in seconds, by which durations are counted: from a small snapshot to one that takes the night.
pub const DURATION_BOUNDS_S: [u32; 9] = [1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200];

/// How many runs of one kind ended one way since this process began, and how long they took. Unlike the runs
/// themselves, these are never forgotten: a counter that goes down would lie.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// How long they took together.
    pub duration_ms: u64,
    /// How many took no longer than each bound, and longer than the one before it; the last: longer than all.
    pub buckets: [u64; DURATION_BOUNDS_S.len() + 1],
}

impl Tally {
    fn count(&mut self, duration_ms: u64) {
        let within = |bound: &u32| duration_ms <= u64::from(*bound) * 1000;
        let bucket = DURATION_BOUNDS_S.iter().position(within).unwrap_or(DURATION_BOUNDS_S.len());
        self.count += 1;
        self.duration_ms = self.duration_ms.saturating_add(duration_ms);
        self.buckets[bucket] += 1;
    }
}

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// A snapshot of one database.
    Snapshot,
    /// A verification of the newest backup of one database.
    Verify,
    /// A prune of one cluster.
    Prune,
}

impl Work {
    /// All there is.
    pub const ALL: [Self; 3] = [Self::Snapshot, Self::Verify, Self::Prune];

    /// The verb.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Verify => "verify",
            Self::Prune => "prune",
        }
    }
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Asked for, and waits for its turn.
    Queued,
    /// At work.
    Running,
    /// Done.
    Succeeded,
    /// Failed.
    Failed,
}

impl State {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Whether it is over.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A run as `/v1/runs/{id}` tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// What it does.
    pub work: Work,
    /// The cluster.
    pub cluster: ClusterName,
    /// The database, where it is about one.
    pub database: Option<String>,
    /// Why, where it takes a snapshot.
    pub trigger: Option<Trigger>,
    /// How far it is.
    pub state: State,
    /// When it was asked for.
    pub queued_at: Timestamp,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What it does just now.
    pub step: String,
    /// Bytes done within that step.
    pub bytes: u64,
    /// The verb's own JSON document, as the command line prints it, where it succeeded.
    pub result: Option<Json>,
    /// `{"exit_code", "kind", "message", "hint"}`, where it failed.
    pub error: Option<Json>,
}

impl Run {
    /// How long it worked, where it is over; zero where the clock was set back meanwhile.
    pub fn duration_ms(&self) -> Option<u64> {
        let began = self.started_at.unwrap_or(self.queued_at);
        let elapsed = began.duration_until(self.finished_at?);
        Some(u64::try_from(elapsed.as_millis()).unwrap_or(0))
    }
}

struct Slot {
    run: Run,
    changed: watch::Sender<()>,
}

/// All of them.
#[derive(Clone, Default)]
pub struct Runs(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    runs: BTreeMap<RunId, Slot>,
    ended: VecDeque<RunId>,
    /// By what they did and whether they succeeded.
    tallies: BTreeMap<(Work, bool), Tally>,
}

impl std::fmt::Debug for Runs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runs").finish_non_exhaustive()
    }
}

impl Runs {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new one.
    pub fn add(&self, run: Run) {
        let (changed, _) = watch::channel(());
        self.inner().runs.insert(run.id.clone(), Slot { run, changed });
    }

    /// Changes one, and wakes who waits for it.
    pub fn update(&self, id: &RunId, change: impl FnOnce(&mut Run)) {
        let mut inner = self.inner();
        let Some(slot) = inner.runs.get_mut(id) else { return };
        let was_over = slot.run.state.is_over();
        change(&mut slot.run);
        let is_over = slot.run.state.is_over();
        slot.changed.send_replace(());
        if is_over && !was_over {
            let kind = (slot.run.work, slot.run.state == State::Succeeded);
            let duration_ms = slot.run.duration_ms().unwrap_or(0);
            inner.tallies.entry(kind).or_default().count(duration_ms);
            inner.ended.push_back(id.clone());
            if inner.ended.len() > REMEMBERED
                && let Some(oldest) = inner.ended.pop_front()
            {
                inner.runs.remove(&oldest);
            }
        }
    }

    /// Forgets one that came to nothing before it was over; who waits for it is woken.
    pub fn forget(&self, id: &RunId) {
        self.inner().runs.remove(id);
    }

    /// One of them.
    pub fn get(&self, id: &RunId) -> Option<Run> {
        self.inner().runs.get(id).map(|slot| slot.run.clone())
    }

    /// All that are known, oldest first.
    pub fn all(&self) -> Vec<Run> {
        self.inner().runs.values().map(|slot| slot.run.clone()).collect()
    }

    /// What ended, by what it did and whether it succeeded.
    pub fn tallies(&self) -> BTreeMap<(Work, bool), Tally> {
        self.inner().tallies.clone()
    }

    /// Is woken by each change of one of them; none where nobody knows it.
    pub fn changes(&self, id: &RunId) -> Option<watch::Receiver<()>> {
        self.inner().runs.get(id).map(|slot| slot.changed.subscribe())
    }

    /// Waits until it is over; none where nobody knows it.
    pub async fn over(&self, id: &RunId) -> Option<Run> {
        let mut changed = self.inner().runs.get(id)?.changed.subscribe();
        loop {
            let run = self.get(id)?;
            if run.state.is_over() {
                return Some(run);
            }
            changed.changed().await.ok()?;
        }
    }
}
