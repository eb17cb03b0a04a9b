//! Kennel: backup, status, health, rollback, queries for orphans, audit and encryption, all by `docs/guides/kennel.md`.

use serde_json::json;

use super::{PATIENCE, Team, pending};
use crate::support::{eventually, http};

const INIT: &str = r#"CREATE TABLE "User" ("id" text PRIMARY KEY, "email" text, "name" text NOT NULL);
CREATE TABLE "Pet" ("id" text PRIMARY KEY, "name" text NOT NULL,
  "ownerId" text NOT NULL CONSTRAINT "Pet_ownerId_fkey" REFERENCES "User" ON DELETE RESTRICT);
CREATE TABLE "Booking" ("id" text PRIMARY KEY, "startsAt" timestamp(3) NOT NULL,
  "petId" text NOT NULL CONSTRAINT "Booking_petId_fkey" REFERENCES "Pet" ON DELETE RESTRICT);"#;
const CARE_LOG: &str = r#"CREATE TABLE "CareLog" ("id" text PRIMARY KEY, "activity" text NOT NULL,
  "bookingId" text NOT NULL REFERENCES "Booking");
CREATE INDEX "Booking_startsAt_idx" ON "Booking" ("startsAt");"#;
/// It succeeds, and leaves a pet without its owner and an application that cannot work.
const MERGE: &str = r#"ALTER TABLE "Pet" DROP CONSTRAINT "Pet_ownerId_fkey";
DELETE FROM "User" WHERE "name" = 'Sita';
ALTER TABLE "Booking" RENAME COLUMN "startsAt" TO "from";"#;
const ROWS: &str = r#"INSERT INTO "User" SELECT 'u' || n, 'u' || n || '@kennel.example', 'User ' || n FROM generate_series(1, 200) n;
INSERT INTO "User" VALUES ('sita', 'sita.sharma@kennel.example', 'Sita');
INSERT INTO "Pet" SELECT 'p' || n, 'Pet ' || n, 'u' || n FROM generate_series(1, 200) n;
INSERT INTO "Pet" VALUES ('kaali', 'Kaali the first', 'sita');
INSERT INTO "Booking" SELECT 'b' || n, now(), 'p' || n FROM generate_series(1, 200) n;"#;
const READY: &str = r#"SELECT "startsAt" FROM "Booking" LIMIT 1"#;

#[test]
fn kennel_deploys_finds_the_damage_and_goes_back() {
    let role = "CREATE ROLE kennel_user SUPERUSER LOGIN PASSWORD 'kennel'";
    let guide = include_str!("../../../docs/guides/kennel.md");
    let mut team = Team::new(guide, role, "kennel_prod");
    let url =
        format!("postgresql://kennel_user:kennel@localhost:{}/kennel_prod", team.cluster.port);
    team.keeper.set("DATABASE_URL", url);
    team.prisma.scripts(&json!({"db:migrate": "prisma migrate deploy"}));
    let (_app, address) = team.starts_app(READY);
    team.here.push((r#"within = "1m""#.into(), r#"within = "3s""#.into()));
    team.set_up();
    let is_ready = || http::get(&format!("{address}/api/health/ready")).0 == 200;

    // The first time there is nothing to lose, and the application's tables come to be.
    team.prisma.migration("20240101000000_init", INIT);
    team.does("deploy").run().expect_code(0);
    assert!(is_ready() && team.keeper.listed().is_empty());
    team.cluster.psql("kennel_prod", ROWS);
    team.does("check").run().expect_code(0);

    // A good one: seen before, saved, applied, and asked about afterwards.
    team.prisma.migration("20240201000000_care_log", CARE_LOG);
    let state = team.state("status");
    assert_eq!((&state["applied"], pending(&state)), (&1.into(), vec!["20240201000000_care_log"]));
    let output = team.does("deploy").run().expect_code(0);
    for words in ["health       passed", "assertions   passed   3 hold", "pgkeep rollback "] {
        assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
    }
    assert!(pending(&team.state("status")).is_empty());
    let first = team.keeper.list()[0].clone();
    assert_eq!(
        (&first["trigger"], &first["labels"]["release"]),
        (&"pre-migration".into(), &"1.4".into())
    );

    // A bad one succeeds, and is found out: a pet has no owner, and the application is not ready.
    let before = team.cluster.contents("kennel_prod");
    team.prisma.migration("20240301000000_merge_users", MERGE);
    let output = team.does("deploy").run();
    let output =
        output.expect_failure(11, &["no pet without an owner", "/api/health/ready", "HTTP 503"]);
    assert!(!output.stderr.contains("no booking without a pet"), "{}", output.stderr);
    let page = std::fs::read_to_string(team.keeper.work().join("migration.md")).expect("a report");
    assert!(page.contains("20240301000000_merge_users") && page.contains("exit 11"), "{page}");
    assert!(!is_ready());

    // Back, without the application being stopped: it connects again.
    let output = team.does("rollback").run().expect_code(0);
    assert!(output.stdout.contains("rolled back kennel_prod"), "{}", output.stdout);
    assert_eq!(team.cluster.contents("kennel_prod"), before);
    eventually("the application is ready again", PATIENCE, is_ready);
    assert_eq!(pending(&team.state("status")), ["20240301000000_merge_users"]);

    // All of it is in the trail, and what the guide prints tells it.
    let trail = team.trail();
    let told: Vec<_> = trail.iter().map(|one| one["event"].as_str().expect("a verb")).collect();
    assert_eq!(told, ["migrate", "migrate", "migrate", "rollback"]);
    let outcome = |one: &serde_json::Value| one["migration"]["outcome"].as_str().map(str::to_owned);
    let outcomes: Vec<_> = trail.iter().filter_map(outcome).collect();
    assert_eq!(outcomes, ["succeeded", "succeeded", "checks-failed"]);
    let codes: Vec<_> = trail.iter().map(|one| one["exit_code"].as_u64()).collect();
    assert_eq!(codes, [Some(0), Some(0), Some(11), Some(0)]);
    let audit = team.does("audit").run().expect_code(0).stdout;
    assert_eq!(audit.matches("pnpm db:migrate").count(), 2 * 3, "both lists have them: {audit}");

    // Nobody reads it in the store; the kit and stock `age` do.
    team.stores_nothing_plain(&["sita.sharma@", "Kaali the first", "\"User\""]);
    let bytes = team.does("opened").run().expect_code(0).stdout;
    assert!(bytes.trim().parse::<u64>().is_ok_and(|bytes| bytes > 0), "{bytes}");
}
