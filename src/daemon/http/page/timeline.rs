//! Thirty days at a glance: a bar for each day with a backup, a dot beneath for each with a verification.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use crate::domain::status::{Mark, MarkKind};

const DAYS: usize = 30;
/// A bar with the gap behind it.
const STEP: usize = 7;
const BAR: usize = 5;
const BAR_HEIGHT: usize = 16;
const HEIGHT: usize = 26;
const WIDTH: usize = DAYS * STEP - (STEP - BAR);
/// Where the dots are.
const DOT_Y: usize = 22;

/// What happened on one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Day {
    backups: u32,
    doubtful: u32,
    verified: u32,
    failed: u32,
}

impl Day {
    const fn is_empty(self) -> bool {
        self.backups + self.doubtful + self.verified + self.failed == 0
    }

    fn words(self) -> String {
        let counted = [
            (self.backups, "good backup", "good backups"),
            (self.doubtful, "backup in doubt", "backups in doubt"),
            (self.verified, "verification passed", "verifications passed"),
            (self.failed, "verification FAILED", "verifications FAILED"),
        ];
        let said = counted.iter().filter(|(count, ..)| *count > 0);
        let said = said.map(|(count, one, many)| match count {
            1 => format!("1 {one}"),
            _ => format!("{count} {many}"),
        });
        let words = said.collect::<Vec<_>>().join(", ");
        if words.is_empty() { "nothing".to_owned() } else { words }
    }
}

/// The last days of the zone's calendar, the oldest first.
fn days(marks: &[Mark], zone: &TimeZone, today: Date) -> [Day; DAYS] {
    let mut days = [Day::default(); DAYS];
    for mark in marks {
        let date = mark.at.to_zoned(zone.clone()).date();
        let back = date.duration_until(today).as_hours() / 24;
        // What comes from a clock ahead of ours is today's; what is older than the picture is left out.
        let Some(at) =
            usize::try_from(back.max(0)).ok().and_then(|back| (DAYS - 1).checked_sub(back))
        else {
            continue;
        };
        let day = &mut days[at];
        *match mark.kind {
            MarkKind::Backup => &mut day.backups,
            MarkKind::DoubtfulBackup => &mut day.doubtful,
            MarkKind::Verified => &mut day.verified,
            MarkKind::Failed => &mut day.failed,
        } += 1;
    }
    days
}

/// The picture.
pub(super) fn draw(marks: &[Mark], zone: &TimeZone, now: Timestamp) -> Markup {
    let today = now.to_zoned(zone.clone()).date();
    let days = days(marks, zone, today);
    let first = days.iter().position(|day| !day.is_empty()).unwrap_or(DAYS);
    let total = days.iter().fold(Day::default(), |sum, day| Day {
        backups: sum.backups + day.backups,
        doubtful: sum.doubtful + day.doubtful,
        verified: sum.verified + day.verified,
        failed: sum.failed + day.failed,
    });
    let summary = format!("the last {DAYS} days: {}", total.words());
    html! {
        svg.timeline viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } width=(WIDTH) height=(HEIGHT)
            role="img" aria-label=(summary) {
            title { (summary) }
            @for (at, day) in days.iter().enumerate() {
                @if at < first { (bar(at, *day, "before")) } @else {
                    g {
                        title { (date(today, at)) ": " (day.words()) }
                        (bar(at, *day, ""))
                        (dot(at, *day))
                    }
                }
            }
        }
    }
}

fn date(today: Date, at: usize) -> String {
    let back = i64::try_from(DAYS - 1 - at).expect("fewer than 30");
    let date = today.checked_sub(jiff::Span::new().days(back)).unwrap_or(today);
    date.strftime("%a %-d %b").to_string()
}

/// Full height for good backups, lower for those in doubt, a stub for none.
fn bar(at: usize, day: Day, none: &str) -> Markup {
    let (class, height) = match day {
        Day { doubtful: 1.., .. } => ("doubt", 11),
        Day { backups: 1.., .. } => ("good", BAR_HEIGHT),
        _ if none.is_empty() => ("none", 3),
        _ => (none, 3),
    };
    html! {
        rect.(class) x=(at * STEP) y=(BAR_HEIGHT - height) width=(BAR) height=(height) rx="1" {}
    }
}

/// A dot for what passed, a cross for what failed.
fn dot(at: usize, day: Day) -> Markup {
    let x = at * STEP;
    html! {
        @if day.failed > 0 {
            path.bad d={ "M" (x) " " (DOT_Y - 3) "l5 6m0 -6l-5 6" } {}
        } @else if day.verified > 0 {
            circle.good cx={ (x + BAR / 2) ".5" } cy=(DOT_Y) r="2.2" {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: &str, kind: MarkKind) -> Mark {
        let id = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        Mark { at: at.parse().expect("a time"), kind, id }
    }

    #[test]
    fn a_day_is_one_of_the_zone_and_not_of_utc() {
        let zone = TimeZone::get("Asia/Kathmandu").expect("a zone");
        let today = jiff::civil::date(2026, 11, 28);
        // 23:00 UTC on the 27th is 04:45 on the 28th there.
        let marks = [
            mark("2026-11-27T18:00:00Z", MarkKind::Backup),
            mark("2026-11-27T23:00:00Z", MarkKind::DoubtfulBackup),
            mark("2026-11-27T23:30:00Z", MarkKind::Failed),
            mark("2026-10-30T00:00:00Z", MarkKind::Verified),
            mark("2026-10-29T00:00:00Z", MarkKind::Verified),
            mark("2026-12-02T00:00:00Z", MarkKind::Backup),
        ];
        let days = days(&marks, &zone, today);
        assert_eq!(days[28], Day { backups: 1, ..Day::default() });
        assert_eq!(days[29], Day { backups: 1, doubtful: 1, failed: 1, ..Day::default() });
        assert_eq!(days[0], Day { verified: 1, ..Day::default() });
        assert_eq!(days.iter().filter(|day| !day.is_empty()).count(), 3);
        assert_eq!(days[29].words(), "1 good backup, 1 backup in doubt, 1 verification FAILED");
        assert_eq!(date(today, 29), "Sat 28 Nov");
        assert_eq!(date(today, 0), "Fri 30 Oct");
    }
}
