//! `restore --in-place`: for roles that may not create or rename databases, as on managed hosting.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgkeep::failpoint::{ALL, VARIABLE};

use crate::support::server::{Role, quoted};
use crate::support::{Cluster, Database, Keeper, Pooler, Server, eventually};

/// A role that owns a database and all in it, and is nothing else; the database goes first.
struct Hosted {
    keeper: Keeper,
    database: Database,
    app: Role,
}

impl Hosted {
    /// A shop, and one of what an application's role makes beside tables.
    fn shop(server: &Server, name: &str, orders: u32) -> Self {
        let app = server.role("app", "x");
        let database = server.database(name);
        let keeper = Keeper::initialised(&app.url(&database.name));
        let hosted = Self { keeper, database, app };
        let (database, app) = (quoted(&hosted.database.name), quoted(&hosted.app.name));
        server.psql("postgres", &format!("ALTER DATABASE {database} OWNER TO {app}"));
        let shop = include_str!("sql/shop.sql").replace(":orders", &orders.to_string());
        hosted.as_app(&shop);
        hosted.as_app(MORE);
        hosted
    }

    /// Runs SQL as the role, over its own connection's rights.
    #[track_caller]
    fn as_app(&self, sql: &str) -> String {
        self.database.psql(&format!("SET ROLE {};\n{sql}", quoted(&self.app.name)))
    }

    fn state(&self) -> (String, String) {
        (self.database.contents(), self.database.definition())
    }

