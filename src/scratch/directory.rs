//! A scratch directory: private, marked, and locked by the process it belongs to.
//!
//! `<scratch_dir>/pgkeep-scratch-<8 hex>/` holds `owner.lock`, which the live process keeps locked for its
//! whole life (the kernel lets go when it dies, in whatever way), and `pgkeep-scratch`, the mark, written
//! last. What else lies in it belongs to its user: an archive's head, a scratch cluster.
//!
//! Crash story: a SIGKILL leaves the directory with its mark and a free lock; [`super::registry`] knows it
//! by both. Between `mkdir` and the mark it leaves a directory that holds at most the lock file; that is
//! known by its name and by holding nothing else. A sweep that removes such a directory under a creator's
//! hands makes the creator begin again.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use super::{ScratchError, postmaster};

/// What every scratch directory's name begins with; 8 hex digits follow.
pub const PREFIX: &str = "pgkeep-scratch-";
const LOCK: &str = "owner.lock";
const MARK: &str = "pgkeep-scratch";
const MARK_TEXT: &str = "pgkeep scratch 1\n";
/// Where a cluster's data lies; a sweep looks there for a server that still runs.
pub(super) const DATA: &str = "data";

/// A scratch directory of this process; removed when dropped.
#[derive(Debug)]
pub struct ScratchDirectory {
    path: PathBuf,
    /// Held for the life of the directory. Opened close-on-exec, so that no child keeps it.
    _lock: File,
    removed: bool,
}

impl ScratchDirectory {
    /// Makes one below `parent` (itself made where it is missing), named by `tag`, a piece of chance.
    ///
    /// Its mode is 0700, and 0711 as root, so that the server's account can pass to what is its own.
    pub fn create(parent: &Path, tag: u32) -> Result<Self, ScratchError> {
        fs::create_dir_all(parent).map_err(ScratchError::io("cannot create", parent))?;
        let parent = parent.canonicalize().map_err(ScratchError::io("cannot look at", parent))?;
        let mut last = None;
        for attempt in 0..8 {
            let path = parent.join(format!("{PREFIX}{:08x}", tag.wrapping_add(attempt)));
            match Self::try_create(&path) {
                Ok(lock) => return Ok(Self { path, _lock: lock, removed: false }),
                // Taken by another, or swept away before the lock was held: the next name.
                Err(error)
                    if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) =>
                {
                    last = Some((path, error));
                }
                Err(error) => return Err(ScratchError::io("cannot create", &path)(error)),
            }
        }
        let (path, error) = last.expect("the loop ran");
        Err(ScratchError::io("cannot create", &path)(error))
    }

    fn try_create(path: &Path) -> std::io::Result<File> {
        DirBuilder::new().mode(0o700).create(path)?;
        if rustix::process::geteuid().is_root() {
            // Set, and not asked for at creation: there a umask would take from it.
            fs::set_permissions(path, fs::Permissions::from_mode(0o711))?;
        }
        let lock = private().open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            // A sweep has it in its hands.
            Err(TryLockError::WouldBlock) => return Err(ErrorKind::AlreadyExists.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        private().open(path.join(MARK))?.write_all(MARK_TEXT.as_bytes())?;
        Ok(lock)
    }

    /// Where it is, free of symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// As if this process had been killed: the lock is free, nothing is removed.
    #[cfg(test)]
    pub(super) fn abandon(mut self) {
        self.removed = true;
    }

    /// Removes it with all it holds, and says if that did not work.
    pub fn remove(mut self) -> Result<(), ScratchError> {
        self.removed = true;
        remove_tree(&self.path)
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        if !self.removed {
            // What stays has its mark and, from now on, a free lock: the next sweep takes it.
            let _ = remove_tree(&self.path);
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
}

/// Removes a tree; a server on its way out may still add files, so a few rounds are made.
fn remove_tree(path: &Path) -> Result<(), ScratchError> {
    let mut rounds = 0;
    loop {
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if rounds == 20 => {
                return Err(ScratchError::io("cannot remove", path)(error));
            }
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
        rounds += 1;
    }
}

/// Removes the scratch directories below `parent` that no live process owns, and returns their paths.
///
/// Only real directories of this process's own user, named and marked as scratch, whose lock can be had:
/// no other user can plant one, and none that is in use is touched. A server that still runs in one is
/// ended first. What cannot be removed is left for the next run.
pub(super) fn sweep(parent: &Path) -> Result<Vec<PathBuf>, ScratchError> {
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ScratchError::io("cannot list", parent)(error)),
    };
    let mut removed = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_str().is_some_and(is_scratch_name) && sweep_one(&path) {
            removed.push(path);
        }
    }
    Ok(removed)
}

