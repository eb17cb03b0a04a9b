//! From facts to how it stands. No I/O and no clock.
//!
//! **Good** is a backup that a schedule could have made and that nobody has to look at: not imported, not taken before a
//! restore, not foreign, not suspect, not failed in a verification. One that began after now, by more than clocks of
//! hosts differ, was made under a wrong clock; it is good only where there is no other.
//!
//! **Overdue** is what should have happened and did not, wherever and whyever: the rule looks at what there is and not at
//! who failed to make it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::AlarmSettings;
use crate::domain::id::ClusterName;
use crate::domain::retention::{Policies, RetentionPolicy, Verdict, decide};
use crate::domain::schedule::{Schedule, latest};
use crate::domain::status::{
    BackupFacts, ClusterStatus, DatabaseStatus, KeyStatus, Mark, MarkKind, Overdue, Removal,
    Schedules, Status, VerifiedFacts, WalStatus,
};
use crate::domain::told::chain;
use crate::domain::verification::{Outcome, VerificationRecord};
use crate::repo::catalog::{Catalog, Entry, Fault};

/// The median of so many sizes is the usual one.
const USUAL: usize = 7;
/// How far back the timeline goes.
const TIMELINE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Marks on it at most.
const MARKS_MAX: usize = 200;

/// What is configured for a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Its name.
    pub name: &'a ClusterName,
    /// When snapshots are taken.
    pub snapshot: Option<&'a Schedule>,
    /// When the newest backups are verified.
    pub verify: Option<&'a Schedule>,
    /// When it is pruned.
    pub prune: Option<&'a Schedule>,
    /// What counts as overdue.
    pub alarm: AlarmSettings,
    /// How long its backups are kept.
    pub retention: &'a RetentionPolicy,
    /// The databases that are to be backed up.
    pub databases: &'a [String],
}

/// All that is known.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Now.
    pub at: Timestamp,
    /// The repository's address.
    pub repository: String,
    /// Who can read it.
    pub keys: KeyStatus,
    /// What is configured.
    pub clusters: Vec<Terms<'a>>,
    /// What there is, newest first.
    pub catalog: &'a Catalog,
}

/// The backups of each database of a cluster, newest first.
type Histories<'a> = BTreeMap<&'a str, Vec<&'a Entry>>;

/// How it stands.
pub fn judge(facts: Facts<'_>) -> Status {
    let Facts { at, repository, keys, clusters, catalog } = facts;
    let mut all: BTreeMap<&ClusterName, (Option<Terms<'_>>, Histories<'_>)> = BTreeMap::new();
    for terms in clusters {
        let (known, databases) = all.entry(terms.name).or_default();
        *known = Some(terms);
        for database in terms.databases {
            databases.entry(database).or_default();
        }
    }
    for entry in &catalog.entries {
        let (_, databases) = all.entry(&entry.manifest.cluster).or_default();
        databases.entry(&entry.manifest.database).or_default().push(entry);
    }
    let clusters = all.into_iter().map(|(name, (terms, histories))| {
        let terms = terms.as_ref();
        let meant = terms.map(|terms| terms.databases).unwrap_or_default();
        let meant = meant.iter().map(String::as_str).collect();
        Cluster { name, terms, meant, at }.status(&histories)
    });
    Status {
        at,
        pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
        repository,
        keys,
        clusters: clusters.collect(),
        faults: catalog.faults.iter().map(fault).collect(),
    }
}

fn fault(fault: &Fault) -> String {
    format!("backup {} of cluster {}: {}", fault.name.id, fault.name.cluster, chain(&fault.error))
}

/// A cluster that is looked at.
struct Cluster<'a> {
    name: &'a ClusterName,
    /// None of one that only the catalog knows.
    terms: Option<&'a Terms<'a>>,
    /// The databases that are to be backed up.
    meant: BTreeSet<&'a str>,
    at: Timestamp,
}

