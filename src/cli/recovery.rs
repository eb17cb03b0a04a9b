//! `verify` and `restore`: the copies that prove a backup, and the way back.

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::Instrument as _;

use super::args::{CheckArg, FormatArg, Restore, RolesArg, Verify, VerifyCheckArg};
use super::context::Context;
use super::in_place;
use super::progress::Progress;
use super::reports::{
    export_json, export_text, plan_json, plan_text, restore_json, restore_text, verify_text,
};
use super::run::Ended;
use super::stored;
use super::verbs::{Gravest, Opened};
use crate::config::{ClusterSettings, Settings};
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::id::ClusterName;
use crate::domain::told::{Failed, failed};
use crate::domain::verification::{Depth, Outcome};
use crate::ops::inspect;
use crate::ops::restore::{
    self, Consent, Destination, ExportFormat, Form, Output as ExportTo, RestoreOptions, Restored,
    Restoring,
};
use crate::ops::run::{Ending, Run};
use crate::ops::verify::{self, Choice, Verified};
use crate::proof::Assertion;
use crate::proof::selection::Only;
use crate::repo::catalog::Entry;
use crate::wiring::{self, Proving, assertions, scratch_dir};

impl CheckArg {
    const fn depth(self) -> Depth {
        match self {
            Self::Counts => Depth::Counts,
            Self::Full => Depth::Full,
        }
    }
}

/// The cluster that a backup belongs to where it is configured here, else the one that is meant.
pub(super) fn cluster_of<'a>(
    settings: &'a Settings,
    entry: &Entry,
) -> Result<(&'a ClusterName, &'a ClusterSettings), Failed> {
    match settings.clusters.get_key_value(&entry.manifest.cluster) {
        Some(found) => Ok(found),
        None => settings.cluster().map_err(failed),
    }
}

pub(super) async fn verify(context: &Context, args: Verify) -> Result<(), Ended> {
    let depth = match args.check {
        VerifyCheckArg::Stored => return stored::verify(context, &args).await,
        VerifyCheckArg::Counts => Depth::Counts,
        VerifyCheckArg::Full => Depth::Full,
    };
    if args.rate.is_some() || args.restart {
        let hint = "a restore reads as fast as it can; leave them out, or add --check stored";
        return Err(Failed::usage("--rate and --restart belong to --check stored", hint).into());
    }
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let choice = match (args.all, args.ids) {
        (true, _) => Choice::All,
        (false, ids) if ids.is_empty() => Choice::LatestOfEach,
        (false, ids) => Choice::These(ids),
    };
    let entries = verify::choose(&opened.repository, &opened.filter, &choice, &progress).await;
    let entries = entries.map_err(failed)?;
    let mut gravest = Gravest::of(entries.len());
    // Those of one cluster share a server, assertions and programs; the order is kept.
    let cluster = |entry: &Entry| entry.manifest.cluster.clone();
    for group in entries.chunk_by(|a, b| cluster(a) == cluster(b)) {
        verify_group(context, &progress, &opened, group, depth, &mut gravest).await?;
        if context.cancel.is_cancelled() {
            return Err(Failed::interrupted().into());
        }
    }
    gravest.end()
}

async fn verify_group(
    context: &Context,
    progress: &Progress,
    opened: &Opened,
    entries: &[Entry],
    depth: Depth,
    gravest: &mut Gravest,
) -> Result<(), Ended> {
    let settings = &opened.settings;
    let Some(first) = entries.first() else { return Ok(()) };
    let (name, cluster) = cluster_of(settings, first)?;
    let proving = Proving::of(settings, name, cluster).map_err(failed)?;
    let verifying = proving.verifying(&opened.repository, depth, progress, &context.cancel);
    for entry in entries {
        let manifest = &entry.manifest;
        let run = opened.begin("verify", Some(&manifest.cluster), Some(&manifest.database));
        let mut told = Ok(());
        let done = |verified: &Verified| {
            told = progress.aside(|| tell(context, gravest, verified));
        };
        let verified = verify::run(&verifying, std::slice::from_ref(entry), done);
        let verified = verified.instrument(run.span().clone()).await.map_err(failed);
        let ending = verified_ending(&verified).about(&manifest.id);
        run.end(&opened.repository, ending, progress).await;
        verified?;
        told?;
        if context.cancel.is_cancelled() {
            break;
        }
    }
    Ok(())
}

