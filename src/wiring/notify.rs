//! Whom the daemon tells, and what a guarded migration asks afterwards, from the configuration.

use tokio_util::sync::CancellationToken;

use super::WiringError;
use crate::config::settings::{KeySource, News as Wanted, WebhookTemplate};
use crate::config::{ClusterSettings, Settings};
use crate::domain::id::ClusterName;
use crate::guard::HealthChecks;
use crate::notify::{Limits, News, Notifier, NotifyConfig, Template, Webhook};

/// The webhooks of `[notify]`, at work until `cancel`.
pub fn notifier(settings: &Settings, cancel: &CancellationToken) -> Result<Notifier, WiringError> {
    let news = |wanted: &Wanted| match wanted {
        Wanted::Failure => News::Failure,
        Wanted::Recovery => News::Recovery,
        Wanted::Success => News::Success,
        Wanted::Overdue => News::Overdue,
    };
    refuse_http(settings)?;
    let mut webhooks = Vec::new();
    for (name, webhook) in &settings.notify.webhooks {
        webhooks.push(Webhook {
            name: name.clone(),
            url: webhook.read_url()?,
            template: match webhook.template {
                WebhookTemplate::Json => Template::Json,
                WebhookTemplate::Slack => Template::Slack,
            },
            on: webhook.on.iter().map(news).collect(),
        });
    }
    let config = NotifyConfig { webhooks, limits: Limits::default() };
    Ok(Notifier::start(config, cancel)?)
}

/// What is asked after a migration; nothing where that is not `wanted`.
pub fn health_checks(
    name: &ClusterName,
    cluster: &ClusterSettings,
    wanted: bool,
) -> Result<HealthChecks, WiringError> {
    let urls = if wanted { cluster.health.urls.clone() } else { Vec::new() };
    if !cfg!(feature = "http") && !urls.is_empty() {
        return Err(WiringError::WithoutHttp(format!("clusters.{name}.health.urls")));
    }
    Ok(HealthChecks { urls, within: cluster.health.within })
}

/// A build without HTTP tells nobody, and nobody asks it for a snapshot: whoever relies on that hears of it at the start.
fn refuse_http(settings: &Settings) -> Result<(), WiringError> {
    if cfg!(feature = "http") {
        return Ok(());
    }
    let mut set = Vec::new();
    set.extend(settings.daemon.token.as_ref().map(|source| match source {
        KeySource::File(_) => "daemon.token_file".to_owned(),
        _ => "daemon.token".to_owned(),
    }));
    set.extend(settings.daemon.allow_remote.then(|| "daemon.allow_remote".to_owned()));
    let webhooks = settings.notify.webhooks.keys();
    set.extend(webhooks.map(|name| format!("notify.webhooks.{name}")));
    for (name, cluster) in &settings.clusters {
        let jobs = [
            ("snapshot", &cluster.snapshot),
            ("verify", &cluster.verify),
            ("prune", &cluster.prune),
        ];
        let pings =
            jobs.into_iter().filter(|(_, job)| job.as_ref().is_some_and(|job| job.ping.is_some()));
        set.extend(pings.map(|(job, _)| format!("clusters.{name}.{job}.ping")));
    }
    set.into_iter().next().map_or(Ok(()), |first| Err(WiringError::WithoutHttp(first)))
}
