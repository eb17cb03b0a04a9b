//! How long `pgkeep list` and `pgkeep status` take over many snapshots: `cargo bench --bench catalog -- 5000`.
//!
//! The snapshots are real ones (intents, sealed chunks, signed manifests), written through the library,
//! since `pg_dump` of even the smallest database would take half an hour. They are of 200 databases. Prints
//! the medians of seven warm runs in milliseconds: of `list`, and of `status`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use pgkeep::codec::cut::ChunkParams;
use pgkeep::codec::encrypt::{Recipients, generate_identity};
use pgkeep::codec::hash::ChunkKey;
use pgkeep::codec::seal::{SHIPPED_LEVEL, Sealer};
use pgkeep::codec::sign::SigningKey;
use pgkeep::codec::writer_key::WriterKey;
use pgkeep::domain::ambient::Ambient;
use pgkeep::domain::id::EpochId;
use pgkeep::domain::manifest::{BackupKind, PartKind, Trigger, Versions};
use pgkeep::domain::observer::Silent;
use pgkeep::repo::backup::{BackupSpec, Description};
use pgkeep::repo::chunks::PlainChunk;
use pgkeep::repo::workers::Workers;
use pgkeep::repo::{Keys, Repository};
use pgkeep::store::local::LocalStore;

/// The snapshots are of so many.
const DATABASES: usize = 200;

/// A world in which a minute passes at every look at the clock.
struct Minutes(AtomicI64);

impl Ambient for Minutes {
    fn now(&self) -> Timestamp {
        let minute = self.0.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_second(1_700_000_000 + minute * 60).expect("a time of this century")
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn random(&self) -> u32 {
        getrandom::u32().expect("the system gives random numbers")
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

async fn fill(root: &Path, snapshots: usize) -> String {
    let mut random = [0; 72];
    getrandom::fill(&mut random).expect("the system gives random numbers");
    let (chunk, signing) = random.split_at(32);
    let chunk_key = ChunkKey::from_bytes(chunk.try_into().expect("32 of 72"));
    let signing = SigningKey::generate(signing.try_into().expect("40 of 72"));
    let public = signing.public().to_string();
    let recipient = generate_identity().1;
    let sealer = Recipients::parse(std::slice::from_ref(&recipient)).expect("a recipient");
    let keys = Keys {
        writer: Some(WriterKey { epoch: EpochId::new(1), chunk_key: chunk_key.clone(), signing }),
        recipients: vec![recipient],
        sealer: Some(Sealer::new(&sealer, SHIPPED_LEVEL)),
        ..Keys::default()
    };
    let store = Arc::new(LocalStore::create(root).expect("a directory"));
    let world = Arc::new(Minutes(AtomicI64::new(0)));
    let (repository, _) =
        Repository::create(store, keys, ChunkParams::default(), Workers::threads(), world)
            .await
            .expect("a repository");
    // Many at once, as a few hundred nights would write them; waiting for the disk is most of the work.
    futures::stream::iter(0..snapshots)
        .for_each_concurrent(16, |number| one(&repository, &chunk_key, number))
        .await;
    public
}

async fn one(repository: &Repository, chunk_key: &ChunkKey, number: usize) {
    let spec = BackupSpec {
        kind: BackupKind::Snapshot,
        cluster: "main".parse().expect("a name"),
        database: format!("shop_{}", number % DATABASES),
        host: "bench".to_owned(),
    };
    let mut backup = repository.begin_backup(spec).await.expect("an intent");
    let bytes = format!("rows of the shop, day {}", number / 50).into_bytes();
    let chunk = PlainChunk { hash: chunk_key.hash(&bytes), bytes };
    let source = futures::stream::iter([Ok(chunk)]);
    let part = backup.write_part(PartKind::Archive, "archive", source, &Silent);
    part.await.expect("a chunk");
    let description = Description {
        trigger: Trigger::Scheduled,
        labels: BTreeMap::new(),
        versions: Versions {
            server_version_num: 150_018,
            server_version: "15.18".to_owned(),
            pg_dump: "pg_dump (PostgreSQL) 15.18".to_owned(),
            pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
        },
        system_identifier: Some("7300000000000000000".to_owned()),
        timeline: Some(1),
        lsn: Some("0/16B3748".to_owned()),
        excluded_table_data: Vec::new(),
        rows: Vec::new(),
        inventory: b"{}".to_vec(),
        pinned: false,
        run: None,
    };
    backup.commit(description).await.expect("a snapshot");
}

/// The time that `pgkeep --json VERB` takes, and its document.
fn run(verb: &str, root: &Path, home: &Path, signer: &str) -> (Duration, Value) {
    let start = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_pgkeep"))
        .env_clear()
        .env("PGKEEP_HOME", home)
        .env("PGKEEP_REPOSITORY", format!("file://{}", root.display()))
        .env("PGKEEP_TRUSTED_SIGNERS", signer)
        .args(["--json", verb])
        .stderr(Stdio::inherit())
        .output()
        .expect("pgkeep runs");
    let elapsed = start.elapsed();
    assert!(output.status.success(), "`{verb}` fails");
    (elapsed, serde_json::from_slice(&output.stdout).expect("a document"))
}

/// The median of seven runs after a first one.
fn median(mut run: impl FnMut() -> Duration) -> u128 {
    let mut times: Vec<Duration> = (0..8).map(|_| run()).skip(1).collect();
    times.sort();
    times[times.len() / 2].as_millis()
}

#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
fn main() {
    let wanted = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(5000);
    let place = tempfile::tempdir().expect("a directory");
    let (root, home) = (place.path().join("repository"), place.path().join("home"));
    std::fs::create_dir(&home).expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let signer = runtime.block_on(fill(&root, wanted));
    let list = median(|| {
        let (elapsed, listed) = run("list", &root, &home, &signer);
        assert_eq!(listed.as_array().map(Vec::len), Some(wanted), "every snapshot is listed");
        elapsed
    });
    let status = median(|| {
        let (elapsed, told) = run("status", &root, &home, &signer);
        let databases = told["clusters"][0]["databases"].as_array().map(Vec::len);
        assert_eq!(databases, Some(DATABASES.min(wanted)), "every database is told");
        elapsed
    });
    println!("{list} {status}");
}
