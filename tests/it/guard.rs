//! Guarded migrations: what is done before the command, that it is run as if pgkeep were not there, and what is looked at
//! afterwards. Commands are plain `psql` and `sh` here; `guard/prisma.rs` has the real Prisma.

mod after;
mod killed;
mod others;
mod prisma;
mod shown;
mod target;
mod tools;

use serde_json::Value;

use crate::support::keeper::{Output, Pgkeep};
use crate::support::{Database, Keeper, Server};

/// A keeper of a shop.
#[track_caller]
fn shop(name: &str) -> (Database, Keeper) {
    let database = Server::newer().database(name);
    let keeper = Keeper::initialised(&database.shop(200).url());
    (database, keeper)
}

/// `pgkeep migrate --yes … -- sh -c script`, where `$URL` is the database.
fn guarded(keeper: &Keeper, database: &Database, flags: &[&str], script: &str) -> Pgkeep {
    keeper
        .pgkeep(["migrate", "--yes"])
        .args(flags)
        .args(["--", "sh", "-c", script])
        .env("URL", database.url())
}

/// What `migrate --json` says.
#[track_caller]
fn told(output: &Output) -> Value {
    output.json()
}

#[test]
fn a_migration_has_its_snapshot_first_and_its_report_in_the_trail() {
    let (database, keeper) = shop("guarded");
    let before = database.contents();
    let flags = ["--json", "--label", "release=4.2", "--report", "report.json"];
    let script =
        "pgkeep_secret=1; psql -q \"$URL\" -c 'DELETE FROM orders WHERE id < 50'; echo said";
    let output = guarded(&keeper, &database, &flags, script).run().expect_code(0);
    let report = told(&output);
    assert!(output.stderr.contains("said"), "its stdout is on stderr: {}", output.stderr);
    assert_eq!((&report["outcome"], &report["exit_code"]), (&"succeeded".into(), &0.into()));
    assert_eq!(report["snapshot"]["decision"], "taken");
    let id = report["snapshot"]["id"].as_str().expect("an id");
    assert_eq!(report["rollback"], format!("pgkeep rollback {id}"));
    // The snapshot is of before, whatever the command has done since.
    let listed = keeper.list();
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &id.into()));
    assert_eq!(listed[0]["trigger"], "pre-migration");
    assert_eq!(listed[0]["labels"]["release"], "4.2");
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", id, "--as", &copy]).run().expect_code(0);
    assert_eq!(database.server.contents(&copy), before);
    assert_ne!(database.contents(), before);
    // The same report is in the file and in the signed trail.
    let file = std::fs::read_to_string(keeper.work().join("report.json")).expect("the report");
    assert_eq!(serde_json::from_str::<Value>(&file).expect("a document"), report);
    let log = keeper.pgkeep(["log", "--json"]).run().expect_code(0).json();
    let event = log.as_array().expect("events").iter().find(|one| one["event"] == "migrate");
    let event = event.expect("the run is recorded");
    assert_eq!((&event["id"], &event["backup"]), (&report["run"], &id.into()));
    assert_eq!(event["migration"]["command"], report["command"]);
    assert_eq!(event["migration"]["outcome"], "succeeded");
    let shown = keeper.pgkeep(["log"]).run().expect_code(0).stdout;
    assert!(shown.contains("migrate"), "{shown}");
}

#[test]
fn without_a_yes_and_without_a_terminal_nothing_is_done() {
    let (database, keeper) = shop("asks");
    let objects = keeper.objects();
    let output = keeper.pgkeep(["migrate", "--", "touch", "ran"]).run();
    output.expect_failure(2, &["nobody can be asked"]);
    assert!(!keeper.work().join("ran").exists());
    assert_eq!(keeper.objects(), objects);
    // A plan asks nobody, and does nothing either.
    let plan = keeper.pgkeep(["migrate", "--dry-run", "--json", "--", "touch", "ran"]).run();
    assert_eq!(plan.expect_code(0).json()["snapshot"]["decision"], "taken");
    assert!(!keeper.work().join("ran").exists());
    assert_eq!(keeper.objects(), objects);
    drop(database);
}

