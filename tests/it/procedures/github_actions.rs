//! GitHub Actions: the steps of `docs/guides/github-actions.md`, with nothing but the variables that stand there.

use std::fmt::Write as _;

use rustix::process::Signal;

use super::{PATIENCE, Team, variables};
use crate::support::eventually;
use crate::support::keeper::Pgkeep;
use crate::support::s3_server::{S3Place, S3Server};

const GUIDE: &str = include_str!("../../../docs/guides/github-actions.md");
const INIT: &str = "CREATE TABLE babies (id serial PRIMARY KEY, name text NOT NULL);";
const NOTES: &str =
    "CREATE TABLE notes (id serial PRIMARY KEY, baby_id integer NOT NULL REFERENCES babies);";
const ROWS: &str = "INSERT INTO babies (name) SELECT 'Asha ' || n FROM generate_series(1, 100) n";

/// A step of a workflow in a runner: what is no variable of the job is not there.
fn step(team: &Team, workflow: &str, secrets: &[(&str, &str)], run: &str) -> Pgkeep {
    let path = "env -i PATH=\"$PATH\" HOME=\"$PWD/runner\"";
    let mut command = format!(
        "mkdir -p runner\nexec {path} GITHUB_RUN_ID=77 GITHUB_SHA=4f2a91c GITHUB_STEP_SUMMARY=summary"
    );
    for (name, value) in variables(&team.block(workflow)) {
        let secret = value.strip_prefix("${{ secrets.").and_then(|rest| rest.strip_suffix(" }}"));
        let own = secrets.iter().find(|(known, _)| Some(*known) == secret || **known == *name);
        let value = own.map_or(value.clone(), |(_, own)| (*own).to_owned());
        assert!(!value.contains("${{") && !value.contains('…'), "{name} is told: {value}");
        write!(command, " {name}='{value}'").expect("a string takes it");
    }
    // Prisma asks its maker for news otherwise, and this server is not Amazon's.
    for (name, value) in secrets.iter().filter(|(name, _)| name.starts_with("HERE_")) {
        let name = name.trim_start_matches("HERE_");
        write!(command, " {name}='{value}'").expect("a string takes it");
    }
    let script = team.keeper.work().join("step");
    std::fs::write(script, format!("{run}\n")).expect("a file");
    team.keeper.shell(&format!("{command} CHECKPOINT_DISABLE=1 sh -e step"))
}

/// The steps that are run, but for the one that installs.
fn steps(team: &Team, workflow: &str) -> Vec<String> {
    let block = team.block(workflow);
    let runs = block.lines().filter_map(|line| line.trim().strip_prefix("- run: "));
    runs.filter(|run| *run != "npm ci").map(str::to_owned).collect()
}

fn team() -> Team {
    let role = "CREATE ROLE babynest CREATEDB LOGIN PASSWORD 'secret'";
    let team = Team::new(GUIDE, role, "babynest_prod");
    team.prisma.migration("20240101000000_initial", INIT);
    team
}

fn url(team: &Team) -> String {
    format!(
        "postgresql://babynest:secret@localhost:{}/babynest_prod?schema=public",
        team.cluster.port
    )
}

