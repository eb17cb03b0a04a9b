//! The snapshot hook: who may ask, what may be asked, and how it is answered.

use serde_json::{Value as Json, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{Daemon, SNAPSHOTS, TOKEN, options, posting};
use crate::daemon::http::HttpOptions;
use crate::daemon::http::connection::Limits;
use crate::daemon::runs::State;
use crate::domain::connection::Secret;
use crate::domain::manifest::Trigger;

#[tokio::test]
async fn without_a_configured_token_there_is_no_hook() {
    let daemon = Daemon::with(HttpOptions { token: None, ..options() }, Limits::default()).await;
    for token in ["", "Authorization: Bearer \r\n", "Authorization: Bearer x\r\n"] {
        let answer = daemon.ask(&posting(SNAPSHOTS, token, "")).await;
        assert_eq!(answer.refused(), (404, 2));
        assert!(answer.body.contains("no token is configured"), "{answer:?}");
    }
    assert_eq!(daemon.times_asked(), 0);
}

#[tokio::test]
async fn only_the_whole_token_starts_a_snapshot() {
    let daemon = Daemon::start().await;
    let long = format!("{TOKEN}0");
    for header in [
        String::new(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
        format!("Authorization: Bearer {long}\r\n"),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: {TOKEN}\r\n"),
        "Authorization: \u{e9}\r\n".to_owned(),
        format!("X-Token: {TOKEN}\r\n"),
    ] {
        let answer = daemon.ask(&posting(SNAPSHOTS, &header, "")).await;
        assert_eq!(answer.refused(), (401, 2), "{header}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"pgkeep\""), "{header}");
        assert!(!answer.body.contains(TOKEN), "{answer:?}");
    }
    let elsewhere = SNAPSHOTS.replace("main", "nowhere");
    assert_eq!(daemon.ask(&posting(&elsewhere, "", "")).await.refused(), (401, 2));
    assert_eq!(daemon.times_asked(), 0);
    let right = format!("authorization: bearer  {TOKEN} \r\n");
    assert_eq!(daemon.ask(&posting(SNAPSHOTS, &right, "")).await.status, 202);
    assert_eq!(daemon.times_asked(), 1);
    // As after a reload with another one, and with none.
    daemon.shared.set_token(Some(Secret::new("another-token-of-a-host".to_owned())));
    assert_eq!(daemon.ask(&posting(SNAPSHOTS, &right, "")).await.refused(), (401, 2));
    daemon.shared.set_token(None);
    assert_eq!(daemon.ask(&posting(SNAPSHOTS, &right, "")).await.refused(), (404, 2));
}

#[tokio::test]
async fn what_is_asked_reaches_the_scheduler_and_the_run_is_told_at_once() {
    let daemon = Daemon::start().await;
    let answer = daemon.post(SNAPSHOTS, "").await;
    let id = daemon.run().await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("location"), Some(&*format!("/v1/runs/{id}")));
    let told = answer.json();
    assert_eq!((&told["id"], &told["state"]), (&json!(id), &json!("queued")));
    let last = || daemon.last.lock().expect("no panic").clone();
    assert_eq!(last(), Some((Trigger::PreMigration, json!({}))));
    let body = r#"{"trigger": "manual", "labels": {"commit": "4f2c"}}"#;
    assert_eq!(daemon.post(SNAPSHOTS, body).await.status, 202);
    assert_eq!(last(), Some((Trigger::Manual, json!({"commit": "4f2c"}))));
}

