//! What goes wrong with PostgreSQL: its server, a session, or its programs.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::tls::TlsError;
use crate::domain::failure::{FILES_HINT, Failure, FailureKind, is_out_of_files, system_hint};

/// A failure of a server, a session or a client program.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No answer at that address.
    #[error("cannot reach the server at {address}: {reason}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What the operating system says.
        reason: String,
        /// Nothing listens there, or no such socket.
        not_listening: bool,
    },
    /// Something answers, but no server of PostgreSQL, or one that hangs up.
    #[error("what answers at {address} is no PostgreSQL server: {reason}")]
    NotPostgres {
        /// `host:port`.
        address: String,
        /// What is known.
        reason: String,
    },
    /// The address answers, but not in time.
    #[error("the server at {address} did not let us in within {} s", waited.as_secs())]
    TimedOut {
        /// `host:port`.
        address: String,
        /// The limit.
        waited: Duration,
    },
    /// 28P01.
    #[error("the server at {address} refused the password of user `{user}`")]
    PasswordRefused {
        /// `host:port`.
        address: String,
        /// The role.
        user: String,
    },
    /// The server asks for a password and none is known.
    #[error("the server at {address} asks for a password of user `{user}`, and none is given")]
    PasswordMissing {
        /// `host:port`.
        address: String,
        /// The role.
        user: String,
    },
    /// 28000: no line in `pg_hba.conf`, no such role, or a role that may not log in.
    #[error("the server at {address} does not let user `{user}` in: {message}")]
    NotAdmitted {
        /// `host:port`.
        address: String,
        /// The role.
        user: String,
        /// The server's words.
        message: String,
    },
    /// 3D000.
    #[error("there is no database `{database}` on the server at {address}")]
    DatabaseMissing {
        /// `host:port`.
        address: String,
        /// The database.
        database: String,
    },
    /// 57P03: starting up, shutting down, or in recovery without `hot_standby`.
    #[error("the server at {address} takes no connections yet: {message}")]
    NotReady {
        /// `host:port`.
        address: String,
        /// The server's words.
        message: String,
    },
    /// 53300.
    #[error("the server at {address} has no connection left: {message}")]
    TooManyConnections {
        /// `host:port`.
        address: String,
        /// The server's words.
        message: String,
    },
    /// `sslmode` asks for TLS and the server has none.
    #[error("the server at {address} does not offer TLS")]
    TlsNotOffered {
        /// `host:port`.
        address: String,
    },
    /// The handshake failed: the certificate is not trusted, or ours is not.
    #[error("TLS with the server at {address} failed: {reason}")]
    TlsFailed {
        /// `host:port`.
        address: String,
        /// What was wrong.
        reason: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// Certificates or keys on this side.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// `target_session_attrs`.
    #[error("the server at {address} is not what target_session_attrs asks for: {wanted}")]
    WrongTarget {
        /// `host:port`.
        address: String,
        /// In words.
        wanted: &'static str,
    },
    /// Two sessions were served by one server process.
    #[error("a pooler stands at {address} and gives a server connection to each transaction only")]
    TransactionPooler {
        /// `host:port`.
        address: String,
    },
    /// Settings that were asked for when connecting did not reach the server.
    #[error("a pooler stands at {address} and keeps connections to databases that get new names")]
    SessionPooler {
        /// `host:port`.
        address: String,
    },
    /// A pooler keeps settings from the server that a dump needs.
    #[error(
        "the pooler does not pass settings on, and `{setting}` is `{value}` instead of `{wanted}`"
    )]
    PooledSetting {
        /// The setting.
        setting: &'static str,
        /// What a dump needs.
        wanted: &'static str,
        /// What it is.
        value: String,
    },
    /// `gssencmode=require`.
    #[error("gssencmode=require cannot be honoured")]
    GssRequired,
    /// 42501.
    #[error("permission denied: {message}")]
    PermissionDenied {
        /// The server's words.
        message: String,
        /// The driver's error; not its source, since the message is the server's whole word.
        error: tokio_postgres::Error,
    },
    /// 55P03: a lock was not to be had in time.
    #[error("could not get a lock in time: {message}")]
    LockNotAvailable {
        /// The server's words.
        message: String,
        /// The driver's error; not its source, since the message is the server's whole word.
        error: tokio_postgres::Error,
    },
    /// The connection ended while it was needed.
    #[error("the connection to the server was lost: {reason}")]
    ConnectionLost {
        /// What is known.
        reason: String,
    },
    /// A session is there, and nothing comes.
    #[error("the server at {address} has not answered for {} s", waited.as_secs())]
    Silent {
        /// `host:port`.
        address: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Any other error of a statement.
    #[error("the server reports: {message} (SQLSTATE {sqlstate})")]
    Statement {
        /// The server's words.
        message: String,
        /// Five characters.
        sqlstate: String,
        /// The driver's error; not its source, since the message is the server's whole word.
        error: tokio_postgres::Error,
    },
    /// The driver could not make sense of an answer.
    #[error("unexpected answer from the server: {reason}")]
    Protocol {
        /// What was unexpected.
        reason: String,
        /// The driver's error.
        error: tokio_postgres::Error,
    },
    /// No client programs at all.
    #[error("no PostgreSQL programs found: `{program}` is nowhere")]
    ProgramsMissing {
        /// What was looked for.
        program: &'static str,
        /// The major wanted.
        major: u32,
    },
    /// Only older ones.
    #[error("the newest `{program}` found is of PostgreSQL {newest}, older than {major}")]
    ProgramsTooOld {
        /// What was looked for.
        program: &'static str,
        /// The newest found.
        newest: u32,
        /// The major wanted.
        major: u32,
    },
    /// One program is missing beside the others.
    #[error("`{program}` is not in {}", directory.display())]
    ProgramMissing {
        /// Its name.
        program: String,
        /// Where the others are.
        directory: PathBuf,
        /// Their major.
        major: u32,
    },
    /// It is there, but cannot be run.
    #[error("cannot run {}", program.display())]
    ProgramUnusable {
        /// Its path.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended with a code other than 0.
    #[error("{program} failed with exit code {code}{}", after_colon(stderr))]
    ProgramFailed {
        /// Its name.
        program: String,
        /// Its exit code.
        code: i32,
        /// The last lines it wrote.
        stderr: String,
    },
    /// Something killed it.
    #[error("{program} was killed by signal {signal}{}", after_colon(stderr))]
    ProgramKilled {
        /// Its name.
        program: String,
        /// The signal's number.
        signal: i32,
        /// The last lines it wrote.
        stderr: String,
    },
    /// Pipes, private files, output that is too long.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn after_colon(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl PostgresError {
    /// The SQLSTATE of a statement's error.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::PermissionDenied { error, .. }
            | Self::LockNotAvailable { error, .. }
            | Self::Statement { error, .. } => error.code().map(SqlState::code),
            _ => None,
        }
    }

    /// Whether a statement was refused for what it asks, and not for the state the server is in.
    ///
    /// Classes 08 (connection), 40 (deadlock, serialization), 53 (resources), 57 (intervention), 58 (system) and
    /// XX (internal) say nothing about the data.
    pub fn is_verdict(&self) -> bool {
        self.class().is_some_and(|class| !matches!(class, "08" | "40" | "53" | "57" | "58" | "XX"))
    }

    /// Whether another try, a little later, may go better with nothing changed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::TimedOut { .. }
                | Self::NotReady { .. }
                | Self::TooManyConnections { .. }
                | Self::LockNotAvailable { .. }
                | Self::ConnectionLost { .. }
        ) || matches!(self.class(), Some("08" | "40" | "57"))
    }

    /// The class of its SQLSTATE.
    fn class(&self) -> Option<&str> {
        self.sqlstate()?.get(..2)
    }
}

