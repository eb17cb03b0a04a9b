//! Whether a run is due (rule of `docs/decisions/0011-the-daemon.md`).
//!
//! Pure: what is due is told from the schedule, the runs that the catalog knows, the attempts of this process, and
//! now. A run that was missed is due once, however often it was missed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Schedule;

/// The first wait after a failed attempt; each one after it is twice as long.
const BACKOFF_FIRST: Duration = Duration::from_mins(1);
/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_mins(30);

/// A run whose time is so far ahead of this host's clock was made under a clock that went wrong: it stands for none of
/// the schedule. Clocks of hosts differ by less.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// What lies beyond that is ahead.
pub fn latest(now: Timestamp) -> Timestamp {
    now.checked_add(AHEAD).unwrap_or(Timestamp::MAX)
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
    pub fn and(
        past: Option<Self>,
        occurrence: Timestamp,
        began: Duration,
        ended: Duration,
    ) -> Self {
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
            // The next time of the schedule waits for no attempt at the one before it.
            match (now.wall.checked_add(left).ok(), next()) {
                (Some(again), Due::At(next)) => Due::At(again.min(next)),
                (Some(again), _) => Due::At(again),
                (None, next) => next,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unchecked_time_subtraction, reason = "an overflow fails the test")]

    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn schedule(text: &str) -> Schedule {
        let zone = TimeZone::get("Europe/London").expect("this host knows time zones");
        Schedule::parse(text, zone, Duration::ZERO).expect("a schedule")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn later(time: Timestamp, by: Duration) -> Timestamp {
        time.checked_add(by).expect("in range")
    }

    fn any_schedule() -> impl Strategy<Value = Schedule> {
        let texts = ["0 2 * * *", "30 1 * * *", "*/15 * * * *", "0 2,14 * * 1-5", "0 3 L * *"];
        prop::sample::select(texts.to_vec()).prop_map(schedule)
    }

    /// The first time of 2024.
    const START: i64 = 1_704_067_200;
    const YEAR: i64 = 366 * 86_400;

    proptest! {
        #[test]
        fn a_missed_run_is_due_exactly_once_however_long_the_outage(
            schedule in any_schedule(),
            last_run in START..START + YEAR,
            outage in 0..2 * YEAR,
            jitter in 0..7200_u64,
        ) {
            let (mut last_run, offset) = (at(last_run), Duration::from_secs(jitter));
            let wall = later(last_run, Duration::from_secs(outage.unsigned_abs()));
            let now = Moment { wall, monotonic: Duration::ZERO };
            let first = later(schedule.next(last_run).expect("comes"), offset);
            let mut runs = 0;
            let again = loop {
                match due(&schedule, offset, Some(last_run), None, HOUR, now) {
                    Due::Now(occurrence) => {
                        prop_assert!(last_run < occurrence && later(occurrence, offset) <= wall);
                        runs += 1;
                        prop_assert_eq!(runs, 1, "due twice");
                        last_run = wall;
                    }
                    other => break other,
                }
            };
            prop_assert_eq!(runs == 1, first <= wall);
            let Due::At(again) = again else { panic!("it comes again") };
            prop_assert!(again > wall);
        }

        #[test]
        fn nothing_is_due_again_once_a_run_at_or_after_its_time_is_in_the_past(
            schedule in any_schedule(),
            now in START..START + YEAR,
            since in 0..86_400_u64,
            failed in prop::option::of(1..9_u32),
        ) {
            let now = Moment { wall: at(now), monotonic: Duration::from_hours(100) };
            let occurrence = schedule.last(now.wall).expect("came");
            let last_run = later(occurrence, Duration::from_secs(since)).min(now.wall);
            let then = now.monotonic - HOUR;
            let attempts = failed.map(|count| Attempts { occurrence, count, first: then, last: then });
            let due = due(&schedule, Duration::ZERO, Some(last_run), attempts, 9 * HOUR, now);
            prop_assert_eq!(due, Due::At(schedule.next(now.wall).expect("comes")));
        }

        #[test]
        fn attempts_back_off_and_end_with_the_window(
            took in 0..1200_u64,
            window in 0..12_u32,
        ) {
            let schedule = schedule("0 2 * * *");
            let (took, window) = (Duration::from_secs(took), HOUR * window);
            let occurrence = schedule.last(at(START + YEAR / 2)).expect("came");
            let mut now = Moment { wall: occurrence, monotonic: Duration::from_hours(5) };
            let began = now.monotonic;
            let (mut attempts, mut waits) = (None, Vec::new());
            let next = loop {
                match due(&schedule, Duration::ZERO, None, attempts, window, now) {
                    Due::Now(of) => {
                        prop_assert_eq!(of, occurrence);
                        let start = now.monotonic;
                        prop_assert!(waits.is_empty() || start - began <= window);
                        now = after(now, took);
                        attempts = Some(Attempts::and(attempts, of, start, now.monotonic));
                    }
                    Due::At(next) if next > later(occurrence, Duration::from_hours(23)) => break next,
                    Due::At(again) => {
                        let wait = now.wall.duration_until(again).unsigned_abs();
                        waits.push(wait.as_secs() / 60);
                        now = after(now, wait);
                    }
                    Due::Never => panic!("it comes again"),
                }
            };
            prop_assert_eq!(Some(next), schedule.next(occurrence));
            let doubling = [1, 2, 4, 8, 16].into_iter().chain(std::iter::repeat(30));
            prop_assert_eq!(&waits, &doubling.take(waits.len()).collect::<Vec<_>>());
            // The window was used up: one more wait would have gone beyond it.
            let one_more = doubled(waits.len());
            prop_assert!(now.monotonic + one_more - began > window);
        }

        #[test]
        fn a_clock_that_jumps_by_a_day_loses_no_run_and_makes_no_flood(
            jumps in prop::collection::btree_map(0..20 * 24 * 12_u32, any::<bool>(), 0..4),
        ) {
            const STEP: Duration = Duration::from_mins(5);
            const DAY: SignedDuration = SignedDuration::from_hours(24);
            let schedule = schedule("0 2 * * *");
            let mut now = Moment { wall: at(START + 300 * 86_400), monotonic: Duration::ZERO };
            // A history from before the first jump.
            let mut runs: Vec<Timestamp> = Vec::new();
            for _ in 0..5 {
                let before = *runs.last().unwrap_or(&now.wall);
                let before = before.checked_sub(SignedDuration::from_secs(1)).expect("in range");
                runs.push(schedule.last(before).expect("came"));
            }
            // A day has 25 hours where clocks go back. One set back in the moment of a run waits for that time again.
            let (mut last, mut patience) = (Duration::ZERO, Duration::from_hours(25));
            let mut ahead = std::collections::BTreeSet::new();
            for step in 0..20 * 24 * 12_u32 {
                match jumps.get(&step) {
                    Some(true) => now.wall = now.wall.checked_add(DAY).expect("in range"),
                    Some(false) => {
                        now.wall = now.wall.checked_sub(DAY).expect("in range");
                        patience += Duration::from_hours(24);
                    }
                    None => {}
                }
                // As the daemon does: what was seen ahead was another clock's, also when its time has come.
                ahead.extend((0..runs.len()).filter(|at| runs[*at] > now.wall));
                let past = (0..runs.len()).filter(|at| !ahead.contains(at)).map(|at| runs[at]).max();
                if let Due::Now(_) = due(&schedule, Duration::ZERO, past, None, HOUR, now) {
                    runs.push(now.wall);
                    (last, patience) = (now.monotonic, Duration::from_hours(25));
                }
                prop_assert!(now.monotonic - last <= patience, "a run is lost");
                now = after(now, STEP);
            }
            let forward = jumps.values().filter(|forward| **forward).count();
            prop_assert!(runs.len() <= 5 + 21 + forward, "{} runs in 20 days", runs.len());
        }
    }

    #[test]
    fn the_wait_after_a_failed_attempt_keeps_no_later_run_waiting() {
        let quarterly = schedule("*/15 * * * *");
        let occurrence = quarterly.last(at(START + 3600)).expect("came");
        let minutes = |minutes| Duration::from_mins(minutes);
        let last = minutes(9);
        // The fourth failed after nine minutes, and the next attempt would be eight later: two beyond the next time.
        let attempts = Some(Attempts { occurrence, count: 4, first: Duration::ZERO, last });
        for offset in [Duration::ZERO, Duration::from_secs(20)] {
            let wall = later(later(occurrence, offset), last);
            let now = Moment { wall, monotonic: last };
            let told = due(&quarterly, offset, None, attempts, HOUR, now);
            let next = later(later(occurrence, minutes(15)), offset);
            assert_eq!(told, Due::At(next));
            let then = Moment { wall: next, monotonic: last + minutes(6) };
            let told = due(&quarterly, offset, None, attempts, HOUR, then);
            assert_eq!(told, Due::Now(later(occurrence, minutes(15))));
        }
        // One that comes sooner is not put off.
        let attempts = Some(Attempts { occurrence, count: 1, first: Duration::ZERO, last });
        let now = Moment { wall: later(occurrence, last), monotonic: last };
        let again = Due::At(later(occurrence, minutes(10)));
        assert_eq!(due(&quarterly, Duration::ZERO, None, attempts, HOUR, now), again);
    }

    fn after(now: Moment, span: Duration) -> Moment {
        Moment { wall: later(now.wall, span), monotonic: now.monotonic + span }
    }

    fn doubled(waits: usize) -> Duration {
        Duration::from_mins([1, 2, 4, 8, 16].get(waits).copied().unwrap_or(30))
    }
}
