//! `prune`: every backup with its verdict and reasons, then what was done.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use tracing::Instrument as _;

use super::args::Prune;
use super::context::Context;
use super::run::Ended;
use super::text::{Align, Lines, Table, count, harmless, size, time};
use super::verbs::Opened;
use crate::domain::audit::Origin;
use crate::domain::failure::FailureKind;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::retention::{RetentionPolicy, State, Verdict};
use crate::domain::told::{Failed, failed};
use crate::ops::prune::{self, PruneOptions, PruneReport};
use crate::ops::run::Ending;
use crate::repo::prune::intents::End;
use crate::repo::prune::survey::Planned;
use crate::wiring;

type Policies = BTreeMap<ClusterName, RetentionPolicy>;

pub(super) async fn prune(context: &Context, args: &Prune) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let settings = &opened.settings;
    let mut policies: Policies = settings
        .clusters
        .iter()
        .map(|(name, cluster)| (name.clone(), cluster.retention.clone()))
        .collect();
    if settings.selected.is_some() {
        // A name that is not configured is refused, since there is no policy for it.
        let (name, cluster) = settings.cluster().map_err(failed)?;
        policies = [(name.clone(), cluster.retention.clone())].into();
    }
    let repository = &opened.repository;
    let note = settings.environment.state_home();
    let mut run = opened.begin("prune", None, settings.database.as_deref());
    for cluster in policies.keys() {
        run.concerns(cluster);
    }
    let options = PruneOptions {
        policies: policies.clone(),
        database: settings.database.clone(),
        grace: settings.repository.grace,
        clock: wiring::boot_clock(),
        note: &note.join(format!("prune-{}.json", repository.document.id)),
        dry_run: args.dry_run,
        by: wiring::actor(Origin::Command),
        run: Some(run.id().clone()),
    };
    let narrowed = settings.selected.is_some() || settings.database.is_some();
    let pruned = prune::run(repository, options, &progress).instrument(run.span().clone()).await;
    let pruned = pruned.map_err(failed);
    if !args.dry_run {
        run.end(repository, ending(&pruned), &progress).await;
    }
    let mut report = pruned?;
    if narrowed {
        report.backups.retain(|planned| planned.in_scope);
    }
    progress.clear();
    let quiet = context.output.quiet && !args.dry_run;
    let text = || if quiet { String::new() } else { text(&report, &policies) };
    context.output.result(text, || document(&report, &policies))?;
    if report.withdrawn {
        return Err(Ended::Told(FailureKind::Busy));
    }
    Ok(())
}

fn ending(pruned: &Result<PruneReport, Failed>) -> Ending {
    match pruned {
        Ok(report) => {
            let busy = report.withdrawn.then_some(FailureKind::Busy);
            Ending::of_kind(busy).saying(summary(report))
        }
        Err(failed) => Ending::failed(failed),
    }
}

fn verdict(planned: &Planned) -> (&'static str, Vec<String>) {
    let (word, mut reasons) = match &planned.verdict {
        Verdict::Kept(reasons) => ("kept", reasons.iter().map(ToString::to_string).collect()),
        Verdict::Removed(cause) => ("removed", vec![cause.to_string()]),
    };
    reasons.extend(planned.listed.as_ref().map(|list| format!("condemned by {list}")));
    (word, reasons)
}

