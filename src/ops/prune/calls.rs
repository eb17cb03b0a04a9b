//! What a prune asks of its store: `docs/performance.md` states it, and this counts it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream;
use jiff::Timestamp;

use super::{PruneOptions, run};
use crate::codec::cut::ChunkParams;
use crate::domain::ambient::Ambient;
use crate::domain::audit::Actor;
use crate::domain::id::ClusterName;
use crate::domain::manifest::{BackupKind, PartKind};
use crate::domain::observer::Silent;
use crate::domain::retention::RetentionPolicy;
use crate::repo::Repository;
use crate::repo::backup::BackupSpec;
use crate::repo::chunks::PlainChunk;
use crate::repo::test_support::{description, plaintext_keys};
use crate::repo::workers::Workers;
use crate::store::faulty::{Fault, FaultyStore, Op};
use crate::store::memory::MemoryStore;

/// Each look at a clock is a second, and dice count.
#[derive(Default)]
struct World(AtomicU32);

impl Ambient for World {
    fn now(&self) -> Timestamp {
        let second = self.random();
        Timestamp::from_second(1_800_000_000 + i64::from(second)).expect("this century")
    }
    fn monotonic(&self) -> Duration {
        // Backups that are quick: an intent is renewed for its chunks alone.
        Duration::ZERO
    }
    fn random(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

fn main_cluster() -> ClusterName {
    "main".parse().expect("a name")
}

/// A backup of chunks with these numbers.
async fn backup(repository: &Repository, numbers: std::ops::Range<u32>) {
    let spec = BackupSpec {
        kind: BackupKind::Snapshot,
        cluster: main_cluster(),
        database: "shop".to_owned(),
        host: "db1".to_owned(),
    };
    let mut backup = repository.begin_backup(spec).await.expect("it begins");
    let key = backup.access().chunk_key.clone();
    let chunk = |number: u32| {
        let bytes = format!("content {number}").into_bytes();
        let hash = key.hash(&bytes);
        Ok(PlainChunk { bytes, hash })
    };
    let chunks = stream::iter(numbers.map(chunk));
    let written = backup.write_part(PartKind::Archive, "archive", chunks, &Silent).await;
    written.expect("it is written");
    backup.commit(description()).await.expect("it is committed");
}

/// What a prune asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Calls {
    puts: usize,
    gets: usize,
    lists: usize,
    deletes_of_chunks: usize,
    other_deletes: usize,
}

/// Of the prune that removes one backup and the so many chunks that only it has, of a repository that keeps another one.
async fn calls_to_remove(chunks: u32) -> Calls {
    let keys = plaintext_keys();
    let (memory, ambient) = (Arc::new(MemoryStore::new()), Arc::new(World::default()));
    let chunking = ChunkParams::default();
    let made = Repository::create(
        memory.clone(),
        keys.clone(),
        chunking,
        Workers::Inline,
        ambient.clone(),
    );
    let made = made.await.expect("it is made").0;
    backup(&made, 0..chunks + 500).await;
    backup(&made, chunks..chunks + 500).await;
    let counting = Arc::new(FaultyStore::new(memory, |_| Fault::None));
    let opened = Repository::open(counting.clone(), keys, Workers::Inline, ambient).await;
    let policy = RetentionPolicy { keep_last: 1, ..RetentionPolicy::nothing() };
    let options = PruneOptions {
        policies: [(main_cluster(), policy)].into(),
        database: None,
        grace: Duration::ZERO,
        clock: None,
        note: Path::new("/nowhere"),
        dry_run: false,
        by: Actor::default(),
        run: None,
    };
    let report = run(&opened.expect("it opens"), options, &Silent).await.expect("it prunes");
    assert_eq!((report.swept.backups.len(), report.swept.chunks), (1, u64::from(chunks)));
    let calls = counting.calls();
    let is_chunk = |key: &str| key.starts_with("chunks/");
    let count = |op: Op, of_chunks: bool| {
        let fits = |key: &str| of_chunks == (op == Op::Delete && is_chunk(key));
        calls.iter().filter(|call| call.op == op && fits(&call.key)).count()
    };
    Calls {
        puts: count(Op::Put, false),
        gets: count(Op::Get, false),
        lists: count(Op::List, false),
        deletes_of_chunks: count(Op::Delete, true),
        other_deletes: count(Op::Delete, false),
    }
}

#[tokio::test]
async fn a_thousand_chunks_cost_a_thousand_deletes_and_hardly_anything_else() {
    let some = calls_to_remove(1000).await;
    let stated = include_str!("../../../docs/performance.md");
    let Calls { puts, gets, lists, deletes_of_chunks: _, other_deletes } = some;
    let words = format!("DELETE 1,000 + {other_deletes}, LIST {lists}, GET {gets}, PUT {puts}");
    assert!(stated.contains(&words), "docs/performance.md does not say: {words}");
    // Its intent was renewed for every 512 new chunks, of which it had 500 more.
    for (chunks, renewals) in [(1000, 2), (10, 0), (2000, 4), (3000, 6)] {
        let deletes = Calls {
            deletes_of_chunks: chunks as usize,
            other_deletes: other_deletes - 2 + renewals,
            ..some
        };
        let calls = calls_to_remove(chunks).await;
        // A few chunks have few first digits, by which they are looked for.
        assert!(calls.lists <= lists, "{chunks}: {calls:?}");
        assert_eq!(Calls { lists, ..calls }, deletes, "{chunks}");
    }
}
