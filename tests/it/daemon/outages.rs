//! A store that is away, or full, when a run falls due: told, tried again, and the run is made once it is back.

use std::path::Path;
use std::time::Duration;

use super::{A_MINUTE, Host, PATIENCE, daily_in, stop, told};
use crate::support::http::Ear;
use crate::support::s3_server::{S3Place, S3Server};
use crate::support::{Clock, Database, Disk, Keeper, Server, eventually, with_own_mounts};

/// A run falls due after `away`, fails with the store's exit code and `words`, is tried again and fails, and is made
/// after `back`; whoever listens hears of it.
#[track_caller]
fn outlasts(
    host: &Host,
    database: &Database,
    away: impl FnOnce(),
    words: &str,
    back: impl FnOnce(),
) {
    let ear = Ear::new();
    host.configure(&format!(
        "databases = [{:?}]\n{}\nsnapshot.ping = \"{}\"\n\
         [notify.webhooks.ops]\nurl = \"{}\"\non = [\"failure\", \"recovery\"]",
        database.name,
        daily_in(5),
        ear.url("/ping"),
        ear.url("/news"),
    ));
    // As of today, until five minutes from now.
    host.keeper.snapshot();
    let clock = Clock::of(&host.keeper);
    let running = host.start_by(&clock);
    told(&running, "looked at the catalog", 1);
    let failed = |times: usize| {
        told(&running, &format!("snapshot main/{} failed", database.name), times);
        // It may try for a while to say so in the trail, and waits from its end on.
        told(&running, "DEBUG ended run=", times);
        eventually("it is told", PATIENCE, || ear.asked("/ping/fail") >= times);
    };
    away();
    clock.pass(Duration::from_mins(6));
    failed(1);
    eventually("the news is told", PATIENCE, || !ear.messages("\"failure\"").is_empty());
    // Ping and news say why.
    assert!(ear.messages(words).len() >= 2, "{}", running.stderr());
    clock.pass(A_MINUTE);
    failed(2);
    back();
    clock.pass(A_MINUTE + A_MINUTE);
    told(&running, &format!("snapshot main/{} done", database.name), 1);
    eventually("it is well again", PATIENCE, || {
        ear.asked("/ping") >= 1 && !ear.messages("\"recovery\"").is_empty()
    });
    let log = stop(host, running);
    assert!(log.contains("exit_code=5") && log.contains(words), "{log}");
    assert_eq!(log.matches(" begins run=").count(), 3, "{log}");
    assert!(ear.asked("/ping/start") >= 3);
    let failures = ear.messages("\"failure\"");
    assert_eq!(failures.len(), 1, "told once, however often it is tried: {failures:?}");
    assert_eq!(host.taken(), [(database.name.clone(), 2)].into());
    host.keeper.verify(&["--check", "stored"]);
}

fn moved(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("moved");
}

#[test]
fn a_directory_that_is_away_when_a_run_is_due_and_then_back() {
    let server = Server::older();
    let database = server.database("outage_gone");
    database.shop(50);
    let host = Host::new(&server, &[&database], "");
    let (place, aside) = (host.keeper.repository(), host.keeper.work().join("aside"));
    let away = || moved(&place, &aside);
    outlasts(&host, &database, away, "no repository at", || moved(&aside, &place));
}

/// What a mount leaves behind is an empty directory, and no empty repository.
#[test]
fn a_disk_that_is_not_mounted_when_a_run_is_due_and_then_is() {
    let server = Server::newer();
    let database = server.database("outage_bare");
    database.shop(50);
    let host = Host::new(&server, &[&database], "");
    let (place, aside) = (host.keeper.repository(), host.keeper.work().join("aside"));
    let away = || {
        moved(&place, &aside);
        std::fs::create_dir(&place).expect("a directory");
    };
    outlasts(&host, &database, away, "no repository at", || {
        // Nothing was written where it does not belong.
        std::fs::remove_dir(&place).expect("it is empty");
        moved(&aside, &place);
    });
}

#[test]
fn a_bucket_whose_server_is_down_when_a_run_is_due_and_then_up() {
    let server = Server::older();
    let database = server.database("outage_down");
    database.shop(50);
    let root = tempfile::tempdir().expect("a directory");
    let store = S3Server::at(root.path(), 0);
    let port = store.address().port();
    let place = S3Place::of(store);
    let endpoint = place.endpoint.clone();
    let mut keeper = Keeper::in_bucket(&database.url(), &place, &endpoint);
    keeper.set("PGKEEP__REPOSITORY__RETRY_FOR", "1s");
    keeper.pgkeep(["init"]).run().expect_code(0);
    let host = Host::of(keeper, &server, &[&database], "");
    let mut up_again = None;
    outlasts(
        &host,
        &database,
        move || drop(place),
        "cannot reach",
        || {
            up_again = Some(S3Server::at(root.path(), port));
        },
    );
    drop(up_again);
}

#[test]
fn a_disk_that_is_full_when_a_run_is_due_and_then_has_room() {
    let name = "daemon::outages::a_disk_that_is_full_when_a_run_is_due_and_then_has_room";
    with_own_mounts(name, || {
        let server = Server::newer();
        let database = server.database("outage_full");
        let mut keeper = Keeper::new(&database.shop(50).url());
        let disk = Disk::mount(&keeper.repository(), 32);
        keeper.pgkeep(["init"]).run().expect_code(0);
        keeper.unset("PGKEEP_REPOSITORY");
        let host = Host::of(keeper, &server, &[&database], "");
        let full = || disk.leave(0);
        outlasts(&host, &database, full, "No space left on device", || disk.free());
    });
}
