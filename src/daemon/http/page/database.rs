//! The table: one row for each database, grouped by cluster.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::{Mood, ago, anchor, elapsed_ms, moment, mood, timeline, zone};
use crate::domain::schedule::Schedule;
use crate::domain::status::{ClusterStatus, DatabaseStatus, Status};
use crate::domain::verification::Depth;
use crate::domain::words;

/// How wide the meter of an age is.
const METER: u64 = 96;

/// All databases.
pub(super) fn table(status: &Status, now: Timestamp) -> Markup {
    html! {
        section.databases {
            h2.unseen #databases-title { "Databases" }
            table #databases aria-labelledby="databases-title" {
                thead { tr {
                    th scope="col" { "Database" }
                    th scope="col" { "Last good backup" }
                    th scope="col" { "Proved restore" }
                    th scope="col" { "Size" }
                    th scope="col" { "Kept" }
                    th scope="col" .days { span { "30 days" } span { "today" } }
                    th scope="col" { "Next" }
                    th scope="col" { "Prune removes next" }
                } }
                @for cluster in &status.clusters { (group(cluster, now)) }
            }
        }
    }
}

/// What the rows of one cluster share.
struct Around {
    zone: TimeZone,
    /// The longest time between two scheduled snapshots.
    interval_ms: Option<u64>,
    now: Timestamp,
}

fn group(cluster: &ClusterStatus, now: Timestamp) -> Markup {
    let (zone, zone_name) = zone(cluster);
    let schedules = &cluster.schedules;
    let interval = schedules.snapshot.as_deref().and_then(|text| {
        let schedule = Schedule::parse(text, zone.clone(), std::time::Duration::ZERO).ok()?;
        u64::try_from(schedule.longest_gap(now).as_millis()).ok()
    });
    let interval_ms = interval.filter(|&ms| ms > 0);
    let around = Around { zone, interval_ms, now };
    let jobs = [
        ("snapshots", &schedules.snapshot),
        ("verifications", &schedules.verify),
        ("prune", &schedules.prune),
    ];
    html! {
        tbody data-cluster=(cluster.name) {
            tr.cluster {
                th scope="rowgroup" colspan="8" {
                    span.title { (cluster.name) }
                    @for (what, cron) in jobs {
                        span.fact { (what) " "
                            @if let Some(cron) = cron { code { (cron) } } @else { "not scheduled" }
                        }
                    }
                    @if let Some(at) = cluster.next_prune {
                        span.fact data-field="next_prune" data-value=(at) { "next prune " (moment(at, &around.zone)) }
                    }
                    span.fact { "hours in " (zone_name) }
                    span.fact { "WAL " (cluster.wal.mode) }
                    @for window in &cluster.recovery_windows {
                        span.fact { "recoverable from " (moment(window.from, &around.zone)) " to " (moment(window.to, &around.zone)) }
                    }
                }
            }
            @for database in &cluster.databases { (row(cluster, database, &around)) }
            @if cluster.databases.is_empty() {
                tr { td.none colspan="8" { "no database yet" } }
            }
        }
    }
}

fn row(cluster: &ClusterStatus, database: &DatabaseStatus, around: &Around) -> Markup {
    let mood = mood(database);
    html! {
        tr.(mood.class()) id=(anchor(cluster, database))
            data-cluster=(cluster.name) data-database=(database.name) data-mood=(mood.class())
            data-overdue=(database.overdue.len()) {
            th scope="row" {
                (mood.badge()) " " span.title { (database.name) }
                @if !database.configured { div.sub { "only in the repository" } }
                @for why in &database.overdue { div.sub.bad data-field="overdue" { (why) } }
            }
            (last_good(database, around))
            (last_verified(database, around))
            (size(database))
            td.number data-label="Kept" data-field="backups" data-value=(database.backups)
                data-stored-bytes=(database.stored_bytes) {
                div { (words::count(database.backups)) }
                div.sub { (words::size(database.stored_bytes)) }
            }
            td.days data-label="30 days" data-field="timeline" data-marks=(database.timeline.len()) {
                (timeline::draw(&database.timeline, &around.zone, around.now))
            }
            (next(database, around))
            (removed(database))
        }
    }
}

fn last_good(database: &DatabaseStatus, around: &Around) -> Markup {
    let good = database.last_good.as_ref();
    html! {
        td data-label="Last good backup" data-field="last_good" data-id=[good.map(|good| &good.id)]
            data-value=[good.map(|good| good.finished_at)] {
            @if let Some(good) = good {
                div { (ago(good.finished_at, around.now)) }
                @if database.configured {
                    (meter(elapsed_ms(good.finished_at, around.now), database, around))
                }
                div.sub {
                    (moment(good.finished_at, &around.zone)) " · " (good.trigger.as_str())
                    " · took " (words::duration(good.duration_ms))
                }
            } @else { div.none { "none" } }
            @if let Some((doubted, why)) = &database.newest_in_doubt {
                div.sub.doubt data-field="newest_in_doubt" data-id=(doubted.id) {
                    "newest, " (ago(doubted.finished_at, around.now)) ", in doubt: " (why)
                }
            }
        }
    }
}

