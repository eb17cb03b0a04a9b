//! `restore --replace`: the copy takes the live name only after it has proved itself.

use crate::support::server::quoted;
use crate::support::{Keeper, Server};

/// What of a database is outside it: owner, grants, settings and the like.
const OUTSIDE: &str = "SELECT pg_get_userbyid(datdba), datacl, datconnlimit, datistemplate, \
    shobj_description(d.oid, 'pg_database'), (SELECT array_agg(setrole::regrole || ':' || \
    array_to_string(setconfig, ',') ORDER BY setrole) FROM pg_db_role_setting AS s \
    WHERE s.setdatabase = d.oid) FROM pg_database AS d WHERE datname = ";

#[test]
fn the_copy_takes_the_name_and_the_old_database_is_kept() {
    let server = Server::older();
    let database = server.database("swap");
    let keeper = Keeper::initialised(&database.shop(500).url());
    let id = keeper.snapshot_id();
    let before = database.contents();
    database.psql("DROP TABLE orders CASCADE; UPDATE customers SET name = 'nobody'");
    let ruined = database.contents();
    let output = keeper.pgkeep(["restore", &id, "--replace", "--yes", "--json"]).run();
    output.expect_code(0);
    assert_eq!(database.contents(), before);
    let kept = server.databases_like(&format!("{}_before_", database.name));
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(server.contents(&kept[0]), ruined);
}

#[test]
fn what_is_outside_the_database_is_carried_over_from_the_live_one() {
    let server = Server::newer();
    let database = server.database("outside");
    let owner = server.role("owner", "x");
    let reader = server.role("reader", "x");
    let (name, owner_name, reader_name) =
        (quoted(&database.name), quoted(&owner.name), quoted(&reader.name));
    let keeper = Keeper::initialised(&database.shop(50).url());
    keeper.snapshot();
    // Changed after the snapshot: the live database tells, not the backup.
    server.psql(
        "postgres",
        &format!(
            "ALTER DATABASE {name} OWNER TO {owner_name}; REVOKE CONNECT ON DATABASE {name} FROM PUBLIC; \
             GRANT CONNECT ON DATABASE {name} TO {reader_name} WITH GRANT OPTION; \
             ALTER DATABASE {name} CONNECTION LIMIT 7; ALTER DATABASE {name} SET work_mem = '7MB'; \
             ALTER ROLE {reader_name} IN DATABASE {name} SET search_path = 'a', 'B c'; \
             COMMENT ON DATABASE {name} IS 'it''s ours'"
        ),
    );
    let tell = format!("{OUTSIDE}'{}'", database.name);
    let before = server.psql("postgres", &tell);
    assert!(before.contains("7MB") && before.contains("it's ours"), "{before}");
    let live = || {
        let sql = format!("SELECT oid FROM pg_database WHERE datname = '{}'", database.name);
        server.psql("postgres", &sql)
    };
    let old = live();
    keeper.pgkeep(["restore", "--replace", "--yes"]).run().expect_code(0);
    assert_ne!(live(), old);
    assert_eq!(server.psql("postgres", &tell), before);
    // Roles that own something cannot be dropped before it.
    server.psql("postgres", &format!("ALTER DATABASE {name} OWNER TO postgres"));
    for kept in server.databases_like(&format!("{}_before_", database.name)) {
        server.psql("postgres", &format!("DROP DATABASE {}", quoted(&kept)));
    }
    database.drop_now();
}

#[test]
fn clients_that_stay_connected_do_not_stop_the_swap() {
    let server = Server::older();
    let database = server.database("busy");
    let keeper = Keeper::initialised(&database.shop(50).url());
    keeper.snapshot();
    let before = database.contents();
    database.psql("TRUNCATE orders");
    let mut client = server.program("psql", &database.name);
    client.args(["-X", "-q", "-c", "SELECT pg_sleep(60)"]);
    client.stderr(std::process::Stdio::null());
    let mut client = client.spawn().expect("psql runs");
    let connected = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND query LIKE '%pg_sleep(60)%'",
        database.name
    );
    crate::support::eventually("the client", std::time::Duration::from_secs(10), || {
        server.psql("postgres", &connected) == "1"
    });
    keeper.pgkeep(["restore", "--replace", "--yes"]).run().expect_code(0);
    assert_eq!(database.contents(), before);
    assert!(!client.wait().expect("it has ended").success());
}

