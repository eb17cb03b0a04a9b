//! What is found before anything is done: who else is there, what there is to lose, which tool, and how its history
//! stands. The plan that is shown, and that `--dry-run` prints.

use std::time::{Duration, Instant};

use super::error::MigrateError;
use super::{Guarding, MigrateOptions, earlier, way_back};
use crate::domain::migration::{Action, Command, Earlier, State};
use crate::domain::observer::Severity;
use crate::guard::aftermath::Flaws;
use crate::guard::project::Project;
use crate::guard::rehearse::{self, Understood};
use crate::guard::target::{self, Meant};
use crate::guard::{git, history, masking, program};
use crate::ops::claim::{self, Claim};
use crate::ops::snapshot::{self, SnapshotError, Turn};
use crate::postgres::PostgresError;
use crate::postgres::pooler::Pooling;
use crate::postgres::session::Session;
use crate::postgres::sources::SystemSources;

/// How often it is looked whether the others have gone.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Whether a snapshot will be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Planned {
    /// It will.
    Snapshot,
    /// There is nothing to lose; why.
    NothingToLose(&'static str),
    /// `--if-pending`, and all files were read and are applied.
    NothingPending,
    /// The command will not be run: a migration failed before, and its tool would refuse.
    Refused,
}

/// What keeps other runs away from the database until it is dropped.
#[derive(Debug)]
pub(super) enum Held {
    /// The turn that a snapshot needs.
    Turn(Turn),
    /// The same lock, of a database that is not there yet.
    Lock(Claim),
    /// Nobody: only a plan is wanted, or the server has no place to meet.
    Nothing,
}

impl Held {
    /// Whether the server has taken it back meanwhile.
    pub(super) async fn is_lost(&self) -> bool {
        match self {
            Self::Turn(turn) => !turn.is_held().await,
            Self::Lock(claim) => !claim.is_held().await,
            Self::Nothing => false,
        }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Survey {
    /// The command, its secrets masked.
    pub command: Vec<String>,
    /// Where it runs, without a secret.
    pub place: String,
    /// The histories that matter to the command.
    pub states: Vec<State>,
    /// Whether a snapshot will be taken.
    pub planned: Planned,
    /// The commit that is checked out.
    pub git_commit: Option<String>,
    /// Whether the command is its tool's own that applies migrations.
    pub applies: bool,
    /// An earlier run of which nobody knows how it ended.
    pub earlier: Option<Earlier>,
    pub(super) understood: Command,
    /// Where Prisma's table is.
    pub(super) schema: Option<String>,
    pub(super) flaws: Flaws,
    pub(super) program: std::path::PathBuf,
    /// The command, where it is to be rehearsed.
    pub(super) rehearsed: Option<Understood>,
    pub(super) held: Held,
}

/// Looks, and takes the lock unless only a plan is wanted.
pub async fn survey(
    guarding: &Guarding<'_>,
    options: &MigrateOptions,
    only_plan: bool,
) -> Result<Survey, MigrateError> {
    let (name, _) = options.command.split_first().expect("the command line asks for one");
    let path = std::env::var_os("PATH");
    let program = program::find(name, path.as_deref()).map_err(|why| {
        let program = masking::masked(&options.command[..1]).concat();
        MigrateError::CommandNotFound { program, why }
    })?;
    let rehearsed = options.rehearse.as_ref();
    let rehearsed =
        rehearsed.map(|own| rehearse::understand(&guarding.rehearsing(), own)).transpose()?;
    let project = Project::at(guarding.directory);
    let mut understood = Command::understand(&options.command, &project);
    let schema = meant(guarding, options, &project, &mut understood)?;
    let held = if only_plan { Held::Nothing } else { hold(guarding, options.wait).await? };
    let connection = guarding.connection();
    let mut survey = Survey {
        command: masking::masked(&options.command),
        place: connection.describe(),
        states: Vec::new(),
        planned: Planned::NothingToLose("there is no such database"),
        git_commit: git::commit(guarding.directory),
        applies: understood.action == Action::Apply,
        earlier: None,
        schema: schema.or_else(|| connection.schema().map(str::to_owned)),
        understood,
        flaws: Flaws::default(),
        program,
        rehearsed,
        held,
    };
    let session = match Session::connect(&connection, "migrate").await {
        Ok(session) => session,
        Err(PostgresError::DatabaseMissing { .. }) => {
            survey.states = without_database(&survey.understood, &project);
            survey.earlier = earlier::look(guarding, &survey.states, None).await;
            return Ok(survey);
        }
        Err(error) => return Err(error.into()),
    };
    let schema = survey.schema.as_deref();
    survey.states = history::states(&session, &survey.understood, schema, &project).await?;
    survey.earlier = earlier::look(guarding, &survey.states, Some(&session)).await;
    survey.planned = if history::holds_something(&session).await? {
        survey.flaws = Flaws::of(&session).await?;
        if survey.applies && survey.states.iter().any(|state| !state.failed.is_empty()) {
            Planned::Refused
        } else if options.if_pending && survey.applies && is_done(&survey.states) {
            Planned::NothingPending
        } else {
            Planned::Snapshot
        }
    } else {
        Planned::NothingToLose("the database holds no table")
    };
    if survey.planned == Planned::Snapshot {
        look_back(guarding, options, &session).await?;
    }
    Ok(survey)
}

/// Whether a rollback could run. A host that only writes has none, which is no news; a full disk is.
async fn look_back(
    guarding: &Guarding<'_>,
    options: &MigrateOptions,
    session: &Session,
) -> Result<(), MigrateError> {
    if options.require_rollback
        && let Some(why) = way_back::closed(guarding, session).await?
    {
        return Err(MigrateError::NoWayBack(why));
    }
    match way_back::cramped(guarding, session).await? {
        Some(why) if options.require_rollback => Err(MigrateError::NoWayBack(why)),
        Some(why) => {
            let told = format!("a rollback could not run from here as it stands: {why}");
            guarding.observer.finding(Severity::Warning, &told);
            Ok(())
        }
        None => Ok(()),
    }
}

/// Refuses a command that names another database than the one that would be saved; the schema that it names.
fn meant(
    guarding: &Guarding<'_>,
    options: &MigrateOptions,
    project: &Project,
    command: &mut Command,
) -> Result<Option<String>, MigrateError> {
    let connection = guarding.connection();
    let addresses = command.addresses(project);
    match target::meant(&connection, &addresses, &SystemSources) {
        Meant::Unsaid => {}
        Meant::Same(schema) => return Ok(schema),
        Meant::Uncertain => command.doubt("the address that the command has cannot be compared"),
        Meant::Another(_) if options.elsewhere => {
            command.doubt("the command names another database");
        }
        Meant::Another(named) => {
            let guarded = target::place(&connection);
            return Err(MigrateError::AnotherDatabase { guarded, named });
        }
    }
    Ok(None)
}

fn is_done(states: &[State]) -> bool {
    !states.is_empty() && states.iter().all(State::has_nothing_pending)
}

/// The tool's files are all to come.
fn without_database(command: &Command, project: &Project) -> Vec<State> {
    let tool = command.tool.into_iter();
    tool.map(|tool| State::of(tool, None, &[], command, project)).collect()
}

/// Takes the lock that snapshots of this database take, and waits for who has it.
async fn hold(guarding: &Guarding<'_>, wait: Duration) -> Result<Held, MigrateError> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        if let Some(held) = attempt(guarding).await? {
            return Ok(held);
        }
        let database = guarding.database;
        if begun.elapsed() >= wait {
            let waited = begun.elapsed().as_secs();
            return Err(MigrateError::Busy { database: database.to_owned(), waited });
        }
        if !std::mem::replace(&mut told, true) {
            let message = format!("another run is at database `{database}`; waiting for it");
            guarding.observer.finding(Severity::Notice, &message);
        }
        guarding.observer.step("waiting for another run at", database);
        let left = wait.saturating_sub(begun.elapsed()).min(LOOK_AGAIN);
        tokio::select! {
            () = guarding.cancel.cancelled() => return Err(MigrateError::Interrupted),
            () = tokio::time::sleep(left) => {}
        }
    }
}

