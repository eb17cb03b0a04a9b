//! `BabyNest`: replicas that migrate when they start, a masked copy of production, a failed migration and its repair, and
//! the hook, all by `docs/guides/babynest.md`.

use rustix::process::Signal;

use super::{PATIENCE, Team, pending, variables};
use crate::support::eventually;
use crate::support::keeper::{Pgkeep, Running};

const ROLE: &str = "CREATE ROLE babynest CREATEDB LOGIN PASSWORD 'secret'";
const GUIDE: &str = include_str!("../../../docs/guides/babynest.md");
const INIT: &str = "CREATE TABLE users (id serial PRIMARY KEY, email text NOT NULL, name text NOT NULL, birthday date);";
const FEATURE: &str = "CREATE TABLE new_features (id serial PRIMARY KEY, name text NOT NULL);";
/// The second statement fails while somebody has no birthday.
const BIRTHDAY: &str = "ALTER TABLE users ADD COLUMN nickname text;
ALTER TABLE users ALTER COLUMN birthday SET NOT NULL;";
const FAILED: &str = "20240301000000_require_birthday";
/// `migrate resolve` of this version of Prisma wants its native engine, a download; this is what it does.
const RESOLVE: &str = "UPDATE _prisma_migrations SET rolled_back_at = now() WHERE finished_at IS NULL AND rolled_back_at IS NULL";
const ROWS: &str = "INSERT INTO users (email, name, birthday) \
    SELECT 'mother' || n || '@babynest.example', 'Maya ' || n, CASE WHEN n > 3 THEN date '1990-01-01' END \
    FROM generate_series(1, 100) n";

fn nest(database: &str) -> Team {
    let mut team = Team::within("apps/api", GUIDE, ROLE, database);
    let url = format!("postgresql://babynest:secret@localhost:{}/babynest_prod", team.cluster.port);
    team.keeper.set("DATABASE_URL", url);
    team.set_up();
    team.prisma.migration("20240101000000_initial", INIT);
    team
}

/// A container: nothing but the environment that the guide gives it.
fn container(team: &Team, program: &str) -> Pgkeep {
    let script = format!("exec sh entrypoint.sh {program}");
    let kit = std::fs::read_to_string(team.keeper.recovery_kit()).expect("the kit");
    let recipient = kit.lines().find_map(|line| line.strip_prefix("# public key: "));
    let home = team.keeper.work().join("empty");
    let mut command = team.keeper.shell(&script).env("PGKEEP_HOME", home);
    for (name, value) in variables(&team.block("environment")) {
        let value =
            if value == "age1…" { recipient.expect("a recipient").to_owned() } else { value };
        command = command.env(&name, value);
    }
    command
}

/// So many that start at once; each of them comes up.
#[track_caller]
fn replicas(team: &Team, count: u32) {
    let all: Vec<_> =
        (0..count).map(|n| container(team, &format!("touch up{n}")).spawn()).collect();
    for (n, output) in all.into_iter().map(Running::wait).enumerate() {
        output.expect_code(0);
        std::fs::remove_file(team.keeper.work().join(format!("up{n}"))).expect("it came up");
    }
}

#[test]
fn babynest_replicas_start_at_once_and_only_one_of_them_has_something_to_do() {
    let team = nest("");
    team.writes("entrypoint.sh", "entrypoint.sh");
    let up = team.keeper.work().join("up");
    // Told not to.
    container(&team, "touch up").env("RUN_MIGRATIONS", "false").run().expect_code(0);
    assert!(up.exists());
    // No database yet: nothing is lost by it, Prisma's engine here makes none, and the container is started again.
    let output = container(&team, "touch up2").run().expect_code(1);
    assert!(output.stderr.contains("nothing to lose"), "{}", output.stderr);
    assert!(!team.keeper.work().join("up2").exists());
    team.cluster.psql("postgres", "CREATE DATABASE babynest_prod OWNER babynest");
    // An empty one.
    replicas(&team, 3);
    assert!(team.keeper.listed().is_empty(), "there was nothing to lose, and then nothing pending");
    team.cluster.psql("babynest_prod", ROWS);
    let before = team.cluster.contents("babynest_prod");
    // A new release: one snapshot, of before, by whoever came first.
    team.prisma.migration("20240201000000_add_feature", FEATURE);
    replicas(&team, 2);
    let listed = team.keeper.list();
    assert_eq!((listed.len(), &listed[0]["trigger"]), (1, &"pre-migration".into()));
    assert_eq!(listed[0]["labels"]["last_applied"], "20240101000000_initial");
    let applied = "SELECT count(*) FROM _prisma_migrations WHERE finished_at IS NOT NULL";
    assert_eq!(team.cluster.psql("babynest_prod", applied), "2");
    team.keeper.pgkeep(["rollback", "--yes"]).run().expect_code(0);
    assert_eq!(team.cluster.contents("babynest_prod"), before);
}

