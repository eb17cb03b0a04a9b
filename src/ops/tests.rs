//! Snapshot, verification and restore as one story, on a real server and a repository in memory.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::restore::{self, Consent, Destination, ExportFormat, Form, Output, RestoreError};
use super::restore::{RestoreOptions, RestoreReport, Restoring};
use super::snapshot::{self, Hooks, SnapshotOptions};
use super::verify::{self, Choice, ScratchChoice, Verified, Verifying};
use crate::codec::cut::ChunkParams;
use crate::codec::hash::ChunkKey;
use crate::codec::seal::{Opener, Sealer};
use crate::codec::sign::SigningKey;
use crate::codec::writer_key::WriterKey;
use crate::domain::ambient::Ambient;
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::{Failure as _, FailureKind};
use crate::domain::id::EpochId;
use crate::domain::manifest::Trigger;
use crate::domain::observer::{Observer, Severity, Silent};
use crate::domain::verification::{Depth, Outcome};
use crate::postgres::session::Session;
use crate::proof::Assertion;
use crate::repo::catalog::{Entry, Filter};
use crate::repo::workers::Workers;
use crate::repo::{Keys, Repository};
use crate::scratch::cluster::ScratchCluster;
use crate::scratch::sql::Statements as _;
use crate::scratch::test_support::{cluster, scratch_dir};
use crate::store::memory::MemoryStore;

struct World {
    started: Instant,
    drawn: AtomicU32,
}

impl Ambient for World {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
    fn random(&self) -> u32 {
        self.drawn.fetch_add(1, Ordering::Relaxed)
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn step(&self, _name: &str, _subject: &str) {}
    fn bytes(&self, _done: u64, _total: Option<u64>) {}
    fn finding(&self, _severity: Severity, message: &str) {
        self.0.lock().expect("nobody panics here").push(message.to_owned());
    }
}

const SHOP: &[&str] = &[
    "CREATE ROLE shop_owner",
    "CREATE DATABASE \"My Shop\" OWNER shop_owner",
    "ALTER DATABASE \"My Shop\" SET search_path TO shop, public",
];
const CONTENT: &[&str] = &[
    "CREATE SCHEMA shop AUTHORIZATION shop_owner",
    "CREATE TABLE shop.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
       note text, total numeric, doubled numeric GENERATED ALWAYS AS (total * 2) STORED)",
    "ALTER TABLE shop.orders OWNER TO shop_owner",
    "INSERT INTO shop.orders (note, total) \
       SELECT 'order ' || i || E'\\t\\\\', i * 1.5 FROM generate_series(1, 3000) AS i",
    "CREATE MATERIALIZED VIEW shop.sums AS SELECT count(*) AS n FROM shop.orders",
    "SELECT lo_from_bytea(0, decode(repeat('cafe', 9000), 'hex'))",
];

/// A server with a shop on it, and a repository that holds one snapshot of it.
struct Shop {
    parent: tempfile::TempDir,
    cluster: ScratchCluster,
    store: Arc<MemoryStore>,
    repository: Repository,
    signer: SigningKey,
}

impl Shop {
    async fn open() -> Self {
        let parent = scratch_dir();
        let cluster = cluster(parent.path()).await;
        let store = Arc::new(MemoryStore::new());
        let signer = SigningKey::generate(&[2; SigningKey::BYTES]);
        let keys = Keys {
            writer: Some(WriterKey {
                epoch: EpochId::new(1),
                chunk_key: ChunkKey::from_bytes([1; 32]),
                signing: signer.clone(),
            }),
            recipients: Vec::new(),
            sealer: Some(Sealer::insecure_plaintext(1)),
            opener: Some(Opener::insecure_plaintext()),
            trusted: Vec::new(),
            insecure_plaintext: true,
        };
        let chunking = ChunkParams::new(1 << 14, 1 << 16, 1 << 18).expect("sizes");
        let world = Arc::new(World { started: Instant::now(), drawn: AtomicU32::new(1) });
        let workers = Workers::threads();
        let made = Repository::create(store.clone(), keys, chunking, workers, world).await;
        let (repository, _) = made.expect("a repository");
        let shop = Self { parent, cluster, store, repository, signer };
        shop.run("postgres", SHOP).await;
        shop.run("My Shop", CONTENT).await;
        shop.snapshot(&[]).await;
        shop
    }

    fn server(&self) -> &ConnectionInfo {
        self.cluster.connection()
    }

    async fn session(&self, database: &str) -> Session {
        Session::connect(&self.server().with_database(database), "test").await.expect("a session")
    }

    async fn run(&self, database: &str, statements: &[&str]) {
        let session = self.session(database).await;
        for statement in statements {
            session.execute(statement).await.expect(statement);
        }
    }

    async fn number(&self, database: &str, sql: &str) -> i64 {
        self.session(database).await.query_one(sql, &[]).await.expect(sql).get(0)
    }

