use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};
use proptest::prelude::*;

use super::*;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).expect("this host knows time zones")
}

fn schedule(text: &str, name: &str) -> Schedule {
    Schedule::parse(text, zone(name), Duration::ZERO).expect("a schedule")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The times from one to another, as the zone's clock shows them.
fn shown(text: &str, name: &str, from: &str, until: &str) -> Vec<String> {
    let schedule = schedule(text, name);
    let (mut now, until) = (at(from), at(until));
    let mut times = Vec::new();
    while let Some(next) = schedule.next(now).filter(|next| *next <= until) {
        times.push(next.to_zoned(zone(name)).strftime("%a %d %H:%M%:z").to_string());
        now = next;
    }
    times
}

#[test]
fn a_time_that_a_clock_skips_runs_at_the_end_of_the_gap() {
    // London: 2024-03-31, 1:00 GMT is 2:00 BST.
    let day = ("2024-03-30T12:00:00Z", "2024-03-31T12:00:00Z");
    for (text, times) in [
        ("30 1 * * *", vec!["Sun 31 02:00+01:00"]),
        ("0 1 * * *", vec!["Sun 31 02:00+01:00"]),
        ("0 2 * * *", vec!["Sun 31 02:00+01:00"]),
        ("0,20,40 1 * * *", vec!["Sun 31 02:00+01:00"]),
        ("30 1,13 * * *", vec!["Sat 30 13:30+00:00", "Sun 31 02:00+01:00"]),
        ("15 1-2 * * *", vec!["Sun 31 02:00+01:00", "Sun 31 02:15+01:00"]),
    ] {
        assert_eq!(shown(text, "Europe/London", day.0, day.1), times, "{text}");
    }
    let (from, until) = ("2024-03-31T00:30:00Z", "2024-03-31T01:30:00Z");
    let hours = ["Sun 31 02:00+01:00"];
    assert_eq!(shown("0 * * * *", "Europe/London", from, until), hours, "a steady one has no gap");
}

#[test]
fn a_time_that_comes_twice_runs_once_and_a_steady_one_both_times() {
    // London: 2024-10-27, 2:00 BST is 1:00 GMT.
    let (from, until) = ("2024-10-26T12:00:00Z", "2024-10-27T12:00:00Z");
    let once = ["Sun 27 01:30+01:00"];
    assert_eq!(shown("30 1 * * *", "Europe/London", from, until), once);
    let both = ["Sun 27 01:30+01:00", "Sun 27 01:30+00:00"];
    assert_eq!(shown("*/30 1 * * *", "Europe/London", from, until)[1..2], both[..1]);
    let (from, until) = ("2024-10-26T23:59:00Z", "2024-10-27T02:01:00Z");
    let hours = ["Sun 27 01:00+01:00", "Sun 27 01:00+00:00", "Sun 27 02:00+00:00"];
    assert_eq!(shown("0 * * * *", "Europe/London", from, until), hours);
}

#[test]
fn days_are_those_of_vixie_and_the_letters_of_croner() {
    let days = |text: &str| -> Vec<String> {
        let all = shown(text, "UTC", "2024-02-01T00:00:00Z", "2024-02-29T23:59:00Z");
        all.into_iter().map(|time| time[..6].to_owned()).collect()
    };
    assert_eq!(days("0 2 13 * 5"), ["Fri 02", "Fri 09", "Tue 13", "Fri 16", "Fri 23"], "either");
    assert_eq!(days("0 2 */13 * 4"), ["Thu 01"], "both, since one begins with `*`");
    assert_eq!(days("0 2 */14 * THU"), ["Thu 01", "Thu 29"]);
    assert_eq!(days("0 2 L * *"), ["Thu 29"]);
    assert_eq!(days("0 2 LW * *"), ["Thu 29"]);
    assert_eq!(days("0 2 10W * *"), ["Fri 09"], "the tenth is a Saturday");
    assert_eq!(days("0 2 * * 5#2"), ["Fri 09"]);
    assert_eq!(days("0 2 * * 5L"), ["Fri 23"]);
    assert_eq!(days("0 2 * * 7"), days("0 2 * * 0"));
    assert_eq!(days("@weekly"), ["Sun 04", "Sun 11", "Sun 18", "Sun 25"]);
    assert_eq!(days("@monthly"), ["Thu 01"]);
    assert_eq!(days("30 0 2 1-2 * *"), ["Thu 01", "Fri 02"], "seconds go first");
}

/// What the rule of the module says, minute by minute: of times of day the first showing, where all that a gap skips is
/// shown at its end.
fn by_the_rule(schedule: &Schedule, from: Timestamp, until: Timestamp) -> BTreeSet<Timestamp> {
    let minute = |civil: civil::DateTime| civil.checked_add(MINUTE).expect("in range");
    let fits = |civil: &civil::DateTime| schedule.cron.is_time_matching(civil).expect("a time");
    let mut highest = schedule.zone.to_datetime(from);
    let mut times = BTreeSet::new();
    let mut now = from;
    while now < until {
        now = now.checked_add(MINUTE).expect("in range");
        let civil = schedule.zone.to_datetime(now);
        let mut fresh = std::iter::successors(Some(minute(highest)), |civil| Some(minute(*civil)))
            .take_while(|fresh| *fresh <= civil);
        let runs = if schedule.of_day { fresh.any(|fresh| fits(&fresh)) } else { fits(&civil) };
        if runs {
            times.insert(now);
        }
        highest = highest.max(civil);
    }
    times
}

const EXPRESSIONS: &[&str] = &[
    "0 2 * * *",
    "30 1 * * *",
    "30 2 * * *",
    "59 1 * * *",
    "0 0 * * *",
    "45 23 * * *",
    "0,15,45 1-3 * * *",
    "20 1,2,13 * * *",
    "30 2 * * 0",
    "10 1 L * *",
    "0 * * * *",
    "*/15 * * * *",
    "*/25 1-2 * * *",
    "7 */2 * * *",
];

/// Zones with both kinds of changes, of an hour, of half an hour, and of a quarter of one; and where a rule goes on
/// for ever.
const CHANGES: &[(&str, &str, usize)] = &[
    ("Europe/London", "2024-01-01T00:00:00Z", 2),
    ("America/New_York", "2024-01-01T00:00:00Z", 2),
    ("America/New_York", "2050-01-01T00:00:00Z", 2),
    ("Asia/Kathmandu", "1985-06-01T00:00:00Z", 1),
    ("Australia/Lord_Howe", "2024-01-01T00:00:00Z", 2),
];

#[test]
fn around_every_change_of_clocks_both_directions_follow_the_rule() {
    for (name, since, count) in CHANGES {
        let zone = zone(name);
        let changes = zone.following(at(since)).take(*count).map(|change| change.timestamp());
        let changes: Vec<Timestamp> = changes.collect();
        assert_eq!(changes.len(), *count, "{name}");
        for (change, text) in changes.iter().flat_map(|at| EXPRESSIONS.iter().map(move |t| (at, t)))
        {
            let schedule = schedule(text, name);
            let hours =
                |hours| change.checked_add(SignedDuration::from_hours(hours)).expect("time");
            let times = by_the_rule(&schedule, hours(-60), hours(60));
            let mut now = hours(-6);
            while now < hours(6) {
                let next =
                    times.range((std::ops::Bound::Excluded(now), std::ops::Bound::Unbounded));
                if let Some(next) = next.into_iter().next() {
                    assert_eq!(schedule.next(now), Some(*next), "`{text}` in {name} after {now}");
                }
                if let Some(last) = times.range(..=now).next_back() {
                    assert_eq!(schedule.last(now), Some(*last), "`{text}` in {name} until {now}");
                }
                now = now.checked_add(SignedDuration::from_secs(90)).expect("in range");
            }
        }
    }
}

fn any_expression() -> impl Strategy<Value = String> {
    let minute = prop_oneof![
        (0..60_u8).prop_map(|minute| minute.to_string()),
        Just("*".to_owned()),
        (1..40_u8).prop_map(|step| format!("*/{step}")),
        (0..30_u8, 30..60_u8).prop_map(|(a, b)| format!("{a},{b}")),
    ];
    let hour = prop_oneof![
        4 => (0..4_u8).prop_map(|hour| hour.to_string()),
        1 => (0..24_u8).prop_map(|hour| hour.to_string()),
        1 => Just("*".to_owned()),
        1 => (1..12_u8).prop_map(|step| format!("*/{step}")),
        1 => (0..3_u8, 3..24_u8).prop_map(|(a, b)| format!("{a}-{b}")),
    ];
    let days = prop_oneof![
        6 => Just("* * *".to_owned()),
        1 => (1..29_u8).prop_map(|day| format!("{day} * *")),
        1 => (0..8_u8).prop_map(|day| format!("* * {day}")),
        1 => (1..29_u8, 0..8_u8).prop_map(|(day, weekday)| format!("{day} * {weekday}")),
        1 => (0..7_u8, 1..6_u8).prop_map(|(day, nth)| format!("* * {day}#{nth}")),
        1 => Just("L * *".to_owned()),
        1 => Just("15W */3 *".to_owned()),
        1 => Just("29 2 *".to_owned()),
    ];
    (minute, hour, days).prop_map(|(minute, hour, days)| format!("{minute} {hour} {days}"))
}

/// Half of them near a change of the zone's clock.
fn any_time(name: &'static str) -> impl Strategy<Value = Timestamp> {
    let anywhere = 631_152_000_i64..2_900_000_000;
    (anywhere, any::<bool>(), -14_400..14_400_i64).prop_map(move |(second, near, beside)| {
        let time = Timestamp::from_second(second).expect("in range");
        let zone = zone(name);
        let change = zone.following(time).next().filter(|_| near);
        change.map_or(time, |change| {
            let beside = SignedDuration::from_secs(beside);
            change.timestamp().checked_add(beside).expect("in range")
        })
    })
}

fn any_zone() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "Europe/London",
        "America/New_York",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "UTC",
    ])
}

