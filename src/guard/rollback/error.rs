//! Why a rollback did not happen.

use std::collections::BTreeSet;

use crate::domain::failure::{Failure, FailureKind};
use crate::domain::id::{BackupId, ClusterName};
use crate::ops::inspect::InspectError;
use crate::ops::restore::RestoreError;
use crate::postgres::PostgresError;

/// Why a rollback did not happen; what is live is as it was, unless it says that this is not known.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// No snapshot of the kind that is meant without an id.
    #[error("no snapshot{} was taken before a migration", of(database.as_ref()))]
    NoneGuarded {
        /// The database that was meant, if one was.
        database: Option<String>,
    },
    /// A snapshot of a cluster whose server nobody named here.
    #[error("backup {id} is of cluster `{cluster}`, which is not configured here")]
    ElsewhereCluster {
        /// The backup.
        id: BackupId,
        /// Its cluster.
        cluster: ClusterName,
        /// Those that are.
        configured: BTreeSet<ClusterName>,
    },
    /// A snapshot of a database that nobody named here.
    #[error("backup {id} is of `{database}`, and what is meant here is `{meant}`")]
    OtherDatabase {
        /// The backup.
        id: BackupId,
        /// Its database.
        database: String,
        /// The one that the connection string or `--database` means.
        meant: String,
        /// The command that means it.
        command: String,
    },
    /// The newest is of a server that the cluster's name does not know.
    #[error("backup {newer} is newer than {id}, and of a server that the cluster does not know")]
    PassedOver {
        /// The newest that counts.
        id: BackupId,
        /// The one that does not.
        newer: BackupId,
        /// The command that goes back to the one that counts.
        command: String,
    },
    /// It would be gone back to a second time, and nobody has said that it should.
    #[error("backup {id} was gone back to before; what was live then is kept as {}", kept.join(", "))]
    GoneBackBefore {
        /// The backup.
        id: BackupId,
        /// What was kept.
        kept: Vec<String>,
        /// The command that does it once more.
        command: String,
    },
    /// Whoever takes a snapshot of that database, or guards it.
    #[error("another run of pgkeep is at `{0}`")]
    Busy(String),
    /// Later backups than those that were shown.
    #[error("backups of `{database}` came meanwhile: {}", ids.join(", "))]
    BackupsCame {
        /// The database.
        database: String,
        /// Their ids.
        ids: Vec<String>,
        /// The command to look with once more.
        command: String,
    },
    /// The catalog, or the inventory.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The restore.
    #[error("{source}")]
    Restore {
        /// Why.
        source: Box<RestoreError>,
        /// The backup.
        id: BackupId,
        /// The command that means it.
        command: String,
    },
    /// The lock.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

fn of(database: Option<&String>) -> String {
    database.map(|database| format!(" of `{database}`")).unwrap_or_default()
}

impl Failure for RollbackError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::NoneGuarded { .. } => FailureKind::NotFound,
            Self::ElsewhereCluster { .. }
            | Self::OtherDatabase { .. }
            | Self::PassedOver { .. }
            | Self::GoneBackBefore { .. } => FailureKind::Usage,
            Self::Busy(_) => FailureKind::Busy,
            Self::BackupsCame { .. } => FailureKind::Postgres,
            Self::Inspect(error) => error.kind(),
            Self::Restore { source, .. } => source.kind(),
            Self::Postgres(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoneGuarded { .. } => Some(
                "`pgkeep list` shows the backups there are, and with its id any can be gone back to; \
                 `--database` means another database"
                    .to_owned(),
            ),
            Self::ElsewhereCluster { id, configured, .. } => {
                let names: Vec<&str> = configured.iter().map(ClusterName::as_str).collect();
                Some(format!(
                    "configured: {}; roll back on that cluster's own host, or make a copy here: \
                     `pgkeep restore {id} --as NAME`",
                    names.join(", ")
                ))
            }
            Self::OtherDatabase { database, command, .. } => {
                Some(format!("if `{database}` is the one to swap, say so with --database: `{command}`"))
            }
            Self::PassedOver { newer, command, .. } => Some(format!(
                "`{command}` goes back to the older one; `pgkeep adopt {newer}` makes the newer one count"
            )),
            Self::GoneBackBefore { command, .. } => Some(format!(
                "look whether all is done already; `{command}` goes back to it once more"
            )),
            Self::Busy(_) => Some(
                "a snapshot or a guard of it is running; run this again when it has ended".to_owned(),
            ),
            Self::BackupsCame { command, .. } => Some(format!(
                "nothing was changed; look what would be lost now: `{command}`"
            )),
            Self::Inspect(error) => error.hint(),
            Self::Restore { source, id, command } => restore_hint(source, id, command),
            Self::Postgres(error) => error.hint(),
        }
    }
}

/// The hints of `restore` name flags that are its own.
fn restore_hint(error: &RestoreError, id: &BackupId, command: &str) -> Option<String> {
    Some(match error {
        RestoreError::NeedsYes { .. } => {
            "`--dry-run` shows what would be lost, `--yes` goes on; what is live is kept under another name"
                .to_owned()
        }
        RestoreError::Partial { .. } => {
            "`--allow-partial` goes on: these rows are then in the kept database only".to_owned()
        }
        RestoreError::WithoutOwners { .. } => format!(
            "roll back as a superuser or a member of every owner; `pgkeep restore {id} --replace --no-owner` swaps it \
             all the same"
        ),
        RestoreError::Privileges { .. } => {
            let grant = error.hint().unwrap_or_default();
            format!("{grant} where nobody may: `pgkeep restore {id} --in-place`, as on managed hosting")
        }
        RestoreError::MissingRoles { .. } => format!(
            "`pgkeep restore {id} --replace --roles create` makes them as the snapshot has them; `--no-owner` there \
             leaves owners and grants out"
        ),
        RestoreError::NameTaken { .. } => {
            format!("nothing was changed; it is there again: run `{command}` again, which looks at it")
        }
        RestoreError::LiveChanged(_) => {
            format!("nothing was changed; look at what is there now, and run `{command}` again")
        }
        RestoreError::LockLost(_) => format!(
            "nothing was changed; somebody ended the lock's session, or the server did: run `{command}` again"
        ),
        error => return error.hint(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_commands_for_the_backup_itself() {
        let id: BackupId = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        let command = format!("pgkeep rollback {id} --database shop");
        let (database, target) = ("shop".to_owned(), "server".to_owned());
        let roles = vec!["app".to_owned()];
        for source in [
            RestoreError::NameTaken { database: database.clone(), target: target.clone() },
            RestoreError::LiveChanged(database.clone()),
            RestoreError::LockLost(database.clone()),
            RestoreError::WithoutOwners { database },
            RestoreError::MissingRoles { roles, target },
        ] {
            let words = source.to_string();
            let source = Box::new(source);
            let error = RollbackError::Restore { source, id: id.clone(), command: command.clone() };
            assert_eq!(error.to_string(), words);
            let hint = error.hint().expect("a hint");
            let is_command =
                hint.contains(&command) || hint.contains(&format!("restore {id} --replace"));
            assert!(is_command && !hint.contains("--as") && !hint.contains("--output"), "{hint}");
        }
    }
}
