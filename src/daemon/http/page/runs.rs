//! What is at work, and what became of the last runs.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::{Mood, ago, elapsed_ms, moment};
use crate::daemon::runs::{Run, State};
use crate::domain::words;

/// How many ended runs are shown.
const ENDED_SHOWN: usize = 10;

fn subject(run: &Run) -> String {
    match &run.database {
        Some(database) => format!("{}/{database}", run.cluster),
        None => run.cluster.to_string(),
    }
}

/// Runs that wait or work; nothing where there are none.
pub(super) fn active(runs: &[Run], now: Timestamp) -> Markup {
    let active: Vec<&Run> = runs.iter().filter(|run| !run.state.is_over()).collect();
    html! {
        @if !active.is_empty() {
            section.active #active aria-label="Running now" {
                h2 { "Running now" }
                ul {
                    @for run in active {
                        li data-run=(run.id) data-state=(run.state.as_str()) {
                            strong { (run.work.as_str()) } " " (subject(run))
                            span.sub {
                                @match run.started_at {
                                    Some(began) => { " for " (words::span(elapsed_ms(began, now))) }
                                    None => { " waits since " (words::span(elapsed_ms(run.queued_at, now))) }
                                }
                                @if !run.step.is_empty() { " · " (run.step) }
                                @if run.bytes > 0 { " · " (words::size(run.bytes)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The last runs that ended, the newest first.
pub(super) fn recent(runs: &[Run], now: Timestamp) -> Markup {
    let mut ended: Vec<&Run> = runs.iter().filter(|run| run.state.is_over()).collect();
    ended.sort_by_key(|run| std::cmp::Reverse(run.finished_at));
    ended.truncate(ENDED_SHOWN);
    html! {
        section.card.recent {
            h2 #runs-title { "Last runs of this daemon" }
            @if ended.is_empty() { p.none { "none yet" } } @else {
                table #runs aria-labelledby="runs-title" {
                    thead { tr {
                        th scope="col" { "Run" }
                        th scope="col" { "Ended" }
                        th scope="col" { "Took" }
                        th scope="col" { "Id" }
                    } }
                    tbody { @for run in ended { (row(run, now)) } }
                }
            }
        }
    }
}

fn row(run: &Run, now: Timestamp) -> Markup {
    let mood = if run.state == State::Succeeded { Mood::Good } else { Mood::Bad };
    let (sign, _) = mood.sign();
    let word = run.state.as_str();
    let message = run.error.as_ref().and_then(|error| error["message"].as_str());
    html! {
        tr.(mood.class()) data-run=(run.id) data-state=(word) {
            th scope="row" {
                span class={ "badge " (mood.class()) } role="img" aria-label=(word) title=(word) { (sign) }
                " " (run.work.as_str()) " " (subject(run))
                @if let Some(message) = message { div.sub.bad { (message) } }
            }
            td data-label="Ended" {
                @if let Some(at) = run.finished_at {
                    (ago(at, now)) " " span.sub { (moment(at, &TimeZone::UTC)) " UTC" }
                }
            }
            td.number data-label="Took" { @if let Some(ms) = run.duration_ms() { (words::duration(ms)) } }
            td data-label="Id" { a href={ "/v1/runs/" (run.id) } { code { (run.id) } } }
        }
    }
}
