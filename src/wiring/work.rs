//! What verbs are given, from the configuration: the same for a command and for the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{WiringError, bin_dir, connection, host_name, other_connection};
use crate::config::{self, ClusterSettings, ConnectionSource, Databases, Settings};
use crate::domain::audit::{Actor, Origin};
use crate::domain::connection::ConnectionInfo;
use crate::domain::id::ClusterName;
use crate::domain::observer::Observer;
use crate::domain::told::{Failed, failed};
use crate::domain::verification::Depth;
use crate::ops::snapshot::{self, SnapshotError};
use crate::ops::verify::{ScratchChoice, Verifying};
use crate::proof::Assertion;
use crate::repo::Repository;
use crate::scratch::space;

/// Where copies are proved: as configured, else the temporary directory, else where a disk is.
pub fn scratch_dir(settings: &Settings) -> PathBuf {
    if let Some(configured) = &settings.scratch_dir {
        return configured.clone();
    }
    let usual = std::env::temp_dir();
    let on_disk = |path: &Path| space::of(path).is_ok_and(|space| !space.memory);
    match Path::new("/var/tmp") {
        other if !on_disk(&usual) && on_disk(other) => other.to_owned(),
        _ => usual,
    }
}

/// Who runs this process, for the audit trail.
pub fn actor(origin: Origin) -> Actor {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    let user = named.unwrap_or_else(|| format!("uid {uid}"));
    Actor { origin, user, host: host_name() }
}

/// What must hold in a copy.
pub fn assertions(cluster: &ClusterSettings) -> Vec<Assertion> {
    let assertion =
        |own: &config::Assertion| Assertion { name: own.name.clone(), sql: own.sql.clone() };
    cluster.assertions.iter().map(assertion).collect()
}

/// Whether anything says where a cluster's server is.
pub fn is_server_named(settings: &Settings, cluster: &ClusterSettings) -> bool {
    let anywhere = ["PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE"];
    let told = |name: &&str| settings.environment.get(name).is_some();
    !matches!(cluster.connection, ConnectionSource::PgVariables) || anywhere.iter().any(told)
}

/// Where a cluster's copies are proved.
pub fn scratch_choice(
    settings: &Settings,
    cluster: &ClusterSettings,
) -> Result<ScratchChoice, WiringError> {
    Ok(match &cluster.scratch {
        config::ScratchChoice::Auto => ScratchChoice::Auto,
        config::ScratchChoice::Directory(path) => ScratchChoice::Directory(path.clone()),
        config::ScratchChoice::Server(text) => {
            let server = other_connection(&settings.environment, text.expose());
            ScratchChoice::Server(Box::new(server?))
        }
    })
}

/// The databases that a snapshot without further words would take.
pub async fn databases(
    settings: &Settings,
    cluster: &ClusterSettings,
    connection: &ConnectionInfo,
) -> Result<Vec<String>, SnapshotError> {
    if let Some(one) = &settings.database {
        return Ok(vec![one.clone()]);
    }
    match &cluster.databases {
        Databases::Named(names) => Ok(names.clone()),
        Databases::OfConnection => Ok(vec![connection.database().to_owned()]),
        Databases::All => snapshot::databases(connection).await,
    }
}

/// The databases of a cluster that are to be backed up, as the configuration names them or its server has them.
///
/// None on a host that names no server: those that have backups are meant. What libpq would take for the server then
/// is this host's own, if any, and nobody spoke of it.
pub async fn databases_meant(
    settings: &Settings,
    name: &ClusterName,
    cluster: &ClusterSettings,
) -> Result<Option<Vec<String>>, Failed> {
    if let Some(one) = &settings.database {
        return Ok(Some(vec![one.clone()]));
    }
    match &cluster.databases {
        Databases::Named(names) => return Ok(Some(names.clone())),
        Databases::OfConnection | Databases::All if !is_server_named(settings, cluster) => {
            return Ok(None);
        }
        Databases::OfConnection | Databases::All => {}
    }
    let connection = connection(settings, name, cluster).map_err(failed)?;
    databases(settings, cluster, &connection).await.map(Some).map_err(failed)
}

/// What the verifications of one cluster work with.
#[derive(Debug)]
pub struct Proving {
    server: Option<ConnectionInfo>,
    bin_dir: Option<PathBuf>,
    scratch_dir: PathBuf,
    scratch: ScratchChoice,
    assertions: Vec<Assertion>,
    idle: Duration,
    host: String,
}

impl Proving {
    /// As configured.
    pub fn of(
        settings: &Settings,
        name: &ClusterName,
        cluster: &ClusterSettings,
    ) -> Result<Self, WiringError> {
        // Nothing at all would mean the local server, which nobody asked for here.
        let named = is_server_named(settings, cluster);
        Ok(Self {
            server: named.then(|| connection(settings, name, cluster).ok()).flatten(),
            bin_dir: bin_dir(settings, cluster),
            scratch_dir: scratch_dir(settings),
            scratch: scratch_choice(settings, cluster)?,
            assertions: assertions(cluster),
            idle: cluster.idle_timeout,
            host: host_name(),
        })
    }

    /// For backups of that repository.
    pub fn verifying<'a>(
        &'a self,
        repository: &'a Repository,
        depth: Depth,
        observer: &'a dyn Observer,
        cancel: &'a CancellationToken,
    ) -> Verifying<'a> {
        Verifying {
            repository,
            server: self.server.as_ref(),
            bin_dir: self.bin_dir.as_deref(),
            scratch_dir: &self.scratch_dir,
            scratch: &self.scratch,
            assertions: &self.assertions,
            depth,
            idle: self.idle,
            signer: repository.keys().writer.as_ref().map(|writer| &writer.signing),
            host: &self.host,
            observer,
            cancel,
        }
    }
}