fn verified_ending(verified: &Result<Vec<Verified>, Failed>) -> Ending {
    let report = match verified.as_ref().map(|all| all.first()) {
        Ok(Some((_, Ok(report)))) => report,
        Ok(Some((_, Err(error)))) => return Ending::failed(&Failed::of(error)),
        Ok(None) => return Ending::succeeded(),
        Err(failed) => return Ending::failed(failed),
    };
    let failed = report.checks.iter().filter(|check| check.result == Outcome::Failed);
    let failed: Vec<&str> = failed.map(|check| check.name.as_str()).collect();
    if report.result != Outcome::Passed {
        return Ending::of_kind(Some(FailureKind::Damage))
            .saying(format!("failed: {}", failed.join(", ")));
    }
    match &report.unrecorded {
        Some(error) => Ending::failed(&Failed::of(&**error)),
        None => Ending::succeeded(),
    }
}

/// Shows one verification as it ends.
fn tell(context: &Context, gravest: &mut Gravest, verified: &Verified) -> Result<(), Ended> {
    let (id, result) = verified;
    let report = match result {
        Ok(report) => report,
        Err(error) => return gravest.add(context, "id", id.as_str(), Failed::of(error)),
    };
    let (text, document) = (|| verify_text(report), || report.summary());
    match report.result {
        Outcome::Passed => context.output.success(text, document)?,
        _ => context.output.result(text, document)?,
    }
    if report.result != Outcome::Passed {
        gravest.note(FailureKind::Damage);
        if !context.output.json {
            context.output.complaint(&Failed {
                kind: FailureKind::Damage,
                message: format!("backup {id} failed its verification"),
                hint: Some(
                    "do not rely on it: take a new snapshot, verify that one too, and look for the cause".into(),
                ),
            });
        }
    }
    if let Some(error) = &report.unrecorded {
        let failed = Failed::of(&**error);
        let message = format!("the verification is not recorded: {}", failed.message);
        gravest.tell(context, "id", id.as_str(), Failed { message, ..failed });
    }
    Ok(())
}

pub(super) async fn restore(context: &Context, args: Restore) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    for script in &args.scripts {
        readable(script)?;
    }
    if args.all {
        return Box::pin(restore_all(context, &progress, &opened, &args)).await;
    }
    let entry = inspect::find(&opened.repository, &opened.filter, &args.id, &progress).await;
    let entry = entry.map_err(failed)?;
    if let Some(output) = &args.output {
        return export(context, &progress, &opened, &entry, &args, output).await;
    }
    let target = Target::of(&opened, &entry, args.to.as_deref())?;
    let restoring = target.restoring(context, &progress, &opened);
    let mut options = options(&args);
    if args.in_place {
        let own = || target.server.database().to_owned();
        options.destination.name = args.to.is_some().then(own);
        let work = in_place::Work { context, progress: &progress, opened: &opened, entry: &entry };
        return Box::pin(in_place::restore(&work, &restoring, options, args.dry_run)).await;
    }
    let plan = if args.dry_run || (args.replace && !args.yes && may_ask(context)) {
        let planned = tokio::select! {
            plan = restore::plan(&restoring, &entry, &options) => plan.map_err(failed)?,
            () = context.cancel.cancelled() => return Err(Failed::interrupted().into()),
        };
        Some(planned)
    } else {
        None
    };
    if let Some(plan) = plan {
        progress.clear();
        if args.dry_run {
            return Ok(context.output.result(|| plan_text(&plan), || plan_json(&plan))?);
        }
        options.consent.yes = ask(&plan_text(&plan))?;
    }
    let run = begin(&opened, &entry);
    let restored = restore::run(&restoring, &entry, &options).instrument(run.span().clone()).await;
    let restored = restored.map_err(failed);
    let ending = match &restored {
        Ok(report) => Ending::succeeded().saying(format!("restored as {}", report.database)),
        Err(failed) => Ending::failed(failed),
    };
    run.end(&opened.repository, ending.about(&entry.manifest.id), &progress).await;
    let report = restored?;
    progress.clear();
    Ok(context.output.result(|| restore_text(&report), || restore_json(&report))?)
}

