//! When a job runs: a cron expression in a time zone, and whether a run is due (rule of `docs/decisions/0011`).
//!
//! Pure: what is due is told from the schedule, the runs that the catalog knows, the attempts of this process, and
//! now. A run that was missed is due once, however often it was missed.
//!
//! Clock changes, after Vixie cron: a fixed time that does not exist on a day runs at the end of the gap; one that
//! comes twice runs once, the first time; expressions that run every so many minutes or hours follow elapsed time.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// The first wait after a failed attempt; each one after it is twice as long.
const BACKOFF_FIRST: Duration = Duration::from_mins(1);
/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_mins(30);

/// Where a look at a schedule as such begins: a Monday, the first of January 2024. Before, zones had other rules.
const RECENT: Timestamp = Timestamp::constant(1_704_067_200, 0);

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not a cron expression.
    #[error("`{text}` is no schedule: {why}")]
    Expression {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
        /// The valid one that is nearest.
        nearest: Option<String>,
    },
    /// A day that never comes.
    #[error("`{text}` is no schedule: such a day never comes")]
    Never {
        /// What was given.
        text: String,
        /// The one that is nearest and comes.
        nearest: Option<String>,
    },
}

impl ScheduleError {
    /// The valid one that is nearest.
    pub fn nearest(&self) -> Option<&str> {
        match self {
            Self::Expression { nearest, .. } | Self::Never { nearest, .. } => nearest.as_deref(),
        }
    }
}

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    text: String,
    zone: TimeZone,
    jitter: Duration,
    /// Measured once.
    longest: Arc<OnceLock<Duration>>,
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.zone == other.zone && self.jitter == other.jitter
    }
}

impl Eq for Schedule {}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.text, self.zone.iana_name().unwrap_or("in a zone without a name"))
    }
}

impl Schedule {
    /// Reads five fields, or six with the seconds first, or a nickname such as `@daily`. Each run comes up to `jitter`
    /// later, always by the same span for the same job.
    pub fn parse(text: &str, zone: TimeZone, jitter: Duration) -> Result<Self, ScheduleError> {
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(text.trim()).map_err(|error| ScheduleError::Expression {
            text: text.to_owned(),
            why: error.to_string(),
            nearest: None,
        })?;
        let schedule = Self { cron, text: text.trim().to_owned(), zone, jitter, longest: Arc::default() };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never { text: text.to_owned(), nearest: None }),
        }
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where its hours are.
    pub const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time after `after`, without jitter.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.find(after, false).map(|zoned| zoned.timestamp())
    }

    /// The last time up to and with `until`, without jitter.
    pub fn last(&self, until: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_previous_occurrence(&self.zoned(until), true).ok()?;
        Some(found.timestamp())
    }

    /// How much later than its times the job of that name runs.
    pub fn offset(&self, job: &str) -> Duration {
        if self.jitter.is_zero() {
            return Duration::ZERO;
        }
        // FNV-1a: spread evenly, and the same in every version and on every host.
        let hash = job.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Duration::from_millis(hash % u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX))
    }

    /// The longest time between two runs, as far as the year after the first question shows; what is later than that is
    /// late.
    pub fn longest_gap(&self, now: Timestamp) -> Duration {
        *self.longest.get_or_init(|| self.measured(now))
    }

    /// Runs that follow each other closely are too many to be looked at one by one, so a gap is met by looking where it
    /// must be: at the next runs, into every few hours of two weeks (nights, weekends), and into each day of a year.
    fn measured(&self, now: Timestamp) -> Duration {
        const FEW: SignedDuration = SignedDuration::from_hours(5);
        const DAY: SignedDuration = SignedDuration::from_hours(24);
        let mut longest = Duration::ZERO;
        let mut runs = std::iter::successors(self.next(now), |at| self.next(*at)).take(64);
        let mut before = runs.next();
        for at in runs {
            longest = longest.max(before.map_or(Duration::ZERO, |one| between(one, at)));
            before = Some(at);
        }
        for (step, days) in [(FEW, 14), (DAY, 400)] {
            let end = now.checked_add(DAY * days).unwrap_or(Timestamp::MAX);
            let mut at = now;
            while at < end
                && let Some(next) = self.next(at)
            {
                longest = longest.max(self.last(at).map_or(Duration::ZERO, |one| between(one, next)));
                at = at.checked_add(step).map_or(Timestamp::MAX, |later| later.max(next));
            }
        }
        longest
    }

    /// The shortest time between two runs, as far as 64 of them show.
    pub fn shortest_gap(&self) -> Duration {
        self.gaps(RECENT).min().unwrap_or(Duration::MAX)
    }

    fn gaps(&self, from: Timestamp) -> impl Iterator<Item = Duration> {
        let mut last = self.next(from);
        std::iter::from_fn(move || {
            let (before, after) = (last?, self.next(last?)?);
            last = Some(after);
            Some(before.duration_until(after).unsigned_abs())
        })
        .take(64)
    }

    fn find(&self, from: Timestamp, inclusive: bool) -> Option<Zoned> {
        self.cron.find_next_occurrence(&self.zoned(from), inclusive).ok()
    }

    fn zoned(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.zone.clone())
    }
}

fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    earlier.duration_until(later).unsigned_abs()
}

/// Now, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// What people and catalogs mean; may jump.
    pub wall: Timestamp,
    /// Since some moment of this process; never goes back.
    pub monotonic: Duration,
}

/// Attempts of this process that failed, for one run of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// The time of the schedule that they were for.
    pub occurrence: Timestamp,
    /// How many.
    pub count: u32,
    /// When the first began, by the monotonic clock.
    pub first: Duration,
    /// When the last ended, by the monotonic clock.
    pub last: Duration,
}

impl Attempts {
    /// With one more that began and ended then.
    #[must_use]
    pub fn and(past: Option<Self>, occurrence: Timestamp, began: Duration, ended: Duration) -> Self {
        match past.filter(|past| past.occurrence == occurrence) {
            Some(past) => Self { count: past.count + 1, last: ended, ..past },
            None => Self { occurrence, count: 1, first: began, last: ended },
        }
    }

    /// How long to wait after the last one.
    fn backoff(&self) -> Duration {
        BACKOFF_FIRST.saturating_mul(1 << self.count.saturating_sub(1).min(16)).min(BACKOFF_MAX)
    }
}

/// Whether a job has to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Yes, for this time of its schedule.
    Now(Timestamp),
    /// No sooner than then.
    At(Timestamp),
    /// Never again.
    Never,
}

/// Whether a job has to run, from its schedule, the start of its newest run that counts, the failed attempts of this
/// process, and for how long a failed run is tried again.
pub fn due(
    schedule: &Schedule,
    offset: Duration,
    last_run: Option<Timestamp>,
    attempts: Option<Attempts>,
    retry_for: Duration,
    now: Moment,
) -> Due {
    let offset = SignedDuration::try_from(offset).unwrap_or(SignedDuration::ZERO);
    let next = || {
        let after = now.wall.checked_sub(offset).ok().and_then(|wall| schedule.next(wall));
        after.and_then(|at| at.checked_add(offset).ok()).map_or(Due::Never, Due::At)
    };
    let Some(occurrence) = now.wall.checked_sub(offset).ok().and_then(|wall| schedule.last(wall))
    else {
        return next();
    };
    if last_run.is_some_and(|last_run| last_run >= occurrence) {
        return next();
    }
    let Some(attempts) = attempts.filter(|attempts| attempts.occurrence == occurrence) else {
        return Due::Now(occurrence);
    };
    let again = attempts.last.saturating_add(attempts.backoff());
    if again.saturating_sub(attempts.first) > retry_for {
        return next();
    }
    match again.checked_sub(now.monotonic).filter(|left| !left.is_zero()) {
        None => Due::Now(occurrence),
        Some(left) => {
            let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
            now.wall.checked_add(left).map_or(Due::Never, Due::At)
        }
    }
}
