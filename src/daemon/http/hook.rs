//! The snapshot hook: containers and pipelines ask for a snapshot before they migrate, without credentials of the
//! database (DESIGN.md §5).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::RequestExt;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::stream;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::access;
use super::answer::{Problem, document, status_of_exit};
use super::routes::Here;
use crate::daemon::runs::{Run, State as Progress};
use crate::daemon::shared::Refusal;
use crate::domain::audit::RunId;
use crate::domain::failure::FailureKind;
use crate::domain::id::ClusterName;
use crate::domain::manifest::Trigger;

/// The longest wait for a run; proxies in between give up sooner.
const WAIT_MAX: Duration = Duration::from_hours(1);
/// The scheduler only has to take note of what is asked.
const ASK_MAX: Duration = Duration::from_secs(30);
/// A trigger and labels: far less.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Labels are in the manifest and in every listing.
const LABELS_MAX: usize = 32;
const LABEL_CHARS_MAX: usize = 256;
/// A line of a stream at least so often, so that nothing in between takes the connection for dead.
const LINE_AT_LEAST: Duration = Duration::from_secs(15);
/// And no more often than this: progress is told with every chunk.
const LINE_AT_MOST: Duration = Duration::from_millis(200);
const JSON_LINES: &str = "application/x-ndjson";

/// The body; all of it may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    trigger: Option<Trigger>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// What stands behind the `?`. A misspelt `wait` must not look like an answer that came at once.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asking {
    wait: Option<u64>,
    strict: Option<String>,
}

/// `POST /v1/clusters/{cluster}/databases/{database}/snapshots`
pub(super) async fn snapshot(
    State(context): State<Here>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(token) = context.shared.token() else {
        let hint = "set daemon.token_file to a private file with a token (`openssl rand -hex 32`), and restart the daemon";
        let message = "there is no snapshot hook here: no token is configured";
        return Err(Problem::new(StatusCode::NOT_FOUND, FailureKind::Usage, message, hint));
    };
    access::is_allowed(request.headers(), &token)?;
    let Query(asking) = Query::<Asking>::try_from_uri(request.uri()).map_err(|error| {
        Problem::bad(error.body_text(), "there are ?wait=SECONDS and strict beside it")
    })?;
    let lines = accepts_lines(request.headers());
    let Path((cluster, database)) = path.map_err(|error| {
        Problem::bad(error.body_text(), "names are percent-encoded UTF-8 in the address")
    })?;
    let cluster = cluster.parse::<ClusterName>().map_err(|error| unknown(error.to_string()))?;
    let wanted = read_body(request, context.limits.body).await?;
    let trigger = wanted.trigger.unwrap_or(Trigger::PreMigration);
    let asking_for = context.shared.ask(cluster, database, trigger, wanted.labels);
    let asked = tokio::time::timeout(ASK_MAX, asking_for).await.map_err(|_| {
        let hint = "/healthz tells whether the scheduler goes round";
        Problem::later("the scheduler did not answer", hint)
    })?;
    let id = asked.map_err(|refusal| match refusal {
        Refusal::Unknown(why) => unknown(why),
        Refusal::Busy(why) => {
            Problem::later(why, "ask again in a moment; /v1/runs tells what is at work")
        }
    })?;
    let wait = asking.wait.map(|seconds| Duration::from_secs(seconds).min(WAIT_MAX));
    if lines {
        return Ok(follow(context, id, wait));
    }
    outcome(&context, id, wait, asking.strict.is_some()).await
}

fn unknown(why: String) -> Problem {
    let hint = "the page and /v1/status tell the clusters and databases that this daemon keeps";
    Problem::new(StatusCode::NOT_FOUND, FailureKind::NotFound, why, hint)
}

fn accepts_lines(headers: &HeaderMap) -> bool {
    let kinds = |value: &HeaderValue| {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        value.split(',').any(|kind| kind.split(';').next().unwrap_or_default().trim() == JSON_LINES)
    };
    headers.get_all(header::ACCEPT).iter().any(kinds)
}

/// Reads the body within its limits of size and time.
async fn read_body(mut request: Request, limit: Duration) -> Result<Wanted, Problem> {
    DefaultBodyLimit::max(BODY_BYTES_MAX).apply(&mut request);
    let read = tokio::time::timeout(limit, request.extract::<Bytes, _>()).await;
    let Ok(read) = read else {
        let message = "the body did not come in time";
        let hint = "send it at once, or none at all";
        let status = StatusCode::REQUEST_TIMEOUT;
        return Err(Problem::new(status, FailureKind::Usage, message, hint)
            .with(header::CONNECTION, HeaderValue::from_static("close")));
    };
    let body = read.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let hint = format!("{BODY_BYTES_MAX} bytes are taken: a trigger and some labels");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Problem::new(status, FailureKind::Usage, "the body is too large", hint)
        }
        _ => Problem::bad(error.body_text(), "send a JSON object, or nothing"),
    })?;
    if body.trim_ascii().is_empty() {
        return Ok(Wanted::default());
    }
    let hint =
        r#"send {"trigger": "pre-migration", "labels": {"name": "text"}}, either, or nothing"#;
    let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad(format!("the body is not what it should be: {error}"), hint)
    })?;
    if wanted.trigger == Some(Trigger::Imported) {
        let message = "`imported` is what `pgkeep import` calls its snapshots";
        return Err(Problem::bad(message, "the hook takes pre-migration, manual and scheduled"));
    }
    let sound =
        |text: &str| text.chars().count() <= LABEL_CHARS_MAX && !text.chars().any(char::is_control);
    let all_sound = wanted.labels.iter().all(|(k, v)| !k.is_empty() && sound(k) && sound(v));
    if wanted.labels.len() > LABELS_MAX || !all_sound {
        let hint = format!(
            "up to {LABELS_MAX} labels, each name and text of up to {LABEL_CHARS_MAX} printable characters"
        );
        return Err(Problem::bad("these labels are not taken", hint));
    }
    Ok(wanted)
}