    async fn databases(&self) -> Vec<String> {
        let sql = "SELECT datname::text FROM pg_database WHERE datname LIKE '%hop%' ORDER BY 1";
        let rows = self.session("postgres").await.query(sql, &[]).await.expect("rows");
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn snapshot(&self, exclude: &[&str]) {
        let options = SnapshotOptions {
            cluster: "main".parse().expect("a name"),
            connection: self.server().clone(),
            trigger: Trigger::Manual,
            labels: std::collections::BTreeMap::new(),
            pinned: false,
            exclude_table_data: exclude.iter().map(|name| (*name).to_owned()).collect(),
            hooks: Hooks::default(),
            bin_dir: None,
            host: "here".to_owned(),
            idle: IDLE,
            run: None,
        };
        let token = CancellationToken::new();
        let taken = snapshot::one(&self.repository, &options, "My Shop", &Silent, &token).await;
        taken.expect("a snapshot");
    }

    async fn latest(&self) -> Entry {
        let filter = Filter::default();
        let chosen =
            verify::choose(&self.repository, &filter, &Choice::LatestOfEach, &Silent).await;
        chosen.expect("a backup").remove(0)
    }

    async fn verify(&self, scratch: &ScratchChoice, told: &Told) -> Verified {
        let assertions = [Assertion {
            name: "totals are positive".to_owned(),
            sql: "SELECT id FROM orders WHERE total <= 0".to_owned(),
        }];
        let verifying = Verifying {
            repository: &self.repository,
            server: Some(self.server()),
            bin_dir: None,
            scratch_dir: &self.scratch(),
            scratch,
            assertions: &assertions,
            depth: Depth::Full,
            idle: IDLE,
            signer: Some(&self.signer),
            host: "here",
            observer: told,
            cancel: &CancellationToken::new(),
        };
        let entries = [self.latest().await];
        verify::run(&verifying, &entries, |_| ()).await.expect("a run").remove(0)
    }

    fn scratch(&self) -> std::path::PathBuf {
        self.parent.path().join("scratch")
    }

    async fn restore(
        &self,
        destination: Destination,
        consent: Consent,
    ) -> Result<RestoreReport, RestoreError> {
        let restoring = Restoring {
            repository: &self.repository,
            server: self.server(),
            bin_dir: None,
            scratch_dir: &self.scratch(),
            assertions: &[],
            idle: IDLE,
            observer: &Silent,
            cancel: &CancellationToken::new(),
        };
        let options = RestoreOptions {
            destination,
            consent,
            depth: Depth::Full,
            no_owner: false,
            create_roles: false,
            only: None,
            scripts: Vec::new(),
        };
        restore::run(&restoring, &self.latest().await, &options).await
    }

    fn leftovers(&self) -> usize {
        std::fs::read_dir(self.scratch()).map_or(0, Iterator::count)
    }
}

fn result_of(verified: &Verified) -> Outcome {
    let (_, report) = verified;
    report.as_ref().expect("a report").result
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_proves_a_good_backup_and_fails_a_damaged_one() {
    let shop = Shop::open().await;
    let told = Told::default();
    let verified = shop.verify(&ScratchChoice::Auto, &told).await;
    assert_eq!(result_of(&verified), Outcome::Passed, "{verified:?}");
    let checks = verified.1.as_ref().expect("a report").checks.clone();
    let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
    for name in ["load", "inventory", "row-counts", "sequences", "assertions", "content"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(told.0.lock().expect("no panic").as_slice(), [""; 0]);
    let on_server = ScratchChoice::Server(Box::new(shop.server().clone()));
    assert_eq!(result_of(&shop.verify(&on_server, &told).await), Outcome::Passed);
    assert_eq!(shop.databases().await, ["My Shop"]);
    assert_eq!(shop.leftovers(), 0);

    let entry = shop.latest().await;
    assert_eq!(entry.verification.as_ref().map(|record| record.result), Some(Outcome::Passed));
    let list = shop.repository.chunk_list(&entry.manifest).await.expect("a list");
    let key = list[1].name.key(&entry.manifest.epoch);
    shop.store.damage(&key, Some(Bytes::from_static(b"swapped")));
    let verified = shop.verify(&ScratchChoice::Auto, &told).await;
    assert_eq!(result_of(&verified), Outcome::Failed);
    assert_eq!(verify::gravest(std::slice::from_ref(&verified)), Some(FailureKind::Damage));
    let detail = &verified.1.as_ref().expect("a report").checks[0].detail;
    assert!(detail.contains(key.as_str()) && detail.contains("another backup"), "{detail}");
    let record = shop.latest().await.verification.expect("a record");
    assert_eq!(record.result, Outcome::Failed);
    assert_eq!(shop.leftovers(), 0);
    let error = shop.restore(Destination { name: Some("copy".into()), replace: false }, YES).await;
    assert_eq!(error.expect_err("damage").kind(), FailureKind::Damage);
    assert_eq!(shop.leftovers(), 0);
}

const IDLE: Duration = Duration::from_mins(1);
const YES: Consent = Consent { yes: true, force: false, allow_partial: false };
const COUNT: &str = "SELECT count(*) FROM shop.orders";

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_takes_a_free_name_or_swaps_the_live_one() {
    let shop = Shop::open().await;
    let own = Destination::default();
    let taken = shop.restore(own.clone(), YES).await.expect_err("the name is taken");
    assert!(matches!(taken, RestoreError::NameTaken { .. }), "{taken}");
    let copy = Destination { name: Some("shop copy".into()), replace: false };
    let report = shop.restore(copy, Consent::default()).await.expect("restored");
    assert!(report.left_out.is_empty(), "{report:?}");
    assert_eq!(shop.number("shop copy", COUNT).await, 3000);
    // The database's own setting came with it.
    assert_eq!(shop.number("shop copy", "SELECT count(*) FROM orders").await, 3000);

    shop.run("My Shop", &["DELETE FROM shop.orders"]).await;
    let swap = Destination { name: None, replace: true };
    let report = shop.restore(swap.clone(), YES).await.expect("restored");
    let kept_as = report.kept_as.expect("the old one is kept");
    assert_eq!(shop.number("My Shop", COUNT).await, 3000);
    assert_eq!(shop.number(&kept_as, COUNT).await, 0);
    let again = shop.restore(swap.clone(), YES).await.expect("restored");
    assert_eq!(again.kept_as, Some(format!("{kept_as}_2")));
    assert_eq!(shop.leftovers(), 0);
    assert!(!shop.databases().await.iter().any(|name| name.starts_with("pgkeep")));

    shop.snapshot(&["shop.orders"]).await;
    let error = shop.restore(swap, YES).await.expect_err("partial");
    assert!(matches!(error, RestoreError::Partial { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_differs_from_what_was_recorded_gets_no_name() {
    let shop = Shop::open().await;
    let options = RestoreOptions {
        destination: Destination { name: Some("shop copy".into()), replace: false },
        consent: YES,
        depth: Depth::Counts,
        no_owner: false,
        create_roles: false,
        only: None,
        scripts: Vec::new(),
    };
    let broken =
        [Assertion { name: "no orders".to_owned(), sql: "SELECT 1 FROM shop.orders".to_owned() }];
    let token = CancellationToken::new();
    let scratch = shop.scratch();
    let restoring = |assertions, cancel| Restoring {
        repository: &shop.repository,
        server: shop.cluster.connection(),
        bin_dir: None,
        scratch_dir: Path::new(&scratch),
        assertions,
        idle: IDLE,
        observer: &Silent,
        cancel,
    };
    let entry = shop.latest().await;
    let error = restore::run(&restoring(&broken, &token), &entry, &options).await;
    let error = error.expect_err("an assertion fails");
    assert_eq!(error.kind(), FailureKind::Damage);
    assert!(error.to_string().contains("no orders"), "{error}");
    token.cancel();
    let error = restore::run(&restoring(&[], &token), &entry, &options).await;
    assert_eq!(error.expect_err("cancelled").kind(), FailureKind::Interrupted);
    assert_eq!(shop.databases().await, ["My Shop"]);
    assert_eq!(shop.leftovers(), 0);
    let plan = restore::plan(&restoring(&[], &token), &entry, &options).await.expect("a plan");
    assert!(plan.steps().last().is_some_and(|step| step.contains("shop copy")), "{plan:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_a_dump_that_stock_programs_read_and_overwrites_nothing() {
    let shop = Shop::open().await;
    let entry = shop.latest().await;
    let token = CancellationToken::new();
    let export = async |format, output| {
        let form = Form { format, only: None };
        restore::export(&shop.repository, &entry, &form, output, None, &Silent, &token).await
    };
    let path = shop.parent.path().join("shop.dump");
    let report = export(ExportFormat::Custom, Output::File(path.clone())).await.expect("written");
    let bytes = std::fs::read(&path).expect("a file");
    assert_eq!(bytes.len() as u64, report.written_bytes);
    assert!(bytes.starts_with(b"PGDMP"));
    let again = export(ExportFormat::Custom, Output::File(path.clone())).await;
    assert!(matches!(again, Err(RestoreError::OutputExists(_))));
    let script = shop.parent.path().join("shop.sql");
    export(ExportFormat::Sql, Output::File(script.clone())).await.expect("written");
    let sql = std::fs::read_to_string(&script).expect("a file");
    assert!(sql.contains("CREATE TABLE shop.orders") && sql.contains("order 3000"));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&script).expect("a file").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let names = std::fs::read_dir(shop.parent.path()).expect("a directory").flatten();
    let hidden = names.filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0);
}
