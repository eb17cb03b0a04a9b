//! What the scheduler has to know and cannot wait for: the catalog, the databases of a server, the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::Tasks;
use super::engine::Message;
use crate::config::{ClusterSettings, Settings};
use crate::domain::connection::Secret;
use crate::domain::failure::FailureKind;
use crate::domain::id::ClusterName;
use crate::domain::status::Status;
use crate::domain::told::{Failed, failed};
use crate::notify::Notifier;
use crate::ops::status;
use crate::repo::Repository;
use crate::repo::catalog::Catalog;
use crate::repo::remembered::Remembered;
use crate::wiring;

/// What a look at the repository shows.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) catalog: Catalog,
    pub(super) status: Status,
}

/// A configuration that can be put in force.
#[derive(Debug)]
pub(super) struct Reloaded {
    pub(super) settings: Arc<Settings>,
    /// Or why its store gives none just now.
    pub(super) repository: Result<Repository, Failed>,
    /// What the snapshot hook asks for.
    pub(super) token: Option<Secret>,
    pub(super) notifier: Notifier,
}

/// Opens the repository of a configuration: an error within where its store gives none just now, which may pass; one
/// around it where the repository does not fit the keys, which does not.
pub(super) async fn open(settings: &Settings) -> Result<Result<Repository, Failed>, Failed> {
    match wiring::open_repository(settings).await.map_err(failed) {
        Err(error) if error.kind != FailureKind::Store => Err(error),
        opened => Ok(opened),
    }
}

/// Reads what is to take the place of `before`. The place that is in force may be away just now; another one that cannot
/// be opened may be mistyped, and is refused.
async fn anew(
    settings: Settings,
    before: &Settings,
    deaf: &CancellationToken,
) -> Result<Reloaded, Failed> {
    let place =
        |of: &Settings| (of.repository.location.clone(), of.repository.service.endpoint.clone());
    let token = settings.daemon.read_token().map_err(failed)?;
    let repository = match open(&settings).await? {
        Err(error) if place(&settings) != place(before) => return Err(error),
        opened => opened,
    };
    let notifier = wiring::notifier(&settings, deaf).map_err(failed)?;
    Ok(Reloaded { settings: Arc::new(settings), repository, token, notifier })
}

impl Tasks {
    /// Looks at something, and sends what it shows. A look that panics has failed: the next one is made all the same.
    fn look_aside<T: Send + 'static>(
        &self,
        look: impl Future<Output = Result<T, Failed>> + Send + 'static,
        message: impl FnOnce(Result<T, Failed>) -> Message + Send + 'static,
    ) {
        let tasks = self.clone();
        tokio::spawn(async move {
            let shown = tokio::spawn(look).await;
            tasks.send(message(shown.unwrap_or_else(|_| Err(Failed::panicked())))).await;
        });
    }

    /// Asks for the databases of a cluster that are to be backed up; none on a host that names no server.
    pub(super) fn list(
        &self,
        generation: u64,
        settings: &Arc<Settings>,
        name: &ClusterName,
        cluster: &ClusterSettings,
    ) {
        let (settings, name, cluster) = (Arc::clone(settings), name.clone(), cluster.clone());
        let told = name.clone();
        let listed = async move { wiring::databases_meant(&settings, &name, &cluster).await };
        self.look_aside(listed, move |listed| Message::Listed(generation, told, listed));
    }

    /// Tries to open the repository again.
    pub(super) fn open(&self, settings: Arc<Settings>) {
        let opened = async move { open(&settings).await? };
        self.look_aside(opened, Message::Opened);
    }

    /// Reads the configuration again; a bad one is refused, and the old one stays in force.
    pub(super) fn reload(&self, before: Arc<Settings>) {
        let (load, deaf) = (Arc::clone(&self.load), self.deaf.clone());
        let reloaded = async move {
            let loaded = tokio::task::spawn_blocking(move || load()).await;
            let settings = loaded.unwrap_or_else(|_| Err(Failed::panicked()))?;
            anew(settings, &before, &deaf).await
        };
        self.look_aside(reloaded, Message::Reloaded);
    }

    /// Looks at the catalog.
    pub(super) fn look(
        &self,
        generation: u64,
        repository: Repository,
        remembered: Arc<Mutex<Remembered>>,
        settings: &Arc<Settings>,
        mut databases: BTreeMap<ClusterName, Vec<String>>,
    ) {
        let settings = Arc::clone(settings);
        let looked = async move {
            let mut remembered = remembered.lock().await;
            let catalog = repository.catalog_again(&mut remembered).await;
            let catalog = catalog.map_err(failed)?;
            // Where no server gave its list, those that have backups are meant.
            for (name, found) in catalog.databases() {
                databases.entry(name).or_insert(found);
            }
            let status = status::look(&repository, &settings, &databases, &catalog).await;
            let status = status.map_err(failed)?;
            Ok(Box::new(Look { catalog, status }))
        };
        self.look_aside(looked, move |looked| Message::Looked(generation, looked));
    }
}