proptest! {
    #[test]
    fn what_comes_next_is_what_was_last_and_nothing_lies_between(
        text in any_expression(),
        (name, now) in any_zone().prop_flat_map(|name| (Just(name), any_time(name))),
        share in 0.0..1.0_f64,
    ) {
        let schedule = schedule(&text, name);
        let next = schedule.next(now).expect("it comes");
        let last = schedule.last(now).expect("it came");
        prop_assert!(last <= now && now < next);
        prop_assert_eq!(schedule.last(next), Some(next));
        prop_assert_eq!(schedule.next(last), Some(next));
        let before = next.checked_sub(SignedDuration::from_nanos(1)).expect("in range");
        prop_assert_eq!(schedule.next(before), Some(next));
        prop_assert_eq!(schedule.last(before), Some(last));
        let between = last.checked_add(last.duration_until(before).mul_f64(share)).expect("in range");
        prop_assert_eq!(schedule.next(between), Some(next));
        prop_assert_eq!(schedule.last(between), Some(last));
    }

    #[test]
    fn jitter_is_below_its_limit_and_always_the_same(name in "[a-z /]{0,20}", limit in 0..5_000_u64) {
        let limit = Duration::from_millis(limit);
        let schedule = |limit| Schedule::parse("0 2 * * *", TimeZone::UTC, limit).expect("good");
        let offset = schedule(limit).offset(&name);
        prop_assert!(offset < limit || limit.is_zero() && offset.is_zero());
        prop_assert_eq!(schedule(limit).offset(&name), offset);
    }

    #[test]
    fn no_text_brings_it_down_and_what_is_suggested_is_a_schedule(text in "[-0-9A-Za-z*/,#?@ :]{0,24}") {
        if let Err(error) = Schedule::parse(&text, TimeZone::UTC, Duration::ZERO)
            && let Some(nearest) = error.nearest()
        {
            prop_assert!(Schedule::parse(nearest, TimeZone::UTC, Duration::ZERO).is_ok(), "{nearest}");
        }
    }
}

