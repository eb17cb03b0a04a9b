//! What the repository's own tests share: keys, a simulated world, a way to run a future to its end.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::Keys;
use crate::codec::hash::ChunkKey;
use crate::codec::seal::{Opener, Sealer};
use crate::codec::sign::SigningKey;
use crate::codec::writer_key::WriterKey;
use crate::domain::ambient::Ambient;
use crate::domain::id::EpochId;

/// Plaintext keys: the protocol is the same, and a history costs no encryption.
pub(super) fn plaintext_keys() -> Keys {
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
