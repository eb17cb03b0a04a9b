//! `init`: the repository, and where none are given the identity, the writer key and a configuration.
//!
//! Order: the writer key and the identity are on disk, synced, before the repository exists, because a
//! repository whose keys are lost is worth nothing. A crash in between leaves key files that the next
//! `init` takes up. Safe to run again: what is there is kept and checked.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::cut::ChunkParams;
use crate::codec::encrypt::{EncryptionError, Recipients, generate_identity};
use crate::codec::hash::ChunkKey;
use crate::codec::kit::{KitError, RecoveryKit};
use crate::codec::random::{RandomError, random_bytes};
use crate::codec::seal::Sealer;
use crate::codec::sign::{PublicKey, SigningKey};
use crate::codec::writer_key::WriterKey;
use crate::config::edit::set_list;
use crate::config::{ConfigError, Starter};
use crate::domain::ambient::Ambient;
use crate::domain::failure::{Failure, FailureKind, system_hint};
use crate::domain::id::EpochId;
use crate::repo::create::Made;
use crate::repo::workers::Workers;
use crate::repo::{Keys, RepoError, Repository, layout};
use crate::store::Store;

/// The recovery kit's file in the home directory.
pub const IDENTITY_FILE: &str = "identity.txt";
/// The writer key's file in the home directory.
pub const WRITER_KEY_FILE: &str = "writer.key";
/// The configuration in the home directory.
pub const CONFIG_FILE: &str = "pgkeep.toml";

/// What `init` is asked to do.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Where key files and the configuration are written.
    pub home: PathBuf,
    /// The repository's address as it is configured, for the kit and the configuration.
    pub repository_url: String,
    /// What the starter configuration says, recipients and signer aside; written only where none is.
    pub starter_configuration: Option<Starter>,
    /// A configuration that is there and names no recipient, such as a package's: it is told what was made.
    pub amended_configuration: Option<Amended>,
    /// zstd level of everything that is sealed.
    pub level: i32,
}

/// A configuration file that recipients and signer are added to.
#[derive(Debug, Clone)]
pub struct Amended {
    /// The file.
    pub path: PathBuf,
    /// The signers that are trusted already.
    pub trusted_signers: Vec<String>,
}

/// What `init` did.
#[derive(Debug, Clone)]
pub struct InitReport {
    /// The repository's address.
    pub address: String,
    /// Its id.
    pub repository_id: String,
    /// Whether it is new.
    pub made: Made,
    /// The epoch this host writes in.
    pub epoch: EpochId,
    /// Who can read backups.
    pub recipients: Vec<String>,
    /// This host's signing key, public half.
    pub signer: String,
    /// The recovery kit, if this run made it.
    pub identity_file: Option<PathBuf>,
    /// The writer key, if this run made it.
    pub writer_key_file: Option<PathBuf>,
    /// The configuration, if this run made it or added to it.
    pub config_file: Option<PathBuf>,
}

/// Why `init` failed.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// A key that cannot be used.
    #[error("a recipient cannot be used")]
    Recipients(#[source] EncryptionError),
    /// The recovery kit could not be made.
    #[error(transparent)]
    Kit(#[from] KitError),
    /// No chance to be had.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The configuration cannot be added to.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of the home directory.
    #[error("cannot write `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key file that is there and is not one.
    #[error("`{}` holds no {what}", path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// `writer key` or `identity`.
        what: &'static str,
    },
    /// A repository is there, made with other keys than this host has.
    #[error("a repository is at {0} already, and this host holds no writer key for it")]
    OthersRepository(String),
}

impl Failure for InitError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Repo(error) => error.kind(),
            Self::Kit(error) => error.kind(),
            Self::Config(error) => error.kind(),
            Self::Random(_) => FailureKind::Unexpected,
            Self::Recipients(_) | Self::KeyFile { .. } | Self::OthersRepository(_) => {
                FailureKind::Key
            }
            Self::File { .. } => FailureKind::Usage,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Repo(error) => error.hint(),
            Self::Kit(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Random(_) => None,
            Self::Recipients(_) => {
                Some("a recipient is a public key that begins with `age1`".into())
            }
            Self::File { source, .. } => Some(
                system_hint(source)
                    .unwrap_or("check its directory, or set PGKEEP_HOME to another")
                    .to_owned(),
            ),
            Self::KeyFile { .. } => {
                Some("move the file away if it belongs to something else, and run it again".into())
            }
            Self::OthersRepository(_) => Some(
                "copy the writer key of the host that made it here, or choose another address; where that key is \
                 lost everywhere, `pgkeep key rotate --lost-writer-key`"
                    .into(),
            ),
        }
    }
}