    /// A psql of the role's own that has run `sql` and stays.
    fn client(&self, sql: &str) -> Client {
        let mut psql = self.database.server.program("psql", &self.database.name);
        psql.env("PGUSER", &self.app.name).env("PGPASSWORD", &self.app.password);
        psql.args(["-X", "-q", "-A", "-t"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = psql.spawn().expect("psql runs");
        let mut stdin = child.stdin.take().expect("piped");
        writeln!(stdin, "{sql}\n\\echo ready").expect("psql reads");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.any(|line| line.expect("text") == "ready"));
        Client { child, _stdin: stdin }
    }
}

struct Client {
    child: Child,
    _stdin: std::process::ChildStdin,
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const MORE: &str = "
    CREATE SCHEMA stock;
    CREATE EXTENSION citext WITH SCHEMA stock;
    CREATE TYPE stock.state AS ENUM ('new', 'old');
    CREATE TABLE stock.items (id int PRIMARY KEY, state stock.state, name stock.citext COLLATE \"C\");
    INSERT INTO stock.items VALUES (1, 'new', 'Chair'), (2, 'old', 'Table');
    CREATE INDEX ON stock.items (upper(name::text));
    CREATE FUNCTION stock.how_many() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM stock.items); END';
    CREATE AGGREGATE stock.longest(text) (sfunc = textcat, stype = text, initcond = '');
    CREATE MATERIALIZED VIEW stock.names AS SELECT name FROM stock.items;
    ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
    CREATE POLICY none ON orders USING (false);
    ALTER DEFAULT PRIVILEGES IN SCHEMA stock GRANT SELECT ON TABLES TO PUBLIC;
    ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    GRANT SELECT ON customers TO PUBLIC;
    COMMENT ON TABLE orders IS 'what was ordered';
    SELECT lo_from_bytea(4711, 'a large object');";

const DISASTER: &str = "
    DROP TABLE orders CASCADE;
    DELETE FROM customers WHERE id % 2 = 0;
    ALTER TABLE customers DROP COLUMN profile;
    DROP TYPE stock.state CASCADE;
    CREATE TABLE stock.added (a int GENERATED ALWAYS AS IDENTITY, b stock.citext);
    CREATE SCHEMA junk CREATE TABLE heap (a serial) CREATE VIEW pile AS SELECT a FROM heap;
    CREATE EXTENSION hstore WITH SCHEMA junk;
    CREATE FUNCTION junk.f(junk.hstore) RETURNS junk.heap LANGUAGE sql AS 'SELECT 1';
    CREATE DOMAIN junk.d AS int;
    GRANT USAGE ON SCHEMA stock TO PUBLIC;
    GRANT ALL ON SCHEMA public TO PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
    ALTER DEFAULT PRIVILEGES IN SCHEMA stock REVOKE SELECT ON TABLES FROM PUBLIC;
    SELECT lo_unlink(4711), lo_from_bytea(4712, 'another');";

const IN_PLACE: [&str; 3] = ["restore", "--in-place", "--yes"];

#[test]
fn what_was_lost_comes_back_and_nothing_else_stays() {
    for server in [Server::older(), Server::newer()] {
        let hosted = Hosted::shop(&server, "hosted", 500);
        let good_id = hosted.keeper.snapshot_id();
        let good = hosted.state();
        hosted.as_app(DISASTER);
        let ruined = hosted.state();
        assert_ne!(good, ruined);
        let oid = "SELECT oid FROM pg_database WHERE datname = current_database()";
        let before = hosted.database.psql(oid);

        let output = hosted.keeper.pgkeep(IN_PLACE).args(["--json"]).run().expect_code(0);
        assert_eq!(hosted.state(), good);
        assert_eq!(hosted.database.psql(oid), before);
        let report = output.json();
        assert_eq!(report["id"], *good_id);
        assert_eq!(report["database"], *hosted.database.name);
        assert!(report["kept_as"].is_null() && report["left_out"] == serde_json::json!([]));
        let safety = report["safety_snapshot"].as_str().expect("an id").to_owned();
        assert!(output.stderr.contains(&safety), "{}", output.stderr);
        assert!(server.databases_like("pgkeep_").iter().all(|one| !one.contains("hosted")));
        assert_eq!(hosted.keeper.leftovers(), [""; 0]);

        // It is kept, and never what is restored by who asks for the latest.
        let listed = hosted.keeper.list();
        let kept = listed.iter().find(|one| one["id"] == *safety).expect("it is listed");
        assert!(kept["pinned"] == true && kept["labels"]["before-restore-of"] == *good_id);
        let latest = hosted.keeper.pgkeep(["show", "latest", "--json"]).run().expect_code(0).json();
        assert_eq!(latest["id"], *good_id);
        let told = hosted.keeper.pgkeep(["restore", "--in-place", "--dry-run"]).run();
        assert!(told.stderr.contains(&safety), "{}", told.stderr);

        // And it leads back.
        let back = ["restore", &safety, "--in-place", "--yes", "--check", "full"];
        let output = hosted.keeper.pgkeep(back).run().expect_code(0);
        assert!(output.stdout.contains("kept in the snapshot"), "{}", output.stdout);
        assert_eq!(hosted.state(), ruined);
    }
}

#[test]
fn one_of_everything_is_replaced_by_a_superuser() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("nasty");
        database.nasty();
        let keeper = Keeper::initialised(&database.url());
        keeper.snapshot();
        let good = (database.contents(), database.definition());
        // With an event trigger that forbids to drop tables, and without.
        for disaster in [
            "UPDATE shop.egg SET chicken = 1; DROP VIEW shop.second",
            "DROP SCHEMA shop CASCADE; CREATE TABLE public.added (a int)",
        ] {
            database.psql(disaster);
            keeper.pgkeep(IN_PLACE).run().expect_code(0);
            assert_eq!(database.contents(), good.0);
            assert_eq!(database.definition(), good.1);
        }
    }
}

#[test]
fn a_schema_public_that_was_dropped_or_made_anew_comes_back() {
    for server in [Server::older(), Server::newer()] {
        let hosted = Hosted::shop(&server, "public", 50);
        let reader = server.role("reader", "x");
        hosted.keeper.snapshot();
        let good = hosted.database.contents();
        for disaster in
            ["DROP SCHEMA public CASCADE", "DROP SCHEMA public CASCADE; CREATE SCHEMA public"]
        {
            hosted.as_app(disaster);
            hosted.keeper.pgkeep(IN_PLACE).run().expect_code(0);
            assert_eq!(hosted.database.contents(), good);
            let sql = format!(
                "SELECT has_schema_privilege('{0}', 'public', 'USAGE'), \
                        has_schema_privilege('{0}', 'public', 'CREATE'), nspowner::regrole \
                 FROM pg_namespace WHERE nspname = 'public'",
                reader.name
            );
            assert_eq!(hosted.database.psql(&sql), "t|f|pg_database_owner");
        }
    }
}

