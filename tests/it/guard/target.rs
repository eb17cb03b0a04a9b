//! A migration that goes to another database than the one that was saved.

use super::{guarded, shop, told};
use crate::support::{App, Keeper, Server};

/// A `sqlx` that does what its script says.
fn tool(keeper: &Keeper, body: &str) -> String {
    let path = keeper.work().join("sqlx");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a program");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("a mode");
    let migrations = keeper.work().join("migrations");
    std::fs::create_dir_all(&migrations).expect("a directory");
    std::fs::write(migrations.join("1_pets.sql"), "CREATE TABLE pets (id int)").expect("a file");
    path.display().to_string()
}

#[test]
fn a_command_that_succeeds_and_leaves_nothing_here_is_exit_11() {
    let database = Server::newer().database("mistyped");
    database.drop_now();
    let mut keeper = Keeper::initialised(&database.url());
    let app = App::new();
    keeper.set("PGKEEP__CLUSTERS__MAIN__HEALTH__URLS", app.url("/ok"));
    let sqlx = tool(&keeper, "exit 0");
    let deploy = |keeper: &Keeper| {
        keeper.pgkeep(["migrate", "--yes", "--json", "--", &sqlx, "migrate", "run"]).run()
    };
    // The database is not there, and is not there afterwards.
    let output = deploy(&keeper).expect_failure(11, &["nothing arrived in", &database.name]);
    let report = told(&output);
    assert_eq!(report["checks"][0]["name"], "arrived");
    assert_eq!(report["checks"][1]["name"], "health", "the application is asked all the same");
    assert_eq!(app.asked("/ok"), 1);
    // A command that applies nothing makes no database either.
    keeper.pgkeep(["migrate", "--yes", "--", &sqlx, "--version"]).run().expect_code(0);
    guarded(&keeper, &database, &[], "true").run().expect_code(0);
    // It is there, and what was pending is pending.
    let (database, keeper) = shop("stuck");
    let sqlx = tool(&keeper, "exit 0");
    let output = keeper.pgkeep(["migrate", "--yes", "--", &sqlx, "migrate", "run"]).run();
    let output = output.expect_failure(11, &["nothing arrived in", &database.name]);
    assert!(output.stderr.contains("pgkeep rollback "), "{}", output.stderr);
}

#[test]
fn a_command_that_names_another_database_is_not_run() {
    let (database, mut keeper) = shop("meant");
    let other = database.server.database("other");
    let sqlx = tool(&keeper, "touch ran");
    let ran = keeper.work().join("ran");
    let apply = [sqlx.as_str(), "migrate", "run"];
    let assigned = format!("DATABASE_URL={}", other.url());
    let url = other.url();
    let objects = keeper.objects_but_events();
    let lines = [
        [&["env", &assigned][..], &apply].concat(),
        [&apply[..], &["--database-url", &url]].concat(),
    ];
    for line in lines {
        let output = keeper.pgkeep(["migrate", "--yes", "--"]).args(line).run();
        let output = output.expect_failure(2, &[&database.name, &other.name, "was not run"]);
        assert!(output.stderr.contains("--elsewhere"), "{}", output.stderr);
        assert!(!output.stderr.contains(&database.server.password));
    }
    // So it is by the environment, whatever the command.
    keeper.set("DATABASE_URL", other.url());
    let output = keeper.pgkeep(["migrate", "--dry-run", "--"]).args(apply).run();
    output.expect_failure(2, &[&other.name]);
    guarded(&keeper, &database, &[], "touch ran").run().expect_failure(2, &[&other.name]);
    assert!(!ran.exists());
    assert_eq!(keeper.objects_but_events(), objects);
    // One of the two is enough, however this host is called.
    let local = database.url().replace("127.0.0.1", "localhost");
    keeper.set("DIRECT_URL", format!("{local}?schema=public"));
    guarded(&keeper, &database, &[], "touch ran").run().expect_code(0);
    assert!(ran.exists());
    // And who insists has his way, but for the snapshot that he could be spared.
    keeper.unset("DIRECT_URL");
    let flags = ["migrate", "--yes", "--json", "--elsewhere", "--if-pending", "--"];
    database.psql(
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, \
         installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, \
         execution_time bigint NOT NULL); INSERT INTO _sqlx_migrations VALUES (1, 'pets', now(), true, '\\x00', 1)",
    );
    let report = told(&keeper.pgkeep(flags).args(apply).run().expect_code(0));
    assert_eq!(report["snapshot"]["decision"], "taken");
    assert_eq!(report["before"][0]["pending_unknown"], "the command names another database");
    keeper.unset("DATABASE_URL");
    let report = told(&keeper.pgkeep(flags).args(apply).run().expect_code(0));
    assert_eq!(report["snapshot"]["decision"], "nothing-pending");
}
