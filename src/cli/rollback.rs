//! `rollback`: what would be lost, the question, the deed, and the way back from it.

use serde_json::{Value as Json, json};
use tracing::Instrument as _;

use super::args::Rollback;
use super::backup::checks_text;
use super::context::Context;
use super::progress::Progress;
use super::recovery::{Target, ask, may_ask};
use super::reports::{plan_json, plan_text};
use super::run::Ended;
use super::text::{Align, Lines, Table, count, duration, harmless, time};
use super::verbs::Opened;
use crate::domain::manifest::Trigger;
use crate::domain::told::{Failed, failed};
use crate::guard::rollback::{
    self, Chosen, Loss, Lost, OnlyHere, RollbackError, RollbackPlan, TableChange,
};
use crate::ops::restore::{Consent, RestoreError, RestoreReport, Restoring};
use crate::ops::run::Ending;
use crate::postgres::quote_ident;

/// So many tables are shown to people; `--json` has them all.
const TABLES_MAX: usize = 20;

pub(super) async fn rollback(context: &Context, args: Rollback) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let (repository, filter) = (&opened.repository, &opened.filter);
    let chosen = rollback::choose(repository, filter, args.id.as_deref(), &progress).await;
    let chosen = chosen.map_err(failed)?;
    let manifest = &chosen.entry.manifest;
    let target = Target::of(&opened, &chosen.entry, None)?;
    let restoring = target.restoring(context, &progress, &opened);
    let consent = Consent { yes: args.yes, force: args.force, allow_partial: args.allow_partial };
    let work = Work { context, progress: &progress, restoring: &restoring, chosen: &chosen };
    if args.dry_run {
        let plan = work.plan(consent).await?;
        progress.clear();
        let text = || format!("{}{}", loss_text(&chosen, &plan.loss), plan_text(&plan.restore));
        return Ok(context.output.result(text, || dry_run_json(&chosen, &plan))?);
    }
    let run = opened.begin("rollback", Some(&manifest.cluster), Some(&manifest.database));
    let done = Box::pin(work.roll_back(consent)).instrument(run.span().clone()).await;
    let ending = Ending::of(&done).about(&manifest.id);
    let ending = match &done {
        Ok((plan, report)) => ending.saying(told(plan, report)),
        Err(_) => ending,
    };
    run.end(repository, ending, &progress).await;
    let (plan, report) = done?;
    progress.clear();
    let text = || report_text(&chosen, &report);
    Ok(context.output.result(text, || report_json(&chosen, &plan, &report))?)
}

/// What all steps work with.
struct Work<'a> {
    context: &'a Context,
    progress: &'a Progress,
    restoring: &'a Restoring<'a>,
    chosen: &'a Chosen,
}

impl Work<'_> {
    async fn plan(&self, consent: Consent) -> Result<RollbackPlan, Failed> {
        tokio::select! {
            plan = rollback::plan(self.restoring, self.chosen, consent) => plan.map_err(failed),
            () = self.context.cancel.cancelled() => Err(Failed::interrupted()),
        }
    }

    /// Shows what goes, asks where somebody can be asked, and does it.
    async fn roll_back(
        &self,
        mut consent: Consent,
    ) -> Result<(RollbackPlan, RestoreReport), Failed> {
        let Self { context, progress, .. } = *self;
        let plan = self.plan(consent).await?;
        let shown = loss_text(self.chosen, &plan.loss);
        if consent.yes {
            progress.aside(|| context.output.remark(&shown))?;
        } else if plan.swaps() && may_ask(context) {
            progress.clear();
            consent.yes = ask(&format!("{shown}{}", plan_text(&plan.restore)))?;
        }
        if plan.swaps() && !consent.yes {
            let database = plan.restore.database.clone();
            return Err(failed(RollbackError::from(RestoreError::NeedsYes { database })));
        }
        let (restoring, chosen) = (self.restoring, self.chosen);
        let held = rollback::keep_others_out(restoring, chosen).await.map_err(failed)?;
        let report = rollback::run(restoring, chosen, consent, &held).await.map_err(failed)?;
        Ok((plan, report))
    }
}

