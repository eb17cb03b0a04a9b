//! An archive in a local file, as `pg_restore -j` needs it.
//!
//! [`SpoolWriter`] reads what it writes: at the end it knows that the archive is whole, what it holds, and
//! where each data block lies, and writes those places into the file's table of contents, so that the workers
//! of a parallel restore seek instead of reading the whole file each. A crash leaves a file in the caller's
//! scratch directory, which goes with it.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::ProofError;
use crate::domain::archive::{ArchiveReader, ArchiveSummary, Patch, RowCounter};

/// How much is read at a time.
pub(super) const READ_BYTES: usize = 1 << 20;

/// A whole archive in a file, its offsets set.
#[derive(Debug, Clone)]
pub struct SpooledArchive {
    /// Where it lies.
    pub path: PathBuf,
    /// What it holds.
    pub summary: ArchiveSummary,
}

impl SpooledArchive {
    /// Reads an archive that lies in a file already, and sets its offsets.
    pub fn open(path: &Path) -> Result<Self, ProofError> {
        let failed = |source| ProofError::Spool { path: path.to_path_buf(), source };
        let file = File::options().read(true).write(true).open(path).map_err(failed)?;
        let mut reader = ArchiveReader::counting();
        read_through(&mut BufReader::with_capacity(READ_BYTES, &file), path, |bytes| {
            Ok(reader.push(bytes)?)
        })?;
        let summary = reader.finish()?;
        set_offsets(&file, &summary.offset_patches()).map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), summary })
    }
}

/// Gives all bytes of `input` to `take`, a buffer at a time.
pub(super) fn read_through(
    input: &mut BufReader<impl Read>,
    path: &Path,
    mut take: impl FnMut(&[u8]) -> Result<(), ProofError>,
) -> Result<(), ProofError> {
    loop {
        let bytes = io::BufRead::fill_buf(input)
            .map_err(|source| ProofError::Spool { path: path.to_path_buf(), source })?;
        if bytes.is_empty() {
            return Ok(());
        }
        take(bytes)?;
        let taken = bytes.len();
        io::BufRead::consume(input, taken);
    }
}

fn set_offsets(file: &File, patches: &[Patch]) -> io::Result<()> {
    patches.iter().try_for_each(|patch| file.write_all_at(&patch.bytes, patch.position))
}

/// Writes an archive into a new file, reading it as it goes by.
#[derive(Debug)]
pub struct SpoolWriter {
    path: PathBuf,
    file: File,
    reader: ArchiveReader<RowCounter>,
}

impl SpoolWriter {
    /// Creates `path`, which must not exist, for the owner alone.
    pub fn create(path: &Path) -> Result<Self, ProofError> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| ProofError::Spool { path: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), file, reader: ArchiveReader::counting() })
    }

    /// The next bytes of the archive.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ProofError> {
        self.reader.push(bytes)?;
        self.file
            .write_all(bytes)
            .map_err(|source| ProofError::Spool { path: self.path.clone(), source })
    }

    /// The archive has ended: it is whole, or this is an error.
    pub fn finish(self) -> Result<SpooledArchive, ProofError> {
        let summary = self.reader.finish()?;
        set_offsets(&self.file, &summary.offset_patches())
            .map_err(|source| ProofError::Spool { path: self.path.clone(), source })?;
        Ok(SpooledArchive { path: self.path, summary })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::archive::ArchiveError;

    const ARCHIVE: &[u8] = include_bytes!("../../tests/fixtures/archives/odd-1.16.dump");

    #[test]
    fn a_spooled_archive_has_its_offsets_set_and_reads_as_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("archive");
        let mut writer = SpoolWriter::create(&path).expect("a new file");
        for bytes in ARCHIVE.chunks(777) {
            writer.write(bytes).expect("it is written");
        }
        let spooled = writer.finish().expect("it is whole");
        let written = std::fs::read(&path).expect("it is there");
        assert_eq!(written.len(), ARCHIVE.len());
        assert_ne!(written, ARCHIVE);
        let again = SpooledArchive::open(&path).expect("it is whole");
        assert_eq!(again.summary, spooled.summary);
        assert_eq!(std::fs::read(&path).expect("it is there"), written);
        assert!(SpoolWriter::create(&path).is_err(), "a name is used once");
    }

    #[test]
    fn an_archive_cut_short_is_not_spooled() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut writer = SpoolWriter::create(&directory.path().join("archive")).expect("a file");
        writer.write(&ARCHIVE[..ARCHIVE.len() - 1]).expect("so far so good");
        let error = writer.finish().expect_err("it is not whole");
        assert!(matches!(error, ProofError::Archive(ArchiveError::Incomplete { .. })), "{error}");
    }
}
