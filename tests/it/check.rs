//! `check` against real set-ups, good and bad; the dump role of config/roles.sql; and poolers in the way.

use serde_json::Value;

use crate::support::server::{Role, quoted};
use crate::support::{Cluster, Database, Keeper, Pooler, Server};

/// What `check --json` tells.
struct Checked {
    document: Value,
}

impl Checked {
    #[track_caller]
    fn of(keeper: &Keeper, code: i32) -> Self {
        let output = keeper.pgkeep(["check", "--json"]).run().expect_code(code);
        assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
        let document = output.json();
        assert_eq!(document["exit_code"], code, "{document}");
        Self { document }
    }

    fn all(&self) -> &[Value] {
        self.document["checks"].as_array().expect("a list")
    }

    /// The findings of that name.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.all().iter().filter(move |check| check["name"] == name)
    }

    /// The only finding of that name with that result.
    #[track_caller]
    fn one<'a>(&'a self, name: &'a str, result: &str) -> &'a Value {
        let mut found = self.named(name).filter(|check| check["result"] == result);
        let one = found.next().unwrap_or_else(|| panic!("no {result} {name}: {:#}", self.document));
        assert!(found.next().is_none(), "{name}: {:#}", self.document);
        assert!(result == "ok" || one["hint"].as_str().is_some_and(|hint| !hint.is_empty()));
        one
    }

    /// Those that are not well, by name.
    fn not_ok(&self) -> Vec<&str> {
        let bad = self.all().iter().filter(|check| check["result"] != "ok");
        bad.filter_map(|check| check["name"].as_str()).collect()
    }
}

/// Runs config/roles.sql for a role of this test, as an operator would.
#[track_caller]
fn dump_role(database: &Database, variables: &[&str]) -> Role {
    let role = database.server.role("dumper", "secret");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/roles.sql");
    let mut psql = database.server.program("psql", &database.name);
    psql.args(["-X", "-q", "-v", &format!("role={}", role.name)]);
    psql.args(variables).args(["-f", path]);
    let output = psql.output().expect("psql runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    role
}

/// As on a production host: what reads backups is elsewhere.
fn take_identity_away(keeper: &Keeper) -> std::path::PathBuf {
    let away = keeper.work().join("kit.txt");
    std::fs::rename(keeper.recovery_kit(), &away).expect("the kit can be moved");
    away
}

#[test]
fn a_good_set_up_is_all_green_and_nothing_is_left_of_the_check() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("green");
        database.shop(50).psql("SELECT lo_from_bytea(0, 'x')");
        let role = dump_role(&database, &[]);
        let keeper = Keeper::initialised(&role.url(&database.name));
        take_identity_away(&keeper);
        let checked = Checked::of(&keeper, 0);
        assert_eq!(checked.not_ok(), [""; 0], "{:#}", checked.document);
        assert_eq!(checked.document["result"], "ok");
        for name in [
            "configuration",
            "keys",
            "store-put",
            "store-get",
            "store-range",
            "store-list",
            "store-delete",
            "repository",
            "writer-key",
            "identity",
            "backups",
            "server",
            "pooler",
            "clock",
            "role",
            "connections",
            "system-identifier",
            "client-programs",
            "server-programs",
            "privileges",
            "scratch-space",
        ] {
            checked.one(name, "ok");
        }
        assert_eq!(keeper.objects_under("probes"), []);
        let text = keeper.pgkeep(["check"]).run().expect_code(0);
        assert!(text.stdout.ends_with("all is well\n"), "{}", text.stdout);
        let quiet = keeper.pgkeep(["check", "--quiet"]).run().expect_code(0);
        assert_eq!(quiet.stdout, "");
    }
}

#[test]
fn an_identity_that_is_kept_only_here_is_a_warning() {
    let database = Server::newer().database("kept");
    let keeper = Keeper::initialised(&database.url());
    let checked = Checked::of(&keeper, 0);
    assert_eq!(checked.not_ok(), ["identity"]);
    let told = checked.one("identity", "warning")["detail"].as_str().expect("a detail");
    assert!(told.contains("identity kept only here"), "{told}");
    assert_eq!(checked.document["warnings"], 1);
    let quiet = keeper.pgkeep(["check", "--quiet"]).run().expect_code(0);
    assert!(quiet.stdout.starts_with("warning  identity"), "{}", quiet.stdout);
}

