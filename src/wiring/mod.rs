//! Floor 5: configuration becomes live parts. The one place that knows them all.

mod notify;
mod work;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::codec::encrypt::{EncryptionError, Recipients};
use crate::codec::kit::{KitError, RecoveryKit};
use crate::codec::random::random_bytes;
use crate::codec::seal::{Opener, Sealer};
use crate::codec::sign::{PublicKey, SignError};
use crate::codec::writer_key::{NextWriterKey, WriterKey, WriterKeyError};
#[cfg(feature = "s3")]
use crate::config::ChecksumPolicy;
use crate::config::{
    ClusterSettings, ConfigError, Environment, RepositoryLocation, ServiceSettings, Settings,
};
use crate::domain::ambient::Ambient;
use crate::domain::connection::{ConnectionError, ConnectionInfo};
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::id::ClusterName;
use crate::notify::NotifyError;
use crate::ops::prune::BootClock;
use crate::ops::snapshot::Hooks;
use crate::repo::workers::Workers;
use crate::repo::{Keys, RepoError, Repository};
use crate::store::local::LocalStore;
#[cfg(feature = "s3")]
use crate::store::s3::{Checksums, GivenCredentials, S3Options, S3Store};
use crate::store::{Store, StoreError};

pub use notify::{health_checks, notifier};
pub use work::{
    Proving, actor, assertions, databases, databases_meant, is_server_named, scratch_choice,
    scratch_dir,
};