fn begin(opened: &Opened, entry: &Entry) -> Run {
    let manifest = &entry.manifest;
    opened.begin("restore", Some(&manifest.cluster), Some(&manifest.database))
}

/// Where a restore goes, and what it works with.
pub(super) struct Target {
    server: ConnectionInfo,
    bin_dir: Option<PathBuf>,
    scratch_dir: PathBuf,
    assertions: Vec<Assertion>,
    idle: Duration,
}

impl Target {
    /// The server at `to`, else that of the backup's cluster.
    pub(super) fn of(opened: &Opened, entry: &Entry, to: Option<&str>) -> Result<Self, Failed> {
        let settings = &opened.settings;
        let (name, cluster) = cluster_of(settings, entry)?;
        let server = match to {
            Some(text) => wiring::other_connection(&settings.environment, text),
            None => wiring::connection(settings, name, cluster),
        };
        Ok(Self {
            server: server.map_err(failed)?,
            bin_dir: wiring::bin_dir(settings, cluster),
            scratch_dir: scratch_dir(settings),
            assertions: assertions(cluster),
            idle: cluster.idle_timeout,
        })
    }

    pub(super) fn restoring<'a>(
        &'a self,
        context: &'a Context,
        progress: &'a Progress,
        opened: &'a Opened,
    ) -> Restoring<'a> {
        Restoring {
            repository: &opened.repository,
            server: &self.server,
            bin_dir: self.bin_dir.as_deref(),
            scratch_dir: &self.scratch_dir,
            assertions: &self.assertions,
            idle: self.idle,
            observer: progress,
            cancel: &context.cancel,
        }
    }
}

fn options(args: &Restore) -> RestoreOptions {
    RestoreOptions {
        destination: Destination { name: args.new_name.clone(), replace: args.replace },
        consent: Consent { yes: args.yes, force: args.force, allow_partial: args.allow_partial },
        depth: args.check.depth(),
        no_owner: args.no_owner,
        create_roles: match args.roles {
            Some(how) => how == RolesArg::Create,
            None => args.all && !args.no_owner,
        },
        only: only(args),
        scripts: args.scripts.clone(),
    }
}

fn only(args: &Restore) -> Option<Only> {
    let only = Only { tables: args.tables.clone(), schemas: args.schemas.clone() };
    (only != Only::default()).then_some(only)
}

/// A script that is not there is told before anything is restored.
fn readable(script: &Path) -> Result<(), Failed> {
    match std::fs::File::open(script) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failed {
            kind: FailureKind::Usage,
            message: format!("cannot read `{}`: {error}", script.display()),
            hint: Some("--run takes a file of SQL for psql".to_owned()),
        }),
    }
}

