//! The locks of a command, from looks at `pg_locks`.
//!
//! What is between two looks is not seen. A time is from the first look of an unbroken run to its last, so a lock was
//! held at least so long, and at most two pauses longer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::domain::migration::rehearsal::{BLOCKS_WRITES, LOCK_MODES, Sight, TableLock, strength};
use crate::postgres::PostgresError;
use crate::postgres::session::Session;

/// How often it is looked.
const PAUSE: Duration = Duration::from_millis(5);

/// Those of one database, but for ours.
const LOCKS: &str = "
    SELECT l.relation, l.mode
      FROM pg_catalog.pg_locks l
     WHERE l.locktype = 'relation' AND l.granted AND l.database = $1 AND l.relation >= 16384
       AND l.pid <> pg_catalog.pg_backend_pid()";

/// A table's oid, and how strong the lock is.
type Lock = (u32, usize);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    runs: BTreeMap<Lock, Run>,
    /// Those of the last look, and when that was.
    last: Option<(Duration, BTreeSet<Lock>)>,
    widest: Duration,
}

#[derive(Debug, Default, Clone, Copy)]
struct Run {
    since: Duration,
    longest: Duration,
}

impl Seen {
    /// Looks until it is dropped, or the server is gone.
    pub(super) async fn watch(&mut self, session: &Session, database: u32) -> PostgresError {
        let begun = Instant::now();
        let mut ticks = tokio::time::interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let statement = match session.client().prepare(LOCKS).await {
            Ok(statement) => statement,
            Err(error) => return error.into(),
        };
        loop {
            ticks.tick().await;
            match session.client().query(&statement, &[&database]).await {
                Ok(rows) => {
                    let lock = |at: usize| {
                        let mode: String = rows[at].try_get(1).ok()?;
                        Some((rows[at].try_get(0).ok()?, strength(&mode)?))
                    };
                    self.look(begun.elapsed(), (0..rows.len()).filter_map(lock).collect());
                }
                Err(error) => return error.into(),
            }
        }
    }

    fn look(&mut self, at: Duration, held: BTreeSet<Lock>) {
        let (before, last) = self.last.take().unwrap_or((at, BTreeSet::new()));
        self.widest = self.widest.max(at.saturating_sub(before));
        for lock in &held {
            let run = self.runs.entry(*lock).or_default();
            if !last.contains(lock) {
                run.since = at;
            }
            run.longest = run.longest.max(at.saturating_sub(run.since));
        }
        self.last = Some((at, held));
    }

    /// The widest pause.
    pub(super) fn resolution_ms(&self) -> u64 {
        milliseconds(self.widest.max(PAUSE))
    }

    /// Of each table that was there before the strongest, and weaker ones that kept writers away for longer.
    pub(super) fn of_tables(&self, before: &Sight) -> Vec<TableLock> {
        let mut told = Vec::new();
        for (oid, seen) in &before.relations {
            if !seen.is_table {
                continue;
            }
            let own = self.runs.range((*oid, 0)..=(*oid, usize::MAX)).rev();
            let mut longest = None;
            for ((_, strength), run) in own {
                let longer = longest.is_none_or(|longest| run.longest > longest);
                if longest.is_none() || (longer && *strength >= BLOCKS_WRITES) {
                    longest = Some(run.longest);
                    told.push(TableLock {
                        table: seen.name.clone(),
                        mode: LOCK_MODES[*strength].to_owned(),
                        held_ms: milliseconds(run.longest),
                    });
                }
            }
        }
        told.sort_by(|one, other| one.table.cmp(&other.table));
        told
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::migration::rehearsal;

    #[test]
    fn a_lock_is_held_from_the_first_look_of_a_run_to_its_last_and_runs_do_not_add_up() {
        let mut seen = Seen::default();
        let [write, share, exclusive] = [(7, 2), (7, 4), (7, 7)];
        for (at, held) in [
            (0, vec![write]),
            (10, vec![write, share]),
            (25, vec![write, share]),
            (30, vec![write, share]),
            (40, vec![write, exclusive]),
            (45, vec![write, exclusive]),
            (50, vec![]),
            (55, vec![exclusive]),
            (90, vec![]),
        ] {
            seen.look(Duration::from_millis(at), held.into_iter().collect());
        }
        let table = rehearsal::Seen {
            name: "s.pet".to_owned(),
            is_table: true,
            rows: Some(1),
            file: 1,
            size_bytes: 1,
            columns: BTreeMap::new(),
        };
        let before = Sight { relations: [(7, table)].into(), ..Sight::default() };
        let told: Vec<String> = seen
            .of_tables(&before)
            .iter()
            .map(|lock| format!("{} {}", lock.mode, lock.held_ms))
            .collect();
        // The weak one was held for longest of all, and keeps nobody away.
        assert_eq!(told, ["AccessExclusiveLock 5", "ShareLock 20"]);
        assert_eq!(seen.resolution_ms(), 35);
        assert_eq!(seen.of_tables(&Sight::default()), []);
    }
}
