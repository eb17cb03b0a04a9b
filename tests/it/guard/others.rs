//! A guard and the others: a second guard, the nightly dump, and a database that is not there yet.

use std::time::Duration;

use super::{guarded, shop, told};
use crate::support::server::quoted;
use crate::support::{Keeper, Server, eventually};

/// Tells that it runs, and goes on when it is told to.
const WAITS: &str = "touch started; while ! test -e go; do sleep 0.05; done; touch ended";

#[test]
fn a_second_guard_waits_and_the_nightly_dump_stays_away() {
    let (database, keeper) = shop("two");
    let first = guarded(&keeper, &database, &[], WAITS).spawn();
    let (started, ended) = (keeper.work().join("started"), keeper.work().join("ended"));
    eventually("the first runs", Duration::from_mins(1), || started.exists());
    let refused = guarded(&keeper, &database, &["--wait", "0s"], "touch second").run();
    refused.expect_failure(6, &["another run is at database", "was not run"]);
    keeper.pgkeep(["snapshot"]).run().expect_failure(6, &[]);
    // Another database is nobody's business.
    let other = database.server.database("free");
    other.psql("CREATE TABLE t (id int)");
    guarded(&keeper, &other, &["--wait", "0s"], "true")
        .env("PGKEEP_DATABASE_URL", other.url())
        .run()
        .expect_code(0);
    let script = "test -e ended && touch second";
    let second = guarded(&keeper, &database, &["--wait", "1m"], script).spawn();
    eventually("the second waits", Duration::from_mins(1), || {
        second.stderr().contains("waiting for it")
    });
    assert!(!ended.exists());
    std::fs::write(keeper.work().join("go"), "").expect("told");
    first.wait().expect_code(0);
    second.wait().expect_code(0);
    assert!(keeper.work().join("second").exists());
    keeper.pgkeep(["snapshot"]).run().expect_code(0);
}

#[test]
fn the_first_time_there_is_no_database_or_nothing_in_it_and_nothing_to_lose() {
    let server = Server::newer();
    let database = server.database("first");
    database.drop_now();
    let keeper = Keeper::initialised(&database.url());
    let postgres = server.url("postgres");
    let create = format!(
        "psql -q -v ON_ERROR_STOP=1 '{postgres}' -c 'CREATE DATABASE {}'",
        quoted(&database.name)
    );
    let report = told(&guarded(&keeper, &database, &["--json"], &create).run().expect_code(0));
    assert_eq!(report["snapshot"]["decision"], "nothing-to-lose");
    assert!(report["rollback"].is_null());
    let output =
        guarded(&keeper, &database, &[], "psql -q \"$URL\" -c 'CREATE TABLE t (id int)'").run();
    assert!(output.expect_code(0).stderr.contains("holds no table, so there is nothing to lose"));
    assert!(keeper.listed().is_empty());
    let report = told(&guarded(&keeper, &database, &["--json"], "true").run().expect_code(0));
    assert_eq!(report["snapshot"]["decision"], "taken");
}

#[test]
fn replicas_that_start_at_once_on_a_database_that_is_not_there_go_one_by_one() {
    let server = Server::newer();
    let database = server.database("replicas");
    database.drop_now();
    let keeper = Keeper::initialised(&database.url());
    // Two at once would meet in `busy`.
    let script = format!(
        "mkdir busy || exit 99; \
         psql -q -v ON_ERROR_STOP=1 '{}' -c 'CREATE DATABASE {}' 2>/dev/null || psql -q \"$URL\" -c 'SELECT 1' >/dev/null; \
         psql -q -v ON_ERROR_STOP=1 \"$URL\" -c 'CREATE TABLE IF NOT EXISTS t (id int)' -c 'INSERT INTO t VALUES (1)' || exit 98; \
         sleep 2; rmdir busy",
        server.url("postgres"),
        quoted(&database.name)
    );
    let running: Vec<_> =
        (0..3).map(|_| guarded(&keeper, &database, &["--wait", "2m"], &script).spawn()).collect();
    for output in running.into_iter().map(crate::support::keeper::Running::wait) {
        output.expect_code(0);
    }
    assert_eq!(database.psql("SELECT count(*) FROM t"), "3");
    // The first had nothing to lose, and only the first.
    assert_eq!(keeper.listed().len(), 2);
}

