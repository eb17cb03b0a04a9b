//! Retention: which backups are kept, and every reason why (rule 3 of the design).
//!
//! A pure function of backups, policies and now. The buckets are those of restic: the newest backup of each hour,
//! day, week, month and year is kept, as many of them as the policy says, and the oldest one while a rule is not
//! full. The reasons for what is special here are `docs/decisions/0010-retention-and-prune.md`.
//!
//! - Only backups that are done count; what is open is kept, what is dead goes.
//! - Foreign and imported backups are kept, and so are those whose time is ahead of this clock. They take no place
//!   of another.
//! - A backup whose verification failed, and one that was taken before a restore, takes no place either: it is kept
//!   where another of its time would be.
//! - The newest, the newest good and the newest verified backup of a database are kept whatever the policy says, so
//!   no history is ever emptied.
//! - Ages count from the newest backup and not from now: a clock that stands ahead expires nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::id::{BackupId, ClusterName};
use super::manifest::Trigger;
use super::verification::Outcome;

#[cfg(test)]
mod tests;

/// How many backups of each database of a cluster are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// The newest so many.
    pub keep_last: u32,
    /// The newest of each of so many hours.
    pub keep_hourly: u32,
    /// The newest of each of so many days.
    pub keep_daily: u32,
    /// The newest of each of so many weeks (ISO 8601, from Monday on).
    pub keep_weekly: u32,
    /// The newest of each of so many months.
    pub keep_monthly: u32,
    /// The newest of each of so many years.
    pub keep_yearly: u32,
    /// All that are at most so much older than the newest.
    pub keep_within: Duration,
    /// Those before a migration that are at most so much older than the newest.
    pub pre_migration: Duration,
    /// Where hours, days, weeks, months and years begin.
    pub time_zone: TimeZone,
}

/// What is in force where a cluster's configuration names no `keep_…` (DESIGN.md, section 4).
impl Default for RetentionPolicy {
    fn default() -> Self {
        Self {
            keep_last: 7,
            keep_daily: 14,
            keep_weekly: 8,
            keep_monthly: 12,
            keep_yearly: 2,
            ..Self::nothing()
        }
    }
}

impl RetentionPolicy {
    /// Keeps nothing but what is before a migration, for 30 days; rules are to be added.
    pub fn nothing() -> Self {
        Self {
            keep_last: 0,
            keep_hourly: 0,
            keep_daily: 0,
            keep_weekly: 0,
            keep_monthly: 0,
            keep_yearly: 0,
            keep_within: Duration::ZERO,
            pre_migration: Duration::from_hours(30 * 24),
            time_zone: TimeZone::UTC,
        }
    }

    /// Whether no rule keeps an ordinary backup: nobody means that.
    pub fn keeps_nothing(&self) -> bool {
        self.counts().iter().all(|(_, count)| *count == 0) && self.keep_within.is_zero()
    }

    const fn counts(&self) -> [(Rule, u32); 6] {
        [
            (Rule::Last, self.keep_last),
            (Rule::Hourly, self.keep_hourly),
            (Rule::Daily, self.keep_daily),
            (Rule::Weekly, self.keep_weekly),
            (Rule::Monthly, self.keep_monthly),
            (Rule::Yearly, self.keep_yearly),
        ]
    }
}

/// `last 7, daily 14, …, in UTC`.
impl fmt::Display for RetentionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, count) in self.counts().into_iter().filter(|(_, count)| *count > 0) {
            write!(f, "{} {count}, ", rule.as_str())?;
        }
        for (name, span) in [("within", self.keep_within), ("pre-migration", self.pre_migration)] {
            if !span.is_zero() {
                let hours = span.as_secs() / 3600;
                match hours % 24 {
                    0 if hours > 0 => write!(f, "{name} {}d, ", hours / 24)?,
                    _ => write!(f, "{name} {}s, ", span.as_secs())?,
                }
            }
        }
        write!(f, "in {}", self.time_zone.iana_name().unwrap_or("a zone without a name"))
    }
}

