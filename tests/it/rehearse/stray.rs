//! Commands that do not work on the copy: kept from the live database, as far as they lock what their tool locks, and without a
//! verdict in any case.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{rehearsed, shop, sql};
use crate::support::{Server, eventually};

/// Rails' table.
const TOOL: &str = "CREATE TABLE schema_migrations (version varchar NOT NULL PRIMARY KEY); \
    INSERT INTO schema_migrations VALUES ('20240101000000')";

#[test]
fn a_command_that_goes_to_the_live_database_is_ended_there_and_changes_nothing() {
    for server in [Server::older(), Server::newer()] {
        let (database, keeper) = shop(&server, "stray");
        database.psql(TOOL);
        keeper.snapshot();
        let before = database.contents();
        std::fs::write(keeper.work().join("live"), database.url()).expect("a file");
        // Its tool works in a transaction, and its table is a part of it.
        let script = "psql -qX -v ON_ERROR_STOP=1 \"$(cat live)\" -c \"BEGIN; \
            INSERT INTO schema_migrations VALUES ('20240201000000'); DROP TABLE orders CASCADE; COMMIT\"";
        let output = rehearsed(&keeper, &[], script).run();
        let report = output.expect_failure(10, &["gives no verdict"]).json();
        assert_eq!(report["verdict"], "none");
        let reasons = report["reasons"].to_string();
        assert!(reasons.contains("never connected") && reasons.contains("kept out"), "{reasons}");
        assert_ne!(report["ended"]["exit_code"], 0);
        assert_eq!(database.contents(), before);
        // One that is at both places is not judged either.
        let both = format!("{}; {script}; true", sql("SELECT 1"));
        let report = rehearsed(&keeper, &[], &both).run().expect_code(10).json();
        assert_eq!(
            (&report["verdict"], &report["ended"]["exit_code"]),
            (&"none".into(), &0.into())
        );
        assert_eq!(database.contents(), before);
        // And the fence is lifted.
        database.psql("INSERT INTO schema_migrations VALUES ('20240301000000')");
        assert_eq!(keeper.leftovers(), Vec::<String>::new());
    }
}

/// A snapshot from before a migration that is applied, or from before one that was taken back, would have others rehearsed.
#[test]
fn a_copy_whose_history_is_not_the_live_one_gives_no_verdict() {
    let (database, keeper) = shop(&Server::newer(), "behind");
    database.psql(TOOL);
    keeper.snapshot();
    database.psql("INSERT INTO schema_migrations VALUES ('20240201000000')");
    let script = sql("ALTER TABLE orders ADD COLUMN paid boolean");
    let output = rehearsed(&keeper, &[], &script).run();
    let report = output.expect_failure(10, &["gives no verdict", "--fresh"]).json();
    assert_eq!(report["verdict"], "none");
    let report = rehearsed(&keeper, &["--fresh"], &script).run().expect_code(0).json();
    assert_eq!(report["verdict"], "passed");
}

/// Whoever keeps the tables in order only waits.
#[test]
fn a_vacuum_of_the_live_database_waits_until_the_rehearsal_is_over() {
    let (database, keeper) = shop(&Server::newer(), "vacuum");
    database.psql(TOOL);
    keeper.snapshot();
    let go_on = keeper.work().join("go_on");
    let script = format!("{}; while ! test -e go_on; do sleep 0.05; done", sql("SELECT 'fenced'"));
    let running = rehearsed(&keeper, &[], &script).spawn();
    eventually("the command is at work", Duration::from_mins(1), || {
        running.stderr().contains("fenced")
    });
    let mut vacuum = database.server.program("psql", &database.name);
    let vacuum = vacuum.args(["-qX", "-c", "VACUUM schema_migrations"]).spawn();
    let mut vacuum = vacuum.expect("psql runs");
    eventually("it waits", Duration::from_mins(1), || {
        let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'schema_migrations'::regclass AND NOT granted";
        database.psql(waits) == "1"
    });
    // Ten looks of the fence.
    std::thread::sleep(Duration::from_millis(500));
    assert!(vacuum.try_wait().expect("a child").is_none());
    std::fs::write(go_on, "").expect("a file");
    let report = running.wait().expect_code(0).json();
    assert_eq!(report["verdict"], "passed");
    assert!(vacuum.wait().expect("it ends").success());
}

