//! Finds the snapshot to go back to. What is not plainly meant is refused: the swap is for production.

use std::collections::BTreeSet;

use super::RollbackError;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::manifest::{Manifest, Trigger};
use crate::domain::observer::{Observer, Severity};
use crate::domain::selector::Selector;
use crate::ops::inspect::{self, InspectError};
use crate::ops::restore::{RestoreError, shell};
use crate::repo::catalog::{Catalog, Entry, Filter};
use crate::repo::{RepoError, Repository};

/// What is meant without an id.
const NEWEST: &str = "latest:pre-migration";

/// Which snapshots this host may mean.
#[derive(Debug, Clone)]
pub struct Scope {
    /// What the command line names.
    pub named: Filter,
    /// The same, and what goes without saying: this host's only cluster, and the only database that is configured.
    pub meant: Filter,
    /// The clusters whose servers are configured here.
    pub configured: BTreeSet<ClusterName>,
}

/// The snapshot to go back to, and what came after it.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The snapshot.
    pub entry: Entry,
    /// Later backups of the same database, newest first.
    pub later: Vec<Later>,
    /// Whether it was named by its id, and is not only the newest.
    pub by_id: bool,
    /// The command that means it whatever comes meanwhile.
    pub command: String,
}

/// A backup that is later than the one that is gone back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    /// Its id.
    pub id: BackupId,
    /// Why it was taken.
    pub trigger: Trigger,
}

impl Chosen {
    /// Those that were taken before later migrations: what these did goes too.
    pub fn guarded(&self) -> impl Iterator<Item = &Later> {
        self.later.iter().filter(|later| later.trigger == Trigger::PreMigration)
    }

    /// What the migration tool's own bookkeeping needs afterwards, one line each.
    pub fn bookkeeping(&self) -> Vec<String> {
        super::tool::bookkeeping(&self.entry.manifest.labels)
    }

    /// A restore's failure, with hints that are commands for this very backup.
    pub fn failed(&self, source: RestoreError) -> RollbackError {
        let (id, command) = (self.entry.manifest.id.clone(), self.command.clone());
        RollbackError::Restore { source: Box::new(source), id, command }
    }
}

fn is_beside(entry: &Entry, manifest: &Manifest) -> bool {
    (&entry.manifest.cluster, &entry.manifest.database) == (&manifest.cluster, &manifest.database)
}

fn later(catalog: &Catalog, manifest: &Manifest) -> Vec<Later> {
    let is_later = |other: &&Entry| {
        is_beside(other, manifest) && other.manifest.started_at > manifest.started_at
    };
    let later = catalog.entries.iter().filter(is_later);
    later
        .map(|other| Later { id: other.manifest.id.clone(), trigger: other.manifest.trigger })
        .collect()
}

/// `pgkeep rollback ID`, with the words that the command line named it by.
fn command(id: &BackupId, named: &Filter) -> String {
    let cluster = named.cluster.iter().map(|cluster| format!(" --cluster {cluster}"));
    let database = named.database.iter().map(|name| format!(" --database {}", shell(name)));
    let words: String = cluster.chain(database).collect();
    format!("pgkeep rollback {id}{words}")
}

/// Finds the snapshot that `wanted` names, else the newest that was taken before a migration.
pub async fn choose(
    repository: &Repository,
    scope: &Scope,
    wanted: Option<&str>,
    observer: &dyn Observer,
) -> Result<Chosen, RollbackError> {
    let wanted = wanted.unwrap_or(NEWEST);
    let selector = wanted.parse::<Selector>().map_err(InspectError::from)?;
    let by_id = matches!(selector, Selector::Prefix(_));
    let filter = if by_id { &scope.named } else { &scope.meant };
    let found = inspect::find_among(repository, filter, wanted, observer).await;
    let (entry, catalog) = found.map_err(|error| match error {
        InspectError::Repo(RepoError::NoMatch(_)) if wanted == NEWEST => {
            RollbackError::NoneGuarded { database: filter.database.clone() }
        }
        error => error.into(),
    })?;
    let manifest = &entry.manifest;
    let id = manifest.id.clone();
    if !scope.configured.contains(&manifest.cluster) {
        let (cluster, configured) = (manifest.cluster.clone(), scope.configured.clone());
        return Err(RollbackError::ElsewhereCluster { id, cluster, configured });
    }
    if let Some(meant) = scope.meant.database.clone()
        && meant != manifest.database
    {
        let database = manifest.database.clone();
        let named = Filter { database: Some(database.clone()), ..scope.named.clone() };
        let command = command(&id, &named);
        return Err(RollbackError::OtherDatabase { id, database, meant, command });
    }
    // What somebody moved or cloned is not gone back to by chance, nor is what was before that.
    let foreign = |other: &&Entry| {
        other.foreign
            && is_beside(other, manifest)
            && other.manifest.trigger == manifest.trigger
            && other.manifest.started_at >= manifest.started_at
    };
    if !by_id && let Some(newer) = catalog.entries.iter().find(foreign) {
        let newer = newer.manifest.id.clone();
        let command = command(&id, &scope.named);
        return Err(RollbackError::PassedOver { id, newer, command });
    }
    let later = later(&catalog, manifest);
    let chosen = Chosen { command: command(&id, &scope.named), later, by_id, entry };
    let guarded: Vec<&str> = chosen.guarded().map(|later| later.id.as_str()).collect();
    if !guarded.is_empty() {
        let told = format!(
            "backup {id} is older than later guarded migrations, which are undone too; their snapshots: {}",
            guarded.join(", ")
        );
        observer.finding(Severity::Warning, &told);
    }
    Ok(chosen)
}

/// Whether later backups are those that were shown: another one may be of another migration.
pub(super) async fn look_again(
    repository: &Repository,
    chosen: &Chosen,
) -> Result<(), RollbackError> {
    let manifest = &chosen.entry.manifest;
    let filter = Filter {
        cluster: Some(manifest.cluster.clone()),
        database: Some(manifest.database.clone()),
    };
    let catalog = inspect::list(repository, &filter).await?;
    let shown = |later: &Later| chosen.later.iter().any(|one| one.id == later.id);
    let came: Vec<String> = later(&catalog, manifest)
        .iter()
        .filter(|later| !shown(later))
        .map(|later| later.id.to_string())
        .collect();
    if came.is_empty() {
        return Ok(());
    }
    let (database, command) = (manifest.database.clone(), chosen.command.clone());
    Err(RollbackError::BackupsCame { database, ids: came, command })
}
