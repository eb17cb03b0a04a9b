//! Which backups a verification is about.

use std::collections::BTreeSet;

use super::VerifyError;
use crate::domain::observer::{Observer, Severity};
use crate::domain::selector::Selector;
use crate::repo::catalog::{Catalog, Entry, Filter};
use crate::repo::{RepoError, Repository};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The newest of each database.
    LatestOfEach,
    /// Every backup.
    All,
    /// These, as people name them.
    These(Vec<String>),
}

/// The backups of `choice`, newest first (or in the order in which they were named). Those of a server that
/// the cluster does not know, and those taken before a restore, are nobody's latest, and that is told.
pub async fn choose(
    repository: &Repository,
    filter: &Filter,
    choice: &Choice,
    observer: &dyn Observer,
) -> Result<Vec<Entry>, VerifyError> {
    let mut catalog = repository.catalog(filter).await?;
    let entries = match choice {
        Choice::These(names) => {
            let mut entries = Vec::new();
            for name in names {
                let selector: Selector = name.parse()?;
                let mut again = repository.catalog(filter).await?;
                let entry = again.resolve(&selector, name)?;
                tell(&again, &entry, &selector, observer);
                entries.push(entry);
            }
            entries
        }
        Choice::All => whole(catalog)?,
        Choice::LatestOfEach => {
            let mut seen = BTreeSet::new();
            let may_be_latest = catalog.may_be_latest();
            let mut latest = catalog.entries.clone();
            latest.retain(|entry| {
                let manifest = &entry.manifest;
                may_be_latest(entry)
                    && seen.insert((manifest.cluster.clone(), manifest.database.clone()))
            });
            let selector = Selector::Latest { back: 0, trigger: None };
            for entry in &latest {
                tell(&catalog, entry, &selector, observer);
            }
            if latest.is_empty()
                && let Some(foreign) = catalog.entries.iter().find(|entry| entry.foreign)
            {
                let id = foreign.manifest.id.clone();
                return Err(RepoError::OnlyForeign { wanted: "latest".to_owned(), id }.into());
            }
            catalog.entries = latest;
            whole(catalog)?
        }
    };
    if entries.is_empty() { Err(VerifyError::Nothing) } else { Ok(entries) }
}

fn tell(catalog: &Catalog, entry: &Entry, selector: &Selector, observer: &dyn Observer) {
    for remark in catalog.remarks(entry, selector) {
        observer.finding(Severity::Warning, &remark);
    }
}

/// The entries, if no manifest is unreadable: what cannot be read must not pass by being left out.
fn whole(mut catalog: Catalog) -> Result<Vec<Entry>, VerifyError> {
    match catalog.faults.pop() {
        Some(fault) => {
            Err(VerifyError::Fault { id: fault.name.id.to_string(), source: fault.error })
        }
        None => Ok(catalog.entries),
    }
}