#[test]
fn each_missing_privilege_is_named_with_the_statement_that_mends_it() {
    let server = Server::older();
    let database = server.database("Poor \"Shop");
    database.shop(10).psql(
        "CREATE SCHEMA \"My Schema\"; CREATE TABLE \"My Schema\".\"T\" (n serial); \
         CREATE TABLE five AS SELECT 1 AS a; CREATE TABLE six AS SELECT 1 AS a; \
         SELECT lo_from_bytea(77001, 'x'); SELECT lo_from_bytea(77002, 'y'); \
         CREATE TABLE hidden (n integer); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY",
    );
    let role = server.role("poor", "secret");
    server.psql(
        "postgres",
        &format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", quoted(&database.name)),
    );
    let mut keeper = Keeper::initialised(&server.url("postgres"));
    keeper.set("PGKEEP_DATABASE_URL", role.url(&database.name));
    let mend = |finding: &Value| {
        database.psql(finding["statement"].as_str().expect("a statement"));
    };
    // Not even in.
    let out = Checked::of(&keeper, 4);
    mend(out.one("server", "failed"));
    let unreadable = Checked::of(&keeper, 4);
    let finding = unreadable.one("privileges", "failed");
    assert_eq!(finding["database"].as_str(), Some(&*database.name));
    assert_eq!(finding["kind"], "postgres");
    let statement = finding["statement"].as_str().expect("a statement").to_owned();
    for part in ["USAGE ON SCHEMA \"My Schema\"", "\"public\".\"six\"", "77001, 77002"] {
        assert!(statement.contains(part), "{statement}");
    }
    keeper.pgkeep(["snapshot"]).run().expect_failure(4, &["may not read"]);
    let text = keeper.pgkeep(["check"]).run().expect_failure(4, &["of", "checks failed"]);
    assert!(text.stdout.contains("         run:  GRANT "), "{}", text.stdout);
    mend(finding);
    let hidden = Checked::of(&keeper, 4);
    hidden.one("privileges", "ok");
    keeper.pgkeep(["snapshot"]).run().expect_failure(4, &["row security"]);
    mend(hidden.one("row-security", "failed"));
    let passwords = Checked::of(&keeper, 0);
    mend(passwords.one("role", "warning"));
    let checked = Checked::of(&keeper, 0);
    assert_eq!(checked.not_ok(), ["identity"], "{:#}", checked.document);
    keeper.snapshot();
    keeper.verify(&[]);
}

#[test]
fn the_gravest_problem_is_the_exit_code() {
    let database = Server::newer().database("gravest");
    let mut keeper = Keeper::initialised(&database.url());
    let url = |keeper: &mut Keeper, url: &str| {
        keeper.set("PGKEEP_DATABASE_URL", url);
    };
    url(&mut keeper, "prisma+postgres://accelerate");
    Checked::of(&keeper, 2).one("server", "failed");
    url(&mut keeper, "postgres://nobody@127.0.0.1:1/x");
    let down = Checked::of(&keeper, 4);
    down.one("server", "failed");
    // The rest is looked at all the same.
    down.one("store-delete", "ok");
    let there = keeper.repository_url();
    keeper.set("PGKEEP_REPOSITORY", format!("{there}-elsewhere"));
    Checked::of(&keeper, 5).one("store", "failed");
    std::fs::create_dir(format!("{}-elsewhere", keeper.repository().display()))
        .expect("a directory");
    let empty = Checked::of(&keeper, 5);
    empty.one("repository", "failed");
    assert_eq!(empty.named("store-put").count(), 0, "nothing is put where no repository is");
    keeper.set("PGKEEP_REPOSITORY", there);
    url(&mut keeper, &database.url());
    let key = keeper.home().join("writer.key");
    let text = std::fs::read_to_string(&key).expect("a key");
    std::fs::write(&key, text.replace("key-1:", "key-1:0")).expect("a key");
    let damaged = Checked::of(&keeper, 7);
    damaged.one("keys", "failed");
    damaged.one("server", "ok");
    std::fs::write(&key, text).expect("a key");
    let stranger = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    keeper.set("PGKEEP_RECIPIENTS", stranger);
    let differ = Checked::of(&keeper, 7);
    assert!(differ.one("writer-key", "failed")["detail"].as_str().unwrap().contains("recipients"));
    // A configuration that cannot be read at all is a plain failure.
    keeper.set("PGKEEP_NONSENSE", "1");
    keeper.pgkeep(["check"]).run().expect_failure(2, &["PGKEEP_NONSENSE"]);
}

