//! pgkeep killed at each step of a guarded run, and run again: it says what has happened, the snapshot still guards the
//! state before, and the live database is as it was or as the command left it.

use std::time::Duration;

use pgkeep::failpoint::{ALL, VARIABLE};
use serde_json::Value;

use super::{guarded, told};
use crate::support::{Database, Keeper, Server, eventually};

/// As a shell tells a process that SIGKILL ended.
const KILLED: i32 = 137;

const TOOL: &str = "CREATE TABLE _prisma_migrations (id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, \
    finished_at timestamptz, migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz, \
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0); \
    INSERT INTO _prisma_migrations VALUES ('1', 'x', now(), '0001_init', NULL, NULL, now(), 1)";
const MIGRATION: &str = "psql -q -v ON_ERROR_STOP=1 \"$URL\" -c \"ALTER TABLE orders DROP COLUMN note; \
    INSERT INTO _prisma_migrations VALUES ('2', 'x', now(), '0002_note', NULL, NULL, now(), 1)\"";

fn kept(keeper: &Keeper, id: &str, database: &Database, before: &str) {
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", id, "--as", &copy]).run().expect_code(0);
    assert_eq!(database.server.contents(&copy), before);
    database.server.psql("postgres", &format!("DROP DATABASE {copy}"));
}

/// What the next run says of the one before it.
#[track_caller]
fn earlier(keeper: &Keeper, database: &Database) -> (Value, String) {
    let plan = |flags: &[&str]| {
        let dry = keeper.pgkeep(["migrate", "--dry-run"]).args(flags).args(["--", "true"]);
        dry.run().expect_code(0)
    };
    let (said, dry) = (plan(&[]).stdout, plan(&["--json"]).json());
    let report = told(&guarded(keeper, database, &["--json"], "true").run().expect_code(0));
    assert_eq!(dry["earlier"], report["earlier"]);
    (report["earlier"].clone(), said)
}

#[test]
fn a_guard_killed_at_any_step_is_told_by_the_next_one() {
    let steps = ALL.iter().filter(|name| name.starts_with("migrate.")).copied();
    for (server, step) in [Server::older(), Server::newer()].iter().cycle().zip(steps) {
        let database = server.database("step");
        let keeper = Keeper::initialised(&database.shop(50).url());
        database.psql(TOOL);
        let before = database.contents();
        let killed = guarded(&keeper, &database, &[], MIGRATION).env(VARIABLE, step).run();
        assert_eq!(killed.code, KILLED, "{step} was never hit: {}", killed.stderr);
        let id = keeper.listed().remove(0);
        let was_run = ["migrate.ended", "migrate.looked"].contains(&step);
        let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname = 'note'";
        assert_eq!(database.psql(columns), if was_run { "0" } else { "1" }, "{step}");
        assert_eq!(database.contents() == before, !was_run, "{step}");
        // The trail says so, and the way back says it too.
        let begun = step != "migrate.snapshot-taken";
        let log = keeper.pgkeep(["log"]).run().expect_code(0).stdout;
        assert_eq!(log.contains("begun"), begun, "{step}: {log}");
        let plan = keeper.pgkeep(["rollback", "--dry-run"]).run().expect_code(0).stdout;
        assert_eq!(plan.contains("may be at work still"), begun, "{step}: {plan}");

        let (earlier, said) = earlier(&keeper, &database);
        assert_eq!(earlier["snapshot"], id.as_str(), "{step}");
        let run = earlier["run"].as_str().expect("a run");
        assert_eq!(earlier["kept_as"], serde_json::json!([]));
        let words: &[&str] = if begun {
            let shown = keeper.pgkeep(["show", run]).run().expect_code(0).stdout;
            assert!(
                shown.contains("no end is recorded") && shown.contains("DROP COLUMN"),
                "{shown}"
            );
            assert!(earlier["command"][2].as_str().expect("a word").contains("DROP COLUMN"));
            let since = earlier["since"][0].as_str().expect("a line");
            let moved =
                if was_run { "1 more applied, the last is 0002_note" } else { "as it was before" };
            assert!(since.contains(moved), "{step}: {since}");
            &["has no recorded end", "may be at work still", "since then"]
        } else {
            assert_eq!(earlier["command"], Value::Null);
            &["has no recorded end", "was not begun"]
        };
        for words in words.iter().copied().chain([run, &*format!("pgkeep rollback {id}")]) {
            assert!(said.contains(words), "{step}: {words}: {said}");
        }
        // The snapshot is of before, and the next run after that has nothing to tell.
        kept(&keeper, &id, &database, &before);
        let report = told(&guarded(&keeper, &database, &["--json"], "true").run().expect_code(0));
        assert_eq!(report["earlier"], Value::Null, "{step}");
        let log = keeper.pgkeep(["log"]).run().expect_code(0).stdout;
        assert_eq!(log.matches("begun").count(), usize::from(begun), "{log}");
    }
}

#[test]
fn a_guard_killed_under_its_command_and_one_killed_before_its_snapshot() {
    let server = Server::newer();
    let database = server.database("under");
    let keeper = Keeper::initialised(&database.shop(50).url());
    let before = database.contents();
    // Nothing was committed, and there is nothing to tell.
    let step = "snapshot.chunks-put";
    let killed = guarded(&keeper, &database, &[], "touch ran").env(VARIABLE, step).run();
    assert_eq!(killed.code, KILLED);
    assert!(!keeper.work().join("ran").exists() && keeper.listed().is_empty());
    let first = guarded(&keeper, &database, &[], "touch started; sleep 3; touch ended").spawn();
    let (started, ended) = (keeper.work().join("started"), keeper.work().join("ended"));
    eventually("the command runs", Duration::from_mins(1), || started.exists());
    first.signal(rustix::process::Signal::KILL);
    let (earlier, said) = earlier(&keeper, &database);
    let id = keeper.listed().pop().expect("its snapshot");
    assert_eq!(earlier["snapshot"], id.as_str());
    for words in ["touch started", "no tool's history tells", &id] {
        assert!(said.contains(words), "{words}: {said}");
    }
    kept(&keeper, &id, &database, &before);
    eventually("the command ends by itself", Duration::from_mins(1), || ended.exists());
    first.wait().expect_code(KILLED);
    // Of another database nobody says anything.
    let other = server.database("bystander");
    other.psql("CREATE TABLE t (id int)");
    let run = guarded(&keeper, &other, &["--json"], "true").env("PGKEEP_DATABASE_URL", other.url());
    assert_eq!(told(&run.run().expect_code(0))["earlier"], Value::Null);
}
