//! `rehearse`: a command is run on a copy first, and what it does there is told.
//!
//! The runbook: [`understand`] refuses a command that would not work on the copy; [`choose`] finds the snapshot, or has one
//! taken; [`run`] restores it into a server of its own that looks like the source's, makes the roles there that the command
//! logs in as, counts, fences the live database, runs the command with its variables led to the copy, and counts again.
//!
//! The command is in a process group of its own, has no terminal and no stdin, and all that it says goes to stderr.
//! What a crash leaves: the copy's server and its directory, which the next run removes; nothing in the live database.

mod apart;
mod environment;
mod error;
mod fence;
mod likeness;
mod locks;
mod roles;
mod sight;
mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::apart::Apart;
use self::environment::{Changes, Copy};
pub use self::error::RehearseError;
use self::fence::Fence;
use self::likeness::Likeness;
use self::locks::Seen;
use super::aftermath::Flaws;
use super::project::Project;
use super::target::{self, Meant};
use super::{history, masking, program};
use crate::codec::random::random_bytes;
use crate::domain::connection::ConnectionInfo;
use crate::domain::migration::rehearsal::{FailOn, Sight, Verdict};
use crate::domain::migration::{Command, CommandEnd, Rehearsal, State};
use crate::domain::observer::Observer;
use crate::domain::told::chain;
use crate::domain::verification::{Check, Depth};
use crate::ops::inspect;
use crate::ops::snapshot::{self, SnapshotError, SnapshotOptions};
use crate::ops::verify::{self, StandingCopy, VerifyError, Verifying};
use crate::postgres::session::Session;
use crate::postgres::sources::SystemSources;
use crate::postgres::{PostgresError, quote_literal};
use crate::proof::{Assertion, assertions_hold};
use crate::repo::Repository;
use crate::repo::catalog::{Entry, Filter};
use crate::scratch::cluster::Settings;
use crate::scratch::database::keeper_settings;

/// Of a command that was ended under way; it gets no verdict.
const UNKNOWN_END: CommandEnd = CommandEnd { exit_code: 1, signal: None, duration_ms: 0 };

/// What a rehearsal works with.
#[derive(Clone, Copy)]
pub struct Rehearsing<'a> {
    /// Where the snapshots are.
    pub repository: &'a Repository,
    /// How a fresh one is taken, and how the live database is reached.
    pub snapshot: &'a SnapshotOptions,
    /// The database.
    pub database: &'a str,
    /// How a copy is made.
    pub verifying: &'a Verifying<'a>,
    /// What must hold afterwards.
    pub assertions: &'a [Assertion],
    /// Where the command runs.
    pub directory: &'a Path,
    /// Told right before the command begins: whatever is drawn on the terminal must go.
    pub begins: &'a (dyn Fn() + Sync),
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Ends it, and the command.
    pub cancel: &'a CancellationToken,
}

impl Rehearsing<'_> {
    fn live(&self) -> ConnectionInfo {
        self.snapshot.connection.with_database(self.database)
    }
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct RehearseOptions {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// What fails it.
    pub fail_on: FailOn,
    /// Variables that shall lead to the copy, beside those that do so anyway.
    pub variables: Vec<String>,
    /// The command runs through docker, ssh or the like, and hands the address on.
    pub forwarded: bool,
    /// Although the command names another database.
    pub elsewhere: bool,
    /// How long whoever migrates the live database is waited for.
    pub wait: Duration,
}

/// Which snapshot is restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The latest.
    Latest,
    /// One that is taken now.
    Fresh,
    /// The one that this names.
    Named(String),
}

/// A command that can be rehearsed.
#[derive(Debug)]
pub struct Understood {
    program: PathBuf,
    command: Command,
    schema: Option<String>,
}

