//! What is answered: documents, and problems in the words of the command line.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value as Json;

use crate::domain::failure::FailureKind;
use crate::domain::told::Failed;

/// `{"error": {"exit_code", "kind", "message", "hint"}}`, with its status.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    failed: Failed,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Keys beside `error`.
    beside: Vec<(&'static str, Json)>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        kind: FailureKind,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let failed = Failed { kind, message: message.into(), hint: Some(hint.into()) };
        Self { status, failed, headers: Vec::new(), beside: Vec::new() }
    }

    /// A request that nobody understands.
    pub(super) fn bad(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, FailureKind::Usage, message, hint)
    }

    /// Not now, but perhaps soon.
    pub(super) fn later(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, FailureKind::Busy, message, hint)
            .with(header::RETRY_AFTER, HeaderValue::from_static("10"))
    }

    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub(super) fn beside(mut self, key: &'static str, value: impl Into<Json>) -> Self {
        self.beside.push((key, value.into()));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = self.failed.json();
        for (key, value) in self.beside {
            body[key] = value;
        }
        let mut response = document(self.status, &body);
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        problem.into_response()
    }
}

/// A document as JSON, with a line's end for those who read it in a terminal.
pub(super) fn document(status: StatusCode, body: &impl Serialize) -> Response {
    let mut bytes = serde_json::to_vec(body).expect("our own documents have string keys");
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The status for a run that failed with that exit code. The request itself was in order, so that a wrong
/// configuration (2) is the server's fault.
pub(super) const fn status_of_exit(code: u64) -> StatusCode {
    match code {
        4 | 5 => StatusCode::BAD_GATEWAY,
        6 => StatusCode::CONFLICT,
        8 => StatusCode::NOT_FOUND,
        130 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