#[test]
fn what_is_no_schedule_is_told_with_the_nearest_that_is() {
    for (text, word, nearest) in [
        ("61 2 * * *", "`61` is no minute (0 to 59)", Some("59 2 * * *")),
        ("0 24 * * *", "`24` is no hour (0 to 23)", Some("0 23 * * *")),
        ("0 2 0 * *", "`0` is no day of month", Some("0 2 1 * *")),
        ("0 2 32 13 *", "`32` is no day of month", Some("0 2 31 12 *")),
        ("0 2 * * 8", "`8` is no day of week", Some("0 2 * * 7")),
        ("0 2", "2 fields", Some("0 2 * * *")),
        ("2", "1 field,", Some("2 * * * *")),
        ("0 0 2 * * * 2026", "7 fields", Some("0 0 2 * * *")),
        ("0 2 * * sunday", "`sunday` is no day of week", Some("0 2 * * SUN")),
        ("0 2 * * Wensday", "`Wensday`", Some("0 2 * * WED")),
        ("0 2 1 jly *", "`jly` is no month", Some("0 2 1 JUL *")),
        ("0 2 * * FRI-MON", "`FRI-MON`", Some("0 2 * * FRI-7,0-MON")),
        ("0 22-4 * * *", "`22-4` is no hour", Some("0 22-23,0-4 * * *")),
        ("5/15 * * * *", "`5/15` is no minute", Some("5-59/15 * * * *")),
        ("*/0 02 * * *", "`*/0` is no minute", Some("*/1 02 * * *")),
        (", 2 * * *", "`,` is no minute", None),
        ("0 2am * * *", "`2am` is no hour", Some("0 2 * * *")),
        ("02:30", "with the minute first", Some("30 02 * * *")),
        ("0 2 32W * *", "`32W`", Some("0 2 31W * *")),
        ("0 2 * * 5#6", "`5#6`", Some("0 2 * * 5#5")),
        ("0 2 30 2 *", "never comes", Some("0 2 L 2 *")),
        ("0 2 31 4,6 *", "never comes", Some("0 2 L 4,6 *")),
        ("@dayly", "@daily", Some("@daily")),
        ("@midnight", "@daily", Some("@daily")),
        ("", "it is empty", None),
        ("whenever you like", "3 fields", None),
    ] {
        let error = Schedule::parse(text, TimeZone::UTC, Duration::ZERO).expect_err(text);
        let told = error.to_string();
        assert!(told.contains(word) && told.contains(&format!("`{text}`")), "{text}: {told}");
        assert_eq!(error.nearest(), nearest, "{text}");
    }
}

#[test]
fn gaps_between_runs_are_measured() {
    let twice = schedule("0 2,5 * * *", "UTC");
    assert_eq!(twice.shortest_gap(), Duration::from_hours(3));
    assert_eq!(twice.longest_gap(at("2024-05-01T00:00:00Z")), Duration::from_hours(21));
    let rare = schedule("0 2 29 2 *", "UTC");
    assert!(rare.longest_gap(at("2024-05-01T00:00:00Z")) > Duration::from_hours(24 * 365 * 4));
}
