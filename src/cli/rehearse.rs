//! `rehearse`: what a rehearsal works with, and how its report is shown.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tracing::Instrument as _;

use super::args::{self, Rehearse};
use super::backup::checks_text;
use super::context::Context;
use super::migrate::database_meant;
use super::output::write_stdout;
use super::progress::Progress;
use super::run::Ended;
use super::text::{Align, Lines, Table, count, duration, harmless, size};
use super::verbs::Opened;
use crate::domain::manifest::Trigger;
use crate::domain::migration::Rehearsal;
use crate::domain::migration::rehearsal::RowChange;
use crate::domain::told::{Failed, failed};
use crate::domain::verification::Depth;
use crate::guard::rehearse::{self, Choice, RehearseError, RehearseOptions, Rehearsing};
use crate::ops::run::{Ending, Run};
use crate::ops::snapshot::SnapshotOptions;
use crate::wiring::{self, Proving};

/// So many tables are shown to people; `--json` has them all.
const TABLES_MAX: usize = 20;

pub(super) async fn rehearse(context: &Context, args: Rehearse) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let settings = &opened.settings;
    let (name, cluster) = settings.cluster().map_err(failed)?;
    let connection = wiring::connection(settings, name, cluster).map_err(failed)?;
    let database = database_meant(settings, cluster, &connection)?;
    let run = opened.begin("rehearse", Some(name), Some(&database));
    let snapshot = SnapshotOptions {
        cluster: name.clone(),
        connection,
        trigger: Trigger::Manual,
        labels: [("taken_for".to_owned(), "rehearsal".to_owned())].into(),
        pinned: false,
        exclude_table_data: cluster.exclude_table_data.clone(),
        hooks: wiring::hooks(cluster),
        bin_dir: wiring::bin_dir(settings, cluster),
        host: wiring::host_name(),
        idle: cluster.idle_timeout,
        run: Some(run.id().clone()),
    };
    let proving = Proving::of(settings, name, cluster).map_err(failed)?;
    let repository = &opened.repository;
    let verifying = proving.verifying(repository, Depth::Counts, &progress, &context.cancel);
    let directory = std::env::current_dir()
        .map_err(|error| Failed::unexpected("the working directory is gone", &error))?;
    let rehearsing = Rehearsing {
        repository,
        snapshot: &snapshot,
        database: &database,
        verifying: &verifying,
        assertions: &wiring::assertions(cluster),
        directory: &directory,
        begins: &|| progress.clear(),
        observer: &progress,
        cancel: &context.cancel,
    };
    let choice = match (args.fresh, args.from) {
        (true, _) => Choice::Fresh,
        (false, Some(id)) => Choice::Named(id),
        (false, None) => Choice::Latest,
    };
    let options = options(&args.command, &args.rehearsal, args.wait);
    let rehearsed = Box::pin(rehearsed(context, &rehearsing, &options, &choice));
    let rehearsed = rehearsed.instrument(run.span().clone()).await.map_err(failed);
    let id = run.id().to_string();
    end(run, &opened, &rehearsed, &progress).await;
    let rehearsal = rehearsed?;
    progress.clear();
    let against = RehearseError::of(&rehearsal).map(failed);
    if context.output.json {
        let mut document = json!(rehearsal);
        document["run"] = id.into();
        document["cluster"] = json!(name);
        document["database"] = database.as_str().into();
        let code = against.as_ref().map_or(0, |against| against.kind.exit_code());
        document["exit_code"] = code.into();
        if let Some(against) = &against {
            document["error"] = against.json()["error"].take();
        }
        write_stdout(&format!("{document}\n"))?;
    } else {
        context.output.result(|| rehearsal_text(&rehearsal), || Json::Null)?;
        if let Some(against) = &against {
            context.output.complaint(against);
        }
    }
    against.map_or(Ok(()), |against| Err(Ended::Passed(against.kind.exit_code())))
}

/// What is asked of the guard.
pub(super) fn options(
    command: &[String],
    args: &args::Rehearsal,
    wait: Duration,
) -> RehearseOptions {
    RehearseOptions {
        command: command.to_vec(),
        fail_on: args.fail_on.clone().unwrap_or_default(),
        variables: args.variables.clone(),
        forwarded: args.forwarded,
        elsewhere: false,
        wait,
    }
}

async fn rehearsed(
    context: &Context,
    rehearsing: &Rehearsing<'_>,
    options: &RehearseOptions,
    choice: &Choice,
) -> Result<Rehearsal, RehearseError> {
    let understood = rehearse::understand(rehearsing, options)?;
    let entry = if *choice == Choice::Fresh {
        // It cleans up by itself.
        rehearse::choose(rehearsing, choice).await?
    } else {
        tokio::select! {
            entry = rehearse::choose(rehearsing, choice) => entry?,
            () = context.cancel.cancelled() => return Err(RehearseError::Interrupted),
        }
    };
    rehearse::run(rehearsing, options, &understood, &entry).await
}