/// A statement's error, by its SQLSTATE. Errors of connecting are told apart in `session`, which knows the address.
impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(reported) = error.as_db_error() else {
            let reason = chain(&error);
            let cause = std::error::Error::source(&error);
            let io = cause.is_some_and(<dyn std::error::Error>::is::<io::Error>);
            return if error.is_closed() || io {
                Self::ConnectionLost { reason }
            } else {
                Self::Protocol { reason, error }
            };
        };
        let message = one_line(reported.message());
        match reported.code() {
            code if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                Self::PermissionDenied { message, error }
            }
            code if *code == SqlState::LOCK_NOT_AVAILABLE => {
                Self::LockNotAvailable { message, error }
            }
            code if ENDED.contains(code) => Self::ConnectionLost { reason: message },
            code => {
                let sqlstate = code.code().to_owned();
                Self::Statement { message, sqlstate, error }
            }
        }
    }
}

/// `disk_full`.
const DISK_FULL: &str = "53100";
/// Of a write that failed, and of one that was cut short.
const NO_ROOM: [&str; 2] = ["No space left on device", "Check free disk space"];
const NO_ROOM_HINT: &str = "free some space on the server's disk, and run it again; a scratch cluster lies in `scratch_dir`";

/// The server ends the session: 57P01, 57P02, 57P05, 25P03.
const ENDED: [SqlState; 4] = [
    SqlState::ADMIN_SHUTDOWN,
    SqlState::CRASH_SHUTDOWN,
    SqlState::IDLE_SESSION_TIMEOUT,
    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
];

/// An error with its causes on one line; the driver's own text leaves the cause out.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    one_line(&text)
}

pub(super) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
}

