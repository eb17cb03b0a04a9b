//! Rehearsals: a command is run on a copy, what it does there is told, and the live database is as it was. Commands are plain
//! `psql` and `sh` here; `rehearse/prisma.rs` has the real Prisma.

mod prisma;
mod stray;

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::keeper::Pgkeep;
use crate::support::{Cluster, Database, Keeper, Server, eventually};

/// A keeper of a shop, with a snapshot of it.
#[track_caller]
fn shop(server: &Server, name: &str) -> (Database, Keeper) {
    let database = server.database(name);
    let keeper = Keeper::initialised(&database.shop(200).url());
    keeper.snapshot();
    (database, keeper)
}

/// `pgkeep rehearse --json … -- sh -c script`.
fn rehearsed(keeper: &Keeper, flags: &[&str], script: &str) -> Pgkeep {
    keeper.pgkeep(["rehearse", "--json"]).args(flags).args(["--", "sh", "-c", script])
}

/// `psql`, which the variables lead to the copy.
fn sql(statements: &str) -> String {
    format!("psql -qAtX -v ON_ERROR_STOP=1 -c \"{statements}\"")
}

#[test]
fn a_command_works_on_a_copy_as_it_would_on_the_live_database() {
    let server = Server::newer();
    let database = server.database("looks");
    let (owner, app) = (server.role("owner", "o"), server.role("app", "p@ss"));
    let keeper = Keeper::initialised(&database.shop(200).url());
    database.psql(&format!(
        "ALTER DATABASE {0} OWNER TO {1}; ALTER TABLE orders OWNER TO {1}; GRANT {1} TO {2}; \
         ALTER DATABASE {0} SET work_mem = '5MB'; ALTER ROLE {2} SET lock_timeout = '7s'; \
         REVOKE CONNECT ON DATABASE {0} FROM PUBLIC",
        database.name, owner.name, app.name
    ));
    let id = keeper.snapshot_id();
    let before = database.contents();
    let url = format!("{}?schema=public&connection_limit=3", app.url(&database.name));
    let script = "echo $DATABASE_URL; echo $MY_URL; psql -qAtX -v ON_ERROR_STOP=1 -c \"\
        ALTER TABLE orders ADD COLUMN paid boolean; INSERT INTO orders (customer_id, placed_at, total) VALUES (1, now(), 1); \
        SELECT current_user, session_user, current_database(), current_setting('work_mem'), \
               current_setting('lock_timeout'), current_setting('fsync'), current_setting('shared_buffers')\"; echo said";
    let output = rehearsed(&keeper, &["--env", "MY_URL"], script).env("DATABASE_URL", &url).run();
    let output = output.expect_code(0);
    let report = output.json();
    assert_eq!((&report["verdict"], &report["reasons"]), (&"passed".into(), &json!([])));
    assert_eq!(
        (&report["snapshot"], &report["ended"]["exit_code"]),
        (&id.as_str().into(), &0.into())
    );
    // What it is told, and as what it is there: its own role, the database's settings, and durable.
    let live = server.psql("postgres", "SHOW shared_buffers");
    let place = format!("{0}|{0}|{1}|5MB|7s|on|{live}", app.name, database.name);
    assert!(output.stderr.contains(&place), "{place}: {}", output.stderr);
    assert!(output.stderr.contains("?schema=public&connection_limit=3"), "{}", output.stderr);
    assert!(!output.stderr.contains("p%40ss") && !output.stderr.contains(&server.password));
    let orders = json!({"table": "public.orders", "before": 200, "after": 201});
    assert!(report["rows"].as_array().expect("rows").contains(&orders), "{report}");
    assert_eq!((&report["losses"], &report["rewrites"]), (&json!([]), &json!([])));
    // Nothing is left of it but its event.
    assert_eq!(database.contents(), before);
    assert_eq!(keeper.leftovers(), Vec::<String>::new());
    let run = report["run"].as_str().expect("an id");
    let shown = keeper.pgkeep(["show", run]).run().expect_code(0).stdout;
    assert!(shown.contains("public.orders") && shown.contains("passed"), "{shown}");
    let shown = keeper.pgkeep(["show", run, "--json"]).run().expect_code(0).json();
    assert_eq!(shown["rehearsal"]["rows"], report["rows"]);
    assert_eq!((&shown["event"], &shown["backup"]), (&"rehearse".into(), &id.into()));
}

