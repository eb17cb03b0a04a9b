//! As a service: what a journal takes, and secrets that systemd passes.

use serde_json::Value;

use super::{Host, NIGHTLY, PATIENCE, TERM, page};
use crate::support::http;
use crate::support::{Server, eventually};

#[test]
fn a_journal_gets_documents_and_the_hook_asks_for_the_token_that_was_passed() {
    let server = Server::newer();
    let database = server.database("service");
    database.shop(50);
    let host = Host::new(&server, &[&database], "");
    let (home, passed) = (host.keeper.home(), host.keeper.work().join("passed"));
    std::fs::create_dir(&passed).expect("a directory");
    let token = "a-token-of-systemd-0123456789";
    std::fs::write(passed.join("token"), format!("{token}\n")).expect("written");
    // The file itself is root's alone there, and here it is not there.
    host.configure(&format!(
        "databases = [{:?}]\n{NIGHTLY}\n[daemon]\ntoken_file = \"{}\"",
        database.name,
        home.join("token").display()
    ));
    let program = env!("CARGO_BIN_EXE_pgkeep");
    let stream = format!(
        "export JOURNAL_STREAM=$(stat --dereference --format=%d:%i /proc/self/fd/2)
         exec '{program}' daemon"
    );
    let running = host.keeper.shell(&stream).env("CREDENTIALS_DIRECTORY", &passed).spawn();
    eventually("it is up", PATIENCE, || running.stdout().contains("listening on"));
    eventually("it is taken", PATIENCE, || host.taken().contains_key(&database.name));
    let path = format!("v1/clusters/main/databases/{}/snapshots?wait=60", database.name);
    let ask = |token: &str| {
        let head = format!("Authorization: Bearer {token}\r\n");
        http::ask("POST", &format!("{}{path}", page(&running)), &head)
    };
    assert_eq!(ask("another-token-0123456789").0, 401);
    let (status, body) = ask(token);
    assert_eq!(status, 201, "{body}");
    running.signal(TERM);
    let log = running.wait().expect_code(0).stderr;
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no document: {line}")))
        .collect();
    for line in &lines {
        let is_text = |key: &str| line[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(["timestamp", "level", "message"].into_iter().all(is_text), "{line}");
    }
    // A run is found by its id, in the log as in the trail and in the manifest.
    let begun = format!("snapshot main/{} begins", database.name);
    let runs: Vec<&str> = lines
        .iter()
        .filter(|line| line["message"] == *begun)
        .filter_map(|line| line["run"].as_str())
        .collect();
    assert_eq!(runs.len(), 2, "{log}");
    let events = host.keeper.pgkeep(["log", "--json"]).run().expect_code(0).stdout;
    for run in runs {
        assert!(events.contains(run), "{run} is in no event: {events}");
    }
    assert!(!log.contains(token) && !events.contains(token));
}
