//! From what there is to how it stands: what counts, what is late, and what a wrong clock may not do.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;

use super::judge::{Facts, Terms, judge};
use crate::config::AlarmSettings;
use crate::domain::chunk::Hash;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::manifest::BEFORE_RESTORE_OF;
use crate::domain::retention::RetentionPolicy;
use crate::domain::schedule::Schedule;
use crate::domain::status::{
    ClusterStatus, DatabaseStatus, KeyStatus, MarkKind, Overdue, Rule, Status,
};
use crate::domain::suspect::Suspicion;
use crate::domain::verification::{Depth, Outcome, VerificationRecord};
use crate::repo::RepoError;
use crate::repo::catalog::{Catalog, Entry, Fault, ManifestName};

const NOW: &str = "2026-11-21T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn main() -> ClusterName {
    "main".parse().expect("a name")
}

fn keys() -> KeyStatus {
    KeyStatus {
        encrypted: true,
        epoch: None,
        recipients: Vec::new(),
        signer: None,
        identity_here: true,
        confirmed_elsewhere: Some(false),
    }
}

/// A backup of `shop` that took a minute and holds so many bytes.
fn backup(started_at: &str, bytes: u64) -> Entry {
    let started_at = at(started_at);
    let second = u32::try_from(started_at.as_second()).expect("this century");
    let manifest = json!({
        "format": 1, "id": BackupId::new(started_at, second), "kind": "snapshot", "cluster": "main",
        "database": "shop", "trigger": "scheduled", "started_at": started_at,
        "finished_at": started_at + Duration::from_mins(1), "host": "db1", "labels": {},
        "versions": {"server_version_num": 150_018, "server_version": "15.18", "pg_dump": "", "pgkeep": "0.1.0"},
        "system_identifier": null, "timeline": null, "lsn": null, "epoch": "0badcafe",
        "excluded_table_data": [], "source_bytes": bytes, "stored_bytes": 7, "chunks_total": 1,
        "chunks_new": 1, "parts": [], "chunk_list": {"size_bytes": 1, "blake3": "00"},
        "previous": null, "sealed": "",
    });
    Entry {
        manifest: serde_json::from_value(manifest).expect("a manifest"),
        manifest_hash: Hash([0; 32]),
        pinned: false,
        verification: None,
        suspect: None,
        foreign: false,
    }
}

/// The same with a verification that began then and took a minute and a half.
fn verified(entry: Entry, started_at: &str, result: Outcome) -> Entry {
    let record = VerificationRecord {
        format: 1,
        id: "20261121T030000Z-00000001".parse().expect("an id"),
        backup: entry.manifest.id.clone(),
        manifest_blake3: String::new(),
        started_at: at(started_at),
        duration_ms: 90_000,
        depth: Depth::Full,
        result,
        checks: Vec::new(),
        host: "db1".to_owned(),
        pgkeep: "0.1.0".to_owned(),
    };
    Entry { verification: Some(record), ..entry }
}

fn suspect(entry: Entry) -> Entry {
    let against = "20261120T020000Z-00000001".parse().expect("an id");
    let suspicion = Suspicion { against, rows_before: 6000, rows: 10, tables: Vec::new() };
    Entry { suspect: Some(suspicion), ..entry }
}

fn of(entry: Entry, change: impl FnOnce(&mut Entry)) -> Entry {
    let mut entry = entry;
    change(&mut entry);
    entry
}

/// What a test configures for cluster `main`.
struct Scene {
    snapshot: Option<Schedule>,
    retention: RetentionPolicy,
    databases: Vec<String>,
    alarm: AlarmSettings,
    now: Timestamp,
}

fn schedule(text: &str, zone: &str) -> Schedule {
    let zone = TimeZone::get(zone).expect("a zone");
    Schedule::parse(text, zone, Duration::ZERO).expect("a schedule")
}

impl Scene {
    /// Nightly, two intervals, verified within 30 days.
    fn nightly() -> Self {
        Self {
            snapshot: Some(schedule("0 2 * * *", "UTC")),
            retention: RetentionPolicy::default(),
            databases: vec!["shop".to_owned()],
            alarm: AlarmSettings { intervals: 2, verified_within: Duration::from_hours(30 * 24) },
            now: at(NOW),
        }
    }

