//! `restore --output`: the archive itself, as it was stored or as SQL, into a file or a pipe.
//!
//! No server is needed and nothing is loaded: every chunk is proved by its hash on the way, as in every
//! fetch. A file is written under another name beside its place and takes its own only when it is whole; it
//! is for its owner alone and replaces nothing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::RestoreError;
use crate::domain::archive::{ArchiveReader, NoSink};
use crate::domain::id::BackupId;
use crate::domain::observer::Observer;
use crate::ops::copy::{ARCHIVE, OpenedBackup, dump_major};
use crate::postgres::child::{Child, ChildSpec};
use crate::postgres::programs::Programs;
use crate::proof::ProofError;
use crate::proof::selection::Only;
use crate::repo::Repository;
use crate::repo::catalog::Entry;

const QUEUE: usize = 4;

/// What comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// The archive of `pg_dump --format=custom`, byte for byte.
    Custom,
    /// What `pg_restore -f -` makes of it.
    Sql,
}

/// Where it goes.
pub enum Output {
    /// A new file.
    File(PathBuf),
    /// A pipe that the caller holds, such as stdout.
    Pipe(Box<dyn Write + Send>),
}

/// What was written.
#[derive(Debug, Clone)]
pub struct ExportReport {
    /// The backup.
    pub id: BackupId,
    /// The database it was taken from.
    pub database: String,
    /// Bytes written.
    pub written_bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
}

/// What is written, and how.
#[derive(Debug, Clone)]
pub struct Form {
    /// As what.
    pub format: ExportFormat,
    /// This alone, with what it needs; as SQL only.
    pub only: Option<Only>,
}

/// Writes the archive of `entry` to `output`.
pub async fn export(
    repository: &Repository,
    entry: &Entry,
    form: &Form,
    output: Output,
    bin_dir: Option<&Path>,
    observer: &dyn Observer,
    cancel: &CancellationToken,
) -> Result<ExportReport, RestoreError> {
    let begun = repository.ambient().monotonic();
    let target = Target::open(output)?;
    let backup = OpenedBackup::open(repository, entry).await?;
    let written_bytes = match form.format {
        ExportFormat::Custom => write_custom(&backup, target, observer, cancel).await?,
        ExportFormat::Sql => {
            let major = dump_major(&entry.manifest.versions.pg_dump).unwrap_or_default();
            let major = major.max(backup.inventory.major());
            let pg_restore = Programs::find(major, bin_dir)?.program("pg_restore")?;
            let list = match &form.only {
                Some(only) => Some(list(&backup, only, observer, cancel).await?),
                None => None,
            };
            let list = list.as_ref().map(tempfile::NamedTempFile::path);
            write_sql(&backup, &pg_restore, list, target, observer, cancel).await?
        }
    };
    let spent = repository.ambient().monotonic().saturating_sub(begun);
    Ok(ExportReport {
        id: entry.manifest.id.clone(),
        database: entry.manifest.database.clone(),
        written_bytes,
        duration_ms: super::milliseconds(spent),
    })
}

/// Where bytes go, and under which name for messages.
enum Target {
    File { place: PathBuf, file: tempfile::NamedTempFile },
    Pipe(Box<dyn Write + Send>),
}

impl Target {
    fn open(output: Output) -> Result<Self, RestoreError> {
        let place = match output {
            Output::Pipe(pipe) => return Ok(Self::Pipe(pipe)),
            Output::File(place) => place,
        };
        // Known early and kept at the end: another may take the name meanwhile.
        if place.symlink_metadata().is_ok() {
            return Err(RestoreError::OutputExists(place));
        }
        let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
        let file = tempfile::Builder::new()
            .prefix(".pgkeep-output-")
            .tempfile_in(parent.unwrap_or(Path::new(".")))
            .map_err(|source| RestoreError::Output { path: place.clone(), source })?;
        Ok(Self::File { place, file })
    }

    fn name(&self) -> PathBuf {
        match self {
            Self::File { place, .. } => place.clone(),
            Self::Pipe(_) => PathBuf::from("stdout"),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.as_file_mut().write_all(bytes),
            Self::Pipe(pipe) => pipe.write_all(bytes),
        }
    }

    /// All was written: the file takes its name.
    fn finish(self) -> Result<(), RestoreError> {
        let path = self.name();
        match self {
            Self::Pipe(mut pipe) => {
                pipe.flush().map_err(|source| RestoreError::Output { path, source })
            }
            Self::File { place, file } => {
                file.as_file()
                    .sync_all()
                    .map_err(|source| RestoreError::Output { path, source })?;
                match file.persist_noclobber(&place) {
                    Ok(_) => sync_parent(&place)
                        .map_err(|source| RestoreError::Output { path: place, source }),
                    Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                        Err(RestoreError::OutputExists(place))
                    }
                    Err(error) => Err(RestoreError::Output { path: place, source: error.error }),
                }
            }
        }
    }
}

