//! A year of many clusters, by the clock of the test: what is due, what is pruned, and nothing else.
//!
//! Each cluster has a zone, schedules and jitter of its own, runs that fail, and a daemon that is down for a while now and
//! then. `make test` sees a few clusters; `make soak` sees a thousand, optimised, and holds them to a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::id::{BackupId, ClusterName};
use super::manifest::Trigger;
use super::retention::{Backup, Policies, RetentionPolicy, State, decide};
use super::schedule::{Attempts, Due, Moment, Schedule, due};
use super::verification::Outcome;

const DATABASES: usize = 5;
/// What each database has when the year begins; the policy keeps about as many.
const BACKUPS: u32 = 60;
const RETRY_FOR: Duration = Duration::from_hours(6);
const ZONES: [&str; 5] =
    ["UTC", "Europe/London", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"];
/// The hours in which clocks are changed are among them.
const SNAPSHOTS: [&str; 4] = ["0 2 * * *", "30 1 * * *", "15 2 * * 1-6", "30 2,14 * * *"];

/// The year 2024, which has a day more.
fn begin() -> Timestamp {
    Timestamp::from_second(1_704_067_200).expect("in range")
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).expect("in range")
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).expect("in range")
}

/// Chance from a seed (`SplitMix64`).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Snapshot(usize),
    Verify(usize),
    Prune,
}

/// One that went well.
struct Run {
    /// The time of the schedule that it was for.
    of: Timestamp,
    began: Timestamp,
    /// Whether it was tried in vain before.
    again: bool,
}

struct Job {
    work: Work,
    schedule: Schedule,
    offset: Duration,
    last_run: Timestamp,
    attempts: Option<Attempts>,
    wakes: Timestamp,
    /// In order.
    done: Vec<Run>,
    /// The times of its schedule that it was tried for in vain.
    failed: BTreeSet<Timestamp>,
}

impl Job {
    /// Whether every attempt of that time fails.
    fn is_doomed(&self, of: Timestamp) -> bool {
        let seed = of.as_second().unsigned_abs() ^ self.offset.as_secs().rotate_left(32);
        Chance(seed).below(200) == 0
    }
}

struct Cluster {
    name: ClusterName,
    chance: Chance,
    policies: Policies,
    backups: [Vec<Backup>; DATABASES],
    jobs: Vec<Job>,
    /// When the daemon was down.
    outages: Vec<(Timestamp, Timestamp)>,
    pruned: u64,
}

impl Cluster {
    fn new(number: u64) -> Self {
        let mut chance = Chance(number);
        let at = usize::try_from(number).expect("few");
        let zone = TimeZone::get(ZONES[at % ZONES.len()]).expect("this host knows time zones");
        let name: ClusterName = format!("cluster-{number}").parse().expect("a name");
        let policy = RetentionPolicy {
            keep_daily: 35,
            keep_weekly: 12,
            time_zone: zone.clone(),
            ..RetentionPolicy::default()
        };
        let jitter = Duration::from_mins(chance.below(60));
        let job = |work, text: &str| {
            let schedule = Schedule::parse(text, zone.clone(), jitter).expect("a schedule");
            let offset = schedule.offset(&format!("{name} {work:?}"));
            Job {
                work,
                schedule,
                offset,
                last_run: begin(),
                attempts: None,
                wakes: begin(),
                done: Vec::new(),
                failed: BTreeSet::new(),
            }
        };
        let mut jobs = vec![job(Work::Prune, "30 5 * * *")];
        for database in 0..DATABASES {
            jobs.push(job(Work::Snapshot(database), SNAPSHOTS[at % SNAPSHOTS.len()]));
            jobs.push(job(Work::Verify(database), "0 4 * * 0"));
        }
        let mut outages = Vec::new();
        let mut from = begin();
        for _ in 0..6 {
            from = later(from, Duration::from_hours(24 * 20 + chance.below(24 * 30)));
            let until = later(from, Duration::from_mins(1 + chance.below(60 * 24 * 5)));
            outages.push((from, until));
            from = until;
        }
        let policies = BTreeMap::from([(name.clone(), policy)]);
        let backups = std::array::from_fn(|_| Vec::new());
        let mut this = Self { name, chance, policies, backups, jobs, outages, pruned: 0 };
        for database in 0..DATABASES {
            for day in (1..=BACKUPS).rev() {
                this.take(database, earlier(begin(), Duration::from_hours(24) * day));
            }
        }
        this
    }

