//! `rollback`: back to what a database was before a migration, with what was written since kept beside it.

mod looked;
mod meant;
mod meanwhile;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgkeep::domain::connection::ConnectionInfo;
use pgkeep::failpoint::{ALL, VARIABLE};
use pgkeep::postgres::session::Session;
use pgkeep::postgres::sources::SystemSources;
use serde_json::Value;

use crate::support::keeper::Output;
use crate::support::server::quoted;
use crate::support::{Database, Keeper, Server, eventually};

const LIMIT: Duration = Duration::from_secs(20);
/// PostgreSQL's own wait for the sessions in a database that is renamed: more than that would be a second attempt.
const ONE_ATTEMPT: Duration = Duration::from_secs(5);
/// As a shell tells a process that SIGKILL ended.
const KILLED: i32 = 137;

/// What a migration tool keeps of itself, as Prisma does.
const TOOL_TABLE: &str = "CREATE TABLE _prisma_migrations (id text PRIMARY KEY, migration_name text NOT NULL, \
     finished_at timestamptz); INSERT INTO _prisma_migrations VALUES ('1', '0001_init', now())";
/// A migration that loses data, and makes room for other data.
const MIGRATION: &str = "ALTER TABLE orders DROP COLUMN note; ALTER TABLE orders ADD COLUMN \"Status\" text; \
     CREATE TABLE audit AS SELECT n AS id FROM generate_series(1, 5) AS n; \
     INSERT INTO _prisma_migrations VALUES ('2', '0002_status', now())";
/// What clients do when it has run.
const WRITES: &str = "INSERT INTO customers (name, email) SELECT 'late ' || n, 'late' || n FROM generate_series(1, 12) AS n; \
     UPDATE orders SET total = 1 WHERE id <= 3; DELETE FROM orders WHERE id = 4; \
     INSERT INTO orders (customer_id, placed_at, total) VALUES (1, now(), 5)";

/// The snapshot that a guard takes.
#[track_caller]
fn guarded(keeper: &Keeper, labels: &[&str]) -> String {
    let mut snapshot = keeper.pgkeep(["snapshot", "--trigger", "pre-migration", "--json"]);
    for label in labels {
        snapshot = snapshot.args(["--label", label]);
    }
    let taken = snapshot.run().expect_code(0).json();
    taken["id"].as_str().expect("a snapshot has an id").to_owned()
}

fn kept(database: &Database) -> Vec<String> {
    database.server.databases_like(&format!("{}_before_", database.name))
}

