//! The real Prisma: a first deploy, one that fails midway, the refusal, the repair, and the good end.

use serde_json::{Value, json};

use super::told;
use crate::support::keeper::Pgkeep;
use crate::support::{Keeper, Prisma, Server};

const INIT: &str =
    r#"CREATE TABLE "Pet" (id serial PRIMARY KEY, name text NOT NULL, "weightG" integer);"#;
const BOOKING: &str =
    r#"CREATE TABLE "Booking" (id serial PRIMARY KEY, "petId" integer REFERENCES "Pet");"#;
/// The second statement fails while a pet has no weight.
const WEIGHT: &str = r#"ALTER TABLE "Pet" ADD COLUMN chip text;
ALTER TABLE "Pet" ALTER "weightG" SET NOT NULL;"#;

fn deploy(keeper: &Keeper, flags: &[&str]) -> Pgkeep {
    keeper
        .pgkeep(["migrate", "--yes", "--json"])
        .args(flags)
        .args(["--", "npx", "prisma", "migrate", "deploy"])
}

#[test]
fn a_prisma_migration_that_fails_is_refused_until_it_is_repaired() {
    let database = Server::newer().database("kennel");
    let mut keeper = Keeper::initialised(&database.url());
    let url = format!("{}?schema=public", database.url());
    keeper.unset("PGKEEP_DATABASE_URL").set("DATABASE_URL", &url);
    keeper.set("CHECKPOINT_DISABLE", "1").set("PRISMA_HIDE_UPDATE_MESSAGE", "1");
    let prisma = Prisma::project(&keeper.work());
    prisma.migration("20240101000000_init", INIT);
    prisma.migration("20240201000000_booking", BOOKING);

    // The first time there is nothing to lose.
    let report = told(&deploy(&keeper, &[]).run().expect_code(0));
    assert_eq!(report["snapshot"]["decision"], "nothing-to-lose");
    let before = &report["before"][0];
    assert_eq!((&before["tool"], &before["table"]), (&"prisma".into(), &Value::Null));
    assert_eq!(before["pending"], json!(["20240101000000_init", "20240201000000_booking"]));
    let after = &report["after"][0];
    assert_eq!((&after["applied"], &after["pending"]), (&2.into(), &json!([])));
    assert_eq!(after["table"], "public._prisma_migrations");
    assert!(after["pending_unknown"].is_null());
    assert_eq!(after["edited"], json!([]), "the checksum is Prisma's");

    // Nothing is pending, and an entrypoint that says so is spared the snapshot.
    let report = told(&deploy(&keeper, &["--if-pending", "--no-health"]).run().expect_code(0));
    assert_eq!(report["snapshot"]["decision"], "nothing-pending");

    // The third fails midway, and its exit code is passed on.
    database.psql(r#"INSERT INTO "Pet" (name) VALUES ('Rex')"#);
    prisma.migration("20240301000000_weight", WEIGHT);
    let contents = database.contents();
    let report = told(&deploy(&keeper, &["--if-pending"]).run().expect_code(1));
    assert_eq!((&report["outcome"], &report["exit_code"]), (&"command-failed".into(), &1.into()));
    assert_eq!(report["after"][0]["failed"][0]["name"], "20240301000000_weight");
    let listed = keeper.list();
    let labels = &listed[0]["labels"];
    assert_eq!((&labels["tool"], &labels["pending"]), (&"prisma".into(), &"1".into()));
    assert_eq!(labels["last_applied"], "20240201000000_booking");

    // Prisma would say P3009: its own command is not run, and nothing is taken.
    let output = deploy(&keeper, &[]).run();
    let output = output.expect_failure(10, &["20240301000000_weight", "was not run"]);
    let hint = output.error().expect("an error")["hint"].to_string();
    assert!(hint.contains("prisma migrate resolve --rolled-back 20240301000000_weight"), "{hint}");
    assert!(!output.stderr.contains("Prisma schema loaded"), "{}", output.stderr);
    assert_eq!(keeper.listed().len(), 1);

    // What repairs is let through, guarded too. (`migrate resolve` of this version wants a download; this is what it does.)
    let repair = "UPDATE _prisma_migrations SET rolled_back_at = now() WHERE finished_at IS NULL; \
                  UPDATE \"Pet\" SET \"weightG\" = 9000";
    let output = keeper.pgkeep([
        "migrate",
        "--yes",
        "--json",
        "--",
        "psql",
        "-q",
        &database.url(),
        "-c",
        repair,
    ]);
    let report = told(&output.run().expect_code(0));
    assert_eq!(report["after"][0]["failed"], json!([]));
    assert!(!report["command"].to_string().contains(&database.server.password));

    // And then it is applied.
    let report = told(&deploy(&keeper, &[]).run().expect_code(0));
    assert_eq!(
        (&report["outcome"], &report["after"][0]["applied"]),
        (&"succeeded".into(), &3.into())
    );
    assert_eq!(database.psql(r#"SELECT count(chip) FROM "Pet""#), "0");

    // Edited after it was applied, and gone from the files: Prisma itself says "up to date" to both.
    prisma.migration("20240101000000_init", "-- edited");
    let gone = keeper.work().join("prisma/migrations/20240201000000_booking");
    std::fs::remove_dir_all(gone).expect("removed");
    let plan = keeper.pgkeep([
        "migrate",
        "--dry-run",
        "--json",
        "--",
        "npx",
        "prisma",
        "migrate",
        "deploy",
    ]);
    let plan = plan.run().expect_code(0).json();
    assert_eq!(plan["before"][0]["edited"], json!(["20240101000000_init"]));
    assert_eq!(plan["before"][0]["without_file"], json!(["20240201000000_booking"]));

    // The snapshot from before the failure brings all of it back.
    let id = listed[0]["id"].as_str().expect("an id");
    let copy = format!("{}_copy", database.name);
    keeper.set("PGKEEP_DATABASE_URL", database.url());
    keeper.pgkeep(["restore", id, "--as", &copy]).run().expect_code(0);
    assert_eq!(database.server.contents(&copy), contents);
}
