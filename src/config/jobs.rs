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
    let verified_within = section.duration(
        "alarm.verified_within",
        within,
        VERIFIED_WITHIN,
        "30d, or 0s for never",
    )?;
    Ok(AlarmSettings { intervals, verified_within })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::super::settings::{News, WebhookTemplate};
    use super::super::{FILE_NAME, Loaded, Selection, Settings, load};
    use super::*;
    use crate::config::Environment;
    use crate::domain::failure::Failure as _;

    fn loaded(home: &Path, text: &str) -> Result<Loaded, ConfigError> {
        let path = home.join(FILE_NAME);
        std::fs::write(&path, text).expect("a file");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, private).expect("a mode");
        let home = home.to_str().expect("utf-8");
        load(Environment::from_pairs([("PGKEEP_HOME", home)]), &Selection::default())
    }

    fn read(text: &str) -> Settings {
        let home = tempfile::tempdir().expect("a directory");
        loaded(home.path(), text).expect("loads").settings
    }

    /// The line without the directory, and the hint.
    fn refusal(text: &str) -> (String, String) {
        let home = tempfile::tempdir().expect("a directory");
        let error = loaded(home.path(), text).expect_err(text);
        let dir = format!("{}/", home.path().display());
        (error.to_string().replace(&dir, ""), error.hint().expect("a hint"))
    }

    #[test]
    fn jobs_are_read_as_the_design_writes_them_and_fall_back_to_the_clusters_zone() {
        let settings = read(
            "[clusters.main]\ntimezone = \"Europe/London\"\n\
             snapshot = { schedule = \"0 2 * * *\", timezone = \"Asia/Kathmandu\", jitter = \"10m\", ping = \"https://hc/x\" }\n\
             verify = { schedule = \"0 5 * * *\", scratch = \"auto\", check = \"counts\" }\n\
             alarm = { intervals = 3, verified_within = \"0s\" }\n",
        );
        let (_, cluster) = settings.cluster().expect("a cluster");
        let snapshot = cluster.snapshot.as_ref().expect("a job");
        assert_eq!(snapshot.schedule.to_string(), "0 2 * * * Asia/Kathmandu");
        assert!(snapshot.schedule.offset("snapshot main/shop") < Duration::from_mins(10));
        assert_eq!(snapshot.ping.as_ref().expect("a URL").expose(), "https://hc/x");
        let verify = cluster.verify.as_ref().expect("a job");
        assert_eq!(verify.schedule.to_string(), "0 5 * * * Europe/London");
        assert_eq!((cluster.verify_depth, cluster.prune.is_none()), (Depth::Counts, true));
        assert_eq!(cluster.alarm, AlarmSettings { intervals: 3, verified_within: Duration::ZERO });
        assert_eq!(cluster.retention.time_zone.iana_name(), Some("Europe/London"));

        let settings = read("[clusters.main]\nsnapshot.schedule = \"@daily\"\n");
        let (_, cluster) = settings.cluster().expect("a cluster");
        let daily = cluster.snapshot.as_ref().expect("a job");
        assert_eq!(daily.schedule.to_string(), "@daily UTC");
        let shipped = AlarmSettings { intervals: 2, verified_within: Duration::from_hours(720) };
        assert_eq!((cluster.alarm, cluster.verify_depth), (shipped, Depth::Full));
    }

    #[test]
    fn a_job_that_cannot_be_meant_is_told_with_what_may_be() {
        for (cluster, line, hint) in [
            (
                "snapshot = { schedule = \"61 2 * * *\" }",
                "`clusters.main.snapshot.schedule`: `61 2 * * *` is no schedule: `61` is no minute (0 to 59)",
                "the nearest that does is `59 2 * * *`",
            ),
            (
                "prune.schedule = \"0 2 30 2 *\"",
                "`clusters.main.prune.schedule`: `0 2 30 2 *` is no schedule: such a day never comes",
                "the nearest that does is `0 2 L 2 *`",
            ),
            (
                "verify = { schedule = \"0 2 * * *\", timezone = \"Europe/Lodnon\" }",
                "`clusters.main.verify.timezone`: this host knows no time zone `Europe/Lodnon`",
                "the nearest known one is Europe/London",
            ),
            (
                "snapshot.ping = \"https://hc/x\"",
                "`clusters.main.snapshot.ping` must be beside a `schedule`",
                "",
            ),
            (
                "snapshot = { schedule = \"0 * * * *\", jitter = \"1h\" }",
                "`clusters.main.snapshot.jitter` must be shorter than the time from one run to the next",
                "",
            ),
            (
                "snapshot = { schedule = \"0 * * * *\", ping = \"hc.io/hunter2\" }",
                "`clusters.main.snapshot.ping` must be a URL such as https://example.com/path",
                "",
            ),
            (
                "verify.check = \"stored\"",
                "`clusters.main.verify.check` must be \"counts\" or \"full\"",
                "",
            ),
            (
                "alarm.intervals = 0",
                "`clusters.main.alarm.intervals` must be a whole number, 1 or more",
                "",
            ),
            (
                "timezone = \"Mars\"",
                "`clusters.main.timezone`: this host knows no time zone `Mars`",
                "",
            ),
        ] {
            let (told, advice) = refusal(&format!("[clusters.main]\n{cluster}\n"));
            assert_eq!(told, format!("pgkeep.toml:2: {line}"));
            assert!(advice.starts_with(hint), "{advice}");
        }
    }

    #[test]
    fn the_daemon_listens_on_this_host_alone_unless_told_otherwise() {
        let settings = read("");
        assert_eq!(settings.daemon.listen.to_string(), "127.0.0.1:7878");
        assert!(settings.daemon.read_token().expect("reads").is_none());
        assert_eq!((settings.daemon.concurrency, settings.daemon.retry_for.as_secs()), (2, 21_600));
        for address in ["0.0.0.0:7878", "[::]:7878", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"] {
            let text = format!("[daemon]\nlisten = \"{address}\"\n");
            let (line, hint) = refusal(&text);
            assert!(line.starts_with("pgkeep.toml:2: `daemon.listen` is "), "{line}");
            assert!(hint.contains("allow_remote = true"), "{hint}");
            assert!(read(&format!("{text}allow_remote = true\n")).daemon.allow_remote);
        }
        for address in ["127.0.0.2:0", "[::1]:7878", "[::ffff:127.0.0.1]:80"] {
            read(&format!("[daemon]\nlisten = \"{address}\"\n"));
        }
        for (daemon, key) in [
            ("listen = \"localhost:7878\"", "listen"),
            ("listen = \"7878\"", "listen"),
            ("concurrency = 0", "concurrency"),
            ("concurrency = 65", "concurrency"),
            ("retry_for = \"a while\"", "retry_for"),
            ("token = \"hunter2\"", "token"),
        ] {
            let (line, _) = refusal(&format!("[daemon]\n{daemon}\n"));
            let begin = format!("pgkeep.toml:2: `daemon.{key}` must be ");
            assert!(line.starts_with(&begin) && !line.contains("hunter2"), "{line}");
        }
    }

    #[test]
    fn a_token_and_a_webhooks_url_come_from_private_files_too() {
        let home = tempfile::tempdir().expect("a directory");
        let private = |name: &str, text: &str| {
            let path = home.path().join(name);
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        };
        let text = "[daemon]\ntoken_file = \"token\"\n[notify.webhooks.ops]\nurl_file = \"url\"\n\
                    [notify.webhooks.chat]\nurl = \"https://chat/hunter2\"\ntemplate = \"slack\"\non = [\"success\"]\n";
        let loaded = loaded(home.path(), text).expect("loads");
        let shown = format!("{loaded:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        let settings = loaded.settings;
        assert!(settings.daemon.read_token().is_err(), "it is not there");
        private("token", "short\n");
        let error = settings.daemon.read_token().expect_err("too short").to_string();
        assert!(error.contains("16 bytes") && !error.contains("short"), "{error}");
        private("token", "0123456789abcdef\n");
        let token = settings.daemon.read_token().expect("reads").expect("is there");
        assert_eq!(token.expose(), "0123456789abcdef");
        let (ops, chat) = (&settings.notify.webhooks["ops"], &settings.notify.webhooks["chat"]);
        private("url", "nonsense\n");
        assert!(!ops.read_url().expect_err("no URL").to_string().contains("nonsense"));
        private("url", "https://hooks/x\n");
        assert_eq!(ops.read_url().expect("reads").expose(), "https://hooks/x");
        assert_eq!(ops.on, [News::Failure, News::Recovery, News::Overdue]);
        assert_eq!((chat.template, &*chat.on), (WebhookTemplate::Slack, &[News::Success][..]));
        assert_eq!(ops.template, WebhookTemplate::Json);
    }

    #[test]
    fn a_webhook_that_cannot_be_meant_is_refused() {
        for (webhook, line) in [
            (
                "template = \"json\"",
                "configuration: `notify.webhooks.ops.url` must be set, or `url_file` in its place",
            ),
            (
                "url = \"ops\"",
                "pgkeep.toml:2: `notify.webhooks.ops.url` must be a URL such as https://example.com/path",
            ),
            (
                "url = \"https://h\"\ntemplate = \"xml\"",
                "pgkeep.toml:3: `notify.webhooks.ops.template` must be \"json\" or \"slack\"",
            ),
            (
                "url = \"https://h\"\non = []",
                "pgkeep.toml:3: `notify.webhooks.ops.on` must be at least one of failure, recovery, success and overdue",
            ),
            (
                "url = \"https://h\"\non = [\"disaster\"]",
                "pgkeep.toml:3: `notify.webhooks.ops.on` must be at least one of failure, recovery, success and overdue",
            ),
            (
                "url = \"https://h\"\nurl_file = \"u\"",
                "`notify.webhooks.ops.url` and `notify.webhooks.ops.url_file` are both set in pgkeep.toml",
            ),
        ] {
            assert_eq!(refusal(&format!("[notify.webhooks.ops]\n{webhook}\n")).0, line);
        }
        let (line, _) = refusal("[notify.webhooks.Ops]\nurl = \"https://h\"\n");
        assert!(
            line.starts_with("pgkeep.toml:1: `notify.webhooks.Ops` must be named with"),
            "{line}"
        );
    }
}
