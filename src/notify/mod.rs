//! Floor 1: webhooks and pings. The only place that names the HTTP client.
//!
//! Telling is never in the way of a backup: what is to be told goes into a bounded queue, is tried again for a while,
//! and is then dropped with a warning in the log. Nothing told carries a secret; URLs are secrets and are not logged.

use jiff::Timestamp;
use serde::Serialize;

/// Something that happened, as a webhook tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `failure`, `recovery`, `success`, `overdue`.
    pub news: String,
    /// One line for people.
    pub text: String,
    /// When.
    pub at: Timestamp,
    /// This host.
    pub host: String,
    /// The verb, where it is about a run.
    pub verb: Option<String>,
    /// The cluster.
    pub cluster: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// The run, where it is about one.
    pub run: Option<String>,
    /// The backup, where it is about one.
    pub backup: Option<String>,
    /// The exit code of the contract, where a run ended.
    pub exit_code: Option<u8>,
    /// What to check, where something failed.
    pub hint: Option<String>,
}
