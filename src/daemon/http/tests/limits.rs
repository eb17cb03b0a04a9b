//! Clients that are slow on purpose, or never read, hold no place for long.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Daemon, SNAPSHOTS, TOKEN, database, options, status};
use crate::daemon::http::connection::Limits;

/// One place alone, and little patience.
fn short() -> Limits {
    let limit = Duration::from_millis(300);
    Limits { connections: 1, head: limit, body: limit, still: limit }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_not_waited_for() {
    let daemon = Daemon::with(options(), short()).await;
    let stream = TcpStream::connect(daemon.address).await.expect("it listens");
    let (mut reading, mut writing) = stream.into_split();
    let trickle = tokio::spawn(async move {
        writing.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.expect("it reads");
        // Each byte comes long before the limit; all of them do not.
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    // The only place is free again while the bytes still come.
    assert_eq!(daemon.get("/healthz").await.status, 200);
    let mut rest = Vec::new();
    drop(reading.read_to_end(&mut rest).await);
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "), "{rest:?}");
    trickle.await.expect("its writes fail in the end");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_before_and_between_requests() {
    let daemon = Daemon::with(options(), short()).await;
    let silent = TcpStream::connect(daemon.address).await.expect("it listens");
    assert_eq!(daemon.get("/healthz").await.status, 200);
    drop(silent);
    let mut kept = TcpStream::connect(daemon.address).await.expect("it listens");
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it reads");
    let mut answer = [0; 1024];
    let length = kept.read(&mut answer).await.expect("it answers");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "));
    assert_eq!(daemon.get("/healthz").await.status, 200);
    drop(kept);
}

#[tokio::test]
async fn a_body_that_never_comes_is_answered_and_asks_for_nothing() {
    let daemon = Daemon::with(options(), short()).await;
    let asked = format!(
        "POST {SNAPSHOTS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n{{"
    );
    assert_eq!(daemon.ask(&asked).await.refused(), (408, 2));
    assert_eq!(daemon.times_asked(), 0);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let daemon = Daemon::with(options(), short()).await;
    daemon.shared.set_status(status((0..200).map(|n| database(&format!("db{n}"))).collect()));
    let mut deaf = TcpStream::connect(daemon.address).await.expect("it listens");
    // More than the buffers of both sides hold.
    for _ in 0..40 {
        deaf.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it reads");
    }
    assert_eq!(daemon.get("/healthz").await.status, 200);
    drop(deaf);
}

#[tokio::test]
async fn a_long_wait_for_a_run_is_not_taken_for_a_client_that_stands_still() {
    let limits = Limits { still: Duration::from_millis(100), ..Limits::default() };
    let daemon = Daemon::with(options(), limits).await;
    let driving = async {
        let id = daemon.run().await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        daemon.succeed(&id);
    };
    let path = format!("{SNAPSHOTS}?wait=60");
    let (answer, ()) = tokio::join!(daemon.post(&path, ""), driving);
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn heads_without_end_are_refused() {
    let daemon = Daemon::start().await;
    let asked = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(daemon.address).await.expect("it listens");
    drop(stream.write_all(asked.as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    assert!(!String::from_utf8_lossy(&answer).contains(" 200 "));
    assert_eq!(daemon.get("/healthz").await.status, 200);
}
