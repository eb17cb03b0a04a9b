//! `key rotate`: a new epoch, with a new chunk key, for the recipients of today.
//!
//! Runbook: the new writer key, with its recipients, is written beside the old one (`writer.key.next`); the
//! epoch's document is put, which is the commit; the configuration's recipients are set where others were
//! given; the old writer key is kept under its epoch's name; the new one takes its place; the note beside it
//! goes.
//!
//! Crash story. Before the document is put the old epoch is in force, and the file beside the writer key says
//! nothing: its epoch does not exist. From then on the new one is in force, and every command takes the keys of
//! that file (`wiring::open_repository`), whatever of the rest was done: snapshots go on in either case. The next
//! rotation finishes what this one began, or begins anew.
//!
//! The signing key stays where it is held, so that no reader has to be told. Where the writer key is lost a new
//! one signs; readers must be told to trust it, which nothing in the repository can do for them.

use std::path::{Path, PathBuf};

use super::error::KeysError;
use crate::codec::hash::ChunkKey;
use crate::codec::kit;
use crate::codec::random::random_bytes;
use crate::codec::sign::SigningKey;
use crate::codec::writer_key::{NextWriterKey, WriterKey};
use crate::config::edit::{replace_file, set_list};
use crate::domain::id::EpochId;
use crate::failpoint;
use crate::repo::documents::EpochDocument;
use crate::repo::{Keys, Repository};

/// What a rotation works with.
#[derive(Debug, Clone)]
pub struct RotateOptions {
    /// The writer key's file, to be replaced.
    pub writer_key_file: PathBuf,
    /// Where the next one waits.
    pub next_file: PathBuf,
    /// The configuration whose recipients may be set to the new ones.
    pub config_file: Option<PathBuf>,
    /// The recipients that are configured now.
    pub configured: Vec<String>,
    /// The recovery kit on this host, to be told of a new signer.
    pub kit_file: Option<PathBuf>,
    /// The operator says that no copy of the writer key is left.
    pub lost: bool,
}

/// What a rotation did.
#[derive(Debug, Clone)]
pub struct RotateReport {
    /// The new epoch.
    pub epoch: EpochId,
    /// Those before it.
    pub replaces: Vec<EpochId>,
    /// Who reads what is written from now on.
    pub recipients: Vec<String>,
    /// Who signs it.
    pub signer: String,
    /// As minisign prints it.
    pub signer_key_id: String,
    /// Whether readers must be told of the signer.
    pub signer_is_new: bool,
    /// The writer key.
    pub writer_key_file: PathBuf,
    /// Where the old one is.
    pub kept_aside: Option<PathBuf>,
    /// The configuration, if it was changed.
    pub config_file: Option<PathBuf>,
    /// Whether it was an earlier rotation that was ended.
    pub finished: bool,
}

/// Opens a new epoch for the recipients of `wanted`, or finishes the rotation that was cut short.
pub async fn rotate(
    repository: &Repository,
    wanted: &Keys,
    options: &RotateOptions,
) -> Result<RotateReport, KeysError> {
    let old = old_key(&options.writer_key_file)?;
    let begun = begun(repository, &options.next_file, old.as_ref()).await?;
    let finished = begun.is_some();
    let (next, document) = match begun {
        Some(begun) => begun,
        None => begin(repository, wanted, options).await?,
    };
    let signer = next.writer.signing.public();
    let differ = next.recipients != options.configured;
    let config_file = options.config_file.clone().filter(|_| differ);
    if let Some(config_file) = &config_file {
        set_list(config_file, "encryption.recipients", &next.recipients)?;
    }
    failpoint::hit("rotate.configured");
    let mut kept_aside = None;
    if let Some(old) = old.filter(|old| old.epoch != next.writer.epoch) {
        kept_aside = Some(keep_aside(&options.writer_key_file, &old)?);
    }
    failpoint::hit("rotate.kept-aside");
    let line = zeroize_line(&next.writer);
    write(&options.writer_key_file, line.as_bytes())?;
    failpoint::hit("rotate.installed");
    let repository = &repository.trusting(signer);
    let signer_is_new = is_new(repository, &document, &signer.to_string()).await?;
    if let Some(kit_file) = options.kit_file.as_deref().filter(|_| signer_is_new) {
        add_signer(kit_file, &signer)?;
    }
    remove(&options.next_file)?;
    repository.refuse_collision(&document).await?;
    Ok(RotateReport {
        epoch: document.epoch,
        replaces: document.replaces,
        recipients: next.recipients,
        signer: signer.to_string(),
        signer_key_id: signer.key_id(),
        signer_is_new,
        writer_key_file: options.writer_key_file.clone(),
        kept_aside,
        config_file,
        finished,
    })
}