/// None where somebody else has it.
async fn attempt(guarding: &Guarding<'_>) -> Result<Option<Held>, MigrateError> {
    let Guarding { repository, snapshot: options, database, observer, cancel, .. } = *guarding;
    match snapshot::turn(repository, options, database, observer, cancel).await {
        Ok(turn) => return Ok(Some(Held::Turn(turn))),
        Err(SnapshotError::Busy(_)) => return Ok(None),
        Err(SnapshotError::Postgres(PostgresError::DatabaseMissing { .. })) => {}
        Err(SnapshotError::Interrupted) => return Err(MigrateError::Interrupted),
        Err(error) => return Err(MigrateError::Snapshot(error)),
    }
    let meeting_place = options.connection.with_database("postgres");
    let name = claim::of_snapshots(repository, &options.cluster, database);
    match claim::take(&meeting_place, Pooling::None, &name, observer).await {
        Ok(None) => Ok(None),
        Ok(Some(claim)) => {
            // Whoever had it before us may have made the database meanwhile; then its turn is what is wanted.
            match Session::connect(&guarding.connection(), "migrate").await {
                Err(PostgresError::DatabaseMissing { .. }) => Ok(Some(Held::Lock(claim))),
                _ => Ok(None),
            }
        }
        Err(error) if is_no_place(&error) => {
            let told = format!("nobody else is kept away from `{database}`: {error}");
            observer.finding(Severity::Notice, &told);
            Ok(Some(Held::Nothing))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether this role has no database to meet others in. It can make none either, so that the command will say so.
fn is_no_place(error: &PostgresError) -> bool {
    matches!(
        error,
        PostgresError::DatabaseMissing { .. }
            | PostgresError::NotAdmitted { .. }
            | PostgresError::PermissionDenied { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_that_is_closed_to_us_is_no_place_to_meet() {
        let address = || "h:5432".to_owned();
        let database = "postgres".to_owned();
        assert!(is_no_place(&PostgresError::DatabaseMissing { address: address(), database }));
        let message = "FATAL".to_owned();
        assert!(!is_no_place(&PostgresError::TooManyConnections { address: address(), message }));
        let waited = Duration::from_secs(1);
        assert!(!is_no_place(&PostgresError::TimedOut { address: address(), waited }));
    }
}
