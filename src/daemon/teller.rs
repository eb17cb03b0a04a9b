//! Tells of runs and of how things stand: to webhooks and pings, each what it wants to hear.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::jobs::Job;
use super::news::{self, Outcome, Telling, Told};
use super::runs::Run;
use super::work::Ended;
use crate::config::Settings;
use crate::domain::connection::Secret;
use crate::domain::status::Status;
use crate::domain::told::Failed;
use crate::notify::{Message, News, Notifier, Ping};
use crate::wiring;

/// A job of a run, and the time of its schedule that it is for; none where somebody asked for it.
pub(super) type JobOfRun = (Job, Option<Timestamp>);

/// What was told so far, and the way to tell more. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Teller(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    notifier: Notifier,
    outcomes: HashMap<Job, Outcome>,
    told: Told,
    /// Whether it was told that the repository cannot be opened.
    out_of_reach: bool,
    started: Instant,
}

impl Teller {
    pub(super) fn new(notifier: Notifier) -> Self {
        let (outcomes, told) = (HashMap::new(), Told::default());
        let inner =
            Inner { notifier, outcomes, told, out_of_reach: false, started: Instant::now() };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on by this one; the one before it still delivers what waits.
    pub(super) fn replace(&self, notifier: Notifier) {
        self.inner().notifier = notifier;
    }

    /// A run of scheduled jobs begins.
    pub(super) fn begun(&self, settings: &Settings, jobs: &[JobOfRun]) {
        let inner = self.inner();
        for url in jobs.iter().filter_map(|job| ping_of(settings, job)) {
            inner.notifier.ping(url, Ping::Start, "");
        }
    }

    /// A run has ended, for these jobs: each one's ping is told, and one word about the run is enough.
    pub(super) fn over(&self, settings: &Settings, jobs: &[JobOfRun], run: &Run, ended: &Ended) {
        let mut inner = self.inner();
        for url in jobs.iter().filter_map(|job| ping_of(settings, job)) {
            match ended {
                Ended::Done(..) => inner.notifier.ping(url, Ping::Success, ""),
                Ended::Failed(error, _) => inner.notifier.ping(url, Ping::Fail, &error.message),
            }
        }
        let exit_code = match ended {
            Ended::Done(..) => 0,
            Ended::Failed(error, _) => error.kind.exit_code(),
        };
        let of_one = |(job, occurrence): &JobOfRun| {
            let now = Outcome { occurrence: *occurrence, exit_code };
            news::of_run(inner.outcomes.insert(job.clone(), now), now)
        };
        let gravest = jobs.iter().filter_map(of_one).min();
        if let Some(news) = gravest {
            let message = news::run_message(news, run, &wiring::host_name(), Timestamp::now());
            inner.notifier.tell(news, message);
        }
    }

    /// The repository cannot be opened, and so nothing is done: told once. Whether it was told now.
    pub(super) fn out_of_reach(&self, why: &Failed) -> bool {
        let mut inner = self.inner();
        let is_news = !std::mem::replace(&mut inner.out_of_reach, true);
        if is_news {
            let text = format!("nothing is done: the repository cannot be opened: {}", why.message);
            let message =
                of_repository(News::Failure, text).message(&wiring::host_name(), Timestamp::now());
            let exit_code = Some(why.kind.exit_code());
            inner
                .notifier
                .tell(News::Failure, Message { hint: why.hint.clone(), exit_code, ..message });
        }
        is_news
    }

    /// It was opened.
    pub(super) fn within_reach(&self) {
        let mut inner = self.inner();
        if std::mem::take(&mut inner.out_of_reach) {
            let text = "the repository can be opened again".to_owned();
            let message =
                of_repository(News::Recovery, text).message(&wiring::host_name(), Timestamp::now());
            inner.notifier.tell(News::Recovery, message);
        }
    }

    /// Another repository is in force: what was told of the one before says nothing of it.
    pub(super) fn forget(&self) {
        let mut inner = self.inner();
        (inner.outcomes, inner.told) = (HashMap::new(), Told::default());
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

fn of_repository(news: News, text: String) -> Telling {
    Telling { news, cluster: None, database: None, text }
}

/// Who is told that a job is alive; only what is scheduled is waited for.
fn ping_of<'a>(settings: &'a Settings, (job, occurrence): &JobOfRun) -> Option<&'a Secret> {
    occurrence.as_ref()?;
    let cluster = settings.clusters.get(&job.cluster)?;
    let job = match job.work {
        super::runs::Work::Snapshot => &cluster.snapshot,
        super::runs::Work::Verify => &cluster.verify,
        super::runs::Work::Prune => &cluster.prune,
    };
    job.as_ref()?.ping.as_ref()
}
