//! ICMS: nights under cron, seven days kept, an `@` in the password, and a recovery with what was deployed since, all by
//! `docs/guides/icms.md`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::{Team, pending};

const INIT: &str = r#"CREATE TABLE "User" ("id" serial PRIMARY KEY, "email" text NOT NULL, "password" text NOT NULL);
CREATE TABLE "Content" ("id" serial PRIMARY KEY, "title" jsonb NOT NULL, "authorId" integer NOT NULL REFERENCES "User");"#;
const VERIFICATION: &str = r#"ALTER TABLE "User" ADD COLUMN "isEmailVerified" boolean NOT NULL DEFAULT false;
UPDATE "User" SET "isEmailVerified" = true WHERE "id" % 2 = 0;"#;
const ROWS: &str = r#"INSERT INTO "User" ("email", "password")
  SELECT 'officer' || n || '@icms.example', repeat(md5(n::text), 8) FROM generate_series(1, 300) n;
INSERT INTO "Content" ("title", "authorId") SELECT jsonb_build_object('en', 'Notice ' || n, 'ne', 'सूचना ' || n), n FROM generate_series(1, 300) n;"#;
const STATE: &str = r#"SELECT md5(string_agg(u::text, ',' ORDER BY "id")) FROM "User" u;
SELECT md5(string_agg(c::text, ',' ORDER BY "id")) FROM "Content" c;
SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL ORDER BY 1;"#;

/// The command of the crontab that has this word.
#[track_caller]
fn night(team: &Team, word: &str) -> String {
    let crontab = team.block("crontab");
    let line = crontab.lines().find(|line| line.contains(word)).expect("a line of the crontab");
    let (_, command) = line.split_once(" icms  ").expect("a time, whose it is, a command");
    command.to_owned()
}

/// No word of a night that goes well.
#[track_caller]
fn runs(team: &Team, command: &str, days_ago: u32) {
    let script = format!("faketime --exclude-monotonic -f -{days_ago}d {command}");
    let output = team.keeper.shell(&script).run().expect_code(0);
    assert_eq!((&*output.stdout, &*output.stderr), ("", ""), "{command}");
}

/// Nobody else can read what is below.
fn private(directory: &Path) {
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(directory), 0o700, "{}", directory.display());
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            private(&path);
        } else {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[test]
fn icms_keeps_seven_days_and_recovers_with_what_was_deployed_since() {
    let role = "CREATE ROLE icmsdev CREATEDB LOGIN PASSWORD 'dev@123'";
    let guide = include_str!("../../../docs/guides/icms.md");
    let mut team = Team::new(guide, role, "icmslocal");
    let work = team.keeper.work();
    team.here.push(("/srv/icms".into(), work.display().to_string()));
    team.writes(".env", ".env");
    let url = format!("icmsdev:dev@123@localhost:{}/icmslocal?schema=public", team.cluster.port);
    assert!(team.block(".env").contains(&url), "as it stands in theirs");
    team.prisma.scripts(&json!({"db:migrate:deploy": "prisma migrate deploy"}));
    team.set_up_with("--env-file .env");
    team.prisma.migration("20240101000000_init", INIT);
    team.does("deploy").run().expect_code(0);
    team.cluster.psql("icmslocal", ROWS);

    // More than a week of nights. What is older than seven days goes, what is younger stays.
    let (snapshot, prune) = (night(&team, "snapshot"), night(&team, "prune"));
    for days_ago in [9, 8, 6, 1] {
        team.cluster
            .psql("icmslocal", r#"UPDATE "User" SET "password" = md5("password") WHERE "id" = 7"#);
        runs(&team, &snapshot, days_ago);
    }
    runs(&team, &night(&team, "verify"), 0);
    runs(&team, &prune, 0);
    let listed = team.keeper.list();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(
        (&listed[0]["verification"], &listed[0]["trigger"]),
        (&"passed".into(), &"scheduled".into())
    );
    runs(&team, &night(&team, "status"), 0);
    assert!(team.does("list").run().expect_code(0).stdout.contains("icmslocal"));

    // Compressed, encrypted, and nobody else's.
    let (source, stored) = (&listed[0]["source_bytes"], &team.keeper.list()[1]["stored_bytes"]);
    assert!(stored.as_u64() < source.as_u64(), "{stored} of {source}");
    private(&team.keeper.repository());
    for file in ["identity.txt", "writer.key"] {
        let known = team.keeper.home().join(file).metadata().expect("init wrote it");
        assert_eq!(known.permissions().mode() & 0o777, 0o600, "{file}");
    }
    team.stores_nothing_plain(&["officer7@icms.example", "सूचना", "dev@123"]);

    // A migration, some work, and the disaster.
    team.prisma.migration("20240201000000_add_user_verification_fields", VERIFICATION);
    let output = team.does("deploy").run().expect_code(0);
    assert!(!output.stderr.contains("dev@123"), "{}", output.stderr);
    let (id, before) = (team.keeper.listed().remove(0), team.cluster.psql("icmslocal", STATE));
    team.cluster.psql("icmslocal", r#"DROP TABLE "Content"; DELETE FROM "User""#);

    // Back from before the migration, which is applied again.
    let output = team.does("recover").run().expect_code(0);
    assert!(output.stdout.contains(&format!("{id}  restored as icmslocal")), "{}", output.stdout);
    assert!(
        output.stderr.contains("1 in prisma/migrations: 20240201000000_add_user"),
        "{}",
        output.stderr
    );
    assert_eq!(team.cluster.psql("icmslocal", STATE), before);
    let survey = team.keeper.pgkeep(["--env-file", ".env", "migrate", "--dry-run", "--json"]);
    let survey = survey.args(["--", "npm", "run", "db:migrate:deploy"]).run().expect_code(0).json();
    assert!(pending(&survey["before"][0]).is_empty());
    let kept = "SELECT count(*) FROM pg_database WHERE datname LIKE 'icmslocal_before_%'";
    assert_eq!(team.cluster.psql("postgres", kept), "1");
}
