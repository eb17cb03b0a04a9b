//! `restore --all`: a lost server. Roles, settings and the latest good snapshot of every database.
//!
//! All plans are made before anything is created, so that a name which is taken or an extension that is missing
//! is told while the server is still as it was. Then database after database is restored as alone; one that
//! fails does not stop the next.

use super::plan::{Destination, RestorePlan};
use super::{RestoreError, RestoreOptions, RestoreReport, Restoring, plan, run, survey};
use crate::domain::id::BackupId;
use crate::domain::inventory::Inventory;
use crate::domain::observer::Severity;
use crate::ops::copy::OpenedBackup;
use crate::repo::catalog::Entry;
use crate::scratch::database::maintenance_session;

/// One database's restore, or why there is none.
pub type Restored = (BackupId, Result<RestoreReport, RestoreError>);

/// Restores `entries`, each of another database, under their own names. `done` is told each as it ends.
///
/// Where a plan fails nothing is made, and only such plans are told.
pub async fn all(
    restoring: &Restoring<'_>,
    entries: &[Entry],
    options: &RestoreOptions,
    mut done: impl FnMut(&Restored),
) -> Result<Vec<Restored>, RestoreError> {
    let mut restored = Vec::new();
    let mut planned = Vec::new();
    for entry in entries {
        let id = &entry.manifest.id;
        match prepare(restoring, entry, options).await {
            Ok(Some((_, options))) => planned.push((entry, options)),
            Ok(None) => {}
            Err(RestoreError::Interrupted) => return Err(RestoreError::Interrupted),
            Err(error) => restored.push((id.clone(), Err(error))),
        }
    }
    if !restored.is_empty() {
        restored.iter().for_each(done);
        return Ok(restored);
    }
    if let Some(newest) = entries.iter().max_by_key(|entry| &entry.manifest.id) {
        tell_settings(restoring, newest).await?;
    }
    for (entry, options) in planned {
        let one = (entry.manifest.id.clone(), run(restoring, entry, &options).await);
        done(&one);
        restored.push(one);
        if restoring.cancel.is_cancelled() {
            break;
        }
    }
    Ok(restored)
}

/// What [`all`] would do with `entry`, which changes nothing; none when there is nothing to do.
pub async fn plan_of_all(
    restoring: &Restoring<'_>,
    entry: &Entry,
    options: &RestoreOptions,
) -> Result<Option<RestorePlan>, RestoreError> {
    Ok(prepare(restoring, entry, options).await?.map(|(plan, _)| plan))
}

/// How this database is restored; none when there is nothing to do.
///
/// A new server has a database `postgres` already. With nothing in it, it gives way (and is kept, as every
/// database that is replaced); when the snapshot of it holds nothing either, it stays.
async fn prepare(
    restoring: &Restoring<'_>,
    entry: &Entry,
    options: &RestoreOptions,
) -> Result<Option<(RestorePlan, RestoreOptions)>, RestoreError> {
    match plan(restoring, entry, options).await {
        Ok(plan) => Ok(Some((plan, options.clone()))),
        Err(RestoreError::NameTaken { database, target }) => {
            if !survey::is_empty(restoring.server, &database).await? {
                return Err(RestoreError::NotEmpty { database, target });
            }
            let backup = OpenedBackup::open(restoring.repository, entry).await?;
            if holds_nothing(&backup.inventory) {
                let told = format!("`{database}` is there, and its snapshot holds nothing");
                restoring.observer.finding(Severity::Notice, &told);
                return Ok(None);
            }
            let mut options = options.clone();
            options.destination = Destination { name: None, replace: true };
            options.consent.yes = true;
            let plan = plan(restoring, entry, &options).await?;
            Ok(Some((plan, options)))
        }
        Err(error) => Err(error),
    }
}

fn holds_nothing(inventory: &Inventory) -> bool {
    let extensions = inventory.extensions.iter().filter(|extension| extension.name != "plpgsql");
    inventory.relations.is_empty()
        && inventory.large_objects == 0
        && extensions.count() == 0
        && inventory.rows.is_empty()
}

/// A server's own configuration is in no dump. What it was is known, and told.
async fn tell_settings(restoring: &Restoring<'_>, entry: &Entry) -> Result<(), RestoreError> {
    let backup = OpenedBackup::open(restoring.repository, entry).await?;
    let (session, _) = maintenance_session(restoring.server, None).await?;
    let here = survey::settings(&session).await?;
    let differs = |(name, value): &(&String, &String)| {
        !matches!(name.as_str(), "server_version" | "server_encoding" | "port")
            && here.get(*name).is_some_and(|now| now != *value)
    };
    let settings = backup.inventory.settings.iter().filter(differs);
    let settings: Vec<String> = settings.map(|(name, value)| format!("{name} = {value}")).collect();
    if !settings.is_empty() {
        let told =
            format!("server settings of the source that differ here: {}", settings.join(", "));
        restoring.observer.finding(Severity::Notice, &told);
    }
    Ok(())
}
