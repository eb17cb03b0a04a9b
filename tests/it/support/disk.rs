//! Small file systems that a test fills or makes read-only.
//!
//! They are mounted in a mount namespace of the story's own, which is a process of its own, so whatever becomes
//! of it, nothing stays mounted. Root may do that at once; any other user needs a user namespace around it.

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::eventually;

const INSIDE: &str = "TEST_WITH_OWN_MOUNTS";
const WAYS: [&[&str]; 2] = [&["--mount"], &["--mount", "--map-current-user", "--keep-caps"]];
const REFUSED: &str = "this test mounts a small file system of its own, and this machine does not let it: run the \
                       tests as root, or allow user namespaces (`unshare --mount --map-current-user true`)";

/// Runs the story of the test of that name (`module::test`) where it may mount.
#[track_caller]
pub(crate) fn with_own_mounts(test: &str, story: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some_and(|name| name == test) {
        return story();
    }
    let works = |way: &&&[&str]| {
        let tried = Command::new("unshare").args(**way).arg("true").output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let way = WAYS.iter().find(works).unwrap_or_else(|| panic!("{REFUSED}"));
    let output = Command::new("unshare")
        .args(*way)
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, test)
        .output()
        .expect("unshare runs");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // A name that fits no test would pass without a test.
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{stderr}");
}

/// A file system in memory, mounted until it is dropped.
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one of that size at `path`, which is made where it is not there.
    #[track_caller]
    pub(crate) fn mount(path: &Path, mebibytes: u64) -> Self {
        std::fs::create_dir_all(path).expect("a directory");
        let options = CString::new(format!("size={mebibytes}m,mode=0755")).expect("plain");
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str())
            .unwrap_or_else(|error| panic!("{REFUSED}: {error}"));
        Self { path: path.to_owned() }
    }

    fn ballast(&self) -> PathBuf {
        self.path.join(".ballast")
    }

    /// Takes all room but so much.
    pub(crate) fn leave(&self, kibibytes: u64) {
        self.free();
        let file = File::create(self.ballast()).expect("a file");
        let stat = statvfs(&self.path).expect("a file system");
        let taken = (stat.f_bavail * stat.f_frsize).saturating_sub(kibibytes << 10);
        fallocate(&file, FallocateFlags::empty(), 0, taken).expect("there is so much room");
    }

    /// Gives the room back.
    pub(crate) fn free(&self) {
        drop(std::fs::remove_file(self.ballast()));
    }

    /// Remounts it, as soon as nobody writes a file.
    #[track_caller]
    pub(crate) fn remount(&self, flags: MountFlags) {
        eventually("it can be remounted", Duration::from_secs(10), || {
            mount_remount(&self.path, flags, c"").is_ok()
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while something in it is still open.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