/// Where a run is told.
fn location(id: &RunId) -> HeaderValue {
    HeaderValue::try_from(format!("/v1/runs/{id}")).expect("an id is digits, letters and a dash")
}

/// The answer as one document.
async fn outcome(
    context: &Here,
    id: RunId,
    wait: Option<Duration>,
    strict: bool,
) -> Result<Response, Problem> {
    let over = match wait {
        None => None,
        Some(wait) => tokio::select! {
            biased;
            over = context.shared.runs.over(&id) => over,
            () = context.stop.cancelled() => return Err(going_down(&id)),
            () = tokio::time::sleep(wait) => None,
        },
    };
    if let Some(run) = over {
        return Ok(ended(run));
    }
    if wait.is_some() && strict {
        let message = "the snapshot is not done yet; the run goes on";
        let problem = Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            FailureKind::Busy,
            message,
            format!("follow /v1/runs/{id}"),
        );
        return Err(problem.beside("run", id.as_str()).with(header::LOCATION, location(&id)));
    }
    let run = context.shared.runs.get(&id);
    let body = run.map_or_else(|| json!({ "id": id }), |run| json!(run));
    let mut response = document(StatusCode::ACCEPTED, &body);
    response.headers_mut().insert(header::LOCATION, location(&id));
    Ok(response)
}

fn going_down(id: &RunId) -> Problem {
    let hint = "`pgkeep list` tells whether the snapshot was taken";
    Problem::later("the daemon is going down", hint)
        .beside("run", id.as_str())
        .with(header::LOCATION, location(id))
}

/// The answer about a run that is over: the snapshot's document, or why there is none.
fn ended(run: Run) -> Response {
    let place = location(&run.id);
    let mut response = if run.state == Progress::Succeeded {
        let body = run.result.clone().unwrap_or_else(|| json!(run));
        document(StatusCode::CREATED, &body)
    } else {
        let error = run.error.unwrap_or_else(|| {
            json!({ "exit_code": 1, "kind": "unexpected", "message": "the run failed", "hint": null })
        });
        let code = error["exit_code"].as_u64().unwrap_or(1);
        document(status_of_exit(code), &json!({ "error": error, "run": run.id }))
    };
    response.headers_mut().insert(header::LOCATION, place);
    response
}

/// The answer as lines: the run's document now, with each change, and at its end.
fn follow(context: Here, id: RunId, wait: Option<Duration>) -> Response {
    let place = location(&id);
    let changes = context.shared.runs.changes(&id);
    let until = wait.map(|wait| Instant::now() + wait);
    let lines = changes.map(|changes| Lines { context, id, changes, until, step: Step::First });
    let body = stream::unfold(lines, |lines| async move { lines?.next().await });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON_LINES));
    headers.insert(header::LOCATION, place);
    response
}

/// Which line comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    First,
    Later,
    Over,
}

struct Lines {
    context: Arc<super::Context>,
    id: RunId,
    changes: watch::Receiver<()>,
    until: Option<Instant>,
    step: Step,
}

impl Lines {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Option<Self>)> {
        match self.step {
            Step::First => {}
            Step::Over => return None,
            Step::Later => self.change().await?,
        }
        self.changes.borrow_and_update();
        let run = self.context.shared.runs.get(&self.id)?;
        self.step = if run.state.is_over() { Step::Over } else { Step::Later };
        let line: Json = json!(run);
        Some((Ok(Bytes::from(format!("{line}\n"))), Some(self)))
    }

    /// Waits until there is something to tell; none once nothing more will be told.
    async fn change(&mut self) -> Option<()> {
        let at_least = Instant::now() + LINE_AT_LEAST;
        let next = self.until.map_or(at_least, |until| until.min(at_least));
        tokio::select! {
            changed = self.changes.changed() => changed.ok()?,
            () = self.context.stop.cancelled() => return None,
            () = tokio::time::sleep_until(next) => {}
        }
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let is_over = |run: Run| run.state.is_over();
        if !self.context.shared.runs.get(&self.id).is_some_and(is_over) {
            // What changes meanwhile is told together.
            tokio::time::sleep(LINE_AT_MOST).await;
        }
        Some(())
    }
}
