//! `show`: one backup with all that is known of it, or one run with its report.

use super::args::Show;
use super::backup::{Shown, show_json, show_text};
use super::context::Context;
use super::log;
use super::migrate_text::record_text;
use super::rehearse::rehearsal_text;
use super::run::Ended;
use super::text::{Lines, duration, harmless, time};
use super::verbs::{Opened, listed};
use crate::domain::audit::Recorded;
use crate::domain::told::failed;
use crate::ops::inspect::{self, Named};

pub(super) async fn show(context: &Context, args: &Show) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let found = inspect::show_any(&opened.repository, &opened.filter, &args.id).await;
    let found = match found.map_err(failed)? {
        Named::Run(run) => {
            progress.clear();
            return Ok(context.output.result(|| run_text(&run), || log::document(&run))?);
        }
        Named::Backup(found) => found,
    };
    progress.clear();
    let shown = Shown {
        listed: listed(&found.entry),
        inventory: found.inventory.as_ref(),
        verifications: &found.verifications,
        recovery: &found.recovery,
    };
    Ok(context.output.result(|| show_text(&shown), || show_json(&shown))?)
}

/// A run for people.
fn run_text(recorded: &Recorded) -> String {
    let event = &recorded.event;
    let mut text = Lines::default();
    text.fact("run", event.run().as_str());
    text.fact("verb", &event.event);
    let cluster = format!("cluster {}", recorded.cluster);
    text.fact(
        "about",
        &match &event.database {
            Some(database) => format!("database {} of {cluster}", harmless(database)),
            None => cluster,
        },
    );
    text.fact("by", &format!("{}, pgkeep {}", log::by(event), event.pgkeep));
    let record = event.migration.as_deref();
    if event.is_begin() {
        text.fact("begun", &format!("{}, and no end is recorded", time(event.at)));
    } else {
        let took = duration(event.duration_ms);
        text.fact("ended", &format!("{} after {took}, exit {}", time(event.at), event.exit_code));
    }
    if let Some(backup) = &event.backup {
        text.fact("backup", backup.as_str());
    }
    if let Some(message) = &event.message {
        text.fact("told", message);
    }
    for removed in &event.backups {
        let database = removed.database.as_deref().unwrap_or("an unknown database");
        text.line(&format!(
            "  removed {} of {}: {}",
            removed.id,
            harmless(database),
            removed.reason
        ));
    }
    if let Some(record) = record {
        text.block(&record_text(record));
    }
    if let Some(rehearsal) = &event.rehearsal {
        text.block(&rehearsal_text(rehearsal));
    }
    text.into_text()
}
