//! Where connection strings are completed from in earnest: this process's variables and files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::domain::connection::{ConnectionSources, SourceFile};

/// Files larger than this are no service file and no passfile.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The environment of this process, and the files of this host.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemSources;

impl ConnectionSources for SystemSources {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &Path) -> Option<SourceFile> {
        let metadata = fs::metadata(path).ok()?;
        // A pipe would block, as in libpq, which takes regular files only.
        if !metadata.is_file() || metadata.size() > FILE_LIMIT_BYTES {
            return None;
        }
        let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
        Some(SourceFile { text, mode: metadata.permissions().mode() & 0o7777 })
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn home(&self) -> Option<PathBuf> {
        std::env::home_dir().filter(|home| home.is_absolute())
    }

    fn user_name(&self) -> Option<String> {
        let own = rustix::process::geteuid().as_raw().to_string();
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let named = accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, _, id) = (fields.next()?, fields.next(), fields.next()?);
            (id == own).then(|| name.to_owned())
        });
        // Accounts from a directory service are in no file.
        named.or_else(|| ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_none_and_a_present_one_tells_its_mode() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "x").unwrap();
        let read = SystemSources.file(file.path()).unwrap();
        assert_eq!((read.text.as_str(), read.mode), ("x", 0o600));
        assert!(SystemSources.file(Path::new("/nowhere/at/all")).is_none());
        assert!(SystemSources.file(Path::new("/dev/null")).is_none());
        assert!(SystemSources.user_name().is_some());
    }
}
