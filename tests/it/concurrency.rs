//! Several commands at once, and a database that changes under the dump.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgkeep::failpoint::{HASTY, VARIABLE};

use crate::support::{Database, Keeper, Server, eventually};

const LIMIT: Duration = Duration::from_secs(20);

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

/// A session that keeps what a statement gave it, until it is dropped.
struct Holding(Child);

impl Holding {
    /// Begins a transaction with that statement, which may have to wait.
    fn of(database: &Database, statement: &str) -> Self {
        let mut psql = database.server.program("psql", &database.name);
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped());
        let mut psql = psql.spawn().expect("psql runs");
        let stdin = psql.stdin.as_mut().expect("piped");
        writeln!(stdin, "BEGIN; {statement};").expect("psql reads");
        Self(psql)
    }

    /// Commits, once it has what it waits for.
    #[track_caller]
    fn commit(mut self) {
        let mut stdin = self.0.stdin.take().expect("piped");
        writeln!(stdin, "COMMIT;").expect("psql reads");
        drop(stdin);
        assert!(self.0.wait().expect("psql ends").success());
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until so many sessions whose name begins so have (or wait for) a lock of that mode on the table.
#[track_caller]
fn until_locked(database: &Database, table: &str, who: &str, mode: &str, granted: bool) {
    let sql = format!(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE granted = {granted} \
         AND mode = '{mode}' AND relation = '{table}'::regclass AND application_name LIKE '{who}%'"
    );
    eventually("the lock", LIMIT, || database.psql(&sql) == "1");
}

const EXCLUSIVE: &str = "AccessExclusiveLock";
const SHARE: &str = "AccessShareLock";

#[test]
fn a_table_that_others_hold_is_waited_for_with_empty_hands() {
    let database = Server::older().database("waits");
    let keeper = Keeper::initialised(&database.shop(100).url());
    let holding = Holding::of(&database, "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE");
    until_locked(&database, "orders", "psql", EXCLUSIVE, true);
    let snapshot = keeper.pgkeep(["snapshot"]).spawn();
    until_locked(&database, "orders", "pgkeep", SHARE, false);
    // Nobody stands behind it for another table, which it would want as well.
    database.psql("SET lock_timeout = '2s'; ALTER TABLE customers ADD COLUMN since date");
    // Who stands behind it for that one gets it while it begins anew.
    let rewriting = Holding::of(&database, "ALTER TABLE orders ADD COLUMN rank bigserial");
    until_locked(&database, "orders", "psql", EXCLUSIVE, false);
    holding.commit();
    rewriting.commit();
    snapshot.wait().expect_code(0);
    let good = database.contents();
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", "--as", &copy]).run().expect_code(0);
    assert_eq!(database.server.contents(&copy), good);
}

#[test]
fn a_table_that_others_never_let_go_of_ends_in_a_clear_word_and_nothing_half_made() {
    let database = Server::newer().database("locked");
    let keeper = Keeper::initialised(&database.shop(100).url());
    let holding = Holding::of(&database, "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE");
    until_locked(&database, "orders", "psql", EXCLUSIVE, true);
    let words = ["could not lock table public.orders in 3 attempts", "held by pid", "psql"];
    keeper.pgkeep(["snapshot"]).env(VARIABLE, HASTY).run().expect_failure(4, &words);
    assert_eq!(keeper.listed(), [""; 0]);
    assert_eq!(keeper.objects_under("chunks/").len(), 0);
    holding.commit();
    keeper.snapshot();
    keeper.verify(&["--check", "counts"]);
}

/// `pg_dump`, while a migration queues for `orders` in front of it for the first `times`.
fn with_migrations_in_front_of_pg_dump(keeper: &mut Keeper, database: &Database, times: u32) {
    let body = format!(
        r#"n=$(cat runs 2>/dev/null || echo 0); echo $((n + 1)) >runs
        psql=${{REAL%/*}}/psql
        if [ $n -lt {times} ]; then
            PGAPPNAME=migration setsid $psql -Xqc "ALTER TABLE orders ADD m$n bigserial" >psql$n 2>&1 &
            until $psql -XAqtc "SELECT 'queued' FROM pg_locks WHERE NOT granted                 AND mode = 'AccessExclusiveLock' AND relation = 'orders'::regclass" | grep -q queued; do :; done
        fi
        exec $REAL "$@""#
    );
    let programs = keeper.programs_with_pg_dump(&database.server, &body);
    keeper.set("PGKEEP_BIN_DIR", programs).set(VARIABLE, HASTY);
}

/// How many of those migrations are through.
fn migrated(database: &Database) -> String {
    database.psql(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname ~ '^m[0-9]$'",
    )
}

#[test]
fn a_migration_that_queues_in_front_of_pg_dump_is_let_through_and_the_dump_begins_anew() {
    let database = Server::older().database("queued");
    let mut keeper = Keeper::initialised(&database.shop(100).url());
    with_migrations_in_front_of_pg_dump(&mut keeper, &database, 1);
    let snapshot = keeper.pgkeep(["snapshot"]).run().expect_code(0);
    assert!(snapshot.stderr.contains("let him pass"), "{}", snapshot.stderr);
    assert_eq!(migrated(&database), "1");
    assert_eq!(keeper.listed().len(), 1);
    let good = database.contents();
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", "--as", &copy]).run().expect_code(0);
    assert_eq!(database.server.contents(&copy), good);
}

#[test]
fn migrations_that_queue_in_front_of_every_pg_dump_pass_and_the_snapshot_gives_up() {
    let database = Server::newer().database("overtaken");
    let mut keeper = Keeper::initialised(&database.shop(100).url());
    with_migrations_in_front_of_pg_dump(&mut keeper, &database, 100);
    let words =
        ["lock table public.orders for `pg_dump` in 3 attempts", "wanted by pid", "migration"];
    keeper.pgkeep(["snapshot"]).run().expect_failure(4, &words);
    eventually("none of them waits any more", LIMIT, || migrated(&database) == "3");
    assert_eq!(keeper.listed(), [""; 0]);
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
