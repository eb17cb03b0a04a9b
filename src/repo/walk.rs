//! The shipped code on a store of which one call fails: each call of a run in turn, once so that nothing is done and
//! once so that it is done and the answer is lost. The run says that it failed, or it succeeded; whatever it left,
//! each backup that is listed reads back, and the next run goes through.

use std::sync::Arc;

use futures::executor::block_on;
use futures::stream;

use super::backup::Description;
use super::catalog::{Catalog, Entry, Filter};
use super::chunks::PlainChunk;
use super::layout::{self, IntentState};
use super::prune::{Prune, Terms};
use super::test_support::{Still, description, plaintext_keys, restored, spec};
use super::workers::Workers;
use super::{RepoError, Repository};
use crate::codec::cut::ChunkParams;
use crate::domain::ambient::Ambient as _;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::manifest::PartKind;
use crate::domain::observer::Silent;
use crate::domain::retention::RetentionPolicy;
use crate::domain::verification::{Depth, Outcome, VerificationRecord};
use crate::store::faulty::{Call, Fault, FaultyStore, Op};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreError};

/// A repository in memory, and the clock of whoever works on it.
struct World {
    memory: Arc<MemoryStore>,
    ambient: Arc<Still>,
}

impl World {
    /// With one backup for each of these contents; a letter is a chunk.
    async fn with(contents: &[&str]) -> Self {
        let world = Self { memory: Arc::default(), ambient: Arc::default() };
        let (store, ambient) = (world.memory.clone(), world.ambient.clone());
        let (keys, chunking) = (plaintext_keys(), ChunkParams::default());
        let made = Repository::create(store, keys, chunking, Workers::Inline, ambient);
        made.await.expect("no call fails");
        for letters in contents {
            let taken = world.back_up(world.memory.clone(), letters, false).await;
            taken.expect("no call fails");
        }
        world
    }

    async fn open(&self, store: Store) -> Result<Repository, RepoError> {
        Repository::open(store, plaintext_keys(), Workers::Inline, self.ambient.clone()).await
    }

    /// A pinned backup of these letters. `abandons` says whether its run lives to declare it dead when it has failed,
    /// as the conductor does.
    async fn back_up(&self, store: Store, letters: &str, abandons: bool) -> Result<(), RepoError> {
        let repository = self.open(store).await?;
        let mut backup = repository.begin_backup(spec()).await?;
        let (id, key) = (backup.id().clone(), backup.access().chunk_key.clone());
        let chunks = letters.bytes().map(|letter| {
            // So slow that it says again that it lives.
            self.ambient.pass(200);
            let bytes = vec![letter; 10];
            Ok(PlainChunk { hash: key.hash(&bytes), bytes })
        });
        let written = async {
            let chunks = stream::iter(chunks);
            backup.write_part(PartKind::Archive, "archive", chunks, &Silent).await?;
            backup.commit(Description { pinned: true, ..description() }).await
        };
        let failed = match written.await {
            Ok(manifest) => {
                assert_eq!(manifest.id, id);
                return Ok(());
            }
            Err(failed) => failed,
        };
        if abandons {
            repository.abandon(&id).await?;
        }
        Err(failed)
    }

    /// All that is listed, newest first, each with what it reads back; nothing that is listed is unusable.
    async fn listed(&self) -> (Catalog, Vec<String>) {
        let repository = self.open(self.memory.clone()).await.expect("no call fails");
        let catalog = repository.catalog(&Filter::default()).await.expect("no call fails");
        assert!(catalog.faults.is_empty(), "{:?}", catalog.faults);
        let mut contents = Vec::new();
        for entry in &catalog.entries {
            let content = restored(&repository, &entry.manifest, "archive").await;
            let content = content.unwrap_or_else(|error| panic!("{}: {error}", entry.manifest.id));
            contents.push(content.chunks(10).map(|chunk| char::from(chunk[0])).collect());
        }
        (catalog, contents)
    }
}

/// One run of a walk: what failed, and how.
#[derive(Debug)]
struct Step {
    fault: Fault,
    call: Call,
    /// The calls before it, which were done.
    before: Vec<Call>,
    result: Result<(), RepoError>,
}

