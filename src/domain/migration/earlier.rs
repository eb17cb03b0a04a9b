//! An earlier guarded run whose end nobody recorded, and what has become of the tools' histories since.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::id::BackupId;
use super::State;

/// An earlier run whose end is not recorded: pgkeep was killed, or the store did not take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// The run.
    pub run: BackupId,
    /// Its snapshot, of before its command.
    pub snapshot: BackupId,
    /// When its command was about to begin; of one that was not, when the snapshot began.
    pub at: Timestamp,
    /// Where.
    pub host: String,
    /// Its command, secrets masked; none where it was not begun.
    pub command: Option<Vec<String>>,
    /// How the histories stand to those of before it, one line each.
    pub since: Vec<String>,
    /// Databases that were swapped for that snapshot: by a rollback.
    pub kept_as: Vec<String>,
}

/// How histories stand now to those of before a command.
pub fn since(before: &[State], now: &[State]) -> Vec<String> {
    let line = |state: &State| {
        let same = |old: &&State| {
            old.tool == state.tool && (old.table == state.table || old.table.is_none())
        };
        let name = state.tool.name();
        let Some(old) = before.iter().find(same) else {
            return format!("{name}: its history was not looked at then");
        };
        let mut told = Vec::new();
        let last = state.last_applied.as_deref().unwrap_or("none");
        match state.applied.cmp(&old.applied) {
            std::cmp::Ordering::Greater => {
                told.push(format!(
                    "{} more applied, the last is {last}",
                    state.applied - old.applied
                ));
            }
            std::cmp::Ordering::Less => {
                told.push(format!(
                    "{} fewer applied, the last is {last}",
                    old.applied - state.applied
                ));
            }
            // Some tools keep their position only.
            std::cmp::Ordering::Equal if state.last_applied != old.last_applied => {
                told.push(format!("the last applied is {last}"));
            }
            std::cmp::Ordering::Equal => {}
        }
        let new = state.failed.iter().filter(|failed| !old.failed.contains(failed));
        let new: Vec<&str> = new.map(|failed| failed.name.as_str()).collect();
        if !new.is_empty() {
            told.push(format!("failed: {}", new.join(", ")));
        }
        if told.is_empty() {
            return format!("{name}: its history is as it was before that");
        }
        format!("{name}: {}", told.join("; "))
    };
    now.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Failed, Tool};
    use super::*;

    fn state(applied: u64, last: &str, failed: &[&str]) -> State {
        let failed = failed.iter().map(|name| (*name).to_owned());
        State {
            tool: Tool::Prisma,
            table: Some("public._prisma_migrations".to_owned()),
            applied,
            last_applied: Some(last.to_owned()),
            failed: failed.map(|name| Failed { name, detail: None, row: None }).collect(),
            edited: Vec::new(),
            without_file: Vec::new(),
            pending: Vec::new(),
            pending_unknown: None,
            files: None,
        }
    }

    #[test]
    fn a_history_is_told_by_what_has_moved() {
        let told = |before: State, now: State| since(&[before], &[now]).remove(0);
        let before = || state(1, "1", &["0"]);
        let same = "Prisma Migrate: its history is as it was before that";
        assert_eq!(told(before(), before()), same);
        let moved = told(before(), state(3, "3", &["0", "4"]));
        assert_eq!(moved, "Prisma Migrate: 2 more applied, the last is 3; failed: 4");
        let position = told(before(), state(1, "2", &["0"]));
        assert_eq!(position, "Prisma Migrate: the last applied is 2");
        let first = State { table: None, applied: 0, last_applied: None, ..before() };
        assert!(told(first, before()).contains("1 more applied"));
        assert_eq!(since(&[before()], &[]), [""; 0]);
        assert!(since(&[], &[before()])[0].ends_with("was not looked at then"));
    }
}
