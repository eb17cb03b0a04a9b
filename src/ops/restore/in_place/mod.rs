//! `restore --in-place`: a backup replaces what a database holds, for roles that may not create or rename any.
//!
//! The runbook, of which the first and the third step are other conductors' and the caller's: the backup is proved
//! in scratch; writers are kept out ([`hold`]); a safety snapshot is taken, while readers go on; then one
//! transaction ([`Held::replace`]) drops what is there, loads the backup, compares it with what was recorded, and
//! commits. So every write that was committed is in the safety snapshot or, being made later, waits for the
//! restored database. decisions/0009 has the reasons.
//!
//! Crash story: all is one transaction of one session, which begins in [`hold`]. Whatever ends it before its
//! COMMIT, a crash of ours or of the server, the database is as it was, byte for byte, and the safety snapshot
//! is one backup more. Where the answer to COMMIT is lost, the server is asked what became of it.

use std::time::Duration;

use tokio::time::Instant;

mod clearing;
mod plan;
mod room;

pub use clearing::Clearing;
pub use plan::InPlacePlan;

use super::{
    RestoreError, RestoreOptions, RestoreReport, Restoring, client_programs, milliseconds,
    require_space, roles, source, survey,
};
use crate::domain::connection::ConnectionInfo;
use crate::domain::id::BackupId;
use crate::domain::observer::Severity;
use crate::domain::verification::{Outcome, outcome_of};
use crate::failpoint;
use crate::ops::copy::{CopyError, OpenedBackup};
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, pooler, present};
use crate::proof::selection::Omission;
use crate::proof::{self, Proof, WithinRequest};
use crate::repo::catalog::Entry;
use crate::scratch::directory::ScratchDirectory;
use crate::scratch::sql::Statements as _;

/// How long the outcome of a COMMIT whose answer was lost is asked for.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);

/// Decides what a restore in place would do; changes nothing. This is `--dry-run`.
pub async fn plan(
    restoring: &Restoring<'_>,
    entry: &Entry,
    options: &RestoreOptions,
) -> Result<InPlacePlan, RestoreError> {
    // Known before anything else: without it there is no safety snapshot.
    restoring.repository.write_access().await.map_err(CopyError::from)?;
    let mut options = options.clone();
    options.consent.yes = true;
    let target = target(restoring, entry, &options);
    pooler::refuse_transaction_pooling(&target).await?;
    let backup = OpenedBackup::open(restoring.repository, entry).await?;
    let session = Session::connect(&target, "restore").await?;
    decide(restoring, &backup, &options, &session).await
}

/// The database that is meant: of that name, else the backup's own.
fn target(restoring: &Restoring<'_>, entry: &Entry, options: &RestoreOptions) -> ConnectionInfo {
    let name = options.destination.name.as_deref().unwrap_or(&entry.manifest.database);
    restoring.server.with_database(name)
}

async fn decide(
    restoring: &Restoring<'_>,
    backup: &OpenedBackup<'_>,
    options: &RestoreOptions,
    session: &Session,
) -> Result<InPlacePlan, RestoreError> {
    let manifest = &backup.entry.manifest;
    let database = options.destination.name.as_deref().unwrap_or(&manifest.database);
    let mut target = survey::of(session, restoring.server, database).await?;
    let source = source(restoring, backup, options, &mut target).await?;
    let found = found(session).await?;
    plan::decide(&source, database, options.consent, options.depth, &target, found)
}

async fn found(session: &Session) -> Result<clearing::Found, PostgresError> {
    let (large_objects, large_objects_of) = present::large_objects(session).await?;
    Ok(clearing::Found {
        objects: present::objects(session).await?,
        extensions: present::extensions(session).await?,
        default_privileges: present::default_privileges(session).await?,
        large_objects,
        large_objects_of,
    })
}

/// A database whose writers wait, until this is dropped or has done its work.
pub struct Held<'a> {
    session: Session,
    target: ConnectionInfo,
    backup: OpenedBackup<'a>,
    programs: Programs,
    plan: InPlacePlan,
    left_out: Vec<String>,
    begun: Duration,
}

/// Decides anew, makes missing roles, and keeps writers out of the database. Readers go on.
pub async fn hold<'a>(
    restoring: &Restoring<'a>,
    entry: &'a Entry,
    options: &RestoreOptions,
) -> Result<Held<'a>, RestoreError> {
    let begun = restoring.repository.ambient().monotonic();
    let target = target(restoring, entry, options);
    let backup = OpenedBackup::open(restoring.repository, entry).await?;
    let session = Session::connect(&target, "restore").await?;
    let mut plan = decide(restoring, &backup, options, &session).await?;
    for notice in &plan.notices {
        restoring.observer.finding(Severity::Notice, notice);
    }
    let programs = client_programs(restoring, &backup, plan.target_major)?;
    require_space(restoring, &session, backup.archive_bytes()).await?;
    let left_out = roles::make(&session, &plan.roles_missing).await?;
    restoring.observer.step("keeping writers out of", &plan.database);
    proof::prepare(&session, &backup.inventory).await?;
    session.execute(&own_settings(session.major())).await?;
    let keep = room::keep_writers_out(&session, &plan.database);
    tokio::select! {
        kept = keep => kept.map_err(|cause| rolled_back(&plan.database, cause))?,
        () = restoring.cancel.cancelled() => return Err(interrupted(&session).await),
    }
    // Between the first look and the locks something may have come that is in the way.
    plan.clearing = decide(restoring, &backup, options, &session).await?.clearing;
    failpoint::hit("in-place.held");
    Ok(Held { session, target, backup, programs, plan, left_out, begun })
}

