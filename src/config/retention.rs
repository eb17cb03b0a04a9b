//! `[clusters.NAME.retention]`.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;

use super::ConfigError;
use super::build::duration;
use crate::domain::retention::RetentionPolicy;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRetention {
    keep_last: Option<i64>,
    keep_hourly: Option<i64>,
    keep_daily: Option<i64>,
    keep_weekly: Option<i64>,
    keep_monthly: Option<i64>,
    keep_yearly: Option<i64>,
    keep_within: Option<String>,
    pre_migration: Option<String>,
    timezone: Option<String>,
}

/// The policy that is in force; `refused` makes the error of a key and what it must be.
///
/// Whoever names one `keep_…` means those that he names: defaults for the others would keep what he did not ask for.
pub(super) fn retention(
    raw: &RawRetention,
    refused: &dyn Fn(&str, &str) -> ConfigError,
) -> Result<RetentionPolicy, ConfigError> {
    let counts = [
        ("retention.keep_last", raw.keep_last),
        ("retention.keep_hourly", raw.keep_hourly),
        ("retention.keep_daily", raw.keep_daily),
        ("retention.keep_weekly", raw.keep_weekly),
        ("retention.keep_monthly", raw.keep_monthly),
        ("retention.keep_yearly", raw.keep_yearly),
    ];
    let named = counts.iter().find(|(_, count)| count.is_some()).map(|(key, _)| *key);
    let named = named.or_else(|| raw.keep_within.is_some().then_some("retention.keep_within"));
    let mut policy = match named {
        Some(_) => RetentionPolicy::nothing(),
        None => RetentionPolicy::default(),
    };
    let places = [
        &mut policy.keep_last,
        &mut policy.keep_hourly,
        &mut policy.keep_daily,
        &mut policy.keep_weekly,
        &mut policy.keep_monthly,
        &mut policy.keep_yearly,
    ];
    for ((key, count), place) in counts.into_iter().zip(places) {
        if let Some(count) = count {
            let expected = "a number of backups, 0 or more";
            *place = u32::try_from(count).map_err(|_| refused(key, expected))?;
        }
    }
    let span = |key: &str, text: Option<&String>, shipped: Duration| match text {
        None => Ok(shipped),
        Some(text) => duration(text).ok_or_else(|| refused(key, "a duration such as 30d or 36h")),
    };
    policy.keep_within =
        span("retention.keep_within", raw.keep_within.as_ref(), policy.keep_within)?;
    policy.pre_migration =
        span("retention.pre_migration", raw.pre_migration.as_ref(), policy.pre_migration)?;
    if let Some(name) = &raw.timezone {
        let key = "retention.timezone";
        policy.time_zone = time_zone(name).map_err(|expected| refused(key, &expected))?;
    }
    match named {
        Some(key) if policy.keeps_nothing() => {
            Err(refused(key, "1 or more, or another keep_… beside it: nothing would be kept"))
        }
        _ => Ok(policy),
    }
}

/// The zone, or what it must be.
fn time_zone(name: &str) -> Result<TimeZone, String> {
    if let Ok(zone) = TimeZone::get(name) {
        return Ok(zone);
    }
    let nearest = jiff::tz::db().available().map(|known| known.to_string()).max_by(|a, b| {
        let score = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
        score(a).total_cmp(&score(b))
    });
    Err(match nearest {
        Some(nearest) => format!("the name of a time zone; the nearest known one is {nearest}"),
        None => "\"UTC\": this host has no time zone database (install tzdata)".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RetentionPolicy, String> {
        let raw: RawRetention = toml::from_str(text).expect("TOML");
        retention(&raw, &|key, expected| ConfigError::Shape {
            origin: "here".to_owned(),
            key: key.to_owned(),
            expected: expected.to_owned(),
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_named_is_meant_and_without_a_name_the_shipped_policy() {
        assert_eq!(read(""), Ok(RetentionPolicy::default()));
        let only = read("keep_last = 3").expect("good");
        assert_eq!(only, RetentionPolicy { keep_last: 3, ..RetentionPolicy::nothing() });
        let migrations = read("pre_migration = \"2d\"").expect("good");
        assert_eq!((migrations.keep_daily, migrations.pre_migration.as_secs()), (14, 172_800));
        let zone = read("timezone = \"Asia/Kathmandu\"").expect("good").time_zone;
        assert_eq!(zone.iana_name(), Some("Asia/Kathmandu"));
    }

    #[test]
    fn what_cannot_be_meant_names_the_key_and_what_it_must_be() {
        for (text, key, word) in [
            ("keep_last = -1", "keep_last", "0 or more"),
            ("keep_daily = 5000000000", "keep_daily", "0 or more"),
            ("keep_last = 0\nkeep_daily = 0", "keep_last", "nothing would be kept"),
            ("keep_within = \"0s\"", "keep_within", "nothing would be kept"),
            ("keep_within = \"2 moons\"", "keep_within", "a duration"),
            ("pre_migration = \"1y\"", "pre_migration", "a duration"),
            ("timezone = \"Asia/Katmandoo\"", "timezone", "Asia/Katmandu"),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(key) && told.contains(word), "{text}: {told}");
        }
    }
}
