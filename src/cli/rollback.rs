//! `rollback`: what would be lost, the question, the deed, and the way back from it.

mod way;

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
use crate::config::{Databases, Settings};
use crate::domain::manifest::Trigger;
use crate::domain::told::{Failed, failed};
use crate::guard::rollback::{
    self, Chosen, LargeObjects, Loss, Lost, OnlyHere, RollbackPlan, Scope, TableChange,
};
use crate::ops::restore::{Consent, RestoreError, RestoreReport, Restoring};
use crate::ops::run::Ending;
use crate::repo::catalog::Filter;
use crate::wiring;
use way::Way;

/// So many tables are shown to people; `--json` has them all.
const TABLES_MAX: usize = 20;

pub(super) async fn rollback(context: &Context, args: Rollback) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let repository = &opened.repository;
    let scope = scope(&opened.settings, &opened.filter)?;
    let chosen = rollback::choose(repository, &scope, args.id.as_deref(), &progress).await;
    let chosen = chosen.map_err(failed)?;
    let manifest = &chosen.entry.manifest;
    let target = Target::of(&opened, &chosen.entry, None)?;
    let restoring = target.restoring(context, &progress, &opened);
    let consent = Consent { yes: args.yes, force: args.force, allow_partial: args.allow_partial };
    let work = Work { context, progress: &progress, restoring: &restoring, chosen: &chosen };
    if args.dry_run {
        let plan = work.plan(consent).await?;
        progress.clear();
        let server = restoring.server.servers();
        let loss = || loss_text(&chosen, &plan, &server);
        let text = || format!("{}{}", loss(), plan_text(&plan.restore));
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
    let text = || report_text(&chosen, &plan, &report);
    Ok(context.output.result(text, || report_json(&chosen, &plan, &report))?)
}

/// Which snapshots are meant here. What goes without saying is what `snapshot` would take: of this host's cluster, and
/// of the one database that the configuration, or a URL in the environment, names.
fn scope(settings: &Settings, named: &Filter) -> Result<Scope, Failed> {
    let mut meant = named.clone();
    let mut clusters = settings.clusters.iter();
    let only = clusters.next().filter(|_| clusters.next().is_none());
    let own = named.cluster.as_ref().map_or(only, |name| settings.clusters.get_key_value(name));
    if let Some((name, cluster)) = own {
        meant.cluster = Some(name.clone());
        meant.database = match (meant.database.take(), &cluster.databases) {
            (None, Databases::OfConnection) if wiring::is_server_named(settings, cluster) => {
                let connection = wiring::connection(settings, name, cluster).map_err(failed)?;
                Some(connection.database().to_owned())
            }
            (None, Databases::Named(names)) if names.len() == 1 => names.first().cloned(),
            (named, _) => named,
        };
    }
    let configured = settings.clusters.keys().cloned().collect();
    Ok(Scope { named: named.clone(), meant, configured })
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
        let shown = loss_text(self.chosen, &plan, &self.restoring.server.servers());
        if consent.yes {
            progress.aside(|| context.output.remark(&shown))?;
        } else if plan.swaps() && may_ask(context) {
            progress.clear();
            consent.yes = ask(&format!("{shown}{}", plan_text(&plan.restore)))?;
        }
        if plan.swaps() && !consent.yes {
            let database = plan.restore.database.clone();
            return Err(failed(self.chosen.failed(RestoreError::NeedsYes { database })));
        }
        let (restoring, chosen) = (self.restoring, self.chosen);
        let held = rollback::keep_others_out(restoring, chosen).await.map_err(failed)?;
        let report = rollback::run(restoring, chosen, &plan, consent, &held).await;
        Ok((plan, report.map_err(failed)?))
    }
}

/// The event's words.
fn told(plan: &RollbackPlan, report: &RestoreReport) -> String {
    let kept = report.kept_as.as_ref().map(|kept| format!("kept as {kept}; "));
    format!("{}lost: {}", kept.unwrap_or_default(), plan.loss.line())
}