/// The policies of the clusters that this host knows; backups of others are kept.
pub type Policies = BTreeMap<ClusterName, RetentionPolicy>;

/// What became of a backup's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It counts.
    Done,
    /// It may still fail.
    Open,
    /// It never counts (`docs/decisions/0002-dead-is-certified.md`).
    Dead,
}

/// What retention has to know of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Its id.
    pub id: BackupId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its database.
    pub database: String,
    /// When it began, by its host's clock.
    pub started_at: Timestamp,
    /// Why it was taken.
    pub trigger: Trigger,
    /// Whether it counts.
    pub state: State,
    /// Somebody wants it kept.
    pub pinned: bool,
    /// What its newest verification found.
    pub verification: Option<Outcome>,
    /// What it was compared with when it was found suspect, unless somebody has adopted it.
    pub suspect: Option<BackupId>,
    /// The one before it.
    pub previous: Option<BackupId>,
    /// Of a server that the cluster's name does not know, and not adopted.
    pub foreign: bool,
    /// Taken of a database that was about to be replaced.
    pub safety: bool,
}

/// A rule that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// `keep_last`.
    Last,
    /// `keep_hourly`.
    Hourly,
    /// `keep_daily`.
    Daily,
    /// `keep_weekly`.
    Weekly,
    /// `keep_monthly`.
    Monthly,
    /// `keep_yearly`.
    Yearly,
}

impl Rule {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// A number for the bucket that a backup falls into: the same for all in it, and for no neighbour. `nth` counts
    /// those that count, newest first.
    fn bucket(self, at: &Zoned, nth: usize) -> (i64, i32) {
        let day = || i64::from(at.year()) * 366 + i64::from(at.day_of_year());
        match self {
            Self::Last => (i64::try_from(nth).unwrap_or(i64::MAX), 0),
            // With the offset: the hour that comes twice is two.
            Self::Hourly => (day() * 24 + i64::from(at.hour()), at.offset().seconds()),
            Self::Daily => (day(), 0),
            Self::Weekly => {
                let week = at.date().iso_week_date();
                (i64::from(week.year()) * 54 + i64::from(week.week()), 0)
            }
            Self::Monthly => (i64::from(at.year()) * 12 + i64::from(at.month()), 0),
            Self::Yearly => (i64::from(at.year()), 0),
        }
    }

    /// What people call that bucket.
    fn name(self, at: &Zoned, nth: usize) -> String {
        match self {
            Self::Last => (nth + 1).to_string(),
            Self::Hourly => at.strftime("%Y-%m-%dT%H%:z").to_string(),
            Self::Daily => at.strftime("%Y-%m-%d").to_string(),
            Self::Weekly => at.strftime("%G-W%V").to_string(),
            Self::Monthly => at.strftime("%Y-%m").to_string(),
            Self::Yearly => at.strftime("%Y").to_string(),
        }
    }
}

/// Why a backup is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A rule counted it, in that bucket.
    Rule(Rule, String),
    /// The oldest there is, while a rule is not full.
    Oldest(Rule),
    /// `keep_within`.
    Within,
    /// `pre_migration`.
    PreMigration,
    /// Somebody wants it kept.
    Pinned,
    /// The newest of its database.
    Newest,
    /// The newest that is neither suspect nor failed a verification.
    LastGood,
    /// The newest whose verification passed.
    LastVerified,
    /// The first that was found suspect against that one, and nobody has adopted it.
    Suspect(BackupId),
    /// That suspect one was compared with it.
    ComparedWith(BackupId),
    /// That suspect one came after it.
    Before(BackupId),
    /// Of a server that nobody has adopted.
    Foreign,
    /// Of a dump that another tool made; a policy for those there is none.
    Imported,
    /// It began after now.
    Ahead,
    /// Its run has not ended.
    Open,
    /// Its cluster is none of those that this host has a policy for.
    NoPolicy,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule, bucket) => write!(f, "{} {bucket}", rule.as_str()),
            Self::Oldest(rule) => write!(f, "oldest ({})", rule.as_str()),
            Self::Within => f.write_str("within"),
            Self::PreMigration => f.write_str("pre-migration"),
            Self::Pinned => f.write_str("pinned"),
            Self::Newest => f.write_str("newest"),
            Self::LastGood => f.write_str("last good"),
            Self::LastVerified => f.write_str("last verified"),
            Self::Suspect(against) => write!(f, "suspect against {against}, not adopted"),
            Self::ComparedWith(suspect) => write!(f, "suspect {suspect} was compared with it"),
            Self::Before(suspect) => write!(f, "suspect {suspect} follows it"),
            Self::Foreign => f.write_str("foreign, not adopted"),
            Self::Imported => f.write_str("imported"),
            Self::Ahead => f.write_str("ahead of this host's clock"),
            Self::Open => f.write_str("not finished"),
            Self::NoPolicy => f.write_str("no policy for its cluster here"),
        }
    }
}

