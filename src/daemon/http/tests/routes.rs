//! Every address, and what is answered there.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::{Daemon, database, options, run, run_id, status};
use crate::daemon::http::connection::Limits;
use crate::daemon::http::{HttpError, HttpOptions, serve};
use crate::daemon::runs::Work;
use crate::daemon::shared::ROUND_MAX;
use crate::domain::connection::Secret;
use crate::domain::failure::Failure;
use crate::domain::status::Overdue;

#[tokio::test]
async fn every_address_answers_in_its_own_kind_and_with_the_safe_headers() {
    let daemon = Daemon::start().await;
    daemon.shared.set_status(status(vec![database("kennel_prod")]));
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/healthz", "application/json"),
        ("/healthz?strict", "application/json"),
        ("/readyz", "application/json"),
        ("/metrics", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("/v1/status", "application/json"),
        ("/v1/runs", "application/json"),
    ] {
        let answer = daemon.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let head = daemon.ask(&head).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    let policy = daemon.get("/").await;
    let policy = policy.header("content-security-policy").expect("a policy").to_owned();
    for word in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'none'"] {
        assert!(policy.contains(word), "{policy}");
    }
    assert!(!policy.contains("script-src"), "{policy}");
    assert_eq!(daemon.get("/admin").await.refused(), (404, 8));
    assert_eq!(daemon.get("/v1/runs/nonsense").await.refused(), (404, 8));
    assert_eq!(daemon.get("/v1/runs/%ff").await.refused(), (404, 8));
    let post =
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(daemon.ask(post).await.refused(), (405, 2));
    daemon.stopped().await;
}

#[tokio::test]
async fn health_is_about_the_scheduler_and_strictly_about_what_is_overdue_too() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/healthz").await.status, 200);
    assert_eq!(daemon.get("/healthz?strict").await.refused(), (503, 6), "nobody has looked yet");

    let mut overdue = database("kennel_prod");
    overdue.overdue = vec![Overdue::backup("no good backup for 3 d")];
    let mut found = status(vec![database("shop"), overdue]);
    found.faults = vec!["20261121T020000Z-5f3a9c21: not signed".to_owned()];
    daemon.shared.set_status(found);
    assert_eq!(daemon.get("/healthz").await.status, 200, "a restart would not mend it");
    let answer = daemon.get("/healthz?strict").await;
    assert_eq!(answer.refused(), (503, 3));
    let failures =
        ["main/kennel_prod: no good backup for 3 d", "20261121T020000Z-5f3a9c21: not signed"];
    assert_eq!(answer.json()["failures"], json!(failures));

    daemon.shared.set_status(status(vec![database("kennel_prod")]));
    assert_eq!(daemon.get("/healthz?strict").await.status, 200);
    daemon.shared.update_health(|health| health.repository_error = Some("no route".to_owned()));
    assert_eq!(daemon.get("/healthz?strict").await.refused(), (503, 5));

    let since = Instant::now().checked_sub(ROUND_MAX + Duration::from_secs(1)).expect("a moment");
    daemon.shared.update_health(|health| health.last_round = Some(since));
    let answer = daemon.get("/healthz").await;
    assert_eq!(answer.refused(), (503, 1));
    assert!(answer.body.contains("has not gone round for 2 min"), "{answer:?}");
}

#[tokio::test]
async fn ready_is_neither_starting_nor_going_down() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/readyz").await.status, 200);
    daemon.shared.update_health(|health| health.draining = true);
    let answer = daemon.get("/readyz").await;
    assert_eq!(answer.refused(), (503, 6));
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    daemon.shared.update_health(|health| (health.draining, health.ready) = (false, false));
    assert_eq!(daemon.get("/readyz").await.refused(), (503, 6));
    daemon.shared.update_health(|health| health.repository_error = Some("no route".to_owned()));
    let answer = daemon.get("/readyz").await;
    assert_eq!(answer.refused(), (503, 6));
    assert!(answer.body.contains("the repository is away: no route"), "{answer:?}");
}

#[tokio::test]
async fn the_status_is_the_document_of_the_command_line() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/v1/status").await.refused(), (503, 6), "before the first look");
    let found = status(vec![database("kennel_prod"), database("a b/c\"<é>")]);
    daemon.shared.set_status(found.clone());
    assert_eq!(daemon.get("/v1/status").await.json(), json!(found));
}

#[tokio::test]
async fn runs_are_told_newest_first_and_one_by_one() {
    let daemon = Daemon::start().await;
    for (number, work) in Work::ALL.into_iter().enumerate() {
        daemon.shared.runs.add(run(&run_id(number), work));
    }
    let all = daemon.get("/v1/runs").await.json();
    let verbs: Vec<_> = all.as_array().expect("an array").iter().map(|run| &run["work"]).collect();
    assert_eq!(json!(verbs), json!(["prune", "verify", "snapshot"]));
    let one = daemon.get(&format!("/v1/runs/{}", run_id(1))).await.json();
    assert_eq!((&one, &one["state"]), (&all[1], &json!("queued")));
    assert_eq!(daemon.get(&format!("/v1/runs/{}", run_id(9))).await.refused(), (404, 8));
}

#[tokio::test]
async fn names_that_are_not_this_hosts_are_refused_unless_it_may_be_reached_from_elsewhere() {
    let asking =
        |host: &str| format!("GET /v1/runs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let daemon = Daemon::start().await;
    for own in ["localhost", "localhost:7878", "127.0.0.1", "[::1]:7878"] {
        assert_eq!(daemon.ask(&asking(own)).await.status, 200, "{own}");
    }
    for foreign in ["rebound.example", "rebound.example:7878", "192.0.2.1"] {
        assert_eq!(daemon.ask(&asking(foreign)).await.refused(), (421, 2), "{foreign}");
    }
    let two =
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example\r\nConnection: close\r\n\r\n";
    assert_eq!(daemon.ask(two).await.refused(), (421, 2));
    let remote = HttpOptions { allow_remote: true, ..options() };
    let remote = Daemon::with(remote, Limits::default()).await;
    assert_eq!(remote.ask(&asking("pgkeep.internal:7878")).await.status, 200);
}

#[tokio::test]
async fn what_cannot_or_must_not_be_served_is_refused_at_the_start() {
    let daemon = Daemon::start().await;
    let start = |options| serve(options, daemon.shared.clone(), daemon.stop.clone());
    let everywhere = (Ipv4Addr::UNSPECIFIED, 0).into();
    let error = start(HttpOptions { listen: everywhere, ..options() }).await.expect_err("remote");
    assert!(matches!(error, HttpError::Remote(_)) && error.hint().is_some(), "{error}");
    let agreed = HttpOptions { listen: everywhere, allow_remote: true, token: None };
    start(agreed).await.expect("agreed to");
    let empty = HttpOptions { token: Some(Secret::new(" \n".to_owned())), ..options() };
    assert!(matches!(start(empty).await, Err(HttpError::EmptyToken)));
    let taken = HttpOptions { listen: daemon.address, ..options() };
    let error = start(taken).await.expect_err("a daemon listens there");
    assert_eq!(error.kind().exit_code(), 1);
    assert!(error.to_string().contains(&daemon.address.to_string()), "{error}");
}
