//! `snapshot`: a logical backup of one database, or of several, one after the other.
//!
//! The runbook for one database ([`one`]): the lock that keeps a second run away ([`turn`]); the `before` hook;
//! the tables held still ([`crate::postgres::hold`]); `pg_dump`; the intent; inventory, globals and the dump, cut and
//! stored as it comes; the program's good end; the holder still there; the commit. A failure at any step
//! leaves nothing that is listed, and the next database is taken all the same. Who finds another run at it has not
//! failed: no hook is run for him, since those of the other one are at work.

mod doubts;
mod error;
mod hooks;
mod pulse;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::error::SnapshotError;
pub use self::hooks::{HookError, Hooks};
use self::pulse::Pulse;
use crate::domain::archive::{ArchiveSummary, ROW_SETTINGS};
use crate::domain::audit::RunId;
use crate::domain::connection::ConnectionInfo;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::inventory::{Inventory, display_name};
use crate::domain::manifest::{BackupKind, Manifest, PartKind, Trigger, Versions};
use crate::domain::observer::{Observer, Severity};
use crate::failpoint;
use crate::ops::claim::{self, Claim};
use crate::postgres::PostgresError;
use crate::postgres::catalog;
use crate::postgres::child::{Child, ChildSpec, capture};
use crate::postgres::dumped::{DumpedKind, DumpedRelation};
use crate::postgres::hold::{HeldSnapshot, HoldOptions, InTheWay};
use crate::postgres::pooler::{self, Pooling};
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;
use crate::repo::Repository;
use crate::repo::backup::{Backup, BackupSpec, Description};
use crate::repo::history::TableNames;

/// How long a store may take to note that a run that failed is dead; else a prune finds it out.
const ABANDON_MAX: Duration = Duration::from_secs(5);
/// How long the holder of the tables may take to say that it is there.
const HOLDER_PATIENCE: Duration = Duration::from_secs(30);
/// `pg_dump` gives up on a lock after this: somebody queues for one of our tables in front of it, and
/// would wait for us for ever while we wait for him.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How often a dump that lost such a wait begins anew, each time with all locks let go of in between.
const ATTEMPTS_MAX: u32 = 6;

/// What is to be taken.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// The cluster's name in the repository.
    pub cluster: ClusterName,
    /// How to reach it; the database in it is used for the list of databases.
    pub connection: ConnectionInfo,
    /// Why.
    pub trigger: Trigger,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Keep it from retention.
    pub pinned: bool,
    /// Tables whose rows are left out.
    pub exclude_table_data: Vec<String>,
    /// Commands around each run.
    pub hooks: Hooks,
    /// Where to look for client programs first.
    pub bin_dir: Option<PathBuf>,
    /// This host's name, for the record.
    pub host: String,
    /// What gives nothing for so long has stalled. Generous: sorting out a catalog of a hundred thousand tables
    /// takes `pg_dump` minutes of silence.
    pub idle: Duration,
    /// The run that it is taken in.
    pub run: Option<RunId>,
}

/// A template that someone made holds rows like any other database. `template1` is the server's own; a limit
/// of -2 marks what an interrupted DROP DATABASE left, which nobody can enter; and scratch is a copy.
const DATABASES: &str = "
    SELECT datname FROM pg_catalog.pg_database
     WHERE datallowconn AND datname <> 'template1' AND datconnlimit <> -2
       AND NOT (pg_catalog.starts_with(datname::text, 'pgkeep_scratch_')
                AND coalesce(pg_catalog.starts_with(
                        pg_catalog.shobj_description(oid, 'pg_database'), 'pgkeep scratch '), false))
     ORDER BY datname";

