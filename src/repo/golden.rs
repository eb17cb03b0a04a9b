//! The format is a promise: a repository that was written once, with its keys, lies in `tests/fixtures/repository-1`
//! and is read here by the code of today; and what that code writes from the same input has the same names and says
//! the same, but for what chance decides. A change of format that is meant gets a fixture of its own, and this one stays
//! readable. A story (`tests/it/format.rs`) proves its snapshots on real servers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, TryStreamExt as _};

use super::backup::Description;
use super::catalog::{Entry, Filter};
use super::chunks::PlainChunk;
use super::events::Wanted;
use super::test_support::{Still, description, restored, spec};
use super::workers::Workers;
use super::{Keys, RepoError, Repository, layout};
use crate::codec::cut::{ChunkParams, cut};
use crate::codec::encrypt::generate_identity;
use crate::codec::hash::{ChunkKey, plain_hash};
use crate::codec::kit::RecoveryKit;
use crate::codec::seal::{Opener, SHIPPED_LEVEL, Sealer};
use crate::codec::sign::SigningKey;
use crate::codec::writer_key::WriterKey;
use crate::domain::adoption::Adoption;
use crate::domain::audit::Event;
use crate::domain::id::{ClusterName, EpochId};
use crate::domain::inventory::{Inventory, TableCount};
use crate::domain::key::ObjectKey;
use crate::domain::manifest::{Manifest, PartKind, Trigger, Versions};
use crate::domain::observer::Silent;
use crate::domain::verification::{Check, Depth, Outcome, VerificationRecord, outcome_of};
use crate::store::Store;
use crate::store::local::LocalStore;
use crate::store::memory::MemoryStore;

/// A dump of `tests/fixtures/archives/odd.sql` from a server of PostgreSQL 15.
const ARCHIVE: &[u8] = include_bytes!("../../tests/fixtures/archives/odd-1.14.dump");
/// As `b3sum` prints it.
const ARCHIVE_BLAKE3: &str = "09db56310a164793fb837ae8ac53acbf9bd20416fbbade6a193ada79220fec75";
/// What that version of pgkeep took down of the same database.
const INVENTORY: &str = "inventory.json";
const GLOBALS: [&[u8]; 2] = [
    b"CREATE ROLE clerk;\nALTER ROLE clerk WITH LOGIN;\n",
    b"CREATE ROLE clerk;\nALTER ROLE clerk WITH NOLOGIN;\n",
];
const FIRST: &str = "20270115T080003Z-00000005";
const SECOND: &str = "20270115T080005Z-00000006";

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/repository-1")
}

