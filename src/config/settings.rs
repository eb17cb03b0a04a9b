//! The typed result: what the floors above take from configuration.
//!
//! Key files are read when they are asked for and not before: a host that only writes has no identity,
//! and `list` must not fail for a key it does not need.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::variables::OTHERS_URLS;
use super::{ConfigError, Environment, files};
use crate::domain::connection::Secret;
use crate::domain::id::ClusterName;
use crate::domain::key::ObjectKey;
use crate::domain::retention::RetentionPolicy;
use crate::domain::schedule::Schedule;
use crate::domain::verification::Depth;

/// The recovery kit's file at home, written by `init` where no recipient was given.
pub const IDENTITY_FILE_NAME: &str = "identity.txt";
/// The writer key's file at home.
pub const WRITER_KEY_FILE_NAME: &str = "writer.key";

/// Everything that was configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where `init` writes and keys are looked for.
    pub home: PathBuf,
    /// The configuration file that was read, if any.
    pub file: Option<PathBuf>,
    /// The environment it was read from, `--env-file` beneath included.
    pub environment: Environment,
    /// The repository.
    pub repository: RepositorySettings,
    /// Keys.
    pub encryption: EncryptionSettings,
    /// zstd's level.
    pub compression_level: i32,
    /// Where scratch clusters go; none means a place with room is chosen.
    pub scratch_dir: Option<PathBuf>,
    /// Where client programs are looked for first.
    pub bin_dir: Option<PathBuf>,
    /// `[daemon]`.
    pub daemon: DaemonSettings,
    /// `[notify]`.
    pub notify: NotifySettings,
    /// The clusters by name; without any configured one, the one the environment means.
    pub clusters: BTreeMap<ClusterName, ClusterSettings>,
    /// The cluster that `--cluster` or `PGKEEP_CLUSTER` names.
    pub selected: Option<ClusterName>,
    /// The database that `--database` names.
    pub database: Option<String>,
}

/// `[daemon]`.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// Where the page, the metrics and the API are.
    pub listen: std::net::SocketAddr,
    /// Whether an address beyond this host is agreed to.
    pub allow_remote: bool,
    /// What the snapshot hook asks for; without one the hook is off. [`Self::read_token`] gives it.
    pub token: Option<KeySource>,
    /// How many scheduled runs are at work at once, and as many again of the snapshots that the hook asked for.
    pub concurrency: usize,
    /// For how long a failed run is tried again.
    pub retry_for: Duration,
}

/// `[notify]`.
#[derive(Debug, Clone, Default)]
pub struct NotifySettings {
    /// Whom to tell, by name.
    pub webhooks: BTreeMap<String, WebhookSettings>,
}

/// `[notify.webhooks.NAME]`.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    /// Its URL; whoever knows it may post there. [`Self::read_url`] gives it.
    pub url: KeySource,
    /// What is posted.
    pub template: WebhookTemplate,
    /// Which news it gets: at least one of `failure`, `recovery`, `success`, `overdue`.
    pub on: Vec<News>,
}

/// What a webhook posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookTemplate {
    /// The event as a document.
    Json,
    /// `{"text": …}`, as Slack and those like it take it.
    Slack,
}

/// What happened that somebody may want to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// A run failed.
    Failure,
    /// One succeeded after failures.
    Recovery,
    /// One succeeded.
    Success,
    /// Something should have happened and did not.
    Overdue,
}

/// A scheduled job of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSettings {
    /// When.
    pub schedule: Schedule,
    /// A URL that is told of start (`/start`), success and failure (`/fail`), as healthchecks.io takes it.
    pub ping: Option<Secret>,
}

/// What counts as overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlarmSettings {
    /// No good backup within so many of its intervals.
    pub intervals: u32,
    /// No verified restore within this time; zero: nobody asks.
    pub verified_within: Duration,
}

/// `[repository]`.
#[derive(Debug, Clone)]
pub struct RepositorySettings {
    /// Where it is.
    pub location: Option<RepositoryLocation>,
    /// REMOVAL.md: how long an intent must be seen unrenewed before it may be broken.
    pub grace: Duration,
    /// How a storage service is spoken to, where the place is in one.
    pub service: ServiceSettings,
}

/// The part of `[repository]` that is about a storage service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Its URL, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: Option<String>,
    /// Whether the bucket is in the path; none: where an endpoint is given.
    pub path_style: Option<bool>,
    /// When checksums go along; none: as the service is known to want it.
    pub checksums: Option<ChecksumPolicy>,
    /// How long it may show no sign of life.
    pub idle_timeout: Duration,
    /// For how long a failing call is tried again.
    pub retry_for: Duration,
}

/// When checksums of their own go along with requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumPolicy {
    /// Wherever one is possible.
    WhenSupported,
    /// Only where one must be.
    WhenRequired,
}

