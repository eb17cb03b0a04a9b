//! The status page: what every other tool leaves out, first. No script, nothing from elsewhere; a reader who sees
//! no colours still sees words and shapes.
//!
//! Elements carry `data-` attributes with the exact values of `/v1/status`, so that a test can compare the two.

mod database;
mod runs;
mod timeline;

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::daemon::runs::Run;
use crate::daemon::shared::Health;
use crate::domain::status::{ClusterStatus, DatabaseStatus, KeyStatus, Status};
use crate::domain::words;

const STYLE: &str = include_str!("page.css");
/// How often a browser loads it again.
const REFRESH_S: u32 = 30;
/// How many troubles are listed above the table; the rows tell the rest.
const TROUBLES_SHOWN: usize = 12;

/// What is shown.
pub(super) struct View<'a> {
    /// None before the first look at the repository.
    pub(super) status: Option<&'a Status>,
    pub(super) health: &'a Health,
    /// The scheduler has not gone round for too long.
    pub(super) hangs: bool,
    /// Oldest first.
    pub(super) runs: Vec<Run>,
    pub(super) now: Timestamp,
}

/// How good the news is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mood {
    Good,
    Doubt,
    Bad,
}

impl Mood {
    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Doubt => "doubt",
            Self::Bad => "bad",
        }
    }

    /// The shape beside the colour, and the word for who sees neither.
    const fn sign(self) -> (&'static str, &'static str) {
        match self {
            Self::Good => ("✓", "good"),
            Self::Doubt => ("!", "in doubt"),
            Self::Bad => ("✕", "overdue or damaged"),
        }
    }

    fn badge(self) -> Markup {
        let (sign, word) = self.sign();
        html! { span class={ "badge " (self.class()) } role="img" aria-label=(word) title=(word) { (sign) } }
    }

    const fn colour(self) -> &'static str {
        match self {
            Self::Good => "%231a7f4b",
            Self::Doubt => "%23b07a00",
            Self::Bad => "%23c62828",
        }
    }
}

/// How it stands with one database.
fn mood(database: &DatabaseStatus) -> Mood {
    if !database.overdue.is_empty() {
        Mood::Bad
    } else if database.newest_in_doubt.is_some()
        || (database.configured && database.last_good.is_none())
    {
        Mood::Doubt
    } else {
        Mood::Good
    }
}

/// Something that wants attention, and the element that tells more.
struct Trouble {
    mood: Mood,
    text: String,
    anchor: Option<String>,
}

/// The page.
pub(super) fn render(view: &View<'_>) -> String {
    let troubles = troubles(view);
    let worst = troubles.iter().map(|trouble| trouble.mood).max();
    let (mood, verdict) = verdict(view, worst);
    let refresh = if view.status.is_some() { REFRESH_S } else { 3 };
    let icon = format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='{}'/%3E%3C/svg%3E",
        mood.colour()
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                meta http-equiv="refresh" content=(refresh);
                title { (mood.sign().0) " pgkeep: " (verdict) }
                link rel="icon" href=(icon);
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.name { "pgkeep" }
                    @if let Some(status) = view.status { (looked(status, view.now)) }
                }
                main {
                    section.verdict.(mood.class()) #verdict data-mood=(mood.class()) {
                        h1 { (mood.badge()) " " (verdict) }
                        (list(&troubles))
                    }
                    (runs::active(&view.runs, view.now))
                    @if let Some(status) = view.status {
                        (database::table(status, view.now))
                        (repository(status))
                    }
                    (runs::recent(&view.runs, view.now))
                }
                footer {
                    p {
                        a href="/v1/status" { "status as JSON" } " · "
                        a href="/v1/runs" { "runs" } " · "
                        a href="/metrics" { "metrics" } " · "
                        a href="/healthz?strict" { "health" }
                    }
                    p { "pgkeep " (env!("CARGO_PKG_VERSION")) " · loads itself again every " (REFRESH_S) " s" }
                }
            }
        }
    };
    page.into_string()
}

