//! What every story uses: servers, a keeper that runs the built program, and patience with a limit.

use std::time::{Duration, Instant};

pub(crate) mod app;
pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod http;
pub(crate) mod keeper;
pub(crate) mod pooler;
pub(crate) mod prisma;
pub(crate) mod s3_proxy;
pub(crate) mod s3_server;
pub(crate) mod server;
pub(crate) mod wire;

pub(crate) use app::App;
pub(crate) use clock::Clock;
pub(crate) use disk::{Disk, with_own_mounts};
pub(crate) use keeper::Keeper;
pub(crate) use pooler::Pooler;
pub(crate) use prisma::Prisma;
pub(crate) use server::{Cluster, Database, Server};
pub(crate) use wire::{Fate, Wire};

/// Polls until the condition holds; a limit that passes is a failure with that name.
#[track_caller]
pub(crate) fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The seed of a random test: `TEST_SEED`, else by chance; printed, so that a failure can be repeated.
#[expect(clippy::print_stdout, reason = "a failing test shows it")]
pub(crate) fn seed(test: &str) -> u64 {
    let seed = std::env::var("TEST_SEED").map_or_else(
        |_| getrandom::u64().expect("the system gives random numbers"),
        |text| text.parse().expect("TEST_SEED is a number"),
    );
    println!("{test}: TEST_SEED={seed}");
    seed
}

/// A small generator for tests (splitmix64): repeatable from its seed, good enough to scatter bytes.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("a length");
        usize::try_from(self.next() % limit).expect("below a length")
    }
}
