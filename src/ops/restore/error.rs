//! Why a restore did not happen.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::domain::failure::{Failure, FailureKind, system_hint};
use crate::domain::verification::{Check, Outcome};
use crate::ops::copy::CopyError;
use crate::postgres::{PostgresError, quote_ident};
use crate::proof::ProofError;
use crate::scratch::ScratchError;

/// Why a restore did not happen; what is live is as it was, unless it says that this is not known.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A name no database can have, or must not.
    #[error("`{0}` cannot be the name of a restored database")]
    Name(String),
    /// The name belongs to a database.
    #[error("there is a database `{database}` on {target}")]
    NameTaken {
        /// The name.
        database: String,
        /// The server.
        target: String,
    },
    /// A swap without consent.
    #[error("`{database}` is live, and its sessions would be ended")]
    NeedsYes {
        /// The live database.
        database: String,
    },
    /// What a live database holds would be replaced, without consent.
    #[error("`{database}` is live, and what it holds would be replaced")]
    NeedsYesInPlace {
        /// The live database.
        database: String,
    },
    /// A snapshot that is not the whole database.
    #[error("the snapshot leaves out the rows of {}", tables.join(", "))]
    Partial {
        /// The tables without rows.
        tables: Vec<String>,
    },
    /// Things that belong to the old database and would stay with it.
    #[error("would stay with the old `{database}`: {}", listed(what))]
    StaysBehind {
        /// The live database.
        database: String,
        /// What they are, by their names.
        what: BTreeMap<&'static str, Vec<String>>,
        /// Whether `--force` helps.
        can_be_forced: bool,
    },
    /// The role cannot give the copy's objects to their owners.
    #[error("the copy of `{database}` has no owners and privileges, and takes no live name")]
    WithoutOwners {
        /// The live database.
        database: String,
    },
    /// The snapshot is of a newer server.
    #[error(
        "the snapshot is of PostgreSQL {source_major}, and the target is PostgreSQL {target_major}"
    )]
    OlderTarget {
        /// The source's major.
        source_major: u32,
        /// The target's major.
        target_major: u32,
    },
    /// The target takes no writes.
    #[error("{0} is a standby")]
    Standby(String),
    /// The role may not do what is needed.
    #[error("the role `{role}` {lacks}")]
    Privileges {
        /// The role.
        role: String,
        /// What it lacks.
        lacks: String,
        /// The statement that mends it.
        statement: String,
    },
    /// Roles that the copy names and the target lacks.
    #[error("{target} lacks the role{} {}", plural(roles), quoted(roles))]
    MissingRoles {
        /// Their names.
        roles: Vec<String>,
        /// The server.
        target: String,
    },
    /// Extensions that the copy needs and the target cannot install.
    #[error("{target} cannot install the extension{} {}", plural(extensions), quoted(extensions))]
    MissingExtensions {
        /// Their names.
        extensions: Vec<String>,
        /// The server.
        target: String,
    },
    /// Sessions that pgkeep's role may not end, or that do not end.
    #[error("`{database}` is still in use by {}", holders.join(", "))]
    InUse {
        /// The live database.
        database: String,
        /// Each session: role, application and pid.
        holders: Vec<String>,
    },
    /// What the role may not drop, and would stay in a database that is replaced in place.
    #[error("in the way in `{database}` for the role `{role}`: {}", shortened(what))]
    InTheWay {
        /// The live database.
        database: String,
        /// The role.
        role: String,
        /// Each with its owner.
        what: Vec<String>,
        /// Roles that it would have to be a member of.
        owners: Vec<String>,
    },
    /// Roles that things are to belong to and that pgkeep's may not give them to.
    #[error("the role `{role}` is no member of {}, who own what the backup holds", quoted(owners))]
    Owners {
        /// The role.
        role: String,
        /// Their names.
        owners: Vec<String>,
    },
    /// A name that `--all` wants, of a database that holds something.
    #[error("there is a database `{database}` on {target}, and it holds something")]
    NotEmpty {
        /// The name.
        database: String,
        /// The server.
        target: String,
    },
    /// What reads or writes the database from elsewhere.
    #[error("bound to `{database}`: {}", listed(what))]
    Bound {
        /// The live database.
        database: String,
        /// What they are, by their names.
        what: BTreeMap<&'static str, Vec<String>>,
    },
    /// Sessions that hold tables of a database that is to be replaced in place.
    #[error("tables of `{database}` are held by {}", holders.join(", "))]
    TablesHeld {
        /// The live database.
        database: String,
        /// Each session: role, pid, application and state.
        holders: Vec<String>,
    },
    /// Objects of the live database are others than those that the safety snapshot holds.
    #[error("in `{database}` came or went meanwhile: {}", shortened(what))]
    ObjectsChanged {
        /// The live database.
        database: String,
        /// What they are.
        what: Vec<String>,
    },
    /// The transaction that should have replaced what the database holds was rolled back.
    #[error("{cause}; `{database}` is as it was")]
    RolledBack {
        /// The live database.
        database: String,
        /// Why; told in the message.
        cause: Box<RestoreError>,
    },
    /// The server went away at COMMIT.
    #[error("whether `{database}` was restored is not known: {cause}")]
    CommitUnknown {
        /// The live database.
        database: String,
        /// The transaction's id.
        transaction: String,
        /// Why; told in the message.
        cause: PostgresError,
    },
    /// The live database is another one than the plan saw.
    #[error("`{0}` was renamed, dropped or made anew meanwhile")]
    LiveChanged(String),
    /// What was to keep others away while the copy was made.
    #[error("the lock that kept other runs away from `{0}` was lost meanwhile")]
    LockLost(String),
    /// The server was lost at the very commit.
    #[error(
        "the server was lost while `{database}` was being named, and what became of it is not known"
    )]
    Unknown {
        /// The name.
        database: String,
        /// The name that the one before it has, if it was swapped.
        kept_as: Option<String>,
    },
    /// The copy is not what was recorded.
    #[error("the copy failed its checks: {}", failed(checks))]
    Checks {
        /// All checks.
        checks: Vec<Check>,
    },
    /// A script of the operator's failed in the copy.
    #[error("`{}`: {source}", path.display())]
    Script {
        /// The script.
        path: PathBuf,
        /// What psql said; told in the message.
        source: PostgresError,
    },
    /// A file that would be overwritten.
    #[error("`{}` exists", .0.display())]
    OutputExists(PathBuf),
    /// The output file, or the pipe.
    #[error("cannot write `{}`", path.display())]
    Output {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The token was cancelled.
    #[error("interrupted")]
    Interrupted,
    /// The backup could not be brought back.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Loading and checking.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The scratch database or directory.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The server, its client programs.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl RestoreError {
    /// The SQLSTATE, when a statement failed.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error)
            | Self::Scratch(ScratchError::Postgres(error))
            | Self::Proof(ProofError::Postgres(error)) => error.sqlstate(),
            Self::Proof(
                ProofError::Refused { source, .. } | ProofError::Accident { source, .. },
            ) => source.sqlstate(),
            _ => None,
        }
    }
}

