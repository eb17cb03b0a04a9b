//! When a job runs: a cron expression in a time zone.
//!
//! The rule over clock changes, after Vixie cron; it is what the tests of this module hold:
//!
//! - *Times of day*: an expression without a `*` in second, minute and hour (`0 2 * * *`, `0 2,14 * * 1`). One that a clock
//!   set forward skips runs at the end of the gap; several of one gap run once. One that a clock set back shows twice runs
//!   once, the first time.
//! - *Steady ones*: all others (`*/15 * * * *`, `0 * * * *`, `*/10 8-18 * * *`) run whenever the clock shows such a time: in
//!   no gap, and in both hours that have one name.
//!
//! Days, after Vixie too: where day of month and day of week are both restricted, either is enough; where one of them
//! begins with `*`, both must fit. Every time of a schedule is a whole second, and `next` and `last` agree on them.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned, civil};

mod due;
mod nearest;
#[cfg(test)]
mod tests;

pub use due::{Attempts, Due, Moment, due, latest};

/// Where a look at a schedule as such begins: the first of January 2024, a Monday. Zones had other rules long ago.
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
    /// Whether it names times of day.
    of_day: bool,
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
        let Some(cron) = read(text) else {
            let (why, nearest) = nearest::nearest(text);
            let nearest = nearest.filter(|nearest| read(nearest).is_some_and(|cron| comes(&cron)));
            return Err(ScheduleError::Expression { text: text.to_owned(), why, nearest });
        };
        if !comes(&cron) {
            let nearest = nearest::of_every_month(text);
            let nearest = nearest.filter(|nearest| read(nearest).is_some_and(|cron| comes(&cron)));
            return Err(ScheduleError::Never { text: text.to_owned(), nearest });
        }
        // Short for it, nicknames are written out in the pattern.
        let fields: Vec<&str> = cron.as_str().split_whitespace().collect();
        let of_day = !fields[..fields.len() - 3].iter().any(|field| field.contains('*'));
        let text = text.trim().to_owned();
        Ok(Self { cron, of_day, text, zone, jitter, longest: Arc::default() })
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
        if !self.of_day {
            let found = self.cron.find_next_occurrence(&self.zoned(after), false).ok()?;
            return Some(found.timestamp());
        }
        let mut civil = self.zone.to_datetime(after);
        loop {
            civil = self.cron.find_next_occurrence(&civil, false).ok()?;
            // Within an hour that comes a second time, what the clock is about to show was there the first time.
            let at = self.instant(civil)?;
            if at > after {
                return Some(at);
            }
        }
    }

    /// The last time up to and with `until`, without jitter.
    pub fn last(&self, until: Timestamp) -> Option<Timestamp> {
        if !self.of_day {
            let found = self.cron.find_previous_occurrence(&self.zoned(until), true).ok()?;
            return Some(found.timestamp());
        }
        let shown = self.zone.to_datetime(until);
        // Within an hour that comes a second time, all of the first time is past.
        let from = match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Fold { before, .. } => before.to_datetime(until),
            _ => shown,
        };
        let mut civil = self.cron.find_previous_occurrence(&from, true).ok()?;
        loop {
            let at = self.instant(civil)?;
            if at <= until {
                return Some(at);
            }
            civil = self.cron.find_previous_occurrence(&civil, false).ok()?;
        }
    }

    /// When a time of day is: at the end of a gap that it falls into, and the first time where it comes twice.
    fn instant(&self, civil: civil::DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(civil);
        let AmbiguousOffset::Gap { before, .. } = ambiguous.offset() else {
            return ambiguous.earlier().ok();
        };
        // As if the clock had gone on: less than a gap after the change, and not before it.
        let later = before.to_timestamp(civil).ok()?.checked_add(SignedDuration::from_secs(1));
        Some(self.zone.preceding(later.ok()?).next()?.timestamp())
    }

    /// How much later than its times the job of that name runs.
    pub fn offset(&self, job: &str) -> Duration {
        // FNV-1a: spread evenly, and the same in every version and on every host.
        let hash = job.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let below = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(hash % below)
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
        let mut longest = self.gaps(now).max().unwrap_or_default();
        for (step, days) in [(FEW, 14), (DAY, 400)] {
            let end = now.checked_add(DAY * days).unwrap_or(Timestamp::MAX);
            let mut at = now;
            while at < end
                && let Some(next) = self.next(at)
            {
                let gap = self.last(at).map(|last| last.duration_until(next).unsigned_abs());
                longest = longest.max(gap.unwrap_or_default());
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
            Some(between(before, after))
        })
        .take(64)
    }

    fn zoned(&self, at: Timestamp) -> Zoned {
        at.to_zoned(self.zone.clone())
    }
}

fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    earlier.duration_until(later).unsigned_abs()
}

/// An expression that croner understands as we do.
fn read(text: &str) -> Option<Cron> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let days = [fields.len().checked_sub(3), fields.len().checked_sub(1)];
    let starred = |at: Option<usize>| at.is_some_and(|at| fields[at].starts_with(['*', '?']));
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .dom_and_dow(days.into_iter().any(starred))
        .build();
    let cron = parser.parse(text).ok()?;
    // It takes `,` for a list of nothing.
    let times = [&cron.pattern.seconds, &cron.pattern.minutes, &cron.pattern.hours];
    (!times.iter().any(|times| times.values().is_empty())).then_some(cron)
}

/// Whether any day fits.
fn comes(cron: &Cron) -> bool {
    cron.find_next_occurrence(&TimeZone::UTC.to_datetime(RECENT), false).is_ok()
}
