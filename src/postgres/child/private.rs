//! Files that only a child of ours reads: a passfile, a service file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Where distributions keep the bundle of trusted roots.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/opt/homebrew/etc/openssl@3/cert.pem",
];

/// The system's trusted roots as a file.
pub(super) fn system_roots() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.into_iter().chain(BUNDLES.iter().map(PathBuf::from)).find(|path| path.is_file())
}

/// A file with mode 0600 that is gone when the value is: in memory where possible, so that not even a
/// SIGKILL leaves it on a disk.
pub(super) enum PrivateFile {
    /// Anonymous memory, opened by the child through `/proc`.
    Memory { path: PathBuf, _file: File },
    /// A temporary file.
    Disk(tempfile::NamedTempFile),
}

impl PrivateFile {
    /// A file with that content, for a child with the given ids.
    pub(super) fn new(text: &str, ids: Option<(u32, u32)>) -> io::Result<Self> {
        if ids.is_none()
            && let Some(made) = in_memory(text)
        {
            return Ok(made);
        }
        // `tempfile` makes it 0600 and with a name no one can guess.
        let mut file = tempfile::Builder::new().prefix(".pgkeep-").tempfile()?;
        file.write_all(text.as_bytes())?;
        if let Some((uid, gid)) = ids {
            std::os::unix::fs::chown(file.path(), Some(uid), Some(gid))?;
        }
        Ok(Self::Disk(file))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Memory { path, .. } => path,
            Self::Disk(file) => file.path(),
        }
    }
}

#[cfg(target_os = "linux")]
fn in_memory(text: &str) -> Option<PrivateFile> {
    use rustix::fs::{MemfdFlags, Mode};
    let memory = rustix::fs::memfd_create("pgkeep", MemfdFlags::CLOEXEC).ok()?;
    // libpq passes over a passfile that others could read.
    rustix::fs::fchmod(&memory, Mode::from_raw_mode(0o600)).ok()?;
    let mut file = File::from(memory);
    file.write_all(text.as_bytes()).ok()?;
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    // Closed to the child where this process is marked as not dumpable, or /proc is missing.
    let own = rustix::process::geteuid().as_raw();
    let reachable = std::fs::symlink_metadata(&path)
        .is_ok_and(|link| std::os::unix::fs::MetadataExt::uid(&link) == own);
    (reachable && std::fs::read(&path).is_ok()).then_some(PrivateFile::Memory { path, _file: file })
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_text: &str) -> Option<PrivateFile> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_file_is_read_back_by_its_path_and_closed_to_others() {
        for made in [
            PrivateFile::new("a:b", None).unwrap(),
            PrivateFile::new("a:b", Some((0, 0)))
                .unwrap_or_else(|_| PrivateFile::new("a:b", None).unwrap()),
        ] {
            let path = made.path().to_path_buf();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "a:b");
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            drop(made);
            assert!(!path.exists());
        }
    }
}
