//! `migrate`: a command that changes a database, with a way back.
//!
//! The runbook: [`survey`] finds the program, keeps other runs away, and looks what there is to lose and how the tool's
//! history stands; whoever calls shows that and asks; [`prepare`] takes the snapshot, has it proved and the command
//! rehearsed on it where that is wanted (and then it is asked after that); [`run`] runs the command, and looks again, at the
//! table and the catalog and not at the exit code alone.
//!
//! While the command runs, pgkeep holds nothing but the lock, in database `postgres`: the command may drop and create the
//! database itself. What a crash leaves: before the snapshot's commit nothing; after it the snapshot, with its trigger
//! and labels, which retention keeps for `pre_migration`; right before the command an event says that it begins. The
//! next run finds these and tells what has happened ([`earlier`]). A guard that is killed does not take the command with it.

mod after;
mod earlier;
mod error;
mod survey;
mod way_back;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::error::{MigrateError, before_anything};
use self::survey::Held;
pub use self::survey::{Planned, Survey, survey};
use super::rehearse::{self, Choice, RehearseError, RehearseOptions, Rehearsing};
use super::{HealthChecks, Relay, program};
use crate::domain::connection::ConnectionInfo;
use crate::domain::id::BackupId;
use crate::domain::migration::{
    GuardOutcome, MigrationRecord, Rehearsal, SnapshotDecision, State, Warning,
};
use crate::domain::observer::{Observer, Severity};
use crate::domain::told::Failed;
use crate::domain::verification::Outcome;
use crate::failpoint;
use crate::ops::inspect;
use crate::ops::run::Run;
use crate::ops::snapshot::{self, SnapshotError, SnapshotOptions};
use crate::ops::verify::{self, Verifying};
use crate::postgres::PostgresError;
use crate::postgres::session::Session;
use crate::proof::Assertion;
use crate::repo::Repository;
use crate::repo::catalog::Filter;

/// What a guarded run works with.
#[derive(Clone, Copy)]
pub struct Guarding<'a> {
    /// Where the snapshot goes.
    pub repository: &'a Repository,
    /// How it is taken: trigger `pre-migration`, with the labels that were asked for.
    pub snapshot: &'a SnapshotOptions,
    /// The database.
    pub database: &'a str,
    /// How the snapshot is proved, and whether a rollback could be.
    pub verifying: &'a Verifying<'a>,
    /// What must hold afterwards.
    pub assertions: &'a [Assertion],
    /// Who must be well afterwards.
    pub health: &'a HealthChecks,
    /// Where the command runs.
    pub directory: &'a Path,
    /// Told right before the command begins: whatever is drawn on the terminal must go.
    pub begins: &'a (dyn Fn() + Sync),
    /// The run, for the audit trail.
    pub run: &'a Run,
    /// Who has the signals.
    pub relay: &'a Relay,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Ends it, but for the command.
    pub cancel: &'a CancellationToken,
}

