//! Whom the daemon tells, from the configuration.

use tokio_util::sync::CancellationToken;

use super::WiringError;
use crate::config::Settings;
use crate::config::settings::{News as Wanted, WebhookTemplate};
use crate::notify::{Limits, News, Notifier, NotifyConfig, Template, Webhook};

/// The webhooks of `[notify]`, at work until `cancel`.
pub fn notifier(settings: &Settings, cancel: &CancellationToken) -> Result<Notifier, WiringError> {
    let news = |wanted: &Wanted| match wanted {
        Wanted::Failure => News::Failure,
        Wanted::Recovery => News::Recovery,
        Wanted::Success => News::Success,
        Wanted::Overdue => News::Overdue,
    };
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
