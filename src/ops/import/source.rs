//! A dump as it lies there: a file, a directory, a stream; what is in it, and what is around it.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::ImportError;
use crate::codec::unpack;
use crate::domain::archive::Preamble;
use crate::domain::dump::script::ScriptFacts;
use crate::domain::dump::{self, Form, HEAD_BYTES, NotADump, Wrapping, major_of};
use crate::scratch::ScratchError;

const BUFFER_BYTES: usize = 1 << 20;
/// `archCustom`. The header of a directory's `toc.dat` says what that of a tar says (`archTar`).
const FORMAT_CUSTOM: u8 = 1;

/// A dump, opened.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Its name, without directories.
    pub(super) name: String,
    /// Where it lies now: where it was, or unpacked in scratch.
    pub(super) path: PathBuf,
    /// What is still around it.
    pub(super) wrapping: Option<Wrapping>,
    pub(super) content: Content,
    /// Of the file that was named.
    pub(super) modified_at: Option<Timestamp>,
    /// Of all its files as they lie.
    pub(super) bytes: u64,
}

/// What a dump is.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Plain,
    Archive(Archive),
}

/// What `pg_restore` reads.
#[derive(Debug, Clone)]
pub(super) struct Archive {
    pub(super) preamble: Preamble,
}

impl Archive {
    /// The newer of the server's and the program's major.
    pub(super) fn majors(&self) -> Option<u32> {
        major_of(&self.preamble.server_version).max(major_of(&self.preamble.dump_version))
    }

    pub(super) fn server_version(&self) -> &str {
        &self.preamble.server_version
    }

    /// By the clock of the host that dumped, whose zone it does not tell.
    pub(super) fn created(&self) -> String {
        let [second, minute, hour, day, month, year] = self.preamble.created;
        let (year, month) = (year + 1900, month + 1);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

impl Source {
    /// What it may take once it is loaded, as rows in a plain text.
    pub(super) fn plain_bytes(&self, facts: &ScriptFacts) -> u64 {
        match self.content {
            Content::Plain => facts.bytes,
            Content::Archive(_) => self.bytes,
        }
    }

    /// Its bytes, out of what is around it.
    pub(super) fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        unwrapped(self.wrapping, File::open(&self.path)?)
    }

    /// An error of [`Source::reader`], or of what it gives.
    pub(super) fn unreadable(&self, source: io::Error) -> ImportError {
        unreadable(&self.name, self.wrapping.is_some(), source)
    }
}

fn unwrapped(wrapping: Option<Wrapping>, file: File) -> io::Result<Box<dyn Read + Send>> {
    Ok(match wrapping {
        None => Box::new(file),
        Some(Wrapping::Gzip) => unpack::gzip(file),
        Some(Wrapping::Zstd) => unpack::zstd(file)?,
    })
}

fn unreadable(name: &str, packed: bool, source: io::Error) -> ImportError {
    let name = name.to_owned();
    if packed && source.raw_os_error().is_none() {
        ImportError::Packed { name, source }
    } else {
        ImportError::Read { name, source }
    }
}

/// Looks at what is named, and brings a stream, or an archive that something is around, into `work`.
pub(super) async fn open(
    file: &Path,
    work: &Path,
    cancel: &CancellationToken,
) -> Result<Source, ImportError> {
    let (file, work, cancel) = (file.to_owned(), work.to_owned(), cancel.clone());
    let opened = tokio::task::spawn_blocking(move || open_blocking(&file, &work, &cancel));
    opened.await.expect("looking at a file does not panic")
}

fn open_blocking(
    file: &Path,
    work: &Path,
    cancel: &CancellationToken,
) -> Result<Source, ImportError> {
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    let failed = |source| ImportError::Read { name: file.display().to_string(), source };
    if file == Path::new("-") {
        let path = work.join("stdin");
        let bytes = bring(io::stdin().lock(), &path, cancel).map_err(failed_in(work))?;
        return of_file("stdin".to_owned(), path, None, bytes, work, cancel);
    }
    let meta = fs::metadata(file).map_err(failed)?;
    let modified_at = Timestamp::from_second(meta.mtime()).ok();
    if meta.is_dir() {
        return of_directory(name, file, modified_at);
    }
    if meta.file_type().is_fifo() || meta.file_type().is_char_device() {
        let path = work.join("stream");
        let stream = File::open(file).map_err(failed)?;
        let bytes = bring(stream, &path, cancel).map_err(failed_in(work))?;
        return of_file(name, path, None, bytes, work, cancel);
    }
    let path = std::path::absolute(file).map_err(failed)?;
    of_file(name, path, modified_at, meta.len(), work, cancel)
}

fn failed_in(work: &Path) -> impl FnOnce(io::Error) -> ImportError + use<> {
    let work = work.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::Interrupted => ImportError::Interrupted,
        _ => ScratchError::io("cannot write below", &work)(error).into(),
    }
}

