//! What Prometheus reads, and what the documents say of it.

use std::collections::BTreeSet;

use jiff::{Span, Timestamp};

use super::support::{Daemon, database, run, run_id, status};
use crate::daemon::runs::{State, Work};
use crate::domain::status::Overdue;

const DOCUMENT: &str = include_str!("../../../../docs/monitoring.md");
const RULES: &str = include_str!("../../../../docs/monitoring/alerts.yml");
const DASHBOARD: &str = include_str!("../../../../docs/monitoring/grafana.json");

async fn scraped(daemon: &Daemon) -> String {
    let answer = daemon.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with("# EOF\n"), "{}", answer.body);
    answer.body
}

/// The value of the sample that begins so.
#[track_caller]
fn value(text: &str, sample: &str) -> f64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(sample));
    let mut values = lines.filter_map(|rest| rest.strip_prefix(' ')?.parse().ok());
    let value = values.next().unwrap_or_else(|| panic!("no {sample} in\n{text}"));
    assert_eq!(values.next(), None, "{sample} twice");
    value
}

/// The names that samples have, as Prometheus and its users write them.
fn names(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
    samples.map(name).collect()
}

/// Every word that could only be the name of a metric.
fn mentioned(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metric = |word: &&str| word.starts_with("pgkeep_") && *word != "pgkeep_token";
    words.filter(metric).map(str::to_owned).collect()
}

/// Of a histogram only the name without its endings is written down.
fn without_endings(names: &BTreeSet<String>) -> BTreeSet<String> {
    let histogram = "pgkeep_run_duration_seconds";
    let short = |name: &String| match name.strip_prefix(histogram) {
        Some("_bucket" | "_sum" | "_count") => histogram.to_owned(),
        _ => name.clone(),
    };
    names.iter().map(short).collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_metric_is_there() {
    let daemon = Daemon::start().await;
    daemon.shared.set_status(status(vec![database("kennel_prod")]));
    let there = names(&scraped(&daemon).await);
    assert!(there.len() > 20, "{there:?}");
    assert_eq!(mentioned(DOCUMENT), without_endings(&there));
    for text in [RULES, DASHBOARD] {
        let unknown: Vec<_> = mentioned(text).difference(&there).cloned().collect();
        assert_eq!(unknown, [""; 0]);
    }
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
    // The dashboard shows all there is, but what only tells alarms and scripts when.
    let unseen: Vec<_> = without_endings(&there)
        .difference(&without_endings(&mentioned(DASHBOARD)))
        .cloned()
        .collect();
    assert_eq!(
        unseen,
        ["pgkeep_last_good_backup_timestamp_seconds", "pgkeep_last_verified_timestamp_seconds"]
    );
}

#[tokio::test]
async fn samples_tell_what_the_status_tells() {
    let daemon = Daemon::start().await;
    let mut late = database("late");
    (late.last_verified, late.usual_bytes) = (None, None);
    late.overdue = vec![Overdue::backup("no good backup for 3 d")];
    daemon.shared.set_status(status(vec![database("kennel_prod"), late]));
    let text = scraped(&daemon).await;
    let of = |name: &str, database: &str| {
        value(&text, &format!("pgkeep_{name}{{cluster=\"main\",database=\"{database}\"}}"))
    };
    assert!((of("last_good_backup_size_bytes", "kennel_prod") - 1.25e9).abs() < 0.5);
    assert!((of("usual_backup_size_bytes", "kennel_prod") - 1.21e9).abs() < 0.5);
    assert!((of("last_verified_duration_seconds", "kennel_prod") - 245.0).abs() < 0.01);
    let age = of("last_good_backup_age_seconds", "kennel_prod");
    assert!((18_000.0..18_060.0).contains(&age), "{age}");
    assert!((of("database_backups", "kennel_prod") - 37.0).abs() < 0.1);
    assert!(of("overdue", "kennel_prod") < 0.5 && of("overdue", "late") > 0.5);
    for absent in ["last_verified_timestamp_seconds", "usual_backup_size_bytes"] {
        let sample = format!("pgkeep_{absent}{{cluster=\"main\",database=\"late\"}}");
        assert!(!text.contains(&sample), "what is not known has no value: {sample}");
    }
    let next = "pgkeep_next_run_timestamp_seconds{cluster=\"main\",database=\"\",verb=\"prune\"}";
    assert!(value(&text, next) > 1.7e9);
    assert!(value(&text, "pgkeep_ready") > 0.5);
    daemon.shared.update_health(|health| {
        health.repository_error = Some("https://user:secret@store/ refused".to_owned());
        health.draining = true;
    });
    let text = scraped(&daemon).await;
    assert!(value(&text, "pgkeep_ready") < 0.5);
    assert!(value(&text, "pgkeep_repository_reachable") < 0.5);
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn before_the_first_look_there_is_nothing_of_databases() {
    let daemon = Daemon::start().await;
    let text = scraped(&daemon).await;
    assert!(!text.contains("database="), "{text}");
    let failed = "pgkeep_runs_total{verb=\"snapshot\",result=\"failed\"}";
    assert!(value(&text, failed).abs() < 0.1, "counted from the beginning on");
}

#[tokio::test]
async fn runs_are_counted_even_once_they_are_forgotten() {
    let daemon = Daemon::start().await;
    let runs = &daemon.shared.runs;
    let began: Timestamp = "2026-11-28T20:00:00Z".parse().expect("a time");
    for number in 0..1100 {
        let id = run_id(number);
        runs.add(run(&id, Work::Verify));
        runs.update(&id, |run| {
            run.started_at = Some(began);
            run.finished_at = began.checked_add(Span::new().seconds(90)).ok();
            run.state = if number < 100 { State::Failed } else { State::Succeeded };
        });
    }
    runs.add(run(&run_id(2000), Work::Prune));
    assert_eq!(runs.all().len(), 1001);
    let text = scraped(&daemon).await;
    let of = |rest: &str| value(&text, &format!("pgkeep_{rest}"));
    assert!((of("runs_total{verb=\"verify\",result=\"failed\"}") - 100.0).abs() < 0.1);
    assert!((of("runs_total{verb=\"verify\",result=\"succeeded\"}") - 1000.0).abs() < 0.1);
    let labels = "verb=\"verify\",result=\"succeeded\"}";
    assert!((of(&format!("run_duration_seconds_sum{{{labels}")) - 90_000.0).abs() < 0.1);
    for (bound, count) in [("60.0", 0.0), ("300.0", 1000.0), ("+Inf", 1000.0)] {
        let bucket = format!("run_duration_seconds_bucket{{le=\"{bound}\",{labels}");
        assert!((of(&bucket) - count).abs() < 0.1, "{bucket}");
    }
    assert!((of("runs_active{verb=\"prune\",state=\"queued\"}") - 1.0).abs() < 0.1);
    assert!(of("runs_active{verb=\"verify\",state=\"running\"}").abs() < 0.1);
}

#[tokio::test]
async fn odd_names_of_databases_break_no_line() {
    let daemon = Daemon::start().await;
    daemon.shared.set_status(status(vec![database("a\"b\\c\nd{e}=é")]));
    let text = scraped(&daemon).await;
    let sample = r#"pgkeep_overdue{cluster="main",database="a\"b\\c\nd{e}=é"}"#;
    assert!(value(&text, sample) < 0.5);
    let sound = |line: &str| line.starts_with('#') || line.starts_with("pgkeep_");
    assert!(text.lines().all(sound), "{text}");
}