fn text_of(home: &Path, name: &str) -> String {
    std::fs::read_to_string(home.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn kit(home: &Path) -> RecoveryKit {
    RecoveryKit::parse(&text_of(home, "recovery-kit.txt")).expect("a kit")
}

/// What a bare host has: the recovery kit and no more.
fn reader(home: &Path) -> Keys {
    let kit = kit(home);
    Keys { opener: Some(Opener::new(kit.identities)), trusted: kit.signers, ..Keys::default() }
}

/// What the host that writes has, and the kit, so that it can say that it opened the chunk key.
fn writer(home: &Path) -> Keys {
    let recipients = kit(home).identities.recipients();
    Keys {
        writer: Some(WriterKey::parse(&text_of(home, "writer.key")).expect("a writer key")),
        recipients: recipients.as_strings(),
        sealer: Some(Sealer::new(&recipients, SHIPPED_LEVEL)),
        ..reader(home)
    }
}

fn main_cluster() -> ClusterName {
    "main".parse().expect("a name")
}

async fn open(home: &Path, keys: Keys) -> Result<Repository, RepoError> {
    let store: Store = Arc::new(LocalStore::open(&home.join("repository")).expect("it is there"));
    Repository::open(store, keys, Workers::Inline, Arc::new(Still::default())).await
}

/// One of everything, by clocks and dice that always fall the same.
async fn write(store: Store, home: &Path) {
    let keys = writer(home);
    let epoch = keys.writer.clone().expect("a writer").epoch;
    // Small, so that a small archive is many chunks.
    let chunking = ChunkParams::new(512, 2048, 8192).expect("sizes");
    let ambient = Arc::new(Still::default());
    let made = Repository::create(store, keys, chunking, Workers::Inline, ambient);
    let repository = made.await.expect("it is made").0;
    repository.confirm(&epoch, "vault").await.expect("confirmed");
    let inventory = text_of(home, INVENTORY);
    let mut rows = serde_json::from_str::<Inventory>(&inventory).expect("an inventory").rows;
    // Large enough that the manifest tells of it.
    rows.push(TableCount { schema: "public".to_owned(), name: "Größe".to_owned(), rows: 12_345 });
    let versions = Versions {
        server_version_num: 150_018,
        server_version: "15.18".to_owned(),
        pg_dump: "pg_dump (PostgreSQL) 15.18".to_owned(),
        pgkeep: "0.1.0".to_owned(),
    };
    let described = Description {
        trigger: Trigger::Scheduled,
        versions,
        system_identifier: Some("7400000000000000001".to_owned()),
        timeline: Some(1),
        lsn: Some("0/1A2B3C8".to_owned()),
        rows,
        inventory: inventory.into_bytes(),
        run: Some("20270115T080000Z-00abcdef".parse().expect("an id")),
        ..description()
    };
    let first = snapshot(&repository, GLOBALS[0], described.clone()).await;
    let second = Description {
        trigger: Trigger::PreMigration,
        labels: [("tool".to_owned(), "prisma".to_owned())].into(),
        pinned: true,
        ..described
    };
    let second = snapshot(&repository, GLOBALS[1], second).await;
    let signer = repository.write_access().await.expect("keys").signer;
    let verified = record(&repository, &first).await;
    repository.record_verification(&main_cluster(), verified, &signer).await.expect("recorded");
    repository.put_adoption(&main_cluster(), &adoption(&second)).await.expect("adopted");
    repository.put_event(&main_cluster(), &event(&second)).await.expect("told");
}

async fn snapshot(repository: &Repository, globals: &[u8], description: Description) -> Manifest {
    let mut backup = repository.begin_backup(spec()).await.expect("begun");
    let key = backup.access().chunk_key.clone();
    let params = repository.document.chunking;
    for (kind, name, bytes) in
        [(PartKind::Archive, "archive", ARCHIVE), (PartKind::Globals, "globals", globals)]
    {
        let chunks = cut(bytes, params, &key).map(|chunk| {
            let bytes = chunk.expect("memory is read");
            Ok(PlainChunk { hash: key.hash(&bytes), bytes })
        });
        backup.write_part(kind, name, stream::iter(chunks), &Silent).await.expect("written");
    }
    backup.commit(description).await.expect("committed")
}

async fn record(repository: &Repository, backup: &Manifest) -> VerificationRecord {
    let key = layout::manifest(&backup.cluster, &backup.id);
    let manifest = repository.get_signed(&key).await.expect("signed");
    let checks =
        vec![Check::passed("load", "7 tables"), Check::skipped("amcheck", "not asked for")];
    VerificationRecord {
        format: 1,
        id: "20270115T090000Z-00000007".parse().expect("an id"),
        backup: backup.id.clone(),
        manifest_blake3: plain_hash(&manifest).to_hex(),
        started_at: backup.finished_at,
        duration_ms: 1234,
        depth: Depth::Full,
        result: outcome_of(&checks),
        checks,
        host: "vault".to_owned(),
        pgkeep: "0.1.0".to_owned(),
    }
}

fn adoption(backup: &Manifest) -> Adoption {
    Adoption {
        format: 1,
        backup: backup.id.clone(),
        database: backup.database.clone(),
        system_identifier: backup.system_identifier.clone(),
        rows: true,
        adopted_at: backup.finished_at,
        host: "db1".to_owned(),
    }
}

fn event(backup: &Manifest) -> Event {
    Event {
        format: 1,
        id: backup.run.clone().expect("a run"),
        run: None,
        event: "snapshot".to_owned(),
        at: backup.finished_at,
        duration_ms: backup.duration_ms(),
        database: Some(backup.database.clone()),
        backup: Some(backup.id.clone()),
        origin: "schedule".to_owned(),
        user: "postgres".to_owned(),
        host: "db1".to_owned(),
        pgkeep: "0.1.0".to_owned(),
        exit_code: 0,
        message: None,
        backups: Vec::new(),
        migration: None,
    }
}

async fn objects(store: &Store) -> BTreeMap<ObjectKey, Bytes> {
    let listed: Vec<_> = store.list("").try_collect().await.expect("listed");
    let mut objects = BTreeMap::new();
    for object in listed {
        let bytes = store.get(&object.key).await.expect("what is listed is there");
        objects.insert(object.key, bytes);
    }
    objects
}

/// Where the next test makes a fixture; it has `inventory.json` already.
const MAKE: &str = "TEST_MAKE_REPOSITORY_IN";

/// Nothing where it was not asked for.
#[tokio::test]
async fn a_repository_for_later_versions_to_read() {
    let Some(home) = std::env::var_os(MAKE).map(PathBuf::from) else { return };
    let label = "# A test key, which protects nothing. All that it opens lies beside it.\n";
    let writer = WriterKey {
        epoch: EpochId::new(0x0bad_cafe),
        chunk_key: ChunkKey::from_bytes([7; 32]),
        signing: SigningKey::generate(&[8; SigningKey::BYTES]),
    };
    let (identity, _) = generate_identity();
    let now = "2026-11-30T08:00:00Z".parse().expect("a time");
    let kit = RecoveryKit::render(&identity, "file:///srv/pgkeep", &[writer.signing.public()], now);
    let files = [
        ("writer.key", format!("{label}{}\n", *writer.to_text())),
        ("recovery-kit.txt", format!("{label}{}", *kit.expect("own key"))),
    ];
    for (name, text) in files {
        std::fs::write(home.join(name), text).expect("written");
    }
    let store = LocalStore::create(&home.join("repository")).expect("made");
    write(Arc::new(store), &home).await;
    std::fs::remove_dir(home.join("repository/.tmp")).expect("nothing is left in it");
}

#[tokio::test]
async fn a_repository_of_format_1_is_opened_listed_trusted_and_read_by_whoever_has_its_kit() {
    let home = home();
    let repository = open(&home, reader(&home)).await.expect("it opens");
    let catalog = repository.catalog(&Filter::default()).await.expect("it is read");
    assert!(catalog.faults.is_empty(), "{:?}", catalog.faults);
    let ids = |entry: &Entry| entry.manifest.id.to_string();
    assert_eq!(catalog.entries.iter().map(ids).collect::<Vec<_>>(), [SECOND, FIRST]);
    let inventory = text_of(&home, INVENTORY);
    for (entry, globals) in catalog.entries.iter().rev().zip(GLOBALS) {
        let archive = restored(&repository, &entry.manifest, "archive").await.expect("whole");
        assert_eq!(plain_hash(&archive).to_hex(), ARCHIVE_BLAKE3);
        let read = restored(&repository, &entry.manifest, "globals").await.expect("whole");
        assert_eq!(read, globals);
        let sealed = repository.sealed_part(&entry.manifest).expect("it is opened");
        assert_eq!(String::from_utf8_lossy(&sealed), inventory);
    }
    let read: Inventory = serde_json::from_str(&inventory).expect("an inventory");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), inventory);

    let [second, first] = &catalog.entries[..] else { panic!("two: {catalog:?}") };
    let previous = second.manifest.previous.as_ref().expect("a predecessor");
    assert_eq!(previous.blake3, first.manifest_hash.to_hex());
    // The archive has not changed, so that only the script was stored again.
    assert_eq!(second.manifest.chunks_new, 1);
    assert!(first.manifest.chunks_total > 5, "{}", first.manifest.chunks_total);
    assert_eq!((first.pinned, second.pinned), (false, true));
    let verified = first.verification.as_ref().expect("it was verified");
    assert_eq!((verified.result, verified.duration_ms), (Outcome::Passed, 1234));
    let epoch = &first.manifest.epoch;
    let confirmed = repository.confirmations(epoch).await.expect("they are read");
    assert_eq!(confirmed.iter().map(|one| &*one.host).collect::<Vec<_>>(), ["vault"]);
    let wanted = Wanted { limit: 10, ..Wanted::default() };
    let trail = repository.newest_events(&wanted).await.expect("they are read");
    assert_eq!(
        trail.events.iter().map(|one| &one.event).collect::<Vec<_>>(),
        [&event(&second.manifest)]
    );
    let marks = repository.keys_below(&layout::marks(&main_cluster())).await.expect("listed");
    let adopted = repository.adoptions_among(marks.into_iter()).await.expect("they are read");
    assert_eq!(adopted, [adoption(&second.manifest)]);
}