#[test]
fn a_command_that_was_never_there_gets_no_verdict_however_well_it_ends() {
    let (_database, keeper) = shop(&Server::newer(), "absent");
    let output = rehearsed(&keeper, &[], "true").run();
    let report = output.expect_failure(10, &["gives no verdict", "never connected"]).json();
    assert_eq!((&report["verdict"], &report["ended"]["exit_code"]), (&"none".into(), &0.into()));
    // A wrong password is no visit, nor is a file of passwords one that leads elsewhere.
    let script = "PGPASSWORD=wrong psql -qX -c 'SELECT 1' && exit 9; test -n \"$PGPASSFILE\" && ! test -e \"$PGPASSFILE\"";
    let report = rehearsed(&keeper, &[], script).run().expect_code(10).json();
    assert_eq!((&report["verdict"], &report["ended"]["exit_code"]), (&"none".into(), &0.into()));
    assert_eq!(report["losses"], json!([]));
}

#[test]
fn a_live_database_that_cannot_be_fenced_is_not_rehearsed_for() {
    let (database, keeper) = shop(&Server::newer(), "open");
    database.psql(TOOL);
    keeper.snapshot();
    let reader = database.server.role("reader", "r");
    database.psql(&format!("GRANT pg_read_all_data TO {}", reader.name));
    let touch = "touch ran";
    let output =
        rehearsed(&keeper, &[], touch).env("PGKEEP_DATABASE_URL", reader.url(&database.name)).run();
    output.expect_failure(10, &["public.schema_migrations", "cannot be locked"]);
    assert!(!keeper.work().join("ran").exists());
    // Somebody migrates.
    let held = "BEGIN; INSERT INTO schema_migrations VALUES ('1'); SELECT pg_sleep(60)";
    let mut holder = database.server.program("psql", &database.name);
    let mut holder = holder.args(["-qX", "-c", held]).spawn().expect("psql runs");
    eventually("it is held", Duration::from_mins(1), || {
        let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'schema_migrations'::regclass AND mode = 'RowExclusiveLock'";
        database.psql(locks) == "1"
    });
    let output = rehearsed(&keeper, &["--wait", "1s"], touch).run();
    output.expect_failure(6, &["somebody holds table public.schema_migrations"]);
    holder.kill().expect("it runs");
    holder.wait().expect("it ends");
    assert!(!keeper.work().join("ran").exists());
}

#[test]
fn a_fence_that_falls_ends_the_command_and_there_is_no_verdict() {
    let (database, keeper) = shop(&Server::newer(), "falls");
    database.psql(TOOL);
    keeper.snapshot();
    let before = database.contents();
    let script = format!("{}; touch there; sleep 100 >/dev/null 2>&1", sql("SELECT 1"));
    let running = rehearsed(&keeper, &[], &script).spawn();
    let there = keeper.work().join("there");
    eventually("the command is at work", Duration::from_mins(1), || there.exists());
    let held =
        "FROM pg_locks WHERE relation = 'schema_migrations'::regclass AND mode = 'ShareLock'";
    assert_eq!(database.psql(&format!("SELECT count(pg_terminate_backend(pid)) {held}")), "1");
    let report = running.wait().expect_failure(10, &["gives no verdict"]).json();
    let told = "the live database was not kept from the command to the end";
    assert!(report["reasons"].to_string().contains(told), "{report}");
    assert_eq!(database.contents(), before);
    assert_eq!(keeper.leftovers(), Vec::<String>::new());
}

#[test]
fn a_copy_whose_server_dies_is_told_in_the_servers_words_and_says_nothing_of_the_command() {
    let (_database, keeper) = shop(&Server::newer(), "dies");
    let script = "psql -qX -c 'SELECT 1' >/dev/null; touch there; sleep 100 >/dev/null 2>&1";
    let running = rehearsed(&keeper, &[], script).spawn();
    let there = keeper.work().join("there");
    eventually("the command is at work", Duration::from_mins(1), || there.exists());
    let scratch = keeper.scratch();
    let lock = std::fs::read_dir(&scratch)
        .expect("the scratch directory")
        .flatten()
        .find_map(|entry| std::fs::read_to_string(entry.path().join("data/postmaster.pid")).ok());
    let lock = lock.expect("a server");
    let pid = lock.lines().next().and_then(|line| line.parse().ok()).and_then(Pid::from_raw);
    kill_process(pid.expect("its number"), Signal::KILL).expect("killed");
    let output = running.wait().expect_failure(10, &["the copy's server failed"]);
    let hint = output.error().expect("an error")["hint"].to_string();
    assert!(hint.contains("says nothing about the command"), "{hint}");
    assert_eq!(keeper.leftovers(), Vec::<String>::new());
}
