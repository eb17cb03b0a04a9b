//! `[clusters.NAME.retention]`.

use jiff::tz::TimeZone;
use serde::Deserialize;

use super::ConfigError;
use super::section::Section;
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

/// The policy that is in force in a cluster's `section`, whose time zone is `zone`.
///
/// Whoever names one `keep_…` means those that he names: defaults for the others would keep what he did not ask for.
pub(super) fn retention(
    raw: &RawRetention,
    section: &Section<'_>,
    zone: &TimeZone,
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
            *place = u32::try_from(count).map_err(|_| section.refused(key, expected))?;
        }
    }
    let (within, shipped) = (raw.keep_within.as_ref(), policy.keep_within);
    policy.keep_within =
        section.duration("retention.keep_within", within, shipped, "30d or 36h")?;
    let (before, shipped) = (raw.pre_migration.as_ref(), policy.pre_migration);
    policy.pre_migration =
        section.duration("retention.pre_migration", before, shipped, "30d or 36h")?;
    policy.time_zone = section.zone("retention.timezone", raw.timezone.as_ref(), zone)?;
    match named {
        Some(key) if policy.keeps_nothing() => {
            Err(section
                .refused(key, "1 or more, or another keep_… beside it: nothing would be kept"))
        }
        _ => Ok(policy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RetentionPolicy, String> {
        let raw: RawRetention = toml::from_str(text).expect("TOML");
        let section = Section { path: "clusters.main".to_owned(), origin: &|_| "here".to_owned() };
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        retention(&raw, &section, &zone).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_named_is_meant_and_without_a_name_the_shipped_policy() {
        let time_zone = TimeZone::fixed(jiff::tz::offset(1));
        let shipped =
            RetentionPolicy { time_zone: time_zone.clone(), ..RetentionPolicy::default() };
        assert_eq!(read(""), Ok(shipped), "in the cluster's zone");
        let only = read("keep_last = 3").expect("good");
        assert_eq!(only, RetentionPolicy { keep_last: 3, time_zone, ..RetentionPolicy::nothing() });
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
            ("timezone = \"Asia/Katmandoo\"", "timezone", "`Asia/Katmandoo`"),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(key) && told.contains(word), "{text}: {told}");
        }
    }
}