#[test]
fn what_would_stay_with_the_old_database_is_named_and_refused() {
    let server = Server::newer();
    let database = server.database("slots");
    let keeper = Keeper::initialised(&database.shop(10).url());
    keeper.snapshot();
    let before = database.contents();
    let slot = format!("{}_slot", database.name);
    database.psql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    database.psql("TRUNCATE orders");
    let ruined = database.contents();
    keeper.pgkeep(["restore", "--replace", "--yes"]).run().expect_failure(4, &[&slot]);
    assert_eq!(database.contents(), ruined);
    keeper.pgkeep(["restore", "--replace", "--yes", "--force"]).run().expect_code(0);
    assert_eq!(database.contents(), before);
    server.psql("postgres", &format!("SELECT pg_drop_replication_slot('{slot}')"));
}

#[test]
fn a_prepared_transaction_is_named_and_refused() {
    let server = Server::older();
    let database = server.database("prepared");
    let keeper = Keeper::initialised(&database.shop(10).url());
    keeper.snapshot();
    let gid = format!("{} gid", database.name);
    database.psql(&format!("BEGIN; UPDATE orders SET note = 'x'; PREPARE TRANSACTION '{gid}'"));
    let refused = keeper.pgkeep(["restore", "--replace", "--yes"]).run();
    database.psql(&format!("ROLLBACK PREPARED '{gid}'"));
    refused.expect_failure(4, &[&gid]);
    assert_eq!(server.databases_like(&format!("{}_before_", database.name)), [""; 0]);
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let server = Server::older();
    let database = server.database("plan");
    let keeper = Keeper::initialised(&database.shop(10).url());
    let id = keeper.snapshot_id();
    database.psql("TRUNCATE orders");
    let before = (database.contents(), server.databases_like(&database.name));
    let output = keeper.pgkeep(["restore", "--replace", "--dry-run"]).run().expect_code(0);
    assert!(output.stdout.contains(&database.name) && output.stdout.contains(&id), "{output:?}");
    assert_eq!((database.contents(), server.databases_like(&database.name)), before);
}

#[test]
fn a_swap_without_yes_is_refused_where_nobody_can_be_asked() {
    let database = Server::older().database("unasked");
    let keeper = Keeper::initialised(&database.shop(10).url());
    keeper.snapshot();
    let before = database.contents();
    keeper.pgkeep(["restore", "--replace"]).run().expect_failure(2, &["--yes"]);
    assert_eq!(database.contents(), before);
}

#[test]
fn a_role_that_may_make_databases_and_is_a_member_of_every_owner_swaps_all_of_it() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("member");
        let (keeping, app) = (server.role("keeping", "x"), server.role("app", "x"));
        let (name, keeping_name, app_name) =
            (quoted(&database.name), quoted(&keeping.name), quoted(&app.name));
        database.shop(50).psql(&format!(
            "ALTER TABLE orders OWNER TO {app_name}; ALTER TABLE customers OWNER TO {app_name}; \
             ALTER DATABASE {name} OWNER TO {app_name}; ALTER ROLE {keeping_name} CREATEDB; \
             GRANT {app_name} TO {keeping_name}; \
             CREATE MATERIALIZED VIEW said AS SELECT current_setting('lc_messages') AS tongue; \
             ALTER MATERIALIZED VIEW said OWNER TO {app_name}; ALTER VIEW spending OWNER TO {app_name}"
        ));
        let mut keeper = Keeper::initialised(&database.url());
        keeper.snapshot();
        // What the view holds is another matter.
        let contents = || -> Vec<String> {
            let all = database.contents();
            all.lines().filter(|line| !line.contains(".said|")).map(str::to_owned).collect()
        };
        let before = contents();
        let definition = database.definition();
        keeper.set("PGKEEP_DATABASE_URL", keeping.url(&database.name));
        let replace = ["restore", "latest", "--replace", "--yes"];
        let restored = |granted: bool| {
            database.psql("UPDATE orders SET note = 'ruined'");
            keeper.pgkeep(replace).run().expect_code(0);
            assert_eq!(contents(), before);
            assert_eq!(database.definition(), definition);
            // The session that ran the archive's statements spoke so.
            let plain = database.psql("SELECT tongue = 'C' FROM said") == "t";
            assert_eq!(plain, granted, "PostgreSQL {}", server.major);
        };
        restored(false);
        // Accidents in it are known by the server's words, which it may choose from now on.
        let grant = format!("GRANT SET ON PARAMETER lc_messages TO {keeping_name}");
        server.psql("postgres", &grant);
        restored(true);
        server.psql("postgres", &grant.replace("GRANT", "REVOKE").replace(" TO ", " FROM "));
        for kept in server.databases_like(&format!("{}_before_", database.name)) {
            server.psql("postgres", &format!("DROP DATABASE {}", quoted(&kept)));
        }
    }
}

