use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// In each of these an hour comes twice, or days begin at odd times.
const ZONES: [&str; 4] =
    ["UTC0", "EST5EDT,M3.2.0,M11.1.0", "NPT-5:45", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"];

fn zone(at: usize) -> TimeZone {
    TimeZone::posix(ZONES[at]).expect("a POSIX zone")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("this century")
}

fn cluster() -> ClusterName {
    "main".parse().expect("a name")
}

fn backup(number: u32, second: i64) -> Backup {
    Backup {
        id: BackupId::new(at(second), number),
        cluster: cluster(),
        database: "shop".to_owned(),
        started_at: at(second),
        trigger: Trigger::Scheduled,
        state: State::Done,
        pinned: false,
        verification: None,
        suspect: None,
        previous: None,
        foreign: false,
        safety: false,
    }
}

fn last(keep_last: u32) -> RetentionPolicy {
    RetentionPolicy { keep_last, ..RetentionPolicy::nothing() }
}

fn decided(backups: &[Backup], policy: &RetentionPolicy, now: Timestamp) -> Vec<Verdict> {
    let policies = BTreeMap::from([(cluster(), policy.clone())]);
    decide(&backups.iter().collect::<Vec<_>>(), &policies, now)
}

fn kept(backups: &[Backup], policy: &RetentionPolicy, now: Timestamp) -> Vec<usize> {
    let verdicts = decided(backups, policy, now);
    (0..backups.len()).filter(|at| !verdicts[*at].is_removed()).collect()
}

const DAY: i64 = 86_400;

/// One a day, oldest first.
fn days(count: u32) -> Vec<Backup> {
    (0..count).map(|day| backup(day, i64::from(day) * DAY)).collect()
}

#[test]
fn buckets_keep_the_newest_of_each_and_the_oldest_while_a_rule_is_not_full() {
    let policy = RetentionPolicy { keep_daily: 3, keep_monthly: 9, ..last(1) };
    let all = days(70);
    let now = at(70 * DAY);
    let verdicts = decided(&all, &policy, now);
    let told = |at: usize| match &verdicts[at] {
        Verdict::Kept(reasons) => {
            reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        }
        Verdict::Removed(cause) => cause.to_string(),
    };
    assert_eq!(told(69), "newest; last good; last 1; daily 2027-03-25; monthly 2027-03");
    assert_eq!(told(68), "daily 2027-03-24");
    assert_eq!(told(66), "expired");
    assert_eq!(told(44), "monthly 2027-02");
    assert_eq!(told(16), "monthly 2027-01");
    assert_eq!(told(0), "oldest (monthly)");
    assert_eq!(kept(&all, &policy, now), [0, 16, 44, 67, 68, 69]);
}

#[test]
fn the_hour_that_comes_twice_is_two_and_days_begin_where_the_zone_says() {
    // 2027-11-07 05:30 and 06:30 UTC are both 01:30 in New York.
    let twice: Vec<Backup> = (0..2).map(|n| backup(n, 25_565_400 + i64::from(n) * 3600)).collect();
    let hourly = RetentionPolicy { keep_hourly: 2, time_zone: zone(1), ..last(0) };
    assert_eq!(twice[0].started_at.to_string(), "2027-11-07T05:30:00Z");
    let verdicts = decided(&twice, &hourly, at(30_000_000));
    assert!(!verdicts.iter().any(Verdict::is_removed), "{verdicts:?}");
    // 18:00 and 18:30 UTC: midnight in Kathmandu lies between them.
    let around: Vec<Backup> = (0..2).map(|n| backup(n, 36_000 + i64::from(n) * 1800)).collect();
    let daily = RetentionPolicy { keep_daily: 2, time_zone: zone(2), ..last(0) };
    assert_eq!(kept(&around, &daily, at(DAY)).len(), 2);
    let verdicts = decided(&around, &daily, at(DAY));
    let first = Verdict::Kept(vec![Reason::Rule(Rule::Daily, "2027-01-15".to_owned())]);
    assert_eq!(verdicts[0], first);
}

#[test]
fn what_takes_no_place_displaces_nothing() {
    let mut all = days(8);
    all[7].verification = Some(Outcome::Failed);
    all[6].foreign = true;
    all[5].trigger = Trigger::Imported;
    all[4].safety = true;
    all[3].state = State::Open;
    all[2].state = State::Dead;
    assert_eq!(kept(&all, &last(1), at(8 * DAY)), [1, 3, 4, 5, 6, 7]);
    // Older than what fills the rule, a failed one and one before a restore go.
    let mut all = days(4);
    all[0].verification = Some(Outcome::Failed);
    all[1].safety = true;
    assert_eq!(kept(&all, &last(1), at(8 * DAY)), [3]);
}

#[test]
fn the_last_verified_one_and_what_is_pinned_outlive_every_policy() {
    let mut all = days(9);
    all[2].verification = Some(Outcome::Passed);
    all[1].verification = Some(Outcome::Passed);
    all[4].pinned = true;
    assert_eq!(kept(&all, &last(1), at(9 * DAY)), [2, 4, 8]);
}

#[test]
fn of_a_row_of_suspects_the_first_is_kept_and_what_it_was_compared_with() {
    let mut all = days(9);
    let good = all[2].id.clone();
    for suspect in &mut all[3..] {
        suspect.suspect = Some(good.clone());
    }
    assert_eq!(kept(&all, &last(2), at(9 * DAY)), [2, 3, 7, 8]);
    // Adopted, they are like any other.
    for suspect in &mut all[3..] {
        suspect.suspect = None;
    }
    assert_eq!(kept(&all, &last(2), at(9 * DAY)), [7, 8]);
}

#[test]
fn a_clock_that_stands_behind_or_ahead_expires_nothing_by_age() {
    let mut all = days(3);
    all[0].trigger = Trigger::PreMigration;
    let policy = last(1);
    assert_eq!(kept(&all, &policy, at(3 * DAY)), [0, 2]);
    assert_eq!(kept(&all, &policy, at(900 * DAY)), [0, 2]);
    // A year behind: all of it lies ahead.
    assert_eq!(kept(&all, &policy, at(-365 * DAY)).len(), 3);
    // One from a clock that stood ahead takes nobody's place.
    all.push(backup(9, 400 * DAY));
    assert_eq!(kept(&all, &policy, at(3 * DAY)), [0, 2, 3]);
    let far = RetentionPolicy { pre_migration: Duration::from_hours(24), ..last(1) };
    assert_eq!(kept(&all[..3], &far, at(3 * DAY)), [2]);
}

#[test]
fn clusters_without_a_policy_are_kept_and_databases_do_not_mix() {
    let mut all = days(4);
    all[0].cluster = "other".parse().expect("a name");
    all[1].database = "dropped".to_owned();
    assert_eq!(kept(&all, &last(1), at(9 * DAY)), [0, 1, 3]);
}

#[test]
fn a_hundred_thousand_are_decided_in_seconds() {
    let begun = std::time::Instant::now();
    let mut all = Vec::new();
    for number in 0..100_000 {
        let mut one = backup(number, i64::from(number) * 600);
        one.database = format!("d{}", number % 5);
        all.push(one);
    }
    let removed = decided(&all, &RetentionPolicy::default(), at(70_000_000));
    assert!(removed.iter().filter(|verdict| verdict.is_removed()).count() > 99_000);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[derive(Debug, Clone)]
struct Drawn {
    second: i64,
    kind: u8,
    verification: Option<bool>,
    suspect: Option<usize>,
    previous: Option<usize>,
    database: bool,
    pinned: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (
        prop_oneof![0..200 * DAY, 0..10 * DAY, 0..5_i64],
        0..12_u8,
        proptest::option::weighted(0.3, any::<bool>()),
        proptest::option::weighted(0.2, 0..40_usize),
        proptest::option::weighted(0.2, 0..40_usize),
        proptest::bool::weighted(0.8),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(second, kind, verification, suspect, previous, database, pinned)| Drawn {
            second,
            kind,
            verification,
            suspect,
            previous,
            database,
            pinned,
        })
}

fn histories() -> impl Strategy<Value = Vec<Backup>> {
    proptest::collection::vec(drawn(), 0..40).prop_map(|drawn| {
        let mut all: Vec<Backup> = Vec::new();
        for (number, one) in (0_u32..).zip(&drawn) {
            let mut made = backup(number, one.second);
            made.trigger = match one.kind {
                0 => Trigger::Imported,
                1 | 2 => Trigger::PreMigration,
                _ => Trigger::Scheduled,
            };
            made.state = match one.kind {
                3 => State::Open,
                4 => State::Dead,
                _ => State::Done,
            };
            (made.foreign, made.safety) = (one.kind == 5, one.kind == 6);
            made.verification =
                one.verification.map(|good| if good { Outcome::Passed } else { Outcome::Failed });
            made.database = if one.database { "shop" } else { "blog" }.to_owned();
            made.pinned = one.pinned;
            all.push(made);
        }
        let ids: Vec<BackupId> = all.iter().map(|one| one.id.clone()).collect();
        for (made, one) in all.iter_mut().zip(&drawn) {
            made.suspect = one.suspect.and_then(|at| ids.get(at).cloned());
            made.previous = one.previous.and_then(|at| ids.get(at).cloned());
        }
        all
    })
}

fn policies() -> impl Strategy<Value = RetentionPolicy> {
    let few = || prop_oneof![Just(0_u32), 0..5_u32];
    (few(), few(), few(), few(), few(), few(), 0..20_u64, 0..60_u64, 0..4_usize).prop_map(
        |(keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly, w, p, z)| {
            RetentionPolicy {
                keep_last,
                keep_hourly,
                keep_daily,
                keep_weekly,
                keep_monthly,
                keep_yearly,
                keep_within: Duration::from_hours(w),
                pre_migration: Duration::from_hours(p * 24),
                time_zone: zone(z),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn pruning_again_with_the_same_now_removes_nothing_more(
        all in histories(), policy in policies(), now in -10 * DAY..300 * DAY,
    ) {
        let verdicts = decided(&all, &policy, at(now));
        let left: Vec<Backup> = all
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| !verdict.is_removed())
            .map(|(one, _)| one.clone())
            .collect();
        let again = kept(&left, &policy, at(now));
        prop_assert_eq!(again.len(), left.len());
    }

    #[test]
    fn the_order_of_the_input_is_of_no_importance(
        all in histories(), policy in policies(), now in -10 * DAY..300 * DAY, turn in 0..40_usize,
    ) {
        let of = |all: &[Backup]| -> BTreeMap<BackupId, Verdict> {
            let ids = all.iter().map(|one| one.id.clone());
            ids.zip(decided(all, &policy, at(now))).collect()
        };
        let mut turned = all.clone();
        turned.reverse();
        let half = turn.min(turned.len());
        turned.rotate_left(half);
        prop_assert_eq!(of(&all), of(&turned));
    }

    #[test]
    fn the_guarantees_hold(
        all in histories(), policy in policies(), now in -10 * DAY..300 * DAY,
    ) {
        let verdicts = decided(&all, &policy, at(now));
        let stays = |at: usize| !verdicts[at].is_removed();
        let of = |database: &str, wanted: &dyn Fn(&Backup) -> bool| {
            let mut fit: Vec<usize> = (0..all.len())
                .filter(|at| all[*at].database == database && wanted(&all[*at]))
                .collect();
            fit.sort_by_key(|at| (all[*at].started_at, all[*at].id.clone()));
            fit
        };
        let own = |one: &Backup| {
            one.state == State::Done && !one.foreign && one.trigger != Trigger::Imported
        };
        for database in ["shop", "blog"] {
            if let Some(newest) = of(database, &|one| own(one) && !one.safety).last() {
                prop_assert!(stays(*newest), "the newest goes");
            }
            let good = |one: &Backup| {
                own(one) && !one.safety && one.suspect.is_none()
                    && one.verification != Some(Outcome::Failed)
            };
            if let Some(good) = of(database, &good).last() {
                prop_assert!(stays(*good), "the last good one goes");
            }
            let verified = |one: &Backup| own(one) && one.verification == Some(Outcome::Passed);
            if let Some(verified) = of(database, &verified).last() {
                prop_assert!(stays(*verified), "the last verified one goes");
            }
            let done = of(database, &|one| one.state == State::Done);
            prop_assert!(done.is_empty() || done.iter().any(|at| stays(*at)), "a history is empty");
            let place = |id: &BackupId| of(database, &|one| one.id == *id).first().copied();
            for suspect in of(database, &|one| own(one) && one.suspect.is_some() && one.started_at <= at(now)) {
                let against = all[suspect].suspect.as_ref().and_then(place);
                if let Some(against) = against && all[against].state != State::Dead {
                    prop_assert!(stays(against), "what a suspect was compared with goes");
                }
            }
        }
        let wanted: BTreeSet<usize> = (0..all.len())
            .filter(|at| {
                let one = &all[*at];
                let done = one.state == State::Done;
                one.state == State::Open
                    || done && (one.pinned || one.foreign || one.trigger == Trigger::Imported)
                    || done && one.started_at > super::tests::at(now)
            })
            .collect();
        prop_assert!(wanted.iter().all(|at| stays(*at)), "one that is kept whatever happens goes");
        let dead = (0..all.len()).filter(|at| all[*at].state == State::Dead);
        prop_assert!(dead.into_iter().all(|at| !stays(at)), "a dead one stays");
    }
}
