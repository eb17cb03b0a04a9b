//! From merged leaves to [`Settings`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;

use super::daemon::{RawDaemon, RawNotify, daemon, notify};
use super::health::{RawHealth, health};
use super::jobs::{RawAlarm, RawJob, RawVerify, alarm, job};
use super::retention::{RawRetention, retention};
use super::section::{Section, duration};
use super::settings::{
    Assertion, ChecksumPolicy, ClusterSettings, ConnectionSource, Databases, EncryptionSettings,
    Hooks, IDENTITY_FILE_NAME, KeySource, RepositoryLocation, RepositorySettings, ScratchChoice,
    ServiceSettings, Settings, WRITER_KEY_FILE_NAME, at_home, fallback_connection,
};
use super::{ConfigError, DEFAULT_CLUSTER, Environment, Explained, Selection};
use crate::domain::connection::Secret;
use crate::domain::id::ClusterName;

/// The levels zstd gives a meaning that is worth having here.
const COMPRESSION_LEVELS: std::ops::RangeInclusive<i64> = -7..=19;
/// How long a cluster's server may be silent, unless said otherwise.
const CLUSTER_IDLE: Duration = Duration::from_mins(30);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    bin_dir: Option<PathBuf>,
    scratch_dir: Option<PathBuf>,
    repository: RawRepository,
    encryption: RawEncryption,
    compression: RawCompression,
    daemon: RawDaemon,
    #[serde(default)]
    notify: RawNotify,
    #[serde(default)]
    clusters: BTreeMap<String, RawCluster>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRepository {
    url: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    path_style: Option<bool>,
    checksums: Option<String>,
    idle_timeout: String,
    retry_for: String,
    grace: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEncryption {
    #[serde(default)]
    recipients: Vec<String>,
    recipients_file: Option<PathBuf>,
    writer_key: Option<String>,
    writer_key_file: Option<PathBuf>,
    #[serde(default)]
    trusted_signers: Vec<String>,
    identity: Option<String>,
    identity_file: Option<PathBuf>,
    insecure_plaintext: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCompression {
    level: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCluster {
    url: Option<String>,
    url_file: Option<PathBuf>,
    url_env: Option<String>,
    databases: Option<Vec<String>>,
    exclude_table_data: Vec<String>,
    idle_timeout: Option<String>,
    bin_dir: Option<PathBuf>,
    hooks: RawHooks,
    timezone: Option<String>,
    snapshot: RawJob,
    verify: RawVerify,
    prune: RawJob,
    alarm: RawAlarm,
    retention: RawRetention,
    assertions: Vec<RawAssertion>,
    health: RawHealth,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHooks {
    before: Vec<String>,
    after: Vec<String>,
    failed: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAssertion {
    name: String,
    sql: String,
}

/// `[repository]`; `refused` makes the error of a key and what it must be.
fn repository(
    raw: RawRepository,
    refused: &impl Fn(&str, &str) -> ConfigError,
) -> Result<RepositorySettings, ConfigError> {
    let location = match raw.url {
        Some(text) => Some(RepositoryLocation::parse(&text).ok_or_else(|| {
            refused(
                "repository.url",
                "file:///absolute/path, an absolute path, or s3://bucket/prefix",
            )
        })?),
        None => None,
    };
    let wait = |key: &str, text: &str| {
        let span = duration(text).filter(|span| !span.is_zero());
        span.ok_or_else(|| refused(key, "a duration such as 30s or 2m"))
    };
    let endpoint = raw.endpoint.map(|text| text.trim_end_matches('/').to_owned());
    if endpoint.as_deref().is_some_and(|text| !is_endpoint(text)) {
        let expected = "the address of a service without a path, such as https://s3.example.com";
        return Err(refused("repository.endpoint", expected));
    }
    let checksums = match raw.checksums.as_deref() {
        None => None,
        Some("when_supported") => Some(ChecksumPolicy::WhenSupported),
        Some("when_required") => Some(ChecksumPolicy::WhenRequired),
        Some(_) => {
            let expected = "\"when_supported\" or \"when_required\"";
            return Err(refused("repository.checksums", expected));
        }
    };
    Ok(RepositorySettings {
        location,
        grace: duration(&raw.grace)
            .ok_or_else(|| refused("repository.grace", "a duration such as 24h or 90m"))?,
        service: ServiceSettings {
            endpoint,
            region: raw.region,
            path_style: raw.path_style,
            checksums,
            idle_timeout: wait("repository.idle_timeout", &raw.idle_timeout)?,
            retry_for: wait("repository.retry_for", &raw.retry_for)?,
        },
    })
}

/// `http://host` or `https://host`, with a port or without, and no user in it.
fn is_endpoint(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let odd = |c: char| matches!(c, '/' | '@' | '?' | '#') || c.is_whitespace();
    host.is_some_and(|host| !host.is_empty() && !host.contains(odd))
}

/// What the leaves mean.
pub(super) fn settings(
    merged: config::Config,
    explained: &[Explained],
    environment: Environment,
    file: Option<PathBuf>,
    selection: &Selection,
) -> Result<Settings, ConfigError> {
    let raw: Raw = merged.try_deserialize()?;
    let origin = |key: &str| {
        let found = explained.iter().find(|entry| entry.key == key);
        found.map_or_else(|| "configuration".to_owned(), |entry| entry.origin.clone())
    };
    let refused = |key: &str, expected: &str| ConfigError::Shape {
        origin: origin(key),
        key: key.to_owned(),
        expected: expected.to_owned(),
    };
    let home = environment.config_home();
    let repository = repository(raw.repository, &refused)?;
    if !COMPRESSION_LEVELS.contains(&raw.compression.level) {
        return Err(refused("compression.level", "a whole number from -7 to 19"));
    }
    let selected = selected(selection, &environment)?;
    let clusters = clusters(raw.clusters, &origin, &environment, selected.as_ref())?;
    let encryption = encryption(raw.encryption, &home, &origin);
    let daemon = daemon(raw.daemon, &origin)?;
    let notify = notify(raw.notify, &origin)?;
    Ok(Settings {
        home,
        file,
        repository,
        encryption,
        compression_level: i32::try_from(raw.compression.level).expect("checked against the range"),
        scratch_dir: raw.scratch_dir,
        bin_dir: raw.bin_dir,
        daemon,
        notify,
        clusters,
        selected,
        database: selection.database.clone(),
        environment,
    })
}

/// The cluster that `--cluster` or `PGKEEP_CLUSTER` names.
fn selected(
    selection: &Selection,
    environment: &Environment,
) -> Result<Option<ClusterName>, ConfigError> {
    let (name, origin) = match (&selection.cluster, environment.get("PGKEEP_CLUSTER")) {
        (Some(name), _) => (name.as_str(), "--cluster".to_owned()),
        (None, Some(name)) => (name, environment.origin("PGKEEP_CLUSTER")),
        (None, None) => return Ok(None),
    };
    let refused = |_| ConfigError::Shape {
        origin,
        key: "cluster".to_owned(),
        expected: "named with lower-case letters, digits, `-` and `_`".to_owned(),
    };
    name.parse().map(Some).map_err(refused)
}

fn encryption(
    raw: RawEncryption,
    home: &Path,
    origin: &dyn Fn(&str) -> String,
) -> EncryptionSettings {
    let source = |text: Option<String>, path: Option<PathBuf>, key: &str, file_name: &str| match (
        text, path,
    ) {
        (Some(text), _) => KeySource::Text(Secret::new(text), origin(key)),
        (None, Some(path)) => KeySource::File(path),
        (None, None) => at_home(home, file_name),
    };
    EncryptionSettings {
        recipients: raw.recipients,
        recipients_file: raw.recipients_file,
        trusted_signers: raw.trusted_signers,
        insecure_plaintext: raw.insecure_plaintext,
        writer_key: source(
            raw.writer_key,
            raw.writer_key_file,
            "encryption.writer_key",
            WRITER_KEY_FILE_NAME,
        ),
        identity: source(
            raw.identity,
            raw.identity_file,
            "encryption.identity",
            IDENTITY_FILE_NAME,
        ),
    }
}

fn clusters(
    raw: BTreeMap<String, RawCluster>,
    origin: &dyn Fn(&str) -> String,
    environment: &Environment,
    selected: Option<&ClusterName>,
) -> Result<BTreeMap<ClusterName, ClusterSettings>, ConfigError> {
    let mut clusters = BTreeMap::new();
    for (name, raw) in raw {
        let settings = cluster(&name, raw, origin, environment)?;
        let name = name.parse().expect("checked when it was read");
        clusters.insert(name, settings);
    }
    if clusters.is_empty() {
        let name = match selected {
            Some(name) => name.clone(),
            None => DEFAULT_CLUSTER.parse().expect("a cluster name"),
        };
        clusters.insert(name, cluster("", RawCluster::default(), origin, environment)?);
    }
    Ok(clusters)
}

fn cluster(
    name: &str,
    raw: RawCluster,
    origin: &dyn Fn(&str) -> String,
    environment: &Environment,
) -> Result<ClusterSettings, ConfigError> {
    let section = Section { path: format!("clusters.{name}"), origin };
    let connection = match (raw.url, raw.url_file, raw.url_env) {
        (Some(text), _, _) => ConnectionSource::Text(Secret::new(text), section.origin("url")),
        (None, Some(path), _) => ConnectionSource::File(path),
        (None, None, Some(variable)) => ConnectionSource::Variable(variable),
        (None, None, None) => fallback_connection(environment),
    };
    let databases = databases(raw.databases, &section)?;
    let idle_timeout =
        section.duration("idle_timeout", raw.idle_timeout.as_ref(), CLUSTER_IDLE, "30m or 2h")?;
    if idle_timeout.is_zero() {
        return Err(section.refused("idle_timeout", "a duration such as 30m or 2h"));
    }
    let zone = section.zone("timezone", raw.timezone.as_ref(), &TimeZone::UTC)?;
    let (verify_depth, verify, scratch) = raw.verify.split(&section)?;
    let scratch = match scratch.as_deref() {
        None | Some("auto") => ScratchChoice::Auto,
        Some(text) if text.starts_with('/') => ScratchChoice::Directory(text.into()),
        Some(text) if text.contains("://") => ScratchChoice::Server(Secret::new(text.to_owned())),
        Some(_) => {
            let expected = "\"auto\", an absolute directory or a server's URL";
            return Err(section.refused("verify.scratch", expected));
        }
    };
    let assertion = |raw: RawAssertion| Assertion { name: raw.name, sql: raw.sql };
    Ok(ClusterSettings {
        connection,
        databases,
        exclude_table_data: raw.exclude_table_data,
        idle_timeout,
        hooks: Hooks { before: raw.hooks.before, after: raw.hooks.after, failed: raw.hooks.failed },
        scratch,
        snapshot: job("snapshot", raw.snapshot, &section, &zone)?,
        verify: job("verify", verify, &section, &zone)?,
        verify_depth,
        prune: job("prune", raw.prune, &section, &zone)?,
        alarm: alarm(&raw.alarm, &section)?,
        retention: retention(&raw.retention, &section, &zone)?,
        assertions: raw.assertions.into_iter().map(assertion).collect(),
        health: health(raw.health, &section)?,
        bin_dir: raw.bin_dir,
    })
}

/// Which are meant; a URL from the environment means its own database.
fn databases(named: Option<Vec<String>>, section: &Section<'_>) -> Result<Databases, ConfigError> {
    let configured = ["url", "url_file", "url_env"].map(|leaf| section.origin(leaf));
    let from_environment = configured.iter().any(|place| place.starts_with("PGKEEP_DATABASE_URL"))
        || configured.iter().all(|place| place == "configuration");
    match named {
        Some(names) if names.is_empty() => {
            let expected = "left out (every database) or name at least one";
            Err(section.refused("databases", expected))
        }
        Some(names) => Ok(Databases::Named(names)),
        None if from_environment => Ok(Databases::OfConnection),
        None => Ok(Databases::All),
    }
}