impl Failure for RestoreError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Name(_)
            | Self::NameTaken { .. }
            | Self::NotEmpty { .. }
            | Self::NeedsYes { .. }
            | Self::NeedsYesInPlace { .. }
            | Self::Partial { .. }
            | Self::OutputExists(_) => FailureKind::Usage,
            Self::StaysBehind { .. }
            | Self::WithoutOwners { .. }
            | Self::OlderTarget { .. }
            | Self::Standby(_)
            | Self::Privileges { .. }
            | Self::MissingRoles { .. }
            | Self::MissingExtensions { .. }
            | Self::InUse { .. }
            | Self::InTheWay { .. }
            | Self::Owners { .. }
            | Self::Bound { .. }
            | Self::TablesHeld { .. }
            | Self::ObjectsChanged { .. }
            | Self::CommitUnknown { .. }
            | Self::Script { .. }
            | Self::LiveChanged(_)
            | Self::LockLost(_)
            | Self::Unknown { .. } => FailureKind::Postgres,
            Self::RolledBack { cause, .. } => cause.kind(),
            Self::Checks { .. } => FailureKind::Damage,
            Self::Output { .. } => FailureKind::Unexpected,
            Self::Interrupted => FailureKind::Interrupted,
            Self::Copy(source) => source.kind(),
            Self::Proof(source) => source.kind(),
            Self::Scratch(source) => source.kind(),
            Self::Postgres(source) => source.kind(),
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each way to fail, read as a table")]
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name(_) => "1 to 63 bytes, and none of PostgreSQL's own templates".to_owned(),
            Self::NameTaken { .. } => {
                "choose: `--as NAME` for another name, `--replace` to swap it \
                                       for the live one, `--output FILE` for the dump itself"
                    .to_owned()
            }
            Self::NotEmpty { database, .. } => format!(
                "nothing was made: `--all` fills an empty server; drop or rename that database, or restore one by \
                 one: `pgkeep restore --database {} --as NAME`, or `--replace`",
                shell(database)
            ),
            Self::NeedsYes { .. } => {
                "`--yes` goes on; the old database is kept under another name".to_owned()
            }
            Self::NeedsYesInPlace { .. } => {
                "`--yes` goes on; a safety snapshot of it is taken first".to_owned()
            }
            Self::Partial { .. } => {
                "`--allow-partial` goes on without these rows; `--as NAME` keeps the live database"
                    .to_owned()
            }
            Self::StaysBehind { can_be_forced: false, .. } => {
                "COMMIT PREPARED or ROLLBACK PREPARED them first".to_owned()
            }
            Self::StaysBehind { .. } => {
                "drop, disable or move them first, or leave them there with `--force`".to_owned()
            }
            Self::WithoutOwners { .. } => {
                "restore as a superuser or a member of every owner; `--no-owner` swaps it all the same"
                    .to_owned()
            }
            Self::OlderTarget { source_major, .. } => {
                format!("restore to a server of PostgreSQL {source_major} or newer")
            }
            Self::Standby(_) => "restore to its primary".to_owned(),
            Self::Privileges { statement, .. } => format!("as a superuser: {statement}"),
            Self::MissingRoles { .. } => {
                "`--roles create` makes them as the snapshot has them; `--no-owner` leaves owners and grants out"
                    .to_owned()
            }
            Self::MissingExtensions { .. } => {
                "install their packages on the server (postgresql-contrib and others)".to_owned()
            }
            Self::InUse { .. } => {
                "nothing was changed; end them as a superuser, or grant pgkeep's role \
                                   pg_signal_backend, and run it again"
                    .to_owned()
            }
            Self::InTheWay { role, owners, .. } if !owners.is_empty() => format!(
                "nothing was changed; {}; or restore as a role that owns everything",
                grant(owners, role)
            ),
            Self::Owners { role, owners } => format!(
                "nothing was changed; {}; or `--no-owner`: all of it then belongs to `{role}`",
                grant(owners, role)
            ),
            Self::InTheWay { .. } => {
                "nothing was changed; drop it, or restore beside the live database: `--to URL`".to_owned()
            }
            Self::Bound { .. } => {
                "nothing was changed; drop or disable them first, or go on with `--force`".to_owned()
            }
            Self::TablesHeld { .. } => {
                "nothing was changed; let them finish or end them, and run it again".to_owned()
            }
            Self::ObjectsChanged { .. } => {
                "nothing was changed; run it again when no migration is at work".to_owned()
            }
            Self::RolledBack { cause, .. } if cause.sqlstate() == Some("53200") => {
                "the server has too few locks for so many objects in one transaction: raise \
                 max_locks_per_transaction (needs a restart)"
                    .to_owned()
            }
            Self::RolledBack { cause, .. } => return cause.hint(),
            Self::CommitUnknown { transaction, .. } => format!(
                "ask in it: SELECT pg_xact_status('{transaction}'); it is as it was, or restored: never half"
            ),
            Self::LiveChanged(_) => "look at it, and run the restore again".to_owned(),
            Self::LockLost(_) => {
                "nothing was changed; somebody ended its session, or the server did: run it again".to_owned()
            }
            Self::Unknown { kept_as: Some(kept_as), .. } => format!(
                "when the server is back: where there is a database `{kept_as}`, the copy has taken its place; else nothing was changed"
            ),
            Self::Unknown { .. } => {
                "when the server is back: the database is there and whole, or nothing was changed".to_owned()
            }
            Self::Checks { .. } => {
                "nothing was changed; take another backup, and see `pgkeep show`".to_owned()
            }
            Self::Script { .. } => "nothing was named or changed; mend the script, and run the restore again".to_owned(),
            Self::OutputExists(_) => "nothing is overwritten; name another file".to_owned(),
            Self::Output { source, .. } if source.kind() == std::io::ErrorKind::BrokenPipe => {
                "the program that reads it ended before the dump did".to_owned()
            }
            Self::Output { source, .. } => system_hint(source)
                .unwrap_or("check the directory, its permissions and its space")
                .to_owned(),
            Self::Interrupted => return None,
            Self::Copy(source) => return source.hint(),
            Self::Proof(source) => return source.hint(),
            Self::Scratch(source) => return source.hint(),
            Self::Postgres(source) => return source.hint(),
        })
    }
}

/// The statement that makes the role a member of these.
fn grant(owners: &[String], role: &str) -> String {
    let owners = owners.iter().map(|owner| quote_ident(owner)).collect::<Vec<_>>().join(", ");
    format!("as a superuser: GRANT {owners} TO {};", quote_ident(role))
}

/// A name as a shell takes it.
pub fn shell(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.bytes().all(plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', "'\\''"))
}

fn plural(names: &[String]) -> &'static str {
    if names.len() == 1 { "" } else { "s" }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

pub(super) fn listed(what: &BTreeMap<&'static str, Vec<String>>) -> String {
    let one = |(kind, names): (&&str, &Vec<String>)| format!("{kind} ({})", names.join(", "));
    what.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn shortened(what: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = what.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match what.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn failed(checks: &[Check]) -> String {
    let failed = checks.iter().filter(|check| check.result == Outcome::Failed);
    failed.map(|check| format!("{}: {}", check.name, check.detail)).collect::<Vec<_>>().join("; ")
}
