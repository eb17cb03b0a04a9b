//! How far a check of stored bytes came: a small file on this host, so that a run that was cut short goes on.
//!
//! It is not kept in the repository: whoever checks may be allowed to read only, and what he read proves nothing
//! to others. The file is replaced as a whole, so a crash leaves the old one or the new one; one that cannot be
//! read counts as none.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::edit::replace_file;
use crate::domain::chunk::ChunkName;
use crate::domain::id::{BackupId, EpochId};
use crate::repo::damage::ChunkAddress;

const FORMAT: u32 = 1;

/// A chunk that was found damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Damaged {
    pub(super) epoch: EpochId,
    #[serde(with = "name")]
    pub(super) name: ChunkName,
    pub(super) reason: String,
}

/// The work done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    repository: String,
    choice: String,
    /// The backups that were there when it began.
    pub(super) backups: BTreeSet<BackupId>,
    /// Everything up to this one was read.
    pub(super) behind: Option<ChunkAddress>,
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    pub(super) damaged: Vec<Damaged>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    repository: String,
    choice: String,
    backups: BTreeSet<BackupId>,
    epoch: Option<EpochId>,
    chunk: Option<String>,
    chunks: u64,
    bytes: u64,
    damaged: Vec<Damaged>,
}

impl Progress {
    pub(super) fn new(repository: &str, choice: String, backups: BTreeSet<BackupId>) -> Self {
        Self {
            repository: repository.to_owned(),
            choice,
            backups,
            behind: None,
            chunks: 0,
            bytes: 0,
            damaged: Vec::new(),
        }
    }

    /// Whether it is about the same backups of the same repository.
    pub(super) fn fits(&self, repository: &str, choice: &str) -> bool {
        self.repository == repository && self.choice == choice
    }

    pub(super) fn load(path: &Path) -> Option<Self> {
        let text = std::fs::read(path).ok()?;
        let read: Document = serde_json::from_slice(&text).ok()?;
        let behind = match (read.epoch, read.chunk) {
            (Some(epoch), Some(chunk)) => Some((epoch, chunk.parse().ok()?)),
            _ => None,
        };
        (read.format == FORMAT).then_some(Self {
            repository: read.repository,
            choice: read.choice,
            backups: read.backups,
            behind,
            chunks: read.chunks,
            bytes: read.bytes,
            damaged: read.damaged,
        })
    }

    /// False where it cannot be written, which costs reading again and nothing else.
    pub(super) fn save(&self, path: &Path) -> bool {
        let (epoch, chunk) = self.behind.clone().unzip();
        let document = Document {
            format: FORMAT,
            repository: self.repository.clone(),
            choice: self.choice.clone(),
            backups: self.backups.clone(),
            epoch,
            chunk: chunk.map(|chunk| chunk.to_string()),
            chunks: self.chunks,
            bytes: self.bytes,
            damaged: self.damaged.clone(),
        };
        let text = serde_json::to_vec(&document).expect("documents have text keys only");
        replace_file(path, &text).is_ok()
    }

    /// The work is done: the next run begins anew.
    pub(super) fn forget(path: &Path) {
        // Were it to stay, the next run would find all its work done, and say so.
        drop(std::fs::remove_file(path));
    }
}

/// A chunk's name as its text.
mod name {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::domain::chunk::ChunkName;

    pub(super) fn serialize<S: Serializer>(name: &ChunkName, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ChunkName, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_done_reads_back_and_another_file_counts_as_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state").join("note.json");
        let epoch = EpochId::new(7);
        let name: ChunkName = format!("{}-00c0ffee", "ab".repeat(32)).parse().expect("a name");
        let id = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        let mut progress = Progress::new("r", "all".to_owned(), BTreeSet::from([id]));
        assert_eq!(Progress::load(&path), None);
        assert!(progress.save(&path));
        assert_eq!(Progress::load(&path).as_ref(), Some(&progress));
        progress.behind = Some((epoch.clone(), name));
        progress.damaged.push(Damaged { epoch, name, reason: "is missing".to_owned() });
        assert!(progress.save(&path));
        let read = Progress::load(&path).expect("noted");
        assert_eq!(read, progress);
        assert!(read.fits("r", "all") && !read.fits("r", "some") && !read.fits("q", "all"));
        std::fs::write(&path, "{\"format\":1,\"repo").expect("a torn file");
        assert_eq!(Progress::load(&path), None);
        Progress::forget(&path);
        assert!(!path.exists());
    }
}