/// What is gone back to and where, and what goes.
fn loss_text(chosen: &Chosen, plan: &RollbackPlan, server: &str) -> String {
    let manifest = &chosen.entry.manifest;
    let mut text = Lines::default();
    let why = match manifest.trigger {
        Trigger::PreMigration => "before a migration".to_owned(),
        other => format!("{other}, not before a migration"),
    };
    let database = harmless(&manifest.database);
    text.line(&format!(
        "back to {} of {}/{database}, taken {} ({why})",
        manifest.id,
        manifest.cluster,
        time(manifest.started_at)
    ));
    text.line(&format!("on the server at {}", harmless(server)));
    if plan.unended {
        text.line(
            "the guarded run that took it has no recorded end: its command may be at work still",
        );
    }
    kept_before_text(&mut text, plan);
    match &plan.loss {
        Loss::Nothing => {
            text.line(&format!("nothing is lost: there is no database {database}"));
        }
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

/// A second time, after a run that was killed or for another reason: then nobody can tell which of the kept ones holds
/// what.
fn kept_before_text(text: &mut Lines, plan: &RollbackPlan) {
    let kept = &plan.restore.kept_before;
    if !kept.is_empty() {
        text.line(&format!(
            "this snapshot was gone back to before: what was live then is kept as {}",
            harmless(&kept.join(", "))
        ));
    }
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
    }
    if lost.tables_same_count > 0 {
        let number = lost.tables_same_count;
        text.line(&format!(
            "{number} other {} as many rows as in the snapshot, with no update or deletion seen; what is in them was not compared",
            if number == 1 { "table has" } else { "tables have" }
        ));
    }
    let only = |tables: &[OnlyHere]| {
        let tables = tables.iter().map(|one| match one.rows {
            Some(rows) if one.exact => format!("{} ({} rows)", one.table, count(rows)),
            Some(rows) => format!("{} (about {} rows)", one.table, count(rows)),
            None => one.table.clone(),
        });
        tables.collect::<Vec<_>>().join(", ")
    };
    let (rewritten, others) = (&lost.tables_rewritten, &lost.not_looked_at);
    for (what, names) in [
        ("as many rows, but truncated or rewritten at some time: ", some(rewritten)),
        ("tables lost: ", only(&lost.tables_only_live)),
        ("columns lost: ", lost.columns_only_live.join(", ")),
        ("tables that come back: ", only(&lost.tables_back)),
        ("columns that come back: ", lost.columns_back.join(", ")),
        ("large objects: ", large_objects(lost.large_objects)),
        ("not looked at, tables of extensions: ", some(others)),
    ] {
        if !names.is_empty() {
            text.line(&format!("{what}{}", harmless(&names)));
        }
    }
    text.line(&counters_text(lost));
    text.line("what clients write from now on is lost too; all of it stays in the kept database");
}

/// Names, the first of them.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(TABLES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(TABLES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Nothing where there are as many as before.
fn large_objects(objects: LargeObjects) -> String {
    let LargeObjects { then, now } = objects;
    match now {
        Some(now) if now == then => String::new(),
        Some(now) => format!("{} in the snapshot, {} now", count(then), count(now)),
        None => format!("{} in the snapshot, and they could not be counted now", count(then)),
    }
}

fn tables_text(lost: &Lost) -> String {
    let mut table = Table::new(&[
        ("  TABLE", Align::Left),
        ("SNAPSHOT", Align::Right),
        ("NOW", Align::Right),
        ("MORE", Align::Right),
        ("COUNTED", Align::Left),
        ("UPDATES AND DELETIONS", Align::Left),
    ]);
    for change in lost.tables.iter().take(TABLES_MAX) {
        table.row(vec![
            format!("  {}", change.table),
            change.rows_then.map_or_else(|| "left out".to_owned(), count),
            change.rows_now.map_or_else(|| "?".to_owned(), count),
            more(change),
            if change.exact { "exactly" } else { "by statistics" }.to_owned(),
            changed(change),
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

fn changed(change: &TableChange) -> String {
    let seen = match change.changed {
        None => "?".to_owned(),
        Some(0) => "none seen".to_owned(),
        Some(rows) => format!("{} seen", count(rows)),
    };
    if change.rewritten { format!("{seen}, rewritten") } else { seen }
}

/// Since when the counters see, and what they never do.
fn counters_text(lost: &Lost) -> String {
    let began = match (lost.counters_before_snapshot, lost.counters_since) {
        (Some(true), _) => "before the snapshot".to_owned(),
        (Some(false), Some(since)) => format!("at {}, after the snapshot", time(since)),
        _ => "at a time that this role may not know".to_owned(),
    };
    format!(
        "seen is what the server's counters saw, which began {began}; they do not tell tables that were truncated, rewritten \
         or made anew, nor work that was rolled back"
    )
}

/// `rollback` for people.
fn report_text(chosen: &Chosen, plan: &RollbackPlan, report: &RestoreReport) -> String {
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
    kept_before_text(&mut text, plan);
    if let Some(way) = Way::back(plan, report) {
        let what = if plan.is_migrated { "the migrated database" } else { "what was live" };
        text.line(&format!(
            "{what} is kept as {}, and what was written since is only in there",
            harmless(way.kept)
        ));
        text.line(
            "to go back to it, connected to another database and with the application stopped:",
        );
        for line in &way.back {
            text.line(&format!("  {}", harmless(line)));
        }
        text.line("once nobody needs it:");
        text.line(&format!("  {}", harmless(&way.drop)));
    }
    text.into_text()
}

/// `rollback --json`.
fn report_json(chosen: &Chosen, plan: &RollbackPlan, report: &RestoreReport) -> Json {
    let way = Way::back(plan, report);
    json!({
        "id": report.id,
        "database": report.database,
        "kept_as": report.kept_as,
        "checks": report.checks,
        "duration_ms": report.duration_ms,
        "lost": lost_json(chosen, &plan.loss),
        "gone_back_before": plan.restore.kept_before,
        "sessions_ended": report.sessions_ended,
        "left_out": report.left_out,
        "bookkeeping": chosen.bookkeeping(),
        "to_go_back": way.as_ref().map(|way| way.back.join("\n")),
        "to_drop": way.as_ref().map(|way| &way.drop),
    })
}

/// `rollback --dry-run --json`: the keys of `restore`'s, and what would be lost.
fn dry_run_json(chosen: &Chosen, plan: &RollbackPlan) -> Json {
    let mut document = plan_json(&plan.restore);
    document["lost"] = lost_json(chosen, &plan.loss);
    document["gone_back_before"] = json!(plan.restore.kept_before);
    document["unended"] = plan.unended.into();
    document
}

/// The same keys whatever is known: what is not is null.
fn lost_json(chosen: &Chosen, loss: &Loss) -> Json {
    let (known, unknown) = match loss {
        Loss::Known(lost) => (Some(&**lost), None),
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
                "updates_and_deletions_seen": change.changed,
                "rewritten": change.rewritten,
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
        "tables_same_count": known.map(|lost| lost.tables_same_count),
        "tables_rewritten": known.map(|lost| &lost.tables_rewritten),
        "counters_since": known.and_then(|lost| lost.counters_since),
        "counters_before_snapshot": known.map(|lost| lost.counters_before_snapshot),
        "tables_only_live": known.map(|lost| only(&lost.tables_only_live)),
        "columns_only_live": known.map(|lost| &lost.columns_only_live),
        "tables_back": known.map(|lost| only(&lost.tables_back)),
        "columns_back": known.map(|lost| &lost.columns_back),
        "large_objects_in_snapshot": known.map(|lost| lost.large_objects.then),
        "large_objects_now": known.map(|lost| lost.large_objects.now),
        "not_looked_at": known.map(|lost| &lost.not_looked_at),
        "later_backups": later,
        "later_guarded": guarded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::backup::tests::manifest;
    use crate::domain::chunk::Hash;
    use crate::domain::globals::MissingRoles;
    use crate::domain::verification::Depth;
    use crate::guard::rollback::Later;
    use crate::ops::restore::{Naming, RestorePlan};
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
        Chosen { entry, later: later.collect(), by_id: false, command: String::new() }
    }

    fn plan(loss: Loss) -> RollbackPlan {
        let restore = RestorePlan {
            id: "20261121T020000Z-5f3a9c21".parse().expect("an id"),
            source: "shop".to_owned(),
            database: "shop".to_owned(),
            target: "app@db:5432/shop".to_owned(),
            target_major: 17,
            naming: Naming::Rename,
            owner: None,
            tablespace: None,
            table_spaces: true,
            closed: false,
            depth: Depth::Counts,
            roles: true,
            roles_missing: MissingRoles::default(),
            only: None,
            scripts: Vec::new(),
            archive_bytes: 0,
            notices: Vec::new(),
            kept_before: Vec::new(),
            aside: "shop_rolled_back_2".to_owned(),
        };
        RollbackPlan { restore, loss, is_migrated: true, unended: false }
    }

    fn known(lost: Lost) -> RollbackPlan {
        plan(Loss::Known(Box::new(lost)))
    }

    fn told_of(chosen: &Chosen, plan: &RollbackPlan) -> String {
        loss_text(chosen, plan, "db:5432")
    }

    fn change(table: &str, now: Option<u64>, exact: bool, changed: Option<u64>) -> TableChange {
        let rows_then = Some(5000);
        let table = table.to_owned();
        TableChange { table, rows_then, rows_now: now, exact, changed, rewritten: false }
    }

    fn lost() -> Lost {
        let only = |table: &str, rows, exact| OnlyHere { table: table.to_owned(), rows, exact };
        Lost {
            counted_at: "2026-11-21T05:00:00Z".parse().expect("a time"),
            tables: vec![
                change("public.log", None, false, None),
                change("public.orders", Some(6012), true, Some(3)),
                TableChange { rewritten: true, ..change("public.big", Some(4000), false, Some(0)) },
                TableChange { rows_then: None, ..change("public.audit", Some(7), true, Some(0)) },
            ],
            tables_same_count: 27,
            tables_rewritten: vec!["public.carts".to_owned()],
            counters_since: None,
            counters_before_snapshot: Some(true),
            tables_only_live: vec![
                only("public.refunds", Some(1200), true),
                only("public.events", Some(90_000), false),
                only("public.parts", None, false),
            ],
            columns_only_live: vec!["public.orders.\"Status\"".to_owned()],
            tables_back: Vec::new(),
            columns_back: vec!["public.orders.note\u{1b}".to_owned()],
            large_objects: LargeObjects { then: 3, now: Some(5) },
            not_looked_at: vec!["public.spatial_ref_sys".to_owned()],
        }
    }

    #[test]
    fn what_is_lost_is_told_with_how_well_it_is_known() {
        let chosen = chosen(&[
            ("20261121T040000Z-00000002", Trigger::Scheduled),
            ("20261121T030000Z-00000001", Trigger::PreMigration),
        ]);
        insta::assert_snapshot!(told_of(&chosen, &known(lost())), @r#"
        back to 20261121T020000Z-5f3a9c21 of main/shop, taken 2026-11-21 02:00:00Z (before a migration)
        on the server at db:5432
        rows of tables that are in both, where they differ or may:
          TABLE          SNAPSHOT    NOW    MORE  COUNTED        UPDATES AND DELETIONS
          public.log        5,000      ?       ?  by statistics  ?
          public.orders     5,000  6,012  +1,012  exactly        3 seen
          public.big        5,000  4,000  -1,000  by statistics  none seen, rewritten
          public.audit   left out      7      +7  exactly        none seen
        27 other tables have as many rows as in the snapshot, with no update or deletion seen; what is in them was not compared
        as many rows, but truncated or rewritten at some time: public.carts
        tables lost: public.refunds (1,200 rows), public.events (about 90,000 rows), public.parts
        columns lost: public.orders."Status"
        columns that come back: public.orders.note\u{1b}
        large objects: 3 in the snapshot, 5 now
        not looked at, tables of extensions: public.spatial_ref_sys
        seen is what the server's counters saw, which began before the snapshot; they do not tell tables that were truncated, rewritten or made anew, nor work that was rolled back
        what clients write from now on is lost too; all of it stays in the kept database
        later guarded migrations are undone too; their snapshots: 20261121T030000Z-00000001
        2 later backups are of what goes, the newest 20261121T040000Z-00000002: `latest` until the next snapshot
        "#);
    }

    #[test]
    fn counters_bound_nothing_whenever_they_began() {
        let since = "2026-11-21T03:30:00Z".parse().expect("a time");
        for (counters_since, counters_before_snapshot, words) in [
            (None, Some(true), "began before the snapshot"),
            (Some(since), Some(false), "began at 2026-11-21 03:30:00Z, after the snapshot"),
            (None, None, "began at a time that this role may not know"),
        ] {
            let lost = Lost { counters_since, counters_before_snapshot, ..lost() };
            let text = told_of(&chosen(&[]), &known(lost));
            assert!(text.contains(words) && text.contains("3 seen"), "{words}: {text}");
            for bound in ["at most", "at least", "no more", "perhaps"] {
                assert!(!text.contains(bound), "{bound}: {text}");
            }
        }
    }

    #[test]
    fn a_second_time_nobody_says_that_the_migrated_one_is_live() {
        let mut again = known(lost());
        again.restore.kept_before = vec!["shop_before_x".to_owned()];
        again.is_migrated = false;
        let before = "gone back to before: what was live then is kept as shop_before_x\n";
        assert!(told_of(&chosen(&[]), &again).contains(before));
        let text = report_text(&chosen(&[]), &again, &report());
        assert!(text.contains(before) && text.contains("what was live is kept as"), "{text}");
        assert!(!text.contains("the migrated database"), "{text}");
        let document = report_json(&chosen(&[]), &again, &report());
        assert_eq!(document["gone_back_before"], json!(["shop_before_x"]));
    }

    #[test]
    fn what_is_not_known_is_told_as_that_and_many_tables_are_cut_short() {
        let mut chosen = chosen(&[]);
        let text = told_of(&chosen, &plan(Loss::Unknown("nobody is let in".to_owned())));
        assert!(text.ends_with("what is lost is not known: nobody is let in\n"), "{text}");
        let text = told_of(&chosen, &plan(Loss::Nothing));
        assert!(text.ends_with("nothing is lost: there is no database shop\n"), "{text}");
        let tables =
            (0..25).map(|n| change(&format!("public.t{n}"), Some(1), true, None)).collect();
        let text = told_of(&chosen, &known(Lost { tables, ..lost() }));
        assert!(text.contains("public.t19") && !text.contains("public.t20"), "{text}");
        assert!(text.contains("and 5 tables more"), "{text}");
        chosen.entry.manifest.trigger = Trigger::Manual;
        let text = told_of(&chosen, &plan(Loss::Nothing));
        assert!(text.contains("(manual, not before a migration)"), "{text}");
    }

    #[test]
    fn what_is_lost_has_the_same_keys_whatever_is_known() {
        let unknown = Loss::Unknown("nobody is let in".to_owned());
        let keys = |loss: &Loss| -> Vec<String> {
            let document = lost_json(&chosen(&[]), loss);
            document.as_object().expect("an object").keys().cloned().collect()
        };
        let known = keys(&Loss::Known(Box::new(lost())));
        assert_eq!((&keys(&unknown), &keys(&Loss::Nothing)), (&known, &known));
        let document = lost_json(&chosen(&[]), &Loss::Known(Box::new(lost())));
        assert_eq!((&document["rows_more"], &document["unknown"]), (&json!(92_219), &Json::Null));
        assert_eq!(document["tables"][1]["rows_more"], 1012);
        assert_eq!(lost_json(&chosen(&[]), &unknown)["unknown"], "nobody is let in");
    }

    fn report() -> RestoreReport {
        RestoreReport {
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
        }
    }

    #[test]
    fn a_rollback_tells_the_way_back_from_it() {
        let plan = known(lost());
        insta::assert_snapshot!(report_text(&chosen(&[]), &plan, &report()), @r#"
        20261121T020000Z-5f3a9c21  rolled back shop in 900 ms
        the migration tool's own table was restored with the rest: a migration that ran since is pending again, one that failed since is gone from it
        fix or remove the migration before the next deploy, which else runs it again
        the migrated database is kept as shop_before_20261121T020000Z-5f3a9c21, and what was written since is only in there
        to go back to it, connected to another database and with the application stopped:
          SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname IN ('shop', 'shop_before_20261121T020000Z-5f3a9c21');
          BEGIN; ALTER DATABASE "shop" RENAME TO "shop_rolled_back_2"; ALTER DATABASE "shop_before_20261121T020000Z-5f3a9c21" RENAME TO "shop"; COMMIT;
        once nobody needs it:
          DROP DATABASE "shop_before_20261121T020000Z-5f3a9c21";
        "#);
        let gone = RestoreReport { kept_as: None, ..report() };
        assert!(!report_text(&chosen(&[]), &plan, &gone).contains("kept as"));
    }
}