#[test]
fn what_belongs_to_another_role_is_named_and_nothing_is_touched() {
    let server = Server::older();
    let hosted = Hosted::shop(&server, "owners", 50);
    let boss = server.role("boss", "x");
    hosted.keeper.snapshot();
    hosted.as_app("DELETE FROM customers WHERE id NOT IN (SELECT customer_id FROM orders)");
    hosted.database.psql(&format!(
        "CREATE TABLE audit (a int); ALTER TABLE audit OWNER TO {0}; GRANT ALL ON audit TO PUBLIC",
        quoted(&boss.name)
    ));
    let (before, listed) = (hosted.state(), hosted.keeper.listed());
    for more in [&["--dry-run"][..], &["--force"]] {
        let refused = hosted.keeper.pgkeep(IN_PLACE).args(more).run();
        let refused = refused.expect_failure(4, &["public.audit", &boss.name]);
        assert!(refused.stderr.contains("GRANT"), "{}", refused.stderr);
    }
    assert_eq!((hosted.state(), hosted.keeper.listed()), (before, listed));
}

#[test]
fn an_owner_whom_the_role_may_not_give_things_to_is_named_before_anything_is_made() {
    for server in [Server::older(), Server::newer()] {
        let hosted = Hosted::shop(&server, "givers", 50);
        let boss = server.role("boss", "x");
        let (app, boss) = (quoted(&hosted.app.name), quoted(&boss.name));
        let database = &hosted.database;
        // All there is now may be dropped; what the backup holds may not be given back.
        let own = format!(
            "ALTER TABLE orders OWNER TO {boss}; GRANT ALL ON orders, orders_id_seq TO {app}"
        );
        database.psql(&format!("{own}; ALTER TABLE orders DISABLE ROW LEVEL SECURITY"));
        let id = hosted.keeper.snapshot_id();
        database.psql(&format!("ALTER TABLE orders OWNER TO {app}"));
        let (before, listed) = (hosted.state(), hosted.keeper.listed());
        for more in ["--dry-run", "--yes"] {
            let refused = hosted.keeper.pgkeep(["restore", &id, "--in-place", more]).run();
            let refused = refused.expect_failure(4, &[&hosted.app.name, boss.trim_matches('"')]);
            let statement = format!("GRANT {boss} TO {app};");
            assert!(refused.stderr.contains(&statement), "{}", refused.stderr);
            assert!(refused.stderr.contains("--no-owner"), "{}", refused.stderr);
            assert!(!refused.stderr.contains("as it was"), "nothing began: {}", refused.stderr);
        }
        assert_eq!((hosted.state(), hosted.keeper.listed()), (before, listed));
        // Both ways out lead out.
        let set = if server.major >= 16 { " WITH INHERIT TRUE, SET TRUE" } else { "" };
        server.psql("postgres", &format!("GRANT {boss} TO {app}{set}"));
        hosted.keeper.pgkeep(["restore", &id, "--in-place", "--dry-run"]).run().expect_code(0);
        server.psql("postgres", &format!("REVOKE {boss} FROM {app}"));
        let own = ["restore", &id, "--in-place", "--yes", "--no-owner"];
        hosted.keeper.pgkeep(own).run().expect_code(0);
        let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'";
        assert_eq!(quoted(&database.psql(owner)), app);
    }
}

#[test]
fn a_load_that_fails_half_way_leaves_all_as_it_was() {
    let hosted = Hosted::shop(&Server::newer(), "failing", 300);
    hosted.keeper.snapshot();
    hosted.as_app(DISASTER);
    // The rows are in by then, and the index cannot be made.
    hosted.database.psql("REVOKE EXECUTE ON FUNCTION pg_catalog.upper(text) FROM PUBLIC");
    let before = hosted.state();
    let output = hosted.keeper.pgkeep(IN_PLACE).run();
    output.expect_failure(4, &["upper", "is as it was"]);
    assert_eq!(hosted.state(), before);
    assert_eq!(hosted.keeper.leftovers(), [""; 0]);
    hosted.database.psql("GRANT EXECUTE ON FUNCTION pg_catalog.upper(text) TO PUBLIC");
    hosted.keeper.pgkeep(IN_PLACE).run().expect_code(0);
}

