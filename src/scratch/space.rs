//! Whether a directory has room, asked before anything is made.

use std::path::Path;

use super::ScratchError;

/// Bytes that stay free beside what is asked for, so that the neighbours on that disk keep working.
const RESERVE_BYTES: u64 = 64 << 20;

/// What a directory's file system has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes an unprivileged process may still write.
    pub free_bytes: u64,
    /// Whether it lives in memory.
    pub memory: bool,
}

/// Looks at the file system that holds `path`.
pub fn of(path: &Path) -> Result<Space, ScratchError> {
    let errno = |source: rustix::io::Errno| {
        ScratchError::io("cannot see the free space of", path)(source.into())
    };
    let stat = rustix::fs::statvfs(path).map_err(errno)?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if !in_memory(path)? {
        return Ok(Space { free_bytes, memory: false });
    }
    // A tmpfs promises a size, not the memory for it: the lesser of both is what it can hold.
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = available_memory(&meminfo).unwrap_or(free_bytes);
    Ok(Space { free_bytes: free_bytes.min(memory / 2), memory: true })
}

/// Refuses `path` when it cannot take `needed_bytes`.
pub fn require(path: &Path, needed_bytes: u64) -> Result<(), ScratchError> {
    let space = of(path)?;
    // What is asked for is told with the reserve, or the message would contradict itself.
    let needed_bytes = needed_bytes.saturating_add(RESERVE_BYTES);
    if space.free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(ScratchError::Space {
        path: path.to_owned(),
        memory: space.memory,
        free_bytes: space.free_bytes,
        needed_bytes,
    })
}

/// What a restored copy of an archive takes, at a guess: rows in pages with their headers, and indexes.
///
/// `measured_bytes` is the source database's size where it was recorded; bloat makes it an upper bound
/// in most cases, and it is trusted up to eight times the archive.
pub fn restored_bytes(archive_bytes: u64, measured_bytes: Option<u64>) -> u64 {
    const FRESH_CLUSTER_BYTES: u64 = 128 << 20;
    let guess = archive_bytes.saturating_mul(2);
    let data = measured_bytes.map_or(guess, |measured| {
        measured.clamp(archive_bytes / 2, archive_bytes.saturating_mul(8))
    });
    data.saturating_add(FRESH_CLUSTER_BYTES)
}

#[cfg(target_os = "linux")]
fn in_memory(path: &Path) -> Result<bool, ScratchError> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    let stat = rustix::fs::statfs(path)
        .map_err(|source| ScratchError::io("cannot look at", path)(source.into()))?;
    // Its type differs between processors.
    #[allow(clippy::useless_conversion)]
    let kind = i64::try_from(stat.f_type).unwrap_or_default();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_path: &Path) -> Result<bool, ScratchError> {
    Ok(false)
}

fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// The machine's memory, for sizing a server modestly; 1 GiB where it cannot be told.
pub fn machine_memory() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available_memory(&meminfo).unwrap_or(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::{Failure as _, FailureKind};

    #[test]
    fn what_cannot_fit_is_refused_by_name_and_size() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(require(directory.path(), 0).is_ok());
        let error = require(directory.path(), u64::MAX / 2).expect_err("too much");
        assert_eq!(error.kind(), FailureKind::Postgres);
        assert!(error.to_string().contains("are needed"), "{error}");
        // What is told as needed is what was compared, the reserve included.
        let told = matches!(error, ScratchError::Space { needed_bytes, .. }
            if needed_bytes == u64::MAX / 2 + RESERVE_BYTES);
        assert!(told, "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("scratch_dir")));
    }

    #[test]
    fn the_available_memory_is_read_from_the_kernels_words() {
        let text = "MemTotal:       24 kB\nMemAvailable:    3 kB\n";
        assert_eq!(available_memory(text), Some(3 << 10));
        assert_eq!(available_memory(""), None);
    }

    #[test]
    fn a_bloated_source_does_not_make_the_guess_absurd() {
        assert_eq!(restored_bytes(100, None), 200 + (128 << 20));
        assert_eq!(restored_bytes(100, Some(300)), 300 + (128 << 20));
        assert_eq!(restored_bytes(100, Some(1 << 50)), 800 + (128 << 20));
    }
}
