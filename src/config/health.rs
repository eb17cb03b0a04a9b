//! `[clusters.NAME.health]`: what is asked after a migration.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::section::{Section, is_web_address};
use super::settings::HealthSettings;
use crate::domain::connection::Secret;

/// All addresses together get so long, unless said otherwise.
const WITHIN: Duration = Duration::from_mins(1);
const URLS: &str = "URLs such as http://127.0.0.1:3000/api/health, without a user or a password";

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHealth {
    urls: Vec<String>,
    within: Option<String>,
}

/// What it means.
pub(super) fn health(raw: RawHealth, section: &Section<'_>) -> Result<HealthSettings, ConfigError> {
    // They are shown, in reports too.
    let has_login =
        |url: &str| url.split(['?', '#']).next().is_some_and(|place| place.contains('@'));
    if raw.urls.iter().any(|url| !is_web_address(url) || has_login(url)) {
        return Err(section.refused("health.urls", URLS));
    }
    let within = section.duration("health.within", raw.within.as_ref(), WITHIN, "30s or 2m")?;
    if within.is_zero() {
        return Err(section.refused("health.within", "a duration such as 30s or 2m"));
    }
    Ok(HealthSettings { urls: raw.urls.into_iter().map(Secret::new).collect(), within })
}
