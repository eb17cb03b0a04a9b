//! What a guarded run leaves: the report, which is a part of the run's event and what `--report` and `--json` give.

use serde::{Deserialize, Serialize};

use super::super::id::BackupId;
use super::super::verification::{Check, Outcome};
use super::{Earlier, Rehearsal, State};

/// What became of a guarded run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardOutcome {
    /// The command was not run.
    NotRun,
    /// It succeeded, and nothing says otherwise.
    Succeeded,
    /// It ended with another code than 0, or by a signal.
    CommandFailed,
    /// It succeeded, and failed rows, an assertion or a health check say otherwise.
    ChecksFailed,
    /// It is about to be run, and how it ended is not recorded yet.
    Begun,
}

impl GuardOutcome {
    /// The word in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRun => "not-run",
            Self::Succeeded => "succeeded",
            Self::CommandFailed => "command-failed",
            Self::ChecksFailed => "checks-failed",
            Self::Begun => "begun",
        }
    }
}

/// Whether a snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SnapshotDecision {
    /// It was, before the command.
    Taken {
        /// Its id.
        id: BackupId,
        /// Whether it was proved in scratch, too.
        verified: bool,
    },
    /// There was nothing to lose.
    NothingToLose {
        /// Why.
        reason: String,
    },
    /// `--if-pending`, and nothing was.
    NothingPending,
    /// The run ended before.
    None,
}

/// How the command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandEnd {
    /// Its exit code; 128 and the signal's number where a signal ended it.
    pub exit_code: u8,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How long it ran.
    pub duration_ms: u64,
}

/// Something that the migration left to be mended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warning {
    /// One line.
    pub message: String,
    /// What mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
}

/// A guarded run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationRecord {
    /// The command, its secrets masked.
    pub command: Vec<String>,
    /// The commit that was checked out where it ran.
    pub git_commit: Option<String>,
    /// How the tools' histories stood before.
    pub before: Vec<State>,
    /// And after; none where that could not be read, or the command was not run.
    pub after: Option<Vec<State>>,
    /// Whether a snapshot was taken.
    pub snapshot: SnapshotDecision,
    /// How the command ended; none where it was not run.
    pub ended: Option<CommandEnd>,
    /// What was looked at afterwards: `failed-rows`, `assertions`, `health`.
    pub checks: Vec<Check>,
    /// What is left to be mended.
    pub warnings: Vec<Warning>,
    /// What became of it.
    pub outcome: GuardOutcome,
    /// An earlier run of that database, of which nobody knows how it ended.
    #[serde(default)]
    pub earlier: Option<Earlier>,
    /// The rehearsal before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Box<Rehearsal>>,
}

impl MigrationRecord {
    /// The snapshot that is the way back.
    pub fn way_back(&self) -> Option<&BackupId> {
        match &self.snapshot {
            SnapshotDecision::Taken { id, .. } => Some(id),
            _ => None,
        }
    }

    /// One line for the list of events.
    pub fn summary(&self) -> String {
        let mut told = vec![format!("`{}`", self.command.join(" "))];
        let applied = |states: &[State]| states.iter().map(|state| state.applied).sum::<u64>();
        if let Some(after) = &self.after {
            let grown = applied(after).saturating_sub(applied(&self.before));
            told.push(format!("{grown} applied"));
        }
        if let Some(end) = &self.ended
            && end.exit_code != 0
        {
            told.push(match end.signal {
                Some(signal) => format!("ended by signal {signal}"),
                None => format!("ended with {}", end.exit_code),
            });
        }
        let broken = self.checks.iter().filter(|check| check.result == Outcome::Failed);
        told.extend(broken.map(|check| format!("{}: {}", check.name, check.detail)));
        told.join("; ")
    }
}
