//! `migrate`: what the guard works with, the question, and where its report goes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tracing::Instrument as _;

use super::args::Migrate;
use super::context::Context;
use super::migrate_text::{report_markdown, report_text, survey_json, survey_text};
use super::output::write_stdout;
use super::progress::Progress;
use super::recovery::{ask, may_ask};
use super::run::Ended;
use super::verbs::Opened;
use crate::config::{ClusterSettings, Databases, Settings};
use crate::domain::connection::ConnectionInfo;
use crate::domain::manifest::Trigger;
use crate::domain::migration::MigrationRecord;
use crate::domain::observer::{Observer as _, Severity};
use crate::domain::told::{Failed, failed};
use crate::domain::verification::Depth;
use crate::guard::migrate::{
    self, Guarding, MigrateError, MigrateOptions, Planned, Report, Survey,
};
use crate::ops::run::{Ending, Run};
use crate::ops::snapshot::SnapshotOptions;
use crate::wiring::{self, Proving};

/// Where and in which run.
#[derive(Default)]
struct Known {
    run: Option<String>,
    cluster: Option<String>,
    database: Option<String>,
}

pub(super) async fn migrate(context: &Context, args: Migrate) -> Result<(), Ended> {
    if !args.yes && !args.dry_run && !may_ask(context) {
        return Err(Failed::usage(
            "a migration wants a yes, and nobody can be asked here",
            "add --yes; look first with --dry-run",
        )
        .into());
    }
    // What cannot be written is better known before.
    let file = args.report.as_deref().filter(|_| !args.dry_run).map(create).transpose()?;
    let progress = context.progress();
    let mut known = Known::default();
    let report = match Box::pin(guarded(context, &args, &progress, &mut known)).await {
        Ok(Some(report)) => report,
        Ok(None) => return Ok(()),
        Err(told) => {
            let failure = migrate::before_anything(told);
            Report { record: migrate::not_run(&args.command, None), failure: Some(failure) }
        }
    };
    progress.clear();
    let document = document(&known, &report);
    if let Some((path, file)) = file
        && let Err(error) = write(file, &path, &document, &report)
    {
        let told = format!("the report is not in {}: {error}", path.display());
        progress.finding(Severity::Warning, &told);
    }
    if context.output.json {
        write_stdout(&format!("{document}\n"))?;
    } else {
        context.output.beside(&report_text(&report.record));
        if let Some(failure) = &report.failure {
            context.output.complaint(failure);
        }
    }
    match report.exit_code() {
        0 => Ok(()),
        code => Err(Ended::Passed(code)),
    }
}

