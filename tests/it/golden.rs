//! What the command line says, to the letter: help of every verb, refusals, exit codes, JSON keys.
//!
//! No server is needed. A change of wording is reviewed with `cargo insta review`.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A user with an empty home and nothing else in the environment.
struct Person {
    home: TempDir,
}

impl Person {
    fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a directory") }
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    fn run(&self, line: &str, environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgkeep"));
        command.env_clear().env("PGKEEP_HOME", self.home()).envs(environment.iter().copied());
        command.current_dir(self.home()).args(line.split_whitespace());
        command.output().expect("pgkeep starts")
    }

    /// Exit code, stdout and stderr as one text, with the home's path taken out.
    fn says(&self, line: &str, environment: &[(&str, &str)]) -> String {
        let output = self.run(line, environment);
        let code = output.status.code().expect("an exit code");
        let stdout = String::from_utf8(output.stdout).expect("utf-8");
        let stderr = String::from_utf8(output.stderr).expect("utf-8");
        let home = self.home().display().to_string();
        format!("exit {code}\n{stdout}{stderr}").replace(&home, "HOME")
    }

    fn writes(&self, name: &str, text: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.home().join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
    }
}

#[test]
fn help_is_exact() {
    let person = Person::new();
    let verbs = [
        "",
        "init",
        "check",
        "snapshot",
        "import",
        "list",
        "show",
        "verify",
        "restore",
        "rollback",
        "pin",
        "unpin",
        "adopt",
        "prune",
        "status",
        "log",
        "migrate",
        "rehearse",
        "config",
        "config show",
        "config validate",
        "key",
        "key show",
        "key rotate",
        "key confirm",
        "key trust",
        "demo",
        "completions",
        "man",
    ];
    for verb in verbs {
        let name = format!("help {verb}").trim().replace(' ', "-");
        insta::assert_snapshot!(name, person.says(&format!("{verb} --help"), &[]));
    }
}

