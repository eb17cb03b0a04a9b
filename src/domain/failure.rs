//! What a failure means to the caller: a kind (one exit code each) and a hint.
//!
//! Every error enum of the crate implements [`Failure`]. Its `Display` is a lower-case fragment without
//! a full stop, so that a chain of sources reads as one line; advice is apart, in [`Failure::hint`].

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
