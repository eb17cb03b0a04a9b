//! A daemon that is all HTTP: what is asked of its scheduler becomes a run that the test itself drives.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{Span, Timestamp};
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::daemon::http::connection::Limits;
use crate::daemon::http::{HttpOptions, bind};
use crate::daemon::runs::{Run, State, Work};
use crate::daemon::shared::{Asked, Refusal, Shared};
use crate::domain::audit::RunId;
use crate::domain::connection::Secret;
use crate::domain::manifest::Trigger;
use crate::domain::status::{
    BackupFacts, ClusterStatus, DatabaseStatus, KeyStatus, Mark, MarkKind, Removal, Schedules,
    Status, VerifiedFacts, WalStatus,
};
use crate::domain::verification::Depth;

pub(super) const TOKEN: &str = "9f2c4e6a8b0d1f3e5c7a";
pub(super) const SNAPSHOTS: &str = "/v1/clusters/main/databases/kennel_prod/snapshots";
/// Nothing here takes so long; what does, hangs.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Daemon {
    pub(super) shared: Shared,
    pub(super) address: SocketAddr,
    pub(super) stop: CancellationToken,
    /// How often the scheduler was asked.
    pub(super) asked: Arc<AtomicUsize>,
    /// What it was asked last: trigger and labels.
    pub(super) last: Arc<Mutex<Option<(Trigger, Json)>>>,
    serving: JoinHandle<()>,
}

pub(super) fn options() -> HttpOptions {
    HttpOptions {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        allow_remote: false,
        token: Some(Secret::new(TOKEN.to_owned())),
    }
}

impl Daemon {
    pub(super) async fn start() -> Self {
        Self::with(options(), Limits::default()).await
    }

    pub(super) async fn with(options: HttpOptions, limits: Limits) -> Self {
        let (sender, receiver) = mpsc::channel(16);
        let shared = Shared::new(sender);
        let stop = CancellationToken::new();
        let bound = bind(options, shared.clone(), stop.clone(), limits).await.expect("a free port");
        let address = bound.address().expect("a page");
        let serving = tokio::spawn(bound.run());
        let (asked, last) = (Arc::default(), Arc::default());
        tokio::spawn(schedule(shared.clone(), receiver, Arc::clone(&asked), Arc::clone(&last)));
        shared.update_health(|health| {
            health.ready = true;
            health.last_round = Some(Instant::now());
        });
        Self { shared, address, stop, asked, last, serving }
    }

    pub(super) async fn stopped(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.serving).await.expect("it ends").expect("no panic");
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
            .await
    }

    /// Asks the hook, with the right token.
    pub(super) async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask(&posting(path, &format!("Authorization: Bearer {TOKEN}\r\n"), body)).await
    }

    /// Sends that, and reads until the server is done.
    pub(super) async fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut bytes = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
        drop(read.expect("it answers and closes"));
        Answer::parse(&bytes)
    }

    /// The run that was asked for, once there is one.
    pub(super) async fn run(&self) -> RunId {
        eventually(|| !self.shared.runs.all().is_empty()).await;
        self.shared.runs.all()[0].id.clone()
    }

    pub(super) fn times_asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(super) fn begin(&self, id: &RunId) {
        self.shared.runs.update(id, |run| {
            run.state = State::Running;
            run.started_at = Some(Timestamp::now());
            run.step = "dumping".to_owned();
        });
    }

    pub(super) fn succeed(&self, id: &RunId) {
        self.shared.runs.update(id, |run| {
            run.state = State::Succeeded;
            run.finished_at = Some(Timestamp::now());
            run.result = Some(json!({ "id": id, "kind": "snapshot", "source_bytes": 5_000_000, "stored_bytes": 1024 }));
        });
    }

    pub(super) fn fail(&self, id: &RunId, code: u8, kind: &str) {
        self.shared.runs.update(id, |run| {
            run.state = State::Failed;
            run.finished_at = Some(Timestamp::now());
            run.error = Some(json!({ "exit_code": code, "kind": kind, "message": "it broke", "hint": "mend it" }));
        });
    }
}

