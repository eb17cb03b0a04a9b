//! `list`, `show`, `pin`, `unpin`: looking at the catalog, and marking it.

use crate::domain::audit::Recorded;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::inventory::Inventory;
use crate::domain::observer::{Observer, Severity, Silent};
use crate::domain::selector::{Selector, SelectorError};
use crate::domain::verification::VerificationRecord;
use crate::repo::catalog::{Catalog, Entry, Filter};
use crate::repo::{RepoError, Repository, layout};

/// So many of what an id could mean are told.
const CHOICES_MAX: usize = 8;

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// A text that names no backup.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// Neither a backup nor a run.
    #[error("no backup and no run matches `{0}`")]
    NoSuch(String),
    /// The sealed inventory is not one.
    #[error("the inventory of {id} cannot be read")]
    Inventory {
        /// The backup.
        id: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Failure for InspectError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Repo(error) => error.kind(),
            Self::Selector(_) => FailureKind::Usage,
            Self::NoSuch(_) => FailureKind::NotFound,
            Self::Inventory { .. } => FailureKind::Damage,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Repo(error) => error.hint(),
            Self::Selector(_) => Some(
                "an id or its beginning, `latest`, `latest~1` or `latest:pre-migration`".to_owned(),
            ),
            Self::NoSuch(_) => Some(
                "`pgkeep list` shows the backups, `pgkeep log` the runs; `--database` and `--cluster` narrow them"
                    .to_owned(),
            ),
            Self::Inventory { .. } => Some("it may be of a newer pgkeep".to_owned()),
        }
    }
}

/// The backups, newest first, and what could not be read.
pub async fn list(repository: &Repository, filter: &Filter) -> Result<Catalog, InspectError> {
    Ok(repository.catalog(filter).await?)
}

/// The one backup that `wanted` names; doubts about it are told.
pub async fn find(
    repository: &Repository,
    filter: &Filter,
    wanted: &str,
    observer: &dyn Observer,
) -> Result<Entry, InspectError> {
    Ok(find_among(repository, filter, wanted, observer).await?.0)
}

/// The same, and the catalog of all the others.
pub async fn find_among(
    repository: &Repository,
    filter: &Filter,
    wanted: &str,
    observer: &dyn Observer,
) -> Result<(Entry, Catalog), InspectError> {
    let selector: Selector = wanted.parse()?;
    let mut catalog = repository.catalog(filter).await?;
    let entry = catalog.resolve(&selector, wanted)?;
    for remark in catalog.remarks(&entry, &selector) {
        observer.finding(Severity::Warning, &remark);
    }
    Ok((entry, catalog))
}

/// One backup with all that is known of it here.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The backup.
    pub entry: Entry,
    /// What was recorded of the database; none without an identity.
    pub inventory: Option<Inventory>,
    /// Its verifications, oldest first.
    pub verifications: Vec<VerificationRecord>,
    /// Commands that recover it with stock programs.
    pub recovery: Vec<String>,
}

/// One backup with its inventory (where this host holds an identity) and verifications.
pub async fn show(
    repository: &Repository,
    filter: &Filter,
    wanted: &str,
) -> Result<Shown, InspectError> {
    // What is in doubt is shown with the rest.
    let entry = find(repository, filter, wanted, &Silent).await?;
    let manifest = &entry.manifest;
    let inventory = match repository.keys().opener {
        Some(_) => Some(inventory(repository, &entry)?),
        None => None,
    };
    let verifications = repository.verifications(&manifest.cluster, &manifest.id).await?;
    let recovery = vec![
        format!("export REPOSITORY='{}'", repository.store.address()),
        format!(
            "export MANIFEST=\"$REPOSITORY/{}\"",
            layout::manifest(&manifest.cluster, &manifest.id)
        ),
        "export IDENTITY=identity.txt DATABASE=restored".to_owned(),
        "sed -n '/^```sh$/,/^```$/{//!p}' \"$REPOSITORY/RECOVER.md\" | sh".to_owned(),
    ];
    Ok(Shown { entry, inventory, verifications, recovery })
}