fn is_scratch_name(name: &str) -> bool {
    let digits = name.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn sweep_one(path: &Path) -> bool {
    let me = rustix::process::geteuid().as_raw();
    let ours = |meta: &fs::Metadata| meta.is_dir() && meta.uid() == me;
    if !fs::symlink_metadata(path).is_ok_and(|meta| ours(&meta)) {
        return false;
    }
    let lock = match File::open(path.join(LOCK)) {
        Ok(lock) => lock,
        // A creator died right after `mkdir`; this removes nothing that holds anything.
        Err(error) if error.kind() == ErrorKind::NotFound => return fs::remove_dir(path).is_ok(),
        Err(_) => return false,
    };
    if lock.try_lock().is_err() {
        return false;
    }
    let marked = fs::read_to_string(path.join(MARK)).is_ok_and(|text| text == MARK_TEXT);
    if !marked && !holds_nothing_else(path) {
        return false;
    }
    postmaster::end(&path.join(DATA));
    remove_tree(path).is_ok()
}

/// Whether a directory without a mark was left before anything was put into it.
fn holds_nothing_else(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return false };
    entries.flatten().all(|entry| {
        let empty = entry.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        empty && (entry.file_name() == LOCK || entry.file_name() == MARK)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_goes_with_its_owner() {
        let parent = tempfile::tempdir().expect("a directory");
        let scratch = ScratchDirectory::create(parent.path(), 7).expect("scratch");
        let path = scratch.path().to_owned();
        assert!(path.ends_with("pgkeep-scratch-00000007"));
        fs::write(scratch.join("spool"), b"x").expect("a file");
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_taken_name_is_passed_over() {
        let parent = tempfile::tempdir().expect("a directory");
        let first = ScratchDirectory::create(parent.path(), u32::MAX).expect("scratch");
        let second = ScratchDirectory::create(parent.path(), u32::MAX).expect("scratch");
        assert_ne!(first.path(), second.path());
    }

    #[test]
    fn a_sweep_takes_what_a_dead_owner_left_and_only_that() {
        let parent = tempfile::tempdir().expect("a directory");
        let live = ScratchDirectory::create(parent.path(), 1).expect("scratch");
        let dead = ScratchDirectory::create(parent.path(), 2).expect("scratch");
        let left = dead.path().to_owned();
        fs::write(dead.join("spool"), b"rows").expect("a file");
        dead.abandon();
        let early = parent.path().join("pgkeep-scratch-00000003");
        fs::create_dir(&early).expect("a directory");
        let foreign = parent.path().join("pgkeep-scratch-00000004");
        fs::create_dir(&foreign).expect("a directory");
        fs::write(foreign.join(LOCK), b"").expect("a file");
        fs::write(foreign.join("precious"), b"data").expect("a file");
        let named = parent.path().join("pgkeep-scratch-notes");
        fs::create_dir(&named).expect("a directory");
        std::os::unix::fs::symlink(&foreign, parent.path().join("pgkeep-scratch-00000005"))
            .expect("a link");

        let mut removed = sweep(parent.path()).expect("swept");
        removed.sort();
        assert_eq!(removed, [left, early]);
        assert!(live.path().exists() && foreign.join("precious").exists() && named.exists());
        assert!(sweep(&parent.path().join("missing")).expect("swept").is_empty());
    }
}