fn document(report: &PruneReport, policies: &Policies) -> Json {
    let backup = |planned: &Planned| {
        let (verdict, reasons) = verdict(planned);
        let backup = &planned.backup;
        let readable = !backup.database.is_empty();
        json!({
            "id": backup.id,
            "cluster": backup.cluster,
            "database": readable.then_some(&backup.database),
            "trigger": readable.then_some(backup.trigger),
            "started_at": readable.then_some(backup.started_at),
            "stored_bytes": planned.stored_bytes,
            "verdict": verdict,
            "reasons": reasons,
        })
    };
    let settled = report.settled.iter().map(|one| {
        let end = match one.end {
            End::Done => "done",
            End::Dead => "dead",
            End::Undecided => "undecided",
        };
        json!({"id": one.id, "of": one.place, "host": one.host, "end": end})
    });
    let waiting = report.swept.waiting.iter().map(|one| {
        json!({"list": one.list, "backups": one.backups, "chunks": one.chunks, "waits_for": one.writers})
    });
    let (backups, chunks, bytes) = report.condemned;
    let policies: BTreeMap<_, _> =
        policies.iter().map(|(name, policy)| (name.to_string(), policy.to_string())).collect();
    json!({
        "dry_run": report.dry_run,
        "policies": policies,
        "backups": report.backups.iter().map(backup).collect::<Json>(),
        "backups_condemned": backups,
        "chunks_condemned": chunks,
        "condemned_bytes": bytes,
        "backups_removed": report.swept.backups.len(),
        "chunks_removed": report.swept.chunks,
        "freed_bytes": report.swept.bytes,
        "settled": settled.collect::<Json>(),
        "writers": report.writers,
        "waiting": waiting.collect::<Json>(),
        "withdrawn": report.withdrawn,
    })
}

fn text(report: &PruneReport, policies: &Policies) -> String {
    let mut text = Lines::default();
    for (name, policy) in policies {
        text.line(&harmless(&format!("policy of {name}: {policy}")));
    }
    if !report.backups.is_empty() {
        let mut table = Table::new(&[
            ("ID", Align::Left),
            ("CLUSTER", Align::Left),
            ("DATABASE", Align::Left),
            ("STARTED", Align::Left),
            ("VERDICT", Align::Left),
            ("WHY", Align::Left),
        ]);
        for planned in &report.backups {
            let (verdict, reasons) = verdict(planned);
            let backup = &planned.backup;
            let readable = !backup.database.is_empty() || backup.state != State::Dead;
            table.row(vec![
                backup.id.to_string(),
                backup.cluster.to_string(),
                if readable { backup.database.clone() } else { "?".to_owned() },
                if readable { time(backup.started_at) } else { "?".to_owned() },
                verdict.to_owned(),
                reasons.join("; "),
            ]);
        }
        text.block(&table.render());
    }
    for one in &report.settled {
        let end = match one.end {
            End::Done => "was whole, and counts",
            End::Dead => "came to nothing",
            End::Undecided => "is neither finished nor dead",
        };
        text.line(&harmless(&format!("run {} of {} on {} {end}", one.id, one.place, one.host)));
    }
    for one in &report.swept.waiting {
        let (list, backups, chunks) = (&one.list, one.backups, count(one.chunks as u64));
        let writers: Vec<&str> = one.writers.iter().map(BackupId::as_str).collect();
        let why = match (&writers[..], report.dry_run) {
            ([], true) => "lies there".to_owned(),
            ([], false) => "stays: something on it is still needed".to_owned(),
            _ => format!("waits for {}", writers.join(", ")),
        };
        text.line(&format!("list {list} ({backups} backups, {chunks} chunks) {why}"));
    }
    text.line(&summary(report));
    text.into_text()
}

fn summary(report: &PruneReport) -> String {
    let (backups, chunks, bytes) = report.condemned;
    let (gone, removed) = (report.swept.backups.len(), report.swept.chunks);
    if report.dry_run {
        return format!(
            "would remove {backups} of {} backups and {} of {} chunks, {}; nothing was changed",
            report.backups.len(),
            count(chunks as u64),
            count(report.chunks_total as u64),
            size(bytes)
        );
    }
    if report.withdrawn {
        return "another prune condemned the rest of a database at the same time: nothing of this one's goes; run it again"
            .to_owned();
    }
    format!(
        "removed {gone} backups and {} chunks, {} freed",
        count(removed),
        size(report.swept.bytes)
    )
}
