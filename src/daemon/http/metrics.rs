//! What Prometheus reads. `docs/monitoring.md` explains each metric; a test holds the two together.
//!
//! Made anew for each scrape from what is known, so that nothing lingers of a database that is gone. No label holds
//! more than names and words of the contract.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::daemon::runs::{DURATION_BOUNDS_S, Runs, State, Tally, Work};
use crate::daemon::shared::Health;
use crate::domain::status::{ClusterStatus, DatabaseStatus, Status};

/// OpenMetrics, which Prometheus has asked for since version 2.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the metrics are made from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) status: Option<Arc<Status>>,
    pub(super) health: Health,
    pub(super) runs: Runs,
    pub(super) started: Instant,
    pub(super) now: Timestamp,
}

type Labels = Vec<(&'static str, String)>;

/// What is told of each database.
struct Fact {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    /// None where there is nothing to tell: no sample, rather than a zero that looks like one.
    value: fn(&DatabaseStatus, Timestamp) -> Option<f64>,
}

static FACTS: [Fact; 14] = [
    Fact {
        name: "database_backups",
        help: "Backups of a database in the repository",
        unit: None,
        value: |one, _| Some(number(one.backups)),
    },
    Fact {
        name: "database_stored",
        help: "What they take up together",
        unit: Some(Unit::Bytes),
        value: |one, _| Some(number(one.stored_bytes)),
    },
    Fact {
        name: "last_good_backup_timestamp",
        help: "When the last good backup was whole",
        unit: Some(Unit::Seconds),
        value: |one, _| Some(unix(one.last_good.as_ref()?.finished_at)),
    },
    Fact {
        name: "last_good_backup_age",
        help: "How long ago that was",
        unit: Some(Unit::Seconds),
        value: |one, now| Some(age(one.last_good.as_ref()?.finished_at, now)),
    },
    Fact {
        name: "last_good_backup_duration",
        help: "How long the last good backup took",
        unit: Some(Unit::Seconds),
        value: |one, _| Some(seconds(one.last_good.as_ref()?.duration_ms)),
    },
    Fact {
        name: "last_good_backup_size",
        help: "Plain size of the last good backup",
        unit: Some(Unit::Bytes),
        value: |one, _| Some(number(one.last_good.as_ref()?.source_bytes)),
    },
    Fact {
        name: "last_good_backup_stored",
        help: "What the last good backup added to the repository",
        unit: Some(Unit::Bytes),
        value: |one, _| Some(number(one.last_good.as_ref()?.stored_bytes)),
    },
    Fact {
        name: "usual_backup_size",
        help: "Median plain size of the good backups before it",
        unit: Some(Unit::Bytes),
        value: |one, _| one.usual_bytes.map(number),
    },
    Fact {
        name: "newest_backup_in_doubt",
        help: "Whether the newest backup is suspect, foreign, or failed its verification",
        unit: None,
        value: |one, _| Some(truth(one.newest_in_doubt.is_some())),
    },
    Fact {
        name: "overdue",
        help: "Whether something should have happened and did not",
        unit: None,
        value: |one, _| Some(truth(!one.overdue.is_empty())),
    },
    Fact {
        name: "backups_removed_next",
        help: "Backups that the next prune removes",
        unit: None,
        value: |one, _| Some(number(one.removes_next.len() as u64)),
    },
    Fact {
        name: "last_verified_timestamp",
        help: "When a backup was last restored and found right",
        unit: Some(Unit::Seconds),
        value: |one, _| Some(unix(one.last_verified.as_ref()?.verified_at)),
    },
    Fact {
        name: "last_verified_age",
        help: "How long ago that was",
        unit: Some(Unit::Seconds),
        value: |one, now| Some(age(one.last_verified.as_ref()?.verified_at, now)),
    },
    Fact {
        name: "last_verified_duration",
        help: "How long fetching, restoring and checking took: the real recovery time",
        unit: Some(Unit::Seconds),
        value: |one, _| Some(seconds(one.last_verified.as_ref()?.duration_ms)),
    },
];

/// All metrics as text.
pub(super) fn render(source: Source) -> String {
    let mut registry = Registry::with_prefix("pgkeep");
    registry.register_collector(Box::new(source));
    let mut text = String::new();
    text::encode(&mut text, &registry).expect("a string takes it");
    text
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.process(&mut encoder)?;
        self.runs(&mut encoder)?;
        let Some(status) = &self.status else { return Ok(()) };
        repository(status, &mut encoder)?;
        for fact in &FACTS {
            let value = |database: &DatabaseStatus| (fact.value)(database, self.now);
            let samples = of_databases(status, &value);
            gauge(&mut encoder, fact.name, fact.help, fact.unit.clone(), samples)?;
        }
        next_runs(status, &mut encoder)
    }
}

