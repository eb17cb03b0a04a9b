//! How it stands and who did what: told by runs against a real server.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::keeper::Pgkeep;
use crate::support::{Cluster, Keeper, Server};

const SCHEDULE: &str = "PGKEEP__CLUSTERS__MAIN__SNAPSHOT__SCHEDULE";
const INTERVALS: &str = "PGKEEP__CLUSTERS__MAIN__ALARM__INTERVALS";
const VERIFIED: &str = "PGKEEP__CLUSTERS__MAIN__ALARM__VERIFIED_WITHIN";
const KEEP_LAST: &str = "PGKEEP__CLUSTERS__MAIN__RETENTION__KEEP_LAST";

/// The command on a host whose clock stands that far from the true time.
fn at(keeper: &Keeper, shift: &str, words: &str) -> Pgkeep {
    let program = env!("CARGO_BIN_EXE_pgkeep");
    keeper.shell(&format!("exec faketime --exclude-monotonic -f '{shift}' '{program}' {words}"))
}

#[track_caller]
fn log(keeper: &Keeper, args: &[&str]) -> Vec<Value> {
    let log = keeper.pgkeep(["log", "--json"]).args(args).run().expect_code(0).json();
    log.as_array().expect("`log` is an array").clone()
}

#[track_caller]
fn shop(keeper: &Keeper, name: &str) -> Value {
    let status = keeper.pgkeep(["status", "--json"]).run().expect_code(0).json();
    let databases = status["clusters"][0]["databases"].as_array().expect("an array").clone();
    let found = databases.into_iter().find(|one| one["name"] == *name);
    found.expect("every database that is meant is told of")
}

/// The manifest's run, as it is stored.
fn run_of(keeper: &Keeper, id: &str) -> String {
    let snapshots = keeper.objects_under("clusters/main/snapshots/");
    let (_, path) = snapshots
        .into_iter()
        .find(|(key, _)| key.ends_with(&format!("/{id}.json")))
        .expect("the manifest is there");
    let text = std::fs::read(path).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&text).expect("JSON");
    manifest["run"].as_str().expect("a run").to_owned()
}

