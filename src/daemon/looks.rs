//! What the scheduler has to know and cannot wait for: the catalog, the databases of a server, the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    let (tasks, settings) = (tasks.clone(), Arc::clone(settings));
    let (name, cluster) = (name.clone(), cluster.clone());
    tokio::spawn(async move {
        let listed = async {
            let connection = wiring::connection(&settings, &name, &cluster);
            let connection = connection.map_err(|error| Failed::of(&error))?;
            let listed = wiring::databases(&settings, &cluster, &connection).await;
            listed.map_err(|error| Failed::of(&error))
        };
        let listed = listed.await;
        tasks.send(Message::Listed(name, listed)).await;
    });
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
    /// Tries to reach the repository again.
    pub(super) fn open(&self, settings: Arc<Settings>) {
        let tasks = self.clone();
        tokio::spawn(async move {
            let opened = open(settings).await;
            let still = |reloaded: &Reloaded| reloaded.repository.is_none();
            if opened.as_ref().is_ok_and(still) {
                let error = Failed {
                    kind: FailureKind::Store,
                    message: "the repository is still out of reach".to_owned(),
                    hint: None,
                };
                return tasks.send(Message::Opened(Err(error))).await;
            }
            tasks.send(Message::Opened(opened)).await;
        });
    }

    /// Reads the configuration again; a bad one is refused, and the old one stays in force.
    pub(super) fn reload(&self) {
        let tasks = self.clone();
        tokio::spawn(async move {
            let load = Arc::clone(&tasks.load);
            let loaded = tokio::task::spawn_blocking(move || load()).await;
            let loaded = loaded.expect("reading the configuration does not panic");
            let opened = match loaded {
                Ok(settings) => anew(Arc::new(settings), &tasks.deaf).await,
                Err(error) => Err(error),
            };
            let refused = |error: Failed| {
                let message = format!("the old configuration stays in force: {}", error.message);
                Failed { message, ..error }
            };
            tasks.send(Message::Opened(opened.map_err(refused))).await;
        });
    }

    /// Looks at the catalog.
    pub(super) fn look(
        &self,
        repository: Repository,
        settings: &Arc<Settings>,
        databases: BTreeMap<ClusterName, Vec<String>>,
    ) {
        let (tasks, settings) = (self.clone(), Arc::clone(settings));
        tokio::spawn(async move {
            let mut remembered = tasks.remembered.lock().await;
            let looked = async {
                let catalog = repository.catalog_again(&mut remembered).await;
                let catalog = catalog.map_err(|error| Failed::of(&error))?;
                let status = status::look(&repository, &settings, &databases, &catalog).await;
                let status = status.map_err(|error| Failed::of(&error))?;
                Ok(Box::new(Look { catalog, status }))
            };
            let looked = looked.await;
            drop(remembered);
            tasks.send(Message::Looked(looked)).await;
        });
    }

    /// What was read with other keys counts no more.
    pub(super) fn forget(&self) {
        let remembered = Arc::clone(&self.remembered);
        tokio::spawn(async move { *remembered.lock().await = Remembered::default() });
    }
}
