//! `adopt`: a person takes a doubt off a backup.
//!
//! A suspect snapshot is adopted when its few rows are right; one of a foreign server when that server
//! belongs to the cluster's name (after `pg_upgrade`, a new `initdb`, a move). What is put is one signed mark
//! (`docs/decisions/0004-suspect-and-foreign.md`); a crash leaves it whole or not at all, and adopting again
//! what has been adopted changes nothing.

use crate::domain::adoption::Adoption;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::selector::{Selector, SelectorError};
use crate::repo::catalog::{Entry, Filter};
use crate::repo::documents::FORMAT;
use crate::repo::{RepoError, Repository};

/// Why nothing was adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// A text that names no backup.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// No id was given, and more than one thing waits.
    #[error("several backups wait to be adopted: {}", .0.join(", "))]
    Several(Vec<String>),
}

impl Failure for AdoptError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Repo(error) => error.kind(),
            Self::Selector(_) | Self::Several(_) => FailureKind::Usage,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Repo(error) => error.hint(),
            Self::Selector(_) => Some(
                "an id or its beginning, `latest`, `latest~1` or `latest:pre-migration`".to_owned(),
            ),
            Self::Several(_) => {
                Some("look at each with `pgkeep show ID`, then name one".to_owned())
            }
        }
    }
}

/// What was adopted.
#[derive(Debug, Clone)]
pub struct AdoptReport {
    /// The backup, without its doubts.
    pub entry: Entry,
    /// Its doubts, as they were; none where there was nothing to adopt.
    pub doubts: Vec<String>,
}

/// The doubts about a backup, in words.
pub fn doubts(entry: &Entry) -> Vec<String> {
    let suspect = entry.suspect.as_ref().map(|suspect| format!("suspect: {}", suspect.reason()));
    let server = entry.manifest.system_identifier.as_deref().unwrap_or("unknown");
    let foreign = entry.foreign.then(|| format!("foreign: of the server {server}"));
    suspect.into_iter().chain(foreign).collect()
}

/// Adopts the backup that is named, or the only one that waits; none when nothing waits.
pub async fn run(
    repository: &Repository,
    filter: &Filter,
    wanted: Option<&str>,
    host: &str,
) -> Result<Option<AdoptReport>, AdoptError> {
    let Some(mut entry) = chosen(repository, filter, wanted).await? else { return Ok(None) };
    let doubts = doubts(&entry);
    if !doubts.is_empty() {
        let manifest = &entry.manifest;
        let server = manifest.system_identifier.clone().filter(|_| entry.foreign);
        let adoption = Adoption {
            format: FORMAT,
            backup: manifest.id.clone(),
            database: manifest.database.clone(),
            system_identifier: server,
            rows: entry.suspect.is_some(),
            adopted_at: repository.ambient().now(),
            host: host.to_owned(),
        };
        repository.put_adoption(&manifest.cluster, &adoption).await?;
        (entry.suspect, entry.foreign) = (None, false);
    }
    Ok(Some(AdoptReport { entry, doubts }))
}

async fn chosen(
    repository: &Repository,
    filter: &Filter,
    wanted: Option<&str>,
) -> Result<Option<Entry>, AdoptError> {
    let mut catalog = repository.catalog(filter).await?;
    if let Some(wanted) = wanted {
        let selector: Selector = wanted.parse()?;
        return Ok(Some(catalog.resolve(&selector, wanted)?));
    }
    // One adoption is enough for all backups of a server, and for a database's suspects up to the newest.
    let mut waiting: Vec<Entry> = Vec::new();
    for entry in catalog.entries.into_iter().filter(Entry::is_in_doubt) {
        let covers = |newer: &Entry| {
            let same_database = newer.manifest.database == entry.manifest.database
                && newer.manifest.cluster == entry.manifest.cluster;
            let server = &entry.manifest.system_identifier;
            (!entry.foreign || (newer.foreign && newer.manifest.system_identifier == *server))
                && (entry.suspect.is_none() || (newer.suspect.is_some() && same_database))
        };
        if !waiting.iter().any(covers) {
            waiting.push(entry);
        }
    }
    match &waiting[..] {
        [] => Ok(None),
        [_] => Ok(waiting.pop()),
        several => {
            let ids = several
                .iter()
                .map(|entry| format!("{} ({})", entry.manifest.id, entry.manifest.database));
            Err(AdoptError::Several(ids.collect()))
        }
    }
}