/// A restore that commits must be durable, and no setting of the role may end it.
fn own_settings(major: u32) -> String {
    let timeout = if major >= 17 { "; SET transaction_timeout = 0" } else { "" };
    format!("RESET synchronous_commit; SET client_min_messages = 'warning'{timeout}")
}

fn rolled_back(database: &str, cause: RestoreError) -> RestoreError {
    RestoreError::RolledBack { database: database.to_owned(), cause: Box::new(cause) }
}

/// Without this the server would notice only after a while that nobody waits any more.
async fn interrupted(session: &Session) -> RestoreError {
    // A lost request is no matter: the session ends with its connection.
    let _ = session.cancel().await;
    RestoreError::Interrupted
}

impl Held<'_> {
    /// The database.
    pub fn database(&self) -> &str {
        &self.plan.database
    }

    /// The one transaction. `safety` is the backup that was taken of what it replaces.
    pub async fn replace(
        mut self,
        restoring: &Restoring<'_>,
        safety: BackupId,
    ) -> Result<RestoreReport, RestoreError> {
        failpoint::hit("in-place.safe");
        let database = self.plan.database.clone();
        let work = self.fill(restoring);
        let done = tokio::select! {
            done = work => done,
            () = restoring.cancel.cancelled() => Err(interrupted(&self.session).await),
        };
        let proof = match done {
            Err(RestoreError::Interrupted) => return Err(RestoreError::Interrupted),
            done => done.map_err(|cause| rolled_back(&database, cause))?,
        };
        // From here on a signal waits for the answer.
        self.commit().await?;
        failpoint::hit("in-place.committed");
        self.left_out.extend(proof.left_out.iter().map(Omission::describe));
        let ambient = restoring.repository.ambient();
        Ok(RestoreReport {
            id: self.plan.id,
            source: self.plan.source,
            database,
            kept_as: None,
            sessions_ended: 0,
            checks: proof.checks,
            roles_created: self.plan.roles_missing.names,
            left_out: self.left_out,
            safety_snapshot: Some(safety),
            duration_ms: milliseconds(ambient.monotonic().saturating_sub(self.begun)),
        })
    }

    /// Everything between the safety snapshot and COMMIT.
    async fn fill(&self, restoring: &Restoring<'_>) -> Result<Proof, RestoreError> {
        let Self { session, plan, backup, .. } = self;
        let observer = restoring.observer;
        let random = restoring.repository.ambient().random();
        let directory = ScratchDirectory::create(restoring.scratch_dir, random)?;
        observer.step("dropping what is in", &plan.database);
        room::clear(session, &plan.database, &plan.clearing).await?;
        let staying = room::settle_schemas(session, &plan.clearing, &backup.inventory).await?;
        failpoint::hit("in-place.cleared");
        let request = WithinRequest {
            session,
            directory: directory.path(),
            programs: &self.programs,
            expected: &backup.inventory,
            staying: &staying,
            roles: plan.roles,
            tablespaces: plan.table_spaces,
            observer,
        };
        let (archive, fetch) = backup.archive(observer, restoring.cancel);
        let (fetched, proof) = tokio::join!(fetch, proof::load_within(&request, archive));
        fetched?;
        let proof = proof?;
        failpoint::hit("in-place.checked");
        if outcome_of(&proof.checks) != Outcome::Passed {
            return Err(RestoreError::Checks { checks: proof.checks });
        }
        if plan.roles && !proof.roles {
            return Err(RestoreError::WithoutOwners { database: plan.database.clone() });
        }
        directory.remove()?;
        Ok(proof)
    }

    async fn commit(&self) -> Result<(), RestoreError> {
        let row = self.session.query_one("SELECT pg_current_xact_id()::text", &[]).await?;
        let transaction: String = row.get(0);
        let committed = self.session.execute("COMMIT").await;
        // COMMIT of a transaction that failed answers well and rolls back: the outcome is asked for in any case.
        let begun = Instant::now();
        let mut cause = committed.err();
        loop {
            match outcome(&self.session, &self.target, &transaction).await {
                Ok(Some(outcome)) if outcome == "committed" => return Ok(()),
                Ok(Some(outcome)) if outcome == "aborted" => {
                    let cause = cause.map_or(RestoreError::Interrupted, RestoreError::Postgres);
                    return Err(rolled_back(&self.plan.database, cause));
                }
                Ok(_) => {}
                Err(error) => cause = cause.or(Some(error)),
            }
            if begun.elapsed() > PATIENCE
                && let Some(cause) = cause
            {
                let database = self.plan.database.clone();
                return Err(RestoreError::CommitUnknown { database, transaction, cause });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// What became of a transaction, as the server tells over this session or a new one; none while it lasts.
async fn outcome(
    session: &Session,
    target: &ConnectionInfo,
    transaction: &str,
) -> Result<Option<String>, PostgresError> {
    let ask = async |session: &Session| {
        let sql = "SELECT pg_xact_status(($1::text)::xid8)";
        Ok(session.query_one(sql, &[&transaction]).await?.get(0))
    };
    if session.is_closed() {
        return ask(&Session::connect(target, "restore").await?).await;
    }
    ask(session).await
}