#[test]
fn a_server_process_that_is_ended_half_way_leaves_all_as_it_was() {
    let hosted = Hosted::shop(&Server::older(), "ended", 300_000);
    hosted.keeper.snapshot();
    hosted.as_app("DELETE FROM stock.items");
    let before = hosted.state();
    let mut running = hosted.keeper.pgkeep(IN_PLACE).spawn();
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = '{}' AND application_name = 'pgkeep/restore' AND query ~ '^(COPY|CREATE|ALTER) '",
        hosted.database.name
    );
    eventually("rows are on their way", Duration::from_mins(1), || {
        assert!(!running.has_ended());
        hosted.database.server.psql("postgres", &end) != "0"
    });
    running.wait().expect_failure(4, &["is as it was"]);
    assert_eq!(hosted.state(), before);
}

#[test]
fn a_kill_at_any_step_leaves_the_old_or_the_new() {
    for server in [Server::older(), Server::newer()] {
        let hosted = Hosted::shop(&server, "killed", 300);
        hosted.keeper.snapshot();
        let good = hosted.state();
        let name = &hosted.database.name;
        for at in ALL.iter().copied().filter(|at| at.starts_with("in-place.")) {
            hosted.as_app("CREATE TABLE IF NOT EXISTS added (a int); DELETE FROM stock.items");
            let ruined = hosted.state();
            let killed = hosted.keeper.pgkeep(IN_PLACE).env(VARIABLE, at).run();
            assert_eq!(killed.code, 137, "{at} was never hit: {}", killed.stderr);
            eventually("the dead command's sessions end", Duration::from_secs(20), || {
                let sql = format!(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' \
                     AND application_name LIKE 'pgkeep/%'"
                );
                server.psql("postgres", &sql) == "0"
            });
            let expected = if at == "in-place.committed" { &good } else { &ruined };
            assert!(hosted.state() == *expected, "{at}");
        }
        hosted.keeper.pgkeep(IN_PLACE).run().expect_code(0);
        assert!(hosted.state() == good);
        assert_eq!(hosted.keeper.leftovers(), [""; 0]);
    }
}

#[test]
fn an_interruption_leaves_all_as_it_was() {
    let hosted = Hosted::shop(&Server::newer(), "interrupted", 300_000);
    hosted.keeper.snapshot();
    hosted.as_app("DELETE FROM stock.items");
    let before = hosted.state();
    let running = hosted.keeper.pgkeep(IN_PLACE).spawn();
    let at_work = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' \
         AND application_name = 'pgkeep/restore' AND query ~ '^(COPY|CREATE|ALTER) '",
        hosted.database.name
    );
    eventually("rows are on their way", Duration::from_mins(1), || {
        hosted.database.server.psql("postgres", &at_work) != "0"
    });
    running.signal(rustix::process::Signal::INT);
    running.wait().expect_code(130);
    assert_eq!(hosted.state(), before);
    assert_eq!(hosted.keeper.leftovers(), [""; 0]);
}

#[test]
fn whoever_holds_a_table_is_named_and_nothing_is_changed() {
    let hosted = Hosted::shop(&Server::older(), "held", 50);
    hosted.keeper.snapshot();
    hosted.as_app("DELETE FROM stock.items");
    let before = hosted.state();
    let snapshots = || hosted.keeper.listed().len();
    // A writer is known before a safety snapshot is taken, a reader only behind it.
    for (sql, taken) in [
        ("BEGIN; UPDATE customers SET name = name WHERE id = 1;", 0),
        ("BEGIN; SELECT count(*) FROM customers;", 1),
        // It holds no table, and would find the new ones empty.
        ("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1;", 1),
    ] {
        let listed = snapshots();
        let client = hosted.client(sql);
        let begun = Instant::now();
        let refused = hosted.keeper.pgkeep(IN_PLACE).run();
        refused.expect_failure(4, &["held by", &hosted.app.name, "psql", "idle in transaction"]);
        assert!(begun.elapsed() < Duration::from_mins(1), "{sql}");
        assert_eq!(snapshots(), listed + taken, "{sql}");
        drop(client);
        assert_eq!(hosted.state(), before);
    }
    hosted.keeper.pgkeep(IN_PLACE).run().expect_code(0);
}