impl Cluster<'_> {
    fn status(&self, histories: &Histories<'_>) -> ClusterStatus {
        let text = |schedule: Option<&Schedule>| schedule.map(|one| one.text().to_owned());
        let (snapshot, verify, prune) = (
            self.terms.and_then(|terms| terms.snapshot),
            self.terms.and_then(|terms| terms.verify),
            self.terms.and_then(|terms| terms.prune),
        );
        let zone = snapshot.or(verify).or(prune).map(Schedule::zone);
        let zone = zone.or(self.terms.map(|terms| &terms.retention.time_zone));
        let interval = snapshot.map(|schedule| schedule.longest_gap(self.at));
        let mut removals = self.removals(histories);
        let mut databases = Vec::with_capacity(histories.len());
        for (name, entries) in histories {
            let removes_next = removals.remove(name).unwrap_or_default();
            databases.push(self.database(name, entries, interval, removes_next));
        }
        ClusterStatus {
            name: self.name.clone(),
            timezone: zone.and_then(TimeZone::iana_name).unwrap_or("UTC").to_owned(),
            schedules: Schedules {
                snapshot: text(snapshot),
                verify: text(verify),
                prune: text(prune),
            },
            next_prune: prune
                .and_then(|schedule| next(schedule, &format!("prune {}", self.name), self.at)),
            databases,
            wal: WalStatus::off(),
            recovery_windows: Vec::new(),
        }
    }

    /// What retention would remove now, by database, newest first.
    fn removals<'h>(&self, histories: &Histories<'h>) -> BTreeMap<&'h str, Vec<Removal>> {
        let mut removals: BTreeMap<&str, Vec<Removal>> = BTreeMap::new();
        let Some(terms) = self.terms else { return removals };
        let policies: Policies = [(self.name.clone(), terms.retention.clone())].into();
        let entries = histories.iter().flat_map(|(database, entries)| {
            entries.iter().map(move |entry| (*database, entry.for_retention()))
        });
        let (databases, backups): (Vec<_>, Vec<_>) = entries.unzip();
        let verdicts = decide(&backups.iter().collect::<Vec<_>>(), &policies, self.at);
        for ((database, backup), verdict) in databases.into_iter().zip(backups).zip(verdicts) {
            if let Verdict::Removed(cause) = verdict {
                let removal = Removal { id: backup.id, reason: cause.to_string() };
                removals.entry(database).or_default().push(removal);
            }
        }
        removals
    }

    fn database(
        &self,
        name: &str,
        entries: &[&Entry],
        interval: Option<Duration>,
        removes_next: Vec<Removal>,
    ) -> DatabaseStatus {
        let terms = self.terms.filter(|_| self.meant.contains(name));
        let history = History { entries, at: self.at };
        let good = history.last_good();
        let verified = history.last_verified();
        let scheduled = |schedule: Option<&Schedule>, verb: &str| {
            schedule.and_then(|one| next(one, &format!("{verb} {}/{name}", self.name), self.at))
        };
        DatabaseStatus {
            name: name.to_owned(),
            configured: terms.is_some(),
            backups: entries.len() as u64,
            stored_bytes: entries.iter().map(|entry| entry.manifest.stored_bytes).sum(),
            newest_in_doubt: history.newest_in_doubt(good),
            usual_bytes: history.usual_bytes(good),
            next_snapshot: scheduled(terms.and_then(|terms| terms.snapshot), "snapshot"),
            next_verify: scheduled(terms.and_then(|terms| terms.verify), "verify"),
            removes_next,
            overdue: terms
                .map(|terms| history.overdue(&terms.alarm, interval, good, verified))
                .unwrap_or_default(),
            timeline: history.timeline(),
            last_good: good.map(|entry| backup_facts(entry, self.at)),
            last_verified: verified.map(|record| verified_facts(record, self.at)),
        }
    }
}

