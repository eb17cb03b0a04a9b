//! Several commands at once, and a database that changes under the dump.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Keeper, Server};

#[test]
fn two_snapshots_of_one_database_at_once_are_both_good() {
    let database = Server::older().database("twice");
    let keeper = Keeper::initialised(&database.shop(3000).url());
    let running: Vec<_> = (0..3).map(|_| keeper.pgkeep(["snapshot", "--json"]).spawn()).collect();
    let mut done = BTreeSet::new();
    for output in running.into_iter().map(crate::support::keeper::Running::wait) {
        // Busy is an answer too, and a clear one.
        if output.code == 6 {
            output.expect_failure(6, &[]);
        } else {
            let id = output.expect_code(0).json()["id"].as_str().expect("an id").to_owned();
            assert!(done.insert(id), "an id is given once");
        }
    }
    assert!(!done.is_empty());
    assert_eq!(keeper.listed().into_iter().collect::<BTreeSet<_>>(), done);
    keeper.verify(&["--all", "--check", "full"]);
}

#[test]
fn snapshots_of_two_databases_at_once_do_not_disturb_each_other() {
    let server = Server::newer();
    let (one, two) = (server.database("left"), server.database("right"));
    let keeper = Keeper::initialised(&one.shop(2000).url());
    two.shop(3000);
    let other = keeper.pgkeep(["snapshot"]).env("PGKEEP_DATABASE_URL", two.url()).spawn();
    keeper.pgkeep(["snapshot"]).run().expect_code(0);
    other.wait().expect_code(0);
    keeper.verify(&["--all", "--check", "full"]);
    assert_eq!(keeper.listed().len(), 2);
}

/// A truncation or a rewrite between the export of the snapshot and `pg_dump`'s own lock would give an
/// empty table and exit 0; with the locks taken first it cannot.
#[test]
fn truncations_and_rewrites_meanwhile_never_empty_a_table_in_the_snapshot() {
    let server = Server::older();
    let database = server.database("moving");
    database.psql(
        "CREATE TABLE never_empty AS SELECT n AS id, md5(n::text) AS filler \
         FROM generate_series(1, 3000) AS n",
    );
    let keeper = Keeper::initialised(&database.url());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let rewrite = "BEGIN; SET LOCAL lock_timeout = '2s'; \
                CREATE TEMP TABLE copy ON COMMIT DROP AS SELECT * FROM never_empty; \
                TRUNCATE never_empty; INSERT INTO never_empty SELECT * FROM copy; COMMIT; \
                SET lock_timeout = '2s'; ALTER TABLE never_empty ALTER id TYPE bigint; \
                ALTER TABLE never_empty ALTER id TYPE integer";
            while !over.load(Ordering::Relaxed) {
                // A lock that is not to be had in time is given up, as migration tools do.
                drop(server.try_psql(&database.name, rewrite));
            }
        });
        let snapshots: Vec<_> = (0..5).map(|_| keeper.pgkeep(["snapshot"]).run()).collect();
        over.store(true, Ordering::Relaxed);
        for snapshot in snapshots {
            snapshot.expect_code(0);
        }
    });
    for id in keeper.listed() {
        let copy = format!("{}_copy", database.name);
        keeper.pgkeep(["restore", &id, "--as", &copy]).run().expect_code(0);
        let rows = server.psql(&copy, "SELECT count(*) FROM never_empty");
        assert_eq!(rows, "3000", "{id}");
        server.psql("postgres", &format!("DROP DATABASE {copy}"));
    }
}

/// Neither side waits for ever behind a queued migration.
#[test]
fn a_lock_that_is_held_ends_in_a_clear_word_and_nothing_half_made() {
    let server = Server::older();
    let database = server.database("locked");
    let keeper = Keeper::initialised(&database.shop(100).url());
    let mut blocker = server.program("psql", &database.name);
    let script = "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(4); COMMIT";
    blocker.args(["-X", "-q", "-c", script]);
    let mut blocker = blocker.spawn().expect("psql runs");
    crate::support::eventually("the lock is held", std::time::Duration::from_secs(10), || {
        let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                    AND relation = 'orders'::regclass";
        database.psql(held) == "1"
    });
    // It goes on when the lock is free.
    keeper.pgkeep(["snapshot"]).run().expect_code(0);
    assert!(blocker.wait().expect("psql ends").success());
    keeper.verify(&["--check", "counts"]);
}

#[test]
fn an_interrupted_snapshot_ends_its_backends_and_is_not_listed() {
    let server = Server::newer();
    let database = server.database("interrupted");
    // A row that takes its time: the dump is certainly at work when the signal comes.
    database.psql(
        "CREATE FUNCTION slow(integer) RETURNS integer LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_sleep(0.01); RETURN $1; END $$; \
         CREATE TABLE big AS SELECT n, repeat(md5(n::text), 300) AS filler \
         FROM generate_series(1, 20000) AS n",
    );
    let keeper = Keeper::initialised(&database.url());
    let mut blocker = server.program("psql", &database.name);
    blocker.args(["-X", "-q", "-c"]);
    blocker.arg("BEGIN; LOCK TABLE big IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(20)");
    let mut blocker = blocker.spawn().expect("psql runs");
    let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                  AND relation = 'big'::regclass";
    let limit = std::time::Duration::from_secs(20);
    crate::support::eventually("the lock", limit, || database.psql(locked) == "1");
    let snapshot = keeper.pgkeep(["snapshot"]).spawn();
    let others = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid() \
         AND application_name NOT LIKE 'psql%'",
        database.name
    );
    let count = || server.psql("postgres", &others);
    crate::support::eventually("it is at work", limit, || count() != "0");
    snapshot.signal(rustix::process::Signal::INT);
    let output = snapshot.wait().expect_code(130);
    assert!(!output.stderr.contains("panicked"));
    crate::support::eventually("its backends are gone", limit, || count() == "0");
    assert_eq!(keeper.listed(), [""; 0]);
    blocker.kill().expect("psql can be ended");
    blocker.wait().expect("it has ended");
}

#[test]
fn a_lost_terminal_leaves_nothing_behind_unless_the_command_was_to_outlive_it() {
    let database = Server::newer().database("hangup");
    let keeper = Keeper::initialised(&database.shop(20_000).url());
    keeper.snapshot();
    let limit = std::time::Duration::from_secs(20);
    let at_work = || !keeper.leftovers().is_empty();
    let verify = keeper.pgkeep(["verify"]).spawn();
    crate::support::eventually("scratch is there", limit, at_work);
    verify.signal(rustix::process::Signal::HUP);
    verify.wait().expect_code(130);
    assert_eq!(keeper.leftovers(), [""; 0]);
    // `nohup` execs: the signal reaches the command itself.
    let program = env!("CARGO_BIN_EXE_pgkeep");
    let verify = keeper.shell(&format!("exec nohup '{program}' verify")).spawn();
    crate::support::eventually("scratch is there", limit, at_work);
    verify.signal(rustix::process::Signal::HUP);
    verify.wait().expect_code(0);
}
