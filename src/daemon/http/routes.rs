//! What is where.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde_json::json;

use super::answer::{Problem, document};
use super::page::{self, View};
use super::{Context, access, hook, metrics};
use crate::daemon::shared::ROUND_MAX;
use crate::domain::audit::RunId;
use crate::domain::failure::FailureKind;
use crate::domain::words;

/// What every handler has.
pub(super) type Here = Arc<Context>;

/// Nothing from elsewhere, no script, no frame: a database's name is the most foreign thing on the page. The style
/// is in the page, so that a saved copy looks the same.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// For every answer.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// All routes.
pub(super) fn router(context: Here) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .route("/v1/status", get(status))
        .route("/v1/runs", get(runs))
        .route("/v1/runs/{id}", get(run))
        .route("/v1/clusters/{cluster}/databases/{database}/snapshots", post(hook::snapshot))
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_that_way)
        .layer(middleware::from_fn_with_state(Arc::clone(&context), access::own_names_only))
        .layer(middleware::map_response(with_headers))
        .with_state(context)
}

async fn with_headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn nothing_here() -> Problem {
    let hint = "there are /, /healthz, /readyz, /metrics, /v1/status, /v1/runs and /v1/runs/{id}; the hook is POST /v1/clusters/{cluster}/databases/{database}/snapshots";
    Problem::new(StatusCode::NOT_FOUND, FailureKind::NotFound, "nothing is at this address", hint)
}

async fn not_that_way() -> Problem {
    let hint = "everything is read with GET; only a snapshot is asked for with POST";
    let message = "this address does not take that method";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, FailureKind::Usage, message, hint)
}

async fn status_page(State(context): State<Here>) -> Response {
    let (status, health) = (context.shared.status(), context.shared.health());
    let view = View {
        status: status.as_deref(),
        health: &health,
        hangs: hangs(&context).is_some(),
        runs: context.shared.runs.all(),
        now: Timestamp::now(),
    };
    let mut response = Html(page::render(&view)).into_response();
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// For how long the scheduler has not gone round, where that is too long.
fn hangs(context: &Context) -> Option<String> {
    let since = context.shared.health().last_round.unwrap_or(context.started);
    let elapsed = since.elapsed();
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    (elapsed > ROUND_MAX).then(|| words::span(ms))
}

/// The daemon goes round; with `?strict`, nothing is overdue either, as far as the repository tells.
async fn healthz(
    State(context): State<Here>,
    query: Result<Query<BTreeMap<String, String>>, QueryRejection>,
) -> Result<Response, Problem> {
    if let Some(elapsed) = hangs(&context) {
        let message = format!("the scheduler has not gone round for {elapsed}");
        let hint = "the log tells what it was at; systemd's watchdog restarts it";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Problem::new(status, FailureKind::Unexpected, message, hint));
    }
    let Query(query) = query.map_err(|error| Problem::bad(error.body_text(), "try ?strict"))?;
    if query.contains_key("strict") {
        strict(&context)?;
    }
    Ok(document(StatusCode::OK, &json!({ "status": "ok" })))
}

fn strict(context: &Context) -> Result<(), Problem> {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    if let Some(error) = context.shared.health().repository_error {
        let message = format!("the repository could not be looked at: {error}");
        let hint = "`pgkeep check` on this host tells more";
        return Err(Problem::new(status, FailureKind::Store, message, hint));
    }
    let Some(found) = context.shared.status() else { return Err(not_looked_yet()) };
    let failures = found.failures();
    if failures.is_empty() {
        return Ok(());
    }
    let message = failures.join("; ");
    let hint = "the page and `pgkeep status` tell more";
    Err(Problem::new(status, FailureKind::Damage, message, hint).beside("failures", failures))
}

async fn readyz(State(context): State<Here>) -> Result<Response, Problem> {
    let health = context.shared.health();
    if health.draining {
        let hint = "runs under way are brought to their end; no new ones are taken on";
        return Err(Problem::later("the daemon is going down", hint));
    }
    if !health.ready {
        return Err(match health.repository_error {
            Some(error) => {
                let message = format!("nothing is done while the repository is away: {error}");
                Problem::later(message, "`pgkeep check` on this host tells more")
            }
            None => Problem::later("the daemon is starting", "ask again in a moment"),
        });
    }
    Ok(document(StatusCode::OK, &json!({ "status": "ready" })))
}

async fn prometheus(State(context): State<Here>) -> Response {
    let found = metrics::Source {
        status: context.shared.status(),
        health: context.shared.health(),
        runs: context.shared.runs.clone(),
        started: context.started,
        now: Timestamp::now(),
    };
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    ([(header::CONTENT_TYPE, kind)], metrics::render(found)).into_response()
}

fn not_looked_yet() -> Problem {
    Problem::later("the first look at the repository is not over", "ask again in a moment")
}

async fn status(State(context): State<Here>) -> Result<Response, Problem> {
    let status = context.shared.status().ok_or_else(not_looked_yet)?;
    Ok(document(StatusCode::OK, &*status))
}

/// Newest first.
async fn runs(State(context): State<Here>) -> Response {
    let mut all = context.shared.runs.all();
    all.reverse();
    document(StatusCode::OK, &all)
}

async fn run(
    State(context): State<Here>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let found = id.ok().and_then(|Path(id)| id.parse::<RunId>().ok());
    let run = found.and_then(|id| context.shared.runs.get(&id)).ok_or_else(|| {
        let hint = "runs are known until the daemon ends, the last thousand of them; `pgkeep log` knows all";
        Problem::new(StatusCode::NOT_FOUND, FailureKind::NotFound, "no such run", hint)
    })?;
    Ok(document(StatusCode::OK, &run))
}