/// All databases of the cluster that allow connections.
pub async fn databases(connection: &ConnectionInfo) -> Result<Vec<String>, SnapshotError> {
    let session = Session::connect(connection, "databases").await?;
    let rows = session.client().query(DATABASES, &[]).await;
    let rows = rows.map_err(PostgresError::from)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The right to take a snapshot of one database in one repository. Until it is dropped nobody else has it.
#[derive(Debug)]
pub struct Turn {
    pooling: Pooling,
    claim: Claim,
}

impl Turn {
    /// Whether it is still held: the server may have ended its session.
    pub async fn is_held(&self) -> bool {
        self.claim.is_held().await
    }
}

/// Takes the turn of one database; [`SnapshotError::Busy`] where somebody else has it.
pub async fn turn(
    repository: &Repository,
    options: &SnapshotOptions,
    database: &str,
    observer: &dyn Observer,
    cancel: &CancellationToken,
) -> Result<Turn, SnapshotError> {
    let connection = options.connection.with_database(database);
    let pulse = Pulse::new(observer, database, options.idle);
    let ready = async {
        pulse.step("connecting", database);
        // What is wrong with keys or repository is known before the server is troubled.
        repository.write_access().await?;
        // Before the lock, which would belong to nobody behind such a pooler.
        let pooling = pooler::refuse_transaction_pooling(&connection).await?;
        let claim = claimed(repository, options, database, pooling, observer).await?;
        Ok::<_, SnapshotError>(Turn { pooling, claim })
    };
    pulse.guard(cancel, Box::pin(ready)).await
}

/// Takes a snapshot of one database, its hooks included.
pub async fn one(
    repository: &Repository,
    options: &SnapshotOptions,
    database: &str,
    observer: &dyn Observer,
    cancel: &CancellationToken,
) -> Result<Manifest, SnapshotError> {
    match turn(repository, options, database, observer, cancel).await {
        Err(SnapshotError::Busy(database)) => Err(SnapshotError::Busy(database)),
        Ok(turn) => one_in(&turn, repository, options, database, observer, cancel).await,
        Err(error) => hooked(Err(error), repository, options, database, observer, cancel).await,
    }
}

/// As [`one`], in a turn that was taken before and goes on after it.
pub async fn one_in(
    turn: &Turn,
    repository: &Repository,
    options: &SnapshotOptions,
    database: &str,
    observer: &dyn Observer,
    cancel: &CancellationToken,
) -> Result<Manifest, SnapshotError> {
    hooked(Ok(turn), repository, options, database, observer, cancel).await
}

/// The snapshot, between its hooks. Whoever waits for bad news hears of a turn that could not be taken, too.
async fn hooked(
    turn: Result<&Turn, SnapshotError>,
    repository: &Repository,
    options: &SnapshotOptions,
    database: &str,
    observer: &dyn Observer,
    cancel: &CancellationToken,
) -> Result<Manifest, SnapshotError> {
    let mut variables = vec![
        ("PGKEEP_HOOK_VERB", "snapshot".to_owned()),
        ("PGKEEP_HOOK_CLUSTER", options.cluster.to_string()),
        ("PGKEEP_HOOK_DATABASE", database.to_owned()),
    ];
    let result = match turn {
        Ok(turn) => match hooks::run(&options.hooks.before, &variables, cancel).await {
            Ok(()) => taken(turn, repository, options, database, observer, cancel).await,
            // No backup either way, and whoever is to be told of that must be told of this too.
            Err(HookError::Interrupted) => Err(SnapshotError::Interrupted),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error),
    };
    let hook = match &result {
        Ok(manifest) => {
            variables.push(("PGKEEP_HOOK_ID", manifest.id.to_string()));
            &options.hooks.after
        }
        Err(error) => {
            variables.push(("PGKEEP_HOOK_ERROR", error.to_string()));
            &options.hooks.failed
        }
    };
    // The backup is there or is not: a hook that only tells of it changes neither.
    // Whoever waits for bad news hears that a run was interrupted, too; a signal that comes now ends the hook.
    let never = CancellationToken::new();
    let until = if cancel.is_cancelled() { &never } else { cancel };
    if let Err(error) = hooks::run(hook, &variables, until).await {
        observer.finding(Severity::Warning, &format!("a hook failed: {error}"));
    }
    result
}

async fn taken(
    turn: &Turn,
    repository: &Repository,
    options: &SnapshotOptions,
    database: &str,
    observer: &dyn Observer,
    cancel: &CancellationToken,
) -> Result<Manifest, SnapshotError> {
    let connection = options.connection.with_database(database);
    let pulse = Pulse::new(observer, database, options.idle);
    let pooling = turn.pooling;
    let attempts_max = failpoint::attempts(ATTEMPTS_MAX);
    for attempt in 1.. {
        let observer = &pulse;
        let connection = &connection;
        let run = Run { repository, options, database, connection, pooling, observer, attempt };
        let result = run.attempt(cancel).await;
        match result {
            Err(error) if attempt < attempts_max && lost_a_lock(&error) => {
                let message = format!("somebody waits for a table of `{database}`; let him pass");
                observer.finding(Severity::Notice, &message);
                tokio::select! {
                    () = cancel.cancelled() => return Err(SnapshotError::Interrupted),
                    () = tokio::time::sleep(Duration::from_secs(attempt.into())) => {}
                }
            }
            result => return result,
        }
    }
    unreachable!("the last attempt returns")
}

/// Whether `pg_dump` gave up on a lock. It names the statement, and the rest of the server's words may be in
/// any language; what else could be wrong with a lock was found out before.
fn lost_a_lock(error: &SnapshotError) -> bool {
    match error {
        SnapshotError::Overtaken { .. } => true,
        SnapshotError::Postgres(error) => error.to_string().contains("LOCK TABLE"),
        _ => false,
    }
}

/// The advisory lock of this database's snapshots in this repository; another holder is exit 6.
async fn claimed(
    repository: &Repository,
    options: &SnapshotOptions,
    database: &str,
    pooling: Pooling,
    observer: &dyn Observer,
) -> Result<Claim, SnapshotError> {
    let own = options.connection.with_database(database);
    let name = claim::of_snapshots(repository, &options.cluster, database);
    let claim = claim::take(&own, pooling, &name, observer).await?;
    claim.ok_or_else(|| SnapshotError::Busy(database.to_owned()))
}

/// One attempt at one database.
struct Run<'a> {
    repository: &'a Repository,
    options: &'a SnapshotOptions,
    database: &'a str,
    connection: &'a ConnectionInfo,
    pooling: Pooling,
    observer: &'a Pulse<'a>,
    /// Which one, from 1 on.
    attempt: u32,
}