#[test]
fn a_role_with_too_few_connections_and_an_old_password_are_told() {
    let database = Server::older().database("few");
    let role = dump_role(&database, &[]);
    let keeper = Keeper::initialised(&role.url(&database.name));
    let alter = |what: &str| {
        database.psql(&format!("ALTER ROLE {} {what}", quoted(&role.name)));
    };
    alter("CONNECTION LIMIT 3 VALID UNTIL 'tomorrow'");
    let checked = Checked::of(&keeper, 4);
    let statement = checked.one("connections", "failed")["statement"].as_str().expect("one");
    let warned = checked.one("role", "warning")["detail"].as_str().expect("a detail");
    assert!(warned.contains("password ends"), "{warned}");
    database.psql(statement);
    Checked::of(&keeper, 0).one("connections", "ok");
}

#[test]
fn another_server_under_the_same_name_is_told_before_it_is_dumped() {
    let database = Server::older().database("swapped");
    let mut keeper = Keeper::initialised(&database.shop(10).url());
    keeper.snapshot();
    Checked::of(&keeper, 0).one("system-identifier", "ok");
    let other = Server::newer().database("swapped");
    keeper.set("PGKEEP_DATABASE_URL", other.url());
    let told = Checked::of(&keeper, 0);
    told.one("system-identifier", "warning");
    keeper.snapshot();
    Checked::of(&keeper, 0).one("backups", "warning");
}

#[test]
fn a_host_that_only_verifies_needs_no_server_and_no_writer_key() {
    let database = Server::newer().database("vault");
    let mut keeper = Keeper::initialised(&database.shop(10).url());
    keeper.snapshot();
    std::fs::remove_file(keeper.home().join("writer.key")).expect("a key");
    keeper.unset("PGKEEP_DATABASE_URL");
    let checked = Checked::of(&keeper, 0);
    assert_eq!(checked.not_ok(), ["writer-key", "identity"], "{:#}", checked.document);
    keeper.verify(&[]);
    // What it finds damaged is told, and the exit code says so.
    let manifest = keeper.objects_under("clusters/main/snapshots").into_iter();
    let manifest =
        manifest.map(|(_, path)| path).find(|path| path.extension().is_some_and(|e| e == "json"));
    let manifest = manifest.expect("a manifest");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(&manifest, text.replace("\"manual\"", "\"scheduled\"")).expect("a manifest");
    Checked::of(&keeper, 7).one("backups", "failed");
}

#[test]
fn a_typing_error_in_exclude_table_data_is_told() {
    let database = Server::newer().database("typo");
    let mut keeper = Keeper::initialised(&database.shop(10).url());
    keeper.set("PGKEEP__CLUSTERS__MAIN__EXCLUDE_TABLE_DATA", "ordres,customers");
    let checked = Checked::of(&keeper, 0);
    let told = checked.one("exclude-table-data", "warning")["detail"].as_str().expect("a detail");
    assert!(told.contains("ordres"), "{told}");
}