#[test]
fn on_a_terminal_the_plan_is_shown_and_only_a_yes_runs_it() {
    let (database, keeper) = shop("terminal");
    let pgkeep = env!("CARGO_BIN_EXE_pgkeep");
    // `script` gives it a terminal of its own.
    let answered = |answer: &str| {
        let script = format!(
            "(sleep 2; echo {answer}; sleep 2) | script -qec \"{pgkeep} migrate -- sh -c 'test -t 0 && touch ran'\" /dev/null"
        );
        keeper.shell(&script).run()
    };
    let output = answered("no").expect_code(2);
    assert!(output.stdout.contains("will be taken before the command"), "{}", output.stdout);
    assert!(output.stdout.contains("not confirmed, and nothing was done"), "{}", output.stdout);
    assert!(!keeper.work().join("ran").exists() && keeper.listed().is_empty());
    let output = answered("yes").expect_code(0);
    assert!(output.stdout.contains("pgkeep rollback "), "{}", output.stdout);
    assert!(keeper.work().join("ran").exists(), "the command has the terminal");
    drop(database);
}

#[test]
fn what_the_terminal_sends_reaches_the_command_once() {
    let (database, keeper) = shop("ctrlc");
    let command = "n=0; trap 'n=$((n+1))' INT; touch ready; i=0; \
        while [ $i -lt 60 ]; do sleep 0.05; i=$((i+1)); done; exit $((40 + n))";
    std::fs::write(keeper.work().join("counts"), command).expect("a script");
    let script = format!(
        "(while ! test -e ready; do sleep 0.05; done; sleep 0.3; printf '\\003'; sleep 5) \
         | script -qec 'exec {} migrate --yes -- sh counts' /dev/null",
        env!("CARGO_BIN_EXE_pgkeep")
    );
    let output = keeper.shell(&script).run().expect_code(41);
    assert!(output.stdout.contains("with exit 41"), "{}", output.stdout);
    drop(database);
}

#[test]
fn where_the_snapshot_fails_the_command_never_starts() {
    let (database, mut keeper) = shop("nosnapshot");
    let programs =
        keeper.programs_with_pg_dump(&database.server, "echo 'disk on fire' >&2; exit 1");
    keeper.set("PGKEEP_BIN_DIR", programs);
    let output = guarded(&keeper, &database, &[], "touch ran").run();
    let output = output.expect_failure(10, &["the snapshot failed", "was not run"]);
    assert!(output.stderr.contains("disk on fire"), "{}", output.stderr);
    assert!(!keeper.work().join("ran").exists());
    assert!(keeper.listed().is_empty());
    // Likewise where the repository is out of reach, or the server.
    let gone = keeper.work().join("elsewhere");
    std::fs::rename(keeper.repository(), &gone).expect("moved");
    let output = guarded(&keeper, &database, &["--json"], "touch ran").run();
    output.expect_failure(10, &[]);
    std::fs::rename(&gone, keeper.repository()).expect("moved back");
    let nowhere = "postgresql://postgres@127.0.0.1:1/shop";
    let output = guarded(&keeper, &database, &[], "touch ran").env("PGKEEP_DATABASE_URL", nowhere);
    output.run().expect_failure(10, &[]);
    assert!(!keeper.work().join("ran").exists());
}

#[test]
fn a_command_that_is_not_there_is_127_before_anything_is_done() {
    let (_database, keeper) = shop("missing");
    for command in ["no-such-tool", "./no-such-tool", "/etc/passwd"] {
        let output =
            keeper.pgkeep(["migrate", "--yes", "--", command, "--password", "hunter2"]).run();
        let output = output.expect_failure(127, &[command, "nothing was done"]);
        assert!(!output.stderr.contains("hunter2"));
    }
    assert!(keeper.listed().is_empty());
    // One that is there, and whose interpreter is not, is found out later; nothing is lost by then.
    let script = keeper.work().join("odd");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("a script");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("a mode");
    let output = keeper.pgkeep(["migrate", "--yes", "--", "./odd"]).run();
    output.expect_failure(127, &["cannot be started"]);
}

