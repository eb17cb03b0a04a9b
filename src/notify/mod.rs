//! Floor 1: webhooks and pings. The only place that names the HTTP client.
//!
//! Telling is never in the way of a backup: what is to be told goes into a bounded queue, one for each endpoint and in
//! order, is tried again for a while, and is then dropped with a word in the log. A failing endpoint is one warning
//! for as long as it fails. Nothing told carries a secret; URLs are secrets and are not logged: the log has a
//! webhook's name, and the host.
//!
//! What waits is in memory only. A crash loses it, and the dead-man rule tells at the next start what matters.

mod endpoint;
mod health;
#[cfg_attr(not(feature = "http"), path = "without_http.rs")]
mod http;
#[cfg(feature = "http")]
mod tls;

#[cfg(all(test, feature = "http"))]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::connection::Secret;
use crate::domain::failure::{Failure, FailureKind};
use endpoint::{Endpoint, Letter};
pub use health::Health;
use http::{Client, Content, Place};

/// The longest text that is told; what is longer is cut.
const TEXT_MAX: usize = 2000;

/// Something that happened, as a webhook tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `failure`, `recovery`, `success`, `overdue`; [`Notifier::tell`] sets it.
    pub news: String,
    /// One line for people.
    pub text: String,
    /// When.
    pub at: Timestamp,
    /// This host.
    pub host: String,
    /// The verb, where it is about a run.
    pub verb: Option<String>,
    /// The cluster.
    pub cluster: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// The run, where it is about one.
    pub run: Option<String>,
    /// The backup, where it is about one.
    pub backup: Option<String>,
    /// The exit code of the contract, where a run ended.
    pub exit_code: Option<u8>,
    /// What to check, where something failed.
    pub hint: Option<String>,
}

impl Message {
    /// As Slack and those like it show it.
    fn plain(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        format!("pgkeep on {}: {}: {}{hint}", self.host, self.news, self.text)
    }
}

/// What happened that somebody may want to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// A run failed.
    Failure,
    /// What was told as a failure, or as overdue, is well again.
    Recovery,
    /// A run succeeded.
    Success,
    /// Something should have happened and did not.
    Overdue,
}

impl News {
    /// The word in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Recovery => "recovery",
            Self::Success => "success",
            Self::Overdue => "overdue",
        }
    }
}

/// What a webhook posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// The [`Message`] as a document.
    Json,
    /// `{"text": …}`, as Slack and those like it take it.
    Slack,
}

impl Template {
    fn document(self, message: &Message) -> Bytes {
        let document = match self {
            Self::Json => serde_json::to_vec(message),
            Self::Slack => serde_json::to_vec(&json!({ "text": escaped(&message.plain()) })),
        };
        Bytes::from(document.expect("texts and numbers are valid JSON"))
    }
}

/// Slack reads `<…>` and `&` as markup, and asks for these three to be escaped.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What a ping says of a job, as healthchecks.io takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ping {
    /// It begins: the URL with `/start`.
    Start,
    /// It succeeded: the URL itself.
    Success,
    /// It failed: the URL with `/fail`.
    Fail,
}

impl Ping {
    const fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Start => Some("start"),
            Self::Success => None,
            Self::Fail => Some("fail"),
        }
    }
}

/// A webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// What the configuration calls it.
    pub name: String,
    /// Its URL; whoever knows it may post there.
    pub url: Secret,
    /// What is posted.
    pub template: Template,
    /// Which news it gets.
    pub on: Vec<News>,
}

impl Webhook {
    fn wants(&self, news: News, message: &Message) -> bool {
        // A run that succeeds after failures has succeeded.
        let success = news == News::Recovery && message.run.is_some();
        self.on.contains(&news) || success && self.on.contains(&News::Success)
    }
}

/// How long and how much; the defaults are for use, tests are less patient.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many messages wait for one endpoint.
    pub queue: usize,
    /// For how long a message is tried.
    pub keep: Duration,
    /// The wait after the first try that failed; each one after it is twice as long.
    pub first_pause: Duration,
    /// The longest wait between two tries.
    pub longest_pause: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// How many requests are under way at once, to all endpoints together.
    pub at_once: usize,
    /// Whether `HTTPS_PROXY` and those like it count.
    pub proxies: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue: 256,
            keep: Duration::from_mins(10),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_mins(1),
            timeout: Duration::from_secs(10),
            at_once: 32,
            proxies: true,
        }
    }
}