impl Failure for PostgresError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Tls(_) | Self::GssRequired => FailureKind::Usage,
            _ => FailureKind::Postgres,
        }
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unreachable { not_listening: true, .. } => {
                "is the server running, and are host and port right? `pg_isready` tells".to_owned()
            }
            Self::Unreachable { reason, .. } if is_out_of_files(reason) => FILES_HINT.to_owned(),
            Self::Unreachable { .. } => "check the host's name, the network and the firewall".to_owned(),
            Self::NotPostgres { .. } => {
                "check the port, and whether a proxy or a pooler stands between".to_owned()
            }
            Self::TimedOut { .. } => {
                "a firewall may drop packets, or the server is overloaded; connect_timeout=… gives it longer".to_owned()
            }
            Self::PasswordRefused { .. } => {
                "check the password in the URL, PGPASSWORD, the service file or the passfile; `@ : / %` in a URL are percent-encoded".to_owned()
            }
            Self::PasswordMissing { .. } => {
                "put it into the URL, a passfile (mode 0600) or PGPASSWORD".to_owned()
            }
            Self::NotAdmitted { .. } => {
                "check the role's name and LOGIN, and the server's pg_hba.conf for this host, database, role and TLS".to_owned()
            }
            Self::DatabaseMissing { .. } => "`psql -l` lists the databases; names are case-sensitive".to_owned(),
            Self::NotReady { .. } => "wait until the server is up, and run the command again".to_owned(),
            Self::TooManyConnections { .. } => {
                "raise max_connections or the role's connection limit, or end idle sessions".to_owned()
            }
            Self::TlsNotOffered { .. } => {
                "set `ssl = on` on the server, or sslmode=prefer where plain text is acceptable".to_owned()
            }
            Self::TlsFailed { hint, .. } => (*hint).to_owned(),
            Self::Tls(error) => error.hint().to_owned(),
            Self::TransactionPooler { .. } => {
                "locks and snapshots do not last there: use the server's own address (PGKEEP_DATABASE_URL or DIRECT_URL), or pool_mode = session".to_owned()
            }
            Self::PooledSetting { .. } | Self::SessionPooler { .. } => {
                "use the server's own address (PGKEEP_DATABASE_URL or DIRECT_URL)".to_owned()
            }
            Self::WrongTarget { .. } => "add the other hosts to the connection string, or change target_session_attrs".to_owned(),
            Self::GssRequired => "use gssencmode=prefer with sslmode=require".to_owned(),
            Self::PermissionDenied { .. } => {
                "grant the role what it lacks; to read everything: GRANT pg_read_all_data TO it".to_owned()
            }
            Self::LockNotAvailable { .. } => {
                "a migration or another long transaction holds it: pg_stat_activity, pg_locks".to_owned()
            }
            Self::ConnectionLost { .. } => "the server's log tells why".to_owned(),
            Self::Silent { .. } => {
                "see what the server is doing and whether the network loses connections; the cluster's `idle_timeout` gives it longer".to_owned()
            }
            Self::Statement { sqlstate, .. } if sqlstate == DISK_FULL => NO_ROOM_HINT.to_owned(),
            Self::Statement { .. } | Self::Protocol { .. } => "the server's log has the statement".to_owned(),
            Self::ProgramsMissing { program, major } | Self::ProgramsTooOld { program, major, .. } => {
                packages(program, *major)
            }
            Self::ProgramMissing { program, major, .. } => packages(program, *major),
            Self::ProgramUnusable { source, .. } => system_hint(source)
                .unwrap_or("check that it is executable and made for this machine")
                .to_owned(),
            Self::ProgramFailed { stderr, .. } if NO_ROOM.iter().any(|no| stderr.contains(no)) => {
                NO_ROOM_HINT.to_owned()
            }
            Self::ProgramFailed { .. } => "the lines above are its own; -v shows more".to_owned(),
            Self::ProgramKilled { signal: 9, .. } => "out of memory? the kernel's log tells (`dmesg`)".to_owned(),
            Self::ProgramKilled { .. } => "someone or something ended it; run the command again".to_owned(),
            Self::Io { source, .. } => system_hint(source)
                .unwrap_or("check the temporary directory and the limits on processes and files")
                .to_owned(),
        };
        Some(text)
    }
}

fn is_server_program(program: &str) -> bool {
    matches!(program, "initdb" | "postgres" | "pg_ctl" | "pg_controldata" | "pg_resetwal")
}

fn packages(program: &str, major: u32) -> String {
    if is_server_program(program) {
        return format!(
            "install the server's programs: postgresql-{major} (Debian, Ubuntu), postgresql{major}-server (Red Hat), or a newer major; or name their directory: PGKEEP_BIN_DIR"
        );
    }
    format!(
        "install postgresql-client-{major} (Debian, Ubuntu), postgresql{major} (Red Hat), postgresql@{major} (Homebrew), or a newer major; or name its directory: PGKEEP_BIN_DIR"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_room_is_told_what_to_give_it() {
        let full = PostgresError::ProgramFailed {
            program: "pg_restore".to_owned(),
            code: 1,
            stderr: "ERROR:  could not extend file | HINT:  Check free disk space.".to_owned(),
        };
        assert_eq!(full.hint().as_deref(), Some(NO_ROOM_HINT));
    }

    #[test]
    fn the_message_of_a_failed_program_is_one_line_with_its_last_words() {
        let error = PostgresError::ProgramFailed {
            program: "pg_dump".to_owned(),
            code: 1,
            stderr: "error: no such table".to_owned(),
        };
        assert_eq!(error.to_string(), "pg_dump failed with exit code 1: error: no such table");
        let killed = PostgresError::ProgramKilled {
            program: "pg_dump".into(),
            signal: 9,
            stderr: String::new(),
        };
        assert_eq!(killed.to_string(), "pg_dump was killed by signal 9");
        assert!(killed.hint().is_some());
    }
}