/// Makes what is missing. `keys` are those that the configuration already names.
pub async fn run(
    store: Store,
    mut keys: Keys,
    options: InitOptions,
    workers: Workers,
    ambient: Arc<dyn Ambient>,
) -> Result<InitReport, InitError> {
    let writer_path = options.home.join(WRITER_KEY_FILE);
    let mut made_writer = None;
    if keys.writer.is_none() {
        keys.writer = read_writer_key(&writer_path)?;
    }
    let present = match store.get(&layout::repository()).await {
        Ok(_) => true,
        Err(error) if error.is_not_found() => false,
        Err(error) => return Err(RepoError::from(error).into()),
    };
    let writer = match keys.writer.clone() {
        Some(writer) => writer,
        None if present => return Err(InitError::OthersRepository(store.address())),
        None => {
            let writer = generate_writer_key(EpochId::new(ambient.random()))?;
            write_private(&writer_path, writer.to_text().as_bytes())?;
            made_writer = Some(writer_path);
            writer
        }
    };
    let signer = writer.signing.public();
    keys.writer = Some(writer.clone());
    let mut made_identity = None;
    if keys.recipients.is_empty() && !keys.insecure_plaintext {
        let path = options.home.join(IDENTITY_FILE);
        let (recipient, made) = own_identity(&path, &options.repository_url, &signer, &*ambient)?;
        keys.recipients = vec![recipient];
        made_identity = made.then_some(path);
    }
    if keys.sealer.is_none() {
        keys.sealer = Some(sealer(&keys, options.level)?);
    }
    let recipients = keys.recipients.clone();
    let (repository, made) =
        Repository::create(store, keys, ChunkParams::default(), workers, ambient).await?;
    repository.write_access().await?;
    let config_path = options.home.join(CONFIG_FILE);
    let mut config_file = None;
    if let Some(starter) = options.starter_configuration
        && !config_path.exists()
    {
        let trusted_signers = vec![signer.to_string()];
        let starter = Starter { recipients: recipients.clone(), trusted_signers, ..starter };
        let text = starter.render();
        write_private(&config_path, text.as_bytes())?;
        config_file = Some(config_path);
    }
    if let Some(amended) = options.amended_configuration
        && !repository.is_plaintext()
    {
        amend(&amended, &recipients, &signer)?;
        config_file = Some(amended.path);
    }
    Ok(InitReport {
        address: repository.store.address(),
        repository_id: repository.document.id.clone(),
        made,
        epoch: writer.epoch,
        recipients,
        signer: signer.to_string(),
        identity_file: made_identity,
        writer_key_file: made_writer,
        config_file,
    })
}

/// Without recipients no snapshot is taken, so they go in last: a crash before leaves what `init` mends.
fn amend(amended: &Amended, recipients: &[String], signer: &PublicKey) -> Result<(), ConfigError> {
    let mut trusted = amended.trusted_signers.clone();
    if !trusted.contains(&signer.to_string()) {
        trusted.push(signer.to_string());
        set_list(&amended.path, "encryption.trusted_signers", &trusted)?;
    }
    set_list(&amended.path, "encryption.recipients", recipients)
}

fn generate_writer_key(epoch: EpochId) -> Result<WriterKey, RandomError> {
    let chunk_key = ChunkKey::from_bytes(random_bytes()?);
    Ok(WriterKey { epoch, chunk_key, signing: SigningKey::generate(&random_bytes()?) })
}

fn sealer(keys: &Keys, level: i32) -> Result<Sealer, InitError> {
    if keys.insecure_plaintext {
        return Ok(Sealer::insecure_plaintext(level));
    }
    let recipients = Recipients::parse(&keys.recipients).map_err(InitError::Recipients)?;
    Ok(Sealer::new(&recipients, level))
}

fn read_writer_key(path: &Path) -> Result<Option<WriterKey>, InitError> {
    match std::fs::read_to_string(path) {
        Ok(text) => WriterKey::parse(&text)
            .map(Some)
            .map_err(|_| InitError::KeyFile { path: path.to_owned(), what: "writer key" }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InitError::File { path: path.to_owned(), source }),
    }
}

/// The recipient of the identity in `path`, made now if the file is not there.
fn own_identity(
    path: &Path,
    repository_url: &str,
    signer: &PublicKey,
    ambient: &dyn Ambient,
) -> Result<(String, bool), InitError> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let recipient = RecoveryKit::parse(&text)
                .ok()
                .and_then(|kit| kit.identities.recipients().as_strings().into_iter().next())
                .ok_or_else(|| InitError::KeyFile { path: path.to_owned(), what: "identity" })?;
            Ok((recipient, false))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (identity, recipient) = generate_identity();
            let signers = std::slice::from_ref(signer);
            let text = RecoveryKit::render(&identity, repository_url, signers, ambient.now())?;
            write_private(path, text.as_bytes())?;
            Ok((recipient, true))
        }
        Err(source) => Err(InitError::File { path: path.to_owned(), source }),
    }
}

/// Writes a file that only its owner reads, whole and synced or not at all; never over another.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), InitError> {
    let failed = |source| InitError::File { path: path.to_owned(), source };
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(failed)?;
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path).map_err(|error| failed(error.error))?;
    std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}
