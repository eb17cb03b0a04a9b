//! Why a dump was not imported.

use crate::domain::dump::NotADump;
use crate::domain::dump::script::ScriptError;
use crate::domain::failure::{Failure, FailureKind};
use crate::postgres::PostgresError;
use crate::repo::RepoError;
use crate::scratch::ScratchError;
use crate::scratch::cluster::ScratchCluster;

/// What `pg_restore` says of an archive that is cut off or damaged.
const DAMAGE: [&str; 9] = [
    "end of file",
    "could not read from input file",
    "corrupt",
    "could not uncompress",
    "could not decompress",
    "could not open input file",
    "could not find block ID",
    "unrecognized data block type",
    "did not find magic string",
];

/// Why a dump was not imported. Nothing of it is listed, whatever it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A name that no database can have here.
    #[error("the database name `{name}` {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read `{name}`")]
    Read {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is around the dump is damaged.
    #[error("`{name}` is cut off or damaged: it cannot be unpacked to its end")]
    Packed {
        /// The file.
        name: String,
        /// What the unpacker said.
        #[source]
        source: std::io::Error,
    },
    /// A file that is no dump.
    #[error("`{name}` cannot be imported")]
    NotADump {
        /// The file.
        name: String,
        /// What it is.
        #[source]
        source: NotADump,
    },
    /// A plain dump that is not let through.
    #[error("`{name}` cannot be imported")]
    Script {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: ScriptError,
    },
    /// A tar archive, or a table's file of a directory, without its end mark.
    #[error("`{name}` is cut off: it has no end mark")]
    CutOff {
        /// The file; one of a directory, with that.
        name: String,
    },
    /// `pg_restore` could not read an archive to its end.
    #[error("`{name}` is cut off or damaged: {words}")]
    Damaged {
        /// The file.
        name: String,
        /// The words of `pg_restore`.
        words: String,
    },
    /// A statement of the dump failed.
    #[error("`{name}` {}: {words}", line.map_or_else(|| "failed".to_owned(), |line| format!("failed at line {line}")))]
    Statement {
        /// The file.
        name: String,
        /// The line of a plain dump.
        line: Option<u64>,
        /// The words of the server.
        words: String,
    },
    /// Extensions that this host lacks.
    #[error("the dump needs the extensions {}, which PostgreSQL {major} has not here", names.join(", "))]
    Extensions {
        /// Their names.
        names: Vec<String>,
        /// Whose packages.
        major: u32,
    },
    /// The scratch server went away.
    #[error("the scratch cluster failed: {log}")]
    Server {
        /// The end of its log.
        log: String,
    },
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// Scratch.
    #[error(transparent)]
    Scratch(ScratchError),
    /// A session or a program.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
}

impl ImportError {
    /// What `psql` ended with, told as the dump's own.
    pub(super) fn of_psql(name: &str, error: PostgresError) -> Self {
        let PostgresError::ProgramFailed { stderr, .. } = &error else { return error.into() };
        let placed = stderr.strip_prefix("psql:<stdin>:").and_then(|rest| rest.split_once(": "));
        let (line, words) = match placed.and_then(|(line, words)| Some((line.parse().ok()?, words)))
        {
            Some((line, words)) => (Some(line), words),
            None => (None, &**stderr),
        };
        Self::Statement { name: name.to_owned(), line, words: plain_words(words) }
    }

    /// The same of `pg_restore`.
    pub(super) fn of_pg_restore(name: &str, error: PostgresError) -> Self {
        let PostgresError::ProgramFailed { stderr, .. } = &error else { return error.into() };
        let words = plain_words(stderr.strip_prefix("error: ").unwrap_or(stderr));
        let name = name.to_owned();
        // A statement's own words may be anything.
        if !stderr.contains("ERROR:") && DAMAGE.iter().any(|damage| words.contains(damage)) {
            Self::Damaged { name, words }
        } else {
            Self::Statement { name, line: None, words }
        }
    }

