//! What is within reach of a daemon: a repository that is away, another one, a server that nobody named.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::{Host, NIGHTLY, PATIENCE, daily_in, page, stop, told};
use crate::support::http::{self, Ear};
use crate::support::{Clock, Cluster, Database, Server, eventually};

/// What is answered there.
#[track_caller]
fn answers(page: &str, path: &str, status: u16) -> String {
    let mut answer = (0, String::new());
    eventually(&format!("{path} answers {status}"), PATIENCE, || {
        answer = http::get(&format!("{page}{path}"));
        answer.0 == status
    });
    answer.1
}

fn moved(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("moved");
}

#[test]
fn a_repository_that_cannot_be_opened_is_told_once_and_nothing_is_green() {
    let server = Server::older();
    let database = server.database("daemon_away");
    database.shop(50);
    let ear = Ear::new();
    let hook = format!(
        "[notify.webhooks.ops]\nurl = \"{}\"\non = [\"failure\", \"recovery\"]",
        ear.url("/news")
    );
    let host = Host::new(&server, &[&database], &format!("{NIGHTLY}\n{hook}"));
    let (place, aside) = (host.keeper.repository(), host.keeper.work().join("aside"));
    moved(&place, &aside);
    let running = host.start();
    let page = page(&running);
    let is_red = || {
        assert!(answers(&page, "readyz", 503).contains("the repository is away"));
        assert!(answers(&page, "healthz?strict", 503).contains("no repository at"));
        assert!(answers(&page, "metrics", 200).contains("\npgkeep_repository_reachable 0"));
    };
    told(&running, "the repository cannot be opened", 1);
    is_red();
    eventually("it is told", PATIENCE, || ear.told("nothing is done: the repository") == 1);
    // It is back, and read again at once.
    moved(&aside, &place);
    running.signal(Signal::HUP);
    eventually("it is taken", PATIENCE, || host.taken().contains_key(&database.name));
    answers(&page, "readyz", 200);
    answers(&page, "healthz?strict", 200);
    eventually("it is well again", PATIENCE, || ear.told("\"recovery\"") == 1);
    // Another place, where none is: the one that is in force stays.
    host.edit(|text| text.replace("/repository\"", "/repositroy\""));
    running.signal(Signal::HUP);
    told(&running, "the old configuration stays in force: no repository at", 1);
    answers(&page, "readyz", 200);
    answers(&page, "healthz?strict", 200);
    // The same place, which is away: the configuration counts, and nothing is green.
    host.edit(|text| text.replace("/repositroy\"", "/repository\""));
    moved(&place, &aside);
    running.signal(Signal::HUP);
    told(&running, "the configuration is in force", 2);
    is_red();
    eventually("it is told again", PATIENCE, || ear.told("\"failure\"") == 2);
    moved(&aside, &place);
    // This time nobody says so.
    answers(&page, "readyz", 200);
    answers(&page, "healthz?strict", 200);
    eventually("it is well again", PATIENCE, || ear.told("\"recovery\"") == 2);
    stop(&host, running);
    assert_eq!(ear.told("\"failure\""), 2);
    assert_eq!(host.taken()[&database.name], 1);
}

#[test]
fn what_was_done_for_one_repository_is_not_done_for_another() {
    let server = Server::newer();
    let database = server.database("daemon_moved");
    database.shop(50);
    let host = Host::new(&server, &[&database], NIGHTLY);
    let running = host.start();
    eventually("it is taken", PATIENCE, || host.taken().contains_key(&database.name));
    told(&running, "looked at the catalog", 2);
    let (old, new) = (host.keeper.repository_url(), host.keeper.work().join("second"));
    let new = format!("file://{}", new.display());
    host.keeper.pgkeep(["init"]).env("PGKEEP_REPOSITORY", &new).run().expect_code(0);
    host.edit(|text| text.replace(&old, &new));
    assert_eq!(host.keeper.listed(), [""; 0], "the second one is empty");
    running.signal(Signal::HUP);
    eventually("it is taken there too", PATIENCE, || host.taken().contains_key(&database.name));
    stop(&host, running);
    assert_eq!(host.taken()[&database.name], 1);
}

#[test]
fn a_host_without_a_server_verifies_what_the_repository_has() {
    let server = Server::newer();
    let (one, two) = (server.database("vault_one"), server.database("vault_two"));
    one.shop(20);
    two.shop(30);
    let host = Host::new(&server, &[&one, &two], "");
    host.keeper.pgkeep(["snapshot"]).run().expect_code(0);
    host.write("[clusters.main]\nverify = { schedule = \"0 5 * * *\", check = \"counts\" }");
    let running = host.start();
    for database in [&one, &two] {
        told(&running, &format!("verify main/{} done", database.name), 1);
    }
    stop(&host, running);
    assert!(host.keeper.list().iter().all(|item| item["verification"] == "passed"));
}

#[test]
fn an_open_list_takes_in_what_is_made_and_tells_what_is_gone() {
    let cluster = Cluster::older(&[]);
    let make = |name: &str| {
        cluster.psql("postgres", &format!("CREATE DATABASE {name}"));
        let database = Database { server: cluster.clone(), name: name.to_owned() };
        database.shop(20);
        database
    };
    let (dropped, stays) = (make("dropped"), make("stays"));
    let host = Host::new(&cluster, &[&dropped], "");
    host.configure(&daily_in(30));
    let clock = Clock::of(&host.keeper);
    let running = host.start_by(&clock);
    let taken = |name: &str| host.taken().get(name).copied().unwrap_or_default();
    eventually("both are taken", PATIENCE, || (taken("dropped"), taken("stays")) == (1, 1));
    // The list is read again every five minutes.
    let made = make("made");
    clock.pass(Duration::from_mins(6));
    eventually("the new one is taken", PATIENCE, || taken("made") == 1);
    told(&running, "`made` is backed up from now on", 1);
    dropped.drop_now();
    clock.pass(Duration::from_mins(6));
    told(&running, "`dropped` is no longer among those that are backed up", 1);
    let configured = |name: &str| {
        let status = http::get(&format!("{}v1/status", page(&running))).1;
        let status: Value = serde_json::from_str(&status).expect("a document");
        let databases = status["clusters"][0]["databases"].as_array().expect("databases").clone();
        let of_it =
            databases.into_iter().find(|one| one["name"] == *name).expect("its backup is shown");
        of_it["configured"].as_bool().expect("a word")
    };
    eventually("the page tells it too", PATIENCE, || !configured("dropped"));
    assert!(configured("made"));
    // The next run is that of those that are there, and none of them fails.
    clock.pass(Duration::from_mins(30));
    eventually("the next run is made", PATIENCE, || (taken("made"), taken("stays")) == (2, 2));
    let log = stop(&host, running);
    assert!(!log.contains(" failed"), "{log}");
    assert_eq!(taken("dropped"), 1, "and its backup stays");
    drop((stays, made));
}
