//! Named places where a test kills the process, to prove what a crash there leaves.
//!
//! Floor 0. In builds with debug assertions `PGKEEP_FAILPOINT=<name>` makes the process end itself with
//! SIGKILL at that place; in release builds the calls are empty. The test walks [`ALL`] and fails on a
//! name that is never reached. [`HASTY`] in the name's place ends nothing, and makes waits short.

use std::time::Duration;

/// The environment variable that names the place.
pub const VARIABLE: &str = "PGKEEP_FAILPOINT";

/// In the place of a name: others are waited for as often and as long as a test has time for.
pub const HASTY: &str = "hasty";
/// The longest single wait of a hasty run.
const HASTY_WAIT: Duration = Duration::from_millis(400);
/// The most attempts of a hasty run.
const HASTY_ATTEMPTS: u32 = 3;

/// Every place, in the order of the story that reaches it.
pub const ALL: &[&str] = &[
    "snapshot.intent-put",
    "snapshot.chunks-put",
    "snapshot.chunks-seen",
    "snapshot.list-put",
    "snapshot.signature-put",
    "snapshot.manifest-put",
    "snapshot.done-put",
    "rotate.next-written",
    "rotate.epoch-put",
    "rotate.configured",
    "rotate.kept-aside",
    "rotate.installed",
    "restore.scratch-created",
    "restore.loaded",
    "restore.checked",
    "restore.before-rename",
    "restore.live-renamed",
    "restore.copy-renamed",
    "restore.swapped",
    "in-place.held",
    "in-place.safe",
    "in-place.cleared",
    "in-place.checked",
    "in-place.committed",
    "migrate.snapshot-taken",
    "migrate.begun",
    "migrate.ended",
    "migrate.looked",
    "prune.broken-put",
    "prune.list-put",
    "prune.waits-put",
    "prune.record-put",
    "prune.manifest-deleted",
    "prune.beside-deleted",
    "prune.chunk-deleted",
    "prune.chunks-deleted",
    "prune.list-deleted",
    "prune.intent-deleted",
];

/// Ends the process here if the environment asks for it.
#[inline]
pub fn hit(name: &'static str) {
    debug_assert!(ALL.contains(&name), "failpoint {name} is not listed");
    #[cfg(debug_assertions)]
    if std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == name) {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        std::thread::park();
    }
}

/// How long to wait at a time; less in a hasty run.
#[inline]
pub fn wait(usual: Duration) -> Duration {
    if is_hasty() { usual.min(HASTY_WAIT) } else { usual }
}

/// How often to begin anew; less often in a hasty run.
#[inline]
pub fn attempts(usual: u32) -> u32 {
    if is_hasty() { usual.min(HASTY_ATTEMPTS) } else { usual }
}

fn is_hasty() -> bool {
    cfg!(debug_assertions) && std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == HASTY)
}