    fn status(&self, entries: Vec<Entry>) -> Status {
        let mut catalog = Catalog { entries, faults: Vec::new() };
        catalog.entries.sort_by_key(|entry| std::cmp::Reverse(entry.manifest.started_at));
        self.status_of(&catalog)
    }

    fn status_of(&self, catalog: &Catalog) -> Status {
        let name = main();
        let terms = Terms {
            name: &name,
            snapshot: self.snapshot.as_ref(),
            verify: self.snapshot.as_ref(),
            prune: self.snapshot.as_ref(),
            alarm: self.alarm,
            retention: &self.retention,
            databases: &self.databases,
        };
        let repository = "file:///srv/backup".to_owned();
        judge(Facts { at: self.now, repository, keys: keys(), clusters: vec![terms], catalog })
    }

    fn cluster(&self, entries: Vec<Entry>) -> ClusterStatus {
        self.status(entries).clusters.remove(0)
    }

    fn shop(&self, entries: Vec<Entry>) -> DatabaseStatus {
        self.cluster(entries).databases.remove(0)
    }
}

fn good_id(database: &DatabaseStatus) -> &str {
    database.last_good.as_ref().map_or("none", |good| &good.id.second()[..8])
}

#[test]
fn the_last_good_backup_is_the_newest_that_nobody_has_to_look_at() {
    let good = || backup("2026-11-18T02:00:00Z", 100);
    let newer = || backup("2026-11-21T02:00:00Z", 100);
    let failed = verified(newer(), "2026-11-21T03:00:00Z", Outcome::Failed);
    let foreign = of(newer(), |entry| entry.foreign = true);
    for (doubtful, why) in [
        (suspect(newer()), "suspect: 10 rows"),
        (foreign, "of a server that the cluster does not know"),
        (failed, "its verification failed"),
    ] {
        let shop = Scene::nightly().shop(vec![good(), doubtful]);
        assert_eq!(good_id(&shop), "20261118", "{why}");
        let (facts, told) = shop.newest_in_doubt.as_ref().expect("it is told");
        assert!(facts.id.as_str().starts_with("20261121") && told.starts_with(why), "{told}");
        assert!(shop.timeline.iter().any(|mark| mark.kind == MarkKind::DoubtfulBackup));
    }
    let imported = of(newer(), |entry| {
        entry.manifest.trigger = crate::domain::manifest::Trigger::Imported;
    });
    let safety = of(newer(), |entry| {
        entry.manifest.labels.insert(BEFORE_RESTORE_OF.to_owned(), String::new());
    });
    for passed_over in [imported.clone(), safety] {
        let shop = Scene::nightly().shop(vec![good(), passed_over]);
        assert_eq!(good_id(&shop), "20261118");
        assert_eq!(shop.newest_in_doubt, None);
        assert_eq!(shop.overdue.len(), 1, "it does not put off the next: {:?}", shop.overdue);
    }
    let shop = Scene::nightly().shop(vec![imported]);
    let (_, why) = shop.newest_in_doubt.expect("it is told");
    assert_eq!(
        (why.as_str(), shop.overdue),
        ("imported: its rows may be of any age", vec![Overdue::backup("no good backup")])
    );
    assert_eq!(good_id(&Scene::nightly().shop(vec![good(), newer()])), "20261121");
}