/// Looks at the command; what could not work on the copy is refused before anything is done.
pub fn understand(
    rehearsing: &Rehearsing<'_>,
    options: &RehearseOptions,
) -> Result<Understood, RehearseError> {
    let words = &options.command;
    let (name, _) = words.split_first().expect("the command line asks for one");
    let path = std::env::var_os("PATH");
    let program = program::find(name, path.as_deref()).map_err(|why| {
        RehearseError::CommandNotFound { program: masking::masked(&words[..1]).concat(), why }
    })?;
    if words::name_a_server(words) {
        return Err(RehearseError::NamesAServer);
    }
    let project = Project::at(rehearsing.directory);
    let mut command = Command::understand(words, &project);
    let forwarder = command.forwarder().or_else(|| words::forwarder(words));
    if let Some(forwarder) = forwarder.filter(|_| !options.forwarded) {
        return Err(RehearseError::Forwarded(forwarder.to_owned()));
    }
    let live = rehearsing.live();
    let schema = match target::meant(&live, &command.addresses(&project), &SystemSources) {
        Meant::Same(schema) => schema,
        Meant::Another(named) if !options.elsewhere => {
            return Err(RehearseError::AnotherDatabase { guarded: target::place(&live), named });
        }
        Meant::Another(_) | Meant::Uncertain => {
            command.doubt("the address that the command has cannot be compared");
            None
        }
        Meant::Unsaid => None,
    };
    let schema = schema.or_else(|| live.schema().map(str::to_owned));
    Ok(Understood { program, command, schema })
}

/// The snapshot that is to be restored.
pub async fn choose(rehearsing: &Rehearsing<'_>, choice: &Choice) -> Result<Entry, RehearseError> {
    let Rehearsing { repository, snapshot, database, observer, cancel, .. } = *rehearsing;
    let wanted = match choice {
        Choice::Latest => "latest".to_owned(),
        Choice::Named(name) => name.clone(),
        Choice::Fresh => {
            let taken = snapshot::one(repository, snapshot, database, observer, cancel).await;
            let manifest = taken.map_err(|error| match error {
                SnapshotError::Interrupted => RehearseError::Interrupted,
                error => RehearseError::Snapshot(error),
            })?;
            manifest.id.to_string()
        }
    };
    let filter =
        Filter { cluster: Some(snapshot.cluster.clone()), database: Some(database.to_owned()) };
    Ok(inspect::find(repository, &filter, &wanted, observer).await?)
}

/// Rehearses it on a copy of that snapshot.
pub async fn run(
    rehearsing: &Rehearsing<'_>,
    options: &RehearseOptions,
    understood: &Understood,
    entry: &Entry,
) -> Result<Rehearsal, RehearseError> {
    let observer = rehearsing.observer;
    let source = Session::connect(&rehearsing.live(), "rehearse").await?;
    let likeness = likeness::of(&source).await?;
    // It waits while the copy is made.
    source.batch(&keeper_settings(source.major())).await?;
    let verifying = Verifying { depth: Depth::Counts, assertions: &[], ..*rehearsing.verifying };
    observer.step("restoring", entry.manifest.id.as_str());
    let copy = match verify::stand(&verifying, entry, &likeness.settings).await {
        Err(VerifyError::Interrupted) => return Err(RehearseError::Interrupted),
        copy => copy?,
    };
    let stage = Stage { rehearsing, options, understood, source: &source, copy: &copy };
    let rehearsed = match Box::pin(stage.rehearse(entry, likeness)).await {
        Err(RehearseError::Postgres(source @ PostgresError::ConnectionLost { .. }))
            if Session::connect(copy.connection(), "rehearse").await.is_err() =>
        {
            Err(RehearseError::Lost { log: copy.log_tail(), source })
        }
        rehearsed => rehearsed,
    };
    let stopped = copy.stop().await;
    let rehearsal = rehearsed?;
    stopped?;
    Ok(rehearsal)
}

/// A copy, and what is to be done on it.
struct Stage<'a> {
    rehearsing: &'a Rehearsing<'a>,
    options: &'a RehearseOptions,
    understood: &'a Understood,
    /// In the live database.
    source: &'a Session,
    copy: &'a StandingCopy,
}

/// Whether histories are others now; files are the command's to change.
fn moved(before: &[State], after: &[State]) -> bool {
    let of_tables = |states: &[State]| {
        let table = |state: &State| {
            let State { tool, table, applied, last_applied, failed, .. } = state.clone();
            (tool, table, applied, last_applied, failed)
        };
        states.iter().map(table).collect::<Vec<_>>()
    };
    of_tables(before) != of_tables(after)
}

/// What was found before the command.
struct Ready {
    changes: Changes,
    before: Sight,
    flaws: Flaws,
    /// Of the live database.
    histories: Vec<State>,
    /// Whether the copy's are others: then it would be other migrations that are rehearsed, or none.
    is_behind: bool,
    fence: Fence,
}