/// What an id names.
#[derive(Debug)]
pub enum Named {
    /// A backup.
    Backup(Box<Shown>),
    /// A run, by what is recorded of it.
    Run(Box<Recorded>),
}

/// The backup or the run that `wanted` names.
pub async fn show_any(
    repository: &Repository,
    filter: &Filter,
    wanted: &str,
) -> Result<Named, InspectError> {
    let backup = async || Ok(Named::Backup(Box::new(show(repository, filter, wanted).await?)));
    let Selector::Prefix(prefix) = wanted.parse()? else { return backup().await };
    let names = repository.manifest_names(filter.cluster.as_ref()).await?;
    if names.iter().any(|name| name.id.as_str() == wanted) {
        return backup().await;
    }
    let runs = runs(repository, filter, &prefix).await?;
    if runs.is_empty() {
        let named = names.iter().any(|name| name.id.as_str().starts_with(&*prefix));
        return if named { backup().await } else { Err(InspectError::NoSuch(wanted.to_owned())) };
    }
    let catalog = repository.catalog(filter).await?;
    let ids = catalog.entries.iter().map(|entry| &entry.manifest.id);
    let ids = ids.filter(|id| id.as_str().starts_with(&*prefix));
    let backups = ids.map(|id| format!("backup {id}"));
    let told = runs.iter().map(|one| format!("run {} ({})", one.event.run(), one.event.event));
    let choices: Vec<String> = backups.chain(told).take(CHOICES_MAX).collect();
    if choices.len() > 1 {
        return Err(RepoError::Ambiguous { wanted: wanted.to_owned(), choices }.into());
    }
    Ok(Named::Run(Box::new(runs.into_iter().next().expect("it is the one choice"))))
}

/// The runs whose id begins so, each by its last event; what a prune was about to remove is joined to that.
async fn runs(
    repository: &Repository,
    filter: &Filter,
    prefix: &str,
) -> Result<Vec<Recorded>, InspectError> {
    let trail = repository.events_of(filter.cluster.as_ref(), prefix).await?;
    let mut runs: Vec<Recorded> = Vec::new();
    for one in trail.events {
        match runs.iter_mut().find(|known| known.event.run() == one.event.run()) {
            Some(known) if known.event.backups.is_empty() => {
                known.event.backups = one.event.backups;
            }
            Some(_) => {}
            None => runs.push(one),
        }
    }
    runs.retain(|one| filter.database.as_ref().is_none_or(|name| one.event.is_about(name)));
    match trail.faults.into_iter().next() {
        Some(fault) if runs.is_empty() => Err(fault.into()),
        _ => Ok(runs),
    }
}

/// The inventory that a backup keeps sealed.
pub fn inventory(repository: &Repository, entry: &Entry) -> Result<Inventory, InspectError> {
    let json = repository.sealed_part(&entry.manifest)?;
    serde_json::from_slice(&json)
        .map_err(|source| InspectError::Inventory { id: entry.manifest.id.to_string(), source })
}

/// Pins a backup.
pub async fn pin(
    repository: &Repository,
    filter: &Filter,
    wanted: &str,
    observer: &dyn Observer,
) -> Result<Entry, InspectError> {
    let mut entry = find(repository, filter, wanted, observer).await?;
    if !entry.pinned {
        repository.pin(&entry.manifest.cluster, &entry.manifest.id).await?;
        entry.pinned = true;
    }
    Ok(entry)
}

/// Takes the pins off a backup.
pub async fn unpin(
    repository: &Repository,
    filter: &Filter,
    wanted: &str,
    observer: &dyn Observer,
) -> Result<Entry, InspectError> {
    let mut entry = find(repository, filter, wanted, observer).await?;
    repository.unpin(&entry.manifest.cluster, &entry.manifest.id).await?;
    entry.pinned = false;
    Ok(entry)
}
