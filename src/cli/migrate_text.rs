//! A guarded migration as people and scripts see it.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::backup::checks_text;
use super::rehearse::rehearsal_text;
use super::text::{Lines, duration, harmless, time};
use crate::domain::migration::{Earlier, MigrationRecord, SnapshotDecision, State};
use crate::guard::migrate::{Planned, Report, Survey};

/// So many names are shown of one kind; the JSON has them all.
const NAMES_MAX: usize = 12;

/// What was found, before the question.
pub(super) fn survey_text(survey: &Survey) -> String {
    let mut text = Lines::default();
    text.fact("database", &survey.place);
    text.fact("command", &survey.command.join(" "));
    for state in &survey.states {
        state_text(&mut text, state);
    }
    if survey.states.is_empty() {
        text.fact(
            "tool",
            "none that is known: no table of one is there, and the command names none",
        );
    }
    if let Some(commit) = &survey.git_commit {
        text.fact("git commit", commit);
    }
    if let Some(earlier) = &survey.earlier {
        earlier_text(&mut text, earlier);
    }
    let planned = match &survey.planned {
        Planned::Snapshot => "will be taken before the command".to_owned(),
        Planned::NothingToLose(reason) => format!("none: {reason}, so there is nothing to lose"),
        Planned::NothingPending => "none: nothing is pending (--if-pending)".to_owned(),
        Planned::Refused => "none: a migration failed, and the command will not be run".to_owned(),
    };
    text.fact("snapshot", &planned);
    text.into_text()
}

/// `--dry-run --json`.
pub(super) fn survey_json(survey: &Survey) -> Json {
    let (planned, reason) = match &survey.planned {
        Planned::Snapshot => ("taken", None),
        Planned::NothingToLose(reason) => ("nothing-to-lose", Some(*reason)),
        Planned::NothingPending => ("nothing-pending", None),
        Planned::Refused => ("refused", None),
    };
    json!({
        "place": survey.place,
        "command": survey.command,
        "git_commit": survey.git_commit,
        "before": survey.states,
        "earlier": survey.earlier,
        "snapshot": { "decision": planned, "reason": reason },
    })
}

/// A run that has no recorded end, and what is known of what it did.
fn earlier_text(text: &mut Lines, earlier: &Earlier) {
    let Earlier { run, snapshot, at, host, .. } = earlier;
    let at = time(*at);
    text.fact("earlier run", &format!("{run} on {host} has no recorded end"));
    match &earlier.command {
        Some(command) => {
            let told = format!("`{}` began at {at}, and may be at work still", command.join(" "));
            text.fact("its command", &told);
        }
        None => text.fact("its command", &format!("was not begun; its snapshot began at {at}")),
    }
    text.fact(
        "before it",
        &format!("snapshot {snapshot}, which is kept: pgkeep rollback {snapshot}"),
    );
    for line in &earlier.since {
        text.fact("since then", line);
    }
    if earlier.command.is_some() && earlier.since.is_empty() {
        text.fact("since then", "no tool's history tells what it has done");
    }
    if !earlier.kept_as.is_empty() {
        let kept = earlier.kept_as.join(", ");
        text.fact("gone back", &format!("to that snapshot already: what was live then is {kept}"));
    }
}

fn state_text(text: &mut Lines, state: &State) {
    let table = state.table.as_deref().unwrap_or("no table yet");
    text.fact("tool", &format!("{}, {table}", state.tool.name()));
    let applied = match &state.last_applied {
        Some(last) => format!("{}, the last is {last}", state.applied),
        None => "none".to_owned(),
    };
    text.fact("applied", &applied);
    if !state.failed.is_empty() {
        let told = state.failed.iter().map(|failed| match &failed.detail {
            Some(detail) => format!("{} ({detail})", failed.name),
            None => failed.name.clone(),
        });
        text.fact("failed", &names(&told.collect::<Vec<_>>()));
    }
    if !state.edited.is_empty() {
        text.fact("edited since", &names(&state.edited));
    }
    if !state.without_file.is_empty() {
        text.fact("without file", &names(&state.without_file));
    }
    let place = state.files.as_deref().map(|place| format!(" in {place}")).unwrap_or_default();
    let why = state.pending_unknown.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    let pending = match state.pending_count().as_str() {
        "0" => format!("none{place}"),
        "unknown" => format!("unknown{why}"),
        count => format!("{count}{place}: {}{}", names(&state.pending), why.replacen(':', ";", 1)),
    };
    text.fact("pending", &pending);
}