/// What the safety snapshot does not hold must not be dropped.
#[test]
fn what_is_made_meanwhile_is_named_and_nothing_is_changed() {
    let hosted = Hosted::shop(&Server::older(), "meanwhile", 20);
    hosted.keeper.snapshot();
    hosted.as_app("DELETE FROM stock.items");
    let before = hosted.database.contents();
    let mut migration = hosted.database.server.program("psql", &hosted.database.name);
    migration.env("PGUSER", &hosted.app.name).env("PGPASSWORD", &hosted.app.password);
    migration.args(["-X", "-q", "-c"]).arg(
        "DO $$ BEGIN FOR n IN 1..100000 LOOP \
           EXECUTE format('CREATE FUNCTION made_%s() RETURNS int RETURN %s', n, n); COMMIT; \
           PERFORM pg_sleep(0.01); END LOOP; END $$",
    );
    migration.stderr(Stdio::null());
    let mut migration = migration.spawn().expect("psql runs");
    let refused = hosted.keeper.pgkeep(IN_PLACE).run();
    drop(migration.kill());
    drop(migration.wait());
    refused.expect_failure(4, &["came or went", "made_"]);
    assert_eq!(hosted.database.contents(), before);
}

/// Clients read and write all the time.
#[test]
fn clients_see_the_old_or_the_new_and_no_write_is_lost() {
    let server = Server::newer();
    let hosted = Hosted::shop(&server, "busy", 2_000);
    hosted.as_app("CREATE TABLE journal (n bigint PRIMARY KEY)");
    hosted.keeper.snapshot();
    hosted.as_app("DELETE FROM orders; DELETE FROM customers; DELETE FROM stock.items");
    let both =
        "SELECT (SELECT count(*) FROM customers) || ' ' || (SELECT count(*) FROM stock.items)";
    assert_eq!(hosted.as_app(both), "0 0");
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                seen.push(hosted.as_app(both));
            }
            seen
        });
        // Stays connected, and says which of its statements went through.
        let writer = scope.spawn(|| {
            let mut client = hosted.database.server.program("psql", &hosted.database.name);
            client.args(["-X", "-q", "-A", "-t"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = client.spawn().expect("psql runs");
            let mut stdin = child.stdin.take().expect("piped");
            let mut answers = BufReader::new(child.stdout.take().expect("piped")).lines();
            let mut written = Vec::new();
            for n in 1u64.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                writeln!(stdin, "INSERT INTO journal VALUES ({n}) RETURNING n;").expect("it reads");
                let answer = answers.next().expect("it stays connected").expect("text");
                written.push(answer.parse::<u64>().expect("a number"));
            }
            drop(stdin);
            child.wait().expect("psql ends");
            written
        });
        let output = hosted.keeper.pgkeep(IN_PLACE).args(["--json"]).run();
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        let (seen, written) = (reader.join().expect("reads"), writer.join().expect("writes"));
        let safety = output.expect_code(0).json()["safety_snapshot"].clone();
        assert!(seen.iter().all(|one| one == "0 0" || one == "200 2"), "{seen:?}");
        assert_eq!(seen.last().map(String::as_str), Some("200 2"));
        (written, safety)
    });
    let (written, safety) = written;
    let copy = format!("{}_copy", hosted.database.name);
    let mut admin = hosted.keeper;
    admin.set("PGKEEP_DATABASE_URL", hosted.database.url());
    let safety = safety.as_str().expect("an id");
    admin.pgkeep(["restore", safety, "--as", &copy]).run().expect_code(0);
    let rows = |database: &str| -> Vec<u64> {
        let text = server.psql(database, "SELECT n FROM journal ORDER BY n");
        text.lines().map(|line| line.parse().expect("a number")).collect()
    };
    let (before, after) = (rows(&copy), rows(&hosted.database.name));
    assert!(!before.is_empty() && !after.is_empty(), "{} and {}", before.len(), after.len());
    assert_eq!([before, after].concat(), written);
}