#[test]
fn what_the_role_may_not_do_is_no_verdict_on_the_backup() {
    let server = Server::older();
    let database = server.database("forbidden");
    let (keeping, app) = (server.role("keeping", "x"), server.role("app", "x"));
    let (name, keeping_name, app_name) =
        (quoted(&database.name), quoted(&keeping.name), quoted(&app.name));
    // The owner of a table who owned its schema once, and may make nothing there now.
    database.psql(&format!(
        "CREATE SCHEMA s; CREATE TABLE s.t (a int); ALTER TABLE s.t OWNER TO {app_name}; \
         ALTER SCHEMA s OWNER TO {keeping_name}; ALTER DATABASE {name} OWNER TO {keeping_name}; \
         ALTER ROLE {keeping_name} CREATEDB; GRANT {app_name} TO {keeping_name}"
    ));
    let mut keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    keeper.set("PGKEEP_DATABASE_URL", keeping.url(&database.name));
    let copy = format!("{}_copy", database.name);
    let restore = ["restore", "latest", "--as", &copy];
    let refused = keeper.pgkeep(restore).run().expect_failure(4, &["permission denied"]);
    assert!(refused.stderr.contains("--no-owner"), "{}", refused.stderr);
    assert!(!server.has_database(&copy));
    keeper.pgkeep(restore).args(["--no-owner"]).run().expect_code(0);
    server.psql("postgres", &format!("DROP DATABASE {}", quoted(&copy)));
}

#[test]
fn a_copy_without_its_owners_and_grants_takes_no_live_name_unasked() {
    let server = Server::older();
    let database = server.database("owners");
    let (keeping, app) = (server.role("keeping", "x"), server.role("app", "x"));
    let (name, keeping_name, app_name) =
        (quoted(&database.name), quoted(&keeping.name), quoted(&app.name));
    database.shop(50).psql(&format!(
        "ALTER TABLE orders OWNER TO {app_name}; GRANT SELECT ON customers TO {app_name}; \
         ALTER DATABASE {name} OWNER TO {keeping_name}; ALTER ROLE {keeping_name} CREATEDB"
    ));
    let mut keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    // The owner of the database, who is no member of the owner of a table.
    keeper.set("PGKEEP_DATABASE_URL", keeping.url(&database.name));
    let replace = ["restore", "latest", "--replace", "--yes"];
    keeper.pgkeep(replace).run().expect_failure(4, &["owners"]);
    let reads = format!("SET ROLE {app_name}; SELECT count(*) FROM customers");
    assert_eq!(database.psql(&reads), "5");
    assert_eq!(server.databases_like(&format!("{}_before_", database.name)), [""; 0]);
    // A copy beside it harms nobody, and is said to lack them.
    let copy = format!("{}_copy", database.name);
    let output = keeper.pgkeep(["restore", "latest", "--as", &copy]).run().expect_code(0);
    assert!(output.stderr.contains("without owners"), "{}", output.stderr);
}