/// All that a rollback could change: the databases, what is in this one, and the repository's objects.
fn state(keeper: &Keeper, database: &Database) -> (Vec<String>, String, usize) {
    let databases = database.server.databases_like(&database.name);
    (databases, database.contents(), keeper.objects_but_events().len())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` in {value}"))
}

#[test]
fn a_migration_that_dropped_a_column_with_data_is_undone_and_what_came_since_is_kept_beside() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("undone");
        let keeper = Keeper::initialised(&database.shop(500).url());
        database.psql(TOOL_TABLE);
        let id = guarded(&keeper, &["tool=prisma", "last_applied=0001_init"]);
        let (before, definition) = (database.contents(), database.definition());
        database.psql(MIGRATION);
        database.psql(WRITES);
        let migrated = database.contents();
        let output = keeper.pgkeep(["rollback", "--yes"]).run().expect_code(0);
        assert_eq!(database.contents(), before);
        assert_eq!(database.definition(), definition);
        let kept = kept(&database);
        assert_eq!(kept.len(), 1, "{kept:?}");
        assert_eq!(server.contents(&kept[0]), migrated);
        let late = "SELECT count(*) FROM customers WHERE email LIKE 'late%'";
        assert_eq!((server.psql(&kept[0], late), database.psql(late)), ("12".into(), "0".into()));
        // What goes is said before, the way back after.
        for words in [
            "(before a migration)",
            "tables lost: public.audit (5 rows)",
            "columns lost: public.orders.\"Status\"",
            "columns that come back: public.orders.note",
            "4 seen",
            &format!("of main/{}, taken", database.name),
            &format!("on the server at 127.0.0.1:{}", server.port),
            "`_prisma_migrations` was restored with the rest",
            "no `prisma migrate resolve`",
            "the last one applied is again 0001_init",
            &format!("kept as {}", kept[0]),
            &format!("DROP DATABASE {};", quoted(&kept[0])),
        ] {
            assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
        }
        let rows = output.stdout.lines().find(|line| line.contains("public.customers"));
        assert!(rows.is_some_and(|row| row.contains("50") && row.contains("+12")), "{rows:?}");
        // The trail has it too.
        let events = keeper.pgkeep(["log", "--json", "--limit", "1"]).run().expect_code(0).json();
        assert_eq!((text(&events[0], "event"), text(&events[0], "backup")), ("rollback", &*id));
        assert_eq!(events[0]["exit_code"], 0);
        let message = text(&events[0], "message");
        for words in [
            &*kept[0],
            "18 rows more",
            "tables that it lacks: 1, columns: 1",
            "4 updates and deletions of rows seen",
        ] {
            assert!(message.contains(words), "{words}: {message}");
        }
        assert!(!message.contains("audit"), "what the repository keeps sealed is named: {message}");
        // The way back that it names is one, also while somebody is connected.
        let mut client = server.program("psql", &database.name);
        client.args(["-X", "-q", "-c", "SELECT pg_sleep(60)"]).stderr(std::process::Stdio::null());
        let mut client = client.spawn().expect("psql runs");
        let is_in = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE '%pg_sleep%'",
            database.name
        );
        eventually("it is connected", LIMIT, || server.psql("postgres", &is_in) == "1");
        let lines = output.stdout.lines().map(str::trim);
        let back: Vec<&str> = lines
            .filter(|line| line.starts_with("SELECT count(") || line.starts_with("BEGIN;"))
            .collect();
        assert_eq!(back.len(), 2, "{}", output.stdout);
        for line in back {
            server.psql("postgres", line);
        }
        assert!(!client.wait().expect("psql ends").success());
        assert_eq!(database.contents(), migrated);
    }
}

#[test]
fn a_dry_run_tells_what_would_be_lost_and_changes_nothing() {
    let database = Server::newer().database("told");
    let keeper = Keeper::initialised(&database.shop(100).url());
    database.psql(TOOL_TABLE);
    let id = guarded(&keeper, &[]);
    database.psql(MIGRATION);
    database.psql(WRITES);
    let before = (state(&keeper, &database), keeper.objects().len());
    let output = keeper.pgkeep(["rollback", "--dry-run"]).run().expect_code(0);
    for words in [&id, "public.audit", "rename the copy", "+12"] {
        assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
    }
    let document = keeper.pgkeep(["rollback", "--dry-run", "--json"]).run().expect_code(0).json();
    assert_eq!((text(&document, "id"), text(&document, "database")), (&*id, &*database.name));
    let lost = &document["lost"];
    assert_eq!((&lost["rows_more"], &lost["unknown"]), (&Value::from(18), &Value::Null), "{lost}");
    assert_eq!((state(&keeper, &database), keeper.objects().len()), before);
}

#[test]
fn the_document_has_its_keys_and_exact_figures() {
    let database = Server::older().database("document");
    let keeper = Keeper::initialised(&database.shop(100).url());
    database.psql(TOOL_TABLE);
    let id = guarded(&keeper, &[]);
    database.psql(MIGRATION);
    database.psql(WRITES);
    let later = keeper.snapshot_id();
    let document = keeper.pgkeep(["rollback", "--yes", "--json"]).run().expect_code(0).json();
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let all = "bookkeeping checks database duration_ms gone_back_before id kept_as left_out lost sessions_ended \
               to_drop to_go_back";
    assert_eq!(keys(&document), all.split(' ').collect::<Vec<_>>());
    let lost = &document["lost"];
    let all = "columns_back columns_only_live counted_at counters_before_snapshot counters_since \
               large_objects_in_snapshot large_objects_now later_backups later_guarded not_looked_at rows_more tables \
               tables_back tables_only_live tables_rewritten tables_same_count unknown";
    assert_eq!(keys(lost), all.split(' ').collect::<Vec<_>>());
    assert_eq!((text(&document, "id"), text(&document, "kept_as")), (&*id, &*kept(&database)[0]));
    let table = |name: &str| {
        let tables = lost["tables"].as_array().expect("an array");
        tables.iter().find(|one| one["table"] == name).unwrap_or_else(|| panic!("{name}: {lost}"))
    };
    let customers = table("public.customers");
    let rows = ["rows_in_snapshot", "rows_now", "rows_more"].map(|key| customers[key].as_i64());
    assert_eq!(rows, [Some(10), Some(22), Some(12)]);
    // As many rows as before, one of them another: only the counters know.
    let orders = table("public.orders");
    let seen = &orders["updates_and_deletions_seen"];
    assert_eq!((&orders["rows_more"], seen), (&0.into(), &4.into()));
    assert_eq!((&orders["exact"], &lost["counters_before_snapshot"]), (&true.into(), &true.into()));
    assert_eq!(document["gone_back_before"], Value::Array(Vec::new()));
    assert_eq!(lost["tables_only_live"][0]["table"], "public.audit");
    assert_eq!(lost["later_backups"], Value::from(vec![later]));
    assert_eq!(lost["later_guarded"], Value::Array(Vec::new()));
}

#[test]
fn going_back_past_later_guarded_migrations_names_them() {
    let database = Server::newer().database("past");
    let keeper = Keeper::initialised(&database.shop(50).url());
    let first = guarded(&keeper, &[]);
    let before = database.contents();
    database.psql("ALTER TABLE orders ADD COLUMN one text");
    let second = guarded(&keeper, &[]);
    let between = database.contents();
    database.psql("ALTER TABLE orders ADD COLUMN two text; DELETE FROM orders");
    // Without an id the newest is meant, and nothing guarded is later.
    let newest = keeper.pgkeep(["rollback", "--dry-run", "--json"]).run().expect_code(0);
    assert!(!newest.stderr.contains("later guarded"), "{}", newest.stderr);
    assert_eq!(text(&newest.json(), "id"), second);
    let output = keeper.pgkeep(["rollback", &first, "--yes"]).run().expect_code(0);
    for told in [&output.stdout, &output.stderr] {
        assert!(told.contains("later guarded migrations") && told.contains(&second), "{told}");
    }
    assert_eq!(database.contents(), before);
    // And forward again.
    keeper.pgkeep(["rollback", "--yes"]).run().expect_code(0);
    assert_eq!(database.contents(), between);
    assert_eq!(kept(&database).len(), 2);
    // The live database is a copy by now, whose counters know nothing of what happened before it was made.
    let older = ["rollback", &first, "--dry-run", "--json"];
    let lost = &keeper.pgkeep(older).run().expect_code(0).json()["lost"];
    assert_eq!(lost["counters_before_snapshot"], false, "{lost}");
}

#[test]
fn what_the_role_may_not_see_is_told_as_not_known() {
    let server = Server::newer();
    let database = server.database("dim");
    let role = server.role("dim", "x");
    let keeper = Keeper::initialised(&database.shop(50).url());
    guarded(&keeper, &[]);
    database.psql("DELETE FROM orders");
    let dry_run = ["rollback", "--dry-run", "--json"];
    let refused = keeper.pgkeep(dry_run).env("PGKEEP_DATABASE_URL", role.url(&database.name)).run();
    refused.expect_failure(4, &["may not create databases"]);
    let (name, role_name) = (quoted(&database.name), quoted(&role.name));
    let grants =
        format!("ALTER ROLE {role_name} CREATEDB; ALTER DATABASE {name} OWNER TO {role_name}");
    server.psql("postgres", &grants);
    let seen = keeper.pgkeep(dry_run).env("PGKEEP_DATABASE_URL", role.url(&database.name)).run();
    server.psql("postgres", &format!("ALTER DATABASE {name} OWNER TO postgres"));
    let lost = &seen.expect_code(0).json()["lost"];
    let unknown = (&lost["unknown"], &lost["counters_before_snapshot"]);
    assert_eq!(unknown, (&Value::Null, &Value::Null), "{lost}");
    let tables = lost["tables"].as_array().expect("an array");
    assert!(tables.len() == 2 && tables.iter().all(|table| table["exact"] == false), "{lost}");
}

#[test]
fn without_a_guarded_snapshot_there_is_nothing_to_go_back_to_but_what_is_named() {
    let database = Server::older().database("unguarded");
    let keeper = Keeper::initialised(&database.shop(50).url());
    let id = keeper.snapshot_id();
    let good = database.contents();
    database.psql("TRUNCATE orders");
    let before = state(&keeper, &database);
    keeper.pgkeep(["rollback", "--yes"]).run().expect_failure(8, &["before a migration"]);
    keeper.pgkeep(["rollback", "20990101", "--yes"]).run().expect_failure(8, &["20990101"]);
    assert_eq!(state(&keeper, &database), before);
    let output = keeper.pgkeep(["rollback", &id, "--yes"]).run().expect_code(0);
    assert!(output.stdout.contains("not before a migration"), "{}", output.stdout);
    assert_eq!(database.contents(), good);
}

#[test]
fn nobody_is_asked_without_a_terminal_and_on_one_only_yes_goes_on() {
    let database = Server::older().database("asked");
    let keeper = Keeper::initialised(&database.shop(50).url());
    guarded(&keeper, &[]);
    let good = database.contents();
    database.psql("DELETE FROM orders WHERE id <= 7");
    let before = state(&keeper, &database);
    keeper.pgkeep(["rollback"]).run().expect_failure(2, &["is live", "--yes"]);
    keeper.pgkeep(["rollback", "--json"]).run().expect_failure(2, &["is live"]);
    assert_eq!(state(&keeper, &database), before);
    // `script` gives it a terminal, and passes its exit code on.
    let program = env!("CARGO_BIN_EXE_pgkeep");
    let on_a_terminal = |answer: &str| -> Output {
        let line = format!("echo {answer} | script -qec \"'{program}' rollback\" /dev/null");
        keeper.shell(&line).run()
    };
    let refused = on_a_terminal("no").expect_code(2);
    assert!(refused.stdout.contains("-7") && refused.stdout.contains("Type `yes`"), "{refused:?}");
    assert_eq!(state(&keeper, &database), before);
    on_a_terminal("yes").expect_code(0);
    assert_eq!(database.contents(), good);
}

#[test]
fn a_snapshot_that_is_running_is_not_swapped_away() {
    let server = Server::older();
    let database = server.database("taken");
    let keeper = Keeper::initialised(&database.shop(50).url());
    guarded(&keeper, &[]);
    let (dumps, go) = (keeper.work().join("dumps"), keeper.work().join("go"));
    let body = format!(
        ": >{}; while [ ! -e {} ]; do sleep 0.1; done; exec $REAL \"$@\"",
        dumps.display(),
        go.display()
    );
    let programs = keeper.programs_with_pg_dump(&server, &body);
    let running = keeper.pgkeep(["snapshot"]).env("PGKEEP_BIN_DIR", &programs).spawn();
    eventually("it dumps", LIMIT, || dumps.exists());
    keeper.pgkeep(["rollback", "--yes"]).run().expect_failure(6, &[&database.name]);
    assert_eq!(kept(&database), [""; 0]);
    std::fs::write(&go, "").expect("written");
    running.wait().expect_code(0);
    keeper.pgkeep(["rollback", "--yes"]).run().expect_code(0);
}

#[test]
fn a_migration_that_hangs_with_its_locks_is_ended_and_hides_only_its_rows() {
    let server = Server::newer();
    let database = server.database("hangs");
    let keeper = Keeper::initialised(&database.shop(50).url());
    guarded(&keeper, &[]);
    let good = database.contents();
    let mut migration = server.program("psql", &database.name);
    let script = "BEGIN; ALTER TABLE orders DROP COLUMN note; SELECT pg_sleep(120)";
    migration.args(["-X", "-q", "-c", script]).stderr(std::process::Stdio::null());
    let mut migration = migration.spawn().expect("psql runs");
    eventually("the lock is held", LIMIT, || {
        let held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                    AND relation = 'orders'::regclass";
        database.psql(held) == "1"
    });
    let document = keeper.pgkeep(["rollback", "--yes", "--json"]).run().expect_code(0).json();
    let tables = document["lost"]["tables"].as_array().expect("an array");
    let orders = tables.iter().find(|one| one["table"] == "public.orders").expect("it is told");
    assert_eq!(orders["exact"], false, "{orders}");
    assert_eq!(database.contents(), good);
    assert!(!migration.wait().expect("psql ends").success());
}

#[test]
fn what_cannot_be_looked_at_or_is_gone_is_brought_back_all_the_same() {
    let server = Server::older();
    let database = server.database("closed");
    let keeper = Keeper::initialised(&database.shop(50).url());
    guarded(&keeper, &[]);
    let good = database.contents();
    let name = quoted(&database.name);
    server.psql("postgres", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    let document = keeper.pgkeep(["rollback", "--yes", "--json"]).run().expect_code(0).json();
    let lost = &document["lost"];
    assert!(lost["unknown"].is_string() && lost["tables"].is_null(), "{lost}");
    assert_eq!(database.contents(), good);
    // A migration that dropped the database itself.
    database.drop_now();
    let document = keeper.pgkeep(["rollback", "--yes", "--json"]).run().expect_code(0).json();
    assert_eq!((&document["kept_as"], &document["lost"]["unknown"]), (&Value::Null, &Value::Null));
    assert_eq!(database.contents(), good);
}

#[test]
fn what_would_stay_with_the_migrated_database_is_refused_unless_forced() {
    let server = Server::newer();
    let database = server.database("bound");
    let keeper = Keeper::initialised(&database.shop(50).url());
    guarded(&keeper, &[]);
    let good = database.contents();
    database.psql("TRUNCATE orders");
    let slot = format!("{}_slot", database.name);
    database.psql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    keeper.pgkeep(["rollback", "--yes"]).run().expect_failure(4, &[&slot, "--force"]);
    let forced = keeper.pgkeep(["rollback", "--yes", "--force"]).run();
    server.psql("postgres", &format!("SELECT pg_drop_replication_slot('{slot}')"));
    forced.expect_code(0);
    assert_eq!(database.contents(), good);
}

#[test]
fn a_snapshot_without_some_rows_is_gone_back_to_only_when_that_is_allowed() {
    let database = Server::older().database("partial");
    let mut keeper = Keeper::initialised(&database.shop(50).url());
    keeper.set("PGKEEP__CLUSTERS__MAIN__EXCLUDE_TABLE_DATA", "orders");
    guarded(&keeper, &[]);
    let before = state(&keeper, &database);
    let refused = keeper.pgkeep(["rollback", "--yes"]).run();
    refused.expect_failure(2, &["orders", "--allow-partial"]);
    assert_eq!(state(&keeper, &database), before);
    let rollback = ["rollback", "--yes", "--allow-partial", "--json"];
    let document = keeper.pgkeep(rollback).run().expect_code(0).json();
    let orders = &document["lost"]["tables"][0];
    assert_eq!((&orders["rows_in_snapshot"], &orders["rows_more"]), (&Value::Null, &50.into()));
    assert_eq!(database.psql("SELECT count(*) FROM orders"), "0");
}

#[test]
fn a_rollback_killed_at_any_step_leaves_one_whole_database_and_the_next_one_works() {
    let server = Server::newer();
    let database = server.database("killed_back");
    let keeper = Keeper::initialised(&database.shop(200).url());
    let id = guarded(&keeper, &[]);
    let good = database.contents();
    let said = "this snapshot was gone back to before: what was live then is kept as ";
    for name in ALL.iter().filter(|name| name.starts_with("restore.")) {
        database.psql(&format!("UPDATE orders SET note = '{name}'"));
        let migrated = database.contents();
        assert_ne!(good, migrated);
        let before = kept(&database);
        let killed = keeper.pgkeep(["rollback", &id, "--yes"]).env(VARIABLE, name).run();
        assert_eq!(killed.code, KILLED, "{name} was never hit: {}", killed.stderr);
        eventually("the server has ended the dead one's session", LIMIT, || {
            server.try_psql(&database.name, "SELECT 1").is_ok()
        });
        let now = database.contents();
        let after = kept(&database);
        match after.iter().find(|name| !before.contains(name)) {
            Some(old) => {
                assert_eq!(now, good, "{name}");
                assert_eq!(server.contents(old), migrated, "{name}: the migrated one is kept");
            }
            None => assert_eq!(now, migrated, "{name}: the live database is untouched"),
        }
        // Whoever does not know what the dead one has done does not do it twice by chance.
        let all = after.join(", ");
        if !after.is_empty() {
            let again = format!("`pgkeep rollback {id}`");
            let words = [&*id, "gone back to before", &*all, &*again];
            keeper.pgkeep(["rollback", "--yes"]).run().expect_failure(2, &words);
            assert_eq!((database.contents(), kept(&database)), (now, after.clone()), "{name}");
        }
        // The dead one's lock goes with its session, which the server may still be ending.
        let mut next = None;
        eventually("the next one works", LIMIT, || {
            let ended = keeper.pgkeep(["rollback", &id, "--yes"]).run();
            let is_over = ended.code != 6;
            next = is_over.then_some(ended);
            is_over
        });
        let next = next.expect("it has ended").expect_code(0).stdout;
        // In the plan and in the report.
        let times = if after.is_empty() { 0 } else { 2 };
        assert_eq!(next.matches(&format!("{said}{all}\n")).count(), times, "{name}: {next}");
        let what = if after.is_empty() { "the migrated database" } else { "what was live" };
        let told = next.contains(&format!("{what} is kept as {}", database.name));
        assert!(told, "{name}: {next}");
        assert_eq!(database.contents(), good, "{name}");
        assert_eq!(keeper.leftovers(), [""; 0], "{name}");
        let ours = server.databases_like("pgkeep_");
        let ours = ours.iter().filter(|scratch| scratch.contains(&database.name));
        assert_eq!(ours.count(), 0, "{name}");
    }
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    answers: Vec<(Instant, String)>,
    errors: usize,
}

impl Seen {
    /// The longest time between two answers.
    fn gap(&self) -> Duration {
        let gaps = self.answers.windows(2).map(|pair| pair[1].0 - pair[0].0);
        gaps.max().expect("it had answers")
    }
}

/// A client that asks until `over`, and connects again at once when it is cut off, or anew for each question; it is
/// counted in `back` once it has seen the old state again.
fn client(url: &str, stays: bool, back: &AtomicUsize, over: &AtomicBool) -> Seen {
    let info = ConnectionInfo::parse(url, &SystemSources).expect("a URL");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut seen = Seen::default();
        let mut session = None;
        while !over.load(Ordering::Relaxed) {
            if session.is_none() {
                session = Session::connect(&info, "client").await.ok();
            }
            let answer = match &session {
                Some(session) => {
                    session.client().query_one("SELECT word FROM state", &[]).await.ok()
                }
                None => None,
            };
            let lost = answer.is_none();
            match answer {
                Some(row) => {
                    let word: String = row.get(0);
                    let before = seen.answers.last().is_none_or(|(_, last)| *last != word);
                    back.fetch_add(usize::from(before && word == "before"), Ordering::Relaxed);
                    seen.answers.push((Instant::now(), word));
                }
                None => seen.errors += 1,
            }
            if !stays || lost {
                session = None;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        seen
    })
}

#[test]
fn clients_that_reconnect_at_once_see_one_short_gap_and_never_anything_in_between() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("reconnects");
        let keeper = Keeper::initialised(&database.shop(500).url());
        database.psql("CREATE TABLE state AS SELECT 'before' AS word");
        guarded(&keeper, &[]);
        database.psql("UPDATE state SET word = 'migrated'");
        let (url, back, over) = (database.url(), AtomicUsize::new(0), AtomicBool::new(false));
        let seen: Vec<Seen> = std::thread::scope(|scope| {
            let (url, back, over) = (&url, &back, &over);
            let clients = [true, true, false]
                .map(|stays| scope.spawn(move || client(url, stays, back, over)));
            let rollback = keeper.pgkeep(["rollback", "--yes", "--json"]).run();
            // No panic before they are told to end: they would be waited for.
            let begun = Instant::now();
            while back.load(Ordering::Relaxed) < clients.len() && begun.elapsed() < LIMIT {
                std::thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Relaxed);
            let seen = clients.into_iter().map(|one| one.join().expect("no client panics"));
            let seen = seen.collect();
            rollback.expect_code(0);
            seen
        });
        for seen in &seen {
            let words: Vec<&str> = seen.answers.iter().map(|(_, word)| &**word).collect();
            let swapped = words.iter().position(|word| *word == "before").expect("it came back");
            assert!(swapped > 0, "it was connected before the swap");
            assert!(words[..swapped].iter().all(|word| *word == "migrated"), "only the old one");
            assert!(words[swapped..].iter().all(|word| *word == "before"), "only the new one");
            assert!(seen.gap() < ONE_ATTEMPT, "{:?}", seen.gap());
        }
        let longest = seen.iter().map(Seen::gap).max().expect("there were clients");
        let errors: usize = seen.iter().map(|one| one.errors).sum();
        println!(
            "PostgreSQL {}: the live name was away for at most {} ms, {errors} errors in {} clients",
            server.major,
            longest.as_millis(),
            seen.len()
        );
    }
}
