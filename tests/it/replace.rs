//! `restore --replace`: the copy takes the live name only after it has proved itself.

use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Duration;

use crate::support::server::{account, quoted};
use crate::support::{Cluster, Database, Keeper, Server, eventually};

const LIMIT: Duration = Duration::from_secs(20);

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
    eventually("the client", LIMIT, || server.psql("postgres", &connected) == "1");
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
fn an_enabled_subscription_is_named_and_refused_and_by_force_goes_on_in_the_old_database() {
    let (publisher, server) = (Server::older().database("publisher"), Server::newer());
    let database = server.database("subscriber");
    let name = quoted(&database.name);
    publisher
        .psql("CREATE TABLE news (id int PRIMARY KEY); CREATE PUBLICATION news FOR TABLE news");
    database.shop(10).psql("CREATE TABLE news (id int PRIMARY KEY)");
    let keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    let from = format!(
        "host=127.0.0.1 port={} user=postgres password={} dbname={}",
        publisher.server.port, publisher.server.password, publisher.name
    );
    database.psql(&format!("CREATE SUBSCRIPTION {name} CONNECTION '{from}' PUBLICATION news"));
    let arrives = |database: &str, id: u32| {
        publisher.psql(&format!("INSERT INTO news VALUES ({id})"));
        let sql = format!("SELECT count(*) FROM news WHERE id = {id}");
        eventually("the row arrives", LIMIT, || server.psql(database, &sql) == "1");
    };
    arrives(&database.name, 1);
    let before = database.contents();
    let words = ["enabled subscriptions", &database.name];
    keeper.pgkeep(["restore", "--replace", "--yes"]).run().expect_failure(4, &words);
    assert_eq!(database.contents(), before);
    let output = keeper.pgkeep(["restore", "--replace", "--yes", "--force"]).run().expect_code(0);
    let [kept] = &server.databases_like(&format!("{}_before_", database.name))[..] else {
        panic!("the old one is kept");
    };
    let told = format!(
        "note: stays with the old database, `{kept}`: enabled subscriptions ({})",
        database.name
    );
    assert!(output.stderr.contains(&told), "{}", output.stderr);
    // As it says: a copy does not subscribe.
    arrives(kept, 2);
    let subscribed = "SELECT count(*) FROM news; SELECT count(*) FROM pg_subscription \
                      WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(database.psql(subscribed), "0\n0");
    // Its slot goes with it, and nothing of it stands in the way of the publisher's end.
    server.psql(kept, &format!("DROP SUBSCRIPTION {name}"));
}

/// A server whose `pg_cron` runs the jobs of database `shop`, which is there.
fn with_pg_cron() -> (Cluster, Database) {
    let offers = |server: &Server| {
        let sql = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_cron'";
        server.psql("postgres", sql) == "1"
    };
    let options = ["shared_preload_libraries=pg_cron", "cron.database_name=shop"];
    let cluster = if offers(&Server::older()) {
        Cluster::older(&options)
    } else {
        assert!(offers(&Server::newer()), "pg_cron is missing: run `tests/setup test`");
        Cluster::newer(&options)
    };
    cluster.psql("postgres", "CREATE DATABASE shop");
    let database = Database { server: (*cluster).clone(), name: "shop".into() };
    (cluster, database)
}

#[test]
fn the_database_of_pg_cron_is_proved_and_refused_and_by_force_its_jobs_stay_with_the_old_one() {
    let (cluster, database) = with_pg_cron();
    database.shop(50).psql(
        "CREATE EXTENSION pg_cron; SELECT cron.schedule('yearly', '0 0 1 1 *', 'VACUUM'); \
         CREATE ROLE keeping LOGIN CREATEDB PASSWORD 'x'; ALTER DATABASE shop OWNER TO keeping",
    );
    let keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    keeper.verify(&["--check", "full"]);
    let shop = |name: &str| {
        let all = cluster.contents(name);
        let of_cron = |line: &&str| line.contains(" cron.");
        all.lines().filter(|line| !of_cron(line)).collect::<Vec<_>>().join("\n")
    };
    let good = shop("shop");
    database.psql("TRUNCATE orders");
    let ruined = shop("shop");
    let replace = ["restore", "--replace", "--yes"];
    keeper.pgkeep(replace).run().expect_failure(4, &["pg_cron"]);
    // A role that may not read the server's setting knows it by the extension.
    let poor = cluster.url_as("keeping", "x", "shop");
    let refused = keeper.pgkeep(replace).env("PGKEEP_DATABASE_URL", poor).run();
    refused.expect_failure(4, &["stay with the old `shop`: pg_cron"]);
    assert_eq!(shop("shop"), ruined);
    let output = keeper.pgkeep(replace).args(["--force"]).run().expect_code(0);
    let [kept] = &cluster.databases_like("shop_before_")[..] else { panic!("the old one is kept") };
    let told = format!("note: stays with the old database, `{kept}`: pg_cron (its jobs)");
    assert!(output.stderr.contains(&told), "{}", output.stderr);
    assert!(output.stdout.contains("EXTENSION pg_cron: "), "{}", output.stdout);
    assert_eq!((shop("shop"), shop(kept)), (good, ruined));
    assert_eq!(cluster.psql(kept, "SELECT jobname FROM cron.job"), "yearly");
    // It can be made where it belongs, as it says.
    database.psql("CREATE EXTENSION pg_cron");
}

#[test]
fn a_database_in_a_tablespace_of_its_own_keeps_it() {
    let cluster = Cluster::newer(&[]);
    let disk = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(disk.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    for (space, shown) in [("fast", "\"Fast Disk\""), ("slow", "slow")] {
        let place = disk.path().join(space);
        std::fs::create_dir(&place).expect("a directory");
        let (user, group) = account();
        chown(&place, user, group).expect("the servers' user can own it");
        let sql = format!("CREATE TABLESPACE {shown} LOCATION '{}'", place.display());
        cluster.psql("postgres", &sql);
    }
    cluster.psql("postgres", "CREATE DATABASE shop TABLESPACE \"Fast Disk\"");
    let database = Database { server: (*cluster).clone(), name: "shop".into() };
    database.shop(50).psql("ALTER TABLE customers SET TABLESPACE slow");
    let keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    let good = database.contents();
    let spaces = || {
        let sql = "SELECT spcname FROM pg_database JOIN pg_tablespace AS t ON t.oid = dattablespace \
                   WHERE datname = current_database(); \
                   SELECT relname, spcname FROM pg_class JOIN pg_tablespace AS t ON t.oid = reltablespace \
                   WHERE relname IN ('customers', 'orders')";
        database.psql(sql)
    };
    let before = spaces();
    assert_eq!(before, "Fast Disk\ncustomers|slow");
    database.psql("TRUNCATE orders");
    keeper.pgkeep(["restore", "--replace", "--yes"]).run().expect_code(0);
    assert_eq!(database.contents(), good);
    assert_eq!(spaces(), before);
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
