use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::domain::connection::{ConnectionSources, SourceFile};

struct Nothing;

impl ConnectionSources for Nothing {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }
    fn file(&self, _path: &Path) -> Option<SourceFile> {
        None
    }
    fn exists(&self, _path: &Path) -> bool {
        false
    }
    fn home(&self) -> Option<std::path::PathBuf> {
        None
    }
    fn user_name(&self) -> Option<String> {
        Some("u".to_owned())
    }
}

/// Connects to a server that behaves as `act` does, and gives the error.
async fn refusal<F>(parameters: &str, act: fn(TcpStream) -> F) -> PostgresError
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(act(stream));
        }
    });
    let text = format!("host=127.0.0.1 port={port} user=u dbname=d {parameters}");
    let info = ConnectionInfo::parse(&text, &Nothing).unwrap();
    let result = Session::connect(&info, "test").await;
    server.abort();
    result.unwrap_err()
}

async fn no_tls(mut stream: TcpStream) {
    let mut request = [0; 8];
    stream.read_exact(&mut request).await.unwrap();
    stream.write_all(b"N").await.unwrap();
    // Held open: the client has to end it by itself.
    let _ = stream.read(&mut request).await;
}

/// Sends one message in answer to the startup packet.
async fn answer(mut stream: TcpStream, message: &[u8]) {
    let mut startup = [0; 1024];
    let _ = stream.read(&mut startup).await;
    let _ = stream.write_all(message).await;
    let _ = stream.read(&mut startup).await;
}

fn error_response(code: &str) -> Vec<u8> {
    let body = format!("SFATAL\0VFATAL\0C{code}\0Mno\0\0");
    let length = u32::try_from(body.len() + 4).unwrap();
    [b"E", length.to_be_bytes().as_slice(), body.as_bytes()].concat()
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_a_failed_handshake() {
    let error = refusal("sslmode=require", no_tls).await;
    assert!(matches!(error, PostgresError::TlsNotOffered { .. }), "{error:?}");
    let rubbish = |mut stream: TcpStream| async move {
        let mut request = [0; 8];
        let _ = stream.read_exact(&mut request).await;
        let _ = stream.write_all(b"Sthis is no handshake").await;
    };
    let error = refusal("sslmode=require", rubbish).await;
    assert!(matches!(error, PostgresError::TlsFailed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_password_that_is_asked_for_and_not_known_is_missing() {
    // AuthenticationCleartextPassword.
    let asks = |stream| async { answer(stream, &[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await };
    let error = refusal("sslmode=disable", asks).await;
    assert!(matches!(error, PostgresError::PasswordMissing { .. }), "{error:?}");
}

#[tokio::test]
async fn every_refusal_has_a_name_of_its_own() {
    type Case = (&'static str, fn(&PostgresError) -> bool);
    let cases: [Case; 6] = [
        ("28P01", |e| matches!(e, PostgresError::PasswordRefused { .. })),
        ("28000", |e| matches!(e, PostgresError::NotAdmitted { .. })),
        ("3D000", |e| matches!(e, PostgresError::DatabaseMissing { .. })),
        ("57P03", |e| matches!(e, PostgresError::NotReady { .. })),
        ("53300", |e| matches!(e, PostgresError::TooManyConnections { .. })),
        ("42501", |e| matches!(e, PostgresError::PermissionDenied { .. })),
    ];
    let acts: [fn(TcpStream) -> futures::future::BoxFuture<'static, ()>; 6] = [
        |stream| Box::pin(async { answer(stream, &error_response("28P01")).await }),
        |stream| Box::pin(async { answer(stream, &error_response("28000")).await }),
        |stream| Box::pin(async { answer(stream, &error_response("3D000")).await }),
        |stream| Box::pin(async { answer(stream, &error_response("57P03")).await }),
        |stream| Box::pin(async { answer(stream, &error_response("53300")).await }),
        |stream| Box::pin(async { answer(stream, &error_response("42501")).await }),
    ];
    for ((code, fits), act) in cases.into_iter().zip(acts) {
        let error = refusal("sslmode=disable", act).await;
        assert!(fits(&error), "{code}: {error:?}");
        assert!(crate::domain::failure::Failure::hint(&error).is_some());
    }
}

#[tokio::test]
async fn who_speaks_another_protocol_or_hangs_up_is_named_so() {
    let web = |mut stream: TcpStream| async move {
        let mut startup = [0; 1024];
        let _ = stream.read(&mut startup).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    };
    let error = refusal("sslmode=disable", web).await;
    assert!(matches!(error, PostgresError::NotPostgres { .. }), "{error:?}");
    let error = refusal("sslmode=disable", |stream| async { drop(stream) }).await;
    assert!(matches!(error, PostgresError::NotPostgres { .. }), "{error:?}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_in_time() {
    let silent = |mut stream: TcpStream| async move {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    };
    let error = refusal("connect_timeout=1", silent).await;
    assert!(matches!(error, PostgresError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let info = ConnectionInfo::socket(Path::new("/nowhere"), 5432, "u", "d");
    let error = Session::connect(&info, "test").await.unwrap_err();
    assert!(matches!(error, PostgresError::Unreachable { not_listening: true, .. }), "{error:?}");
}
