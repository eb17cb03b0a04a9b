//! Accidents and wrong input: one clear line with a hint, the documented exit code, nothing half-made.

use std::os::unix::fs::PermissionsExt;

use pgkeep::domain::connection::ConnectionInfo;
use pgkeep::ops::snapshot::databases;
use pgkeep::postgres::sources::SystemSources;

use crate::support::server::quoted;
use crate::support::{Database, Keeper, Server};

/// A keeper whose snapshots must fail so, leaving nothing listed.
#[track_caller]
fn snapshot_fails(keeper: &Keeper, code: i32, words: &[&str]) {
    keeper.pgkeep(["snapshot"]).run().expect_failure(code, words);
    keeper.pgkeep(["snapshot", "--json"]).run().expect_failure(code, words);
    assert_eq!(keeper.listed(), [""; 0]);
}

fn shop(name: &str) -> (Database, Keeper) {
    let database = Server::older().database(name);
    let keeper = Keeper::initialised(&database.shop(100).url());
    (database, keeper)
}

#[test]
fn a_server_that_is_down() {
    let (_database, mut keeper) = shop("down");
    keeper.set("PGKEEP_DATABASE_URL", "postgresql://postgres:x@127.0.0.1:1/postgres");
    snapshot_fails(&keeper, 4, &["127.0.0.1"]);
}

#[test]
fn a_wrong_password() {
    let (database, mut keeper) = shop("password");
    let url = database.server.url_as("postgres", "certainly-wrong", &database.name);
    keeper.set("PGKEEP_DATABASE_URL", url);
    snapshot_fails(&keeper, 4, &["password"]);
    let output = keeper.pgkeep(["snapshot"]).run();
    assert!(!output.stderr.contains("certainly-wrong"), "{}", output.stderr);
}

#[test]
fn a_database_that_does_not_exist() {
    let (database, mut keeper) = shop("absent");
    keeper.set("PGKEEP_DATABASE_URL", database.server.url("no such database"));
    snapshot_fails(&keeper, 4, &["no such database"]);
}

#[test]
fn a_table_that_the_role_cannot_read_is_named() {
    let (database, mut keeper) = shop("unreadable");
    let role = database.server.role("half", "x");
    let name = quoted(&role.name);
    database.psql(&format!(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}; \
         GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {name}; \
         CREATE TABLE \"Payroll\" (id int); "
    ));
    keeper.set("PGKEEP_DATABASE_URL", role.url(&database.name));
    snapshot_fails(&keeper, 4, &["Payroll"]);
}

#[test]
fn row_security_that_would_filter_rows_is_named() {
    let (database, mut keeper) = shop("policies");
    let role = database.server.role("tenant", "x");
    database.psql(&format!(
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; GRANT pg_read_all_data TO {}",
        quoted(&role.name)
    ));
    keeper.set("PGKEEP_DATABASE_URL", role.url(&database.name));
    snapshot_fails(&keeper, 4, &["orders"]);
}

#[track_caller]
fn snapshot_with_pg_dump(name: &str, body: &str, code: i32, words: &[&str]) {
    let (database, mut keeper) = shop(name);
    let programs = keeper.programs_with_pg_dump(&database.server, body);
    let path = format!("{}:/usr/bin:/bin", programs.display());
    keeper.set("PGKEEP_BIN_DIR", &programs).set("PATH", path);
    snapshot_fails(&keeper, code, words);
}

#[test]
fn a_pg_dump_that_passes_over_a_table() {
    // A whole archive and exit 0, and the rows of one table are not in it.
    let body = "exec $REAL --exclude-table-data='public.orders' \"$@\"";
    snapshot_with_pg_dump("passes", body, 4, &["orders"]);
}

#[test]
fn a_pg_dump_killed_midway() {
    let body = "$REAL \"$@\" | head -c 3000\nkill -9 $$";
    snapshot_with_pg_dump("killed", body, 4, &["pg_dump"]);
}

#[test]
fn a_pg_dump_that_fails_after_plausible_output() {
    let body = "$REAL \"$@\"\necho 'pg_dump: error: the disk is on fire' >&2\nexit 1";
    snapshot_with_pg_dump("plausible", body, 4, &["the disk is on fire"]);
}

#[test]
fn a_pg_dump_that_succeeds_with_half_an_archive() {
    let body = "$REAL \"$@\" | head -c 3000\nexit 0";
    snapshot_with_pg_dump("half", body, 4, &[]);
}