#[tokio::test]
async fn a_host_with_the_writer_key_of_then_goes_on_writing_and_shares_its_chunks() {
    let home = home();
    let before = objects(&open(&home, writer(&home)).await.expect("it opens").store).await;
    let memory: Store = Arc::new(MemoryStore::with(before));
    let ambient = Arc::new(Still::default());
    // After those that are there.
    ambient.pass(86_400);
    ambient.drawn.store(0x0001_0000, std::sync::atomic::Ordering::Relaxed);
    let opened = Repository::open(memory, writer(&home), Workers::Inline, ambient).await;
    let repository = opened.expect("it opens");
    let third = snapshot(&repository, GLOBALS[1], description()).await;
    assert_eq!(third.chunks_new, 0, "cuts and names are those of then");
    assert_eq!(third.previous.expect("a predecessor").id.as_str(), SECOND);
}

#[tokio::test]
async fn what_is_written_today_has_the_names_and_words_of_then() {
    let home = home();
    let then = objects(&open(&home, reader(&home)).await.expect("it opens").store).await;
    let store: Store = Arc::new(MemoryStore::new());
    write(store.clone(), &home).await;
    let today = objects(&store).await;
    let names = |objects: &BTreeMap<ObjectKey, Bytes>| {
        objects.keys().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(names(&today), names(&then));
    for (key, bytes) in &today {
        let name = key.as_str();
        // Sealed, and so another each time; the page may say it better.
        if name.starts_with("chunks/") || *key == layout::recover() {
            continue;
        }
        let (now, then) = (String::from_utf8_lossy(bytes), String::from_utf8_lossy(&then[key]));
        if layout::is_signature(key) {
            assert_eq!(comments(&now), comments(&then), "{name}");
        } else {
            assert_eq!(without_chance(name, &now), without_chance(name, &then), "{name}");
        }
    }
    let signed = layout::signature(&layout::repository());
    assert_eq!(today[&signed], then[&signed], "no chance is in what it signs");
    let key = WriterKey::parse(&text_of(&home, "writer.key")).expect("a writer key");
    assert!(text_of(&home, "writer.key").ends_with(&format!("\n{}\n", *key.to_text())));
}

/// The two lines of a signature that people read.
fn comments(signature: &str) -> Vec<&str> {
    signature.lines().step_by(2).collect()
}

/// An object line by line, without what encryption makes another each time, what that leads to, and the version that
/// writes today.
fn without_chance(name: &str, text: &str) -> Vec<String> {
    const CHANCE: [&str; 7] =
        ["chunk_key", "sealed", "blake3", "manifest_blake3", "stored_bytes", "pgkeep", "proof"];
    let mut within_list = false;
    let line = |line: &str| {
        if name.ends_with(".chunks") {
            return line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        }
        // The length of the chunk list, which holds the sizes of what is sealed.
        let of_list = std::mem::replace(&mut within_list, line.contains("\"chunk_list\": {"));
        match line.split_once("\": ") {
            Some((key, _))
                if of_list || CHANCE.contains(&key.trim_start().trim_start_matches('"')) =>
            {
                format!("{key}\": …")
            }
            _ => line.to_owned(),
        }
    };
    text.split('\n').map(line).collect()
}