impl Run<'_> {
    async fn attempt(&self, cancel: &CancellationToken) -> Result<Manifest, SnapshotError> {
        let usual = HoldOptions::default();
        let hold = HoldOptions {
            exclude_table_data: self.options.exclude_table_data.clone(),
            lock_wait: failpoint::wait(usual.lock_wait),
            attempts_max: failpoint::attempts(usual.attempts_max),
        };
        self.observer.step("locking tables", self.database);
        // Cancelled by itself, so that no backend is left waiting for a lock.
        let take = HeldSnapshot::take(self.connection, &hold, self.observer, cancel);
        let take = async { Ok::<_, SnapshotError>(take.await?) };
        let holder = self.observer.guard(&CancellationToken::new(), Box::pin(take)).await?;
        if self.pooling == Pooling::Session {
            pooler::refuse_odd_settings(holder.session()).await?;
        }
        for pattern in &holder.held.unmatched {
            let message = format!("exclude_table_data: no table matches `{pattern}`");
            self.observer.finding(Severity::Warning, &message);
        }
        let major = holder.held.server_version_num / 10_000;
        let programs = Programs::find(major, self.options.bin_dir.as_deref())?;
        let spec = BackupSpec {
            kind: BackupKind::Snapshot,
            cluster: self.options.cluster.clone(),
            database: self.database.to_owned(),
            host: self.options.host.clone(),
        };
        // It reads its catalogs while the store is asked what is there.
        let dump = self.start_dump(&holder, &programs)?;
        let backup = self.repository.begin_backup(spec).await?;
        let abandon = Abandon { repository: self.repository, id: Some(backup.id().clone()) };
        // What is dropped here ends the programs and sessions; then there is time to tell a prune.
        let store = Box::pin(self.store(backup, holder, &programs, dump));
        let result = self.observer.guard(cancel, store).await;
        abandon.settle(result.is_ok()).await;
        result
    }

    /// Everything between the intent and the commit.
    async fn store(
        &self,
        mut backup: Backup<'_>,
        holder: HeldSnapshot,
        programs: &Programs,
        dump: Child,
    ) -> Result<Manifest, SnapshotError> {
        self.observer.step("dumping", self.database);
        let params = self.repository.document.chunking;
        let key = backup.access().chunk_key.clone();
        let dump = self.dump(&mut backup, dump);
        let inventory = async { Ok(catalog::inventory(holder.session().client()).await?) };
        let read = tokio::try_join!(dump, self.globals(programs), inventory);
        let (summary, globals, mut inventory) = match read {
            Err(error) if lost_a_lock(&error) => return Err(self.overtaken(&holder, error).await),
            read => read?,
        };
        let chunks = stream::bytes(globals, params, key);
        backup.write_part(PartKind::Globals, "globals", chunks, self.observer).await?;
        if !holder.is_alive(HOLDER_PATIENCE).await {
            return Err(SnapshotError::HolderLost(self.database.to_owned()));
        }
        refuse_unread(&holder.held.tables, &summary)?;
        complete(&mut inventory, &summary);
        if self.of_scratch() {
            // They say how scratch is run, not how the server was that nobody knows.
            inventory.settings.clear();
        }
        let description = self.description(&holder, programs, &inventory)?;
        // A snapshot that was not protected to its end must not be committed.
        holder.release().await?;
        self.observer.step("committing", self.database);
        let names = TableNames::of(&backup.access().chunk_key);
        let manifest = backup.commit(description).await?;
        doubts::tell(&manifest, &inventory.rows, &names, self.observer);
        // Order is by time: who asks for the latest would be given the older one, and not know it.
        if let Some(previous) = &manifest.previous
            && previous.id.second() > manifest.id.second()
        {
            let message = format!(
                "the clock of this host stands before backup {}: `latest` means that one, not {}",
                previous.id, manifest.id
            );
            self.observer.finding(Severity::Warning, &message);
        }
        Ok(manifest)
    }

    /// `pg_dump`, which waits with its first bytes until they are read.
    fn start_dump(
        &self,
        holder: &HeldSnapshot,
        programs: &Programs,
    ) -> Result<Child, SnapshotError> {
        let spec = ChildSpec::new(programs.program("pg_dump")?)
            .args(["--format=custom", "--compress=0", "--no-password", "--encoding=UTF8"])
            .arg(format!("--snapshot={}", holder.held.snapshot))
            .arg(format!("--lock-wait-timeout={}", failpoint::wait(LOCK_WAIT).as_millis()))
            .args(holder.held.excluded().map(|table| format!("--exclude-table-data={table}")))
            .purpose("pg_dump")
            .buffered_stdout();
        let spec = if self.pooling == Pooling::Session {
            // Settings do not get through; those that `pg_dump` does not make itself were looked at.
            spec.connection(self.connection)
        } else {
            spec.connection(&self.connection.with_options(&row_options()))
        };
        Ok(Child::spawn(spec)?)
    }

    /// Stores what `pg_dump` writes, to its good end.
    async fn dump(
        &self,
        backup: &mut Backup<'_>,
        mut child: Child,
    ) -> Result<ArchiveSummary, SnapshotError> {
        let pipe = child.take_stdout().expect("stdout was asked for");
        let params = self.repository.document.chunking;
        let key = backup.access().chunk_key.clone();
        let (chunks, summary) = stream::archive(pipe, params, key);
        backup.write_part(PartKind::Archive, "archive", chunks, self.observer).await?;
        // The stream has ended; only the exit code tells whether that was the end of the dump.
        child.wait().await?;
        let found = summary.await.expect("the thread tells when the stream has ended");
        Ok(found?)
    }

    /// Names the table and who queues for it, while the locks that he waits for are still held.
    async fn overtaken(&self, holder: &HeldSnapshot, error: SnapshotError) -> SnapshotError {
        match holder.in_the_way().await {
            Ok(InTheWay { tables, blockers }) => {
                SnapshotError::Overtaken { tables, attempts: self.attempt, blockers }
            }
            Err(_) => error,
        }
    }

    /// Roles and settings, without passwords where this role may not read them.
    async fn globals(&self, programs: &Programs) -> Result<Vec<u8>, SnapshotError> {
        let spec = |without_passwords: bool| -> Result<ChildSpec, PostgresError> {
            let spec = ChildSpec::new(programs.program("pg_dumpall")?)
                .args(["--globals-only", "--no-password"])
                .arg(format!("--database={}", self.connection_database()))
                .connection(self.connection)
                .purpose("pg_dumpall");
            Ok(if without_passwords { spec.arg("--no-role-passwords") } else { spec })
        };
        let refused = match capture(spec(false)?).await {
            Ok(script) => return Ok(script),
            Err(error) => error.to_string(),
        };
        let script = capture(spec(true)?).await?;
        // Where it is no lack of rights, the passwords are lost by an accident that may not come again.
        let (severity, why) = if refused.contains("pg_authid") {
            (Severity::Notice, "this role may not read them")
        } else {
            (Severity::Warning, &*refused)
        };
        let message = format!("roles are kept without their passwords: {why}");
        self.observer.finding(severity, &message);
        Ok(script)
    }

    /// Whether the source is a scratch cluster that an imported dump was loaded into.
    fn of_scratch(&self) -> bool {
        self.options.trigger == Trigger::Imported
    }

    /// `pg_dumpall` takes a database only as a connection string of its own.
    fn connection_database(&self) -> String {
        let quoted = self.database.replace('\\', "\\\\").replace('\'', "\\'");
        format!("dbname='{quoted}'")
    }

    fn description(
        &self,
        holder: &HeldSnapshot,
        programs: &Programs,
        inventory: &Inventory,
    ) -> Result<Description, SnapshotError> {
        let held = &holder.held;
        // A scratch cluster is no server that the cluster's name could know, and its WAL is nobody's.
        let place = (!self.of_scratch())
            .then(|| (held.system_identifier.clone(), held.timeline, held.lsn.clone()));
        let (system_identifier, timeline, lsn) = place.unwrap_or_default();
        Ok(Description {
            trigger: self.options.trigger,
            labels: self.options.labels.clone(),
            versions: Versions {
                server_version_num: held.server_version_num,
                server_version: held.server_version.clone(),
                pg_dump: programs.version("pg_dump")?,
                pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
            },
            system_identifier,
            timeline,
            lsn,
            excluded_table_data: held.excluded().collect(),
            rows: inventory.rows.clone(),
            inventory: serde_json::to_vec(inventory).expect("an inventory has text keys only"),
            pinned: self.options.pinned,
            run: self.options.run.clone(),
        })
    }
}