impl Step {
    /// Whether an object whose name begins and ends so was put, whatever the run heard of it.
    fn has_put(&self, begin: &str, end: &str) -> bool {
        let is_put = |call: &Call| {
            call.op == Op::Put && call.key.starts_with(begin) && call.key.ends_with(end)
        };
        self.before.iter().any(is_put) || is_put(&self.call) && self.fault == Fault::FailAfter
    }
}

/// Runs `run` in a `world` of its own for each call that it makes, with that call failing, and has `check` look at what
/// came of it. How many calls there are.
fn walk(
    world: &impl AsyncFn() -> World,
    run: &impl AsyncFn(&World, Store) -> Result<(), RepoError>,
    check: &impl AsyncFn(&World, &Step),
) -> u64 {
    let mut calls = 0;
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        for nth in 1.. {
            let world = block_on(world());
            let plan = move |call: &Call| if call.nth == nth { fault } else { Fault::None };
            let store = Arc::new(FaultyStore::new(world.memory.clone(), plan));
            let result = block_on(run(&world, store.clone()));
            let place = usize::try_from(nth - 1).expect("a few");
            let mut before = store.calls();
            before.truncate(place + 1);
            let Some(call) = (before.len() > place).then(|| before.pop()).flatten() else {
                result.expect("no call failed");
                calls = nth - 1;
                break;
            };
            if let Err(error) = &result {
                // Its own error, and not one of what the fault made of the repository.
                let own = matches!(error, RepoError::Store(StoreError::Injected(key)) if *key == call.key);
                assert!(own, "{call:?} {fault:?}: {error}");
            }
            block_on(check(&world, &Step { fault, call, before, result }));
        }
    }
    calls
}

#[test]
fn a_backup_whose_nth_store_call_fails_leaves_nothing_half_made_and_the_next_one_succeeds() {
    for abandons in [false, true] {
        let calls = walk(
            &async || World::with(&["abc"]).await,
            &async |world, store| world.back_up(store, "bcdef", abandons).await,
            &async |world, step| {
                let (_, contents) = world.listed().await;
                // The manifest makes it exist, until whoever took it says that it is dead; after `.done` nobody can.
                let committed = step.has_put("clusters/main/snapshots/", ".json");
                let objects = world.memory.objects();
                let ends = objects.keys().filter_map(layout::intent_end_of);
                let done = ends.filter(|(_, end)| matches!(end, IntentState::Done)).count() == 2;
                assert!(done || step.result.is_err(), "{step:?}");
                let expected: &[&str] =
                    if done || committed && !abandons { &["bcdef", "abc"] } else { &["abc"] };
                assert_eq!(contents, expected, "{step:?}");
                let next = world.back_up(world.memory.clone(), "bcdef", true).await;
                next.unwrap_or_else(|error| panic!("after {step:?}: {error}"));
                let (catalog, contents) = world.listed().await;
                assert_eq!(contents[0], "bcdef", "{step:?}");
                assert!(catalog.entries.iter().all(|entry| entry.pinned), "{step:?}");
            },
        );
        assert!(calls > 25, "{calls}");
    }
}

fn record(world: &World, entry: &Entry) -> VerificationRecord {
    VerificationRecord {
        format: 1,
        id: BackupId::new(world.ambient.now(), world.ambient.random()),
        backup: entry.manifest.id.clone(),
        manifest_blake3: entry.manifest_hash.to_hex(),
        started_at: jiff::Timestamp::UNIX_EPOCH,
        duration_ms: 1,
        depth: Depth::Full,
        result: Outcome::Failed,
        checks: Vec::new(),
        host: "vault".to_owned(),
        pgkeep: "0.1.0".to_owned(),
    }
}

fn main_cluster() -> ClusterName {
    "main".parse().expect("a name")
}