fn looked(status: &Status, now: Timestamp) -> Markup {
    html! {
        p.place data-field="repository" { (status.repository) }
        p.at data-field="at" data-value=(status.at) {
            "as of " (moment(status.at, &TimeZone::UTC)) " UTC, " (ago(status.at, now))
        }
    }
}

/// The one line that matters.
fn verdict(view: &View<'_>, worst: Option<Mood>) -> (Mood, String) {
    let Some(status) = view.status else {
        let text = "the first look at the repository is not over yet".to_owned();
        return (worst.unwrap_or(Mood::Doubt), text);
    };
    let all: Vec<&DatabaseStatus> =
        status.clusters.iter().flat_map(|cluster| &cluster.databases).collect();
    let count = |wanted: Mood| all.iter().filter(|one| mood(one) == wanted).count();
    let mood = worst.unwrap_or(Mood::Good);
    let databases = |n: usize| if n == 1 { "database" } else { "databases" };
    let text = match (count(Mood::Bad), count(Mood::Doubt)) {
        (0, 0) if mood != Mood::Good => {
            "something is wrong with the repository or this host".to_owned()
        }
        (0, 0) if all.is_empty() => "nothing is backed up yet".to_owned(),
        (0, 0) => {
            let proved = all.iter().all(|one| one.last_verified.is_some());
            let proved = if proved { " and a proved restore" } else { "" };
            match all.len() {
                1 => format!("1 database has a good backup{proved}"),
                n => format!("all {n} databases have a good backup{proved}"),
            }
        }
        (0, doubt) => format!("{doubt} of {} {} in doubt", all.len(), databases(all.len())),
        (bad, _) => format!("{bad} of {} {} overdue", all.len(), databases(all.len())),
    };
    (mood, text)
}

/// All that wants attention, the gravest first.
fn troubles(view: &View<'_>) -> Vec<Trouble> {
    let mut all = Vec::new();
    let mut say = |mood, text: String, anchor| all.push(Trouble { mood, text, anchor });
    if view.hangs {
        say(
            Mood::Bad,
            "the scheduler hangs: nothing is done and nothing here is new".to_owned(),
            None,
        );
    }
    if let Some(error) = &view.health.repository_error {
        say(Mood::Bad, format!("the last look at the repository failed: {error}"), None);
    }
    if view.health.draining {
        say(
            Mood::Doubt,
            "the daemon is going down; runs under way come to their end".to_owned(),
            None,
        );
    }
    if let Some(status) = view.status {
        if status.keys.is_kept_only_here() {
            let anchor = Some("keys".to_owned());
            say(
                Mood::Doubt,
                "identity kept only here: with this host all backups would be lost".to_owned(),
                anchor,
            );
        }
        for fault in &status.faults {
            say(Mood::Bad, fault.clone(), None);
        }
        for cluster in &status.clusters {
            for database in &cluster.databases {
                of_database(cluster, database, &mut say);
            }
        }
    }
    all.sort_by_key(|trouble| std::cmp::Reverse(trouble.mood));
    all
}

fn of_database(
    cluster: &ClusterStatus,
    database: &DatabaseStatus,
    say: &mut impl FnMut(Mood, String, Option<String>),
) {
    let name = format!("{}/{}", cluster.name, database.name);
    let anchor = || Some(anchor(cluster, database));
    for why in &database.overdue {
        say(Mood::Bad, format!("{name}: {why}"), anchor());
    }
    if let Some((_, why)) = &database.newest_in_doubt {
        say(Mood::Doubt, format!("{name}: the newest backup is in doubt: {why}"), anchor());
    } else if database.configured && database.last_good.is_none() && database.overdue.is_empty() {
        say(Mood::Doubt, format!("{name}: no good backup yet"), anchor());
    }
}

