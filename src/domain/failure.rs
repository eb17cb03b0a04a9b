//! What a failure means to the caller: a kind (one exit code each) and a hint.
//!
//! Every error enum of the crate implements [`Failure`]. Its `Display` is a lower-case fragment without
//! a full stop, so that a chain of sources reads as one line; advice is apart, in [`Failure::hint`].

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

/// The classes of failure of the command-line contract (DESIGN.md §3), gravest first.
///
/// When several databases fail in one command, the gravest kind becomes the exit code: the order of the
/// variants is that order, and `Ord` follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Stopped by a signal or a cancelled token.
    Interrupted,
    /// Verification failed, or damage or a gap was found.
    Damage,
    /// A key or a signature is missing, wrong, or not trusted.
    Key,
    /// The store refused, or could not be reached.
    Store,
    /// PostgreSQL, its server or its programs.
    Postgres,
    /// Another writer is at work.
    Busy,
    /// No such backup, or nothing that matches.
    NotFound,
    /// The guard: it came to nothing before the command, which was not run.
    NotRun,
    /// The guard: the command succeeded, and what was looked at afterwards says otherwise.
    ChecksFailed,
    /// The guard: there is no such command.
    CommandNotFound,
    /// Wrong use or configuration.
    Usage,
    /// What no one foresaw.
    Unexpected,
}

impl FailureKind {
    /// The exit code of the contract.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Usage => 2,
            Self::Damage => 3,
            Self::Postgres => 4,
            Self::Store => 5,
            Self::Busy => 6,
            Self::Key => 7,
            Self::NotFound => 8,
            Self::NotRun => 10,
            Self::ChecksFailed => 11,
            Self::CommandNotFound => 127,
            Self::Interrupted => 130,
        }
    }

    /// The name in `{"error": {"kind": …}}`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unexpected => "unexpected",
            Self::Usage => "usage",
            Self::Damage => "damage",
            Self::Postgres => "postgres",
            Self::Store => "store",
            Self::Busy => "busy",
            Self::Key => "key",
            Self::NotFound => "not_found",
            Self::NotRun => "not_run",
            Self::ChecksFailed => "checks_failed",
            Self::CommandNotFound => "command_not_found",
            Self::Interrupted => "interrupted",
        }
    }
}

/// An error that knows its exit code and what the operator should look at.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// The class, and with it the exit code.
    fn kind(&self) -> FailureKind;
    /// What to check or run, without the word `hint:`; every message that a user can cause has one.
    fn hint(&self) -> Option<String>;
}

/// What to do about an error of the operating system whose cure is the same wherever it comes up; none for
/// those that mean something else in each place.
pub fn system_hint(error: &io::Error) -> Option<&'static str> {
    if is_out_of_files(&error.to_string()) {
        return Some(FILES_HINT);
    }
    Some(match error.kind() {
        ErrorKind::StorageFull => "free some space on that file system, and run it again",
        ErrorKind::QuotaExceeded => "free some space or raise the quota, and run it again",
        ErrorKind::ReadOnlyFilesystem => {
            "that file system is mounted read-only: the kernel's log (`dmesg`) may tell why; remount it for writing"
        }
        _ => return None,
    })
}

/// For whoever has no file descriptor left.
pub const FILES_HINT: &str =
    "raise the limit of open files: `ulimit -n 1024`, or LimitNOFILE= in the unit of systemd";

/// Whether these are the words for a process, or a machine, that has no file descriptor left (EMFILE, ENFILE).
/// Libraries wrap such errors on their way up, and the number in the words is what is left of them.
pub fn is_out_of_files(words: &str) -> bool {
    words.contains("(os error 24)") || words.contains("(os error 23)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_have_one_cure_each() {
        let hint = |number| system_hint(&io::Error::from_raw_os_error(number));
        assert!(hint(28).is_some_and(|hint| hint.contains("free some space")));
        assert!(hint(30).is_some_and(|hint| hint.contains("read-only")));
        assert_eq!(hint(24), Some(FILES_HINT));
        assert_eq!(hint(2), None);
        let wrapped = io::Error::other(io::Error::from_raw_os_error(24).to_string());
        assert_eq!(system_hint(&wrapped), Some(FILES_HINT));
    }
}
