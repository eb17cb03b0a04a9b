//! Time and chance, as arguments: the real ones are made in the wiring, simulated twins in tests.

use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

/// What a run takes from the world around it.
pub trait Ambient: Send + Sync {
    /// The wall clock; for names and records, never for safety.
    fn now(&self) -> Timestamp;
    /// A monotonic clock, from an arbitrary start.
    fn monotonic(&self) -> Duration;
    /// 32 bits that no other process draws.
    fn random(&self) -> u32;
    /// Waits.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}