/// Why a backup goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No rule keeps it.
    Expired,
    /// Its run died before it counted.
    Dead,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::Dead => "its run died",
        })
    }
}

/// What becomes of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for all these reasons.
    Kept(Vec<Reason>),
    /// It goes.
    Removed(Cause),
}

impl Verdict {
    /// Whether it goes.
    pub const fn is_removed(&self) -> bool {
        matches!(self, Self::Removed(_))
    }
}

/// A verdict for each of `backups`, in their order, which is of no importance.
pub fn decide(backups: &[&Backup], policies: &Policies, now: Timestamp) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Removed(Cause::Dead); backups.len()];
    let mut histories: BTreeMap<(&ClusterName, &str), Vec<usize>> = BTreeMap::new();
    for (at, backup) in backups.iter().enumerate() {
        if backup.state != State::Dead {
            histories.entry((&backup.cluster, &backup.database)).or_default().push(at);
        }
    }
    for ((cluster, _), mut members) in histories {
        let Some(policy) = policies.get(cluster) else {
            for at in members {
                verdicts[at] = Verdict::Kept(vec![Reason::NoPolicy]);
            }
            continue;
        };
        members.sort_by(|a, b| {
            let key = |at: &usize| (backups[*at].started_at, &backups[*at].id);
            key(b).cmp(&key(a))
        });
        let history = History::new(members.iter().map(|at| backups[*at]).collect());
        for (at, reasons) in members.into_iter().zip(history.judged(policy, now)) {
            verdicts[at] = match reasons[..] {
                [] => Verdict::Removed(Cause::Expired),
                _ => Verdict::Kept(reasons),
            };
        }
    }
    verdicts
}

/// The backups of one database, newest first, with what keeps each.
struct History<'a> {
    backups: Vec<&'a Backup>,
    reasons: Vec<Vec<Reason>>,
    /// Those that the policy is about.
    ordinary: Vec<usize>,
}

impl<'a> History<'a> {
    fn new(backups: Vec<&'a Backup>) -> Self {
        let reasons = vec![Vec::new(); backups.len()];
        Self { backups, reasons, ordinary: Vec::new() }
    }

    fn judged(mut self, policy: &RetentionPolicy, now: Timestamp) -> Vec<Vec<Reason>> {
        self.exempt(now);
        self.guard();
        self.protect_suspects();
        self.count(policy);
        self.by_age(policy);
        self.reasons
    }

    /// What no policy is about.
    fn exempt(&mut self, now: Timestamp) {
        for (at, backup) in self.backups.iter().enumerate() {
            let exempt = match backup {
                Backup { state: State::Open, .. } => Some(Reason::Open),
                Backup { foreign: true, .. } => Some(Reason::Foreign),
                Backup { trigger: Trigger::Imported, .. } => Some(Reason::Imported),
                Backup { started_at, .. } if *started_at > now => Some(Reason::Ahead),
                _ => None,
            };
            if exempt.is_none() {
                self.ordinary.push(at);
            }
            self.reasons[at].extend(exempt);
            self.reasons[at].extend(backup.pinned.then_some(Reason::Pinned));
        }
    }