#[test]
fn a_backup_is_overdue_after_so_many_of_its_longest_intervals_and_not_before() {
    let scene = Scene::nightly();
    let overdue = |scene: &Scene, started: &str, now: &str| {
        let scene = Scene { now: at(now), snapshot: scene.snapshot.clone(), ..Scene::nightly() };
        scene.shop(vec![backup(started, 1)]).overdue
    };
    let started = "2026-11-19T02:00:00Z";
    // As long as the last one took is added.
    assert!(overdue(&scene, started, "2026-11-21T02:01:00Z").is_empty());
    assert_eq!(
        overdue(&scene, started, "2026-11-21T05:00:00Z"),
        ["no good backup for 2d 3h; 2 × 1d is the limit"]
    );
    // Working hours: nights and weekends are intervals too, however often it runs in between.
    let working =
        Scene { snapshot: Some(schedule("*/5 9-17 * * 1-5", "Europe/Berlin")), ..Scene::nightly() };
    let friday = "2026-11-20T16:55:00Z";
    assert!(overdue(&working, friday, "2026-11-23T07:59:00Z").is_empty());
    assert!(!overdue(&working, friday, "2026-11-26T08:00:00Z").is_empty());
    let yearly = Scene { snapshot: Some(schedule("0 0 1 1 *", "UTC")), ..Scene::nightly() };
    assert!(
        overdue(&yearly, "2026-01-01T00:00:00Z", NOW).iter().all(|why| why.rule == Rule::Verified)
    );
    // Nothing is scheduled, or nobody asks.
    let none = Scene { snapshot: None, ..Scene::nightly() };
    assert!(overdue(&none, "2026-11-01T02:00:00Z", NOW).is_empty());
    let alarm = AlarmSettings { intervals: 0, verified_within: Duration::ZERO };
    let silent = Scene { alarm, ..Scene::nightly() };
    assert!(silent.shop(vec![backup("2025-11-01T02:00:00Z", 1)]).overdue.is_empty());
}

#[test]
fn a_configured_database_without_a_backup_is_overdue_and_a_forgotten_one_never() {
    let mut scene = Scene::nightly();
    scene.databases.push("blog".to_owned());
    let gone = of(backup("2025-01-01T02:00:00Z", 1), |entry| {
        entry.manifest.database = "gone".to_owned();
    });
    let databases = scene.cluster(vec![backup("2026-11-21T02:00:00Z", 1), gone]).databases;
    let told: Vec<(&str, bool, u64, usize)> = databases
        .iter()
        .map(|one| (&*one.name, one.configured, one.backups, one.overdue.len()))
        .collect();
    assert_eq!(told, [("blog", true, 0, 1), ("gone", false, 1, 0), ("shop", true, 1, 0)]);
    assert_eq!(databases[0].overdue, ["no backup yet"]);
    assert!(databases[1].next_snapshot.is_none() && databases[0].next_snapshot.is_some());
}

#[test]
fn a_verification_counts_from_its_end_and_a_database_never_verified_from_its_first_backup() {
    let scene = Scene::nightly();
    let fresh = || backup("2026-11-21T02:00:00Z", 1);
    let old = |then: &str| verified(backup("2026-09-01T02:00:00Z", 1), then, Outcome::Passed);
    let shop = scene.shop(vec![old("2026-11-01T03:00:00Z"), fresh()]);
    let facts = shop.last_verified.expect("one passed");
    assert_eq!(facts.duration_ms, 90_000, "the real recovery time");
    assert_eq!(facts.verified_at, at("2026-11-01T03:01:30Z"));
    assert!(shop.overdue.is_empty(), "{:?}", shop.overdue);
    let shop = scene.shop(vec![old("2026-10-01T03:00:00Z"), fresh()]);
    assert_eq!(shop.overdue, ["no verified restore for 51d 8h; 30d is the limit"]);
    let failed =
        verified(backup("2026-10-01T02:00:00Z", 1), "2026-11-20T03:00:00Z", Outcome::Failed);
    let shop = scene.shop(vec![failed, fresh()]);
    assert!(shop.last_verified.is_none());
    assert_eq!(
        shop.overdue,
        ["never verified since its first backup 51d 10h ago; 30d is the limit"]
    );
    let foreign = of(old("2026-11-20T03:00:00Z"), |entry| entry.foreign = true);
    assert!(scene.shop(vec![foreign, fresh()]).last_verified.is_none());
}

#[test]
fn the_usual_size_is_the_median_of_the_seven_good_ones_before() {
    let scene = Scene::nightly();
    let day = |day: u32, bytes| backup(&format!("2026-11-{day:02}T02:00:00Z"), bytes);
    let mut entries: Vec<Entry> =
        (1..=9).map(|number| day(number, u64::from(number) * 10)).collect();
    entries.push(suspect(day(10, 1)));
    entries.push(day(11, 5000));
    // Of 3 to 9: neither itself, nor the suspect one, nor those before the seven.
    assert_eq!(scene.shop(entries).usual_bytes, Some(60));
    assert_eq!(scene.shop(vec![day(11, 5)]).usual_bytes, None);
    assert_eq!(scene.shop(vec![day(10, 7), day(11, 5)]).usual_bytes, Some(7));
}