    fn take(&mut self, database: usize, now: Timestamp) {
        let random = u32::try_from(self.chance.below(1 << 32)).expect("32 bits");
        let history = &mut self.backups[database];
        let previous = history.last().map(|backup| backup.id.clone());
        let suspect = previous.clone().filter(|_| self.chance.below(200) == 0);
        history.push(Backup {
            id: BackupId::new(now, random),
            cluster: self.name.clone(),
            database: ["a", "b", "c", "d", "e"][database].to_owned(),
            started_at: now,
            trigger: Trigger::Scheduled,
            state: State::Done,
            pinned: false,
            verification: None,
            suspect,
            previous,
            foreign: false,
            safety: false,
        });
    }

    /// What a prune does, and what it must leave.
    fn prune(&mut self, now: Timestamp) {
        let all: Vec<&Backup> = self.backups.iter().flatten().collect();
        let verdicts = decide(&all, &self.policies, now);
        let mut verdicts = verdicts.into_iter();
        for history in &mut self.backups {
            let newest = history.last().map(|backup| backup.id.clone());
            let good = history.iter().rfind(|backup| is_good(backup));
            let good = good.map(|backup| backup.id.clone());
            let before = history.len();
            history.retain(|_| !verdicts.next().expect("one each").is_removed());
            self.pruned += (before - history.len()) as u64;
            assert_eq!(history.last().map(|backup| backup.id.clone()), newest, "at {now}");
            let still = history.iter().rfind(|backup| is_good(backup));
            assert_eq!(still.map(|backup| backup.id.clone()), good, "at {now}");
            assert!(good.is_some(), "a database without a good backup at {now}");
        }
    }

    fn run(&mut self, work: Work, now: Timestamp) {
        match work {
            Work::Snapshot(database) => self.take(database, now),
            Work::Verify(database) => {
                let outcome =
                    if self.chance.below(50) == 0 { Outcome::Failed } else { Outcome::Passed };
                let newest = self.backups[database].last_mut().expect("never empty");
                newest.verification = Some(outcome);
            }
            Work::Prune => self.prune(now),
        }
    }

    /// Goes on to the end of the year, from each time at which something may be due to the next.
    fn live(&mut self, end: Timestamp) {
        loop {
            let next = (0..self.jobs.len()).min_by_key(|at| self.jobs[*at].wakes).expect("jobs");
            let mut wall = self.jobs[next].wakes;
            wall = up(&self.outages, wall);
            if wall > end {
                break;
            }
            let now = Moment { wall, monotonic: begin().duration_until(wall).unsigned_abs() };
            let job = &mut self.jobs[next];
            let last_run = Some(job.last_run);
            match due(&job.schedule, job.offset, last_run, job.attempts, RETRY_FOR, now) {
                Due::At(at) => {
                    assert!(at > wall, "waits for the past");
                    job.wakes = at;
                }
                Due::Now(of) if job.is_doomed(of) || self.chance.below(40) == 0 => {
                    let ended = now.monotonic + Duration::from_secs(5);
                    job.attempts = Some(Attempts::and(job.attempts, of, now.monotonic, ended));
                    job.failed.insert(of);
                    job.wakes = wall;
                }
                Due::Now(of) => {
                    let again = job.failed.remove(&of);
                    job.done.push(Run { of, began: wall, again });
                    job.last_run = wall;
                    job.wakes = wall;
                    let work = job.work;
                    self.run(work, wall);
                }
                Due::Never => panic!("it comes again"),
            }
        }
    }
}

/// When the daemon is there to see to what is due then.
fn up(outages: &[(Timestamp, Timestamp)], at: Timestamp) -> Timestamp {
    let down = outages.iter().find(|(from, until)| (*from..*until).contains(&at));
    down.map_or(at, |(_, until)| *until)
}