#[tokio::test]
async fn what_nobody_understands_is_refused_before_anything_starts() {
    let daemon = Daemon::start().await;
    let many: serde_json::Map<String, Json> =
        (0..33).map(|n| (format!("label{n}"), json!("x"))).collect();
    for body in [
        "{".to_owned(),
        "[]".to_owned(),
        r#"{"trigger": "nightly"}"#.to_owned(),
        r#"{"trigger": "imported"}"#.to_owned(),
        r#"{"triger": "manual"}"#.to_owned(),
        r#"{"labels": {"": "x"}}"#.to_owned(),
        r#"{"labels": {"a": "x\u001b[31m"}}"#.to_owned(),
        r#"{"labels": {"a": 1}}"#.to_owned(),
        json!({ "labels": many }).to_string(),
        json!({ "labels": { "a": "x".repeat(257) } }).to_string(),
    ] {
        assert_eq!(daemon.post(SNAPSHOTS, &body).await.refused(), (400, 2), "{body}");
    }
    for query in ["?wiat=600", "?wait=", "?wait=soon", "?wait=-1", "?wait=5&timeout=3"] {
        let answer = daemon.post(&format!("{SNAPSHOTS}{query}"), "").await;
        assert_eq!(answer.refused(), (400, 2), "{query}");
    }
    let name = SNAPSHOTS.replace("kennel_prod", "%ff");
    assert_eq!(daemon.post(&name, "").await.refused(), (400, 2));
    assert_eq!(daemon.times_asked(), 0);
    assert_eq!(daemon.post(&SNAPSHOTS.replace("main", "Nowhere!"), "").await.refused(), (404, 8));
    let odd = SNAPSHOTS.replace("kennel_prod", "a%2Fb%20%C3%A9");
    let answer = daemon.post(&odd, "").await;
    assert_eq!(answer.refused(), (404, 8));
    assert!(answer.body.contains("no database `a/b é`"), "{answer:?}");
    let answer = daemon.post(&SNAPSHOTS.replace("kennel_prod", "many"), "").await;
    assert_eq!(answer.refused(), (503, 6));
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn oversized_bodies_are_refused_whether_or_not_they_say_so() {
    let daemon = Daemon::start().await;
    let huge = json!({ "labels": { "a": "x".repeat(70_000) } }).to_string();
    assert_eq!(daemon.post(SNAPSHOTS, &huge).await.refused(), (413, 2));
    let head = format!(
        "POST {SNAPSHOTS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let chunked = format!("{head}{chunk}{chunk}{chunk}0\r\n\r\n");
    assert_eq!(daemon.ask(&chunked).await.refused(), (413, 2));
    assert_eq!(daemon.times_asked(), 0);
}

/// Asks with `?wait`, and drives the run while the answer is waited for.
async fn waited(
    query: &str,
    drive: impl FnOnce(&Daemon, &crate::domain::audit::RunId),
) -> (Daemon, super::support::Answer) {
    let daemon = Daemon::start().await;
    let path = format!("{SNAPSHOTS}{query}");
    let driving = async {
        let id = daemon.run().await;
        daemon.begin(&id);
        drive(&daemon, &id);
    };
    let (answer, ()) = tokio::join!(daemon.post(&path, ""), driving);
    (daemon, answer)
}

#[tokio::test]
async fn a_wait_ends_with_the_snapshot() {
    let (daemon, answer) = waited("?wait=600", Daemon::succeed).await;
    let id = daemon.run().await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), Some(&*format!("/v1/runs/{id}")));
    assert_eq!(answer.json()["kind"], "snapshot");
    assert_eq!(answer.json()["id"], json!(id));
    // Longer than anyone waits is as long as anyone waits.
    let (_, answer) = waited("?wait=99999999999&strict", Daemon::succeed).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_failed_run_is_an_error_in_its_own_words_and_a_status_by_its_kind() {
    for (code, kind, status) in [
        (1, "unexpected", 500),
        (2, "usage", 500),
        (3, "damage", 500),
        (4, "postgres", 502),
        (5, "store", 502),
        (6, "busy", 409),
        (7, "key", 500),
        (8, "not_found", 404),
        (130, "interrupted", 503),
    ] {
        let (daemon, answer) = waited("?wait=600", |daemon, id| daemon.fail(id, code, kind)).await;
        assert_eq!(answer.refused(), (status, u64::from(code)));
        let expected =
            json!({ "exit_code": code, "kind": kind, "message": "it broke", "hint": "mend it" });
        assert_eq!(answer.json()["error"], expected);
        assert_eq!(answer.json()["run"], json!(daemon.run().await));
    }
}

#[tokio::test]
async fn a_wait_that_is_over_first_tells_where_to_look_and_strictly_fails() {
    let (daemon, answer) = waited("?wait=0", |_, _| {}).await;
    let id = daemon.run().await;
    let location = format!("/v1/runs/{id}");
    assert_eq!((answer.status, answer.header("location")), (202, Some(&*location)));
    assert_eq!(answer.json()["id"], json!(id));
    let (_, answer) = waited("?wait=1&strict", |_, _| {}).await;
    assert_eq!((answer.refused(), answer.header("location")), ((504, 6), Some(&*location)));
}

#[tokio::test]
async fn a_daemon_that_goes_down_does_not_let_a_waiting_client_believe_in_a_snapshot() {
    let (daemon, answer) = waited("?wait=600", |daemon, _| daemon.stop.cancel()).await;
    assert_eq!(answer.refused(), (503, 6));
    daemon.stopped().await;
}

#[tokio::test]
async fn a_client_that_goes_away_stops_no_run_and_frees_its_place() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let daemon = Daemon::with(options(), limits).await;
    let mut client = TcpStream::connect(daemon.address).await.expect("it listens");
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let asked = posting(&format!("{SNAPSHOTS}?wait=600"), &token, "");
    client.write_all(asked.as_bytes()).await.expect("it reads");
    let id = daemon.run().await;
    daemon.begin(&id);
    drop(client);
    // The only place there is must be free again, long before the wait is over.
    let run = daemon.get(&format!("/v1/runs/{id}")).await.json();
    assert_eq!(run["state"], "running");
    daemon.succeed(&id);
    assert_eq!(daemon.get(&format!("/v1/runs/{id}")).await.json()["state"], "succeeded");
}

#[tokio::test]
async fn lines_tell_each_change_and_the_last_one_the_end() {
    let daemon = Daemon::start().await;
    let headers = format!(
        "Authorization: Bearer {TOKEN}\r\nAccept: text/html, application/x-ndjson;q=0.9\r\n"
    );
    let asked = posting(SNAPSHOTS, &headers, "");
    let driving = async {
        let id = daemon.run().await;
        let lines = || daemon.shared.runs.changes(&id).is_some();
        assert!(lines());
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        daemon.begin(&id);
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        daemon.fail(&id, 4, "postgres");
        id
    };
    let (answer, id) = tokio::join!(daemon.ask(&asked), driving);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(answer.header("location"), Some(&*format!("/v1/runs/{id}")));
    let lines: Vec<Json> =
        answer.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let states: Vec<&str> = lines.iter().filter_map(|line| line["state"].as_str()).collect();
    assert_eq!(states, ["queued", "running", "failed"], "{answer:?}");
    assert_eq!(lines[2]["error"]["exit_code"], 4);
}

#[tokio::test]
async fn lines_of_an_endless_run_end_with_the_wait() {
    let daemon = Daemon::start().await;
    let headers = format!("Authorization: Bearer {TOKEN}\r\nAccept: application/x-ndjson\r\n");
    let answer = daemon.ask(&posting(&format!("{SNAPSHOTS}?wait=1"), &headers, "")).await;
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines.len(), 1, "{answer:?}");
    assert_eq!(daemon.shared.runs.all()[0].state, State::Queued, "the run goes on");
}