async fn restore_all(
    context: &Context,
    progress: &Progress,
    opened: &Opened,
    args: &Restore,
) -> Result<(), Ended> {
    let choice = Choice::LatestOfEach;
    let entries = verify::choose(&opened.repository, &opened.filter, &choice, progress)
        .await
        .map_err(failed)?;
    let Some(first) = entries.first() else { return Ok(()) };
    if let Some(other) =
        entries.iter().find(|entry| entry.manifest.cluster != first.manifest.cluster)
    {
        let clusters = format!("{} and {}", first.manifest.cluster, other.manifest.cluster);
        return Err(Failed {
            kind: FailureKind::Usage,
            message: format!("the repository holds several clusters: {clusters}"),
            hint: Some("name the one to restore: --cluster NAME".to_owned()),
        }
        .into());
    }
    let target = Target::of(opened, first, args.to.as_deref())?;
    let restoring = target.restoring(context, progress, opened);
    let options = options(args);
    if args.dry_run {
        for entry in &entries {
            let plan = restore::plan_of_all(&restoring, entry, &options).await.map_err(failed)?;
            let Some(plan) = plan else { continue };
            progress.aside(|| context.output.result(|| plan_text(&plan), || plan_json(&plan)))?;
        }
        return Ok(());
    }
    let mut gravest = Gravest::of(entries.len());
    let mut told = Ok(());
    let done = |(id, result): &Restored| {
        if told.is_ok() {
            told = progress.aside(|| match result {
                Ok(report) => {
                    Ok(context.output.result(|| restore_text(report), || restore_json(report))?)
                }
                Err(error) => gravest.add(context, "id", id.as_str(), Failed::of(error)),
            });
        }
    };
    let run = opened.begin("restore", Some(&first.manifest.cluster), None);
    let restored = restore::all(&restoring, &entries, &options, done);
    let restored = restored.instrument(run.span().clone()).await.map_err(failed);
    let ending = match (&restored, context.cancel.is_cancelled()) {
        (Err(failed), _) => Ending::failed(failed),
        (Ok(_), true) => Ending::failed(&Failed::interrupted()),
        (Ok(all), false) => {
            let kinds = all.iter().filter_map(|(_, one)| one.as_ref().err().map(Failure::kind));
            Ending::of_kind(kinds.min())
                .saying(format!("{} databases of a lost server", entries.len()))
        }
    };
    run.end(&opened.repository, ending, progress).await;
    restored?;
    told?;
    if context.cancel.is_cancelled() {
        return Err(Failed::interrupted().into());
    }
    gravest.end()
}

/// Whether someone sits there who can be asked.
pub(super) fn may_ask(context: &Context) -> bool {
    !context.output.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Shows the plan on the terminal and asks; anything but `yes` is a no.
pub(super) fn ask(plan: &str) -> Result<bool, Failed> {
    let lost = |error| Failed::unexpected("cannot ask", &error);
    let mut terminal = std::io::stderr();
    write!(terminal, "{plan}Do this? Type `yes`: ").map_err(lost)?;
    terminal.flush().map_err(lost)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(lost)?;
    Ok(answer.trim() == "yes")
}

async fn export(
    context: &Context,
    progress: &Progress,
    opened: &Opened,
    entry: &Entry,
    args: &Restore,
    path: &Path,
) -> Result<(), Ended> {
    let format = match args.format {
        FormatArg::Custom => ExportFormat::Custom,
        FormatArg::Sql => ExportFormat::Sql,
    };
    let form = Form { format, only: only(args) };
    if form.only.is_some() && format == ExportFormat::Custom {
        return Err(Failed {
            kind: FailureKind::Usage,
            message: "a part of an archive cannot be written in custom format".to_owned(),
            hint: Some("add `--format sql`".to_owned()),
        }
        .into());
    }
    let to_stdout = path == Path::new("-");
    let output = if to_stdout {
        ExportTo::Pipe(Box::new(std::io::stdout()))
    } else {
        ExportTo::File(path.to_owned())
    };
    let cluster = opened.settings.clusters.get(&entry.manifest.cluster);
    let bin_dir = match cluster {
        Some(cluster) => wiring::bin_dir(&opened.settings, cluster),
        None => opened.settings.bin_dir.clone(),
    };
    let (repository, bin_dir) = (&opened.repository, bin_dir.as_deref());
    let run = begin(opened, entry);
    let exported =
        restore::export(repository, entry, &form, output, bin_dir, progress, &context.cancel);
    let exported = exported.instrument(run.span().clone()).await.map_err(failed);
    let ending = match &exported {
        Ok(_) => Ending::succeeded().saying("written out as a dump"),
        Err(failed) => Ending::failed(failed),
    };
    run.end(repository, ending.about(&entry.manifest.id), progress).await;
    let report = exported?;
    progress.clear();
    if to_stdout {
        // Stdout is the dump's.
        return Ok(());
    }
    Ok(context.output.result(|| export_text(&report, path), || export_json(&report, path))?)
}