#[test]
fn babynest_tries_it_on_a_copy_fails_resolves_and_deploys_by_the_hook() {
    let mut team = nest("babynest_prod");
    let live = "babynest_prod";
    team.does("deploy").run().expect_code(0);
    team.cluster.psql(live, ROWS);
    let before = team.cluster.contents(live);

    // On the copy, which is masked, it is found out; production has not noticed.
    team.writes("mask.sql", "mask.sql");
    team.prisma.migration(FAILED, BIRTHDAY);
    team.does("staging").run().expect_code(1);
    let masked =
        "SELECT count(*) FROM users WHERE email LIKE '%@example.invalid' AND name LIKE 'Parent %'";
    assert_eq!(team.cluster.psql("babynest_staging", masked), "100");
    assert_eq!(team.cluster.contents(live), before);

    // Whoever deploys it all the same has Prisma's own code, and then pgkeep's refusal where Prisma says P3009.
    let output = team.does("deploy").run().expect_code(1);
    assert!(output.stderr.contains("pgkeep rollback "), "{}", output.stderr);
    let taken = team.keeper.listed();
    let output = team.does("deploy").run().expect_failure(10, &[FAILED, "was not run"]);
    let resolve = format!("prisma migrate resolve --rolled-back {FAILED}");
    assert!(output.stderr.contains(&resolve), "{}", output.stderr);
    assert_eq!(team.keeper.listed(), taken);
    let bare = team.block("deploy").replace("pgkeep migrate --yes -- ", "");
    let output = team.keeper.shell(&bare).run().expect_code(1);
    assert!(output.stderr.contains("P3009"), "{}", output.stderr);

    // The repair is let through, and saved before.
    assert!(team.block("resolve").contains(&resolve));
    let survey = team.block("resolve").replace("migrate --yes", "migrate --json --dry-run");
    let survey = team.keeper.shell(&survey).run().expect_code(0).json();
    assert_eq!(survey["snapshot"]["decision"], "taken");
    let repair = format!("pgkeep migrate --yes -- psql -q \"$DATABASE_URL\" -c '{RESOLVE}'");
    team.keeper.shell(&repair).run().expect_code(0);
    assert_eq!(team.keeper.listed().len(), taken.len() + 1);
    team.prisma.migration(FAILED, "ALTER TABLE users ADD COLUMN nickname text;");

    // A container that knows no more than the daemon's address and its token.
    team.keeper.set("PGKEEP__DAEMON__LISTEN", "127.0.0.1:0");
    let daemon = team.keeper.pgkeep(["daemon"]).spawn();
    eventually("the daemon is up", PATIENCE, || daemon.stdout().contains("listening on"));
    let said = daemon.stdout();
    let page = said.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL");
    let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/hook.mjs");
    std::fs::copy(hook, team.keeper.work().join("hook.mjs")).expect("copied");
    let token = std::fs::read_to_string(team.keeper.home().join("token")).expect("a token");
    let with = |token: &str| {
        let command = team.does("hook").env("PGKEEP_URL", page).env("GIT_SHA", "4f2a91c");
        command.env("PGKEEP_TOKEN", token).without("PGKEEP_HOME").without("PGKEEP__DAEMON__LISTEN")
    };
    let output = with("not-the-token-of-it").run().expect_failure(2, &["token"]);
    assert!(!output.stdout.contains("Prisma"), "no migration without its snapshot");
    let output = with(token.trim()).run().expect_code(0);
    let newest = team.keeper.list().remove(0);
    assert!(output.stdout.starts_with(newest["id"].as_str().expect("an id")), "{}", output.stdout);
    assert_eq!(
        (&newest["trigger"], &newest["labels"]["commit"]),
        (&"pre-migration".into(), &"4f2a91c".into())
    );
    daemon.signal(Signal::TERM);
    daemon.wait().expect_code(0);
    assert!(pending(&team.state("deploy")).is_empty());
    assert_eq!(team.cluster.psql(live, "SELECT count(nickname) FROM users"), "0");

    // And back to before the failure, by its id, which undoes the later ones too.
    let id = taken.first().expect("the snapshot of the deploy that failed");
    team.keeper.pgkeep(["rollback", id, "--yes"]).run().expect_code(0);
    assert_eq!(team.cluster.contents(live), before);
}