/// `pg_dump` sessions write rows as the proof compares them, whatever the role's settings are.
fn row_options() -> String {
    let options = ROW_SETTINGS.iter().map(|(name, value)| format!("-c {name}={value}"));
    options.collect::<Vec<_>>().join(" ")
}

/// Every table that was held has its rows in the archive, were it none; but for those left out on purpose.
///
/// What counts as the truth later comes out of the archive itself: a table that `pg_dump` passed over would
/// be expected empty, be restored empty, and so be found good.
fn refuse_unread(held: &[DumpedRelation], summary: &ArchiveSummary) -> Result<(), SnapshotError> {
    let read: BTreeSet<(&str, &str)> =
        summary.tables.iter().map(|table| (&*table.schema, &*table.name)).collect();
    let expected =
        |table: &&DumpedRelation| table.kind == DumpedKind::Table && !table.rows_excluded;
    let unread = |table: &&DumpedRelation| !read.contains(&(&*table.schema, &*table.name));
    let names: Vec<String> = held
        .iter()
        .filter(expected)
        .filter(unread)
        .map(|table| display_name(Some(&table.schema), &table.name))
        .collect();
    if names.is_empty() { Ok(()) } else { Err(SnapshotError::Unread(names)) }
}

/// Puts what the archive told into the inventory.
fn complete(inventory: &mut Inventory, summary: &ArchiveSummary) {
    inventory.rows = summary.table_counts();
    inventory.sequences.clone_from(&summary.sequences);
}

/// Declares a run dead that did not commit, so that no prune has to wait for it; also when the run is
/// cancelled and only its future is dropped.
struct Abandon<'a> {
    repository: &'a Repository,
    id: Option<BackupId>,
}

impl Abandon<'_> {
    async fn settle(mut self, committed: bool) {
        if let Some(id) = self.id.take()
            && !committed
        {
            // If the store does not answer either, a prune finds the intent unrenewed after its grace.
            let told = self.repository.abandon(&id);
            let _ = tokio::time::timeout(ABANDON_MAX, told).await;
        }
    }
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) {
            let repository = self.repository.clone();
            runtime.spawn(async move { repository.abandon(&id).await });
        }
    }
}