#[test]
fn what_held_data_and_is_dropped_is_told_with_its_count_and_can_fail_it() {
    let (database, keeper) = shop(&Server::older(), "loses");
    let before = database.contents();
    let notes: u64 = database.psql("SELECT count(note) FROM orders").parse().expect("a number");
    let script = sql("ALTER TABLE orders DROP COLUMN note; DELETE FROM orders WHERE id <= 5; \
         ALTER TABLE customers DROP COLUMN email, ADD COLUMN email text DEFAULT 'x'; DROP VIEW spending");
    let report = rehearsed(&keeper, &[], &script).run().expect_code(0).json();
    let losses = json!([
        {"kind": "column", "name": "public.customers.email", "count": 20},
        {"kind": "column", "name": "public.orders.note", "count": notes},
        {"kind": "rows", "name": "public.orders", "count": 5},
    ]);
    assert_eq!((&report["verdict"], &report["losses"]), (&"passed".into(), &losses));
    let output =
        keeper.pgkeep(["rehearse", "--fail-on", "data-loss", "--", "sh", "-c", &script]).run();
    let told = format!("column public.orders.note is dropped, with {notes} values");
    let output = output.expect_failure(10, &["the rehearsal failed", &told]);
    assert!(output.stdout.contains("FAILED"), "{}", output.stdout);
    assert_eq!(database.contents(), before);
    let log = keeper.pgkeep(["log", "--json"]).run().expect_code(0).json();
    assert_eq!((&log[0]["event"], &log[0]["exit_code"]), (&"rehearse".into(), &10.into()));
    assert_eq!(keeper.leftovers(), Vec::<String>::new());
}

#[test]
fn locks_and_rewrites_beyond_their_limits_fail_it_and_what_is_half_done_is_a_warning() {
    let (database, keeper) = shop(&Server::newer(), "locks");
    // One whose partitions are not locked with it.
    database.psql("CREATE TABLE visits (at date) PARTITION BY RANGE (at)");
    keeper.snapshot();
    let path = keeper.home().join("pgkeep.toml");
    let mut text = std::fs::read_to_string(&path).expect("the configuration");
    text.push_str(
        "\n[[clusters.main.assertions]]\nname = \"every order has a note\"\n\
         sql = \"SELECT id FROM orders WHERE note IS NULL\"\n",
    );
    std::fs::write(&path, text).expect("written");
    let script = sql(
        "BEGIN; ALTER TABLE orders ALTER id TYPE numeric; LOCK TABLE customers IN ACCESS SHARE MODE; \
         LOCK TABLE ONLY visits IN SHARE MODE; \
         SELECT pg_sleep(0.6); COMMIT; \
         ALTER TABLE orders ADD CONSTRAINT cheap CHECK (total < 1) NOT VALID",
    );
    let flags = ["--fail-on", "lock>300ms,rewrite>8KiB"];
    let report = rehearsed(&keeper, &flags, &script).run().expect_code(10).json();
    let reasons: Vec<&str> =
        report["reasons"].as_array().expect("reasons").iter().filter_map(Value::as_str).collect();
    assert!(
        reasons.iter().any(|one| one.starts_with("AccessExclusiveLock on public.orders was held")),
        "{reasons:?}"
    );
    assert!(
        reasons.iter().any(|one| one.starts_with("ShareLock on public.visits was held")),
        "{reasons:?}"
    );
    assert!(reasons.iter().any(|one| one.starts_with("public.orders is rewritten")), "{reasons:?}");
    assert!(reasons.iter().any(|one| one.contains("every order has a note")), "{reasons:?}");
    assert!(!reasons.iter().any(|one| one.contains("customers")), "{reasons:?}");
    let lock = &report["locks"][1];
    assert_eq!(
        (&lock["table"], &lock["mode"]),
        (&"public.orders".into(), &"AccessExclusiveLock".into())
    );
    let held = lock["held_ms"].as_u64().expect("a time");
    assert!((400..5000).contains(&held), "{held}");
    let names: Vec<&str> = report["rewrites"]
        .as_array()
        .expect("relations")
        .iter()
        .filter_map(|one| one["relation"].as_str())
        .collect();
    // The index of the column itself is another one now.
    assert_eq!(names, ["public.orders", "public.orders_by_customer"]);
    assert!(report["warnings"][0]["message"].as_str().expect("one").contains("cheap"), "{report}");
    assert!(report["resolution_ms"].as_u64().is_some_and(|pause| pause >= 5));
    assert!(report["differs"].to_string().contains("autovacuum"), "{report}");
    assert_eq!(report["error"]["kind"], "not_run");
}

