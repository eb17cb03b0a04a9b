//! What is to be done when: the jobs of a configuration, what the catalog says of their past, and what is due.
//! No I/O and no clock.

#![expect(clippy::implicit_hasher, reason = "the scheduler alone asks")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::runs::Work;
use crate::config::{JobSettings, Settings};
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::schedule::{self, Attempts, Due, Moment, due};
use crate::repo::catalog::Catalog;

/// Something that is done on a schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job {
    /// What.
    pub work: Work,
    /// The cluster.
    pub cluster: ClusterName,
    /// The database, where it is about one.
    pub database: Option<String>,
}

impl Job {
    /// `snapshot main/shop`, `prune main`: names locks, spreads jitter, and is what logs say.
    pub fn name(&self) -> String {
        let work = self.work.as_str();
        match &self.database {
            Some(database) => format!("{work} {}/{database}", self.cluster),
            None => format!("{work} {}", self.cluster),
        }
    }
}

/// The jobs of a configuration, where each cluster's databases are those of `databases`.
pub fn timetable<'a, 'b>(
    settings: &'a Settings,
    databases: impl Fn(&ClusterName) -> Option<&'b Vec<String>>,
) -> Vec<(Job, &'a JobSettings)> {
    let mut jobs = Vec::new();
    for (name, cluster) in &settings.clusters {
        let of = |work, database: Option<&String>| Job {
            work,
            cluster: name.clone(),
            database: database.cloned(),
        };
        for database in databases(name).into_iter().flatten() {
            for (work, job) in
                [(Work::Snapshot, &cluster.snapshot), (Work::Verify, &cluster.verify)]
            {
                jobs.extend(job.as_ref().map(|job| (of(work, Some(database)), job)));
            }
        }
        jobs.extend(cluster.prune.as_ref().map(|job| (of(Work::Prune, None), job)));
    }
    jobs
}

/// What the catalog says of the past.
#[derive(Debug, Default)]
pub struct Past {
    /// When the newest run of each job began.
    pub runs: HashMap<Job, Timestamp>,
    /// The databases of each cluster that have a backup: of others none can be verified.
    pub databases: BTreeMap<ClusterName, Vec<String>>,
}

/// What the catalog says of the past.
///
/// `ahead` remembers the backups that were seen far in the future: when their time has come, they still stand for no
/// run of it.
pub fn past(catalog: &Catalog, now: Timestamp, ahead: &mut HashSet<BackupId>) -> Past {
    let mut past = Past { databases: catalog.databases(), ..Past::default() };
    let limit = schedule::latest(now);
    let runs = &mut past.runs;
    let mut note = |work, cluster: &ClusterName, database: &str, id: &BackupId, at: Timestamp| {
        if at > limit {
            ahead.insert(id.clone());
        }
        if !ahead.contains(id) {
            let job = Job { work, cluster: cluster.clone(), database: Some(database.to_owned()) };
            let newest = runs.entry(job).or_insert(at);
            *newest = at.max(*newest);
        }
    };
    for entry in &catalog.entries {
        let manifest = &entry.manifest;
        let (cluster, database) = (&manifest.cluster, &*manifest.database);
        if entry.is_run() {
            note(Work::Snapshot, cluster, database, &manifest.id, manifest.started_at);
        }
        if let Some(record) = &entry.verification {
            note(Work::Verify, cluster, database, &record.id, record.started_at);
        }
    }
    past
}

/// What this process remembers of a job.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Attempts that failed.
    pub attempts: Option<Attempts>,
    /// For which time of its schedule it was done, or found done.
    pub done: Option<Timestamp>,
    /// Somebody else was at it: not before this, by the monotonic clock.
    pub not_before: Option<Duration>,
    /// Whether it is at work or waits for its turn.
    pub busy: bool,
    /// Whether that is for a repository that is not in force any more: how it ends says nothing.
    pub outdated: bool,
}