fn names(all: &[String]) -> String {
    let more = all.len().saturating_sub(NAMES_MAX);
    let shown = all[..all.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// All that is recorded of a run, as `show` tells it.
pub(super) fn record_text(record: &MigrationRecord) -> String {
    let mut text = Lines::default();
    text.fact("command", &record.command.join(" "));
    text.fact("git commit", record.git_commit.as_deref().unwrap_or("unknown"));
    text.fact("outcome", record.outcome.as_str());
    text.fact(
        "snapshot",
        &match &record.snapshot {
            SnapshotDecision::Taken { id, verified: true } => format!("{id}, verified before"),
            SnapshotDecision::Taken { id, .. } => id.to_string(),
            SnapshotDecision::NothingToLose { reason } => format!("none: {reason}"),
            SnapshotDecision::NothingPending => "none: nothing was pending".to_owned(),
            SnapshotDecision::None => "none".to_owned(),
        },
    );
    if let Some(earlier) = &record.earlier {
        earlier_text(&mut text, earlier);
    }
    text.line("\nbefore:");
    for state in &record.before {
        state_text(&mut text, state);
    }
    if record.before.is_empty() {
        text.line("no tool's history");
    }
    if let Some(rehearsal) = &record.rehearsal {
        text.line("\nrehearsal:");
        text.block(&rehearsal_text(rehearsal));
    }
    text.block(&report_text(record));
    text.into_text()
}

/// What came of it.
pub(super) fn report_text(record: &MigrationRecord) -> String {
    let mut text = Lines::default();
    let Some(end) = &record.ended else { return String::new() };
    text.line("");
    let took = duration(end.duration_ms);
    text.fact(
        "ended",
        &match end.signal {
            Some(signal) => format!("by signal {signal} after {took} (exit {})", end.exit_code),
            None => format!("with exit {} after {took}", end.exit_code),
        },
    );
    for state in record.after.iter().flatten() {
        state_text(&mut text, state);
    }
    if record.after.is_none() {
        text.fact("now", "unknown: the database could not be looked at");
    }
    text.block(&checks_text(&record.checks));
    for warning in &record.warnings {
        text.line(&format!("warning: {}", harmless(&warning.message)));
        if let Some(statement) = &warning.statement {
            text.line(&format!("  {}", harmless(statement)));
        }
    }
    match &record.snapshot {
        SnapshotDecision::Taken { id, .. } => {
            text.fact("way back", &format!("pgkeep rollback {id}"));
        }
        SnapshotDecision::NothingToLose { .. } => {
            text.fact("way back", "none is needed: there was nothing to lose");
        }
        SnapshotDecision::NothingPending => {
            text.fact("way back", "no snapshot was taken: nothing was pending");
        }
        SnapshotDecision::None => {}
    }
    text.into_text()
}

/// `--report FILE.md`.
pub(super) fn report_markdown(document: &Json, report: &Report) -> String {
    let text = |key: &str| document[key].as_str().unwrap_or("-").to_owned();
    let record = &report.record;
    let mut page = format!("# Migration {}\n\n", text("run"));
    let mut row = |name: &str, value: &str| {
        let value = harmless(value).replace('|', "\\|");
        writeln!(page, "- **{name}:** {value}").expect("a string takes it");
    };
    row("cluster, database", &format!("{}, {}", text("cluster"), text("database")));
    row("command", &format!("`{}`", record.command.join(" ")));
    row("git commit", record.git_commit.as_deref().unwrap_or("unknown"));
    row("outcome", &format!("{}, exit {}", text("outcome"), report.exit_code()));
    if let Some(failure) = &report.failure {
        row("error", &failure.message);
    }
    row("way back", &text("rollback"));
    let mut states = Lines::default();
    for (when, all) in [("Before", Some(&record.before)), ("After", record.after.as_ref())] {
        states.line(&format!("\n## {when}\n\n```"));
        match all {
            Some(all) => all.iter().for_each(|state| state_text(&mut states, state)),
            None => states.line("unknown"),
        }
        states.line("```");
    }
    if let Some(rehearsal) = &record.rehearsal {
        states.line("\n## Rehearsal\n\n```");
        states.block(&rehearsal_text(rehearsal));
        states.line("```");
    }
    if !record.checks.is_empty() || !record.warnings.is_empty() {
        states.line("\n## Checks\n\n```");
        states.block(&checks_text(&record.checks));
        for warning in &record.warnings {
            states.line(&format!("warning: {}", harmless(&warning.message)));
            states.line(&format!("  {}", warning.statement.as_deref().unwrap_or("")));
        }
        states.line("```");
    }
    page + &states.into_text()
}
