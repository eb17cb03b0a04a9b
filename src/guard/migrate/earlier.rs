//! What an earlier guard has left that was killed, or whose end the store did not take.
//!
//! Crash story, by what the next run finds. Killed before the snapshot's commit: nothing, and nothing was changed.
//! After it: the snapshot, and no sign of a command, which was not begun. From right before the command on: the
//! snapshot and the event that says so. The command may have come to its end, may have been cut short, or may be at work
//! still, so its tool's history is compared with what it was. Killed while it went back: as `restore` leaves it, the live
//! database as it was or the swap complete, and then the other one is there under the name that it is kept by.

use std::collections::BTreeSet;

use super::Guarding;
use crate::domain::migration::{Earlier, State, since};
use crate::domain::observer::Severity;
use crate::domain::told::chain;
use crate::ops::restore;
use crate::postgres::PostgresError;
use crate::postgres::session::Session;
use crate::repo::RepoError;

const DATABASES: &str = "SELECT datname::text FROM pg_catalog.pg_database";

/// Why that could not be found out.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

/// The newest guarded run of this database, if its end is not recorded. Nobody is kept from a migration because that
/// cannot be told.
pub(super) async fn look(
    guarding: &Guarding<'_>,
    states: &[State],
    session: Option<&Session>,
) -> Option<Earlier> {
    match found(guarding, states, session).await {
        Ok(earlier) => earlier,
        Err(error) => {
            let told = format!("whether an earlier run has ended is not known: {}", chain(&error));
            guarding.observer.finding(Severity::Warning, &told);
            None
        }
    }
}

async fn found(
    guarding: &Guarding<'_>,
    states: &[State],
    session: Option<&Session>,
) -> Result<Option<Earlier>, LookError> {
    let (cluster, database) = (&guarding.snapshot.cluster, guarding.database);
    let unended = guarding.repository.unended_guard(cluster, database).await?;
    // What a plan is made for has no lock, and another one may be at work; this one is not its own predecessor.
    let Some(unended) = unended.filter(|one| one.run != *guarding.run.id()) else {
        return Ok(None);
    };
    let mut kept_as = Vec::new();
    if let Some(session) = session {
        let rows = session.client().query(DATABASES, &[]).await.map_err(PostgresError::from)?;
        let names: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        kept_as = restore::kept_before(database, &unended.snapshot, &names);
    }
    Ok(Some(Earlier {
        run: unended.run,
        snapshot: unended.snapshot,
        at: unended.at,
        host: unended.host,
        since: unended.begun.iter().flat_map(|begun| since(&begun.before, states)).collect(),
        command: unended.begun.map(|begun| begun.command),
        kept_as,
    }))
}