#[test]
fn next_runs_follow_the_schedule_in_its_zone_and_each_jobs_own_jitter() {
    let cluster = Scene::nightly().cluster(vec![backup("2026-11-21T02:00:00Z", 1)]);
    assert_eq!(cluster.next_prune, Some(at("2026-11-22T02:00:00Z")));
    assert_eq!(cluster.schedules.snapshot.as_deref(), Some("0 2 * * *"));
    let kathmandu =
        Scene { snapshot: Some(schedule("0 2 * * *", "Asia/Kathmandu")), ..Scene::nightly() };
    let cluster = kathmandu.cluster(Vec::new());
    assert_eq!(cluster.timezone, "Asia/Kathmandu");
    assert_eq!(cluster.databases[0].next_snapshot, Some(at("2026-11-21T20:15:00Z")));
    let jitter = Duration::from_hours(1);
    let spread = Schedule::parse("0 2 * * *", TimeZone::UTC, jitter).expect("a schedule");
    let offset = |job: &str| spread.offset(job);
    let (snapshot, verify) = (offset("snapshot main/shop"), offset("verify main/shop"));
    let prune = offset("prune main");
    let two = at("2026-11-22T02:00:00Z");
    let scene = Scene { snapshot: Some(spread), ..Scene::nightly() };
    let cluster = scene.cluster(Vec::new());
    let shop = &cluster.databases[0];
    assert_eq!(shop.next_snapshot, Some(two + snapshot));
    assert_eq!(shop.next_verify, Some(two + verify));
    assert_eq!(cluster.next_prune, Some(two + prune));
    assert!(snapshot != verify, "they do not begin at once");
}

#[test]
fn what_the_next_prune_removes_is_what_retention_decides() {
    let policy = RetentionPolicy { keep_last: 1, ..RetentionPolicy::nothing() };
    let scene = Scene { retention: policy, ..Scene::nightly() };
    let day = |day: u32| backup(&format!("2026-11-{day:02}T02:00:00Z"), 1);
    let pinned = of(day(16), |entry| entry.pinned = true);
    let proved = verified(day(17), "2026-11-17T03:00:00Z", Outcome::Passed);
    let shop = scene.shop(vec![pinned, proved, day(18), day(19), day(21)]);
    let told: Vec<(&str, &str)> =
        shop.removes_next.iter().map(|one| (&one.id.as_str()[..8], &*one.reason)).collect();
    assert_eq!(told, [("20261119", "expired"), ("20261118", "expired")]);
    // Of a cluster that is not configured here nothing is removed.
    let other = of(day(1), |entry| entry.manifest.cluster = "other".parse().expect("a name"));
    let status = scene.status(vec![other, day(21)]);
    let other = &status.clusters[1];
    assert_eq!((other.name.as_str(), &*other.timezone), ("other", "UTC"));
    assert!(other.databases[0].removes_next.is_empty() && !other.databases[0].configured);
}

#[test]
fn a_clock_that_jumps_either_way_neither_panics_nor_silences_the_alarm() {
    // One backup was made under a clock a year ahead; the others stopped a week ago.
    let ahead = || backup("2027-11-21T02:00:00Z", 1);
    let shop = Scene::nightly().shop(vec![ahead(), backup("2026-11-14T02:00:00Z", 1)]);
    assert_eq!(good_id(&shop), "20261114");
    let (facts, why) = shop.newest_in_doubt.expect("it is told");
    assert_eq!((facts.age_ms, &*why), (0, "it began after now, by this host's clock"));
    assert_eq!(shop.overdue, ["no good backup for 7d 10h; 2 × 1d is the limit"]);
    // Where there is no other it has to do.
    let shop = Scene::nightly().shop(vec![ahead()]);
    assert!(good_id(&shop) == "20271121" && shop.overdue.is_empty());
    // A day back and a day forth; and clocks that nobody can have meant.
    let entries = || {
        let proved =
            verified(backup("2026-11-20T02:00:00Z", 1), "2026-11-20T03:00:00Z", Outcome::Passed);
        vec![proved, backup("2026-11-21T02:00:00Z", 1)]
    };
    for now in ["2026-11-20T12:00:00Z", "2026-11-22T12:00:00Z"] {
        let scene = Scene { now: at(now), ..Scene::nightly() };
        assert!(scene.shop(entries()).overdue.is_empty(), "{now}");
    }
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let scene = Scene { now, ..Scene::nightly() };
        let shop = scene.shop(entries());
        assert_eq!(shop.overdue.is_empty(), now < Timestamp::MAX, "{now}");
    }
}

