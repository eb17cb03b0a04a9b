//! The ways back that a disaster needs: a lost server from nothing but the kit, roles, staging copies.

use serde_json::Value;

use crate::support::server::quoted;
use crate::support::{Cluster, Database, Keeper, Server};

/// A host that never saw the repository: the kit in a file of its own, and no other key.
fn bare_host(of: &Keeper) -> Keeper {
    let mut host = Keeper::new("postgresql://127.0.0.1:1/nothing");
    let kit = host.work().join("kit.txt");
    std::fs::copy(of.recovery_kit(), &kit).expect("the kit travels");
    host.unset("PGKEEP_DATABASE_URL")
        .set("PGKEEP_REPOSITORY", of.repository_url())
        .set("PGKEEP_IDENTITY_FILE", &kit);
    host
}

fn shop() -> String {
    include_str!("sql/shop.sql").replace(":orders", "300")
}

/// One row, one value, as that role, who logs in with a password.
fn as_role(server: &Server, role: &str, password: &str, database: &str, sql: &str) -> String {
    let output = std::process::Command::new(server.bin.join("psql"))
        .args(["-X", "-A", "-t", "-c", sql, &server.url_as(role, password, database)])
        .output()
        .expect("psql runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

const ROLES: &str = "CREATE ROLE \"app's role\" LOGIN PASSWORD 'p@ss; word' CONNECTION LIMIT 7; \
    CREATE ROLE readers; GRANT readers TO \"app's role\" WITH ADMIN OPTION; \
    ALTER ROLE readers SET work_mem = '9MB'; COMMENT ON ROLE readers IS 'they; read'; \
    CREATE DATABASE shop OWNER \"app's role\"; CREATE DATABASE \"Größe & co\"; \
    ALTER DATABASE shop SET statement_timeout = '77s'; \
    ALTER ROLE \"app's role\" IN DATABASE shop SET search_path = shop, public; \
    REVOKE CONNECT ON DATABASE shop FROM PUBLIC";

#[test]
fn a_lost_server_comes_back_with_one_line() {
    let mut source = Cluster::older(&["work_mem=5MB"]);
    source.psql("postgres", ROLES);
    for database in ["shop", "Größe & co"] {
        source.psql(database, &shop());
    }
    source.psql(
        "shop",
        "ALTER TABLE orders OWNER TO \"app's role\"; GRANT SELECT ON orders TO readers",
    );
    let keeper = Keeper::initialised(&source.url("postgres"));
    let databases = ["shop", "Größe & co", "postgres"];
    keeper.pgkeep(["snapshot"]).args(databases).run().expect_code(0);
    let before = databases.map(|database| source.contents(database));
    source.kill();
    drop(source);

    let host = bare_host(&keeper);
    let target = Cluster::newer(&[]);
    let to = target.url("postgres");
    let line = ["restore", "--all", "--to", &to, "--json"];
    let planned = host.pgkeep(line).args(["--dry-run"]).run().expect_code(0);
    assert_eq!(planned.json_lines().len(), 2, "{planned:?}");
    assert_eq!(target.psql("postgres", "SELECT count(*) FROM pg_database").trim(), "3");
    let output = host.pgkeep(line).run().expect_code(0);
    let restored = output.json_lines();
    // The snapshot of `postgres` holds nothing, and a new server has one.
    assert_eq!(restored.len(), 2, "{output:?}");
    assert!(output.stderr.contains("`postgres` is there"), "{output:?}");
    assert!(output.stderr.contains("work_mem = 5120"), "{output:?}");
    let made: Vec<&Value> =
        restored.iter().flat_map(|one| one["roles_created"].as_array().expect("roles")).collect();
    assert_eq!(made, ["app's role", "readers"]);
    assert_eq!(databases.map(|database| target.contents(database)), before);

    let sql = "SELECT current_setting('statement_timeout') || current_setting('search_path')";
    assert_eq!(as_role(&target, "app's role", "p@ss; word", "shop", sql), "77sshop, public");
    let facts = "SELECT pg_get_userbyid(datdba) || ' ' || (SELECT rolconnlimit FROM pg_roles WHERE rolname = 'app''s role') \
                 || ' ' || (SELECT rolconfig::text FROM pg_roles WHERE rolname = 'readers') \
                 || ' ' || (SELECT admin_option FROM pg_auth_members WHERE roleid = 'readers'::regrole) \
                 || ' ' || has_database_privilege('readers', 'shop', 'CONNECT') \
                 || ' ' || shobj_description('readers'::regrole, 'pg_authid') \
                 FROM pg_database WHERE datname = 'shop'";
    assert_eq!(
        target.psql("postgres", facts).trim(),
        "app's role 7 {work_mem=9MB} true false they; read"
    );
    let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'orders'";
    assert_eq!(target.psql("shop", owner).trim(), "app's role");

    // Again: the names are taken, which is told before anything is made.
    target.psql("shop", "DELETE FROM orders WHERE id = 1");
    let changed = target.contents("shop");
    let again = host.pgkeep(["restore", "--all", "--to", &to]).run();
    assert_eq!(again.code, 2, "{again:?}");
    assert_eq!(target.contents("shop"), changed);
    assert_eq!(target.databases_like("pgkeep_scratch"), [""; 0]);
    assert_eq!(host.leftovers(), [""; 0]);
}

#[test]
fn a_server_that_lacks_one_database_s_name_gets_none_of_them() {
    let source = Server::older();
    let (one, two) = (source.database("one"), source.database("two"));
    one.shop(10);
    two.shop(10);
    let keeper = Keeper::initialised(&one.url());
    keeper.pgkeep(["snapshot", &one.name, &two.name]).run().expect_code(0);
    let target = Cluster::newer(&[]);
    target.psql("postgres", &format!("CREATE DATABASE {}", quoted(&two.name)));
    target.psql(&two.name, "CREATE TABLE mine (a int)");
    let to = target.url("postgres");
    let refused =
        keeper.pgkeep(["restore", "--all", "--to", &to]).run().expect_failure(2, &[&two.name]);
    let hint = format!("restore --database {} --as NAME", two.name);
    assert!(refused.stderr.contains(&hint), "{refused:?}");
    assert!(!target.has_database(&one.name));
    assert_eq!(target.psql(&two.name, "SELECT count(*) FROM mine").trim(), "0");
}

#[test]
fn a_server_older_than_the_snapshot_is_refused_before_anything_is_made_on_it() {
    let source = Server::newer().database("newer_than");
    let owner = source.server.role("newer_owner", "secret");
    source.shop(20).psql(&format!("ALTER TABLE orders OWNER TO {}", quoted(&owner.name)));
    let mut keeper = Keeper::initialised(&source.url());
    let id = keeper.snapshot_id();
    let before = keeper.objects_but_events();
    // Its programs are there, in either major, and so is room: the server's major alone is in the way.
    let target = Server::older();
    let (own, to) = (source.name.clone(), target.url("postgres"));
    let (newer, older) = (source.server.major, target.major);
    let told = format!("of PostgreSQL {newer}, and the target is PostgreSQL {older}");
    let hint = format!("hint: restore to a server of PostgreSQL {newer} or newer");
    let refused = |ways: &[&[&str]], to: &str| {
        for way in ways {
            let restore = keeper.pgkeep(["restore", "--to", to]).args(*way);
            let output = restore.run().expect_failure(4, &[&told]);
            assert!(output.stderr.contains(&hint), "{way:?}: {}", output.stderr);
            assert_eq!(keeper.leftovers(), [""; 0], "{way:?}");
        }
        assert_eq!(keeper.listed(), [id.as_str()], "not even a safety snapshot");
        assert_eq!(keeper.objects_but_events(), before);
        let roles = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{}'", owner.name);
        assert_eq!(target.psql("postgres", &roles), "0");
    };
    let copy = format!("{own}_copy");
    let to_a_free_name: [&[&str]; 6] = [
        &[],
        &["--dry-run"],
        &["--as", &copy],
        &["--roles", "create"],
        &["--no-owner", "--table", "orders"],
        &["--all"],
    ];
    refused(&to_a_free_name, &to);
    assert_eq!(target.databases_like(&own), [""; 0]);

    target.psql("postgres", &format!("CREATE DATABASE {}", quoted(&own)));
    let live = Database { server: target.clone(), name: own.clone() };
    live.psql("CREATE TABLE mine AS SELECT 1 AS a");
    let contents = live.contents();
    refused(&[&["--replace", "--yes"], &["--in-place", "--yes", "--roles", "create"]], &live.url());
    assert_eq!(live.contents(), contents);
    assert_eq!(target.databases_like(&own), [own.as_str()]);

    // Nor does such a server stand in for a scratch cluster.
    keeper.set("PGKEEP__CLUSTERS__MAIN__VERIFY__SCRATCH", &to);
    let verified = keeper
        .pgkeep(["verify"])
        .run()
        .expect_failure(4, &[&format!("is of PostgreSQL {newer}, and")]);
    assert!(verified.stderr.contains(&format!("install PostgreSQL {newer}'s server programs")));
    assert_eq!(keeper.list()[0]["verification"], Value::Null);
    let scratch = target.databases_like("pgkeep_scratch_");
    assert!(!scratch.iter().any(|name| name.contains(&own)), "{scratch:?}");
}

#[test]
fn missing_roles_are_made_when_asked_for_and_present_ones_keep_their_password() {
    let mut source = Cluster::older(&[]);
    source.psql(
        "postgres",
        "CREATE ROLE owner_role LOGIN PASSWORD 'old'; CREATE ROLE there LOGIN PASSWORD 'source'; \
         CREATE ROLE elsewhere; CREATE DATABASE shop OWNER owner_role",
    );
    source.psql("shop", &shop());
    source.psql("shop", "ALTER TABLE orders OWNER TO owner_role; GRANT SELECT ON orders TO there");
    let keeper = Keeper::initialised(&source.url("shop"));
    keeper.snapshot();
    let before = source.contents("shop");
    source.kill();
    let target = Cluster::newer(&[]);
    target.psql("postgres", "CREATE ROLE there LOGIN PASSWORD 'target'");
    let to = target.url("postgres");
    let refused = keeper.pgkeep(["restore", "--to", &to]).run().expect_failure(4, &["owner_role"]);
    assert!(refused.stderr.contains("--roles create"), "{refused:?}");
    let roles =
        "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname !~ '^pg_'";
    let present = target.psql("postgres", roles);
    let without = ["restore", "--all", "--to", &to, "--roles", "skip", "--no-owner"];
    keeper.pgkeep(without).run().expect_code(0);
    assert_eq!(target.psql("postgres", roles), present);
    assert_eq!(target.psql("shop", "SELECT count(*) FROM orders"), "300");
    target.psql("postgres", "DROP DATABASE shop");
    let planned = keeper.pgkeep(["restore", "--to", &to, "--roles", "create", "--dry-run"]).run();
    assert!(planned.expect_code(0).stdout.contains("create the roles"));
    assert!(!target.psql("postgres", "SELECT rolname FROM pg_roles").contains("owner_role"));
    keeper.pgkeep(["restore", "--to", &to, "--roles", "create"]).run().expect_code(0);
    assert_eq!(target.contents("shop"), before);
    as_role(&target, "owner_role", "old", "shop", "SELECT 1");
    as_role(&target, "there", "target", "shop", "SELECT count(*) FROM orders");
}

#[test]
fn a_staging_copy_is_masked_before_anyone_can_see_it() {
    let source = Server::older();
    let database = source.database("staging");
    let keeper = Keeper::initialised(&database.shop(50).url());
    keeper.snapshot();
    let before = database.contents();
    let copy = format!("{}_copy", database.name);
    let mask = keeper.work().join("mask it.sql");
    let restore = ["restore", "--as", &copy, "--run", "mask it.sql"];

    let missing = keeper.pgkeep(restore).run().expect_failure(2, &["mask it.sql"]);
    assert!(missing.stdout.is_empty(), "{missing:?}");
    // A script that fails half way leaves nothing behind.
    std::fs::write(&mask, "UPDATE orders SET note = 'masked';\nSELECT 1 / 0;\n").expect("a script");
    keeper.pgkeep(restore).run().expect_failure(4, &["mask it.sql", "division by zero"]);
    assert!(!source.has_database(&copy));
    assert_eq!(keeper.leftovers(), [""; 0]);

    std::fs::write(&mask, "\\set note masked\nUPDATE orders SET note = :'note';\n")
        .expect("a script");
    keeper.pgkeep(restore).run().expect_code(0);
    let notes = source.psql(&copy, "SELECT DISTINCT note FROM orders");
    assert_eq!(notes.trim(), "masked");
    assert_eq!(database.contents(), before);
    source.psql("postgres", &format!("DROP DATABASE {}", quoted(&copy)));
}

/// A table and a schema out of one of everything, into a database of their own and as SQL.
#[test]
fn single_tables_come_back_with_what_they_need() {
    // Every other relation on one major, the rest on the other.
    for (turn, server) in [Server::older(), Server::newer()].into_iter().enumerate() {
        let database = server.database("parts");
        database.nasty();
        let keeper = Keeper::initialised(&database.url());
        keeper.snapshot();
        let relations = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c \
                         JOIN pg_namespace n ON n.oid = c.relnamespace \
                         WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relname !~ E'\\n' AND c.relispopulated AND n.nspname !~ '^pg_' \
                           AND n.nspname <> 'information_schema' \
                           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') \
                         ORDER BY 1";
        let all = database.psql(relations);
        assert!(all.lines().count() > 8, "{all}");
        let copy = format!("{}_copy", database.name);
        for relation in all.lines().skip(turn).step_by(2) {
            let restore =
                ["restore", "--as", &copy, "--table", relation, "--check", "full", "--json"];
            keeper.pgkeep(restore).run().expect_code(0);
            // The children of a table that others inherit from are tables of their own.
            let plain = format!(
                "SELECT relkind FROM pg_class WHERE oid = '{}'::regclass",
                relation.replace('\'', "''")
            );
            let only = if database.psql(&plain).trim() == "r" { "ONLY " } else { "" };
            let count = format!("SELECT count(*) FROM {only}{relation}");
            assert_eq!(server.psql(&copy, &count), database.psql(&count), "{relation}");
            let there = server.psql(&copy, relations);
            assert!(there.lines().count() < all.lines().count(), "{relation}: {there}");
            server.psql("postgres", &format!("DROP DATABASE {}", quoted(&copy)));
        }
    }
}

#[test]
fn a_schema_comes_back_whole_and_no_other_does() {
    let server = Server::newer();
    let database = server.database("schemas");
    database.psql(
        "CREATE SCHEMA shop; CREATE SCHEMA secrets; CREATE TABLE secrets.t (a int); CREATE TABLE public.t (a int); \
         CREATE TYPE shop.state AS ENUM ('new', 'paid'); \
         CREATE TABLE shop.items (id serial PRIMARY KEY, name text); \
         CREATE TABLE shop.sales (item int REFERENCES shop.items, state shop.state); \
         CREATE VIEW shop.paid AS SELECT * FROM shop.sales WHERE state = 'paid'; \
         INSERT INTO shop.items (name) SELECT 'item ' || n FROM generate_series(1, 70) n; \
         INSERT INTO shop.sales SELECT id, 'paid' FROM shop.items",
    );
    let keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    let copy = format!("{}_copy", database.name);
    let restore = ["restore", "--as", &copy, "--schema", "shop", "--check", "full"];
    keeper.pgkeep(restore).run().expect_code(0);
    let relations = "SELECT string_agg(format('%s.%s', n.nspname, c.relname), ' ' ORDER BY c.relname) FROM pg_class c \
                     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v', 'S') \
                     AND n.nspname IN ('shop', 'secrets', 'public')";
    let whole = "shop.items shop.items_id_seq shop.paid shop.sales";
    let rows =
        "SELECT count(*), max(p.item), (SELECT last_value FROM shop.items_id_seq) FROM shop.paid p";
    assert_eq!(server.psql(&copy, relations), whole);
    assert_eq!(server.psql(&copy, rows), database.psql(rows));
    server.psql("postgres", &format!("DROP DATABASE {}", quoted(&copy)));
    let target = server.database("piped_schema");
    let script = format!(
        "{} restore latest --output - --format sql --schema shop | psql -X -q -v ON_ERROR_STOP=1 '{}'",
        env!("CARGO_BIN_EXE_pgkeep"),
        target.url()
    );
    keeper.shell(&script).run().expect_code(0);
    assert_eq!(
        (target.psql(relations), target.psql(rows)),
        (whole.to_owned(), database.psql(rows))
    );
}

#[test]
fn a_table_as_sql_goes_through_a_pipe_into_another_database() {
    let server = Server::older();
    let database = server.database("piped");
    let keeper = Keeper::initialised(&database.shop(200).url());
    keeper.snapshot();
    let target = server.database("rescued");
    let script = format!(
        "{} restore latest --output - --format sql --table orders | psql -X -q -v ON_ERROR_STOP=1 '{}'",
        env!("CARGO_BIN_EXE_pgkeep"),
        target.url()
    );
    keeper.shell(&script).run().expect_code(0);
    let rows = "SELECT count(*), sum(hashtext(o::text)) FROM orders o";
    assert_eq!(target.psql(rows), database.psql(rows));
    let tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    assert_eq!(target.psql(tables).trim(), "1");
    for (words, code, told) in [
        (&["restore", "--as", "x", "--table", "public.nosuch"][..], 8, "public.nosuch"),
        (&["restore", "--as", "x", "--schema", "nosuch"], 8, "nosuch"),
        (&["restore", "--output", "-", "--format", "sql", "--table", "nosuch"], 8, "nosuch"),
        (&["restore", "--output", "-", "--table", "orders"], 2, "custom format"),
    ] {
        keeper.pgkeep(words).run().expect_failure(code, &[told]);
    }
    assert!(!server.has_database("x"));
}

#[test]
fn an_index_that_reads_another_table_is_built_when_that_table_has_its_rows() {
    let server = Server::older();
    let database = server.database("lookup");
    // Declared immutable, as people do; `a` is filled long before `z`.
    database.psql(
        "CREATE TABLE z (v int, w int); \
         CREATE FUNCTION look(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT w FROM public.z WHERE v = $1 LIMIT 1'; \
         INSERT INTO z SELECT n, n % 10 FROM generate_series(1500000, 1, -1) n; \
         CREATE TABLE a (v int PRIMARY KEY); INSERT INTO a SELECT generate_series(199991, 200000); \
         CREATE INDEX looked ON a (look(v))",
    );
    let keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", "latest", "--as", &copy]).run().expect_code(0);
    let sql = "SET enable_seqscan = off; SELECT count(*) FROM a WHERE look(v) = 7";
    assert_eq!(server.psql(&copy, sql).trim(), "1");
}
