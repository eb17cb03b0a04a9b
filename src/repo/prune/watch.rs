//! Since when a writer has not been heard of, by one clock that only goes forward.
//!
//! What a watch says can end a run that lives (it fails with exit 6 and is taken again), never a backup: no step of a
//! removal relies on it. So it may be kept in a file between two prunes of one host, as long as that host was not
//! started anew: its clock begins at its start.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::intents::Intents;
use crate::domain::id::BackupId;

/// When a writer was first seen to be where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sight {
    renewals: u32,
    since_ms: u64,
}

/// The writers that are at work, as far as this host has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watch(BTreeMap<BackupId, Sight>);

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Watch {
    /// Takes in what a listing showed at `now`: who was renewed begins anew, who has ended is forgotten.
    pub fn look(&mut self, intents: &Intents, now: Duration) {
        let now = milliseconds(now);
        let mut seen = BTreeMap::new();
        for (id, renewals) in intents.unfinished() {
            let before = self.0.get(id).copied();
            // A sight of the future is one of another clock.
            let same = before.filter(|sight| sight.renewals == renewals && sight.since_ms <= now);
            seen.insert(id.clone(), same.unwrap_or(Sight { renewals, since_ms: now }));
        }
        self.0 = seen;
    }

    /// Those that were seen to do nothing for `grace`.
    pub fn overdue(&self, grace: Duration, now: Duration) -> Vec<BackupId> {
        let (grace, now) = (milliseconds(grace), milliseconds(now));
        let overdue =
            self.0.iter().filter(|(_, sight)| now.saturating_sub(sight.since_ms) >= grace);
        overdue.map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_seen_to_do_nothing_for_long_is_overdue() {
        let id = |number| BackupId::new(jiff::Timestamp::UNIX_EPOCH, number);
        let hour = |hours| Duration::from_hours(hours);
        let mut intents = Intents::default();
        intents.begun.extend([(id(1), 0), (id(2), 0), (id(3), 0)]);
        let mut watch = Watch::default();
        watch.look(&intents, hour(5));
        assert_eq!(watch.overdue(hour(24), hour(5)), []);
        assert_eq!(watch.overdue(Duration::ZERO, hour(5)).len(), 3);
        // One is renewed, one ends.
        intents.begun.insert(id(2), 1);
        intents.done.insert(id(3));
        watch.look(&intents, hour(29));
        assert_eq!(watch.overdue(hour(24), hour(29)), [id(1)]);
        let kept = serde_json::to_string(&watch).expect("JSON");
        assert_eq!(serde_json::from_str::<Watch>(&kept).expect("JSON"), watch);
        // A clock that was started anew has seen nobody.
        watch.look(&intents, hour(1));
        assert_eq!(watch.overdue(hour(24), hour(24)), []);
        assert_eq!(watch.overdue(hour(24), hour(25)).len(), 2);
    }
}