/// Why the configuration cannot come to life.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A connection string.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// A recipient.
    #[error(transparent)]
    Recipients(#[from] EncryptionError),
    /// The writer key.
    #[error(transparent)]
    WriterKey(#[from] WriterKeyError),
    /// The recovery kit.
    #[error(transparent)]
    Kit(#[from] KitError),
    /// A trusted signer.
    #[error("a trusted signer cannot be used")]
    Signer(#[from] SignError),
    /// Whom to tell.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// An address that this build cannot reach.
    #[error("this pgkeep was built without support for s3:// repositories")]
    WithoutS3,
    /// Something that this build cannot do.
    #[error("`{0}` is set, and this pgkeep was built without HTTP")]
    WithoutHttp(String),
}

impl WiringError {
    fn cause(&self) -> Option<&dyn Failure> {
        Some(match self {
            Self::Config(error) => error,
            Self::Connection(error) => error,
            Self::Store(error) => error,
            Self::Repo(error) => error,
            Self::Recipients(error) => error,
            Self::WriterKey(error) => error,
            Self::Kit(error) => error,
            Self::Signer(error) => error,
            Self::Notify(error) => error,
            Self::WithoutS3 | Self::WithoutHttp(_) => return None,
        })
    }
}

impl Failure for WiringError {
    fn kind(&self) -> FailureKind {
        self.cause().map_or(FailureKind::Usage, Failure::kind)
    }
    fn hint(&self) -> Option<String> {
        if let Some(cause) = self.cause() {
            return cause.hint();
        }
        Some(match self {
            Self::WithoutHttp(_) => {
                "build it with the cargo feature `http`, or leave that out".to_owned()
            }
            _ => "build it with the cargo feature `s3`, or name a file:// repository".to_owned(),
        })
    }
}

/// The clocks and dice of this machine.
#[derive(Debug)]
pub struct SystemAmbient {
    started: Instant,
}

impl Default for SystemAmbient {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Ambient for SystemAmbient {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
    fn random(&self) -> u32 {
        // Without chance no id would be unique, and names would be used twice.
        u32::from_le_bytes(random_bytes().expect("the operating system has random bytes"))
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The store that the configuration names; it must be there.
pub fn open_store(settings: &Settings) -> Result<Store, WiringError> {
    match settings.location()? {
        RepositoryLocation::Directory(path) => Ok(Arc::new(LocalStore::open(path)?)),
        RepositoryLocation::Bucket { bucket, prefix } => bucket_store(settings, bucket, prefix),
    }
}

/// The store that the configuration names; a directory is made if it is not there, a bucket never is.
pub fn create_store(settings: &Settings) -> Result<Store, WiringError> {
    match settings.location()? {
        RepositoryLocation::Directory(path) => Ok(Arc::new(LocalStore::create(path)?)),
        RepositoryLocation::Bucket { bucket, prefix } => bucket_store(settings, bucket, prefix),
    }
}

#[cfg(not(feature = "s3"))]
fn bucket_store(_: &Settings, _: &str, _: &str) -> Result<Store, WiringError> {
    Err(WiringError::WithoutS3)
}

#[cfg(feature = "s3")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature there is none")]
fn bucket_store(settings: &Settings, bucket: &str, prefix: &str) -> Result<Store, WiringError> {
    Ok(Arc::new(S3Store::new(s3_options(settings, bucket, prefix))))
}

/// What is configured wins over the variables; those are read here, and not by the vendor's library alone,
/// so that an `--env-file` counts.
#[cfg(feature = "s3")]
fn s3_options(settings: &Settings, bucket: &str, prefix: &str) -> S3Options {
    let service = settings.repository.service.clone();
    let variable = |name: &str| settings.environment.get(name).map(str::to_owned);
    let secret = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
    let mut options = S3Options::new(bucket, prefix);
    options.endpoint = service.endpoint.or_else(|| endpoint_variable(settings));
    options.region = service.region.or_else(|| region_variable(settings));
    options.path_style = service.path_style;
    options.checksums = service.checksums.map(|policy| match policy {
        ChecksumPolicy::WhenSupported => Checksums::WhenSupported,
        ChecksumPolicy::WhenRequired => Checksums::WhenRequired,
    });
    options.credentials = secret.map(|(access_key_id, secret_access_key)| GivenCredentials {
        access_key_id,
        secret_access_key,
        session_token: variable("AWS_SESSION_TOKEN"),
    });
    options.profile = variable("AWS_PROFILE");
    options.ca_bundle = variable("AWS_CA_BUNDLE").map(PathBuf::from);
    options.limits.idle = service.idle_timeout;
    options.limits.retry_for = service.retry_for;
    options
}

/// What a starter configuration says of a storage service, so that a host without the variables of `init`
/// finds the same one.
pub fn starter_service(settings: &Settings) -> Option<ServiceSettings> {
    let RepositoryLocation::Bucket { .. } = settings.location().ok()? else { return None };
    let service = settings.repository.service.clone();
    let endpoint = service.endpoint.clone().or_else(|| endpoint_variable(settings));
    let region = service.region.clone().or_else(|| region_variable(settings));
    Some(ServiceSettings { endpoint, region, ..service })
}

fn endpoint_variable(settings: &Settings) -> Option<String> {
    let variable = |name| settings.environment.get(name).map(str::to_owned);
    variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"))
}

fn region_variable(settings: &Settings) -> Option<String> {
    let variable = |name| settings.environment.get(name).map(str::to_owned);
    variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"))
}

/// The keys that the configuration names, parsed.
pub fn keys(settings: &Settings) -> Result<Keys, WiringError> {
    let encryption = &settings.encryption;
    let writer = match encryption.read_writer_key()? {
        Some(text) => Some(WriterKey::parse(text.expose())?),
        None => None,
    };
    let mut trusted = Vec::new();
    for signer in &encryption.trusted_signers {
        trusted.push(PublicKey::parse(signer)?);
    }
    let mut opener = None;
    if let Some(text) = encryption.read_identity()? {
        let kit = RecoveryKit::parse(text.expose())?;
        trusted.extend(kit.signers);
        opener = Some(Opener::new(kit.identities));
    }
    let level = settings.compression_level;
    let configured = encryption.all_recipients()?;
    let (recipients, sealer) = if encryption.insecure_plaintext {
        opener = Some(Opener::insecure_plaintext());
        (Vec::new(), Some(Sealer::insecure_plaintext(level)))
    } else if configured.is_empty() {
        (Vec::new(), None)
    } else {
        let recipients = Recipients::parse(&configured)?;
        (recipients.as_strings(), Some(Sealer::new(&recipients, level)))
    };
    let insecure_plaintext = encryption.insecure_plaintext;
    Ok(Keys { writer, recipients, sealer, opener, trusted, insecure_plaintext })
}

/// The keys of a rotation that was begun on this host and not ended, with those that are to go still trusted.
pub fn next_keys(settings: &Settings, own: &Keys) -> Result<Option<Keys>, WiringError> {
    let Some(source) = settings.encryption.writer_key.next() else { return Ok(None) };
    let Some(text) = source.read("a writer key")? else { return Ok(None) };
    let next = NextWriterKey::parse(text.expose())?;
    let sealer = if own.insecure_plaintext {
        Sealer::insecure_plaintext(settings.compression_level)
    } else {
        Sealer::new(&Recipients::parse(&next.recipients)?, settings.compression_level)
    };
    Ok(Some(Keys {
        writer: Some(next.writer),
        recipients: next.recipients,
        sealer: Some(sealer),
        trusted: own.trusted(),
        ..own.clone()
    }))
}

/// The repository, opened with this host's keys.
///
/// Where a rotation was cut short after its epoch was opened, the keys are those of the new epoch: backups go
/// on, and `pgkeep key rotate` ends what it began.
pub async fn open_repository(settings: &Settings) -> Result<Repository, WiringError> {
    let (own, ambient) = (keys(settings)?, Arc::new(SystemAmbient::default()));
    let store = open_store(settings)?;
    if let Some(next) = next_keys(settings, &own)?
        && let Some(writer) = next.writer.clone()
    {
        let workers = Workers::threads();
        let opened = Repository::open(store.clone(), next, workers, ambient.clone()).await?;
        let present = own.writer.as_ref().map(|writer| &writer.epoch);
        if opened.succession(present, &writer.epoch).await?.is_some() {
            return Ok(opened);
        }
    }
    Ok(Repository::open(store, own, Workers::threads(), ambient).await?)
}

/// How a cluster is reached.
pub fn connection(
    settings: &Settings,
    name: &ClusterName,
    cluster: &ClusterSettings,
) -> Result<ConnectionInfo, WiringError> {
    let sources = &settings.environment;
    Ok(match settings.connection_text(name, cluster)? {
        Some(text) => ConnectionInfo::parse(text.expose(), sources)?,
        None => ConnectionInfo::from_environment(sources)?,
    })
}

/// Another server, as `--to` or `verify.scratch` names it.
pub fn other_connection(
    environment: &Environment,
    text: &str,
) -> Result<ConnectionInfo, WiringError> {
    Ok(ConnectionInfo::parse(text, environment)?)
}

/// The hooks of a cluster.
pub fn hooks(cluster: &ClusterSettings) -> Hooks {
    let hooks = cluster.hooks.clone();
    Hooks { before: hooks.before, after: hooks.after, failed: hooks.failed }
}

/// Where client programs are looked for first.
pub fn bin_dir(settings: &Settings, cluster: &ClusterSettings) -> Option<PathBuf> {
    cluster.bin_dir.clone().or_else(|| settings.bin_dir.clone())
}

/// A clock that began at this host's start, as Linux tells it; none elsewhere.
pub fn boot_clock() -> Option<BootClock> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let uptime = Duration::try_from_secs_f64(seconds).ok()?;
    Some(BootClock { boot: boot.trim().to_owned(), uptime })
}

/// What this host calls itself.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
