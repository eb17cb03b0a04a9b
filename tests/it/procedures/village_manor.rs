//! Village Manor: verified and restored an hour before, tried on the copy, where what it takes away is seen, deployed, and
//! rolled back with a log of all of it, by `docs/guides/village-manor.md`.

use super::{Team, pending};
use crate::support::http;

const INIT: &str = r#"CREATE TABLE "User" ("id" serial PRIMARY KEY, "firstName" text NOT NULL, "lastName" text NOT NULL, "oldField" text);
CREATE TABLE "Booking" ("id" serial PRIMARY KEY, "userId" integer NOT NULL REFERENCES "User");
CREATE TABLE "Notice" ("id" serial PRIMARY KEY, "text" text NOT NULL);"#;
const ROWS: &str = r#"INSERT INTO "User" ("firstName", "lastName", "oldField")
  SELECT 'Anita', 'Rao ' || n, CASE WHEN n % 4 = 0 THEN 'kept since 2019' END FROM generate_series(1, 1000) n;
INSERT INTO "Booking" ("userId") SELECT "id" FROM "User";
INSERT INTO "Notice" ("text") SELECT 'Water at ' || n FROM generate_series(1, 20) n;"#;
const NAMES: &str = r#"ALTER TABLE "User" ADD COLUMN "displayName" text;
UPDATE "User" SET "displayName" = "firstName" || ' ' || "lastName";"#;
/// Looks like cleaning up.
const CLEANUP: &str = r#"ALTER TABLE "User" DROP COLUMN "oldField";
DROP TABLE "Notice";"#;

#[test]
fn village_manor_sees_what_is_taken_away_before_it_deploys_and_has_a_log_of_it() {
    let role = "CREATE ROLE ivm CREATEDB LOGIN PASSWORD 'secret'";
    let guide = include_str!("../../../docs/guides/village-manor.md");
    let mut team = Team::new(guide, role, "ivm_db");
    let url = format!("postgresql://ivm:secret@localhost:{}/ivm_db", team.cluster.port);
    team.keeper.set("DATABASE_URL", url);
    let (_app, address) = team.starts_app(r#"SELECT 1 FROM "Notice""#);
    team.set_up();
    team.prisma.migration("20240101000000_init", INIT);
    team.does("deploy").run().expect_code(0);
    team.cluster.psql("ivm_db", ROWS);
    let live = team.cluster.contents("ivm_db");

    // Completed and verified, and restored to a test environment.
    let output = team.does("before").run().expect_code(0);
    for words in ["passed in", "content      passed", "restored as ivm_staging"] {
        assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
    }
    let first = team.keeper.list()[0].clone();
    assert_eq!((&first["pinned"], &first["verification"]), (&true.into(), &"passed".into()));
    assert_eq!(team.cluster.contents("ivm_staging"), live);

    // On the copy it succeeds, and what it takes away is seen; production has not changed.
    team.prisma.migration("20240201000000_display_name", NAMES);
    team.prisma.migration("20240202000000_clean_up", CLEANUP);
    let output = team.does("seen").run().expect_failure(10, &["the rehearsal failed"]);
    for words in [
        "table public.Notice is dropped, with 20 rows",
        "column public.User.oldField is dropped, with 250 values",
        "ended         with exit 0 after ",
        "the longest pause between two looks was ",
    ] {
        assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
    }
    let output = team.does("rehearsal").run().expect_code(0);
    assert!(output.stderr.contains("ended         with exit 0 after "), "{}", output.stderr);
    for line in [
        r#"tables that come back: public."Notice" (20 rows)"#,
        r#"columns that come back: public."User"."oldField""#,
    ] {
        assert!(output.stdout.contains(line), "{line}: {}", output.stdout);
    }
    assert_eq!(team.cluster.contents("ivm_db"), live);
    team.does("tested").run().expect_code(0);
    assert_eq!(team.cluster.contents("ivm_staging"), live);

    // The release goes without it.
    team.prisma.without("20240202000000_clean_up");
    let output = team.does("deploy").run().expect_code(0);
    assert!(output.stderr.contains("health       passed"), "{}", output.stderr);
    let report =
        std::fs::read_to_string(team.keeper.work().join("deployment.md")).expect("a report");
    assert!(
        report.contains("20240201000000_display_name") && report.contains("pgkeep rollback "),
        "{report}"
    );
    let newest =
        team.keeper.list().into_iter().find(|one| one["database"] == "ivm_db").expect("one");
    assert_eq!(
        (&newest["trigger"], &newest["verification"], &newest["labels"]["deployment"]),
        (&"pre-migration".into(), &"passed".into(), &"2.2".into())
    );
    assert_eq!(team.cluster.psql("ivm_db", r#"SELECT count("displayName") FROM "User""#), "1000");

    // Back, with nothing lost that was there; what was written since is in the database that is kept.
    team.cluster.psql("ivm_db", r#"INSERT INTO "Notice" ("text") VALUES ('written since')"#);
    let output = team.does("rollback").run().expect_code(0);
    assert!(output.stdout.contains(r#"public."Notice""#), "the row is counted: {}", output.stdout);
    assert_eq!(team.cluster.contents("ivm_db"), live);
    let kept = format!("ivm_db_before_{}", newest["id"].as_str().expect("an id"));
    let since = r#"SELECT count(*) FROM "Notice" WHERE "text" = 'written since'"#;
    assert_eq!(team.cluster.psql(&kept, since), "1");
    assert_eq!(http::get(&format!("{address}/api/health")).0, 200);
    assert_eq!(pending(&team.state("deploy")), ["20240201000000_display_name"]);

    // The deployment log.
    let told: Vec<String> = team
        .trail()
        .iter()
        .map(|one| {
            format!(
                "{} {}",
                one["event"].as_str().expect("a verb"),
                one["database"].as_str().expect("a name")
            )
        })
        .collect();
    let expected = [
        "migrate ivm_db",
        "snapshot ivm_db",
        "verify ivm_db",
        "restore ivm_db",
        "rehearse ivm_db",
        "migrate ivm_staging",
        "rollback ivm_staging",
        "migrate ivm_db",
        "rollback ivm_db",
    ];
    assert_eq!(told, expected);
    let restored = team.trail()[3]["message"].to_string();
    assert!(restored.contains("ivm_staging"), "where to: {restored}");
    let log = team.does("log").run().expect_code(0).stdout;
    assert_eq!(log.lines().count(), 1 + expected.len(), "{log}");
}
