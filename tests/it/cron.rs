//! Under cron and nothing else: no word where all went well, one line and a hint where it did not.

use crate::support::{Database, Keeper, Server};

const PAGE: &str = include_str!("../../docs/operations.md");

/// The commands of the page's crontab, each once, as cron hands them to a shell.
fn commands() -> Vec<&'static str> {
    let of_root = |line: &'static str| {
        let (when, command) = line.split_once(" root ")?;
        let is_time = |field: &str| field.bytes().all(|b| b.is_ascii_digit() || b == b'*');
        let times: Vec<&str> = when.split(' ').collect();
        (times.len() == 5 && times.into_iter().all(is_time)).then_some(command)
    };
    let mut commands: Vec<&str> = PAGE.lines().filter_map(of_root).collect();
    let mut seen = std::collections::BTreeSet::new();
    commands.retain(|command| seen.insert(*command));
    commands
}

/// `/usr/bin/pgkeep` is the built one.
fn line(command: &str) -> String {
    command.replace("pgkeep ", &format!("{} ", env!("CARGO_BIN_EXE_pgkeep")))
}

fn shop() -> (Database, Keeper) {
    let database = Server::newer().database("cron");
    let keeper = Keeper::initialised(&database.shop(30).url());
    (database, keeper)
}

#[test]
fn the_crontab_of_the_page_says_nothing_when_all_went_well() {
    let (database, keeper) = shop();
    let commands = commands();
    for verb in ["snapshot", "prune", "verify"] {
        assert!(commands.iter().any(|command| command.contains(verb)), "{commands:?}");
    }
    for command in &commands {
        let output = keeper.shell(&line(command)).run().expect_code(0);
        assert_eq!((&*output.stdout, &*output.stderr), ("", ""), "{command}");
    }
    let listed = keeper.pgkeep(["list", "--json"]).run().expect_code(0).json();
    assert_eq!(listed[0]["trigger"], "scheduled");
    assert_eq!(listed[0]["verification"], "passed");
    // Quiet is for people: who asks for a document gets it.
    let output = keeper.pgkeep(["snapshot", "--quiet", "--json"]).run().expect_code(0);
    assert!(output.json()["id"].is_string());
    let before = database.contents();
    database.drop_now();
    keeper.pgkeep(["restore", "--quiet", "--database", &database.name]).run().expect_code(0);
    assert_eq!(database.contents(), before);
}

#[test]
fn one_that_failed_says_one_line_and_a_hint_and_its_exit_code() {
    let (database, keeper) = shop();
    let commands = commands();
    let snapshot = commands.iter().find(|command| command.contains("snapshot")).expect("a line");
    let gone = format!("postgres://nobody@127.0.0.1:1/{}", database.name);
    let damaged = keeper.work().join("no-repository");
    let damaged = format!("file://{}", damaged.display());
    let cases = [
        ("PGKEEP__CLUSTERS__MAIN__SNAPSHOT__SCHEDULE", "61 2 * * *", 2, "`61` is no minute"),
        ("PGKEEP_DATABASE_URL", &*gone, 4, "127.0.0.1"),
        ("PGKEEP_REPOSITORY", &*damaged, 5, "no-repository"),
        (
            "PGKEEP_RECIPIENTS",
            "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
            7,
            "epoch",
        ),
    ];
    for (name, value, code, word) in cases {
        let output = keeper.shell(&line(snapshot)).env(name, value).run().expect_code(code);
        assert_eq!(output.stdout, "", "{name}");
        let lines: Vec<&str> = output.stderr.lines().collect();
        let [error, hint] = lines[..] else { panic!("{name}: {}", output.stderr) };
        assert!(error.starts_with("error: ") && error.contains(word), "{error}");
        assert!(hint.starts_with("hint: "), "{hint}");
    }
    assert!(keeper.listed().is_empty(), "nothing half-made is listed");
}