/// The place of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryLocation {
    /// A local directory.
    Directory(PathBuf),
    /// A bucket of a storage service.
    Bucket {
        /// Its name.
        bucket: String,
        /// What all keys begin with: empty, or a path without a slash at either end.
        prefix: String,
    },
}

impl RepositoryLocation {
    /// Reads `file:///absolute/path`, an absolute path, or `s3://bucket/prefix`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_end_matches('/');
            let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            let sound = (3..=63).contains(&bucket.len()) && bucket.bytes().all(letter);
            // The keys below it leave room for what pgkeep itself names.
            let below =
                prefix.is_empty() || (prefix.len() <= 256 && ObjectKey::parse(prefix).is_ok());
            let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
            return (sound && below).then_some(Self::Bucket { bucket, prefix });
        }
        let path = match text.strip_prefix("file://") {
            Some(rest) => decode(rest.strip_prefix("localhost").unwrap_or(rest))?,
            None => text.to_owned(),
        };
        let path = PathBuf::from(path);
        path.is_absolute().then_some(Self::Directory(path))
    }

    /// The address as a URL.
    pub fn url(&self) -> String {
        let path = match self {
            Self::Directory(path) => path,
            Self::Bucket { bucket, prefix } if prefix.is_empty() => {
                return format!("s3://{bucket}");
            }
            Self::Bucket { bucket, prefix } => return format!("s3://{bucket}/{prefix}"),
        };
        let mut url = "file://".to_owned();
        for byte in path.to_string_lossy().bytes() {
            match byte {
                b'%' | b'?' | b'#' | ..=0x20 | 0x7f.. => {
                    write!(url, "%{byte:02X}").expect("writing to a string");
                }
                _ => url.push(byte as char),
            }
        }
        url
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}

/// `[encryption]`. Texts are parsed above: this floor knows no vendor.
#[derive(Debug, Clone)]
pub struct EncryptionSettings {
    /// Recipients written out in the configuration.
    pub recipients: Vec<String>,
    /// A file with a recipient per line, added to them.
    pub recipients_file: Option<PathBuf>,
    /// The public keys whose manifests this host restores; the recovery kit may add some.
    pub trusted_signers: Vec<String>,
    /// Whether a repository without encryption is agreed to.
    pub insecure_plaintext: bool,
    /// The writer key.
    pub writer_key: KeySource,
    /// The identity.
    pub identity: KeySource,
}

/// Where a secret key comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// Its text, from a variable or a private configuration file, with the place for messages.
    Text(Secret, String),
    /// A file that was named, which must be there.
    File(PathBuf),
    /// The file at home, which may be absent.
    AtHome(PathBuf),
    /// None, and so: what would have passed it.
    Absent(String),
}

impl KeySource {
    /// Its text; none where nothing was configured and nothing is at home.
    pub fn read(&self, what: &str) -> Result<Option<Secret>, ConfigError> {
        match self {
            Self::Text(text, _) => Ok(Some(text.clone())),
            Self::File(path) => files::read_secret(path, what).map(Some),
            Self::AtHome(path) => match files::read_secret(path, what) {
                Err(ConfigError::Read { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    Ok(None)
                }
                result => result.map(Some),
            },
            Self::Absent(_) => Ok(None),
        }
    }

    /// The file it is read from, were it absent; none where it is a text.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Text(..) | Self::Absent(_) => None,
            Self::File(path) | Self::AtHome(path) => Some(path),
        }
    }

    /// Where a key waits that is going to take this one's place (`pgkeep key rotate`).
    pub fn next(&self) -> Option<Self> {
        let path = self.path()?;
        let mut name = path.file_name()?.to_owned();
        name.push(".next");
        Some(Self::AtHome(path.with_file_name(name)))
    }

    /// Where it is looked for, for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Text(_, origin) | Self::Absent(origin) => origin.clone(),
            Self::File(path) | Self::AtHome(path) => path.display().to_string(),
        }
    }
}

impl EncryptionSettings {
    /// All recipients, those of the file included.
    pub fn all_recipients(&self) -> Result<Vec<String>, ConfigError> {
        let mut all = self.recipients.clone();
        if let Some(path) = &self.recipients_file {
            let text = files::read_text(path)?;
            let lines = text.lines().map(str::trim);
            all.extend(lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned));
        }
        Ok(all)
    }

    /// The writer key's text.
    pub fn read_writer_key(&self) -> Result<Option<Secret>, ConfigError> {
        self.writer_key.read("a writer key")
    }

    /// The identity's text, the whole recovery kit where it is one.
    pub fn read_identity(&self) -> Result<Option<Secret>, ConfigError> {
        self.identity.read("an identity")
    }
}