impl Source {
    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauge(encoder, "build_info", "The version that runs", None, [(version, 1.0)])?;
        let ready = self.health.ready && !self.health.draining;
        let help = "Whether the daemon takes on work";
        gauge(encoder, "ready", help, None, [(vec![], truth(ready))])?;
        let round = self.health.last_round.unwrap_or(self.started).elapsed().as_secs_f64();
        let help = "Time since the scheduler last went round";
        let name = "scheduler_last_round_age";
        gauge(encoder, name, help, Some(Unit::Seconds), [(vec![], round)])?;
        let reached = self.health.repository_error.is_none();
        let help = "Whether the last look at the repository succeeded";
        gauge(encoder, "repository_reachable", help, None, [(vec![], truth(reached))])
    }

    fn runs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tallies = self.runs.tallies();
        let kinds = Work::ALL.iter().flat_map(|&work| [(work, true), (work, false)]);
        // From the first scrape on: a counter that appears with its first failure shows Prometheus no increase.
        let kinds: Vec<(Labels, Tally)> = kinds
            .map(|kind| (kind_labels(kind), tallies.get(&kind).cloned().unwrap_or_default()))
            .collect();
        let help = "Runs that ended since the daemon started";
        let mut metric = encoder.encode_descriptor("runs", help, None, MetricType::Counter)?;
        for (labels, tally) in &kinds {
            ConstCounter::new(tally.count).encode(metric.encode_family(labels)?)?;
        }
        let help = "How long they took";
        let (name, unit, kind) = ("run_duration", Unit::Seconds, MetricType::Histogram);
        let mut metric = encoder.encode_descriptor(name, help, Some(&unit), kind)?;
        for (labels, tally) in &kinds {
            let bounds = DURATION_BOUNDS_S.iter().map(|&bound| f64::from(bound));
            let bounds = bounds.chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(tally.buckets).collect();
            let sum = seconds(tally.duration_ms);
            let mut family = metric.encode_family(labels)?;
            family.encode_histogram::<Labels>(sum, tally.count, &buckets, None)?;
        }
        let all = self.runs.all();
        let help = "Runs that wait for their turn or are at work";
        let states = Work::ALL
            .iter()
            .flat_map(|&work| [State::Queued, State::Running].map(|state| (work, state)));
        let samples = states.map(|(work, state)| {
            let active = all.iter().filter(|run| run.work == work && run.state == state).count();
            let labels =
                vec![("verb", work.as_str().to_owned()), ("state", state.as_str().to_owned())];
            (labels, number(active as u64))
        });
        gauge(encoder, "runs_active", help, None, samples)
    }
}

fn repository(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "When the repository was last looked at";
    let samples = [(vec![], unix(status.at))];
    gauge(encoder, "status_timestamp", help, Some(Unit::Seconds), samples)?;
    let help = "Backups whose manifests cannot be read or trusted";
    let samples = [(vec![], number(status.faults.len() as u64))];
    gauge(encoder, "repository_faults", help, None, samples)?;
    let help = "Whether losing this host may lose every backup";
    let samples = [(vec![], truth(status.keys.is_kept_only_here()))];
    gauge(encoder, "identity_kept_only_here", help, None, samples)
}

fn next_runs(status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut samples = Vec::new();
    for cluster in &status.clusters {
        for database in &cluster.databases {
            let runs =
                [(Work::Snapshot, database.next_snapshot), (Work::Verify, database.next_verify)];
            for (work, at) in runs {
                let labels = database_labels(cluster, database).into_iter();
                let labels = labels.chain([("verb", work.as_str().to_owned())]).collect();
                samples.extend(at.map(|at| (labels, unix(at))));
            }
        }
        let labels = vec![
            ("cluster", cluster.name.to_string()),
            ("database", String::new()),
            ("verb", Work::Prune.as_str().to_owned()),
        ];
        samples.extend(cluster.next_prune.map(|at| (labels, unix(at))));
    }
    let help = "When a scheduled run comes next";
    gauge(encoder, "next_run_timestamp", help, Some(Unit::Seconds), samples)
}

fn of_databases(
    status: &Status,
    value: &dyn Fn(&DatabaseStatus) -> Option<f64>,
) -> Vec<(Labels, f64)> {
    let clusters = status.clusters.iter();
    let all = clusters.flat_map(|cluster| cluster.databases.iter().map(move |one| (cluster, one)));
    all.filter_map(|(cluster, one)| Some((database_labels(cluster, one), value(one)?))).collect()
}

fn database_labels(cluster: &ClusterStatus, database: &DatabaseStatus) -> Labels {
    vec![("cluster", cluster.name.to_string()), ("database", database.name.clone())]
}

fn kind_labels((work, succeeded): (Work, bool)) -> Labels {
    let result = if succeeded { State::Succeeded } else { State::Failed };
    vec![("verb", work.as_str().to_owned()), ("result", result.as_str().to_owned())]
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    samples: impl IntoIterator<Item = (Labels, f64)>,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    for (labels, value) in samples {
        if labels.is_empty() {
            metric.encode_gauge(&value)?;
        } else {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn truth(fact: bool) -> f64 {
    f64::from(u8::from(fact))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn number(value: u64) -> f64 {
    value as f64
}

fn seconds(ms: u64) -> f64 {
    number(ms) / 1000.0
}

fn age(since: Timestamp, now: Timestamp) -> f64 {
    since.duration_until(now).as_secs_f64().max(0.0)
}

fn unix(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}