/// The next run of a job: its schedule's next time, and the job's own jitter.
fn next(schedule: &Schedule, job: &str, at: Timestamp) -> Option<Timestamp> {
    let offset = SignedDuration::try_from(schedule.offset(job)).ok()?;
    schedule.next(at.checked_sub(offset).ok()?)?.checked_add(offset).ok()
}

/// The backups of a database, newest first.
struct History<'a> {
    entries: &'a [&'a Entry],
    at: Timestamp,
}

/// Why somebody has to look at it, if anybody has.
fn doubt(entry: &Entry) -> Option<String> {
    if entry.foreign {
        return Some("of a server that the cluster does not know".to_owned());
    }
    if let Some(suspect) = &entry.suspect {
        return Some(format!("suspect: {}", suspect.reason()));
    }
    let failed = entry.verification.as_ref().is_some_and(|one| one.result == Outcome::Failed);
    failed.then(|| "its verification failed".to_owned())
}

fn passed(entry: &Entry) -> Option<&VerificationRecord> {
    entry.verification.as_ref().filter(|record| record.result == Outcome::Passed)
}

impl<'a> History<'a> {
    fn is_ahead(&self, entry: &Entry) -> bool {
        entry.manifest.started_at > latest(self.at)
    }

    fn ordinary(&self) -> impl DoubleEndedIterator<Item = &'a Entry> {
        self.entries.iter().copied().filter(|entry| entry.is_run())
    }

    fn good(&self) -> impl Iterator<Item = &'a Entry> {
        self.ordinary().filter(|entry| doubt(entry).is_none())
    }

    fn last_good(&self) -> Option<&'a Entry> {
        self.good().find(|entry| !self.is_ahead(entry)).or_else(|| self.good().next())
    }

    /// The newest one, where that is not the last good one. An imported one only where there are no others.
    fn newest_in_doubt(&self, good: Option<&Entry>) -> Option<(BackupFacts, String)> {
        let not_safety = |entry: &&&Entry| !entry.manifest.is_safety_snapshot();
        let newest = self.ordinary().next();
        let newest = newest.or_else(|| self.entries.iter().find(not_safety).copied())?;
        if good.is_some_and(|good| good.manifest.id == newest.manifest.id) {
            return None;
        }
        let why = doubt(newest).unwrap_or_else(|| {
            let why = if newest.is_run() {
                "it began after now, by this host's clock"
            } else {
                "imported: its rows may be of any age"
            };
            why.to_owned()
        });
        Some((backup_facts(newest, self.at), why))
    }

    /// The newest verification that passed, of what counts; of a database that has only been imported, of that.
    fn last_verified(&self) -> Option<&'a VerificationRecord> {
        let newest = |entries: &mut dyn Iterator<Item = &'a Entry>| {
            entries.filter_map(passed).max_by_key(|record| record.finished_at())
        };
        if self.ordinary().next().is_some() {
            newest(&mut self.ordinary().filter(|entry| !entry.foreign))
        } else {
            newest(&mut self.entries.iter().copied())
        }
    }

    /// The median of the good ones before the last good one.
    fn usual_bytes(&self, good: Option<&Entry>) -> Option<u64> {
        let good = good?;
        let before = self.good().skip_while(|entry| entry.manifest.id != good.manifest.id).skip(1);
        let mut sizes: Vec<u64> =
            before.take(USUAL).map(|entry| entry.manifest.source_bytes).collect();
        sizes.sort_unstable();
        sizes.get(sizes.len() / 2).copied()
    }

    fn overdue(
        &self,
        alarm: &AlarmSettings,
        interval: Option<Duration>,
        good: Option<&Entry>,
        verified: Option<&VerificationRecord>,
    ) -> Vec<Overdue> {
        let mut overdue = Vec::new();
        let age = |since: Timestamp| {
            let age = since.duration_until(self.at);
            if age.is_negative() { Duration::ZERO } else { age.unsigned_abs() }
        };
        if let Some(interval) = interval.filter(|_| alarm.intervals > 0) {
            let line = match good {
                None if self.entries.is_empty() => Some("no backup yet".to_owned()),
                None => Some("no good backup".to_owned()),
                Some(good) => {
                    // The next one is there when it has ended, which takes about as long as the last one took.
                    let limit = interval.saturating_mul(alarm.intervals);
                    let took = Duration::from_millis(good.manifest.duration_ms());
                    let age = age(good.manifest.started_at);
                    (age > limit.saturating_add(took)).then(|| {
                        let (age, interval) = (span(age), span(interval));
                        let intervals = alarm.intervals;
                        format!("no good backup for {age}; {intervals} × {interval} is the limit")
                    })
                }
            };
            overdue.extend(line.map(Overdue::backup));
        }
        let oldest = self.ordinary().next_back();
        if let Some(oldest) = oldest.filter(|_| !alarm.verified_within.is_zero()) {
            let limit = span(alarm.verified_within);
            let since =
                verified.map_or(oldest.manifest.started_at, VerificationRecord::finished_at);
            let age = age(since);
            let line = || match verified {
                Some(_) => format!("no verified restore for {}; {limit} is the limit", span(age)),
                None => format!(
                    "never verified since its first backup {} ago; {limit} is the limit",
                    span(age)
                ),
            };
            overdue.extend((age > alarm.verified_within).then(|| Overdue::verified(line())));
        }
        overdue
    }

    fn timeline(&self) -> Vec<Mark> {
        let since = self.at.checked_sub(TIMELINE).unwrap_or(Timestamp::MIN);
        let marks = self.entries.iter().flat_map(|entry| {
            let manifest = &entry.manifest;
            let kind = match doubt(entry) {
                None => MarkKind::Backup,
                Some(_) => MarkKind::DoubtfulBackup,
            };
            let taken = Mark { at: manifest.finished_at, kind, id: manifest.id.clone() };
            let record = entry.verification.as_ref();
            let proved = record.filter(|record| record.result != Outcome::Skipped).map(|record| {
                let passed = record.result == Outcome::Passed;
                let kind = if passed { MarkKind::Verified } else { MarkKind::Failed };
                Mark { at: record.finished_at(), kind, id: manifest.id.clone() }
            });
            [Some(taken), proved].into_iter().flatten()
        });
        let mut marks: Vec<Mark> = marks.filter(|mark| mark.at >= since).collect();
        marks.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        marks.drain(..marks.len().saturating_sub(MARKS_MAX));
        marks
    }
}