/// `[clusters.NAME]`.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// How to connect.
    pub connection: ConnectionSource,
    /// Which databases are meant when a command names none.
    pub databases: Databases,
    /// Tables whose rows are left out, as `pg_dump` patterns.
    pub exclude_table_data: Vec<String>,
    /// How long its server may show no sign of life while a command works with it.
    pub idle_timeout: Duration,
    /// Commands around a run.
    pub hooks: Hooks,
    /// Where copies are proved.
    pub scratch: ScratchChoice,
    /// When snapshots are taken.
    pub snapshot: Option<JobSettings>,
    /// When the newest backups are verified, and how deep.
    pub verify: Option<JobSettings>,
    /// How deep a scheduled verification goes.
    pub verify_depth: Depth,
    /// When it is pruned.
    pub prune: Option<JobSettings>,
    /// What counts as overdue.
    pub alarm: AlarmSettings,
    /// How long its backups are kept.
    pub retention: RetentionPolicy,
    /// Queries that must return no row.
    pub assertions: Vec<Assertion>,
    /// What is asked after a migration.
    pub health: HealthSettings,
    /// Where this cluster's client programs are looked for first.
    pub bin_dir: Option<PathBuf>,
}

/// Where a connection string comes from.
#[derive(Debug, Clone)]
pub enum ConnectionSource {
    /// The string itself, and where it was set.
    Text(Secret, String),
    /// A private file that holds it.
    File(PathBuf),
    /// An environment variable that `url_env` names.
    Variable(String),
    /// `PG*`, as libpq reads them.
    PgVariables,
}

/// Which databases are meant when a command names none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Databases {
    /// Every database that allows connections.
    All,
    /// The one in the connection string: what an environment URL means.
    OfConnection,
    /// These.
    Named(Vec<String>),
}

/// Commands around a run, each a program with its arguments; empty means none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before; if it fails, nothing runs.
    pub before: Vec<String>,
    /// After success.
    pub after: Vec<String>,
    /// After failure.
    pub failed: Vec<String>,
}

/// Where copies are proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScratchChoice {
    /// In an ephemeral cluster, else in a database on the server.
    Auto,
    /// In an ephemeral cluster below this directory, or nowhere.
    Directory(PathBuf),
    /// In a database on this server.
    Server(Secret),
}

/// The addresses of an application that must be well after a migration.
#[derive(Debug, Clone)]
pub struct HealthSettings {
    /// Each must answer a GET with success.
    pub urls: Vec<Secret>,
    /// Within so long, all together.
    pub within: Duration,
}

/// A query that must return no row after every restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// What it says.
    pub name: String,
    /// The query.
    pub sql: String,
}

impl Settings {
    /// The cluster that is meant: the one named, else the only one, else `main`.
    pub fn cluster(&self) -> Result<(&ClusterName, &ClusterSettings), ConfigError> {
        let known = || self.clusters.keys().map(ToString::to_string).collect::<Vec<_>>();
        if let Some(name) = &self.selected {
            return self.clusters.get_key_value(name).ok_or_else(|| ConfigError::UnknownCluster {
                name: name.to_string(),
                known: known(),
            });
        }
        let mut all = self.clusters.iter();
        match (all.next(), all.next()) {
            (Some(only), None) => Ok(only),
            _ => self
                .clusters
                .iter()
                .find(|(name, _)| name.as_str() == super::DEFAULT_CLUSTER)
                .ok_or_else(|| ConfigError::WhichCluster { known: known() }),
        }
    }

    /// Where the repository is.
    pub fn location(&self) -> Result<&RepositoryLocation, ConfigError> {
        self.repository.location.as_ref().ok_or(ConfigError::NoRepository)
    }

    /// A cluster's connection string; none means `PG*` as libpq reads them.
    pub fn connection_text(
        &self,
        name: &ClusterName,
        cluster: &ClusterSettings,
    ) -> Result<Option<Secret>, ConfigError> {
        match &cluster.connection {
            ConnectionSource::Text(text, _) => Ok(Some(text.clone())),
            ConnectionSource::File(path) => {
                let text = files::read_secret(path, "a connection string")?;
                Ok(Some(Secret::new(text.expose().trim().to_owned())))
            }
            ConnectionSource::Variable(variable) => {
                let text = self.environment.get(variable).ok_or_else(|| ConfigError::Unset {
                    key: format!("clusters.{name}.url_env"),
                    name: variable.clone(),
                })?;
                Ok(Some(Secret::new(text.to_owned())))
            }
            ConnectionSource::PgVariables => Ok(None),
        }
    }
}

/// What a cluster that is not configured, or whose URL is not, connects to.
pub(super) fn fallback_connection(environment: &Environment) -> ConnectionSource {
    let found = OTHERS_URLS.iter().find_map(|name| Some((name, environment.get(name)?)));
    match found {
        Some((name, text)) => {
            ConnectionSource::Text(Secret::new(text.to_owned()), environment.origin(name))
        }
        None => ConnectionSource::PgVariables,
    }
}

/// Where a key is looked for when none is named.
pub(super) fn at_home(home: &Path, file_name: &str) -> KeySource {
    KeySource::AtHome(home.join(file_name))
}