#[test]
fn the_dump_role_takes_snapshots_that_verify_and_can_do_nothing_else() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("least");
        database.shop(300).psql(
            "CREATE SCHEMA inner_circle; CREATE TABLE inner_circle.t AS SELECT 1 AS n; \
             ALTER TABLE inner_circle.t ENABLE ROW LEVEL SECURITY; \
             CREATE POLICY none ON inner_circle.t USING (false); \
             SELECT lo_from_bytea(88001, 'x')",
        );
        // Without the variant the table with row security is refused, and named.
        let careful = dump_role(&database, &[]);
        let mut keeper = Keeper::initialised(&careful.url(&database.name));
        let kit = take_identity_away(&keeper);
        Checked::of(&keeper, 4).one("row-security", "failed");
        let role = dump_role(&database, &["-v", "bypassrls=1"]);
        keeper.set("PGKEEP_DATABASE_URL", role.url(&database.name));
        let checked = Checked::of(&keeper, 0);
        assert_eq!(checked.not_ok(), [""; 0], "{:#}", checked.document);
        let taken = keeper.pgkeep(["snapshot"]).run().expect_code(0);
        assert_eq!(taken.stderr, "", "not even a note: passwords are kept, too");
        keeper.set("PGKEEP_IDENTITY_FILE", kit);
        keeper.verify(&["--check", "full"]);

        let before = database.contents();
        let mut psql = server.program("psql", &database.name);
        psql.env("PGUSER", &role.name).env("PGPASSWORD", &role.password);
        psql.args(["-X", "-q", "-v", "VERBOSITY=sqlstate"]);
        let statements = [
            "INSERT INTO orders SELECT * FROM orders",
            "UPDATE customers SET name = 'x'",
            "DELETE FROM orders",
            "TRUNCATE orders",
            "DROP TABLE orders",
            "ALTER TABLE orders ADD COLUMN x integer",
            "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE",
            "SELECT nextval('orders_id_seq')",
            "CREATE TABLE mine (n integer)",
            "CREATE SCHEMA mine",
            "CREATE TABLE inner_circle.mine (n integer)",
            "DROP SCHEMA inner_circle CASCADE",
            "SELECT lo_unlink(88001)",
            "SELECT lo_put(88001, 0, 'y')",
            "CREATE DATABASE mine",
            "CREATE ROLE mine",
            "GRANT pg_write_all_data TO CURRENT_USER",
            "ALTER ROLE postgres PASSWORD 'x'",
            "ALTER SYSTEM SET archive_mode = off",
            "COPY orders TO PROGRAM 'cat'",
            "COPY orders TO '/tmp/pgkeep-least'",
            "SELECT pg_read_file('/etc/passwd')",
            "SELECT pg_switch_wal()",
            "SELECT pg_create_physical_replication_slot('mine')",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
            "DROP OWNED BY postgres",
            "REASSIGN OWNED BY postgres TO CURRENT_USER",
        ];
        // The fence that it can take away is away: what is left is what it may not.
        let attempt = |sql: &&str| {
            format!(
                "BEGIN; SET LOCAL transaction_read_only = off;\n{sql};\n\\echo :SQLSTATE\nROLLBACK;\n"
            )
        };
        let script = statements.iter().map(attempt).collect::<Vec<_>>().concat();
        let (_, stdout, stderr) = crate::support::server::run_with_input(
            psql,
            format!("SET default_transaction_read_only = off;\n{script}").as_bytes(),
        );
        let told = String::from_utf8_lossy(&stdout);
        let states: Vec<&str> = told.lines().filter(|line| line.len() == 5).collect();
        assert_eq!(states.len(), statements.len(), "{told}{}", String::from_utf8_lossy(&stderr));
        for (statement, state) in statements.iter().zip(&states) {
            // 42501 is "permission denied"; CREATE DATABASE and ALTER SYSTEM want no transaction first.
            let refused = ["42501", "25001"].contains(state);
            assert!(refused, "{statement}: {state}");
        }
        assert_eq!(database.contents(), before);
        for outside in ["CREATE DATABASE mine", "ALTER SYSTEM SET archive_mode = off"] {
            let url = role.url(&database.name);
            let mut psql = server.program("psql", &database.name);
            psql.args([
                "-X",
                "-d",
                &url,
                "-c",
                "SET default_transaction_read_only = off",
                "-c",
                outside,
            ]);
            let output = psql.output().expect("psql runs");
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(told.contains("permission denied"), "{outside}: {told}");
        }
    }
}

#[test]
fn transaction_pooling_is_refused_before_anything_is_written() {
    // A server of its own: advisory locks of other tests would be counted.
    let server = Cluster::older(&[]);
    let database = server.database("pooled");
    let ways = ["", "ignore_startup_parameters = options", "default_pool_size = 1"];
    for more in ways {
        let pooler = Pooler::start(&server, "transaction", more);
        let mut keeper = Keeper::initialised(&database.url());
        database.psql("DROP TABLE IF EXISTS orders, customers CASCADE");
        database.psql("CREATE TABLE orders AS SELECT generate_series(1, 100) AS n");
        let direct = keeper.snapshot_id();
        let before = keeper.objects_but_events();
        keeper.set("PGKEEP_DATABASE_URL", pooler.server.url(&database.name));
        let refused = keeper.pgkeep(["snapshot"]).run();
        let refused = refused.expect_failure(4, &["a pooler stands at 127.0.0.1"]);
        assert!(refused.stderr.contains("DIRECT_URL"), "{}", refused.stderr);
        assert_eq!(keeper.objects_but_events(), before, "{more}");
        let checked = Checked::of(&keeper, 4);
        checked.one("pooler", "failed");
        let copy = format!("{}_copy", database.name);
        let restore = keeper.pgkeep(["restore", &direct, "--as", &copy]).run();
        restore.expect_failure(4, &["a pooler stands at 127.0.0.1"]);
        assert!(!server.has_database(&copy) && keeper.leftovers().is_empty());
        // No lock stays with a server connection of the pool.
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        assert_eq!(database.psql(locks), "0", "{more}");
        // With the direct address beside it, all is well.
        keeper.unset("PGKEEP_DATABASE_URL").set("DIRECT_URL", database.url());
        keeper.set("DATABASE_URL", pooler.server.url(&database.name));
        assert_ne!(keeper.snapshot_id(), direct);
    }
}