/// The name must survive a crash as the content does, before anybody is told that the file is there.
fn sync_parent(place: &Path) -> io::Result<()> {
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

async fn write_custom(
    backup: &OpenedBackup<'_>,
    mut target: Target,
    observer: &dyn Observer,
    cancel: &CancellationToken,
) -> Result<u64, RestoreError> {
    observer.step("fetching", backup.entry.manifest.id.as_str());
    let (chunks, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
    let writing = tokio::task::spawn_blocking(move || {
        let mut written = 0;
        while let Some(chunk) = queue.blocking_recv() {
            let path = target.name();
            target.write(&chunk).map_err(|source| RestoreError::Output { path, source })?;
            written += chunk.len() as u64;
        }
        Ok((target, written))
    });
    let fetched = backup
        .fetch(ARCHIVE, observer, cancel, async |chunk| chunks.send(chunk).await.is_ok())
        .await;
    drop(chunks);
    let written: Result<_, RestoreError> = writing.await.expect("writing does not panic");
    fetched?;
    let (target, written) = written?;
    finish(target).await?;
    Ok(written)
}

/// The list for `pg_restore`, from the archive's head.
async fn list(
    backup: &OpenedBackup<'_>,
    only: &Only,
    observer: &dyn Observer,
    cancel: &CancellationToken,
) -> Result<tempfile::NamedTempFile, RestoreError> {
    let mut reader = ArchiveReader::new(NoSink);
    let mut pushed = Ok(());
    backup
        .fetch(ARCHIVE, observer, cancel, async |chunk| {
            pushed = reader.push(&chunk);
            pushed.is_ok() && reader.head().is_none()
        })
        .await?;
    pushed.map_err(ProofError::from)?;
    let Some((toc, _)) = reader.head() else {
        return Err(reader.complete().err().map_or(ProofError::Stopped, ProofError::from).into());
    };
    if let Some(absent) = only.absent(toc) {
        return Err(ProofError::Absent(absent).into());
    }
    let text = only.use_list(toc);
    let written = || -> io::Result<_> {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    written().map_err(|source| RestoreError::Output { path: std::env::temp_dir(), source })
}

async fn write_sql(
    backup: &OpenedBackup<'_>,
    pg_restore: &Path,
    list: Option<&Path>,
    mut target: Target,
    observer: &dyn Observer,
    cancel: &CancellationToken,
) -> Result<u64, RestoreError> {
    observer.step("fetching", backup.entry.manifest.id.as_str());
    let mut spec = ChildSpec::new(pg_restore).args(["-f", "-"]).piped_stdin().piped_stdout();
    if let Some(list) = list {
        spec = spec.arg("--use-list").arg(list);
    }
    let mut child = Child::spawn(spec)?;
    let mut script = child.take_stdout().expect("it was asked for");
    let mut feed = child.take_stdin().expect("it was asked for");
    let (chunks, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
    let feeding = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = queue.blocking_recv() {
            // It went away: its exit code says why.
            if feed.write_all(&chunk).is_err() {
                return;
            }
        }
    });
    let writing = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; 1 << 20];
        let mut written = 0;
        loop {
            let output = |source| RestoreError::Output { path: target.name(), source };
            let read = match io::Read::read(&mut script, &mut buffer) {
                Ok(0) => return Ok((target, written)),
                Ok(read) => read,
                Err(error) => return Err(output(error)),
            };
            let path = target.name();
            target
                .write(&buffer[..read])
                .map_err(|source| RestoreError::Output { path, source })?;
            written += read as u64;
        }
    });
    let fetched = backup
        .fetch(ARCHIVE, observer, cancel, async |chunk| chunks.send(chunk).await.is_ok())
        .await;
    drop(chunks);
    if let Err(error) = fetched {
        // What it wrote so far goes with the unnamed file; a pipe's reader sees a failed command.
        child.stop().await?;
        return Err(error.into());
    }
    let written: Result<_, RestoreError> = tokio::select! {
        () = cancel.cancelled() => return Err(RestoreError::Interrupted),
        written = writing => written.expect("writing does not panic"),
    };
    feeding.await.expect("feeding does not panic");
    let (target, written) = written?;
    child.wait().await?;
    finish(target).await?;
    Ok(written)
}

async fn finish(target: Target) -> Result<(), RestoreError> {
    let finishing = tokio::task::spawn_blocking(move || target.finish());
    finishing.await.expect("finishing does not panic")
}
