//! The files of the project that a command works on, below the directory it is started in.

use std::path::{Path, PathBuf};

use crate::codec::digest;
use crate::domain::migration::{Digest, ProjectFiles};

/// A file that is larger is no migration and no configuration.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// A directory, and the variables of this process, which the command inherits.
#[derive(Debug)]
pub(super) struct Project {
    root: PathBuf,
}

impl Project {
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let path = self.root.join(path);
        let small =
            path.metadata().is_ok_and(|known| known.is_file() && known.len() <= FILE_MAX_BYTES);
        small.then(|| std::fs::read(path).ok()).flatten()
    }
}

impl ProjectFiles for Project {
    fn entries(&self, directory: &Path) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.root.join(directory)).ok()? {
            let entry = entry.ok()?;
            // A name that is no text is no tool's.
            let Ok(mut name) = entry.file_name().into_string() else { continue };
            if entry.path().is_dir() {
                name.push('/');
            }
            names.push(name);
        }
        names.sort();
        Some(names)
    }

    fn text(&self, path: &Path) -> Option<String> {
        String::from_utf8(self.bytes(path)?).ok()
    }

    fn digest(&self, path: &Path, kind: Digest) -> Option<String> {
        Some(match kind {
            Digest::Sha256 => digest::sha256(&self.bytes(path)?),
            Digest::Sha384 => digest::sha384(&self.bytes(path)?),
            Digest::LinesCrc32 => digest::lines_crc32(&self.text(path)?),
        })
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_told_from_files_and_what_cannot_be_read_is_none() {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("sub")).expect("a directory");
        std::fs::write(root.path().join("a.sql"), "abc").expect("a file");
        let project = Project::at(root.path());
        assert_eq!(
            project.entries(Path::new("")),
            Some(vec!["a.sql".to_owned(), "sub/".to_owned()])
        );
        assert_eq!(project.entries(Path::new("absent")), None);
        assert_eq!(project.text(Path::new("sub")), None);
        let hash = project.digest(Path::new("a.sql"), Digest::Sha256).expect("a hash");
        assert!(hash.starts_with("ba7816bf"), "{hash}");
    }
}