/// Up to the commit.
async fn begin(
    repository: &Repository,
    wanted: &Keys,
    options: &RotateOptions,
) -> Result<(NextWriterKey, EpochDocument), KeysError> {
    let next = new_key(repository, wanted, options)?;
    write(&options.next_file, next.to_text().as_bytes())?;
    failpoint::hit("rotate.next-written");
    let document = repository.open_epoch(wanted, &next.writer).await?;
    failpoint::hit("rotate.epoch-put");
    Ok((next, document))
}

/// A rotation whose epoch was opened and whose key was not installed. One whose epoch was never opened is
/// forgotten.
async fn begun(
    repository: &Repository,
    next_file: &Path,
    old: Option<&WriterKey>,
) -> Result<Option<(NextWriterKey, EpochDocument)>, KeysError> {
    let text = match std::fs::read_to_string(next_file) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(KeysError::File { path: next_file.to_owned(), source }),
    };
    let next = NextWriterKey::parse(&text)?;
    let old = old.map(|old| &old.epoch);
    let document = repository.succession(old, &next.writer.epoch).await?;
    Ok(document.map(|document| (next, document)))
}

/// Whether no epoch before this one was signed by that key.
async fn is_new(
    repository: &Repository,
    document: &EpochDocument,
    signer: &String,
) -> Result<bool, KeysError> {
    let others = repository.epochs().await?.into_iter();
    let before = others.filter(|other| document.replaces.contains(&other.epoch));
    Ok(!before.into_iter().any(|other| other.signers.contains(signer)))
}

fn new_key(
    repository: &Repository,
    wanted: &Keys,
    options: &RotateOptions,
) -> Result<NextWriterKey, KeysError> {
    let signing = match (&repository.keys().writer, options.lost) {
        (Some(writer), false) => writer.signing.clone(),
        (None, true) => SigningKey::generate(&random_bytes()?),
        (Some(_), true) => return Err(KeysError::NotLost(options.writer_key_file.clone())),
        (None, false) => return Err(KeysError::NoWriterKey(repository.store.address())),
    };
    let mut recipients = wanted.recipients.clone();
    recipients.sort();
    recipients.dedup();
    let epoch = EpochId::new(repository.ambient().random());
    let chunk_key = ChunkKey::from_bytes(random_bytes()?);
    Ok(NextWriterKey { writer: WriterKey { epoch, chunk_key, signing }, recipients })
}

fn old_key(path: &Path) -> Result<Option<WriterKey>, KeysError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(WriterKey::parse(&zeroize::Zeroizing::new(text))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeysError::File { path: path.to_owned(), source }),
    }
}

/// The old writer key under its epoch's name. It is needed for nothing that is planned; it is not ours to
/// destroy.
fn keep_aside(path: &Path, old: &WriterKey) -> Result<PathBuf, KeysError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", old.epoch));
    let aside = path.with_file_name(name);
    write(&aside, zeroize_line(old).as_bytes())?;
    Ok(aside)
}

fn zeroize_line(writer: &WriterKey) -> zeroize::Zeroizing<String> {
    let mut line = writer.to_text();
    line.push('\n');
    line
}

fn add_signer(path: &Path, signer: &crate::codec::sign::PublicKey) -> Result<(), KeysError> {
    let failed = |source| KeysError::File { path: path.to_owned(), source };
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
    write(path, kit::with_signer(&text, signer)?.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), KeysError> {
    replace_file(path, bytes).map_err(|source| KeysError::File { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), KeysError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(KeysError::File { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