/// None after a `--dry-run`. What fails before anything is surveyed is an error, what fails later is in the report.
async fn guarded(
    context: &Context,
    args: &Migrate,
    progress: &Progress,
    known: &mut Known,
) -> Result<Option<Report>, Failed> {
    let opened = Opened::open(context, progress).await?;
    let settings = &opened.settings;
    let (name, cluster) = settings.cluster().map_err(failed)?;
    let connection = wiring::connection(settings, name, cluster).map_err(failed)?;
    let database = database_meant(settings, cluster, &connection)?;
    let run = opened.begin("migrate", Some(name), Some(&database));
    *known = Known {
        run: Some(run.id().to_string()),
        cluster: Some(name.to_string()),
        database: Some(database.clone()),
    };
    let snapshot = SnapshotOptions {
        cluster: name.clone(),
        connection,
        trigger: Trigger::PreMigration,
        labels: args.labels.iter().cloned().collect(),
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
    let verifying = proving.verifying(repository, Depth::Full, progress, &context.cancel);
    let health = wiring::health_checks(name, cluster, !args.no_health).map_err(failed)?;
    let directory = std::env::current_dir()
        .map_err(|error| Failed::unexpected("the working directory is gone", &error))?;
    let guarding = Guarding {
        repository,
        snapshot: &snapshot,
        database: &database,
        verifying: &verifying,
        assertions: &wiring::assertions(cluster),
        health: &health,
        directory: &directory,
        begins: &|| {
            progress.clear();
            context.output.beside("\n");
        },
        run: &run,
        relay: &context.relay,
        observer: progress,
        cancel: &context.cancel,
    };
    let options = options(context, args);
    let span = run.span().clone();
    let surveyed =
        survey(context, &guarding, &options, args.dry_run).instrument(span.clone()).await;
    if args.dry_run {
        let survey = surveyed?;
        progress.clear();
        context.output.result(|| survey_text(&survey), || survey_json(&survey))?;
        return Ok(None);
    }
    let report = match surveyed {
        Ok(survey) => {
            confirmed(context, args, progress, &guarding, &options, survey).instrument(span).await
        }
        Err(told) => {
            let record = migrate::not_run(&args.command, None);
            Report { record, failure: Some(migrate::before_anything(told)) }
        }
    };
    end(run, &opened, &report, progress).await;
    Ok(Some(report))
}

async fn survey(
    context: &Context,
    guarding: &Guarding<'_>,
    options: &MigrateOptions,
    only_plan: bool,
) -> Result<Survey, Failed> {
    tokio::select! {
        survey = migrate::survey(guarding, options, only_plan) => survey.map_err(failed),
        () = context.cancel.cancelled() => Err(failed(MigrateError::Interrupted)),
    }
}

/// Shows what was found, asks, and goes on.
async fn confirmed(
    context: &Context,
    args: &Migrate,
    progress: &Progress,
    guarding: &Guarding<'_>,
    options: &MigrateOptions,
    survey: Survey,
) -> Report {
    progress.clear();
    let text = survey_text(&survey);
    // Nobody need agree to what is refused anyway.
    let agreed = if args.yes || survey.planned == Planned::Refused {
        context.output.beside(&text);
        Ok(true)
    } else {
        ask(&text)
    };
    let failure = match agreed {
        Ok(true) => return migrate::run(guarding, options, survey).await,
        Ok(false) => {
            Failed::usage("not confirmed, and nothing was done", "type `yes`, or add --yes")
        }
        Err(error) => error,
    };
    let record = migrate::not_run(&args.command, Some(&survey));
    Report { record, failure: Some(failure) }
}

fn options(context: &Context, args: &Migrate) -> MigrateOptions {
    MigrateOptions {
        command: args.command.clone(),
        wait: args.wait,
        if_pending: args.if_pending,
        no_health: args.no_health,
        elsewhere: args.elsewhere,
        require_rollback: args.require_rollback,
        verify: args.verify,
        stdout_to_stderr: context.output.json,
    }
}

/// One database, which must be clear.
fn database_meant(
    settings: &Settings,
    cluster: &ClusterSettings,
    connection: &ConnectionInfo,
) -> Result<String, Failed> {
    if let Some(one) = &settings.database {
        return Ok(one.clone());
    }
    match &cluster.databases {
        Databases::OfConnection => Ok(connection.database().to_owned()),
        Databases::Named(names) if names.len() == 1 => Ok(names[0].clone()),
        Databases::Named(names) => Err(Failed::usage(
            "several databases are configured, and a migration is of one",
            format!("say which with --database: {}", names.join(", ")),
        )),
        Databases::All => Err(Failed::usage(
            "every database is meant, and a migration is of one",
            "say which with --database",
        )),
    }
}

async fn end(run: Run, opened: &Opened, report: &Report, progress: &Progress) {
    let record = &report.record;
    let ending = match &report.failure {
        Some(failure) => Ending::failed(failure),
        None => Ending::succeeded(),
    };
    let told = match &report.failure {
        Some(failure) if record.ended.is_none() => failure.message.clone(),
        _ => record.summary(),
    };
    let ending = ending.saying(told).guarding(record.clone());
    let ending = match record.way_back() {
        Some(id) => ending.about(id),
        None => ending,
    };
    run.end(&opened.repository, ending, progress).await;
}

fn document(known: &Known, report: &Report) -> Json {
    let record: &MigrationRecord = &report.record;
    let mut document = json!(record);
    document["run"] = json!(known.run);
    document["cluster"] = json!(known.cluster);
    document["database"] = json!(known.database);
    document["exit_code"] = report.exit_code().into();
    document["rollback"] = json!(record.way_back().map(|id| format!("pgkeep rollback {id}")));
    if let Some(failure) = &report.failure {
        document["error"] = failure.json()["error"].take();
    }
    document
}

fn create(path: &Path) -> Result<(PathBuf, File), Failed> {
    match File::create(path) {
        Ok(file) => Ok((path.to_owned(), file)),
        Err(error) => Err(Failed::usage(
            format!("the report cannot be written to {}: {error}", path.display()),
            "name a file in a directory that is there and may be written to",
        )),
    }
}

fn write(mut file: File, path: &Path, document: &Json, report: &Report) -> std::io::Result<()> {
    let text = if path.extension().is_some_and(|ending| ending == "md") {
        report_markdown(document, report)
    } else {
        format!("{document:#}\n")
    };
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::migration::{CommandEnd, GuardOutcome, SnapshotDecision};

    fn report() -> Report {
        let command = ["sh", "-c", "true"].map(str::to_owned);
        let mut record = migrate::not_run(&command, None);
        let id = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        record.snapshot = SnapshotDecision::Taken { id, verified: false };
        record.ended = Some(CommandEnd { exit_code: 0, signal: None, duration_ms: 1200 });
        record.outcome = GuardOutcome::Succeeded;
        Report { record, failure: None }
    }

    #[test]
    fn a_report_has_the_same_keys_whatever_it_tells_and_an_error_beside_them() {
        let known = Known::default();
        let keys = |document: &Json| {
            let keys = document.as_object().expect("an object").keys();
            keys.cloned().collect::<Vec<_>>().join(" ")
        };
        let good = document(&known, &report());
        insta::assert_snapshot!(keys(&good), @"after before checks cluster command database earlier ended exit_code git_commit outcome rollback run snapshot warnings");
        assert_eq!(good["rollback"], "pgkeep rollback 20261121T020000Z-5f3a9c21");
        let error = MigrateError::ChecksFailed("…".to_owned());
        let failure = Some(failed(error));
        let bad = document(&known, &Report { failure, ..report() });
        assert_eq!(keys(&bad).replace(" error", ""), keys(&good));
        assert_eq!(
            (&bad["exit_code"], &bad["error"]["kind"]),
            (&11.into(), &"checks_failed".into())
        );
    }

    #[test]
    fn codes_are_pgkeeps_where_it_has_something_to_say_and_the_commands_otherwise() {
        let mut report = report();
        report.record.ended = Some(CommandEnd { exit_code: 42, signal: None, duration_ms: 1 });
        assert_eq!(report.exit_code(), 42);
        let code = |error| {
            let failure = Some(failed(error));
            Report { failure, record: migrate::not_run(&[], None) }.exit_code()
        };
        assert_eq!(code(MigrateError::NoWayBack("…".to_owned())), 10);
        assert_eq!(code(MigrateError::Interrupted), 130);
        let busy = MigrateError::Busy { database: "shop".to_owned(), waited: 1 };
        assert_eq!(code(busy), 6);
        let absent = MigrateError::CommandNotFound { program: "x".to_owned(), why: "is not there" };
        assert_eq!(code(absent), 127);
    }
}
