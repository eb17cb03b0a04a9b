//! What the repository's own tests share: keys, a simulated world, a way to run a future to its end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::StreamExt as _;
use jiff::Timestamp;

use super::backup::{BackupSpec, Description};
use super::{Keys, RepoError, Repository};
use crate::codec::hash::ChunkKey;
use crate::codec::seal::{Opener, Sealer};
use crate::codec::sign::SigningKey;
use crate::codec::writer_key::WriterKey;
use crate::domain::ambient::Ambient;
use crate::domain::id::EpochId;
use crate::domain::manifest::{BackupKind, Manifest, Trigger, Versions};

/// Plaintext keys: the protocol is the same, and a history costs no encryption.
pub(crate) fn plaintext_keys() -> Keys {
    Keys {
        writer: Some(WriterKey {
            epoch: EpochId::new(1),
            chunk_key: ChunkKey::from_bytes([1; 32]),
            signing: SigningKey::generate(&[2; SigningKey::BYTES]),
        }),
        recipients: Vec::new(),
        sealer: Some(Sealer::insecure_plaintext(1)),
        opener: Some(Opener::insecure_plaintext()),
        trusted: Vec::new(),
        insecure_plaintext: true,
    }
}

/// A world whose clocks move only when told, and whose dice count.
#[derive(Debug, Default)]
pub(super) struct Still {
    pub(super) seconds: AtomicU64,
    pub(super) drawn: AtomicU32,
    /// Mutant: every draw gives the same number, so that names are used more than once.
    pub(super) loaded_dice: bool,
}

impl Still {
    pub(super) fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Ambient for Still {
    fn now(&self) -> Timestamp {
        // Each look is a new second, so that ids differ even with loaded dice.
        let seconds = self.seconds.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap()
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.seconds.load(Ordering::Relaxed))
    }
    fn random(&self) -> u32 {
        if self.loaded_dice { 7 } else { self.drawn.fetch_add(1, Ordering::Relaxed) }
    }
    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// A snapshot of `shop` on cluster `main`.
pub(super) fn spec() -> BackupSpec {
    BackupSpec {
        kind: BackupKind::Snapshot,
        cluster: "main".parse().expect("a name"),
        database: "shop".to_owned(),
        host: "sim".to_owned(),
    }
}

/// What a manifest says of a database of which nothing is known.
pub(crate) fn description() -> Description {
    Description {
        trigger: Trigger::Manual,
        labels: BTreeMap::new(),
        versions: Versions {
            server_version_num: 150_000,
            server_version: "15.0".to_owned(),
            pg_dump: String::new(),
            pgkeep: String::new(),
        },
        system_identifier: None,
        timeline: None,
        lsn: None,
        excluded_table_data: Vec::new(),
        rows: Vec::new(),
        inventory: b"{}".to_vec(),
        pinned: false,
        run: None,
    }
}

/// The bytes of one part of a backup.
pub(super) async fn restored(
    repository: &Repository,
    manifest: &Manifest,
    part: &str,
) -> Result<Vec<u8>, RepoError> {
    let access = repository.read_access(manifest).await?;
    let list = repository.chunk_list(manifest).await?;
    let chunks: Vec<_> = repository.read_part(manifest, &list, part, &access).collect().await;
    Ok(chunks.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}
