//! One request to one place, and in our own words why it failed: an error of the HTTP client may hold the URL.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::sync::Semaphore;

use super::{Limits, NotifyError, tls};
use crate::domain::connection::Secret;

/// How often a place may send us on.
const REDIRECTS_MAX: usize = 3;

/// Where something is told. It has no `Debug`: it is a secret.
#[derive(Clone)]
pub(super) struct Place(Url);

impl Place {
    /// Reads a URL; what is wrong with it does not repeat it.
    pub(super) fn parse(url: &Secret) -> Result<Self, &'static str> {
        let mut url = Url::parse(url.expose().trim()).map_err(|_| "it is no URL")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("it begins neither with https:// nor with http://");
        }
        url.set_fragment(None);
        Ok(Self(url))
    }

    /// Its host, which may be named.
    pub(super) fn host(&self) -> &str {
        self.0.host_str().unwrap_or("nowhere")
    }

    /// All of it.
    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        self.0.as_str()
    }

    /// With one more segment at the end of the path; the query stays behind it.
    pub(super) fn with(mut self, segment: Option<&str>) -> Self {
        if let Some(segment) = segment
            && let Ok(mut path) = self.0.path_segments_mut()
        {
            path.pop_if_empty().push(segment);
        }
        self
    }
}

/// What is sent along.
#[derive(Clone)]
pub(super) enum Content {
    /// Nothing: a GET.
    None,
    /// A document: a POST.
    Json(Bytes),
    /// A few words: a POST.
    Text(Bytes),
}

/// Why a try failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another try may succeed, no sooner than then where the place said so.
    ForNow(String, Option<Duration>),
    /// The place will never take it.
    ForGood(String),
}

/// Sends.
pub(super) struct Client {
    client: reqwest::Client,
    under_way: Semaphore,
}

impl Client {
    pub(super) fn new(limits: &Limits) -> Result<Self, NotifyError> {
        let words = |error: &dyn Error| NotifyError::Client(error.to_string());
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config().map_err(|error| words(&error))?)
            .timeout(limits.timeout)
            .connect_timeout(limits.timeout / 2)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(Duration::from_secs(30))
            // The URL that sent us on is a secret too.
            .referer(false)
            .redirect(Policy::custom(sent_on))
            .user_agent(concat!("pgkeep/", env!("CARGO_PKG_VERSION")));
        if !limits.proxies {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| words(&error.without_url()))?;
        Ok(Self { client, under_way: Semaphore::new(limits.at_once) })
    }

    /// One try. What the place answers is not read.
    pub(super) async fn send(&self, place: &Place, content: &Content) -> Result<(), Refused> {
        let _one = self.under_way.acquire().await.expect("the semaphore is never closed");
        match self.request(place, content).send().await {
            Ok(answer) => judged(&answer),
            Err(error) => Err(Refused::ForNow(words(&error), None)),
        }
    }

    fn request(&self, place: &Place, content: &Content) -> RequestBuilder {
        let Place(url) = place.clone();
        let post = |kind: &'static str, body: &Bytes| {
            self.client.post(url.clone()).header(CONTENT_TYPE, kind).body(body.clone())
        };
        match content {
            Content::None => self.client.get(url),
            Content::Json(body) => post("application/json", body),
            Content::Text(body) => post("text/plain; charset=utf-8", body),
        }
    }
}

/// Follows where the message goes along (the other codes make a GET of a POST, and lose it with a friendly 200), but
/// not for ever, and never from a place with TLS to one without.
fn sent_on(attempt: Attempt<'_>) -> Action {
    let goes_along = [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT]
        .contains(&attempt.status());
    let bare = attempt.url().scheme() == "http";
    let left_tls = bare && attempt.previous().iter().any(|url| url.scheme() == "https");
    if goes_along && !left_tls && attempt.previous().len() <= REDIRECTS_MAX {
        attempt.follow()
    } else {
        // Judged by its status, which is none of success.
        attempt.stop()
    }
}

/// Whether an answer is a yes.
fn judged(answer: &Response) -> Result<(), Refused> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let why = match status.canonical_reason() {
        _ if status.is_redirection() => format!("it sends us elsewhere (HTTP {})", status.as_u16()),
        Some(reason) => format!("HTTP {} {reason}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    };
    let passing =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    if status.is_client_error() && !passing.contains(&status) {
        return Err(Refused::ForGood(why));
    }
    let seconds =
        answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Err(Refused::ForNow(why, seconds.map(Duration::from_secs)))
}

/// What happened, from the innermost words of the operating system or of TLS; those hold no URL.
fn words(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| (*error).source());
    let system = causes.filter_map(|error| error.downcast_ref::<std::io::Error>()).last();
    let detail = system.map(|error| format!(": {error}")).unwrap_or_default();
    if error.is_timeout() {
        "no answer in time".to_owned()
    } else if error.is_connect() {
        format!("cannot connect{detail}")
    } else {
        format!("the connection broke{detail}")
    }
}