#[test]
fn a_database_that_is_dropped_and_made_anew_is_lost_and_the_servers_time_limits_hold() {
    let cluster = Cluster::newer(&["lock_timeout=1234ms", "work_mem=3MB"]);
    let (database, keeper) = shop(&cluster, "anew");
    let script = format!(
        "psql -qAtX -c 'SHOW lock_timeout'; psql -qX -v ON_ERROR_STOP=1 -d postgres -c 'DROP DATABASE {0}' -c 'CREATE DATABASE {0}' && \
         psql -qAtX -c 'CREATE TABLE orders (id int)' -c 'SHOW work_mem'",
        database.name
    );
    let output = rehearsed(&keeper, &["--fail-on", "data-loss"], &script).run().expect_code(10);
    assert!(output.stderr.contains("1234ms\n3MB\n"), "{}", output.stderr);
    let report = output.json();
    let losses = json!([
        {"kind": "table", "name": "public.customers", "count": 20},
        {"kind": "table", "name": "public.orders", "count": 200},
    ]);
    assert_eq!((&report["losses"], &report["ended"]["exit_code"]), (&losses, &0.into()));
    assert_eq!(database.psql("SELECT count(*) FROM orders"), "200");
    // One that leaves none has lost no less.
    let script = format!("psql -qX -d postgres -c 'DROP DATABASE {}'", database.name);
    let output = rehearsed(&keeper, &[], &script).run();
    let output = output.expect_failure(10, &["the command left no database"]);
    assert_eq!(output.json()["losses"], losses);
}

#[test]
fn the_snapshot_is_the_latest_or_the_one_that_is_named_or_a_fresh_one() {
    let database = Server::newer().database("which");
    let keeper = Keeper::initialised(&database.shop(20).url());
    let script = sql("SELECT 1");
    rehearsed(&keeper, &[], &script).run().expect_failure(8, &["latest"]);
    let first = keeper.snapshot_id();
    database.psql("DELETE FROM orders WHERE id > 15");
    let rows = |report: &Value| {
        let rows = report["rows"].as_array().expect("rows").clone();
        rows.into_iter().find(|one| one["table"] == "public.orders").expect("orders")["before"]
            .clone()
    };
    let fresh = rehearsed(&keeper, &["--fresh"], &script).run().expect_code(0).json();
    assert_eq!(rows(&fresh), 15);
    let taken = &keeper.list()[0];
    assert_eq!((&taken["id"], &taken["trigger"]), (&fresh["snapshot"], &"manual".into()));
    let latest = rehearsed(&keeper, &[], &script).run().expect_code(0).json();
    assert_eq!(latest["snapshot"], fresh["snapshot"]);
    let named = rehearsed(&keeper, &["--from", &first], &script).run().expect_code(0).json();
    assert_eq!((rows(&named), &named["snapshot"]), (20.into(), &first.into()));
}

#[test]
fn a_command_that_would_not_come_to_the_copy_is_refused_before_anything_is_done() {
    let (database, keeper) = shop(&Server::newer(), "refused");
    let url = database.url();
    let objects = keeper.objects_but_events();
    for (command, words) in [
        (&["psql", url.as_str(), "-c", "DROP TABLE orders"][..], "names a server"),
        (&["sh", "-c", "psql -h 127.0.0.1 -c 'DROP TABLE orders'"], "names a server"),
        (&["docker", "compose", "exec", "app", "npx", "prisma", "migrate", "deploy"], "docker"),
    ] {
        let output = keeper.pgkeep(["rehearse", "--fresh", "--"]).args(command).run();
        let output = if output.code == 127 { continue } else { output };
        let output = output.expect_failure(2, &[words]);
        assert!(!output.stderr.contains(&database.server.password), "{}", output.stderr);
    }
    let other = database.server.url("other");
    let output =
        rehearsed(&keeper, &["--fresh"], "npx prisma migrate deploy").env("DATABASE_URL", other);
    output.run().expect_failure(2, &["/other"]);
    keeper.pgkeep(["rehearse", "--fresh", "--", "no-such-tool"]).run().expect_failure(127, &[]);
    assert_eq!(keeper.objects_but_events(), objects);
}

