//! `docs/guides/hook.mjs`, run by node as a pipeline would.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::support::{Daemon, TOKEN};

struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(url: &str, args: &[&str]) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guides/hook.mjs");
    let mut command = Command::new("node");
    command
        .arg(script)
        .args(args)
        .env("PGKEEP_URL", url)
        .env("PGKEEP_TOKEN", TOKEN)
        .env_remove("PGKEEP_TOKEN_FILE")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn ended(mut command: Command) -> Ended {
    let output = command.output().await.expect("node is there: tests/setup test installs it");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = Ended {
        code: output.status.code().expect("it ends by itself"),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    };
    assert!(!ended.stderr.contains(TOKEN) && !ended.stdout.contains(TOKEN));
    ended
}

fn url(daemon: &Daemon) -> String {
    format!("http://{}", daemon.address)
}

#[tokio::test]
async fn the_script_waits_for_the_snapshot_and_prints_its_id() {
    let daemon = Daemon::start().await;
    let args = ["main", "kennel_prod", "--label", "commit=4f2c=1", "--trigger", "manual"];
    let driving = async {
        let id = daemon.run().await;
        daemon.begin(&id);
        // Long enough for the script to have looked.
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        daemon.succeed(&id);
        id
    };
    let (ended, id) = tokio::join!(ended(command(&url(&daemon), &args)), driving);
    assert_eq!((ended.code, ended.stdout), (0, format!("{id}\n")), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("dumping") && ended.stderr.contains("done: 4.8 MiB"),
        "{}",
        ended.stderr
    );
    let last = daemon.last.lock().expect("no panic").clone().expect("it was asked");
    assert_eq!(last.1, serde_json::json!({ "commit": "4f2c=1" }));
    assert_eq!(last.0.as_str(), "manual");
}

#[tokio::test]
async fn the_script_ends_with_the_exit_code_of_the_failed_run() {
    let daemon = Daemon::start().await;
    for (at, (code, kind)) in [(4, "postgres"), (6, "busy"), (7, "key")].into_iter().enumerate() {
        let driving = async {
            super::support::eventually(|| daemon.shared.runs.all().len() > at).await;
            daemon.fail(&super::support::run_id(at), code, kind);
        };
        let (ended, ()) =
            tokio::join!(ended(command(&url(&daemon), &["main", "kennel_prod"])), driving);
        assert_eq!((ended.code, &*ended.stdout), (i32::from(code), ""), "{}", ended.stderr);
        assert!(ended.stderr.ends_with("error: it broke\nhint: mend it\n"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn what_never_starts_ends_the_script_with_a_code_of_its_own() {
    let daemon = Daemon::start().await;
    let url = url(&daemon);
    let unknown = ended(command(&url, &["main", "a b/c"])).await;
    assert_eq!(unknown.code, 8, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("no database `a b/c`"), "{}", unknown.stderr);
    let mut wrong = command(&url, &["main", "kennel_prod"]);
    wrong.env("PGKEEP_TOKEN", "not it");
    assert_eq!(ended(wrong).await.code, 2);
    let mut none = command(&url, &["main", "kennel_prod"]);
    none.env_remove("PGKEEP_TOKEN");
    let none = ended(none).await;
    assert!(none.code == 2 && none.stderr.contains("there is no token"), "{}", none.stderr);
    for args in [
        &["main"][..],
        &["main", "kennel_prod", "--tiemout", "3"],
        &["main", "kennel_prod", "--label", "x"],
    ] {
        let wrong = ended(command(&url, args)).await;
        assert!(wrong.code == 2 && wrong.stderr.contains("usage: "), "{}", wrong.stderr);
    }
    assert_eq!(daemon.shared.runs.all().len(), 0);
    let busy = ended(command(&url, &["main", "many", "--timeout", "2"])).await;
    assert_eq!(busy.code, 6, "{}", busy.stderr);
    assert!(busy.stderr.contains("waiting: too much waits already"), "{}", busy.stderr);
    daemon.stopped().await;
    let gone = ended(command(&url, &["main", "kennel_prod", "--timeout", "2"])).await;
    assert_eq!(gone.code, 1, "{}", gone.stderr);
    assert!(gone.stderr.contains("hint: is the daemon running"), "{}", gone.stderr);
}

#[tokio::test]
async fn the_script_gives_up_in_time_and_reads_its_token_from_a_file() {
    let daemon = Daemon::start().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{TOKEN}\n")).expect("it takes it");
    let mut patient = command(&url(&daemon), &["main", "kennel_prod", "--timeout", "1"]);
    patient.env_remove("PGKEEP_TOKEN").env("PGKEEP_TOKEN_FILE", file.path());
    let ended = ended(patient).await;
    assert_eq!((ended.code, &*ended.stdout), (6, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("the run goes on"), "{}", ended.stderr);
    assert_eq!(daemon.shared.runs.all().len(), 1);
}
