//! `[daemon]` and `[notify]`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use super::section::{Section, WEB_ADDRESS, duration, is_web_address};
use super::settings::{
    DaemonSettings, KeySource, News, NotifySettings, WebhookSettings, WebhookTemplate,
};
use crate::domain::connection::Secret;

/// Nobody guesses a random token of this length.
const TOKEN_BYTES_MIN: usize = 16;
const TOKEN: &str = "16 bytes or more (`openssl rand -hex 32` makes a good one)";
/// More at once would only wait for disk and network.
const CONCURRENCY: std::ops::RangeInclusive<i64> = 1..=64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDaemon {
    listen: String,
    allow_remote: bool,
    token: Option<String>,
    token_file: Option<PathBuf>,
    concurrency: i64,
    retry_for: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawNotify {
    webhooks: BTreeMap<String, RawWebhook>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawWebhook {
    url: Option<String>,
    url_file: Option<PathBuf>,
    template: Option<String>,
    on: Option<Vec<String>>,
}

/// `[daemon]`.
pub(super) fn daemon(
    raw: RawDaemon,
    origin: &dyn Fn(&str) -> String,
) -> Result<DaemonSettings, ConfigError> {
    let section = Section { path: "daemon".to_owned(), origin };
    let listen: SocketAddr = raw.listen.parse().map_err(|_| {
        section.refused("listen", "an address and a port such as 127.0.0.1:7878 or [::1]:7878")
    })?;
    if !listen.ip().to_canonical().is_loopback() && !raw.allow_remote {
        return Err(ConfigError::Remote { origin: section.origin("listen"), listen });
    }
    let token = match (raw.token, raw.token_file) {
        (Some(text), _) if text.trim().len() < TOKEN_BYTES_MIN => {
            return Err(section.refused("token", TOKEN));
        }
        (Some(text), _) => Some(KeySource::Text(Secret::new(text), section.origin("token"))),
        (None, Some(path)) => Some(KeySource::File(path)),
        (None, None) => None,
    };
    let concurrency = usize::try_from(raw.concurrency).ok();
    let concurrency = concurrency.filter(|_| CONCURRENCY.contains(&raw.concurrency));
    Ok(DaemonSettings {
        listen,
        allow_remote: raw.allow_remote,
        token,
        concurrency: concurrency
            .ok_or_else(|| section.refused("concurrency", "a whole number from 1 to 64"))?,
        retry_for: duration(&raw.retry_for)
            .ok_or_else(|| section.refused("retry_for", "a duration such as 6h"))?,
    })
}

impl DaemonSettings {
    /// The token; none: the hook is off.
    pub fn read_token(&self) -> Result<Option<Secret>, ConfigError> {
        let Some(source) = &self.token else { return Ok(None) };
        let Some(text) = source.read("a token")? else { return Ok(None) };
        let token = Secret::new(text.expose().trim().to_owned());
        if token.expose().len() < TOKEN_BYTES_MIN {
            return Err(ConfigError::Shape {
                origin: source.describe(),
                key: "daemon.token_file".to_owned(),
                expected: format!("a file with a token of {TOKEN}"),
            });
        }
        Ok(Some(token))
    }
}

/// `[notify]`.
pub(super) fn notify(
    raw: RawNotify,
    origin: &dyn Fn(&str) -> String,
) -> Result<NotifySettings, ConfigError> {
    let mut webhooks = BTreeMap::new();
    for (name, raw) in raw.webhooks {
        let section = Section { path: format!("notify.webhooks.{name}"), origin };
        webhooks.insert(name, webhook(raw, &section)?);
    }
    Ok(NotifySettings { webhooks })
}

fn webhook(raw: RawWebhook, section: &Section<'_>) -> Result<WebhookSettings, ConfigError> {
    let url = match (raw.url, raw.url_file) {
        (Some(text), _) => {
            KeySource::Text(section.web_address("url", text)?, section.origin("url"))
        }
        (None, Some(path)) => KeySource::File(path),
        (None, None) => return Err(section.refused("url", "set, or `url_file` in its place")),
    };
    let template = match raw.template.as_deref() {
        None | Some("json") => WebhookTemplate::Json,
        Some("slack") => WebhookTemplate::Slack,
        Some(_) => return Err(section.refused("template", "\"json\" or \"slack\"")),
    };
    let on = match raw.on {
        None => vec![News::Failure, News::Recovery, News::Overdue],
        Some(words) => {
            let known: Option<Vec<News>> = words.iter().map(|word| News::parse(word)).collect();
            known.filter(|news| !news.is_empty()).ok_or_else(|| {
                section.refused("on", "at least one of failure, recovery, success and overdue")
            })?
        }
    };
    Ok(WebhookSettings { url, template, on })
}

impl News {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "failure" => Self::Failure,
            "recovery" => Self::Recovery,
            "success" => Self::Success,
            "overdue" => Self::Overdue,
            _ => return None,
        })
    }
}

impl WebhookSettings {
    /// Its URL.
    pub fn read_url(&self) -> Result<Secret, ConfigError> {
        let text = self.url.read("a webhook's URL")?.unwrap_or_else(|| Secret::new(String::new()));
        let url = text.expose().trim();
        if is_web_address(url) {
            return Ok(Secret::new(url.to_owned()));
        }
        Err(ConfigError::Shape {
            origin: self.url.describe(),
            key: "url_file".to_owned(),
            expected: format!("a file with {WEB_ADDRESS}"),
        })
    }
}