#[test]
fn a_pg_dump_that_succeeds_with_nothing() {
    snapshot_with_pg_dump("nothing", "exit 0", 4, &[]);
}

#[test]
fn a_repository_that_is_not_there() {
    let database = Server::older().database("nowhere");
    let keeper = Keeper::new(&database.shop(10).url());
    for verb in [&["snapshot"][..], &["list"], &["verify"], &["restore"]] {
        let output = keeper.pgkeep(verb).run();
        assert_ne!(output.code, 0, "{verb:?}");
    }
    let keeper = Keeper::initialised(&database.url());
    std::fs::rename(keeper.repository(), keeper.work().join("away")).expect("it can be moved");
    for verb in [&["snapshot"][..], &["list"], &["verify"], &["restore"]] {
        keeper.pgkeep(verb).run().expect_failure(5, &[]);
    }
    assert!(!keeper.repository().exists(), "nothing but `init` makes a repository");
}

#[test]
fn a_wrong_identity() {
    let (database, mut keeper) = shop("identity");
    keeper.snapshot();
    let other = keeper.work().join("other");
    let make = format!("age-keygen -o '{}' 2>/dev/null", other.display());
    keeper.shell(&make).run().expect_code(0);
    keeper.set("PGKEEP_IDENTITY_FILE", &other);
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", "--as", &copy]).run().expect_failure(7, &["identity"]);
    assert!(!database.server.has_database(&copy));
}

#[test]
fn recipients_that_differ_from_the_epochs() {
    let (_database, mut keeper) = shop("recipients");
    let other = keeper.shell("age-keygen 2>/dev/null | age-keygen -y").run().expect_code(0);
    keeper.set("PGKEEP_RECIPIENTS", other.stdout.trim());
    snapshot_fails(&keeper, 7, &["recipients"]);
}

#[test]
fn no_recipients() {
    let (database, keeper) = shop("nobody");
    // The writer key is there, and nothing that says to whom.
    let mut other = Keeper::new(&database.url());
    let key = keeper.home().join("writer.key");
    other.set("PGKEEP_REPOSITORY", keeper.repository_url()).set("PGKEEP_WRITER_KEY_FILE", key);
    other.pgkeep(["snapshot"]).run().expect_failure(7, &["recipients"]);
    assert_eq!(keeper.listed(), [""; 0]);
}

#[test]
fn a_restore_onto_an_existing_name_tells_the_choices() {
    let (database, keeper) = shop("taken");
    keeper.snapshot();
    let before = database.contents();
    let output = keeper.pgkeep(["restore"]).run().expect_failure(2, &[&database.name]);
    assert!(output.stderr.contains("--replace") && output.stderr.contains("--as"), "{output:?}");
    let other = database.server.database("occupied");
    keeper.pgkeep(["restore", "--as", &other.name]).run().expect_failure(2, &[&other.name]);
    assert_eq!(database.contents(), before);
}

#[test]
fn a_configuration_that_others_can_read_while_it_holds_a_secret() {
    let (database, keeper) = shop("readable");
    let file = keeper.work().join("pgkeep.toml");
    let text = format!(
        "[repository]\nurl = \"{}\"\n[clusters.main]\nurl = \"{}\"\n",
        keeper.repository_url(),
        database.url()
    );
    std::fs::write(&file, text).expect("a file");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("a mode");
    let list = || {
        let words = ["--config", file.to_str().expect("plain"), "list"];
        keeper.pgkeep(words).without("PGKEEP_DATABASE_URL").run()
    };
    list().expect_failure(2, &["pgkeep.toml"]);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("a mode");
    list().expect_code(0);
}

#[test]
fn a_before_hook_that_fails_stops_the_run_and_the_failed_hook_is_told() {
    let (database, keeper) = shop("hooks");
    let told = keeper.work().join("told");
    let file = keeper.work().join("hooks.toml");
    let text = format!(
        "[clusters.main]\nurl = \"{}\"\ndatabases = [\"{}\"]\n\
         hooks = {{ before = [\"false\"], failed = [\"touch\", \"{}\"] }}\n",
        database.url(),
        database.name,
        told.display()
    );
    let known = std::fs::read_to_string(keeper.home().join("pgkeep.toml")).expect("init wrote it");
    std::fs::write(&file, format!("{known}\n{text}")).expect("a file");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("a mode");
    let words = ["--config", file.to_str().expect("plain"), "snapshot"];
    let output = keeper.pgkeep(words).without("PGKEEP_DATABASE_URL").run();
    output.expect_failure(1, &["before"]);
    assert!(told.exists(), "whoever waits for bad news has heard nothing");
    assert_eq!(keeper.listed(), [""; 0]);
}