/// What was found when it had ended.
struct Worked {
    ended: CommandEnd,
    seen: Seen,
    /// Why it was not at work on the copy, or not there alone.
    elsewhere: Vec<String>,
}

impl Stage<'_> {
    async fn rehearse(
        &self,
        entry: &Entry,
        likeness: Likeness,
    ) -> Result<Rehearsal, RehearseError> {
        let Self { rehearsing, options, copy, .. } = *self;
        let ready = self.unless_cancelled(Box::pin(self.prepare(&likeness.limits))).await?;
        let Ready { changes, before, flaws, histories, is_behind, fence } = ready;
        // It ends the command by itself when it is cancelled.
        let Worked { ended, seen, mut elsewhere } = self.work(&changes, fence).await?;
        if is_behind {
            let told = "the copy's history of migrations is not the live database's: rehearse with `--fresh`";
            elsewhere.push(told.to_owned());
        }
        if copy.visits()? == 0 {
            elsewhere.push(
                "the command never connected to the copy: does it take its address from elsewhere?"
                    .to_owned(),
            );
        }
        let mut rehearsal = Rehearsal {
            command: masking::masked(&options.command),
            snapshot: entry.manifest.id.clone(),
            restore_ms: copy.restore_ms,
            ended,
            resolution_ms: seen.resolution_ms(),
            locks: seen.of_tables(&before),
            rewrites: Vec::new(),
            rows: Vec::new(),
            losses: Vec::new(),
            checks: Vec::new(),
            warnings: Vec::new(),
            differs: self.differs(entry, likeness.differs),
            verdict: Verdict::None,
            reasons: Vec::new(),
        };
        rehearsing.observer.step("counting", copy.connection().database());
        let looked = self.unless_cancelled(async {
            if moved(&histories, &self.histories().await?) {
                let told = "the live database's history of migrations is another now";
                elsewhere.push(told.to_owned());
            }
            self.look_after(&flaws, &mut rehearsal).await
        });
        let after = looked.await?;
        rehearsal.rewrites = before.rewrites(&after);
        rehearsal.rows = before.rows(&after);
        rehearsal.losses = before.losses(&after);
        rehearsal.judge(&options.fail_on, elsewhere);
        Ok(rehearsal)
    }

    async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, RehearseError>>,
    ) -> Result<T, RehearseError> {
        tokio::select! {
            done = work => done,
            () = self.rehearsing.cancel.cancelled() => Err(RehearseError::Interrupted),
        }
    }

    /// Roles, counts, and the fence, the last of all: nobody is kept waiting without need.
    async fn prepare(&self, limits: &Settings) -> Result<Ready, RehearseError> {
        let Self { rehearsing, options, copy, .. } = *self;
        let Rehearsing { observer, database, .. } = *rehearsing;
        let changes = self.lead().await?;
        observer.step("counting", copy.connection().database());
        let session = Session::connect(copy.connection(), "rehearse").await?;
        let before = sight::look(&session).await?;
        let flaws = Flaws::of(&session).await?;
        let of_copy = self.histories_in(&session).await?;
        // The command may drop the database.
        drop(session);
        // Not for pgkeep's own sessions, as far as these take long.
        let server = Session::connect(copy.connection(), "rehearse").await?;
        for (name, value) in limits {
            let value = quote_literal(value);
            server.batch(&format!("ALTER SYSTEM SET {name} = {value}")).await?;
        }
        server.batch("SELECT pg_catalog.pg_reload_conf()").await?;
        drop(server);
        let histories = self.histories().await?;
        let is_behind = moved(&of_copy, &histories);
        observer.step("fencing", database);
        let live = rehearsing.live();
        let fence = Fence::raise(&live, &histories, options.wait, observer).await?;
        Ok(Ready { changes, before, flaws, histories, is_behind, fence })
    }

    /// Makes the roles that the command logs in as; what leads it to the copy.
    async fn lead(&self) -> Result<Changes, RehearseError> {
        let Self { rehearsing, options, source, copy, .. } = *self;
        let ours = environment::of(&Project::at(rehearsing.directory));
        let live = rehearsing.live();
        let wanted = environment::roles(&ours, &options.variables, &live, &SystemSources);
        let password = format!("{:032x}", u128::from_le_bytes(random_bytes()?));
        let server = Session::connect(copy.connection(), "rehearse").await?;
        let roles = roles::make(source, &server, &wanted, &password).await?;
        let database = copy.connection().database();
        let copy = Copy { port: copy.port(), password: &password, database, roles: &roles };
        Ok(environment::pointed(&ours, &options.variables, &live, &SystemSources, &copy))
    }

    /// How the tools' histories stand in the live database.
    async fn histories(&self) -> Result<Vec<State>, RehearseError> {
        // Somebody may have ended a session that waited so long.
        let session = Session::connect(&self.rehearsing.live(), "rehearse").await?;
        self.histories_in(&session).await
    }

    async fn histories_in(&self, session: &Session) -> Result<Vec<State>, RehearseError> {
        let project = Project::at(self.rehearsing.directory);
        let Understood { command, schema, .. } = self.understood;
        Ok(history::states(session, command, schema.as_deref(), &project).await?)
    }

    /// Runs the command, and looks at its locks and at the fence meanwhile.
    async fn work(&self, changes: &Changes, mut fence: Fence) -> Result<Worked, RehearseError> {
        let Self { rehearsing, options, copy, .. } = *self;
        let Rehearsing { observer, directory, cancel, .. } = *rehearsing;
        // Beside the database, which the command may drop.
        let beside = copy.connection().with_database("postgres");
        let server = Session::connect(&beside, "rehearse").await?;
        let database = sight::oid_of(&server, copy.connection().database()).await?;
        observer.step("rehearsing", rehearsing.database);
        (rehearsing.begins)();
        let (name, arguments) = options.command.split_first().expect("understood");
        let not_started = |source| RehearseError::NotStarted { program: name.clone(), source };
        let program = &self.understood.program;
        let mut apart =
            Apart::start(program, arguments, changes, directory).map_err(not_started)?;
        let (mut seen, mut lost) = (Seen::default(), None);
        let ended = tokio::select! {
            ended = apart.ended() => ended.map_err(not_started),
            source = seen.watch(&server, database) => {
                Err(RehearseError::Lost { log: copy.log_tail(), source })
            }
            error = fence.watch(observer) => {
                lost = Some(error);
                Ok(UNKNOWN_END)
            }
            () = cancel.cancelled() => Err(RehearseError::Interrupted),
        };
        // What is left of it may not go on where nothing keeps it out.
        apart.stop().await;
        if lost.is_none() {
            lost = fence.look(observer).await.err();
        }
        let ended = ended?;
        let mut elsewhere = Vec::new();
        if fence.kept_out() > 0 {
            elsewhere.push(format!(
                "{} session(s) wanted the tool's lock in the live database and were kept out: were they the command's?",
                fence.kept_out()
            ));
        }
        if let Some(error) = lost.or(fence.lift().await.err()) {
            let told = "the live database was not kept from the command to the end";
            elsewhere.push(format!("{told}: {}", chain(&error)));
        }
        Ok(Worked { ended, seen, elsewhere })
    }

    /// What the command left.
    async fn look_after(
        &self,
        flaws: &Flaws,
        rehearsal: &mut Rehearsal,
    ) -> Result<Sight, RehearseError> {
        let connection = self.copy.connection();
        let Some(session) = sight::session(connection).await? else {
            let told = format!("the command left no database `{}`", connection.database());
            rehearsal.checks.push(Check::failed("database", told));
            return Ok(Sight::default());
        };
        let after = sight::look(&session).await?;
        rehearsal.warnings = Flaws::of(&session).await?.since(flaws);
        drop(session);
        let assertions = self.rehearsing.assertions;
        if !assertions.is_empty() {
            let idle = Some(self.rehearsing.snapshot.idle);
            rehearsal.checks.push(assertions_hold(connection, assertions, idle).await?);
        }
        Ok(after)
    }

    fn differs(&self, entry: &Entry, mut differs: Vec<String>) -> Vec<String> {
        let (major, of_source) = (self.copy.major(), self.source.major());
        if major != of_source {
            differs.insert(0, format!("PostgreSQL {major} in place of {of_source}"));
        }
        let without = entry.manifest.excluded_table_data.join(", ");
        if !without.is_empty() {
            differs
                .push(format!("without the rows of {without}: what they would lose is not seen"));
        }
        let database = self.copy.connection().database();
        if database != entry.manifest.database {
            differs.push(format!("it was called {database}"));
        }
        differs
    }
}