fn age_ms(since: Timestamp, at: Timestamp) -> u64 {
    u64::try_from(since.duration_until(at).as_millis()).unwrap_or(0)
}

fn backup_facts(entry: &Entry, at: Timestamp) -> BackupFacts {
    let manifest = &entry.manifest;
    BackupFacts {
        id: manifest.id.clone(),
        trigger: manifest.trigger,
        finished_at: manifest.finished_at,
        age_ms: age_ms(manifest.finished_at, at),
        duration_ms: manifest.duration_ms(),
        source_bytes: manifest.source_bytes,
        stored_bytes: manifest.stored_bytes,
    }
}

fn verified_facts(record: &VerificationRecord, at: Timestamp) -> VerifiedFacts {
    let verified_at = record.finished_at();
    VerifiedFacts {
        id: record.backup.clone(),
        verified_at,
        age_ms: age_ms(verified_at, at),
        duration_ms: record.duration_ms,
        depth: record.depth,
    }
}

/// `2d 7h`, `5h 10m`, `45s`: two units at most.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (units, last) = match seconds {
        86_400.. => ((seconds / 86_400, "d"), (seconds / 3600 % 24, "h")),
        3600.. => ((seconds / 3600, "h"), (seconds / 60 % 60, "m")),
        60.. => ((seconds / 60, "m"), (seconds % 60, "s")),
        _ => ((seconds, "s"), (0, "")),
    };
    match last {
        (0, _) => format!("{}{}", units.0, units.1),
        (rest, unit) => format!("{}{} {rest}{unit}", units.0, units.1),
    }
}