#[test]
fn wrong_use_is_exit_2_with_a_hint() {
    let person = Person::new();
    let told: Vec<String> = [
        "",
        "snapsot",
        "restore --relpace",
        "restore --as x --replace",
        "restore --format sql",
        "restore --in-place --replace",
        "restore --in-place --as x",
        "restore --in-place --all",
        "restore --in-place --run mask.sql",
        "restore --force",
        "rollback --replace",
        "show",
        "verify --check deep",
        "snapshot --label nonsense",
        "snapshot --trigger weekly",
        "list --quiet -v",
        "list --limit many",
        "init --recipient age1x --insecure-plaintext",
        "daemon",
        "daemon --cluster main",
        "daemon --database shop",
        "prune --yes",
        "status --limit 3",
        "log --limit many",
        "migrate",
        "migrate npx prisma migrate deploy",
        "migrate --wait soon -- true",
        "migrate --report report.txt -- true",
        "migrate -- true",
        "migrate --yes --env MY_URL -- true",
        "rehearse",
        "rehearse npx prisma migrate deploy",
        "rehearse --fail-on slow -- true",
        "rehearse --fail-on lock>5 -- true",
        "rehearse --fail-on data-loss,lock -- true",
        "rehearse --fresh --from latest -- true",
        "rehearse --env =x -- true",
        "verify --rate 5MiB",
        "verify --check stored --rate 5MB",
        "restore --check stored",
        "key trust",
        "key trust RW",
        "--json restore --relpace",
    ]
    .iter()
    .map(|line| format!("$ pgkeep {line}\n{}", person.says(line, &[])))
    .collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_wrong_configuration_is_exit_2_with_a_hint() {
    let person = Person::new();
    person.writes("typo.toml", "[repository]\nulr = \"file:///r\"\n", 0o600);
    person.writes("later.toml", "[clusters.main]\nwal = { mode = \"stream\" }\n", 0o600);
    for (name, daemon) in [
        ("cron.toml", "clusters.main.snapshot = { schedule = \"0 24 * * *\" }"),
        ("remote.toml", "daemon.listen = \"0.0.0.0:7878\""),
        ("token.toml", "daemon.token = \"secret\""),
        ("ping.toml", "clusters.main.snapshot = { schedule = \"@daily\", ping = \"secret\" }"),
    ] {
        person.writes(name, &format!("{daemon}\n"), 0o600);
    }
    person.writes("webhook.toml", "notify.webhooks.ops.url = \"https://secret\"\n", 0o644);
    for (name, retention) in [
        ("none.toml", "keep_last = 0"),
        ("moons.toml", "keep_last = 1, keep_within = \"2 moons\""),
        ("zone.toml", "timezone = \"Asia/Katmandoo\""),
        ("less.toml", "keep_daily = -1"),
    ] {
        let text = format!("[clusters.main]\nretention = {{ {retention} }}\n");
        person.writes(name, &text, 0o600);
    }
    person.writes("shape.toml", "[repository]\nurl = 5\n", 0o600);
    person.writes("syntax.toml", "[repository]\nurl = \"file:///r\n", 0o600);
    person.writes("open.toml", "[clusters.main]\nurl = \"postgres://u:secret@h/d\"\n", 0o644);
    person.writes("group.toml", "[encryption]\nwriter_key = \"secret\"\n", 0o640);
    person.writes(
        "key.toml",
        "[repository]\nurl = \"/r\"\n[encryption]\nidentity_file = \"identity\"\n",
        0o600,
    );
    person.writes("identity", "AGE-SECRET-KEY-1…\n", 0o644);
    person.writes("two.toml", "[clusters.a]\nurl = \"x\"\nurl_env = \"Y\"\n", 0o600);
    person.writes("env", "PGKEEP_REPOSITORY=/r\nnonsense\n", 0o600);
    let repository = ("PGKEEP_REPOSITORY", "/r");
    let cases: &[(&str, &[(&str, &str)])] = &[
        ("--config absent.toml list", &[]),
        ("--config typo.toml list", &[]),
        ("--config later.toml list", &[]),
        ("--config none.toml list", &[]),
        ("--config moons.toml list", &[]),
        ("--config zone.toml list", &[]),
        ("--config less.toml list", &[]),
        ("--config cron.toml list", &[]),
        ("--config remote.toml list", &[]),
        ("--config token.toml list", &[]),
        ("--config ping.toml list", &[]),
        ("--config webhook.toml list", &[]),
        ("--config shape.toml list", &[]),
        ("--config syntax.toml list", &[]),
        ("--config open.toml list", &[]),
        ("--config group.toml list", &[]),
        ("--config key.toml config validate", &[]),
        ("--config two.toml list", &[]),
        ("--env-file env list", &[]),
        ("list", &[("PGKEEP_REPO", "/r")]),
        ("list", &[("PGKEEP__REPOSITORY__ULR", "/r")]),
        ("list", &[("PGKEEP_IDENTITY", "a"), ("PGKEEP_IDENTITY_FILE", "b")]),
        ("list", &[]),
        ("list", &[("PGKEEP_REPOSITORY", "ftp://h/r")]),
        ("--cluster Main list", &[repository]),
        ("config validate", &[repository, ("DATABASE_URL", "prisma+postgres://x")]),
        ("--json --config typo.toml list", &[]),
    ];
    let told: Vec<String> = cases
        .iter()
        .map(|(line, environment)| {
            let set: Vec<String> = environment.iter().map(|(n, v)| format!("{n}={v} ")).collect();
            format!("$ {}pgkeep {line}\n{}", set.concat(), person.says(line, environment))
        })
        .collect();
    let told = told.join("\n");
    assert!(!told.replace("postgres://u:secret@h/d", "").contains("secret@"), "{told}");
    insta::assert_snapshot!(told);
}

#[test]
fn config_show_masks_secrets_and_tells_each_place() {
    let person = Person::new();
    person.writes(
        "pgkeep.toml",
        "[repository]\nurl = \"file:///srv/r\"\n\n[clusters.main]\n\
         url = \"postgres://u:secret@h/d?schema=public\"\nexclude_table_data = [\"audit.*\"]\n\
         snapshot = { schedule = \"0 2 * * *\", ping = \"https://hc/secret\" }\n\
         [notify.webhooks.ops]\nurl = \"https://h/secret\"\non = [\"failure\"]\n",
        0o600,
    );
    let environment = [
        ("PGKEEP_WRITER_KEY", "secret"),
        ("PGKEEP__REPOSITORY__GRACE", "1h"),
        ("PGKEEP_RECIPIENTS", "age1a,age1b"),
        ("PGKEEP__DAEMON__TOKEN", "secret-of-sixteen-bytes"),
    ];
    let text = person.says("config show", &environment);
    let json = person.says("config show --json", &environment);
    assert!(!text.contains("secret") && !json.contains("secret"), "{text}{json}");
    insta::assert_snapshot!(format!("{text}\n{json}"));
    insta::assert_snapshot!(person.says("config validate", &[]));
}

#[test]
fn verbs_of_later_versions_are_left_out_and_not_stubbed() {
    let person = Person::new();
    for verb in ["recover", "wal", "base-backup"] {
        let output = person.run(verb, &[]);
        assert_eq!(output.status.code(), Some(2), "{verb}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("unrecognized subcommand"), "{told}");
    }
}

#[test]
fn completions_and_the_manual_are_printed() {
    let person = Person::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = person.run(&format!("completions {shell}"), &[]);
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for verb in ["snapshot", "migrate", "rehearse", "rollback"] {
            assert!(text.contains(verb), "{verb} in {shell}");
        }
    }
    let manual = person.run("man", &[]);
    assert!(manual.status.success());
    assert!(String::from_utf8_lossy(&manual.stdout).starts_with(".ie"));
}

#[test]
fn an_error_document_has_the_keys_of_the_contract() {
    let person = Person::new();
    let output = person.run("--json list", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.is_empty());
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    let keys: Vec<&String> = document["error"].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["exit_code", "hint", "kind", "message"]);
    assert_eq!(document["error"]["exit_code"], 2);
    assert_eq!(document["error"]["kind"], "usage");
}