/// The event's words.
fn told(plan: &RollbackPlan, report: &RestoreReport) -> String {
    let kept = report.kept_as.as_ref().map(|kept| format!("kept as {kept}; "));
    format!("{}lost: {}", kept.unwrap_or_default(), plan.loss.line())
}

/// What is gone back to, and what goes.
fn loss_text(chosen: &Chosen, loss: &Loss) -> String {
    let manifest = &chosen.entry.manifest;
    let mut text = Lines::default();
    let why = match manifest.trigger {
        Trigger::PreMigration => "before a migration".to_owned(),
        other => format!("{other}, not before a migration"),
    };
    text.line(&format!(
        "back to {} of {}, taken {} ({why})",
        manifest.id,
        harmless(&manifest.database),
        time(manifest.started_at)
    ));
    match loss {
        Loss::Nothing => text.line(&format!(
            "nothing is lost: there is no database {}",
            harmless(&manifest.database)
        )),
        Loss::Unknown(why) => text.line(&format!("what is lost is not known: {}", harmless(why))),
        Loss::Known(lost) => lost_text(&mut text, lost),
    }
    let guarded: Vec<&str> = chosen.guarded().map(|later| later.id.as_str()).collect();
    if !guarded.is_empty() {
        let ids = guarded.join(", ");
        text.line(&format!("later guarded migrations are undone too; their snapshots: {ids}"));
    }
    if let Some(newest) = chosen.later.first() {
        let (number, id) = (chosen.later.len(), &newest.id);
        text.line(&format!(
            "{number} later {} of what goes, the newest {id}: `latest` until the next snapshot",
            if number == 1 { "backup is" } else { "backups are" }
        ));
    }
    text.into_text()
}

fn lost_text(text: &mut Lines, lost: &Lost) {
    if lost.tables.is_empty() {
        text.line("no table has more or fewer rows than the snapshot");
    } else {
        text.line("rows of tables that are in both, where they differ or may:");
        text.block(&tables_text(lost));
        let left = lost.tables.len().saturating_sub(TABLES_MAX);
        if left > 0 {
            text.line(&format!("… and {left} tables more; `--json` has them all"));
        }
        if lost.tables_alike > 0 {
            let number = lost.tables_alike;
            text.line(&format!("in {number} other tables as many as in the snapshot"));
        }
    }
    let only = |tables: &[OnlyHere]| {
        let tables = tables.iter().map(|one| match one.rows {
            Some(rows) if one.exact => format!("{} ({} rows)", one.table, count(rows)),
            Some(rows) => format!("{} (about {} rows)", one.table, count(rows)),
            None => one.table.clone(),
        });
        tables.collect::<Vec<_>>().join(", ")
    };
    for (what, names) in [
        ("tables lost: ", only(&lost.tables_only_live)),
        ("columns lost: ", lost.columns_only_live.join(", ")),
        ("tables that come back: ", only(&lost.tables_back)),
        ("columns that come back: ", lost.columns_back.join(", ")),
    ] {
        if !names.is_empty() {
            text.line(&format!("{what}{}", harmless(&names)));
        }
    }
    text.line(&counters_text(lost));
    text.line("what clients write from now on is lost too; all of it stays in the kept database");
}

fn tables_text(lost: &Lost) -> String {
    let mut table = Table::new(&[
        ("  TABLE", Align::Left),
        ("SNAPSHOT", Align::Right),
        ("NOW", Align::Right),
        ("MORE", Align::Right),
        ("COUNTED", Align::Left),
        ("UPDATED OR DELETED", Align::Right),
    ]);
    for change in lost.tables.iter().take(TABLES_MAX) {
        table.row(vec![
            format!("  {}", change.table),
            change.rows_then.map_or_else(|| "left out".to_owned(), count),
            change.rows_now.map_or_else(|| "?".to_owned(), count),
            more(change),
            if change.exact { "exactly" } else { "by statistics" }.to_owned(),
            changed(change, lost),
        ]);
    }
    table.render()
}