async fn end(
    run: Run,
    opened: &Opened,
    rehearsed: &Result<Rehearsal, Failed>,
    progress: &Progress,
) {
    let ending = match rehearsed {
        Err(failed) => Ending::failed(failed),
        Ok(rehearsal) => {
            let against = RehearseError::of(rehearsal).map(failed);
            let ending = against.as_ref().map_or_else(Ending::succeeded, Ending::failed);
            let ending = ending.about(&rehearsal.snapshot).saying(rehearsal.summary());
            ending.rehearsing(rehearsal.clone())
        }
    };
    run.end(&opened.repository, ending, progress).await;
}

/// A rehearsal for people.
pub(super) fn rehearsal_text(rehearsal: &Rehearsal) -> String {
    let mut text = Lines::default();
    text.fact("command", &rehearsal.command.join(" "));
    let (id, took) = (&rehearsal.snapshot, duration(rehearsal.restore_ms));
    text.fact("on a copy of", &format!("{id}, restored in {took}"));
    let end = &rehearsal.ended;
    let took = duration(end.duration_ms);
    text.fact(
        "ended",
        &match end.signal {
            Some(signal) => format!("by signal {signal} after {took}"),
            None => format!("with exit {} after {took}", end.exit_code),
        },
    );
    locks_text(&mut text, rehearsal);
    rewrites_text(&mut text, rehearsal);
    rows_text(&mut text, rehearsal);
    for loss in &rehearsal.losses {
        text.fact("lost", &loss.to_string());
    }
    text.block(&checks_text(&rehearsal.checks));
    for warning in &rehearsal.warnings {
        text.line(&format!("warning: {}", harmless(&warning.message)));
        if let Some(statement) = &warning.statement {
            text.line(&format!("  {}", harmless(statement)));
        }
    }
    for line in &rehearsal.differs {
        text.fact("differs", line);
    }
    text.fact("verdict", rehearsal.verdict.as_str());
    for reason in &rehearsal.reasons {
        text.line(&format!("  {}", harmless(reason)));
    }
    text.into_text()
}

fn locks_text(text: &mut Lines, rehearsal: &Rehearsal) {
    let pause = duration(rehearsal.resolution_ms);
    let pause = format!("the longest pause between two looks was {pause}");
    if rehearsal.locks.is_empty() {
        text.fact("locks", &format!("none was seen; {pause}"));
        return;
    }
    text.fact("locks", &format!("seen for at least so long; {pause}"));
    let columns = [("  TABLE", Align::Left), ("LOCK", Align::Left), ("HELD", Align::Right)];
    let mut table = Table::new(&columns);
    for lock in rehearsal.locks.iter().take(TABLES_MAX) {
        let held = duration(lock.held_ms);
        table.row(vec![format!("  {}", lock.table), lock.mode.clone(), held]);
    }
    text.block(&table.render());
    more(text, rehearsal.locks.len());
}

fn rewrites_text(text: &mut Lines, rehearsal: &Rehearsal) {
    if rehearsal.rewrites.is_empty() {
        text.fact("rewritten", "nothing");
        return;
    }
    text.line("rewritten");
    let columns = [("  RELATION", Align::Left), ("BEFORE", Align::Right), ("AFTER", Align::Right)];
    let mut table = Table::new(&columns);
    for one in rehearsal.rewrites.iter().take(TABLES_MAX) {
        let (before, after) = (size(one.size_before_bytes), size(one.size_after_bytes));
        table.row(vec![format!("  {}", one.relation), before, after]);
    }
    text.block(&table.render());
    more(text, rehearsal.rewrites.len());
}

/// Those that changed.
fn rows_text(text: &mut Lines, rehearsal: &Rehearsal) {
    let changed: Vec<&RowChange> =
        rehearsal.rows.iter().filter(|change| change.before != change.after).collect();
    let same = rehearsal.rows.len() - changed.len();
    if changed.is_empty() {
        text.fact("rows", &format!("as many as before in {same} tables"));
        return;
    }
    text.line("rows");
    let columns = [("  TABLE", Align::Left), ("BEFORE", Align::Right), ("AFTER", Align::Right)];
    let mut table = Table::new(&columns);
    let number = |rows: Option<u64>| rows.map_or_else(|| "none".to_owned(), count);
    for change in changed.iter().take(TABLES_MAX) {
        let (before, after) = (number(change.before), number(change.after));
        table.row(vec![format!("  {}", change.table), before, after]);
    }
    text.block(&table.render());
    more(text, changed.len());
    if same > 0 {
        text.line(&format!("  as many as before in {same} others"));
    }
}

fn more(text: &mut Lines, all: usize) {
    if all > TABLES_MAX {
        text.line(&format!("  … and {} more; `--json` has them all", all - TABLES_MAX));
    }
}