#[test]
fn the_timeline_holds_30_days_oldest_first_and_200_marks() {
    let hours = |hours: i64| {
        let started = at("2026-11-21T11:00:00Z") - jiff::SignedDuration::from_hours(hours);
        backup(&started.to_string(), 1)
    };
    let timeline = Scene::nightly().shop((0..40).map(|day| hours(day * 24)).collect()).timeline;
    assert_eq!(timeline.len(), 30);
    assert!(timeline.is_sorted_by_key(|mark| mark.at));
    let timeline = Scene::nightly().shop((0..300).map(hours).collect()).timeline;
    assert_eq!(timeline.len(), 200);
    assert_eq!(timeline[199].at, at("2026-11-21T11:01:00Z"), "the newest stay");
    let proved = verified(hours(1), "2026-11-21T11:30:00Z", Outcome::Passed);
    let kinds: Vec<MarkKind> =
        Scene::nightly().shop(vec![proved]).timeline.iter().map(|mark| mark.kind).collect();
    assert_eq!(kinds, [MarkKind::Backup, MarkKind::Verified]);
}

#[test]
fn what_cannot_be_read_is_told_and_fails_a_strict_look() {
    let id: BackupId = "20261121T020000Z-5f3a9c21".parse().expect("an id");
    let name = ManifestName { cluster: main(), id: id.clone() };
    let key = crate::repo::layout::manifest(&main(), &id);
    let fault = Fault { name, error: RepoError::Unsigned(key) };
    let entries = vec![backup("2026-11-21T02:00:00Z", 1)];
    let status = Scene::nightly().status_of(&Catalog { entries, faults: vec![fault] });
    assert_eq!(status.failures().len(), 1);
    assert!(status.failures()[0].starts_with("backup 20261121T020000Z-5f3a9c21 of cluster main: "));
    assert!(status.keys.is_kept_only_here());
    let late = Scene { now: at("2026-12-24T12:00:00Z"), ..Scene::nightly() };
    let failures = late.status(vec![backup("2026-11-21T02:00:00Z", 1)]).failures();
    assert!(
        failures.len() == 2 && failures[0].starts_with("main/shop: no good backup for 33d 10h")
    );
}

/// 100 clusters × 5 databases × 60 backups.
#[test]
fn many_databases_are_judged_in_no_time_to_speak_of() {
    let names: Vec<ClusterName> =
        (0..100).map(|number| format!("c{number}").parse().expect("a name")).collect();
    let databases: Vec<String> = (0..5).map(|number| format!("d{number}")).collect();
    let mut entries = Vec::new();
    for cluster in &names {
        for database in &databases {
            for day in 0..60 {
                let started = at(NOW) - jiff::SignedDuration::from_hours(24 * day + 10);
                entries.push(of(backup(&started.to_string(), 1), |entry| {
                    entry.manifest.cluster = cluster.clone();
                    entry.manifest.database.clone_from(database);
                }));
            }
        }
    }
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.manifest.started_at));
    let catalog = Catalog { entries, faults: Vec::new() };
    let (nightly, retention) = (schedule("0 2 * * *", "UTC"), RetentionPolicy::default());
    let alarm = Scene::nightly().alarm;
    let terms = |name| Terms {
        name,
        snapshot: Some(&nightly),
        verify: Some(&nightly),
        prune: Some(&nightly),
        alarm,
        retention: &retention,
        databases: &databases,
    };
    let clusters = names.iter().map(terms).collect();
    let begun = std::time::Instant::now();
    let status = judge(Facts {
        at: at(NOW),
        repository: String::new(),
        keys: keys(),
        clusters,
        catalog: &catalog,
    });
    let took = begun.elapsed();
    assert_eq!(status.clusters.len(), 100);
    // Quadratic work over 30,000 backups would take minutes; this is a second even without optimisation.
    assert!(took < Duration::from_secs(20), "{took:?}");
}