fn more(change: &TableChange) -> String {
    let Some(more) = change.more() else { return "?".to_owned() };
    let sign = match more {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", count(more.unsigned_abs()))
}

fn changed(change: &TableChange, lost: &Lost) -> String {
    match (change.changed, lost.counters_cover) {
        (None, _) => "?".to_owned(),
        (Some(0), Some(true)) => "0".to_owned(),
        (Some(rows), _) => lost.bounded(&count(rows)),
    }
}

/// How far the counters can be believed.
fn counters_text(lost: &Lost) -> String {
    let counts = "counts see no updates; the server's counters of updates and deletions began";
    match (lost.counters_cover, lost.counters_since) {
        (Some(true), _) => {
            format!("{counts} before the snapshot, so there were no more since")
        }
        (Some(false), Some(since)) => format!("{counts} at {}, after the snapshot", time(since)),
        _ => format!("{counts} at a time that this role may not know"),
    }
}

/// `rollback` for people.
fn report_text(chosen: &Chosen, report: &RestoreReport) -> String {
    let mut text = Lines::default();
    let (name, took) = (harmless(&report.database), duration(report.duration_ms));
    text.line(&format!("{}  rolled back {name} in {took}", report.id));
    text.block(&checks_text(&report.checks));
    for line in &report.left_out {
        text.line(&format!("left out: {}", harmless(line)));
    }
    for line in chosen.bookkeeping() {
        text.line(&harmless(&line));
    }
    if let Some(way) = Way::back(report) {
        text.line(&format!(
            "the migrated database is kept as {}, and what was written since is only in there",
            harmless(way.kept)
        ));
        text.line(
            "to go back to it, connected to another database and with the application stopped:",
        );
        text.line(&format!("  {}", harmless(&way.back)));
        text.line("once nobody needs it:");
        text.line(&format!("  {}", harmless(&way.drop)));
    }
    text.into_text()
}

/// SQL for whoever wants the migrated database back, or its room.
struct Way<'a> {
    kept: &'a str,
    back: String,
    drop: String,
}

impl<'a> Way<'a> {
    fn back(report: &'a RestoreReport) -> Option<Self> {
        let kept = report.kept_as.as_deref()?;
        let aside = quote_ident(&format!("{}_rolled_back", report.database));
        let (name, kept_name) = (quote_ident(&report.database), quote_ident(kept));
        Some(Self {
            kept,
            back: format!(
                "BEGIN; ALTER DATABASE {name} RENAME TO {aside}; ALTER DATABASE {kept_name} RENAME TO {name}; COMMIT;"
            ),
            drop: format!("DROP DATABASE {kept_name};"),
        })
    }
}

/// `rollback --json`.
fn report_json(chosen: &Chosen, plan: &RollbackPlan, report: &RestoreReport) -> Json {
    let way = Way::back(report);
    json!({
        "id": report.id,
        "database": report.database,
        "kept_as": report.kept_as,
        "checks": report.checks,
        "duration_ms": report.duration_ms,
        "lost": lost_json(chosen, &plan.loss),
        "sessions_ended": report.sessions_ended,
        "left_out": report.left_out,
        "bookkeeping": chosen.bookkeeping(),
        "to_go_back": way.as_ref().map(|way| &way.back),
        "to_drop": way.as_ref().map(|way| &way.drop),
    })
}

/// `rollback --dry-run --json`: the keys of `restore`'s, and what would be lost.
fn dry_run_json(chosen: &Chosen, plan: &RollbackPlan) -> Json {
    let mut document = plan_json(&plan.restore);
    document["lost"] = lost_json(chosen, &plan.loss);
    document
}