/// Every time of its schedule was run for once, or tried in vain; of those that one outage hid, the last alone. One that
/// is made up for after the next time has come, and before its jitter has passed, is for both.
fn every_run_happened_once(job: &Job, outages: &[(Timestamp, Timestamp)], end: Timestamp) {
    let seen = |of: Timestamp| up(outages, later(of, job.offset));
    // What the last hours of the year began may be finished in the next.
    let end = earlier(end, Duration::from_hours(24));
    let mut wanted = BTreeSet::new();
    let mut at = begin();
    while let Some(of) = job.schedule.next(at).filter(|of| seen(*of) < end) {
        at = of;
        let next = job.schedule.next(of).expect("it comes again");
        if later(next, job.offset) > seen(of) {
            wanted.insert(of);
        }
    }
    assert!(job.done.is_sorted_by(|a, b| a.of < b.of), "run twice for one time");
    for Run { of, began, again } in &job.done {
        // What began at a time of the schedule or later counts for it (decision 0011): jitter is there to spread load, and a
        // second run before it has passed would add to it. Only an outage makes a run so late: it came at once when that
        // ended, or was tried in vain first.
        let next = job.schedule.next(*of).expect("it comes again");
        if (next..later(next, job.offset)).contains(began) {
            let longest = if *again { RETRY_FOR } else { Duration::ZERO };
            let latest = up(outages, later(seen(*of), longest));
            assert!(*began <= latest, "as late as {began} for {of}");
            wanted.remove(&next);
        }
    }
    let counts = |of: &&Timestamp| seen(**of) < end;
    let done: BTreeSet<Timestamp> =
        job.done.iter().map(|run| &run.of).filter(counts).copied().collect();
    let failed: BTreeSet<Timestamp> = job.failed.iter().filter(counts).copied().collect();
    assert!(done.is_disjoint(&failed));
    assert_eq!(&done | &failed, wanted, "{}", job.schedule);
    for of in failed {
        // A daemon that went down between two attempts came back when the next time had come.
        let window = seen(of)..later(seen(of), RETRY_FOR);
        let cut = outages.iter().any(|(from, _)| window.contains(from));
        // So did the next time of its own accord, where an outage had left little time before it; else they are further
        // apart than attempts last.
        let next = job.schedule.next(of).expect("it comes again");
        let overtaken = window.contains(&later(next, job.offset));
        assert!(job.is_doomed(of) || cut || overtaken, "given up at {of}");
    }
}

fn is_good(backup: &Backup) -> bool {
    backup.suspect.is_none() && backup.verification != Some(Outcome::Failed)
}

#[test]
fn in_a_virtual_year_everything_runs_once_and_the_last_good_of_each_database_stays() {
    let clusters = std::env::var("YEAR_CLUSTERS").ok().and_then(|text| text.parse().ok());
    let clusters: u64 = clusters.unwrap_or(5);
    let started = Instant::now();
    let (next, runs, pruned, kept) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= clusters {
                break;
            }
            let end = later(begin(), Duration::from_hours(24 * 366));
            let mut cluster = Cluster::new(number);
            cluster.live(end);
            for job in &cluster.jobs {
                every_run_happened_once(job, &cluster.outages, end);
                runs.fetch_add(job.done.len() as u64, Ordering::Relaxed);
            }
            pruned.fetch_add(cluster.pruned, Ordering::Relaxed);
            let left: usize = cluster.backups.iter().map(Vec::len).sum();
            kept.fetch_add(left as u64, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let elapsed = started.elapsed();
    let (runs, pruned) = (runs.into_inner(), pruned.into_inner());
    let kept = kept.into_inner() / (clusters * DATABASES as u64);
    println!(
        "{clusters} clusters of {DATABASES} databases with {kept} backups each: {runs} runs, {pruned} backups \
         pruned, in {:.1} s",
        elapsed.as_secs_f64()
    );
    assert!((50..80).contains(&kept), "{kept} backups of each database");
    assert!(pruned > 0 && runs > clusters * 365 * DATABASES as u64);
    if !cfg!(debug_assertions) {
        let limit =
            Duration::from_mins(1) * u32::try_from(clusters.max(100)).expect("thousands") / 1000;
        assert!(elapsed < limit, "{elapsed:?} for {clusters} clusters");
    }
}
