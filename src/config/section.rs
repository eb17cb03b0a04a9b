//! One section of what was merged: its keys in full, where each was set, and the complaints that name both.

use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, SpanRelativeTo};

use super::ConfigError;
use crate::domain::connection::Secret;
use crate::domain::schedule::ScheduleError;

/// A section, such as `clusters.main`.
pub(super) struct Section<'a> {
    pub(super) path: String,
    pub(super) origin: &'a dyn Fn(&str) -> String,
}

impl Section<'_> {
    /// The whole name of one of its keys.
    pub(super) fn key(&self, leaf: &str) -> String {
        format!("{}.{leaf}", self.path)
    }

    /// Where that one was set.
    pub(super) fn origin(&self, leaf: &str) -> String {
        (self.origin)(&self.key(leaf))
    }

    /// It must be something else. The value is not repeated.
    pub(super) fn refused(&self, leaf: &str, expected: &str) -> ConfigError {
        let (origin, key) = (self.origin(leaf), self.key(leaf));
        ConfigError::Shape { origin, key, expected: expected.to_owned() }
    }

    /// A span, or what is shipped.
    pub(super) fn duration(
        &self,
        leaf: &str,
        text: Option<&String>,
        shipped: Duration,
        example: &str,
    ) -> Result<Duration, ConfigError> {
        let Some(text) = text else { return Ok(shipped) };
        duration(text).ok_or_else(|| self.refused(leaf, &format!("a duration such as {example}")))
    }

    /// A zone, or the one that is meant without it.
    pub(super) fn zone(
        &self,
        leaf: &str,
        name: Option<&String>,
        without: &TimeZone,
    ) -> Result<TimeZone, ConfigError> {
        let Some(name) = name else { return Ok(without.clone()) };
        time_zone(jiff::tz::db(), name).map_err(|nearest| ConfigError::TimeZone {
            origin: self.origin(leaf),
            key: self.key(leaf),
            name: name.clone(),
            nearest,
        })
    }

    /// A text that is no schedule.
    pub(super) fn no_schedule(&self, leaf: &str, reason: ScheduleError) -> ConfigError {
        ConfigError::Schedule { origin: self.origin(leaf), key: self.key(leaf), reason }
    }

    /// The address of a web service. Whoever knows it may call it, so it is a secret.
    pub(super) fn web_address(&self, leaf: &str, text: String) -> Result<Secret, ConfigError> {
        if is_web_address(&text) {
            return Ok(Secret::new(text));
        }
        Err(self.refused(leaf, WEB_ADDRESS))
    }
}

/// What an address must be.
pub(super) const WEB_ADDRESS: &str = "a URL such as https://example.com/path";

/// `http://host…` or `https://host…`.
pub(super) fn is_web_address(text: &str) -> bool {
    let place = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = place.and_then(|place| place.split(['/', '?', '#']).next());
    let odd = |c: char| c.is_whitespace() || c.is_control();
    host.is_some_and(|host| !host.is_empty()) && !text.contains(odd)
}

/// `24h`, `2d`, `90m`: days are 24 hours, months and years are refused.
pub fn duration(text: &str) -> Option<Duration> {
    let span: Span = text.trim().parse().ok()?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(signed).ok()
}

/// The zone; else the known one that is nearest, or none where this host knows none.
fn time_zone(known: &TimeZoneDatabase, name: &str) -> Result<TimeZone, Option<String>> {
    // The one zone that needs no database.
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    if let Ok(zone) = known.get(name) {
        return Ok(zone);
    }
    let score = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    let all = known.available().map(|known| known.to_string());
    Err(all.max_by(|a, b| score(a).total_cmp(&score(b))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_time_zone_database_knows_utc_alone() {
        let none = TimeZoneDatabase::none();
        assert_eq!(time_zone(&none, "UTC"), Ok(TimeZone::UTC));
        assert_eq!(time_zone(&none, "Europe/London"), Err(None));
        let refused = time_zone(jiff::tz::db(), "Europe/Lodnon");
        assert_eq!(refused, Err(Some("Europe/London".to_owned())));
    }

    #[test]
    fn web_addresses_are_told_from_other_texts() {
        for good in ["https://hc-ping.com/x", "http://127.0.0.1:8000", "https://u:p@h/a?b#c"] {
            assert!(is_web_address(good), "{good}");
        }
        for bad in ["", "hc-ping.com/x", "https://", "https:///x", "ftp://h/x", "https://h/a b"] {
            assert!(!is_web_address(bad), "{bad}");
        }
    }
}
