//! Broxiva: the eight steps of `run-migrations.sh prod` at a real terminal, and in a pipeline, by `docs/guides/broxiva.md`.

use super::{Team, pending};

const INIT: &str = "CREATE TABLE users (id serial PRIMARY KEY, email text NOT NULL UNIQUE);
CREATE TABLE sessions (id serial PRIMARY KEY, user_id integer NOT NULL REFERENCES users);";
const RESET: &str = "CREATE TABLE password_resets (id serial PRIMARY KEY, user_id integer NOT NULL REFERENCES users, token text NOT NULL);";
const VENDORS: &str =
    "CREATE TABLE vendors (id serial PRIMARY KEY, owner_id integer NOT NULL REFERENCES users);
INSERT INTO vendors (owner_id) SELECT id FROM users WHERE id % 100 = 0;";
/// It cannot be in a transaction with others.
const INDEXES: &str = "CREATE INDEX CONCURRENTLY sessions_user_id_idx ON sessions (user_id);";
const PENDING: [(&str, &str); 3] = [
    ("20251117022438_add_password_reset_table", RESET),
    ("20251119004754_add_vendor_management_system", VENDORS),
    // As theirs are named; it sorts behind the others.
    ("add_performance_indexes", INDEXES),
];

/// Each of these stands behind the one before.
#[track_caller]
fn in_order(text: &str, words: &[&str]) {
    let mut rest = text;
    for word in words {
        let at = rest.find(word).unwrap_or_else(|| panic!("`{word}` is not next: {text}"));
        rest = &rest[at + word.len()..];
    }
}

#[test]
fn broxiva_is_asked_and_has_its_eight_steps_and_the_log_of_them() {
    let role = "CREATE ROLE broxiva CREATEDB LOGIN PASSWORD 'secret'";
    let guide = include_str!("../../../docs/guides/broxiva.md");
    let mut team = Team::new(guide, role, "broxiva_prod");
    let url = |port: u16| format!("postgresql://broxiva:secret@localhost:{port}/broxiva_prod");
    let (live, work) = (url(team.cluster.port), team.keeper.work());
    let environment = |url: &str| {
        std::fs::write(work.join(".env.prod"), format!("DATABASE_URL={url}\n")).expect("a file");
    };
    environment(&live);
    team.keeper.set("DATABASE_URL", &live);
    let (_app, _) = team.starts_app("SELECT 1 FROM sessions LIMIT 1");
    team.set_up();
    team.keeper.unset("DATABASE_URL");
    team.writes("run-migrations.sh", "run-migrations.sh");

    team.prisma.migration("20251101000000_init", INIT);
    team.does("pipeline").run().expect_code(0);
    team.cluster.psql(
        "broxiva_prod",
        "INSERT INTO users (email) SELECT n || '@broxiva.example' FROM generate_series(1, 500) n; \
         INSERT INTO sessions (user_id) SELECT id FROM users",
    );
    let before = team.cluster.contents("broxiva_prod");
    for (name, sql) in PENDING {
        team.prisma.migration(name, sql);
    }

    // Connectivity first.
    environment(&url(1));
    let output = team.does("pipeline").run().expect_code(10);
    assert!(output.stdout.contains("was not run"), "{}", output.stdout);
    environment(&live);
    // Nobody to ask.
    let script = team.block("deploy").replace("sh run", "setsid --wait sh run");
    assert_ne!(team.keeper.shell(&format!("{script} </dev/null")).run().code, 0);
    // A no.
    let output = team.types("deploy", "Do this", "no").run().expect_code(2);
    in_order(&output.stdout, &["3 in prisma/migrations", "Do this?", "nothing was done"]);
    assert_eq!(team.cluster.contents("broxiva_prod"), before);
    assert_eq!(team.keeper.pgkeep(["list", "--json"]).run().expect_code(0).stdout.trim(), "[]");

    // A yes.
    let output = team.types("deploy", "Do this", "yes").run().expect_code(0);
    let screen = output.stdout.replace('\r', "");
    in_order(
        &screen,
        &[
            "broxiva@localhost:",
            "3 in prisma/migrations: 20251117022438_add_password_reset_table",
            "add_performance_indexes",
            "Do this? Type `yes`: ",
            "is the way back",
            "All migrations have been successfully applied.",
            "ended         with exit 0",
            "pending       none",
            "failed-rows  passed",
            "assertions   passed   1 hold",
            "health       passed",
            "way back      pgkeep rollback 20",
        ],
    );
    assert_eq!(team.cluster.psql("broxiva_prod", "SELECT count(*) FROM vendors"), "5");

    // What was seen is in a log, whose lines have their times; the report and the trail tell it too.
    let logs: Vec<_> = std::fs::read_dir(work.join("logs")).expect("logs").flatten().collect();
    let texts: Vec<String> =
        logs.iter().map(|one| std::fs::read_to_string(one.path()).expect("a text")).collect();
    let log = texts.iter().find(|text| text.contains("Type `yes`: yes")).expect("the log of it");
    let timed = log.lines().filter(|line| line.starts_with("20") && line.contains('Z')).count();
    assert!(timed > 3, "{log}");
    assert!(
        texts
            .iter()
            .any(|text| text.starts_with("# Migration 20")
                && text.contains("add_performance_indexes"))
    );
    assert!(texts.iter().all(|text| !text.contains("broxiva:secret")));
    let trail = team.trail();
    let codes: Vec<_> = trail.iter().map(|one| one["exit_code"].as_u64()).collect();
    assert_eq!(codes, [0, 10, 2, 2, 0].map(Some), "the refused ones too");
    assert!(trail.iter().all(|one| one["at"].as_str().is_some_and(|at| at.ends_with('Z'))));

    // Counts, and the way back that was printed.
    let counts = team.does("counts").run().expect_code(0).stdout;
    for words in ["vendors (5 rows)", "password_resets (0 rows)", "_prisma_migrations"] {
        assert!(counts.contains(words), "{words}: {counts}");
    }
    team.does("rollback").run().expect_code(0);
    assert_eq!(team.cluster.contents("broxiva_prod"), before);
    team.keeper.set("DATABASE_URL", &live);
    let survey = [
        "--cluster",
        "prod",
        "migrate",
        "--dry-run",
        "--json",
        "--",
        "npx",
        "prisma",
        "migrate",
        "deploy",
    ];
    let survey = team.keeper.pgkeep(survey).run().expect_code(0).json();
    assert_eq!(pending(&survey["before"][0]), PENDING.map(|(name, _)| name));
}