#[test]
fn every_run_is_in_the_log_under_the_id_that_its_manifest_bears() {
    let database = Server::older().database("audited");
    let mut keeper = Keeper::initialised(&database.shop(200).url());
    keeper.set(KEEP_LAST, "1");
    assert_eq!(keeper.pgkeep(["log"]).run().expect_code(0).stdout, "no events\n");
    let old = at(&keeper, "-3d", "snapshot --json").run().expect_code(0).json();
    let old = old["id"].as_str().expect("an id").to_owned();
    let kept = keeper.snapshot_id();
    keeper.verify(&[&kept]);
    keeper.pgkeep(["pin", &kept]).run().expect_code(0);
    keeper.pgkeep(["unpin", &kept]).run().expect_code(0);
    keeper.pgkeep(["prune"]).run().expect_code(0);
    let absent = keeper.pgkeep(["snapshot", "nosuch"]).run();
    assert_eq!(absent.code, 4, "{}", absent.stderr);
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", &kept, "--as", &copy]).run().expect_code(0);

    let events = log(&keeper, &[]);
    let told = |key: &str| events.iter().map(|one| one[key].clone()).collect::<Vec<Value>>();
    // The snapshot of three days ago is the oldest, whenever it was put.
    let verbs =
        ["restore", "snapshot", "prune", "prune", "unpin", "pin", "verify", "snapshot", "snapshot"];
    assert_eq!(told("event"), verbs);
    let codes: Vec<u64> = told("exit_code").iter().filter_map(Value::as_u64).collect();
    assert_eq!(codes, [0, 4, 0, 0, 0, 0, 0, 0, 0]);
    for (event, id) in [(&events[7], &kept), (&events[8], &old)] {
        assert_eq!(
            (&event["backup"], &event["database"]),
            (&Value::from(id.as_str()), &Value::from(&*database.name))
        );
        if *id == kept {
            assert_eq!(event["run"], run_of(&keeper, id));
            assert_eq!(event["run"], event["id"]);
        }
    }
    assert_eq!(events[0]["message"], format!("restored as {copy}"));
    assert!(
        events[1]["message"].as_str().is_some_and(|why| why.contains("nosuch")),
        "{}",
        events[1]
    );
    // What a prune is about to remove bears the run's id; how it ended names that run.
    let (removing, ended) = (&events[3], &events[2]);
    assert_eq!(removing["backups"][0]["id"], old);
    assert_eq!((&removing["run"], &ended["run"]), (&removing["id"], &removing["id"]));
    assert_ne!(ended["id"], ended["run"]);
    assert!(ended["message"].as_str().is_some_and(|told| told.starts_with("removed 1 backups")));
    let runs: BTreeSet<String> = told("run").iter().map(ToString::to_string).collect();
    assert_eq!(runs.len(), verbs.len() - 1);
    for event in &events {
        let known = |key: &str| event[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(known("user") && known("host") && event["origin"] == "command", "{event}");
    }

    assert_eq!(log(&keeper, &["--limit", "2"]), events[..2]);
    assert_eq!(log(&keeper, &["--database", "nosuch"]), events[1..2]);
    assert!(log(&keeper, &["--cluster", "other"]).is_empty());
    let of_database = log(&keeper, &["--database", &database.name]);
    assert_eq!(of_database.len(), 7, "what a prune removed is about it, how it ended is not");
    let table = keeper.pgkeep(["log"]).run().expect_code(0).stdout;
    assert!(table.starts_with("ENDED ") && table.contains("exit 4"), "{table}");
    assert_eq!(table.lines().count(), events.len() + 1);
    // The log has the run that the trail has.
    let told = keeper.pgkeep(["-v", "snapshot"]).run().expect_code(0).stderr;
    let run = log(&keeper, &["--limit", "1"])[0]["run"].as_str().expect("a run").to_owned();
    assert!(told.contains(&format!("id={run}")), "{told}");
}

#[test]
fn events_that_were_tampered_with_are_told_and_the_others_shown() {
    let database = Server::newer().database("forged");
    let keeper = Keeper::initialised(&database.shop(10).url());
    for _ in 0..3 {
        keeper.snapshot_id();
    }
    let events = keeper.objects_under("clusters/main/events/");
    let (key, path) = &events[0];
    let text = std::fs::read_to_string(path)
        .expect("an event")
        .replace("\"exit_code\": 0", "\"exit_code\": 9");
    std::fs::write(path, text).expect("written");
    let told = keeper.pgkeep(["log", "--json"]).run().expect_code(7);
    assert_eq!(told.json().as_array().map(Vec::len), Some(2));
    assert!(told.stderr.contains(key.as_str()), "{}", told.stderr);
}

#[test]
fn what_the_store_does_not_take_of_the_trail_is_a_warning_and_without_a_writer_key_there_is_none() {
    let database = Server::older().database("untold");
    let mut keeper = Keeper::initialised(&database.shop(10).url());
    let id = keeper.snapshot_id();
    // Nobody may write there: the directory is a file.
    let trail = keeper.repository().join("clusters/main/events");
    let count = || keeper.objects_under("clusters/main/events/").len();
    assert_eq!(count(), 2);
    let aside = keeper.work().join("events");
    std::fs::rename(&trail, &aside).expect("moved");
    std::fs::write(&trail, "").expect("written");
    let told = keeper.pgkeep(["snapshot"]).run().expect_code(0);
    assert!(told.stderr.contains("is not in the audit trail: "), "{}", told.stderr);
    assert_eq!(keeper.listed().len(), 2);
    std::fs::remove_file(&trail).expect("removed");
    std::fs::rename(&aside, &trail).expect("moved back");
    std::fs::rename(keeper.home().join("writer.key"), keeper.work().join("key")).expect("moved");
    keeper.set("PGKEEP_IDENTITY_FILE", keeper.recovery_kit());
    let verified = keeper.pgkeep(["verify", &id, "--check", "counts"]).run().expect_code(0);
    assert!(!verified.stderr.contains("audit"), "{}", verified.stderr);
    assert_eq!(keeper.objects_under("clusters/main/events/").len(), 2);
}

#[test]
fn status_shows_what_there_is_and_strict_fails_when_it_is_late() {
    let database = Server::older().database("standing");
    let mut keeper = Keeper::initialised(&database.shop(300).url());
    let strict = |keeper: &Keeper| keeper.pgkeep(["status", "--strict", "--quiet"]).run();
    // Nothing is scheduled, so nothing is late; but the URL's own database is told of.
    let none = shop(&keeper, &database.name);
    assert_eq!((&none["configured"], &none["backups"]), (&Value::Bool(true), &Value::from(0)));
    assert_eq!(strict(&keeper).code, 0);
    keeper.set(SCHEDULE, "0 2 * * *").set(INTERVALS, "2").set(VERIFIED, "30d");
    let told = strict(&keeper).expect_code(3);
    assert!(told.stderr.contains("no backup yet") && told.stdout.is_empty(), "{}", told.stderr);

    let first = keeper.snapshot_id();
    keeper.verify(&[&first]);
    let second = keeper.snapshot_id();
    let now = shop(&keeper, &database.name);
    assert_eq!(now["last_good"]["id"], second);
    assert_eq!(now["last_verified"]["id"], first);
    assert!(now["last_verified"]["duration_ms"].as_u64() > Some(0), "{now:#}");
    assert_eq!(now["usual_bytes"], keeper.list()[1]["source_bytes"]);
    assert!(now["next_snapshot"].is_string() && now["next_verify"].is_null());
    assert_eq!(now["timeline"].as_array().map(Vec::len), Some(3));
    let good = strict(&keeper).expect_code(0);
    assert_eq!((good.stdout.as_str(), good.stderr.as_str()), ("", ""), "silent while all is well");
    let table = keeper.pgkeep(["status"]).run().expect_code(0).stdout;
    assert!(table.contains("s ago") && table.contains("0 2 * * *"), "{table}");
    assert!(table.contains("identity kept only here"), "{table}");

    // Days pass; then weeks without a verification.
    let (backup, verified) = ("no good backup for ", "no verified restore for ");
    for (shift, rules) in [("+3d", &[backup][..]), ("+40d", &[backup, verified])] {
        let late = at(&keeper, shift, "status --strict --json").run().expect_code(3);
        for words in rules {
            let place = format!("main/{}: {words}", database.name);
            assert!(late.stderr.contains(&place), "{}", late.stderr);
        }
        let told = &late.json()["clusters"][0]["databases"][0]["overdue"];
        let told = told.as_array().expect("an array").iter().map(|line| line.as_str());
        let told: Vec<&str> = told.map(|line| line.expect("a line")).collect();
        assert_eq!(told.len(), rules.len(), "{told:?}");
        assert!(told.iter().zip(rules).all(|(line, words)| line.starts_with(words)), "{told:?}");
    }
    // A clock that went back neither.
    at(&keeper, "-1d", "status --strict").run().expect_code(0);
    // A table that lost its rows is no good backup, and the one before still is.
    database.psql("TRUNCATE orders");
    let emptied = keeper.snapshot_id();
    let doubted = shop(&keeper, &database.name);
    assert_eq!(doubted["last_good"]["id"], second);
    assert_eq!(doubted["newest_in_doubt"]["id"], emptied);
    assert!(doubted["newest_in_doubt"]["why"].as_str().is_some_and(|why| why.contains("suspect")));
    // What cannot be trusted is told.
    let manifest = keeper.repository().join(format!("clusters/main/snapshots/{first}.json"));
    let whole = std::fs::read(&manifest).expect("a manifest");
    std::fs::write(&manifest, &whole[..whole.len() - 9]).expect("written");
    let told = strict(&keeper).expect_code(3);
    assert!(told.stderr.contains(&first), "{}", told.stderr);
    keeper.pgkeep(["status"]).run().expect_code(0);
}

#[test]
fn a_host_without_a_server_watches_every_database_that_has_backups() {
    let database = Server::newer().database("watched");
    let mut keeper = Keeper::initialised(&database.shop(20).url());
    let id = keeper.snapshot_id();
    keeper.unset("PGKEEP_DATABASE_URL").set(SCHEDULE, "0 2 * * *").set(VERIFIED, "30d");
    let good = keeper.pgkeep(["status", "--strict", "--quiet"]).run().expect_code(0);
    assert_eq!((&*good.stdout, &*good.stderr), ("", ""));
    let known = shop(&keeper, &database.name);
    assert_eq!((&known["configured"], &known["last_good"]["id"]), (&true.into(), &id.into()));
    for (shift, words) in [("+3d", "no good backup for "), ("+40d", "never verified since ")] {
        let late = at(&keeper, shift, "status --strict --quiet").run().expect_code(3);
        let place = format!("main/{}: {words}", database.name);
        assert!(late.stderr.contains(&place), "{}", late.stderr);
    }
    // A name that no backup has is a mistake, and not a sign that all is well.
    keeper.unset(SCHEDULE).set("PGKEEP__CLUSTERS__MIAN__SNAPSHOT__SCHEDULE", "0 2 * * *");
    let told = keeper.pgkeep(["status", "--strict", "--quiet"]).run().expect_code(0);
    assert!(told.stderr.contains("cluster mian has a schedule here"), "{}", told.stderr);
}

#[test]
fn an_open_list_of_databases_is_the_servers_and_without_a_server_the_catalogs() {
    let cluster = Cluster::older(&[]);
    let url = cluster.url("postgres");
    let mut keeper = Keeper::initialised(&url);
    keeper.snapshot_id();
    cluster.psql("postgres", "CREATE DATABASE fresh");
    let config = format!("[clusters.main]\nurl = \"{url}\"\n");
    let path = keeper.home().join("pgkeep.toml");
    let starter = std::fs::read_to_string(&path).expect("a starter");
    std::fs::write(&path, format!("{starter}\n{config}")).expect("written");
    keeper.unset("PGKEEP_DATABASE_URL");
    assert_eq!(shop(&keeper, "fresh")["backups"], 0);
    drop(cluster);
    let told = keeper.pgkeep(["status", "--json"]).run().expect_code(0);
    assert!(
        told.stderr.contains("the databases of cluster main cannot be listed"),
        "{}",
        told.stderr
    );
    let status = told.json();
    let databases = status["clusters"][0]["databases"].as_array().expect("an array");
    let names: Vec<&str> = databases.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names, ["postgres"]);
}
