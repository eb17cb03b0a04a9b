//! Tells of runs and of how things stand: to webhooks and pings, each what it wants to hear.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::jobs::Job;
use super::news::{self, Outcome, Told};
use super::runs::Run;
use super::work::Ended;
use crate::config::Settings;
use crate::domain::connection::Secret;
use crate::domain::failure::FailureKind;
use crate::domain::status::Status;
use crate::notify::{Notifier, Ping};
use crate::wiring;

/// What was told so far, and the way to tell more. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Teller(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    notifier: Notifier,
    outcomes: HashMap<Job, Outcome>,
    told: Told,
    started: Instant,
}

impl Teller {
    pub(super) fn new(notifier: Notifier) -> Self {
        let (outcomes, told) = (HashMap::new(), Told::default());
        let inner = Inner { notifier, outcomes, told, started: Instant::now() };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on by this one; the one before it still delivers what waits.
    pub(super) fn replace(&self, notifier: Notifier) {
        self.inner().notifier = notifier;
    }

    /// A job begins.
    pub(super) fn begun(&self, settings: &Settings, job: &Job) {
        if let Some(url) = ping_of(settings, job) {
            self.inner().notifier.ping(url, Ping::Start, "");
        }
    }

    /// A job has ended, for that time of its schedule if it had one.
    pub(super) fn over(
        &self,
        settings: &Settings,
        job: &Job,
        occurrence: Option<Timestamp>,
        run: &Run,
        ended: &Ended,
    ) {
        // Somebody else is at it: it is looked at again soon.
        if occurrence.is_some()
            && matches!(ended, Ended::Failed(error, _) if error.kind == FailureKind::Busy)
        {
            return;
        }
        let mut inner = self.inner();
        if let Some(url) = occurrence.and_then(|_| ping_of(settings, job)) {
            match ended {
                Ended::Done(..) => inner.notifier.ping(url, Ping::Success, ""),
                Ended::Failed(error, _) => inner.notifier.ping(url, Ping::Fail, &error.message),
            }
        }
        let exit_code = match ended {
            Ended::Done(..) => 0,
            Ended::Failed(error, _) => error.kind.exit_code(),
        };
        let now = Outcome { occurrence, exit_code };
        let before = inner.outcomes.insert(job.clone(), now);
        if let Some(news) = news::of_run(before, now) {
            let message = news::run_message(news, run, &wiring::host_name(), Timestamp::now());
            inner.notifier.tell(news, message);
        }
    }

    /// How it stands was found out, while these jobs are under way.
    pub(super) fn stands(&self, status: &Status, under_way: &[Job]) {
        let mut inner = self.inner();
        let (tellings, told) = inner.told.and(status, under_way, inner.started.elapsed());
        inner.told = told;
        for telling in tellings {
            let news = telling.news;
            tracing::warn!(news = news.as_str(), "{}", telling.text);
            inner.notifier.tell(news, telling.message(&wiring::host_name(), status.at));
        }
    }

    /// Takes nothing more, and delivers what waits for at most so long.
    pub(super) async fn drain(&self, limit: Duration) {
        let notifier = self.inner().notifier.clone();
        notifier.drain(limit).await;
    }
}

fn ping_of<'a>(settings: &'a Settings, job: &Job) -> Option<&'a Secret> {
    let cluster = settings.clusters.get(&job.cluster)?;
    let job = match job.work {
        super::runs::Work::Snapshot => &cluster.snapshot,
        super::runs::Work::Verify => &cluster.verify,
        super::runs::Work::Prune => &cluster.prune,
    };
    job.as_ref()?.ping.as_ref()
}