/// Whom to tell, and how.
#[derive(Debug, Clone, Default)]
pub struct NotifyConfig {
    /// Who is told the news.
    pub webhooks: Vec<Webhook>,
    /// How long and how much.
    pub limits: Limits,
}

/// Why nobody can be told.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// A URL that is none. It is a secret, so it is not shown.
    #[error("the URL of the webhook `{name}` cannot be used: {reason}")]
    Url {
        /// The webhook.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The HTTP client.
    #[error("cannot set up TLS for webhooks: {0}")]
    Client(String),
}

impl Failure for NotifyError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Url { .. } => FailureKind::Usage,
            Self::Client(_) => FailureKind::Unexpected,
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Url { name, .. } => {
                format!(
                    "set notify.webhooks.{name}.url to a URL that begins with https:// or http://"
                )
            }
            Self::Client(_) => "check the system's root certificates (ca-certificates)".to_owned(),
        })
    }
}

/// Whether a text can be the URL of a webhook or a ping; what is wrong with it otherwise, without repeating it.
pub fn check_url(url: &Secret) -> Result<(), &'static str> {
    Place::parse(url).map(drop)
}

/// Tells others. Clones are the same one.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    client: Arc<Client>,
    limits: Limits,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// None after [`Notifier::drain`].
    open: Mutex<Option<Endpoints>>,
}

struct Endpoints {
    webhooks: Vec<(Webhook, Place, Endpoint)>,
    /// By URL. As many as the configuration has.
    pings: BTreeMap<String, Endpoint>,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}

impl Notifier {
    /// Takes up work on the runtime it is called in; `cancel` drops all that waits. When the last clone is gone, what
    /// waits is still delivered.
    pub fn start(config: NotifyConfig, cancel: &CancellationToken) -> Result<Self, NotifyError> {
        let NotifyConfig { webhooks, limits } = config;
        let client = Arc::new(Client::new(&limits)?);
        let (tasks, stop) = (TaskTracker::new(), cancel.child_token());
        let mut open = Endpoints { webhooks: Vec::new(), pings: BTreeMap::new() };
        for webhook in webhooks {
            let place = Place::parse(&webhook.url)
                .map_err(|reason| NotifyError::Url { name: webhook.name.clone(), reason })?;
            let what = format!("webhook `{}` at {}", webhook.name, place.host());
            let endpoint = Endpoint::start(what, client.clone(), limits, &tasks, &stop);
            open.webhooks.push((webhook, place, endpoint));
        }
        let open = Mutex::new(Some(open));
        Ok(Self(Arc::new(Inner { client, limits, tasks, stop, open })))
    }

    fn open(&self) -> MutexGuard<'_, Option<Endpoints>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every webhook that wants to hear of it, soon. Never waits.
    pub fn tell(&self, news: News, message: Message) {
        let text = clipped(&message.text);
        let hint = message.hint.as_deref().map(clipped);
        let message = Message { news: news.as_str().to_owned(), text, hint, ..message };
        let open = self.open();
        for (webhook, place, endpoint) in open.iter().flat_map(|open| &open.webhooks) {
            if webhook.wants(news, &message) {
                let content = Content::Json(webhook.template.document(&message));
                endpoint.put(Letter::new(place.clone(), content));
            }
        }
    }

    /// Pings a URL about a job, soon, with a short word where there is one. Never waits.
    pub fn ping(&self, url: &Secret, ping: Ping, body: &str) {
        let place = match Place::parse(url) {
            Ok(place) => place,
            Err(reason) => {
                tracing::warn!("the URL of a ping cannot be used: {reason}");
                return;
            }
        };
        let mut open = self.open();
        let Some(open) = open.as_mut() else { return };
        let inner = &self.0;
        let endpoint = open.pings.entry(url.expose().to_owned()).or_insert_with(|| {
            let what = format!("ping at {}", place.host());
            Endpoint::start(what, inner.client.clone(), inner.limits, &inner.tasks, &inner.stop)
        });
        let content = match body {
            "" => Content::None,
            body => Content::Text(Bytes::from(clipped(body))),
        };
        endpoint.put(Letter::new(place.with(ping.suffix()), content));
    }

    /// Takes nothing more, and delivers what waits for at most so long.
    pub async fn drain(&self, limit: Duration) {
        // Their queues end with them.
        drop(self.open().take());
        self.0.tasks.close();
        if tokio::time::timeout(limit, self.0.tasks.wait()).await.is_err() {
            self.0.stop.cancel();
            self.0.tasks.wait().await;
        }
    }
}

/// The beginning of a text that is too long.
fn clipped(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