#[test]
fn a_runner_with_a_writer_key_migrates_and_can_read_nothing() {
    let mut team = team();
    let place = S3Place::of(S3Server::start());
    team.here.push(("s3://acme-backups/babynest".into(), place.url()));
    let address = url(&team);
    for (name, value) in [
        ("AWS_ENDPOINT_URL", &place.endpoint),
        ("AWS_REGION", &place.region),
        ("AWS_ACCESS_KEY_ID", &place.access_key),
        ("AWS_SECRET_ACCESS_KEY", &place.secret_key),
        ("DATABASE_URL", &address),
    ] {
        team.keeper.set(name, value);
    }
    let made = team.does("once").run().expect_code(0);
    let recipient = made.stdout.split_whitespace().find(|word| word.starts_with("age1"));
    let recipient = recipient.expect("the recipient is printed").to_owned();
    let key = std::fs::read_to_string(team.keeper.home().join("writer.key")).expect("a key");
    let key = key.lines().find(|line| line.starts_with("pgkeep-writer-key")).expect("one line");
    let secrets = [
        ("PGKEEP_RECIPIENTS", recipient.as_str()),
        ("PGKEEP_WRITER_KEY", key),
        ("AWS_REGION", &place.region),
        ("AWS_ACCESS_KEY_ID", &place.access_key),
        ("AWS_SECRET_ACCESS_KEY", &place.secret_key),
        ("DATABASE_URL", &address),
        ("HERE_AWS_ENDPOINT_URL", &place.endpoint),
    ];
    let steps = steps(&team, "runner");
    assert_eq!(steps.len(), 3, "{steps:?}");
    let job = || {
        for run in &steps {
            let output = step(&team, "runner", &secrets, run).run().expect_code(0);
            let said = format!("{}{}", output.stdout, output.stderr);
            assert!(!said.contains(key) && !said.contains("babynest:secret"), "{said}");
        }
    };
    job();
    team.cluster.psql("babynest_prod", ROWS);
    let before = team.cluster.contents("babynest_prod");
    team.prisma.migration("20240201000000_notes", NOTES);
    job();
    let summary = std::fs::read_to_string(team.keeper.work().join("summary")).expect("written");
    assert!(summary.contains("20240201000000_notes"), "{summary}");
    assert_eq!(team.cluster.psql("babynest_prod", "SELECT count(*) FROM notes"), "0");
    // The runner cannot go back, and the host with the kit can.
    let back = step(&team, "runner", &secrets, "pgkeep rollback --yes").run();
    back.expect_failure(7, &["identity"]);
    team.keeper.set("PGKEEP_REPOSITORY", place.url());
    let labels = &team.keeper.list()[0]["labels"];
    assert_eq!((&labels["run"], &labels["commit"]), (&"77".into(), &"4f2a91c".into()));
    team.does("back").run().expect_code(0);
    assert_eq!(team.cluster.contents("babynest_prod"), before);
}

#[test]
fn a_runner_with_a_token_has_its_snapshot_before_it_migrates() {
    let mut team = team();
    let address = url(&team);
    let (token, repository) = ("0123456789abcdef0123", team.keeper.repository_url());
    team.keeper
        .set("PGKEEP_REPOSITORY", &repository)
        .set("PGKEEP__CLUSTERS__MAIN__URL", &address)
        .set("PGKEEP__DAEMON__TOKEN", token)
        .set("PGKEEP__DAEMON__LISTEN", "127.0.0.1:0");
    team.keeper.pgkeep(["init"]).run().expect_code(0);
    let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/hook.mjs");
    std::fs::copy(hook, team.keeper.work().join("hook.mjs")).expect("copied");
    let daemon = team.keeper.pgkeep(["daemon"]).spawn();
    eventually("the daemon is up", PATIENCE, || daemon.stdout().contains("listening on"));
    let said = daemon.stdout();
    let page = said.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL");
    team.here.push(("https://pgkeep.example".into(), page.trim_end_matches('/').to_owned()));
    let steps = steps(&team, "token");
    assert_eq!(steps.len(), 2, "{steps:?}");
    let wrong = [("PGKEEP_TOKEN", "another-token-than-its-own"), ("DATABASE_URL", &address)];
    step(&team, "token", &wrong, &steps[0]).run().expect_code(2);
    let secrets = [("PGKEEP_TOKEN", token), ("DATABASE_URL", &address)];
    for run in &steps {
        step(&team, "token", &secrets, run).run().expect_code(0);
    }
    let listed = team.keeper.list();
    assert_eq!((listed.len(), &listed[0]["trigger"]), (1, &"pre-migration".into()));
    assert_eq!(listed[0]["labels"]["commit"], "4f2a91c");
    assert_eq!(team.cluster.psql("babynest_prod", "SELECT count(*) FROM babies"), "0");
    daemon.signal(Signal::TERM);
    daemon.wait().expect_code(0);
}
