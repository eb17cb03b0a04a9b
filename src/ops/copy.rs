//! What `verify` and `restore` share: a backup opened, and its archive fetched while it is loaded.
//!
//! Every chunk is proved before its bytes are handed on (`repo::reader`), and the loader reads what it loads:
//! when it says so, the archive was whole and is the one that the signed manifest means.

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::chunk::ChunkEntry;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::inventory::Inventory;
use crate::domain::observer::{Observer, Severity};
use crate::proof::Incoming;
use crate::repo::catalog::Entry;
use crate::repo::reader::ReadAccess;
use crate::repo::{RepoError, Repository};

/// The part that holds the dump.
pub(super) const ARCHIVE: &str = "archive";
/// Chunks between the store and who takes them; a chunk is at most a few MiB.
const QUEUE: usize = 4;

/// Why a backup could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The sealed inventory is not one.
    #[error("the inventory of {id} cannot be read")]
    Inventory {
        /// The backup.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest names no archive.
    #[error("backup {0} holds no archive")]
    NoArchive(String),
    /// The manifest names no roles.
    #[error("backup {0} holds no roles")]
    NoGlobals(String),
    /// The token was cancelled.
    #[error("interrupted")]
    Interrupted,
}

impl CopyError {
    /// Whether the backup itself is at fault, not this host, its keys or the way to the store.
    pub fn is_damage(&self) -> bool {
        self.kind() == FailureKind::Damage
    }
}

impl Failure for CopyError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Repo(error) => error.kind(),
            Self::Inventory { .. } | Self::NoArchive(_) => FailureKind::Damage,
            Self::NoGlobals(_) => FailureKind::NotFound,
            Self::Interrupted => FailureKind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Repo(error) => error.hint(),
            Self::Inventory { .. } => Some("it may be of a newer pgkeep".to_owned()),
            Self::NoArchive(_) => Some("the manifest is incomplete; use another backup".to_owned()),
            Self::NoGlobals(_) => Some(
                "create the roles by hand, or leave owners and grants out with `--no-owner`"
                    .to_owned(),
            ),
            Self::Interrupted => None,
        }
    }
}

/// A backup with the keys that open it, and what it should hold.
pub(super) struct OpenedBackup<'a> {
    pub(super) repository: &'a Repository,
    pub(super) entry: &'a Entry,
    pub(super) access: ReadAccess,
    pub(super) inventory: Inventory,
    list: Vec<ChunkEntry>,
    archive_bytes: u64,
}

impl<'a> OpenedBackup<'a> {
    /// Unseals the keys and the inventory, and reads the chunk list.
    pub(super) async fn open(
        repository: &'a Repository,
        entry: &'a Entry,
    ) -> Result<Self, CopyError> {
        let manifest = &entry.manifest;
        let (access, list) =
            tokio::join!(repository.read_access(manifest), repository.chunk_list(manifest));
        let access = access?;
        let sealed = repository.sealed_part(manifest)?;
        let inventory = serde_json::from_slice(&sealed)
            .map_err(|source| CopyError::Inventory { id: manifest.id.to_string(), source })?;
        let archive = manifest.part(ARCHIVE);
        let archive_bytes = archive
            .map(|part| part.size_bytes)
            .ok_or_else(|| CopyError::NoArchive(manifest.id.to_string()))?;
        let list = list?;
        Ok(Self { repository, entry, access, inventory, list, archive_bytes })
    }

    /// Plain size of the archive.
    pub(super) const fn archive_bytes(&self) -> u64 {
        self.archive_bytes
    }

    /// A part's bytes, one chunk after the other, given to `take` as they come.
    ///
    /// `take` says whether it goes on: false ends the fetch, and the taker knows why.
    pub(super) async fn fetch(
        &self,
        part: &str,
        observer: &dyn Observer,
        cancel: &CancellationToken,
        mut take: impl AsyncFnMut(Vec<u8>) -> bool,
    ) -> Result<(), CopyError> {
        let manifest = &self.entry.manifest;
        let total = manifest.part(part).map(|part| part.size_bytes);
        let chunks = self.repository.read_part(manifest, &self.list, part, &self.access);
        let mut chunks = std::pin::pin!(chunks);
        let mut done = 0;
        loop {
            let chunk = tokio::select! {
                () = cancel.cancelled() => return Err(CopyError::Interrupted),
                chunk = chunks.next() => chunk,
            };
            let Some(chunk) = chunk.transpose()? else { return Ok(()) };
            done += chunk.len() as u64;
            if !take(chunk).await {
                return Ok(());
            }
            observer.bytes(done, total);
        }
    }

    /// The archive as it comes, and the fetch that feeds it: both are waited for together.
    ///
    /// A fetch that fails ends the archive early, which no loader takes for its end; the fetch's error is the
    /// one to tell. Where the taker goes away, the fetch ends well, and the taker knows why.
    pub(super) fn archive<'b>(
        &'b self,
        observer: &'b dyn Observer,
        cancel: &'b CancellationToken,
    ) -> (Incoming, impl Future<Output = Result<(), CopyError>> + 'b) {
        let (chunks, queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        let fetch = async move {
            self.fetch(ARCHIVE, observer, cancel, async |chunk| chunks.send(chunk).await.is_ok())
                .await
        };
        (Incoming { chunks: queue, bytes: self.archive_bytes }, fetch)
    }

    /// Proves the chunks of the parts beside the archive, which no restore of a database reads; their names
    /// and sizes.
    pub(super) async fn prove_other_parts(
        &self,
        observer: &dyn Observer,
        cancel: &CancellationToken,
    ) -> Result<Vec<(&str, u64)>, CopyError> {
        let mut proved = Vec::new();
        for part in self.entry.manifest.parts.iter().filter(|part| part.name != ARCHIVE) {
            self.fetch(&part.name, observer, cancel, async |_| true).await?;
            proved.push((part.name.as_str(), part.size_bytes));
        }
        Ok(proved)
    }

    /// The key of this epoch's row fingerprints.
    pub(super) fn row_key(&self) -> [u8; 32] {
        self.access.chunk_key.derive("pgkeep row fingerprint v1")
    }
}

/// The major of the `pg_dump` that wrote an archive, from the first line of its `--version`.
pub(super) fn dump_major(version: &str) -> Option<u32> {
    let (_, version) = version.split_once("(PostgreSQL) ")?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Sessions that load and compare a copy: one for each core, within reason.
pub(super) fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().clamp(1, 8))
}

/// Hands everything on, and tells when the load is over: the first step that compares.
pub(super) struct AfterLoad<'a> {
    pub(super) observer: &'a dyn Observer,
    pub(super) loaded: &'a (dyn Fn() + Send + Sync),
}

impl Observer for AfterLoad<'_> {
    fn step(&self, name: &str, subject: &str) {
        if name == "comparing inventories" {
            (self.loaded)();
        }
        self.observer.step(name, subject);
    }
    fn bytes(&self, done: u64, total: Option<u64>) {
        self.observer.bytes(done, total);
    }
    fn finding(&self, severity: Severity, message: &str) {
        self.observer.finding(severity, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_of_a_dump_is_read_from_its_programs_version() {
        assert_eq!(dump_major("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0)"), Some(15));
        assert_eq!(dump_major("pg_dump (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(dump_major("pg_dump"), None);
    }
}
