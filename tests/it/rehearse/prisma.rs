//! The real Prisma: on the copy, and past it.

use serde_json::json;

use crate::support::{Keeper, Prisma, Server};

const INIT: &str = r#"CREATE TABLE "Pet" (id serial PRIMARY KEY, name text NOT NULL, chip text, "weightG" integer);"#;

#[test]
fn prisma_is_rehearsed_on_the_copy_and_kept_from_the_live_database() {
    let database = Server::newer().database("kennel");
    let mut keeper = Keeper::initialised(&database.url());
    let url = format!("{}?schema=public", database.url());
    keeper.unset("PGKEEP_DATABASE_URL").set("DATABASE_URL", &url);
    keeper.set("CHECKPOINT_DISABLE", "1").set("PRISMA_HIDE_UPDATE_MESSAGE", "1");
    let prisma = Prisma::project(&keeper.work());
    prisma.migration("20240101000000_init", INIT);
    let deploy = ["npx", "prisma", "migrate", "deploy"];
    keeper.pgkeep(["migrate", "--yes", "--"]).args(deploy).run().expect_code(0);
    database.psql(r#"INSERT INTO "Pet" (name, chip) VALUES ('Rex', '1'), ('Ada', NULL)"#);
    keeper.snapshot();
    let before = database.contents();
    prisma.migration("20240201000000_chip", r#"ALTER TABLE "Pet" DROP COLUMN chip;"#);
    let rehearse = |flags: &[&str], command: &[&str]| {
        keeper.pgkeep(["rehearse", "--json"]).args(flags).args(["--"]).args(command).run()
    };
    let output = rehearse(&["--fail-on", "data-loss"], &deploy).expect_code(10);
    let report = output.json();
    assert_eq!((&report["verdict"], &report["ended"]["exit_code"]), (&"failed".into(), &0.into()));
    assert_eq!(
        report["losses"],
        json!([{"kind": "column", "name": "public.Pet.chip", "count": 1}])
    );
    let history = json!({"table": "public._prisma_migrations", "before": 1, "after": 2});
    assert!(report["rows"].as_array().expect("rows").contains(&history), "{report}");
    assert_eq!(database.contents(), before);
    // Past the copy: it waits for its own lock, and is ended.
    std::fs::write(keeper.work().join("live"), &url).expect("a file");
    let script = "export DATABASE_URL=$(cat live); npx prisma migrate deploy";
    let report = rehearse(&[], &["sh", "-c", script]).expect_code(10).json();
    assert_eq!(report["verdict"], "none");
    assert!(report["reasons"].to_string().contains("kept out"), "{report}");
    assert_ne!(report["ended"]["exit_code"], 0);
    assert_eq!(database.contents(), before);
    // And then for good.
    keeper.pgkeep(["migrate", "--yes", "--"]).args(deploy).run().expect_code(0);
    assert_ne!(database.contents(), before);
    assert_eq!(keeper.leftovers(), Vec::<String>::new());
}