pub(super) fn posting(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Takes in every snapshot of `kennel_prod`; a database called `many` is one too many.
async fn schedule(
    shared: Shared,
    mut receiver: mpsc::Receiver<Asked>,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<(Trigger, Json)>>>,
) {
    while let Some(one) = receiver.recv().await {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        *last.lock().expect("no panic") = Some((one.trigger, json!(one.labels)));
        let answer = match one.database.as_str() {
            "kennel_prod" => {
                let id = run_id(number);
                shared.runs.add(run(&id, Work::Snapshot));
                Ok(id)
            }
            "many" => Err(Refusal::Busy("too much waits already".to_owned())),
            other => Err(Refusal::Unknown(format!("no database `{other}`"))),
        };
        drop(one.answer.send(answer));
    }
}

pub(super) fn run_id(number: usize) -> RunId {
    let random = u32::try_from(number).expect("few runs");
    RunId::new("2026-11-28T20:00:00Z".parse().expect("a time"), random)
}

pub(super) fn run(id: &RunId, work: Work) -> Run {
    Run {
        id: id.clone(),
        work,
        cluster: "main".parse().expect("a name"),
        database: (work != Work::Prune).then(|| "kennel_prod".to_owned()),
        trigger: Some(Trigger::PreMigration),
        state: State::Queued,
        queued_at: Timestamp::now(),
        started_at: None,
        finished_at: None,
        step: String::new(),
        bytes: 0,
        result: None,
        error: None,
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let head = head.to_owned();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { joined(body) } else { body.to_owned() };
        Self { status, head, body }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    #[track_caller]
    pub(super) fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?} holds no JSON"))
    }

    /// The status, once it is made sure that it comes with the error document.
    #[track_caller]
    pub(super) fn refused(&self) -> (u16, u64) {
        let error = &self.json()["error"];
        for key in ["kind", "message", "hint"] {
            assert!(error[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {self:?}");
        }
        (self.status, error["exit_code"].as_u64().expect("an exit code"))
    }
}

/// The chunks of a chunked body.
fn joined(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a chunk's length");
        if length == 0 || after.len() < length {
            break;
        }
        body.push_str(&after[..length]);
        rest = after[length..].trim_start_matches("\r\n");
    }
    body
}

/// Polls until it holds.
#[track_caller]
pub(super) fn eventually(condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let since = Instant::now();
        while !condition() {
            assert!(since.elapsed() < PATIENCE, "waited in vain at {place}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// So long ago.
pub(super) fn hours_ago(hours: i64) -> Timestamp {
    Timestamp::now().checked_sub(Span::new().hours(hours)).expect("a time")
}

/// A database with a month behind it.
pub(super) fn database(name: &str) -> DatabaseStatus {
    let id = |hours: i64| RunId::new(hours_ago(hours), 7);
    let good = BackupFacts {
        id: id(5),
        trigger: Trigger::Scheduled,
        finished_at: hours_ago(5),
        age_ms: 5 * 3_600_000,
        duration_ms: 42_000,
        source_bytes: 1_250_000_000,
        stored_bytes: 14_000_000,
    };
    let verified = VerifiedFacts {
        id: id(29),
        verified_at: hours_ago(26),
        age_ms: 26 * 3_600_000,
        duration_ms: 245_000,
        depth: Depth::Full,
    };
    let marks = (0..29).rev().map(|day| Mark {
        at: hours_ago(5 + 24 * day),
        kind: if day == 12 { MarkKind::DoubtfulBackup } else { MarkKind::Backup },
        id: id(5 + 24 * day),
    });
    let proofs = (0..4).map(|week| Mark {
        at: hours_ago(26 + 168 * week),
        kind: if week == 2 { MarkKind::Failed } else { MarkKind::Verified },
        id: id(29 + 168 * week),
    });
    DatabaseStatus {
        name: name.to_owned(),
        configured: true,
        backups: 37,
        stored_bytes: 4_400_000_000,
        last_good: Some(good),
        newest_in_doubt: None,
        last_verified: Some(verified),
        usual_bytes: Some(1_210_000_000),
        next_snapshot: Some(hours_ago(-19)),
        next_verify: Some(hours_ago(-22)),
        removes_next: vec![Removal { id: id(720), reason: "no rule keeps it".to_owned() }],
        overdue: Vec::new(),
        timeline: marks.chain(proofs).collect(),
    }
}

/// A state with these databases in cluster `main`.
pub(super) fn status(databases: Vec<DatabaseStatus>) -> Status {
    Status {
        at: hours_ago(0),
        pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
        repository: "s3://backups/kennel".to_owned(),
        keys: KeyStatus {
            encrypted: true,
            epoch: Some("5f3a9c21".to_owned()),
            recipients: vec![
                "age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq".to_owned(),
            ],
            signer: Some("E7620F1842B4E81F".to_owned()),
            identity_here: false,
            confirmed_elsewhere: Some(true),
        },
        clusters: vec![ClusterStatus {
            name: "main".parse().expect("a name"),
            timezone: "Asia/Kathmandu".to_owned(),
            schedules: Schedules {
                snapshot: Some("0 2 * * *".to_owned()),
                verify: Some("0 5 * * *".to_owned()),
                prune: Some("0 4 * * *".to_owned()),
            },
            next_prune: Some(hours_ago(-21)),
            databases,
            wal: WalStatus::off(),
            recovery_windows: Vec::new(),
        }],
        faults: Vec::new(),
    }
}