impl Guarding<'_> {
    fn connection(&self) -> ConnectionInfo {
        self.snapshot.connection.with_database(self.database)
    }

    fn rehearsing(&self) -> Rehearsing<'_> {
        Rehearsing {
            repository: self.repository,
            snapshot: self.snapshot,
            database: self.database,
            verifying: self.verifying,
            assertions: self.assertions,
            directory: self.directory,
            begins: self.begins,
            observer: self.observer,
            cancel: self.cancel,
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct MigrateOptions {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// How long another run at that database is waited for.
    pub wait: Duration,
    /// No snapshot where nothing is pending.
    pub if_pending: bool,
    /// Ask no address afterwards.
    pub no_health: bool,
    /// Although the command names another database.
    pub elsewhere: bool,
    /// Only where a rollback could run.
    pub require_rollback: bool,
    /// Prove the snapshot first.
    pub verify: bool,
    /// Run the command on a copy of it first.
    pub rehearse: Option<RehearseOptions>,
    /// The command's stdout goes to stderr.
    pub stdout_to_stderr: bool,
}

/// How it came out.
#[derive(Debug)]
pub struct Report {
    /// What is recorded.
    pub record: MigrationRecord,
    /// What is wrong; none where the command's own exit code says all.
    pub failure: Option<Failed>,
}

impl Report {
    /// The exit code: of the failure, else the command's own.
    pub fn exit_code(&self) -> u8 {
        let own = self.record.ended.as_ref().map_or(0, |end| end.exit_code);
        self.failure.as_ref().map_or(own, |failure| failure.kind.exit_code())
    }
}

/// A record of a run that came to nothing, as far as it got.
pub fn not_run(command: &[String], survey: Option<&Survey>) -> MigrationRecord {
    MigrationRecord {
        command: super::masking::masked(command),
        git_commit: survey.and_then(|survey| survey.git_commit.clone()),
        before: survey.map(|survey| survey.states.clone()).unwrap_or_default(),
        after: None,
        snapshot: SnapshotDecision::None,
        ended: None,
        checks: Vec::new(),
        warnings: Vec::new(),
        outcome: GuardOutcome::NotRun,
        earlier: survey.and_then(|survey| survey.earlier.clone()),
        rehearsal: None,
    }
}

/// A survey, and what has been done before the command.
#[derive(Debug)]
pub struct Prepared {
    survey: Survey,
    record: MigrationRecord,
}

impl Prepared {
    /// The rehearsal, which has passed.
    pub fn rehearsal(&self) -> Option<&Rehearsal> {
        self.record.rehearsal.as_deref()
    }

    /// Of a command that is not run after all.
    pub fn given_up(self, failure: Failed) -> Report {
        Report { record: self.record, failure: Some(failure) }
    }
}

/// Does all that is to be done before the command; what came of it where that keeps the command from being run.
pub async fn prepare(
    guarding: &Guarding<'_>,
    options: &MigrateOptions,
    survey: Survey,
) -> Result<Prepared, Box<Report>> {
    let mut record = not_run(&options.command, Some(&survey));
    match Box::pin(steps_before(guarding, options, &survey, &mut record)).await {
        Ok(()) => Ok(Prepared { survey, record }),
        Err(error) => Err(Box::new(Report { record, failure: Some(Failed::of(&error)) })),
    }
}

/// Runs it, after whoever is asked has agreed.
pub async fn run(guarding: &Guarding<'_>, options: &MigrateOptions, prepared: Prepared) -> Report {
    let Prepared { survey, mut record } = prepared;
    let failure = steps(guarding, options, &survey, &mut record).await.err();
    let failure = failure.map(|error| Failed::of(&error));
    failpoint::hit("migrate.looked");
    Report { record, failure }
}

async fn steps_before(
    guarding: &Guarding<'_>,
    options: &MigrateOptions,
    survey: &Survey,
    record: &mut MigrationRecord,
) -> Result<(), MigrateError> {
    still_held(guarding, survey).await?;
    record.snapshot = match &survey.planned {
        Planned::NothingToLose(reason) => {
            SnapshotDecision::NothingToLose { reason: (*reason).to_owned() }
        }
        Planned::NothingPending => SnapshotDecision::NothingPending,
        Planned::Refused => return Err(refused(survey)),
        Planned::Snapshot => {
            let id = secure(guarding, survey).await?;
            failpoint::hit("migrate.snapshot-taken");
            record.snapshot = SnapshotDecision::Taken { id: id.clone(), verified: false };
            if options.verify {
                prove(guarding, &id).await?;
            }
            SnapshotDecision::Taken { id, verified: options.verify }
        }
    };
    if let (Some(rehearse), Some(understood)) = (&options.rehearse, &survey.rehearsed) {
        let Some(id) = record.way_back() else {
            let told = "nothing is rehearsed, since no snapshot is taken";
            guarding.observer.finding(Severity::Notice, told);
            return Ok(());
        };
        let rehearsing = guarding.rehearsing();
        let entry = rehearse::choose(&rehearsing, &Choice::Named(id.to_string())).await?;
        let run = rehearse::run(&rehearsing, rehearse, understood, &entry);
        let rehearsal = Box::pin(run).await?;
        let against = RehearseError::of(&rehearsal);
        record.rehearsal = Some(Box::new(rehearsal));
        if let Some(against) = against {
            return Err(against.into());
        }
    }
    Ok(())
}

async fn steps(
    guarding: &Guarding<'_>,
    options: &MigrateOptions,
    survey: &Survey,
    record: &mut MigrationRecord,
) -> Result<(), MigrateError> {
    if let Planned::NothingToLose(_) = &survey.planned {
        still_empty(guarding).await?;
    }
    if guarding.cancel.is_cancelled() {
        return Err(MigrateError::Interrupted);
    }
    if let Some(id) = record.way_back() {
        let begun = MigrationRecord { outcome: GuardOutcome::Begun, ..record.clone() };
        guarding.run.begins(guarding.repository, id, begun, guarding.observer).await;
    }
    failpoint::hit("migrate.begun");
    still_held(guarding, survey).await?;
    (guarding.begins)();
    let (name, arguments) = options.command.split_first().expect("checked by the survey");
    let ended =
        program::run(&survey.program, arguments, options.stdout_to_stderr, guarding.relay).await;
    let ended =
        ended.map_err(|source| MigrateError::NotStarted { program: name.clone(), source })?;
    failpoint::hit("migrate.ended");
    let code = ended.exit_code;
    record.ended = Some(ended);
    if survey.held.is_lost().await {
        let message =
            "the lock that keeps other runs away was lost while the command ran".to_owned();
        record.warnings.push(Warning { message, statement: None });
    }
    let found = after::look(guarding, options, survey, record).await;
    let broken: Vec<String> = record
        .checks
        .iter()
        .filter(|check| check.result == Outcome::Failed)
        .map(|check| check.detail.clone())
        .collect();
    record.outcome = match (code, broken.is_empty() && found.is_ok()) {
        (0, true) => GuardOutcome::Succeeded,
        (0, false) => GuardOutcome::ChecksFailed,
        _ => GuardOutcome::CommandFailed,
    };
    if code != 0 {
        // Its own code is passed on; what could not be looked at is told all the same.
        if let Err(error) = found {
            let message = format!("what it left could not be looked at: {error}");
            record.warnings.push(Warning { message, statement: None });
        }
        return Ok(());
    }
    match found {
        Err(error) => Err(MigrateError::ChecksFailed(format!(
            "what it left could not be looked at: {}",
            crate::domain::told::chain(&error)
        ))),
        Ok(()) if broken.is_empty() => Ok(()),
        Ok(()) => Err(MigrateError::ChecksFailed(broken.join("; "))),
    }
}

/// Somebody else may be at work without the lock.
async fn still_held(guarding: &Guarding<'_>, survey: &Survey) -> Result<(), MigrateError> {
    if survey.held.is_lost().await {
        return Err(MigrateError::LockLost(guarding.database.to_owned()));
    }
    Ok(())
}

/// The question may have stood for hours.
async fn still_empty(guarding: &Guarding<'_>) -> Result<(), MigrateError> {
    let session = match Session::connect(&guarding.connection(), "migrate").await {
        Ok(session) => session,
        Err(PostgresError::DatabaseMissing { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if super::history::holds_something(&session).await? {
        return Err(MigrateError::NoLongerEmpty(guarding.database.to_owned()));
    }
    Ok(())
}

/// Failed rows stop the tool's own apply command alone: what mends them must get through.
fn refused(survey: &Survey) -> MigrateError {
    let failed = survey.states.iter().find_map(|state| Some((state, state.failed.first()?)));
    let (State { tool, table, .. }, failed) = failed.expect("the survey found one");
    MigrateError::FailedBefore { tool: *tool, table: table.clone(), failed: failed.clone() }
}

/// The snapshot, committed before the command begins.
async fn secure(guarding: &Guarding<'_>, survey: &Survey) -> Result<BackupId, MigrateError> {
    let Guarding { repository, database, observer, cancel, .. } = *guarding;
    let mut options = guarding.snapshot.clone();
    let labels = std::mem::take(&mut options.labels);
    options.labels = own_labels(survey);
    // What somebody says himself wins.
    options.labels.extend(labels);
    let taken = match &survey.held {
        Held::Turn(turn) => {
            snapshot::one_in(turn, repository, &options, database, observer, cancel).await
        }
        // The database came to be after the lock was taken.
        Held::Lock(_) | Held::Nothing => {
            snapshot::one(repository, &options, database, observer, cancel).await
        }
    };
    let manifest = taken.map_err(|error| match error {
        SnapshotError::Interrupted => MigrateError::Interrupted,
        error => MigrateError::Snapshot(error),
    })?;
    let told = format!("snapshot {} of `{database}` is the way back", manifest.id);
    observer.finding(Severity::Notice, &told);
    if !manifest.excluded_table_data.is_empty() {
        let rows = manifest.excluded_table_data.join(", ");
        let told = format!("the rows of {rows} are not in it: a rollback would lose them");
        observer.finding(Severity::Warning, &told);
    }
    Ok(manifest.id)
}

fn own_labels(survey: &Survey) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if let Some(state) = survey.states.first() {
        labels.insert("tool".to_owned(), state.tool.to_string());
        labels.insert("pending".to_owned(), state.pending_count());
        if let Some(last) = &state.last_applied {
            labels.insert("last_applied".to_owned(), last.clone());
        }
    }
    if let Some(commit) = &survey.git_commit {
        labels.insert("git_commit".to_owned(), commit.clone());
    }
    labels
}

/// Restores it into scratch and compares.
async fn prove(guarding: &Guarding<'_>, id: &BackupId) -> Result<(), MigrateError> {
    let filter = Filter {
        cluster: Some(guarding.snapshot.cluster.clone()),
        database: Some(guarding.database.to_owned()),
    };
    guarding.observer.step("verifying", id.as_str());
    let entry = inspect::find(guarding.repository, &filter, id.as_str(), guarding.observer).await?;
    for (_, result) in verify::run(guarding.verifying, &[entry], |_| {}).await? {
        let report = result?;
        if report.result != Outcome::Passed {
            let broken = report.checks.iter().filter(|check| check.result == Outcome::Failed);
            let told: Vec<String> =
                broken.map(|check| format!("{}: {}", check.name, check.detail)).collect();
            return Err(MigrateError::NotProved(told.join("; ")));
        }
    }
    Ok(())
}