#[test]
fn a_url_is_taken_as_prisma_users_write_it() {
    let server = Server::older();
    let database = server.database("icms");
    let role = server.role("icmsdev", "dev@123");
    let (name, owner) = (&database.name, &role.name);
    server.psql("postgres", &format!("ALTER DATABASE {name} OWNER TO {owner}"));
    let url =
        format!("postgresql://{owner}:dev@123@localhost:{}/{name}?schema=public", server.port);
    let mut keeper = Keeper::initialised(&url);
    keeper.unset("PGKEEP_DATABASE_URL").set("DATABASE_URL", &url);
    let script = "psql -q \"$URL\" -c 'CREATE TABLE cases (id int)'";
    guarded(&keeper, &database, &[], script).run().expect_code(0);
    database.psql(&format!("ALTER TABLE cases OWNER TO {owner}"));
    let output = guarded(&keeper, &database, &["--json"], "true").run().expect_code(0);
    assert_eq!(told(&output)["snapshot"]["decision"], "taken");
    assert!(!output.stderr.contains("dev@123"));
}

#[test]
fn a_guard_that_is_killed_leaves_its_snapshot_the_command_at_work_and_no_lock() {
    let (database, keeper) = shop("murdered");
    let before = database.contents();
    let script = format!("psql -q \"$URL\" -c 'DELETE FROM orders WHERE id = 1'; {WAITS}");
    let first = guarded(&keeper, &database, &[], &script).spawn();
    let (started, ended) = (keeper.work().join("started"), keeper.work().join("ended"));
    eventually("the command runs", Duration::from_mins(1), || started.exists());
    first.signal(rustix::process::Signal::KILL);
    // Its output stays open with the command, which nobody has to wait for.
    let id = keeper.listed().remove(0);
    let script = "test ! -e ended && touch second";
    guarded(&keeper, &database, &["--wait", "30s"], script).run().expect_code(0);
    std::fs::write(keeper.work().join("go"), "").expect("told");
    eventually("the command ends by itself", Duration::from_mins(1), || ended.exists());
    first.wait().expect_code(137);
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", &id, "--as", &copy]).run().expect_code(0);
    assert_eq!(database.server.contents(&copy), before);
}

#[test]
fn a_signal_before_the_command_ends_it_all_and_the_command_is_not_run() {
    let (database, mut keeper) = shop("early");
    let programs = keeper.programs_with_pg_dump(&database.server, "touch dumping; exec sleep 600");
    keeper.set("PGKEEP_BIN_DIR", programs);
    let running = guarded(&keeper, &database, &[], "touch ran").spawn();
    let dumping = keeper.work().join("dumping");
    eventually("the dump has begun", Duration::from_mins(1), || dumping.exists());
    running.signal(rustix::process::Signal::TERM);
    running.wait().expect_failure(130, &["interrupted"]);
    assert!(!keeper.work().join("ran").exists() && keeper.listed().is_empty());
}

#[test]
fn a_lock_that_is_lost_before_the_command_keeps_it_from_being_run() {
    let (database, mut keeper) = shop("unlocked");
    // Its own sessions alone: other tests have theirs on the same server.
    let role = database.server.role("locker", "pw");
    database.psql(&format!("GRANT pg_read_all_data TO {}", role.name));
    keeper.set("PGKEEP_DATABASE_URL", role.url(&database.name));
    // A hook that comes after the snapshot and right before the command.
    let path = keeper.home().join("pgkeep.toml");
    let mut text = std::fs::read_to_string(&path).expect("the configuration");
    text.push_str("\n[clusters.main.hooks]\nafter = [\"/bin/sh\", \"hook\"]\n");
    std::fs::write(&path, text).expect("written");
    let hook = format!(
        "psql -q '{}' -c \"SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = 'pgkeep/lock' AND usename = '{}'\" > killed; sleep 1",
        database.server.url("postgres"),
        role.name
    );
    std::fs::write(keeper.work().join("hook"), hook).expect("a script");
    let output = guarded(&keeper, &database, &[], "touch ran").run();
    output.expect_failure(10, &["the lock on database", "was not run"]);
    assert!(!keeper.work().join("ran").exists());
    assert_eq!(keeper.listed().len(), 1);
}

#[test]
fn what_came_to_be_while_it_was_asked_is_not_migrated_without_a_snapshot() {
    let database = Server::newer().database("meanwhile");
    let keeper = Keeper::initialised(&database.url());
    let script = format!(
        "(while ! grep -q 'nothing to lose' shown 2>/dev/null; do sleep 0.05; done; \
          psql -q '{}' -c 'CREATE TABLE t (id int)'; echo yes; sleep 3) \
         | script -qefc '{} migrate -- touch ran' shown",
        database.url(),
        env!("CARGO_BIN_EXE_pgkeep")
    );
    let output = keeper.shell(&script).run().expect_code(10);
    assert!(output.stdout.contains("holds something by now"), "{}", output.stdout);
    assert!(!keeper.work().join("ran").exists());
}