#[test]
fn snapshots_work_through_session_pooling() {
    let server = Server::newer();
    for more in ["", "ignore_startup_parameters = options"] {
        let database = server.database("sessions");
        database.nasty();
        // What settings could lead astray, with settings that do.
        database.psql(&format!(
            "CREATE TABLE moments AS SELECT n, now() + n * interval '1 hour' AS t, \
             n * interval '25 hours' AS i, 1 / (n::float8) AS f, sha256(n::text::bytea) AS b \
             FROM generate_series(1, 200) AS n; \
             ALTER DATABASE {0} SET timezone = 'Asia/Kathmandu'; \
             ALTER DATABASE {0} SET intervalstyle = 'iso_8601'; \
             ALTER DATABASE {0} SET datestyle = 'German'; \
             ALTER DATABASE {0} SET extra_float_digits = 0",
            quoted(&database.name)
        ));
        let pooler = Pooler::start(&server, "session", more);
        let keeper = Keeper::initialised(&pooler.server.url(&database.name));
        let checked = Checked::of(&keeper, 0);
        checked.one("pooler", "warning");
        keeper.snapshot();
        keeper.verify(&["--check", "full"]);
        let copy = format!("{}_copy", database.name);
        let restore = keeper.pgkeep(["restore", "--as", &copy]).run();
        restore.expect_failure(4, &["a pooler stands at 127.0.0.1"]);
        assert!(
            server
                .databases_like("pgkeep_scratch_")
                .iter()
                .all(|name| !name.contains(&database.name))
        );
        let restore = keeper.pgkeep(["restore", "--as", &copy, "--to", &database.url()]).run();
        restore.expect_code(0);
        // A setting that cannot be got past the pooler is refused by its name.
        database.psql(&format!(
            "ALTER DATABASE {} SET bytea_output = 'escape'",
            quoted(&database.name)
        ));
        server_connections_renewed(&pooler, &database);
        let before = keeper.objects_but_events().len();
        keeper.pgkeep(["snapshot"]).run().expect_failure(4, &["bytea_output"]);
        assert_eq!(keeper.objects_but_events().len(), before, "{more}");
        let direct = keeper.pgkeep(["snapshot"]).env("PGKEEP_DATABASE_URL", database.url());
        direct.run().expect_code(0);
    }
}

/// A database's settings reach only new server connections.
fn server_connections_renewed(pooler: &Pooler, database: &Database) {
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.psql(end);
    crate::support::eventually("new connections", std::time::Duration::from_secs(20), || {
        pooler.server.try_psql(&database.name, "SHOW bytea_output").as_deref() == Ok("escape")
    });
}

#[test]
fn a_server_without_room_for_the_sessions_of_a_snapshot_is_told() {
    let cluster = Cluster::older(&["max_connections=8", "max_wal_senders=2"]);
    let keeper = Keeper::initialised(&cluster.url("postgres"));
    Checked::of(&keeper, 0).one("connections", "ok");
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut psql = cluster.program("psql", "postgres");
        psql.args(["-X", "-q", "-c", "SELECT pg_sleep(60)"]);
        idle.push(psql.spawn().expect("psql runs"));
    }
    let limit = std::time::Duration::from_secs(20);
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
    crate::support::eventually("they are in", limit, || cluster.psql("postgres", busy) == "3");
    Checked::of(&keeper, 0).one("connections", "warning");
    for mut psql in idle {
        psql.kill().expect("psql can be ended");
        psql.wait().expect("it has ended");
    }
}
