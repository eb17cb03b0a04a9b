//! Floor 6: the daemon: schedules, runs, and the HTTP side.
//!
//! [`engine`] is the scheduler; [`jobs`] decides what is due, from the catalog; [`tasks`] and [`work`] are the life of a
//! run; [`http`] is the page, the metrics and the API. What is due, and how two daemons share the work, is told in
//! `docs/decisions/0011-the-daemon.md`.

mod engine;
#[cfg_attr(not(feature = "http"), path = "without_http.rs")]
pub mod http;
pub mod jobs;
mod listener;
mod looks;
pub mod news;
pub mod runs;
mod service;
pub mod shared;
mod tasks;
mod teller;
mod trigger;
mod work;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::engine::{Engine, Message};
use self::jobs::Job;
use self::shared::Shared;
use self::teller::Teller;
use crate::config::{Databases, Settings};
use crate::domain::audit::Origin;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::manifest::Trigger;
use crate::domain::status::Status;
use crate::domain::told::Failed;
use crate::wiring;

/// How long what is still to be told may take at the end.
const END_MAX: Duration = Duration::from_secs(5);

/// What moves the daemon from outside.
#[derive(Debug)]
pub struct Signals {
    /// Nothing new is begun; what runs ends by itself.
    pub drain: CancellationToken,
    /// What runs is cancelled.
    pub now: CancellationToken,
    /// The configuration is read again.
    pub reload: mpsc::Receiver<()>,
}

/// Reads the configuration.
pub type Load = dyn Fn() -> Result<Settings, Failed> + Send + Sync;

/// Why the daemon did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration, or a repository that does not fit it.
    #[error("{}", .0.message)]
    Start(Failed),
    /// The address of the page.
    #[error(transparent)]
    Http(#[from] http::HttpError),
    /// The trigger.
    #[error("the trigger does not start")]
    Trigger(#[from] trigger::TriggerError),
}

impl Failure for DaemonError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Start(failed) => failed.kind,
            Self::Http(error) => error.kind(),
            Self::Trigger(_) => FailureKind::Unexpected,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Start(failed) => failed.hint.clone(),
            Self::Http(error) => error.hint(),
            Self::Trigger(_) => None,
        }
    }
}

/// Why a run is made.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// Its time has come.
    Schedule,
    /// Somebody asked for it.
    Api {
        /// Why.
        trigger: Trigger,
        /// Free labels.
        labels: BTreeMap<String, String>,
    },
}

impl Cause {
    const fn origin(&self) -> Origin {
        match self {
            Self::Schedule => Origin::Schedule,
            Self::Api { .. } => Origin::Api,
        }
    }

    const fn trigger(&self) -> Option<Trigger> {
        match self {
            Self::Schedule => None,
            Self::Api { trigger, .. } => Some(*trigger),
        }
    }
}

/// What every task of the daemon has at hand.
#[derive(Clone)]
pub(crate) struct Tasks {
    pub(crate) shared: Shared,
    /// Cancels what runs.
    pub(crate) now: CancellationToken,
    /// Cancels what waits for its turn.
    pub(crate) claims: CancellationToken,
    load: Arc<Load>,
    outbox: mpsc::Sender<Message>,
    teller: Teller,
    /// Cancelled, nobody is told any more.
    deaf: CancellationToken,
}

impl Tasks {
    async fn send(&self, message: Message) {
        // The scheduler ends last; without it there is nobody to tell.
        let _ = self.outbox.send(message).await;
    }

    /// How it stands has been found out, while these jobs are under way.
    fn stands(&self, status: Status, under_way: &[Job]) {
        tracing::debug!("looked at the catalog");
        self.teller.stands(&status, under_way);
        self.shared.set_status(status);
    }
}

/// Runs until it has drained. `listening` is told the address of the page once everything is up, in a build that has one.
pub async fn run(
    load: Arc<Load>,
    signals: Signals,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), DaemonError> {
    let settings = Arc::new(load().map_err(DaemonError::Start)?);
    let token = settings.daemon.read_token().map_err(|error| refused(&error))?;
    let repository = looks::open(&settings).await.map_err(DaemonError::Start)?;
    let deaf = CancellationToken::new();
    let notifier = wiring::notifier(&settings, &deaf).map_err(|error| refused(&error))?;
    let teller = Teller::new(notifier);
    let (asked_in, asked_out) = mpsc::channel(64);
    let (outbox, inbox) = mpsc::channel(256);
    let shared = Shared::new(asked_in);
    let options = http::HttpOptions {
        listen: settings.daemon.listen,
        allow_remote: settings.daemon.allow_remote,
        token,
    };
    let closing = CancellationToken::new();
    let bound = http::serve(options, shared.clone(), closing.clone()).await?;
    let page = bound.address();
    let serving = tokio::spawn(bound.run());
    let (bell, rung) = mpsc::channel(1);
    let trigger = trigger::Trigger::start(bell).await?;
    let tasks = Tasks {
        shared,
        now: signals.now,
        claims: CancellationToken::new(),
        load,
        outbox,
        teller: teller.clone(),
        deaf,
    };
    warn_of_nothing_to_do(&settings);
    let address = page.map(tracing::field::display);
    tracing::info!(address, pgkeep = env!("CARGO_PKG_VERSION"), "the daemon is up");
    let told = page.map(|address| format!("listening on {address}"));
    service::ready(&told.unwrap_or_else(|| "at work, without a page".to_owned()));
    page.map(listening);
    let engine = Engine::new(tasks, settings, repository);
    engine.run(inbox, asked_out, rung, signals.reload, signals.drain).await;
    trigger.stop().await;
    closing.cancel();
    // Whoever waits for an answer, or for news, gets them first.
    let served = tokio::time::timeout(END_MAX, serving);
    let _ = tokio::join!(served, teller.drain(END_MAX));
    tracing::info!("the daemon has ended");
    Ok(())
}

fn refused(error: &dyn Failure) -> DaemonError {
    DaemonError::Start(Failed::of(error))
}

fn warn_of_nothing_to_do(settings: &Settings) {
    for (name, cluster) in &settings.clusters {
        if cluster.snapshot.is_none() {
            tracing::warn!(cluster = %name, "no snapshot is scheduled (clusters.{name}.snapshot)");
        } else if !wiring::is_server_named(settings, cluster)
            && !matches!(cluster.databases, Databases::Named(_))
        {
            tracing::warn!(
                cluster = %name,
                "no server is named (clusters.{name}.url): the databases that have backups are meant"
            );
        }
    }
}
