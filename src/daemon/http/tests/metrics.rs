//! What Prometheus reads, and what the documents say of it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Span, Timestamp};
use yaml_rust2::YamlLoader;

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

/// The values that each label of each metric has.
type Labels = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn labels(text: &str) -> Labels {
    let mut all = Labels::new();
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let (sample, _) = sample.rsplit_once(' ').expect("a value");
        let (name, inside) = sample.split_once('{').unwrap_or((sample, "}"));
        let labels = all.entry(name.to_owned()).or_default();
        for pair in inside.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once('=').expect("a label");
            let values = labels.entry(label.to_owned()).or_default();
            values.insert(value.trim_matches('"').to_owned());
        }
    }
    all
}

/// What stands in the brackets after each of these words.
fn bracketed<'a>(text: &'a str, word: &str) -> Vec<Vec<&'a str>> {
    let list = |rest: &'a str| rest.split(')').next().expect("one part").split(',').map(str::trim);
    let lists = text.split(word).skip(1).map(list);
    lists.map(Iterator::collect).collect()
}

/// The labels that the answer to an expression has; what it asks for that no sample has is a fault. Enough of the
/// language for what we ship; that it is sound, promtool says (tests/system/alerts).
fn answered(expression: &str, all: &Labels) -> Result<BTreeSet<String>, String> {
    let mut there = BTreeSet::new();
    for name in mentioned(expression) {
        let labels = all.get(&name).ok_or_else(|| format!("no metric {name}"))?;
        there.extend(labels.keys().cloned());
        for part in expression.split(&*name).skip(1) {
            let Some(inside) = part.strip_prefix('{') else { continue };
            let inside = inside.split('}').next().expect("one part");
            for matcher in inside.split(',') {
                let (label, value) = matcher.split_once(['=', '!']).expect("a matcher");
                let values = labels.get(label).ok_or_else(|| format!("{name} has no {label}"))?;
                let value = value.trim_start_matches(['=', '~']).trim_matches('"');
                if !value.starts_with('$') && !values.contains(value) {
                    return Err(format!("{label} of {name} is never {value}"));
                }
            }
        }
    }
    // The scrape's own.
    there.extend(["instance".to_owned(), "job".to_owned()]);
    let mut kept = None;
    for word in [" by (", " on ("] {
        for list in bracketed(expression, word) {
            if let Some(label) = list.iter().find(|label| !there.contains(**label)) {
                return Err(format!("no sample of it has {label}"));
            }
            if word == " by (" {
                kept = Some(list.into_iter().map(str::to_owned).collect());
            }
        }
    }
    let folds = |word: &&str| expression.starts_with(word);
    if ["sum(", "max(", "min(", "absent("].iter().any(folds) {
        return Ok(BTreeSet::new());
    }
    Ok(kept.unwrap_or(there))
}

/// The labels that a text in Grafana's `{{label}}` or Prometheus' `{{ $labels.label }}` shows.
fn shown(text: &str) -> Vec<String> {
    let places = text.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim()));
    let label = |place: &str| match place.strip_prefix("$labels.") {
        Some(label) => Some(label.to_owned()),
        None => (!place.starts_with('$')).then(|| place.to_owned()),
    };
    places.filter_map(label).collect()
}

/// Every object in it that has an expression.
fn asking(value: &serde_json::Value) -> Vec<&serde_json::Value> {
    let children: Vec<&serde_json::Value> = match value {
        serde_json::Value::Array(values) => values.iter().collect(),
        serde_json::Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    };
    let own = value.get("expr").map(|_| value);
    own.into_iter().chain(children.into_iter().flat_map(asking)).collect()
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_labels_that_samples_have() {
    let daemon = Daemon::start().await;
    daemon.shared.set_status(status(vec![database("kennel_prod")]));
    let all = labels(&scraped(&daemon).await);
    let check = |expression: &str, texts: &[&str]| {
        let there = answered(expression, &all).unwrap_or_else(|why| panic!("{expression}: {why}"));
        for label in texts.iter().flat_map(|text| shown(text)) {
            assert!(there.contains(&label), "{expression} has no {label} to show");
        }
    };
    let rules = YamlLoader::load_from_str(RULES).expect("YAML");
    let rules = rules[0]["groups"][0]["rules"].as_vec().expect("rules");
    assert!(rules.len() > 10);
    for rule in rules {
        let annotations = rule["annotations"].as_hash().expect("annotations");
        let texts: Vec<&str> = annotations.values().filter_map(|text| text.as_str()).collect();
        assert!(annotations.len() == texts.len() && !rule["annotations"]["summary"].is_badvalue());
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning")), "{rule:?}");
        check(rule["expr"].as_str().expect("an expression"), &texts);
    }
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let targets = asking(&dashboard);
    assert!(targets.len() > 20);
    for target in targets {
        let legend = target["legendFormat"].as_str().unwrap_or_default();
        check(target["expr"].as_str().expect("an expression"), &[legend]);
    }
    // What it offers to choose from.
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (series, label) = inside.and_then(|inside| inside.rsplit_once(", ")).expect("a query");
        check(series, &[&format!("{{{{{label}}}}}")]);
    }
    // And it would see what is not there.
    for wrong in [
        "pgkeep_overdu",
        "pgkeep_overdue{verb=\"snapshot\"}",
        "pgkeep_runs_total{result=\"error\"}",
        "sum by (database) (pgkeep_runs_active)",
        "pgkeep_overdue unless on (instance, verb) pgkeep_ready",
    ] {
        assert!(answered(wrong, &all).is_err(), "{wrong}");
    }
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
