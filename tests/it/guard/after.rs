//! What is looked at when the command has ended.

use super::{guarded, shop, told};
use crate::support::{App, Keeper, Server};

const NOTHING: &str = "true";

#[track_caller]
fn with_health(keeper: &mut Keeper, urls: &[String], within: &str) {
    keeper.set("PGKEEP__CLUSTERS__MAIN__HEALTH__URLS", urls.join(","));
    keeper.set("PGKEEP__CLUSTERS__MAIN__HEALTH__WITHIN", within);
}

#[test]
fn an_application_that_is_not_well_is_exit_11() {
    let (database, mut keeper) = shop("health");
    let app = App::new();
    with_health(&mut keeper, &[app.url("/ok"), app.url("/late")], "30s");
    let report = told(&guarded(&keeper, &database, &["--json"], NOTHING).run().expect_code(0));
    assert_eq!(
        (&report["checks"][0]["name"], &report["checks"][0]["result"]),
        (&"health".into(), &"passed".into())
    );
    assert_eq!(app.asked("/late"), 3, "asked again until it is well");
    for (path, words) in [("/sick", "HTTP 503"), ("/hang", "no answer")] {
        with_health(&mut keeper, &[app.url(path), app.url("/ok")], "2s");
        let begun = std::time::Instant::now();
        let output = guarded(&keeper, &database, &[], NOTHING).run();
        let output = output.expect_failure(11, &["the command succeeded, but", path, words]);
        assert!(begun.elapsed() < std::time::Duration::from_mins(1), "the deadline holds");
        assert!(output.stderr.contains("pgkeep rollback "), "{}", output.stderr);
    }
    // Before the application is started nobody can be asked.
    guarded(&keeper, &database, &["--no-health"], NOTHING).run().expect_code(0);
    // The command's own failure comes first.
    guarded(&keeper, &database, &[], "exit 3").run().expect_code(3);
}

#[test]
fn an_assertion_that_finds_a_row_is_exit_11_and_its_row_is_not_shown() {
    let (database, keeper) = shop("asserts");
    let path = keeper.home().join("pgkeep.toml");
    let mut text = std::fs::read_to_string(&path).expect("the configuration");
    text.push_str(
        "\n[[clusters.main.assertions]]\nname = \"every order has a customer\"\n\
         sql = \"SELECT note FROM orders WHERE note LIKE 'orphan%'\"\n",
    );
    std::fs::write(&path, text).expect("written");
    guarded(&keeper, &database, &[], NOTHING).run().expect_code(0);
    let script =
        "psql -q \"$URL\" -c \"UPDATE orders SET note = 'orphan ' || 'secret' WHERE id = 1\"";
    let output = guarded(&keeper, &database, &["--json"], script).run();
    let output = output.expect_failure(11, &["every order has a customer"]);
    assert!(!output.stdout.contains("orphan secret"));
    assert_eq!(told(&output)["outcome"], "checks-failed");
    let log = keeper.pgkeep(["log", "--json", "--limit", "1"]).run().expect_code(0).json();
    assert_eq!((&log[0]["event"], &log[0]["exit_code"]), (&"migrate".into(), &11.into()));
}

