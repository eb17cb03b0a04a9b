//! `--roles create`: makes the roles that the target lacks, as the snapshot's part `globals` has them.
//!
//! Crash story: all of it is one transaction, so a role is there with what belongs to it or not at all, and the
//! next run goes on from there. Roles that are made stay if the restore fails afterwards: they are as they were.

use super::RestoreError;
use crate::domain::globals::{Globals, MissingRoles};
use crate::domain::manifest::PartKind;
use crate::ops::copy::{CopyError, OpenedBackup};
use crate::postgres::session::Session;
use crate::scratch::sql::Statements as _;

use super::Restoring;
use super::plan::Target;

/// What is missing on the target. From then on its roles count as there.
pub(super) async fn missing(
    restoring: &Restoring<'_>,
    backup: &OpenedBackup<'_>,
    target: &mut Target,
) -> Result<MissingRoles, RestoreError> {
    let manifest = &backup.entry.manifest;
    let part = manifest.parts.iter().find(|part| part.kind == PartKind::Globals);
    let part = part.ok_or_else(|| CopyError::NoGlobals(manifest.id.to_string()))?;
    let mut text = Vec::new();
    backup
        .fetch(&part.name, restoring.observer, restoring.cancel, async |bytes| {
            text.extend_from_slice(&bytes);
            true
        })
        .await?;
    let missing = Globals::parse(&String::from_utf8_lossy(&text)).missing(&target.roles);
    target.roles.extend(missing.names.iter().cloned());
    Ok(missing)
}

/// Makes them; returns what could not be given to them, one line each.
pub(super) async fn make(
    session: &Session,
    roles: &MissingRoles,
) -> Result<Vec<String>, RestoreError> {
    if roles.names.is_empty() {
        return Ok(Vec::new());
    }
    session.execute("BEGIN").await?;
    for statement in &roles.create {
        session.execute(statement).await?;
    }
    let mut left_out = Vec::new();
    for statement in &roles.complete {
        session.execute("SAVEPOINT attribute").await?;
        match session.execute(statement).await {
            Ok(()) => session.execute("RELEASE SAVEPOINT attribute").await?,
            Err(error) if error.sqlstate().is_some() => {
                session.execute("ROLLBACK TO SAVEPOINT attribute").await?;
                left_out.push(format!("{}; -- {error}", without_password(statement)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    session.execute("COMMIT").await?;
    Ok(left_out)
}

/// What may be shown of a statement.
fn without_password(statement: &str) -> &str {
    statement.split_once(" PASSWORD ").map_or(statement, |(shown, _)| shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_told() {
        assert_eq!(
            without_password("ALTER ROLE a WITH LOGIN PASSWORD 'x'"),
            "ALTER ROLE a WITH LOGIN"
        );
    }
}