impl Memory {
    /// What is left of it where another repository is in force.
    pub fn outdate(&mut self) {
        *self = Self { busy: self.busy, outdated: self.busy, ..Self::default() };
    }

    /// It is not at work any more; whether what came of it counts.
    pub fn end(&mut self) -> bool {
        self.busy = false;
        !std::mem::take(&mut self.outdated)
    }
}

/// There is a backup, and none of the same database on its way or due: that one is then verified, and not the one
/// before it, which a prune may take meanwhile.
fn is_to_be_verified(
    job: &Job,
    past: &Past,
    memories: &HashMap<Job, Memory>,
    found: &[(Job, Timestamp)],
) -> bool {
    let databases = past.databases.get(&job.cluster).into_iter().flatten();
    let snapshot = Job { work: Work::Snapshot, ..job.clone() };
    let is_there = databases.into_iter().any(|one| Some(one) == job.database.as_ref());
    let on_its_way = memories.get(&snapshot).is_some_and(|memory| memory.busy)
        || found.iter().any(|(one, _)| *one == snapshot);
    is_there && !on_its_way
}

/// What is due of `jobs`, and when to look again at the latest.
pub fn decide(
    jobs: &[(Job, &JobSettings)],
    past: &Past,
    memories: &HashMap<Job, Memory>,
    retry_for: Duration,
    now: Moment,
) -> (Vec<(Job, Timestamp)>, Option<Timestamp>) {
    let mut found = Vec::new();
    let mut again: Option<Timestamp> = None;
    let mut look_at = |at: Timestamp| again = Some(again.map_or(at, |again| again.min(at)));
    for (job, settings) in jobs {
        let memory = memories.get(job).cloned().unwrap_or_default();
        let is_pointless =
            job.work == Work::Verify && !is_to_be_verified(job, past, memories, &found);
        if memory.busy || is_pointless {
            continue;
        }
        if let Some(left) = memory.not_before.and_then(|then| then.checked_sub(now.monotonic))
            && !left.is_zero()
        {
            let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
            look_at(now.wall.checked_add(left).unwrap_or(Timestamp::MAX));
            continue;
        }
        // What was done under a clock that has gone back since says nothing.
        let done = memory.done.filter(|done| *done <= now.wall);
        let last = past.runs.get(job).copied().max(done);
        let schedule = &settings.schedule;
        let offset = schedule.offset(&job.name());
        match due(schedule, offset, last, memory.attempts, retry_for, now) {
            Due::Now(occurrence) => found.push((job.clone(), occurrence)),
            Due::At(at) => look_at(at),
            Due::Never => {}
        }
    }
    (found, again)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::domain::schedule::Schedule;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn job(work: Work) -> Job {
        let database = (work != Work::Prune).then(|| "shop".to_owned());
        Job { work, cluster: "main".parse().expect("a name"), database }
    }

    fn nightly() -> JobSettings {
        let schedule = Schedule::parse("0 2 * * *", TimeZone::UTC, Duration::ZERO);
        JobSettings { schedule: schedule.expect("a schedule"), ping: None }
    }

    fn past(runs: &[(Work, &str)], backed_up: bool) -> Past {
        let key = || ("main".parse().expect("a name"), vec!["shop".to_owned()]);
        Past {
            runs: runs.iter().map(|(work, then)| (job(*work), at(then))).collect(),
            databases: backed_up.then(key).into_iter().collect(),
        }
    }

    fn due(work: Work, past: &Past, memory: Memory, now: &str) -> Option<Timestamp> {
        let settings = nightly();
        let memories = HashMap::from([(job(work), memory)]);
        let now = Moment { wall: at(now), monotonic: Duration::from_hours(1) };
        let jobs = [(job(work), &settings)];
        let (due, _) = decide(&jobs, past, &memories, Duration::from_hours(6), now);
        due.first().map(|(_, occurrence)| *occurrence)
    }

    #[test]
    fn a_missed_run_is_due_once_and_one_in_the_catalog_never() {
        let two = Some(at("2026-11-21T02:00:00Z"));
        let nothing = Memory::default;
        let missed = past(&[(Work::Snapshot, "2026-11-14T02:00:00Z")], true);
        assert_eq!(due(Work::Snapshot, &missed, nothing(), "2026-11-21T09:00:00Z"), two);
        let taken = past(&[(Work::Snapshot, "2026-11-21T02:00:00Z")], true);
        assert_eq!(due(Work::Snapshot, &taken, nothing(), "2026-11-21T09:00:00Z"), None);
        let never = past(&[], false);
        assert_eq!(due(Work::Snapshot, &never, nothing(), "2026-11-21T09:00:00Z"), two);
    }

    #[test]
    fn nothing_is_verified_before_there_is_a_backup() {
        let two = Some(at("2026-11-21T02:00:00Z"));
        let now = "2026-11-21T09:00:00Z";
        assert_eq!(due(Work::Verify, &past(&[], false), Memory::default(), now), None);
        assert_eq!(due(Work::Verify, &past(&[], true), Memory::default(), now), two);
        assert_eq!(due(Work::Prune, &past(&[], false), Memory::default(), now), two);
    }

    #[test]
    fn a_verification_waits_for_the_snapshot_beside_it() {
        let (settings, past) = (nightly(), past(&[], true));
        let now = Moment { wall: at("2026-11-21T09:00:00Z"), monotonic: Duration::from_hours(1) };
        let jobs = [(job(Work::Snapshot), &settings), (job(Work::Verify), &settings)];
        let decided = |memory: Memory| {
            let memories = HashMap::from([(job(Work::Snapshot), memory)]);
            let (due, _) = decide(&jobs, &past, &memories, Duration::from_hours(6), now);
            due.into_iter().map(|(job, _)| job.work).collect::<Vec<_>>()
        };
        assert_eq!(decided(Memory::default()), [Work::Snapshot]);
        assert_eq!(decided(Memory { busy: true, ..Memory::default() }), []);
        let failed = Attempts::and(None, at("2026-11-21T02:00:00Z"), now.monotonic, now.monotonic);
        let waits = Memory { attempts: Some(failed), ..Memory::default() };
        assert_eq!(decided(waits), [Work::Verify], "one that cannot be taken holds nothing up");
    }

    #[test]
    fn what_is_at_work_or_held_by_another_is_left_alone() {
        let now = "2026-11-21T09:00:00Z";
        let busy = Memory { busy: true, ..Memory::default() };
        assert_eq!(due(Work::Prune, &past(&[], false), busy, now), None);
        let held = Memory { not_before: Some(Duration::from_secs(3601)), ..Memory::default() };
        assert_eq!(due(Work::Prune, &past(&[], false), held, now), None);
        let free = Memory { not_before: Some(Duration::from_hours(1)), ..Memory::default() };
        assert!(due(Work::Prune, &past(&[], false), free, now).is_some());
    }

    #[test]
    fn what_was_done_for_another_repository_is_due_once_that_has_ended() {
        let now = "2026-11-21T09:00:00Z";
        let done = Some(at("2026-11-21T02:00:00Z"));
        let mut memory = Memory { done, busy: true, ..Memory::default() };
        memory.outdate();
        assert_eq!(due(Work::Prune, &past(&[], false), memory.clone(), now), None, "at work");
        assert!(!memory.end(), "what comes of it does not count");
        assert_eq!(due(Work::Prune, &past(&[], false), memory.clone(), now), done);
        memory.busy = true;
        assert!(memory.end(), "the next one does");
    }

    #[test]
    fn what_was_done_under_a_clock_that_has_gone_back_is_due() {
        let then = Some(at("2026-11-22T02:00:00Z"));
        let ahead = Memory { done: then, ..Memory::default() };
        let nothing = past(&[], true);
        assert!(due(Work::Prune, &nothing, ahead.clone(), "2026-11-21T09:00:00Z").is_some());
        assert!(due(Work::Prune, &nothing, ahead, "2026-11-22T09:00:00Z").is_none());
    }
}