#[test]
fn nothing_happens_unasked() {
    let hosted = Hosted::shop(&Server::older(), "unasked", 20);
    let id = hosted.keeper.snapshot_id();
    hosted.as_app("DELETE FROM stock.items");
    let (before, listed) = (hosted.state(), hosted.keeper.listed());
    let plan = hosted.keeper.pgkeep(["restore", "--in-place", "--dry-run"]).run().expect_code(0);
    for told in [&*id, &hosted.database.name, "3 tables", "1 large object", "safety snapshot"] {
        assert!(plan.stdout.contains(told), "{told}: {}", plan.stdout);
    }
    let words = ["restore", "--in-place", "--dry-run", "--json"];
    let document = hosted.keeper.pgkeep(words).run().expect_code(0).json();
    assert_eq!(document["database"], *hosted.database.name);
    assert!(document["steps"].as_array().is_some_and(|steps| steps.len() == 4), "{document}");
    hosted.keeper.pgkeep(["restore", "--in-place"]).run().expect_failure(2, &["would be replaced"]);
    assert_eq!((hosted.state(), hosted.keeper.listed()), (before, listed));
}

#[test]
fn what_streams_from_the_database_is_named_and_refused() {
    let server = Server::newer();
    let hosted = Hosted::shop(&server, "streams", 20);
    hosted.keeper.snapshot();
    let good = hosted.state();
    let slot = format!("{}_slot", hosted.database.name);
    hosted
        .database
        .psql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    hosted.as_app("DELETE FROM stock.items");
    let before = hosted.state();
    hosted.keeper.pgkeep(IN_PLACE).run().expect_failure(4, &[&slot]);
    assert_eq!(hosted.state(), before);
    hosted.keeper.pgkeep(IN_PLACE).args(["--force"]).run().expect_code(0);
    assert_eq!(hosted.state(), good);
    hosted.database.psql(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    // A prepared transaction holds its tables for ever: no consent helps.
    let gid = format!("{} gid", hosted.database.name);
    hosted.as_app(&format!("BEGIN; DELETE FROM stock.items; PREPARE TRANSACTION '{gid}'"));
    let refused = hosted.keeper.pgkeep(IN_PLACE).args(["--force"]).run();
    hosted.database.psql(&format!("ROLLBACK PREPARED '{gid}'"));
    refused.expect_failure(4, &[&gid]);
}

#[test]
fn a_pooler_of_transactions_is_refused() {
    let server = Server::older();
    let database = server.database("pooled");
    let mut keeper = Keeper::initialised(&database.shop(10).url());
    keeper.snapshot();
    let pooler = Pooler::start(&server, "transaction", "");
    keeper.set("PGKEEP_DATABASE_URL", pooler.server.url(&database.name));
    keeper.pgkeep(IN_PLACE).run().expect_failure(4, &["pooler"]);
}

#[test]
fn another_server_s_database_is_filled_in_place() {
    let hosted = Hosted::shop(&Server::older(), "from", 100);
    let id = hosted.keeper.snapshot_id();
    let server = Server::newer();
    let app = server.role("app", "x");
    let target = server.database("into");
    let (name, owner) = (quoted(&target.name), quoted(&app.name));
    server.psql("postgres", &format!("ALTER DATABASE {name} OWNER TO {owner}"));
    let to = app.url(&target.name);
    let words = ["restore", &id, "--in-place", "--yes", "--to", &to];
    // Its roles are of another server.
    hosted.keeper.pgkeep(words).run().expect_failure(4, &[&hosted.app.name]);
    let output = hosted.keeper.pgkeep(words).args(["--no-owner", "--json"]).run().expect_code(0);
    assert_eq!(output.json()["database"], *target.name);
    assert_eq!(target.contents(), hosted.database.contents());
    let latest = hosted.keeper.pgkeep(["show", "latest", "--json"]).run().expect_code(0).json();
    assert_eq!(latest["id"], *id);
}

#[test]
fn too_few_locks_are_told_with_the_setting() {
    let server = Cluster::older(&["max_locks_per_transaction=10", "max_connections=10"]);
    server.psql("postgres", "CREATE DATABASE shop");
    server.psql("shop", "CREATE TABLE one (a int)");
    let keeper = Keeper::initialised(&server.url("shop"));
    keeper.snapshot();
    let many =
        "SELECT format('CREATE TABLE t%s (a int)', n) FROM generate_series(1, 3000) n \\gexec";
    server.psql("shop", many);
    let refused = keeper.pgkeep(IN_PLACE).run().expect_failure(4, &["is as it was"]);
    assert!(refused.stderr.contains("max_locks_per_transaction"), "{}", refused.stderr);
    assert_eq!(
        server.psql("shop", "SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-9]'"),
        "3000"
    );
}