/// The same keys whatever is known: what is not is null.
fn lost_json(chosen: &Chosen, loss: &Loss) -> Json {
    let (known, unknown) = match loss {
        Loss::Known(lost) => (Some(lost), None),
        Loss::Unknown(why) => (None, Some(why)),
        Loss::Nothing => (None, None),
    };
    let only = |tables: &[OnlyHere]| -> Json {
        let table =
            |one: &OnlyHere| json!({"table": one.table, "rows": one.rows, "exact": one.exact});
        tables.iter().map(table).collect()
    };
    let tables = |lost: &Lost| -> Json {
        let table = |change: &TableChange| {
            json!({
                "table": change.table,
                "rows_in_snapshot": change.rows_then,
                "rows_now": change.rows_now,
                "rows_more": change.more(),
                "exact": change.exact,
                "updated_or_deleted": change.changed,
            })
        };
        lost.tables.iter().map(table).collect()
    };
    let later: Vec<&str> = chosen.later.iter().map(|one| one.id.as_str()).collect();
    let guarded: Vec<&str> = chosen.guarded().map(|one| one.id.as_str()).collect();
    json!({
        "unknown": unknown,
        "counted_at": known.map(|lost| lost.counted_at),
        "rows_more": known.map(Lost::rows_more),
        "tables": known.map(tables),
        "tables_alike": known.map(|lost| lost.tables_alike),
        "counters_since": known.and_then(|lost| lost.counters_since),
        "counters_cover": known.map(|lost| lost.counters_cover),
        "tables_only_live": known.map(|lost| only(&lost.tables_only_live)),
        "columns_only_live": known.map(|lost| &lost.columns_only_live),
        "tables_back": known.map(|lost| only(&lost.tables_back)),
        "columns_back": known.map(|lost| &lost.columns_back),
        "later_backups": later,
        "later_guarded": guarded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::backup::tests::manifest;
    use crate::domain::chunk::Hash;
    use crate::guard::rollback::Later;
    use crate::repo::catalog::Entry;

    fn chosen(later: &[(&str, Trigger)]) -> Chosen {
        let mut manifest = manifest();
        manifest.trigger = Trigger::PreMigration;
        let entry = Entry {
            manifest,
            manifest_hash: Hash::from_hex(&"00".repeat(32)).expect("a hash"),
            pinned: false,
            verification: None,
            suspect: None,
            foreign: false,
        };
        let later = later
            .iter()
            .map(|(id, trigger)| Later { id: id.parse().expect("an id"), trigger: *trigger });
        Chosen { entry, later: later.collect() }
    }

    fn change(table: &str, now: Option<u64>, exact: bool, changed: Option<u64>) -> TableChange {
        let rows_then = Some(5000);
        TableChange { table: table.to_owned(), rows_then, rows_now: now, exact, changed }
    }

    fn lost() -> Lost {
        let only = |table: &str, rows, exact| OnlyHere { table: table.to_owned(), rows, exact };
        Lost {
            counted_at: "2026-11-21T05:00:00Z".parse().expect("a time"),
            tables: vec![
                change("public.log", None, false, None),
                change("public.orders", Some(6012), true, Some(3)),
                change("public.big", Some(4000), false, Some(0)),
                TableChange { rows_then: None, ..change("public.audit", Some(7), true, Some(0)) },
            ],
            tables_alike: 27,
            counters_since: None,
            counters_cover: Some(true),
            tables_only_live: vec![
                only("public.refunds", Some(1200), true),
                only("public.events", Some(90_000), false),
                only("public.parts", None, false),
            ],
            columns_only_live: vec!["public.orders.\"Status\"".to_owned()],
            tables_back: Vec::new(),
            columns_back: vec!["public.orders.note\u{1b}".to_owned()],
        }
    }

    #[test]
    fn what_is_lost_is_told_with_how_well_it_is_known() {
        let chosen = chosen(&[
            ("20261121T040000Z-00000002", Trigger::Scheduled),
            ("20261121T030000Z-00000001", Trigger::PreMigration),
        ]);
        insta::assert_snapshot!(loss_text(&chosen, &Loss::Known(lost())), @r#"
        back to 20261121T020000Z-5f3a9c21 of shop, taken 2026-11-21 02:00:00Z (before a migration)
        rows of tables that are in both, where they differ or may:
          TABLE          SNAPSHOT    NOW    MORE  COUNTED        UPDATED OR DELETED
          public.log        5,000      ?       ?  by statistics                   ?
          public.orders     5,000  6,012  +1,012  exactly                 at most 3
          public.big        5,000  4,000  -1,000  by statistics                   0
          public.audit   left out      7      +7  exactly                         0
        in 27 other tables as many as in the snapshot
        tables lost: public.refunds (1,200 rows), public.events (about 90,000 rows), public.parts
        columns lost: public.orders."Status"
        columns that come back: public.orders.note\u{1b}
        counts see no updates; the server's counters of updates and deletions began before the snapshot, so there were no more since
        what clients write from now on is lost too; all of it stays in the kept database
        later guarded migrations are undone too; their snapshots: 20261121T030000Z-00000001
        2 later backups are of what goes, the newest 20261121T040000Z-00000002: `latest` until the next snapshot
        "#);
    }

    #[test]
    fn counters_that_began_after_the_snapshot_are_a_lower_bound() {
        let since = "2026-11-21T03:30:00Z".parse().expect("a time");
        let later = Lost { counters_since: Some(since), counters_cover: Some(false), ..lost() };
        let text = loss_text(&chosen(&[]), &Loss::Known(later));
        for words in
            ["at least 3", "at least 0", "began at 2026-11-21 03:30:00Z, after the snapshot"]
        {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn counters_of_which_nobody_knows_when_they_began_bound_nothing() {
        let text = loss_text(&chosen(&[]), &Loss::Known(Lost { counters_cover: None, ..lost() }));
        for words in ["perhaps 3", "at a time that this role may not know"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn what_is_not_known_is_told_as_that_and_many_tables_are_cut_short() {
        let mut chosen = chosen(&[]);
        let text = loss_text(&chosen, &Loss::Unknown("nobody is let in".to_owned()));
        assert!(text.ends_with("what is lost is not known: nobody is let in\n"), "{text}");
        let text = loss_text(&chosen, &Loss::Nothing);
        assert!(text.ends_with("nothing is lost: there is no database shop\n"), "{text}");
        let tables =
            (0..25).map(|n| change(&format!("public.t{n}"), Some(1), true, None)).collect();
        let text = loss_text(&chosen, &Loss::Known(Lost { tables, ..lost() }));
        assert!(text.contains("public.t19") && !text.contains("public.t20"), "{text}");
        assert!(text.contains("and 5 tables more"), "{text}");
        chosen.entry.manifest.trigger = Trigger::Manual;
        let text = loss_text(&chosen, &Loss::Nothing);
        assert!(text.contains("(manual, not before a migration)"), "{text}");
    }

    #[test]
    fn what_is_lost_has_the_same_keys_whatever_is_known() {
        let unknown = Loss::Unknown("nobody is let in".to_owned());
        let keys = |loss: &Loss| -> Vec<String> {
            let document = lost_json(&chosen(&[]), loss);
            document.as_object().expect("an object").keys().cloned().collect()
        };
        let known = keys(&Loss::Known(lost()));
        assert_eq!((&keys(&unknown), &keys(&Loss::Nothing)), (&known, &known));
        let document = lost_json(&chosen(&[]), &Loss::Known(lost()));
        assert_eq!((&document["rows_more"], &document["unknown"]), (&json!(92_219), &Json::Null));
        assert_eq!(document["tables"][1]["rows_more"], 1012);
        assert_eq!(lost_json(&chosen(&[]), &unknown)["unknown"], "nobody is let in");
    }

    #[test]
    fn a_rollback_tells_the_way_back_from_it() {
        let report = RestoreReport {
            id: "20261121T020000Z-5f3a9c21".parse().expect("an id"),
            source: "shop".to_owned(),
            database: "shop".to_owned(),
            kept_as: Some("shop_before_20261121T020000Z-5f3a9c21".to_owned()),
            sessions_ended: 2,
            checks: Vec::new(),
            roles_created: Vec::new(),
            left_out: Vec::new(),
            safety_snapshot: None,
            duration_ms: 900,
        };
        insta::assert_snapshot!(report_text(&chosen(&[]), &report), @r#"
        20261121T020000Z-5f3a9c21  rolled back shop in 900 ms
        the migration tool's own table was restored with the rest: a migration that ran since is pending again, one that failed since is gone from it
        fix or remove the migration before the next deploy, which else runs it again
        the migrated database is kept as shop_before_20261121T020000Z-5f3a9c21, and what was written since is only in there
        to go back to it, connected to another database and with the application stopped:
          BEGIN; ALTER DATABASE "shop" RENAME TO "shop_rolled_back"; ALTER DATABASE "shop_before_20261121T020000Z-5f3a9c21" RENAME TO "shop"; COMMIT;
        once nobody needs it:
          DROP DATABASE "shop_before_20261121T020000Z-5f3a9c21";
        "#);
        let gone = RestoreReport { kept_as: None, ..report };
        assert!(!report_text(&chosen(&[]), &gone).contains("kept as"));
    }
}