/// An age against the time that the schedule leaves between two backups.
fn meter(age_ms: u64, database: &DatabaseStatus, around: &Around) -> Markup {
    let Some(interval_ms) = around.interval_ms else { return html! {} };
    let filled = age_ms.saturating_mul(METER).div_ceil(interval_ms).min(METER);
    // A run takes its time: late is what a tenth more than the interval does not explain.
    let is_late = age_ms > interval_ms.saturating_add(interval_ms / 10);
    let mood = if !database.overdue.is_empty() {
        Mood::Bad
    } else if is_late {
        Mood::Doubt
    } else {
        Mood::Good
    };
    let title =
        format!("{} of the {} between two backups", words::span(age_ms), words::span(interval_ms));
    html! {
        svg.meter viewBox={ "0 0 " (METER) " 4" } width=(METER) height="4" role="img" aria-label=(title) {
            title { (title) }
            rect.rail width=(METER) height="4" rx="2" {}
            rect.(mood.class()) width=(filled) height="4" rx="2" {}
        }
    }
}

fn last_verified(database: &DatabaseStatus, around: &Around) -> Markup {
    let verified = database.last_verified.as_ref();
    html! {
        td data-label="Proved restore" data-field="last_verified" data-id=[verified.map(|one| &one.id)]
            data-value=[verified.map(|one| one.verified_at)]
            data-duration-ms=[verified.map(|one| one.duration_ms)] {
            @if let Some(verified) = verified {
                div { (ago(verified.verified_at, around.now)) }
                div.sub {
                    "restored in " strong { (words::duration(verified.duration_ms)) } ", "
                    @match verified.depth {
                        Depth::Counts => "rows counted",
                        Depth::Full => "every row compared",
                    }
                }
            } @else { div.doubt { "never" } }
        }
    }
}

fn size(database: &DatabaseStatus) -> Markup {
    let good = database.last_good.as_ref();
    let change = good.zip(database.usual_bytes.filter(|&usual| usual > 0));
    html! {
        td.number data-label="Size" data-field="size" data-value=[good.map(|good| good.source_bytes)]
            data-usual-bytes=[database.usual_bytes] {
            @if let Some(good) = good {
                div {
                    (words::size(good.source_bytes))
                    @if let Some((good, usual)) = change { " " (difference(good.source_bytes, usual)) }
                }
                div.sub {
                    @if let Some(usual) = database.usual_bytes { "usually " (words::size(usual)) " · " }
                    "stored " (words::size(good.stored_bytes))
                }
            } @else { div.none { "—" } }
        }
    }
}

/// `+3 %`; what halved or doubled is told aloud.
fn difference(bytes: u64, usual: u64) -> Markup {
    let percent = u128::from(bytes) * 100 / u128::from(usual);
    let mood = if (50..=200).contains(&percent) { "sub" } else { "doubt" };
    html! {
        span.(mood) {
            @match percent {
                100 => "±0 %",
                101.. => { "+" (percent - 100) " %" }
                _ => { "−" (100 - percent) " %" }
            }
        }
    }
}

fn next(database: &DatabaseStatus, around: &Around) -> Markup {
    let line = |what: &str, field: &str, at: Option<Timestamp>| {
        html! {
            @if let Some(at) = at {
                div.next data-field=(field) data-value=(at) { (what) " " (moment(at, &around.zone)) }
            }
        }
    };
    html! {
        td data-label="Next" {
            (line("snapshot", "next_snapshot", database.next_snapshot))
            (line("verify", "next_verify", database.next_verify))
            @if database.next_snapshot.or(database.next_verify).is_none() { div.none { "nothing" } }
        }
    }
}

fn removed(database: &DatabaseStatus) -> Markup {
    let goes = &database.removes_next;
    html! {
        td data-label="Prune removes next" data-field="removes_next" data-value=(goes.len()) {
            @if goes.is_empty() { div.none { "nothing" } } @else {
                details {
                    summary { (words::count(goes.len() as u64)) @if goes.len() == 1 { " backup" } @else { " backups" } }
                    ul {
                        @for one in goes {
                            li data-id=(one.id) { code { (one.id) } " " span.sub { (one.reason) } }
                        }
                    }
                }
                @if let Some(first) = goes.first() { div.sub { (first.reason) } }
            }
        }
    }
}