#[test]
fn what_is_left_to_mend_is_told_with_the_statement_that_mends_it() {
    let server = Server::older();
    let database = server.database("mends");
    database.psql("CREATE TABLE pets (id int, owner int); INSERT INTO pets VALUES (1, 7), (1, 8); CREATE TABLE owners (id int PRIMARY KEY)");
    let role = server.role("dumper", "pw");
    database.psql(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}", role.name));
    let keeper = Keeper::initialised(&role.url(&database.name));
    let script = "psql -q \"$URL\" -c 'CREATE UNIQUE INDEX CONCURRENTLY \"Pets\" ON pets (id)' ; \
        psql -q -v ON_ERROR_STOP=1 \"$URL\" -c 'ALTER TABLE pets ADD CONSTRAINT owned FOREIGN KEY (owner) REFERENCES owners NOT VALID' \
        -c 'CREATE TABLE visits (id serial)'";
    let output = guarded(&keeper, &database, &["--json"], script).run().expect_code(0);
    let report = told(&output);
    let warnings = report["warnings"].as_array().expect("warnings");
    let statements: Vec<&str> =
        warnings.iter().filter_map(|one| one["statement"].as_str()).collect();
    assert_eq!(statements.len(), 3, "{warnings:?}");
    assert_eq!(statements[0], r#"REINDEX INDEX CONCURRENTLY "public"."Pets";"#);
    assert_eq!(statements[1], r#"ALTER TABLE "public"."pets" VALIDATE CONSTRAINT "owned";"#);
    assert!(
        statements[2].contains("GRANT SELECT ON TABLE \"public\".\"visits\""),
        "{}",
        statements[2]
    );
    // They do mend it.
    keeper.pgkeep(["snapshot"]).run().expect_code(4);
    database.psql("DELETE FROM pets WHERE owner = 8; INSERT INTO owners VALUES (7)");
    for statement in statements {
        database.psql(statement);
    }
    // And what was there before the command is not told again.
    let report = told(&guarded(&keeper, &database, &["--json"], NOTHING).run().expect_code(0));
    assert_eq!(report["warnings"], serde_json::json!([]));
}

#[test]
fn a_snapshot_that_is_to_be_verified_is_restored_before_the_command() {
    let (database, mut keeper) = shop("proved");
    let report =
        told(&guarded(&keeper, &database, &["--json", "--verify"], NOTHING).run().expect_code(0));
    assert_eq!(report["snapshot"]["verified"], true);
    assert_eq!(keeper.list()[0]["verification"], "passed");
    // Without the identity it cannot be, nor could a rollback be.
    let kit = keeper.recovery_kit();
    let away = keeper.work().join("kit");
    std::fs::rename(&kit, &away).expect("moved");
    guarded(&keeper, &database, &["--verify"], "touch ran")
        .run()
        .expect_failure(10, &["was not run"]);
    let output = guarded(&keeper, &database, &["--require-rollback"], "touch ran").run();
    output.expect_failure(10, &["a rollback could not run", "no identity"]);
    std::fs::rename(&away, &kit).expect("moved back");
    let role = database.server.role("lowly", "pw");
    database.psql(&format!("GRANT pg_read_all_data TO {}", role.name));
    keeper.set("PGKEEP_DATABASE_URL", role.url(&database.name));
    let output = guarded(&keeper, &database, &["--require-rollback"], "touch ran").run();
    output.expect_failure(10, &["a rollback could not run", &role.name]);
    assert!(!keeper.work().join("ran").exists());
}

#[test]
fn a_database_that_the_command_makes_anew_is_looked_at_as_it_is_then() {
    let (database, keeper) = shop("anew");
    let postgres = database.server.url("postgres");
    let name = &database.name;
    let script = format!(
        "psql -q -v ON_ERROR_STOP=1 '{postgres}' -c 'DROP DATABASE {name}' -c 'CREATE DATABASE {name}'"
    );
    let report = told(&guarded(&keeper, &database, &["--json"], &script).run().expect_code(0));
    assert_eq!(report["outcome"], "succeeded");
    // And one that is gone afterwards is no success.
    let script = format!("psql -q '{postgres}' -c 'DROP DATABASE {name}'");
    database.psql("CREATE TABLE something (id int)");
    let output = guarded(&keeper, &database, &[], &script).run();
    output.expect_failure(11, &["could not be looked at"]);
}

#[test]
fn a_migration_that_fails_again_under_its_name_is_no_old_failure() {
    let (database, keeper) = shop("again");
    let prisma = "CREATE TABLE _prisma_migrations (id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, \
        finished_at timestamptz, migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz, \
        started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0); \
        INSERT INTO _prisma_migrations VALUES ('a', 'x', NULL, '1_init', NULL, NULL, now(), 0)";
    let golang = "CREATE SCHEMA golang; \
        CREATE TABLE golang.schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL); \
        INSERT INTO golang.schema_migrations VALUES (3, true)";
    database.psql(&format!("{prisma}; {golang}"));
    let report = told(&guarded(&keeper, &database, &["--json"], NOTHING).run().expect_code(0));
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("1_init") && warnings.contains("`3`, which failed, as before"));
    for (again, name) in [
        (
            "UPDATE _prisma_migrations SET rolled_back_at = now(); \
             INSERT INTO _prisma_migrations VALUES ('b', 'x', NULL, '1_init', NULL, NULL, now(), 0)",
            "1_init",
        ),
        (
            "TRUNCATE golang.schema_migrations; INSERT INTO golang.schema_migrations VALUES (3, true)",
            "3",
        ),
    ] {
        let script = format!("psql -q \"$URL\" -c \"{again}\"");
        let output = guarded(&keeper, &database, &[], &script).run();
        output.expect_failure(11, &["holds failed migrations", name]);
    }
}
