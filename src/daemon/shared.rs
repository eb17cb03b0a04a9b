//! What the scheduler and the HTTP side have in common.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::runs::Runs;
use crate::domain::audit::RunId;
use crate::domain::connection::Secret;
use crate::domain::id::ClusterName;
use crate::domain::manifest::Trigger;
use crate::domain::status::Status;

/// A snapshot that somebody asked the API for.
#[derive(Debug)]
pub struct Asked {
    /// The cluster.
    pub cluster: ClusterName,
    /// The database.
    pub database: String,
    /// Why.
    pub trigger: Trigger,
    /// Free labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Where the run's id, or a refusal, is told.
    pub answer: oneshot::Sender<Result<RunId, Refusal>>,
}

/// Why a run was not begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No such cluster, or no such database in it: 404.
    Unknown(String),
    /// The daemon is going down, or too much waits already: 503.
    Busy(String),
}

/// How the scheduler is.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Configuration, repository and page are up: the daemon takes on work.
    pub ready: bool,
    /// The repository could not be opened, or the last look at it failed, and so; none while looks succeed.
    pub repository_error: Option<String>,
    /// Since the scheduler last went round, by the monotonic clock of this process.
    pub last_round: Option<std::time::Instant>,
    /// A shutdown has begun.
    pub draining: bool,
}

/// A scheduler that has not gone round for so long hangs.
pub const ROUND_MAX: Duration = Duration::from_mins(2);

/// Shared by the scheduler and the HTTP side.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The runs.
    pub runs: Runs,
    status: Arc<Mutex<Option<Arc<Status>>>>,
    health: Arc<Mutex<Health>>,
    token: Arc<Mutex<Option<Secret>>>,
    asked: mpsc::Sender<Asked>,
}

impl Shared {
    /// With the queue that the scheduler reads.
    pub fn new(asked: mpsc::Sender<Asked>) -> Self {
        Self {
            runs: Runs::default(),
            status: Arc::default(),
            health: Arc::default(),
            token: Arc::default(),
            asked,
        }
    }

    /// What the snapshot hook asks for; none: there is no hook.
    pub fn token(&self) -> Option<Secret> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on.
    pub fn set_token(&self, token: Option<Secret>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// How it stood at the last look; none before the first.
    pub fn status(&self) -> Option<Arc<Status>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a look.
    pub fn set_status(&self, status: Status) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(status));
    }

    /// As before the first look: what was found out is of another repository.
    pub fn forget_status(&self) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How the scheduler is.
    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it.
    pub fn update_health(&self, change: impl FnOnce(&mut Health)) {
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Asks for a snapshot; answers at once with the run's id, which then waits for its turn.
    pub async fn ask(
        &self,
        cluster: ClusterName,
        database: String,
        trigger: Trigger,
        labels: std::collections::BTreeMap<String, String>,
    ) -> Result<RunId, Refusal> {
        let (answer, told) = oneshot::channel();
        let busy = || Refusal::Busy("the daemon takes on no more work just now".to_owned());
        let asked = Asked { cluster, database, trigger, labels, answer };
        self.asked.try_send(asked).map_err(|_| busy())?;
        told.await.map_err(|_| busy())?
    }
}