#[tokio::test]
async fn templates_are_backed_up_and_what_cannot_be_or_need_not_is_passed_over() {
    let server = Server::older();
    let (template, invalid) = (server.database("template"), server.database("invalid"));
    let scratch = "pgkeep_scratch_0a0b0c0d_test";
    server.psql(
        "postgres",
        &format!(
            "ALTER DATABASE {} IS_TEMPLATE true; \
             UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{}'",
            quoted(&template.name),
            invalid.name
        ),
    );
    server.psql("postgres", &format!("CREATE DATABASE {scratch} IS_TEMPLATE true"));
    server.psql(
        "postgres",
        &format!(
            "COMMENT ON DATABASE {scratch} IS 'pgkeep scratch database 1; lock 0a0b0c0d in x'"
        ),
    );
    let url = ConnectionInfo::parse(&server.url("postgres"), &SystemSources).expect("a URL");
    let found = databases(&url).await.expect("a list");
    server.psql(
        "postgres",
        &format!(
            "ALTER DATABASE {} IS_TEMPLATE false; ALTER DATABASE {scratch} IS_TEMPLATE false; \
             UPDATE pg_database SET datconnlimit = -1 WHERE datname = '{}'",
            quoted(&template.name),
            invalid.name
        ),
    );
    server.psql("postgres", &format!("DROP DATABASE {scratch}"));
    let has = |name: &str| found.iter().any(|found| found == name);
    assert!(has(&template.name) && has("postgres"), "{found:?}");
    assert!(!has(&invalid.name) && !has(scratch) && !has("template1"), "{found:?}");
}

#[test]
fn unknown_variables_and_keys_name_the_nearest_known_one() {
    let (_database, keeper) = shop("typing");
    let output = keeper.pgkeep(["list"]).env("PGKEEP_REPOSITRY", "x").run();
    let output = output.expect_failure(2, &["PGKEEP_REPOSITRY"]);
    assert!(output.stderr.contains("PGKEEP_REPOSITORY"), "{output:?}");
    let file = keeper.work().join("typing.toml");
    std::fs::write(&file, "[repository]\nulr = \"file:///x\"\n").expect("a file");
    let words = ["--config", file.to_str().expect("plain"), "list"];
    let output = keeper.pgkeep(words).run().expect_failure(2, &["ulr"]);
    assert!(output.stderr.contains("url") && output.stderr.contains('2'), "{output:?}");
}

#[test]
fn wrong_use_of_the_command_line() {
    let keeper = Keeper::new("postgresql://127.0.0.1:1/x");
    for words in [
        &["no-such-verb"][..],
        &["snapshot", "--trigger", "weekly"],
        &["restore", "--replace", "--as", "x"],
        &["verify", "--check", "everything"],
        &["snapshot", "--label", "without-value"],
    ] {
        let output = keeper.pgkeep(words).run();
        assert_eq!(output.code, 2, "{words:?}: {output:?}");
    }
    keeper.pgkeep(["--version"]).run().expect_code(0);
    keeper.pgkeep(["--help"]).run().expect_code(0);
}

#[test]
fn a_role_that_is_missing_on_the_target_is_told_before_anything_is_made() {
    let source = Server::older();
    let database = source.database("owned");
    let role = source.role("shopkeeper", "x");
    let keeper = Keeper::initialised(&database.shop(10).url());
    database.psql(&format!("ALTER TABLE orders OWNER TO {}", quoted(&role.name)));
    keeper.snapshot();
    let target = Server::newer();
    let copy = format!("{}_copy", database.name);
    let to = target.url("postgres");
    let restore = ["restore", "--as", &copy, "--to", &to];
    keeper.pgkeep(restore).run().expect_failure(4, &[&role.name]);
    assert!(!target.has_database(&copy));
    // As the hint says: make the role, and run it again.
    target.psql("postgres", &format!("CREATE ROLE {}", quoted(&role.name)));
    keeper.pgkeep(restore).run().expect_code(0);
    assert_eq!(target.contents(&copy), database.contents());
    target.psql("postgres", &format!("DROP DATABASE {copy}"));
    target.psql("postgres", &format!("DROP ROLE {}", quoted(&role.name)));
    database.psql("ALTER TABLE orders OWNER TO postgres");
}