    /// The server's own words, where it went away under the client's hands.
    pub(super) fn explained(self, cluster: &ScratchCluster) -> Self {
        // Of libpq, and of psql itself within a COPY.
        let gone = ["server closed the connection unexpectedly", "connection to server was lost"];
        match &self {
            Self::Statement { words, .. } if gone.iter().any(|gone| words.contains(gone)) => {
                Self::Server { log: cluster.log_tail() }
            }
            _ => self,
        }
    }
}

/// `ERROR:  x` is `x`: an error is in lower case, and tells once that it is one.
fn plain_words(words: &str) -> String {
    words.strip_prefix("ERROR:").unwrap_or(words).trim_start().replace("ERROR:  ", "")
}

impl From<ScratchError> for ImportError {
    fn from(error: ScratchError) -> Self {
        match error {
            ScratchError::Interrupted => Self::Interrupted,
            error => Self::Scratch(error),
        }
    }
}

impl Failure for ImportError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Name { .. } | Self::Read { .. } => FailureKind::Usage,
            Self::Packed { .. } | Self::CutOff { .. } | Self::Damaged { .. } => FailureKind::Damage,
            Self::NotADump { source, .. } => source.kind(),
            Self::Script { source, .. } => source.kind(),
            Self::Statement { .. } | Self::Extensions { .. } | Self::Server { .. } => {
                FailureKind::Postgres
            }
            Self::Repo(error) => error.kind(),
            Self::Scratch(error) => error.kind(),
            Self::Postgres(error) => error.kind(),
            Self::Interrupted => FailureKind::Interrupted,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name { .. } => {
                "name the database as it is to be listed: `--database shop`".to_owned()
            }
            Self::Read { .. } => "check the path, and who may read it".to_owned(),
            Self::Packed { .. } | Self::CutOff { .. } | Self::Damaged { .. } => {
                "it was cut off when it was made or copied; use another one, or fetch it again".to_owned()
            }
            Self::NotADump { source, .. } => return source.hint(),
            Self::Script { source, .. } => return source.hint(),
            Self::Statement { words, .. } if words.contains("role \"") && words.contains("does not exist") => {
                "pgkeep makes the roles that a dump's owners and grants name, and did not find this one; load it \
                 into a server that has it and run `pgkeep snapshot` there"
                    .to_owned()
            }
            Self::Statement { words, .. } if words.contains("No space left on device") => {
                "nothing was kept; free some space where scratch_dir is, or name a larger disk".to_owned()
            }
            Self::Statement { .. } => {
                "nothing was kept; mend the dump, or load it into a database yourself and run `pgkeep snapshot`"
                    .to_owned()
            }
            Self::Extensions { major, .. } => {
                format!("install their packages for PostgreSQL {major} on this host, and import again")
            }
            Self::Server { .. } => "check this host's memory and disk space".to_owned(),
            Self::Repo(error) => return error.hint(),
            Self::Scratch(error) => return error.hint(),
            Self::Postgres(error) => return error.hint(),
            Self::Interrupted => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(stderr: &str) -> PostgresError {
        PostgresError::ProgramFailed { program: "p".into(), code: 3, stderr: stderr.into() }
    }

    #[test]
    fn the_line_of_a_failed_statement_is_told() {
        let error = failed("psql:<stdin>:12: ERROR:  relation \"x\" does not exist | LINE 1: …");
        let told = ImportError::of_psql("shop.sql", error).to_string();
        assert_eq!(told, "`shop.sql` failed at line 12: relation \"x\" does not exist | LINE 1: …");
    }

    #[test]
    fn damage_is_told_from_a_statement_that_failed() {
        let kind = |stderr| ImportError::of_pg_restore("d", failed(stderr)).kind();
        assert_eq!(kind("error: could not read from input file: end of file"), FailureKind::Damage);
        let statement =
            "error: could not execute query: ERROR:  type \"end of file\" does not exist";
        assert_eq!(kind(statement), FailureKind::Postgres);
    }
}
