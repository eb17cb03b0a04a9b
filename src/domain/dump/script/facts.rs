//! What a scan of a plain dump ends in.

use std::collections::BTreeSet;

use crate::domain::failure::{Failure, FailureKind};
use crate::domain::inventory::DatabaseFacts;

/// Why a plain dump is not let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// It ends within something, or without the last line that `pg_dump` writes.
    #[error("the dump is not whole: it ends at line {line}, {within}")]
    Incomplete {
        /// Its last line.
        line: u64,
        /// Where it ends.
        within: &'static str,
    },
    /// A command of psql's own.
    #[error("line {line} is the psql command `\\{command}`, which no dump of one database holds")]
    Command {
        /// Where.
        line: u64,
        /// Its name.
        command: String,
    },
    /// More than one database.
    #[error("line {line} goes on to another database, `{database}`: the dump is of a whole server")]
    Databases {
        /// Where.
        line: u64,
        /// The second one.
        database: String,
    },
    /// Roles or tablespaces are made.
    #[error("line {line} makes a role or a tablespace: the dump is of a whole server")]
    WholeServer {
        /// Where.
        line: u64,
    },
    /// Lexers could disagree about it.
    #[error("line {line} holds {what}")]
    Odd {
        /// Where.
        line: u64,
        /// What.
        what: &'static str,
    },
    /// The same, of the whole file.
    #[error("the dump is in the encoding {0}, whose characters hold backslashes")]
    Encoding(String),
}

impl Failure for ScriptError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Incomplete { .. } => FailureKind::Damage,
            _ => FailureKind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Incomplete { .. } => {
                "it was cut off when it was made or copied; use another one, or fetch it again".to_owned()
            }
            Self::Command { .. } => {
                "psql commands can run programs; look at that line, and where it is harmless take it out".to_owned()
            }
            Self::Databases { .. } | Self::WholeServer { .. } => {
                "load it into a server of its own and run `pgkeep snapshot` there, or dump each database with pg_dump"
                    .to_owned()
            }
            Self::Odd { .. } => "no pg_dump writes that; was the file changed on its way?".to_owned(),
            Self::Encoding(_) => {
                "convert it with iconv and change its line `SET client_encoding` to match".to_owned()
            }
        })
    }
}

/// A `REFRESH MATERIALIZED VIEW` of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refresh {
    /// The `SET search_path` that its name is meant with; `pg_dump` before 2018 wrote such.
    pub search_path: Option<String>,
    /// The statement.
    pub statement: String,
}

/// What a plain dump says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptFacts {
    /// Version of the server that was dumped.
    pub server_version: Option<String>,
    /// Version of the `pg_dump` that wrote it.
    pub dump_version: Option<String>,
    /// When it was made, by the clock of that host; `--verbose` tells it.
    pub started: Option<String>,
    /// The encoding of its bytes.
    pub client_encoding: Option<String>,
    /// Roles that it names.
    pub roles: BTreeSet<String>,
    /// Extensions that it makes.
    pub extensions: BTreeSet<String>,
    /// The database that it makes and connects to (`--create`).
    pub database: Option<DatabaseFacts>,
    /// The name in its `\connect`.
    pub connects: Option<String>,
    /// What is said of the database itself, before it connects to it.
    pub of_database: Vec<String>,
    /// The same, after that.
    pub of_database_later: Vec<String>,
    /// What fills materialized views, in order.
    pub refreshes: Vec<Refresh>,
    /// Whether it puts anything into a tablespace.
    pub tablespaces: bool,
    /// Whether a table may hold values of type money.
    pub money: bool,
    /// Its size.
    pub bytes: u64,
}