#[test]
fn input_output_and_exit_code_are_the_commands_own() {
    let (database, keeper) = shop("passes");
    let pgkeep = env!("CARGO_BIN_EXE_pgkeep");
    let script = format!(
        "printf 'some\\ninput' | {pgkeep} migrate --yes -- sh -c 'cat; echo aside >&2; exit 42'"
    );
    let output = keeper.shell(&script).run();
    let output = output.expect_code(42);
    assert_eq!(output.stdout, "some\ninput");
    assert!(output.stderr.contains("aside") && output.stderr.contains("pgkeep rollback"));
    // Codes that are pgkeep's elsewhere are passed on, and the report tells them apart.
    for code in [2, 10, 11, 127] {
        let flags = ["--json"];
        let output =
            guarded(&keeper, &database, &flags, &format!("exit {code}")).run().expect_code(code);
        let report = told(&output);
        assert_eq!(
            (&report["outcome"], &report["exit_code"]),
            (&"command-failed".into(), &code.into())
        );
        assert_eq!(report["ended"]["exit_code"], code);
        assert!(report["error"].is_null());
    }
}

#[test]
fn a_command_that_is_killed_is_told_with_what_it_has_done() {
    let (database, keeper) = shop("killed");
    let script = "psql -q \"$URL\" -c 'CREATE TABLE half (id int)'; kill -KILL $$";
    let report = told(&guarded(&keeper, &database, &["--json"], script).run().expect_code(137));
    assert_eq!(report["outcome"], "command-failed");
    assert_eq!(
        (&report["ended"]["signal"], &report["ended"]["exit_code"]),
        (&9.into(), &137.into())
    );
    assert!(report["rollback"].is_string() && report["after"].is_array());
    assert_eq!(database.psql("SELECT count(*) FROM half"), "0");
}

#[test]
fn a_signal_goes_to_the_command_and_pgkeep_outlives_it() {
    use rustix::process::Signal;
    let (database, keeper) = shop("signals");
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::USR1, "USR1")] {
        let script = format!(
            "trap 'echo got {name}; exit 9' {name}; touch ready; while :; do sleep 0.05; done"
        );
        let ready = keeper.work().join("ready");
        drop(std::fs::remove_file(&ready));
        let running = guarded(&keeper, &database, &[], &script).spawn();
        let what = "the command runs";
        crate::support::eventually(what, std::time::Duration::from_mins(1), || ready.exists());
        running.signal(signal);
        let output = running.wait().expect_code(9);
        assert_eq!(output.stdout, format!("got {name}\n"));
        assert!(output.stderr.contains("way back"), "{}", output.stderr);
    }
}

#[test]
fn a_guard_that_is_to_outlive_its_terminal_has_its_command_outlive_it_too() {
    let (database, keeper) = shop("nohup");
    let program = env!("CARGO_BIN_EXE_pgkeep");
    let command = "touch ready; while ! test -e go; do sleep 0.05; done; exit 5";
    let script = format!("exec nohup '{program}' migrate --yes -- sh -c '{command}'");
    let running = keeper.shell(&script).spawn();
    let ready = keeper.work().join("ready");
    let limit = std::time::Duration::from_mins(1);
    crate::support::eventually("the command runs", limit, || ready.exists());
    running.signal(rustix::process::Signal::HUP);
    std::fs::write(keeper.work().join("go"), "").expect("told");
    running.wait().expect_code(5);
    drop(database);
}

#[test]
fn secrets_in_the_command_are_shown_nowhere() {
    let (database, keeper) = shop("masked");
    let secret = "hunter2";
    let arguments = [
        "--",
        "sh",
        "-c",
        "exit 0",
        "postgres://u:hunter2@h/d",
        "--password",
        "hunter2",
        "TOKEN=hunter2",
    ];
    let flags = ["migrate", "--yes", "--json", "--report", "report.md"];
    let output = keeper.pgkeep(flags).args(arguments).run().expect_code(0);
    assert!(
        !output.stdout.contains(secret) && !output.stderr.contains(secret),
        "{}",
        output.stdout
    );
    assert!(told(&output)["command"].to_string().contains("postgres://u:***@h/d"));
    let page = std::fs::read_to_string(keeper.work().join("report.md")).expect("the report");
    assert!(page.starts_with("# Migration ") && !page.contains(secret), "{page}");
    for (key, path) in keeper.objects() {
        let bytes = std::fs::read(path).expect("an object");
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{key}");
    }
    drop(database);
}