fn of_file(
    name: String,
    path: PathBuf,
    modified_at: Option<Timestamp>,
    bytes: u64,
    work: &Path,
    cancel: &CancellationToken,
) -> Result<Source, ImportError> {
    let read = |packed| {
        let name = name.clone();
        move |source| unreadable(&name, packed, source)
    };
    let head = head(File::open(&path).map_err(read(false))?).map_err(read(false))?;
    let wrapping = dump::wrapping(&head);
    let inner = if wrapping.is_none() {
        head
    } else {
        let file = File::open(&path).map_err(read(false))?;
        let reader = unwrapped(wrapping, file).map_err(read(true))?;
        self::head(reader).map_err(read(true))?
    };
    let form = dump::form(&inner);
    let form = form.map_err(|source| ImportError::NotADump { name: name.clone(), source })?;
    let (content, is_tar) = match form {
        Form::Plain => (Content::Plain, false),
        Form::Custom(preamble) if preamble.format != FORMAT_CUSTOM => {
            return Err(ImportError::NotADump { name, source: NotADump::PartOfDirectory });
        }
        Form::Custom(preamble) => (archive(preamble), false),
        Form::Tar(preamble) => (archive(preamble), true),
    };
    let mut source = Source { name, path, wrapping, content, modified_at, bytes };
    if source.wrapping.is_some() && matches!(source.content, Content::Archive(_)) {
        // pg_restore reads files, and jumps about in them.
        let unpacked = work.join("archive");
        let mut failure = None;
        let reader = source.reader().map_err(|error| source.unreadable(error))?;
        let written = bring(Remembering { reader, failure: &mut failure }, &unpacked, cancel);
        if let Some(error) = failure {
            return Err(source.unreadable(error));
        }
        source.bytes = written.map_err(failed_in(work))?;
        (source.path, source.wrapping) = (unpacked, None);
    }
    if is_tar && !ends_as_tar(&source.path).map_err(|error| source.unreadable(error))? {
        return Err(ImportError::CutOff { name: source.name });
    }
    Ok(source)
}

/// Whether a tar archive has its end mark, a block of zeros where the next member would begin: `pg_restore` does
/// not miss it.
fn ends_as_tar(path: &Path) -> io::Result<bool> {
    let file = File::open(path)?;
    let (length, mut at) = (file.metadata()?.len(), 0_u64);
    let mut header = [0; 512];
    while at + 512 <= length {
        file.read_exact_at(&mut header, at)?;
        if header == [0; 512] {
            return Ok(true);
        }
        let Some(size) = member_bytes(&header[124..136]) else { return Ok(false) };
        at = at.saturating_add(512).saturating_add(size.next_multiple_of(512));
    }
    Ok(false)
}

/// A tar header's size: octal digits, or from 8 GiB on a number with the highest bit set.
fn member_bytes(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let number =
            rest.get(3..)?.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        return (number < 1 << 62).then_some(number);
    }
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

fn archive(preamble: Preamble) -> Content {
    Content::Archive(Archive { preamble })
}

/// Tells a failure to read from one to write.
struct Remembering<'a, R> {
    reader: R,
    failure: &'a mut Option<io::Error>,
}

impl<R: Read> Read for Remembering<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            let again = io::Error::new(error.kind(), error.to_string());
            *self.failure = Some(error);
            again
        })
    }
}

/// A directory that `pg_dump --format=directory` made.
fn of_directory(
    name: String,
    directory: &Path,
    modified_at: Option<Timestamp>,
) -> Result<Source, ImportError> {
    let failed = |source| ImportError::Read { name: name.clone(), source };
    let not = |source| ImportError::NotADump { name: name.clone(), source };
    let toc = match File::open(directory.join("toc.dat")) {
        Ok(file) => head(file).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(not(NotADump::Unknown));
        }
        Err(error) => return Err(failed(error)),
    };
    let preamble = match dump::form(&toc).map_err(not)? {
        Form::Custom(preamble) => preamble,
        Form::Plain | Form::Tar(_) => return Err(not(NotADump::Unknown)),
    };
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        bytes += entry.metadata().map_err(failed)?.len();
        check_rows(&name, &entry.path())?;
    }
    let path = std::path::absolute(directory).map_err(failed)?;
    let content = archive(preamble);
    Ok(Source { name, path, wrapping: None, content, modified_at, bytes })
}

/// Refuses a table's file that was cut off: of one that is not compressed, `pg_restore` would not notice.
fn check_rows(name: &str, path: &Path) -> Result<(), ImportError> {
    let file_name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = file_name.trim_end_matches(".gz").trim_end_matches(".zst");
    let table = stem.strip_suffix(".dat").is_some_and(|id| id.bytes().all(|b| b.is_ascii_digit()));
    if !table {
        return Ok(());
    }
    let part = format!("{name}/{file_name}");
    let file = File::open(path).map_err(|source| unreadable(&part, false, source))?;
    let wrapping = match file_name.strip_prefix(stem) {
        Some(".gz") => Some(Wrapping::Gzip),
        Some(".zst") => Some(Wrapping::Zstd),
        _ => None,
    };
    let packed = wrapping.is_some();
    let read = |source| unreadable(&part, packed, source);
    let mut reader = unwrapped(wrapping, file).map_err(read)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut first, mut last) = (Vec::new(), Vec::new());
    loop {
        let count = reader.read(&mut buffer).map_err(read)?;
        if count == 0 {
            break;
        }
        let bytes = &buffer[..count];
        first.extend_from_slice(&bytes[..count.min(7_usize.saturating_sub(first.len()))]);
        last.extend_from_slice(bytes);
        last.drain(..last.len().saturating_sub(8));
    }
    let ended = last.ends_with(b"\\.\n\n\n");
    // `--inserts` has no end mark.
    if ended
        || first == *b"INSERT "
        || first.iter().all(u8::is_ascii_whitespace) && !first.is_empty()
    {
        return Ok(());
    }
    Err(ImportError::CutOff { name: part })
}

/// The first bytes.
fn head(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Copies a stream into a file of ours, until it ends or the run does.
fn bring(mut from: impl Read, to: &Path, cancel: &CancellationToken) -> io::Result<u64> {
    let mut file = File::create_new(to)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if count == 0 {
            return Ok(bytes);
        }
        if cancel.is_cancelled() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        file.write_all(&buffer[..count])?;
        bytes += count as u64;
    }
}