    /// What is kept whatever the policy says.
    fn guard(&mut self) {
        let find = |wanted: &dyn Fn(&Backup) -> bool| {
            self.ordinary.iter().copied().find(|at| wanted(self.backups[*at]))
        };
        let failed = |backup: &Backup| backup.verification == Some(Outcome::Failed);
        let newest = find(&|backup| !backup.safety).or_else(|| find(&|_| true));
        let good = find(&|backup| !backup.safety && backup.suspect.is_none() && !failed(backup));
        let verified = find(&|backup| backup.verification == Some(Outcome::Passed));
        for (at, reason) in
            [(newest, Reason::Newest), (good, Reason::LastGood), (verified, Reason::LastVerified)]
        {
            if let Some(at) = at {
                self.reasons[at].push(reason);
            }
        }
    }

    /// For each backup that others were found suspect against: it, and the first of those, with the one before that.
    /// More of a row of suspects need not be kept for a person to see what happened.
    fn protect_suspects(&mut self) {
        let mut first: BTreeMap<&BackupId, usize> = BTreeMap::new();
        for at in self.ordinary.iter().rev().copied() {
            if let Some(against) = &self.backups[at].suspect {
                first.entry(against).or_insert(at);
            }
        }
        if first.is_empty() {
            return;
        }
        let place: BTreeMap<&BackupId, usize> =
            self.backups.iter().enumerate().map(|(at, backup)| (&backup.id, at)).collect();
        for (against, at) in first {
            let suspect = self.backups[at];
            self.reasons[at].push(Reason::Suspect(against.clone()));
            if let Some(at) = place.get(against) {
                self.reasons[*at].push(Reason::ComparedWith(suspect.id.clone()));
            }
            let previous = suspect.previous.as_ref().filter(|previous| *previous != against);
            if let Some(at) = previous.and_then(|previous| place.get(previous)) {
                self.reasons[*at].push(Reason::Before(suspect.id.clone()));
            }
        }
    }

    fn count(&mut self, policy: &RetentionPolicy) {
        let counts = |at: &usize| {
            let backup = self.backups[*at];
            !backup.safety && backup.verification != Some(Outcome::Failed)
        };
        let oldest = self.ordinary.iter().rfind(|at| counts(at)).copied();
        let zoned: Vec<Zoned> = self
            .ordinary
            .iter()
            .map(|at| self.backups[*at].started_at.to_zoned(policy.time_zone.clone()))
            .collect();
        for (rule, count) in policy.counts() {
            let (mut left, mut last, mut nth) = (count, None, 0);
            for (at, zoned) in self.ordinary.iter().copied().zip(&zoned) {
                if left == 0 {
                    break;
                }
                let bucket = Some(rule.bucket(zoned, nth));
                let (new, counted) = (bucket != last, counts(&at));
                if new {
                    self.reasons[at].push(Reason::Rule(rule, rule.name(zoned, nth)));
                } else if Some(at) == oldest {
                    self.reasons[at].push(Reason::Oldest(rule));
                }
                if counted {
                    nth += 1;
                }
                if counted && new {
                    left -= 1;
                    last = bucket;
                }
            }
        }
    }

    fn by_age(&mut self, policy: &RetentionPolicy) {
        let Some(newest) = self.ordinary.first().map(|at| self.backups[*at].started_at) else {
            return;
        };
        for at in self.ordinary.iter().copied() {
            let backup = self.backups[at];
            let age = backup.started_at.duration_until(newest).unsigned_abs();
            if age <= policy.keep_within && !policy.keep_within.is_zero() {
                self.reasons[at].push(Reason::Within);
            }
            if backup.trigger == Trigger::PreMigration
                && age <= policy.pre_migration
                && !policy.pre_migration.is_zero()
            {
                self.reasons[at].push(Reason::PreMigration);
            }
        }
    }
}
