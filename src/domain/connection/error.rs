//! Why a connection string was refused. No variant holds any part of the text that could be a secret.

use std::path::PathBuf;

use crate::domain::failure::{Failure, FailureKind};

/// Why a connection string, or what completes it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// Nothing at all.
    #[error("the connection string is empty")]
    Empty,
    /// Neither a URI nor `key=value`.
    #[error("this is no connection string")]
    NoConnectionString,
    /// A URI of another kind.
    #[error("`{scheme}://` is not an address of a PostgreSQL server")]
    ForeignScheme {
        /// What stands before `://`.
        scheme: String,
    },
    /// The text does not follow the grammar.
    #[error("the connection string is malformed: {0}")]
    Malformed(&'static str),
    /// Two readings, with two hosts.
    #[error(
        "the connection string can be read in two ways: `@` stands both before and after a `/`"
    )]
    Ambiguous,
    /// `%` without two hex digits, or bytes that are no text.
    #[error("bad percent-encoding in {part} of the connection string")]
    PercentEncoding {
        /// Where.
        part: &'static str,
    },
    /// A parameter no one knows.
    #[error("unknown connection parameter `{name}`{}", .nearest.map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
    UnknownParameter {
        /// As written.
        name: String,
        /// The known one that is nearest.
        nearest: Option<&'static str>,
    },
    /// A parameter whose value is none of its own.
    #[error("`{value}` is no value for `{parameter}`")]
    BadValue {
        /// The parameter.
        parameter: &'static str,
        /// Its value.
        value: String,
        /// What would be one.
        expected: &'static str,
    },
    /// A parameter pgkeep cannot honour.
    #[error("the connection parameter `{parameter}` cannot be used here")]
    Refused {
        /// The parameter.
        parameter: &'static str,
        /// Why, and what to do.
        why: &'static str,
    },
    /// Lists of different length.
    #[error("{hosts} hosts, but {found} values of `{parameter}`")]
    HostCount {
        /// How many hosts.
        hosts: usize,
        /// The other list.
        parameter: &'static str,
        /// Its length.
        found: usize,
    },
    /// No role, and no user of the operating system to take it from.
    #[error("the connection string names no user")]
    NoUser,
    /// A password no passfile can hold.
    #[error("the password holds a line break")]
    PasswordLineBreak,
    /// No file defines the service.
    #[error("no service file defines `{0}`")]
    ServiceNotFound(String),
    /// The named service file cannot be read.
    #[error("cannot read the service file {}", .0.display())]
    ServiceFileMissing(PathBuf),
    /// A line of a service file.
    #[error("{} line {line}: {problem}", path.display())]
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Trusting the system's roots without checking the host's name trusts everyone.
    #[error("sslmode `{0}` is too weak for sslrootcert=system")]
    WeakForSystemRoots(&'static str),
    /// Direct TLS cannot fall back.
    #[error("sslmode `{0}` is too weak for sslnegotiation=direct")]
    WeakForDirect(&'static str),
}

impl Failure for ConnectionError {
    fn kind(&self) -> FailureKind {
        FailureKind::Usage
    }

    fn hint(&self) -> Option<String> {
        const SHAPE: &str =
            "write postgres://user:password@host:5432/database, or host=… dbname=… user=…";
        const ENCODE: &str = "percent-encode the password: `@` is %40, `/` is %2F, `?` is %3F, `:` is %3A, `%` is %25";
        let text = match self {
            Self::Empty | Self::NoConnectionString => SHAPE.to_owned(),
            Self::Malformed(_) => format!("{SHAPE}; an IPv6 address stands in brackets; {ENCODE}"),
            Self::ForeignScheme { scheme } => foreign_hint(scheme),
            Self::Ambiguous | Self::PercentEncoding { .. } => ENCODE.to_owned(),
            Self::UnknownParameter { .. } => {
                "parameters are those of libpq (postgresql.org/docs/current/libpq-connect.html), and Prisma's".to_owned()
            }
            Self::BadValue { expected, .. } => format!("expected {expected}"),
            Self::Refused { why, .. } => (*why).to_owned(),
            Self::HostCount { .. } => "give one value for all hosts, or one for each".to_owned(),
            Self::NoUser => "add user=… or postgres://user@…, or set PGUSER".to_owned(),
            Self::PasswordLineBreak => {
                "look for a line end at the end of the variable or file that holds it".to_owned()
            }
            Self::ServiceNotFound(_) => {
                "services are looked for in PGSERVICEFILE, else ~/.pg_service.conf, then PGSYSCONFDIR/pg_service.conf".to_owned()
            }
            Self::ServiceFileMissing(_) => "check PGSERVICEFILE".to_owned(),
            Self::ServiceFile { .. } => "a service is [name] and lines of parameter=value".to_owned(),
            Self::WeakForSystemRoots(_) => "use sslmode=verify-full".to_owned(),
            Self::WeakForDirect(_) => "use sslmode=require or stronger".to_owned(),
        };
        Some(text)
    }
}

fn foreign_hint(scheme: &str) -> String {
    if scheme == "prisma+postgres" || scheme == "prisma" {
        return "this is Prisma's own service; pgkeep needs the direct address of the database, postgres://… (often DIRECT_URL)".to_owned();
    }
    if scheme.contains("postgres") {
        return "remove what stands around `postgresql` before `://`, which belongs to a driver"
            .to_owned();
    }
    "pgkeep backs up PostgreSQL; give postgres://user:password@host:5432/database".to_owned()
}