#[test]
fn a_rehearsal_that_is_interrupted_or_killed_leaves_nothing_for_long() {
    let (database, keeper) = shop(&Server::newer(), "stopped");
    let before = database.contents();
    // A process that outlives pgkeep must not hold its stderr; this one ends with its server.
    let script = "exec >/dev/null 2>&1; psql -qX -c 'DROP TABLE orders CASCADE'; touch there; \
        while psql -qX -c 'SELECT 1'; do sleep 0.1; done";
    let there = keeper.work().join("there");
    let running = || {
        drop(std::fs::remove_file(&there));
        let running = rehearsed(&keeper, &[], script).spawn();
        eventually("the command is at work", Duration::from_mins(1), || there.exists());
        running
    };
    let interrupted = running();
    interrupted.signal(Signal::INT);
    interrupted.wait().expect_failure(130, &["interrupted"]);
    assert_eq!(keeper.leftovers(), Vec::<String>::new());
    let killed = running();
    killed.signal(Signal::KILL);
    killed.wait().expect_code(137);
    assert_ne!(keeper.leftovers(), Vec::<String>::new());
    // The next one takes its server and its directory away.
    let output = rehearsed(&keeper, &[], &sql("SELECT 1")).run().expect_code(0);
    assert!(output.stderr.contains("which a killed run left"), "{}", output.stderr);
    assert_eq!(keeper.leftovers(), Vec::<String>::new());
    assert_eq!(database.contents(), before);
}

#[test]
fn a_migration_is_rehearsed_on_its_snapshot_and_only_run_where_that_passes() {
    let (database, keeper) = shop(&Server::newer(), "before");
    let before = database.contents();
    let migrate = |flags: &[&str], statements: &str| {
        let script = format!("{}; echo once >>ran", sql(statements));
        let url = database.url();
        let address = url.rsplit_once('@').expect("an address").1;
        let port = address.split([':', '/']).nth(1).expect("a port");
        keeper
            .pgkeep(["migrate", "--yes", "--json", "--rehearse"])
            .args(flags)
            .args(["--", "sh", "-c", &script])
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", port)
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", &database.server.password)
            .env("PGDATABASE", &database.name)
    };
    let ran = || std::fs::read_to_string(keeper.work().join("ran")).unwrap_or_default();
    let output = migrate(&["--fail-on", "data-loss"], "ALTER TABLE orders DROP COLUMN note").run();
    let output = output.expect_failure(10, &["the command was not run", "public.orders.note"]);
    let report = output.json();
    assert_eq!((&report["outcome"], &report["ended"]), (&"not-run".into(), &Value::Null));
    assert_eq!(report["rehearsal"]["verdict"], "failed");
    assert_eq!(report["rehearsal"]["snapshot"], report["snapshot"]["id"]);
    assert_eq!((database.contents(), ran().as_str()), (before.clone(), "once\n"));
    let report = migrate(&[], "DELETE FROM orders WHERE id = 1").run().expect_code(0).json();
    assert_eq!(
        (&report["outcome"], &report["rehearsal"]["verdict"]),
        (&"succeeded".into(), &"passed".into())
    );
    assert_eq!(report["rehearsal"]["losses"][0]["count"], 1);
    assert_eq!(ran(), "once\nonce\nonce\n", "on the copy, and then for good");
    assert_ne!(database.contents(), before);
    let run = report["run"].as_str().expect("an id");
    let shown = keeper.pgkeep(["show", run]).run().expect_code(0).stdout;
    assert!(
        shown.contains("rehearsal:") && shown.contains("1 rows of table public.orders are gone"),
        "{shown}"
    );
    assert_eq!(keeper.leftovers(), Vec::<String>::new());
    let output = keeper.pgkeep(["migrate", "--yes", "--fail-on", "data-loss", "--", "true"]).run();
    output.expect_failure(2, &["--fail-on"]);
}

#[test]
fn on_a_terminal_it_is_asked_after_the_rehearsal() {
    let (database, keeper) = shop(&Server::newer(), "asked");
    let before = database.contents();
    let script = format!(
        "(while ! test -e ran; do sleep 0.05; done; sleep 3; echo no; sleep 1) | script -qec \
         \"{} migrate --rehearse -- sh -c 'psql -qc \\\"DROP TABLE orders CASCADE\\\"; touch ran'\" /dev/null",
        env!("CARGO_BIN_EXE_pgkeep")
    );
    let output = keeper.shell(&script).run().expect_code(2);
    let told = output.stdout.find("table public.orders is dropped, with 200 rows");
    let asked = output.stdout.find("Type `yes`");
    assert!(told.is_some() && told < asked, "{}", output.stdout);
    assert_eq!(database.contents(), before);
}
