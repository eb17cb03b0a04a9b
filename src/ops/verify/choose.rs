//! Which backups a verification is about.

use std::collections::BTreeSet;

use super::VerifyError;
use crate::domain::selector::Selector;
use crate::repo::Repository;
use crate::repo::catalog::{Catalog, Entry, Filter};

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

/// The backups of `choice`, newest first (or in the order in which they were named).
pub async fn choose(
    repository: &Repository,
    filter: &Filter,
    choice: &Choice,
) -> Result<Vec<Entry>, VerifyError> {
    let mut catalog = repository.catalog(filter).await?;
    let entries = match choice {
        Choice::These(names) => {
            let mut entries = Vec::new();
            for name in names {
                let selector: Selector = name.parse()?;
                let mut again = repository.catalog(filter).await?;
                entries.push(again.resolve(&selector, name)?);
            }
            entries
        }
        Choice::All => whole(catalog)?,
        Choice::LatestOfEach => {
            let mut seen = BTreeSet::new();
            catalog.entries.retain(|entry| {
                let manifest = &entry.manifest;
                seen.insert((manifest.cluster.clone(), manifest.database.clone()))
            });
            whole(catalog)?
        }
    };
    if entries.is_empty() { Err(VerifyError::Nothing) } else { Ok(entries) }
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