fn list(troubles: &[Trouble]) -> Markup {
    html! {
        @if !troubles.is_empty() {
            ul.troubles #troubles {
                @for trouble in troubles.iter().take(TROUBLES_SHOWN) {
                    li.(trouble.mood.class()) {
                        @if let Some(anchor) = &trouble.anchor {
                            a href={ "#" (anchor) } { (trouble.text) }
                        } @else { (trouble.text) }
                    }
                }
                @if troubles.len() > TROUBLES_SHOWN {
                    li { "and " (troubles.len() - TROUBLES_SHOWN) " more, each marked below" }
                }
            }
        }
    }
}

/// Where backups are, and who can read them.
fn repository(status: &Status) -> Markup {
    let keys = &status.keys;
    html! {
        section.card #keys {
            h2 { "Keys" }
            dl {
                @if keys.encrypted {
                    dt { "readable by" }
                    dd data-field="recipients" {
                        @for recipient in &keys.recipients {
                            code title=(recipient) data-value=(recipient) { (shortened(recipient)) } " "
                        }
                        @if keys.recipients.is_empty() { "—" }
                    }
                } @else {
                    dt { "readable by" }
                    dd { strong.doubt { "anyone who reaches the store: backups are not encrypted" } }
                }
                dt { "signed by" }
                dd data-field="signer" { code { (keys.signer.as_deref().unwrap_or("—")) } }
                dt { "epoch" }
                dd data-field="epoch" { code { (keys.epoch.as_deref().unwrap_or("—")) } }
                dt { "identity" }
                dd data-field="identity" data-only-here=(keys.is_kept_only_here()) { (identity(keys)) }
            }
        }
    }
}

fn identity(keys: &KeyStatus) -> Markup {
    html! {
        @if !keys.encrypted { "none is needed" }
        @else if keys.is_kept_only_here() {
            strong.doubt { "kept only here" }
            " — copy the recovery kit off this host, and run " code { "pgkeep key confirm" } " there"
        }
        @else if keys.confirmed_elsewhere == Some(true) { "known to be kept elsewhere" }
        @else if keys.identity_here { "here; whether elsewhere too, this host cannot tell" }
        @else { "not on this host" }
    }
}

/// `age1qk…9sd4`: enough to tell one from another; the whole is in the title.
fn shortened(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= 20 {
        return text.to_owned();
    }
    let end = &chars[chars.len() - 6..];
    chars[..10].iter().chain(&['…']).chain(end).collect()
}

/// The id of a database's row. Names may hold anything; an id may not.
fn anchor(cluster: &ClusterStatus, database: &DatabaseStatus) -> String {
    let mut id = format!("db-{}-", cluster.name);
    for byte in database.name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            id.push(char::from(byte));
        } else {
            write!(id, ".{byte:02x}").expect("a string takes it");
        }
    }
    id
}

/// The zone that a cluster's hours are in; without a time zone database all hours are UTC, and are called so.
fn zone(cluster: &ClusterStatus) -> (TimeZone, &str) {
    TimeZone::get(&cluster.timezone)
        .map_or((TimeZone::UTC, "UTC"), |zone| (zone, cluster.timezone.as_str()))
}

/// `Sat 28 Nov 02:00` in that zone, the exact time behind it.
fn moment(at: Timestamp, zone: &TimeZone) -> Markup {
    let there = at.to_zoned(zone.clone());
    html! {
        time datetime=(at) title=(at.strftime("%Y-%m-%d %H:%M:%S UTC")) {
            (there.strftime("%a %-d %b %H:%M"))
        }
    }
}

fn elapsed_ms(since: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(since.duration_until(now).as_millis()).unwrap_or(0)
}

/// `5 h 12 min ago`.
fn ago(since: Timestamp, now: Timestamp) -> String {
    format!("{} ago", words::span(elapsed_ms(since, now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_are_shortened_and_short_ones_are_not() {
        assert_eq!(shortened("RWQf6LRCGA9i53ml"), "RWQf6LRCGA9i53ml");
        assert_eq!(
            shortened("age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq"),
            "age1qyqszq…3290gq"
        );
    }
}
