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
use crate::domain::told::Failed;
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

/// A configuration that is in force, and its repository, if that can be reached.
#[derive(Debug)]
pub(super) struct Reloaded {
    pub(super) settings: Arc<Settings>,
    pub(super) repository: Option<Repository>,
    /// What the snapshot hook asks for.
    pub(super) token: Option<Secret>,
    /// Where the configuration was read again.
    pub(super) notifier: Option<Notifier>,
}

/// The databases of a cluster that are to be backed up.
pub(super) fn list(
    tasks: &Tasks,
    settings: &Arc<Settings>,
    name: &ClusterName,
    cluster: &ClusterSettings,
) {
    let (settings, name, cluster) = (Arc::clone(settings), name.clone(), cluster.clone());
    let told = name.clone();
    let listed = async move {
        let connection = wiring::connection(&settings, &name, &cluster);
        let connection = connection.map_err(|error| Failed::of(&error))?;
        let listed = wiring::databases(&settings, &cluster, &connection).await;
        listed.map_err(|error| Failed::of(&error))
    };
    tasks.look_aside(listed, |listed| Message::Listed(told, listed));
}

/// Opens the repository of a configuration. One whose store does not answer just now is no reason to refuse the
/// configuration; one that does not fit its keys is.
pub(super) async fn open(settings: Arc<Settings>) -> Result<Reloaded, Failed> {
    let token = settings.daemon.read_token().map_err(|error| Failed::of(&error))?;
    let repository = match wiring::open_repository(&settings).await {
        Ok(repository) => Some(repository),
        Err(error) => {
            let failed = Failed::of(&error);
            if failed.kind != FailureKind::Store {
                return Err(failed);
            }
            tracing::warn!("the repository is out of reach: {}", failed.message);
            None
        }
    };
    Ok(Reloaded { settings, repository, token, notifier: None })
}

/// As [`open`], with those who are told.
async fn anew(settings: Arc<Settings>, deaf: &CancellationToken) -> Result<Reloaded, Failed> {
    let notifier = wiring::notifier(&settings, deaf).map_err(|error| Failed::of(&error))?;
    Ok(Reloaded { notifier: Some(notifier), ..open(settings).await? })
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

    /// Tries to reach the repository again.
    pub(super) fn open(&self, settings: Arc<Settings>) {
        let opened = async move {
            let opened = open(settings).await?;
            let out_of_reach = || Failed {
                kind: FailureKind::Store,
                message: "the repository is still out of reach".to_owned(),
                hint: None,
            };
            if opened.repository.is_none() { Err(out_of_reach()) } else { Ok(opened) }
        };
        self.look_aside(opened, Message::Opened);
    }

    /// Reads the configuration again; a bad one is refused, and the old one stays in force.
    pub(super) fn reload(&self) {
        let (load, deaf) = (Arc::clone(&self.load), self.deaf.clone());
        let opened = async move {
            let loaded = tokio::task::spawn_blocking(move || load()).await;
            let settings = loaded.unwrap_or_else(|_| Err(Failed::panicked()))?;
            anew(Arc::new(settings), &deaf).await
        };
        let refused = |error: Failed| {
            let message = format!("the old configuration stays in force: {}", error.message);
            Failed { message, ..error }
        };
        self.look_aside(opened, move |opened| Message::Opened(opened.map_err(refused)));
    }

    /// Looks at the catalog.
    pub(super) fn look(
        &self,
        repository: Repository,
        remembered: Arc<Mutex<Remembered>>,
        settings: &Arc<Settings>,
        mut databases: BTreeMap<ClusterName, Vec<String>>,
    ) {
        let settings = Arc::clone(settings);
        let looked = async move {
            let mut remembered = remembered.lock().await;
            let catalog = repository.catalog_again(&mut remembered).await;
            let catalog = catalog.map_err(|error| Failed::of(&error))?;
            // Where a server never gave its list, those that have backups are meant.
            for (name, found) in catalog.databases() {
                databases.entry(name).or_insert(found);
            }
            let status = status::look(&repository, &settings, &databases, &catalog).await;
            let status = status.map_err(|error| Failed::of(&error))?;
            Ok(Box::new(Look { catalog, status }))
        };
        self.look_aside(looked, Message::Looked);
    }
}