#[test]
fn a_verification_whose_nth_store_call_fails_is_recorded_whole_or_not_and_the_next_one_is() {
    let recorded = async |world: &World, store: Store| {
        let repository = world.open(store).await?;
        let entry = repository.catalog(&Filter::default()).await?.entries.remove(0);
        let signer = plaintext_keys().writer.expect("a writer").signing;
        repository.record_verification(&main_cluster(), record(world, &entry), &signer).await
    };
    let calls = walk(&async || World::with(&["abc"]).await, &recorded, &async |world, step| {
        let (catalog, contents) = world.listed().await;
        assert_eq!(contents, ["abc"], "{step:?}");
        let told = catalog.entries[0].verification.is_some();
        assert_eq!(told, step.has_put("clusters/main/verifications/", ".json"), "{step:?}");
        recorded(world, world.memory.clone()).await.expect("no call fails");
        let (catalog, _) = world.listed().await;
        let standing = catalog.entries[0].verification.as_ref().expect("it was recorded");
        assert_eq!(standing.result, Outcome::Failed);
    });
    assert!(calls > 5, "{calls}");
}

#[test]
fn a_pin_whose_nth_store_call_fails_is_there_or_not_and_the_next_one_is() {
    let newest = async |repository: &Repository| {
        let catalog = repository.catalog(&Filter::default()).await?;
        Ok::<_, RepoError>(catalog.entries[0].manifest.id.clone())
    };
    let pin = async |world: &World, store: Store| {
        let repository = world.open(store).await?;
        repository.pin(&main_cluster(), &newest(&repository).await?).await
    };
    let unpin = async |world: &World, store: Store| {
        let repository = world.open(store).await?;
        let _ = repository.unpin(&main_cluster(), &newest(&repository).await?).await?;
        Ok(())
    };
    let pinned = async |world: &World| world.listed().await.0.entries[0].pinned;
    let unpinned = async || {
        let world = World::with(&["abc"]).await;
        unpin(&world, world.memory.clone()).await.expect("no call fails");
        world
    };
    let calls = walk(&unpinned, &pin, &async |world, step| {
        assert_eq!(pinned(world).await, step.has_put("clusters/main/marks/", ""), "{step:?}");
        pin(world, world.memory.clone()).await.expect("no call fails");
        assert!(pinned(world).await);
    });
    assert!(calls > 5, "{calls}");
    walk(&async || World::with(&["abc"]).await, &unpin, &async |world, step| {
        let gone = step.call.op == Op::Delete && step.fault == Fault::FailAfter;
        assert_eq!(pinned(world).await, !(step.result.is_ok() || gone), "{step:?}");
        unpin(world, world.memory.clone()).await.expect("no call fails");
        assert!(!pinned(world).await);
    });
}

#[test]
fn a_prune_whose_nth_store_call_fails_keeps_what_is_kept_and_the_next_one_ends_it() {
    let prune = async |world: &World, store: Store| {
        let repository = world.open(store).await?;
        let policy = RetentionPolicy { keep_last: 1, ..RetentionPolicy::nothing() };
        let terms = Terms { policies: [(main_cluster(), policy)].into(), ..Terms::default() };
        let prune = Prune::new(&repository, &terms);
        prune.settle(&[], true).await?;
        let mut survey = prune.survey(&[]).await?;
        prune.condemn(&survey).await?;
        prune.sweep(&mut survey).await?;
        Ok(())
    };
    let expired = async || {
        let world = World::with(&["abc", "bcd", "cde"]).await;
        let repository = world.open(world.memory.clone()).await.expect("no call fails");
        for entry in repository.catalog(&Filter::default()).await.expect("read").entries {
            let unpinned = repository.unpin(&main_cluster(), &entry.manifest.id).await;
            assert_eq!(unpinned.expect("no call fails"), 1);
        }
        world
    };
    let calls = walk(&expired, &prune, &async |world, step| {
        let (_, contents) = world.listed().await;
        assert_eq!(contents[0], "cde", "{step:?}");
        prune(world, world.memory.clone()).await.expect("no call fails");
        assert_eq!(world.listed().await.1, ["cde"], "{step:?}");
        let left: Vec<_> = world.memory.objects().into_keys().collect();
        let chunks = left.iter().filter(|key| key.as_str().starts_with("chunks/")).count();
        assert_eq!(chunks, 3, "{step:?}: {left:?}");
        assert!(
            !left.iter().any(|key| key.as_str().starts_with("condemned/")),
            "{step:?}: {left:?}"
        );
    });
    assert!(calls > 40, "{calls}");
}
