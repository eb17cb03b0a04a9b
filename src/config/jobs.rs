//! The scheduled jobs of a cluster, and what counts as overdue.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;

use super::ConfigError;
use super::section::Section;
use super::settings::{AlarmSettings, JobSettings};
use crate::domain::schedule::Schedule;
use crate::domain::verification::Depth;

/// A cluster is overdue when so many of its intervals bring no good backup, unless said otherwise.
const ALARM_INTERVALS: u32 = 2;
/// And when no restore was verified for so long.
const VERIFIED_WITHIN: Duration = Duration::from_hours(30 * 24);

/// `[clusters.NAME.snapshot]` and `[clusters.NAME.prune]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawJob {
    schedule: Option<String>,
    timezone: Option<String>,
    jitter: Option<String>,
    ping: Option<String>,
}

/// `[clusters.NAME.verify]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawVerify {
    pub(super) scratch: Option<String>,
    check: Option<String>,
    schedule: Option<String>,
    timezone: Option<String>,
    jitter: Option<String>,
    ping: Option<String>,
}

/// `[clusters.NAME.alarm]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAlarm {
    intervals: Option<i64>,
    verified_within: Option<String>,
}

impl RawVerify {
    /// How deep it goes, and its job.
    pub(super) fn split(
        self,
        section: &Section<'_>,
    ) -> Result<(Depth, RawJob, Option<String>), ConfigError> {
        let Self { scratch, check, schedule, timezone, jitter, ping } = self;
        let depth = match check.as_deref() {
            None | Some("full") => Depth::Full,
            Some("counts") => Depth::Counts,
            Some(_) => return Err(section.refused("verify.check", "\"counts\" or \"full\"")),
        };
        Ok((depth, RawJob { schedule, timezone, jitter, ping }, scratch))
    }
}

/// A job; none where no schedule is set. `zone` is the cluster's.
pub(super) fn job(
    name: &str,
    raw: RawJob,
    section: &Section<'_>,
    zone: &TimeZone,
) -> Result<Option<JobSettings>, ConfigError> {
    let key = |leaf: &str| format!("{name}.{leaf}");
    let Some(text) = raw.schedule else {
        let lonely = [("timezone", raw.timezone), ("jitter", raw.jitter), ("ping", raw.ping)];
        return match lonely.into_iter().find(|(_, value)| value.is_some()) {
            // Whoever sets it thinks that the job runs.
            Some((leaf, _)) => Err(section.refused(&key(leaf), "beside a `schedule`")),
            None => Ok(None),
        };
    };
    let zone = section.zone(&key("timezone"), raw.timezone.as_ref(), zone)?;
    let jitter = key("jitter");
    let span = section.duration(&jitter, raw.jitter.as_ref(), Duration::ZERO, "10m")?;
    let schedule = Schedule::parse(&text, zone, span)
        .map_err(|reason| section.no_schedule(&key("schedule"), reason))?;
    if span >= schedule.shortest_gap() {
        return Err(section.refused(&jitter, "shorter than the time from one run to the next"));
    }
    let ping = raw.ping.map(|url| section.web_address(&key("ping"), url)).transpose()?;
    Ok(Some(JobSettings { schedule, ping }))
}

/// What counts as overdue.
pub(super) fn alarm(raw: &RawAlarm, section: &Section<'_>) -> Result<AlarmSettings, ConfigError> {
    let intervals = match raw.intervals {
        None => ALARM_INTERVALS,
        Some(number) => u32::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| section.refused("alarm.intervals", "a whole number, 1 or more"))?,
    };
    let within = raw.verified_within.as_ref();
    let verified_within =
        section.duration("alarm.verified_within", within, VERIFIED_WITHIN, "30d, or 0s for never")?;
    Ok(AlarmSettings { intervals, verified_within })
}
