//! `restore`: a backup becomes a database again, and takes a name only after it has proved itself.
//!
//! The order is: look at the target and decide ([`plan`]); make a scratch database on the target server; load
//! it while the archive comes in; check it; only then give it its name ([`swap`]). What is live is not touched
//! before that, and then by two renames in one transaction.
//!
//! Crash story: whatever step a crash or a cancellation hits, the live database is as it was or the swap is
//! complete. The scratch directory and the scratch database go with the command; what a SIGKILL leaves of them is marked
//! and unlocked, and the next run removes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

mod all;
mod error;
mod export;
pub mod in_place;
mod plan;
mod roles;
mod survey;
mod swap;
#[cfg(test)]
mod tests;

pub use all::{Restored, all, plan_of_all};
pub use error::{RestoreError, shell};
pub use export::{ExportFormat, ExportReport, Form, Output, export};
pub use plan::{Consent, Destination, Naming, RestorePlan, kept_before};

use super::claim::Claim;
use super::copy::{AfterLoad, OpenedBackup, dump_major, jobs};
use crate::domain::connection::ConnectionInfo;
use crate::domain::globals::MissingRoles;
use crate::domain::id::BackupId;
use crate::domain::observer::{Observer, Severity};
use crate::domain::verification::{Check, Depth, Outcome, outcome_of};
use crate::failpoint;
use crate::postgres::child::{Child, ChildSpec};
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, pooler};
use crate::proof::selection::{Omission, Only};
use crate::proof::{Assertion, Proof, ProofError, ProofRequest, verify};
use crate::repo::Repository;
use crate::repo::catalog::Entry;
use crate::scratch::database::{Creation, ScratchDatabase, maintenance_session};
use crate::scratch::directory::ScratchDirectory;
use crate::scratch::properties::DatabaseProperties;
use crate::scratch::{ScratchError, registry, space};

/// What a restore works with.
#[derive(Clone, Copy)]
pub struct Restoring<'a> {
    /// Where the backup is.
    pub repository: &'a Repository,
    /// Where it goes.
    pub server: &'a ConnectionInfo,
    /// Where client programs are looked for first.
    pub bin_dir: Option<&'a Path>,
    /// Where what `pg_restore` reads is put.
    pub scratch_dir: &'a Path,
    /// What must hold in the copy.
    pub assertions: &'a [Assertion],
    /// How long the server may be silent.
    pub idle: Duration,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Ends it.
    pub cancel: &'a CancellationToken,
}

/// What the operator asked for.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The name the copy takes.
    pub destination: Destination,
    /// What is allowed.
    pub consent: Consent,
    /// How deep the copy is checked; `counts` unless asked otherwise.
    pub depth: Depth,
    /// All objects belong to the role that restores, and nobody has grants on them.
    pub no_owner: bool,
    /// Roles that the target lacks are made as the snapshot has them; else they are an error.
    pub create_roles: bool,
    /// This alone is restored, with what it needs.
    pub only: Option<Only>,
    /// SQL scripts for psql, run in the copy when it has proved itself and before it gets its name.
    pub scripts: Vec<PathBuf>,
}

/// What was done.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// The backup.
    pub id: BackupId,
    /// The database it was taken from.
    pub source: String,
    /// The name the copy has now.
    pub database: String,
    /// The name that the database has which had it before.
    pub kept_as: Option<String>,
    /// Sessions that were ended for the swap.
    pub sessions_ended: u64,
    /// What was compared.
    pub checks: Vec<Check>,
    /// Roles that were made.
    pub roles_created: Vec<String>,
    /// What could not be restored or given to the copy, one line each.
    pub left_out: Vec<String>,
    /// What the database held before, where it was replaced in place.
    pub safety_snapshot: Option<BackupId>,
    /// From the first look to the last rename; in place, as long as writers waited.
    pub duration_ms: u64,
}

/// Decides what a restore of `entry` would do; changes nothing. This is `--dry-run`.
pub async fn plan(
    restoring: &Restoring<'_>,
    entry: &Entry,
    options: &RestoreOptions,
) -> Result<RestorePlan, RestoreError> {
    let backup = OpenedBackup::open(restoring.repository, entry).await?;
    let consent = Consent { yes: true, ..options.consent };
    refuse_pooler(restoring.server).await?;
    decide(restoring, &backup, &RestoreOptions { consent, ..options.clone() }, None).await
}

/// What was shown and agreed to, and what keeps others away from then on.
#[derive(Debug, Clone, Copy)]
pub struct Agreed<'a> {
    /// The plan: what is live must still be what it was made for.
    pub plan: &'a RestorePlan,
    /// Must be held when names change hands.
    pub claim: &'a Claim,
}

/// Restores `entry`.
pub async fn run(
    restoring: &Restoring<'_>,
    entry: &Entry,
    options: &RestoreOptions,
) -> Result<RestoreReport, RestoreError> {
    run_agreed(restoring, entry, options, None).await
}

/// Restores `entry` as it was agreed to, or not at all.
pub async fn run_agreed(
    restoring: &Restoring<'_>,
    entry: &Entry,
    options: &RestoreOptions,
    agreed: Option<Agreed<'_>>,
) -> Result<RestoreReport, RestoreError> {
    let ambient = restoring.repository.ambient();
    let begun = ambient.monotonic();
    refuse_pooler(restoring.server).await?;
    sweep(restoring).await?;
    let backup = OpenedBackup::open(restoring.repository, entry).await?;
    let plan = decide(restoring, &backup, options, agreed).await?;
    for notice in &plan.notices {
        restoring.observer.finding(Severity::Notice, notice);
    }
    let programs = client_programs(restoring, &backup, plan.target_major)?;
    let (session, _) = maintenance_session(restoring.server, Some(&plan.database)).await?;
    require_space(restoring, &session, plan.archive_bytes).await?;
    drop(session);
    let mut left_out = make_roles(restoring, &plan).await?;

    let programs = &programs;
    let work = Work { restoring, backup: &backup, plan: &plan, programs, agreed };
    let (proof, named) = match work.once().await {
        // A deadlock or an ended session is not the backup's fault. Only proving fails so: no name was touched.
        Err(RestoreError::Proof(error))
            if error.is_passing() && !restoring.cancel.is_cancelled() =>
        {
            let told = format!("once more, in a fresh scratch database, since {error}");
            restoring.observer.finding(Severity::Warning, &told);
            work.once().await?
        }
        first => first?,
    };
    left_out.extend(proof.left_out.iter().map(Omission::describe));
    left_out.extend(named.left_out);
    Ok(RestoreReport {
        id: plan.id,
        source: plan.source,
        database: plan.database,
        kept_as: match plan.naming {
            Naming::Swap { kept_as, .. } => Some(kept_as),
            Naming::Rename => None,
        },
        sessions_ended: named.sessions_ended,
        checks: proof.checks,
        roles_created: plan.roles_missing.names,
        left_out,
        safety_snapshot: None,
        duration_ms: milliseconds(ambient.monotonic().saturating_sub(begun)),
    })
}

/// Removes what killed runs left here and on the target.
async fn sweep(restoring: &Restoring<'_>) -> Result<(), RestoreError> {
    let scratch_dir = restoring.scratch_dir.to_owned();
    let swept = tokio::task::spawn_blocking(move || registry::sweep_directories(&scratch_dir));
    let directories = swept.await.expect("a sweep does not panic")?;
    for path in directories {
        let told = format!("removed `{}`, which a killed run left", path.display());
        restoring.observer.finding(Severity::Notice, &told);
    }
    for name in registry::sweep_databases(restoring.server).await? {
        let told = format!("dropped `{name}`, which a killed run left");
        restoring.observer.finding(Severity::Notice, &told);
    }
    Ok(())
}

/// Scratch is told from leftovers by a lock that lasts as long as its session, and is renamed when nobody is in it:
/// behind a pooler neither holds.
async fn refuse_pooler(server: &ConnectionInfo) -> Result<(), RestoreError> {
    // The database of the URL may be the one that was lost.
    for server in [server, &server.with_database("postgres")] {
        match pooler::refuse_pooling(server).await {
            Err(
                error @ (PostgresError::TransactionPooler { .. }
                | PostgresError::SessionPooler { .. }),
            ) => return Err(error.into()),
            Ok(()) => return Ok(()),
            // What is wrong with the way in, the next step tells.
            Err(_) => {}
        }
    }
    Ok(())
}

async fn decide(
    restoring: &Restoring<'_>,
    backup: &OpenedBackup<'_>,
    options: &RestoreOptions,
    agreed: Option<Agreed<'_>>,
) -> Result<RestorePlan, RestoreError> {
    let manifest = &backup.entry.manifest;
    let wanted = options.destination.name.as_deref().unwrap_or(&manifest.database);
    let (session, _) = maintenance_session(restoring.server, Some(wanted)).await?;
    let mut target = survey::of(&session, restoring.server, wanted).await?;
    let live = target.live.as_ref().map(|live| live.oid);
    if agreed.is_some_and(|agreed| agreed.plan.live_oid() != live) {
        return Err(RestoreError::LiveChanged(wanted.to_owned()));
    }
    let source = source(restoring, backup, options, &mut target).await?;
    plan::decide(&source, &options.destination, options.consent, options.depth, &target)
}

/// What a plan is made from; roles that are to be made count as there from then on.
async fn source<'a>(
    restoring: &Restoring<'_>,
    backup: &'a OpenedBackup<'_>,
    options: &'a RestoreOptions,
    target: &mut plan::Target,
) -> Result<plan::Source<'a>, RestoreError> {
    let manifest = &backup.entry.manifest;
    let roles_missing = if options.create_roles {
        roles::missing(restoring, backup, target).await?
    } else {
        MissingRoles::default()
    };
    Ok(plan::Source {
        id: &manifest.id,
        database: &manifest.database,
        excluded_table_data: &manifest.excluded_table_data,
        inventory: &backup.inventory,
        archive_bytes: backup.archive_bytes(),
        roles: !options.no_owner,
        roles_missing,
        only: options.only.as_ref(),
        scripts: &options.scripts,
    })
}

/// Makes the roles of the plan; what could not be given to them.
async fn make_roles(
    restoring: &Restoring<'_>,
    plan: &RestorePlan,
) -> Result<Vec<String>, RestoreError> {
    let (session, _) = maintenance_session(restoring.server, Some(&plan.database)).await?;
    roles::make(&session, &plan.roles_missing).await
}

/// `pg_restore` of the target's major, or of the `pg_dump` that wrote the archive where that is newer.
fn client_programs(
    restoring: &Restoring<'_>,
    backup: &OpenedBackup<'_>,
    target_major: u32,
) -> Result<Programs, RestoreError> {
    let dumped = dump_major(&backup.entry.manifest.versions.pg_dump).unwrap_or_default();
    Ok(Programs::find(target_major.max(dumped), restoring.bin_dir)?)
}

/// Room for the copy, where the server's disk can be seen from here.
async fn require_space(
    restoring: &Restoring<'_>,
    session: &Session,
    archive_bytes: u64,
) -> Result<(), RestoreError> {
    let copy_bytes = space::restored_bytes(archive_bytes, None);
    let (server, scratch_dir) = (restoring.server, restoring.scratch_dir);
    if room_for_copy(server, session, scratch_dir, copy_bytes).await? {
        return Ok(());
    }
    let told = format!(
        "the server's disk cannot be seen from here; the copy takes about {} MiB of it",
        copy_bytes >> 20
    );
    restoring.observer.finding(Severity::Notice, &told);
    Ok(())
}

/// Refuses where there is too little; false where the server's disk cannot be seen from here.
pub(crate) async fn room_for_copy(
    server: &ConnectionInfo,
    session: &Session,
    scratch_dir: &Path,
    copy_bytes: u64,
) -> Result<bool, ScratchError> {
    std::fs::create_dir_all(scratch_dir).map_err(ScratchError::io("cannot create", scratch_dir))?;
    space::require(scratch_dir, 0)?;
    let Some(data) = survey::local_data_directory(session, server).await else { return Ok(false) };
    space::require(&data, copy_bytes)?;
    Ok(true)
}

/// One restore, from the loaded archive on.
struct Work<'a> {
    restoring: &'a Restoring<'a>,
    backup: &'a OpenedBackup<'a>,
    plan: &'a RestorePlan,
    programs: &'a Programs,
    agreed: Option<Agreed<'a>>,
}

/// What naming the copy came to.
struct Named {
    sessions_ended: u64,
    left_out: Vec<String>,
}

impl Work<'_> {
    /// One copy: made, proved and named, or removed.
    async fn once(&self) -> Result<(Proof, Named), RestoreError> {
        let (restoring, plan) = (self.restoring, self.plan);
        let ambient = restoring.repository.ambient();
        let directory = ScratchDirectory::create(restoring.scratch_dir, ambient.random())?;
        restoring.observer.step("restoring", &plan.database);
        let creation = Creation {
            facts: &self.backup.inventory.database,
            owner: plan.owner.as_deref(),
            tablespace: plan.tablespace.as_deref(),
            closed: plan.closed,
            avoid: Some(&plan.database),
            tag: ambient.random(),
            patience: restoring.idle,
        };
        let scratch = ScratchDatabase::create(restoring.server, &creation).await?;
        failpoint::hit("restore.scratch-created");
        if scratch.maintenance_connection().database() == "template1" {
            let told = "held through `template1`: nobody can create databases until this is done";
            restoring.observer.finding(Severity::Warning, told);
        }
        let name = scratch.name().to_owned();
        let result = self.prove_and_name(&scratch, directory.path()).await;
        // On success it has another name by now, and this only lets its lock go.
        if let Err(error) = scratch.discard().await {
            let told = format!("`{name}` may still be there; the next restore drops it: {error}");
            restoring.observer.finding(Severity::Warning, &told);
        }
        result
    }

    async fn prove_and_name(
        &self,
        scratch: &ScratchDatabase,
        directory: &Path,
    ) -> Result<(Proof, Named), RestoreError> {
        let (restoring, plan) = (self.restoring, self.plan);
        let loaded = || failpoint::hit("restore.loaded");
        let request = ProofRequest {
            directory,
            target: &scratch.connection(),
            programs: self.programs,
            expected: &self.backup.inventory,
            depth: plan.depth,
            assertions: restoring.assertions,
            assertion_timeout: None,
            row_key: self.backup.row_key(),
            jobs: jobs(),
            only: plan.only.as_ref(),
            roles: plan.roles,
            tablespaces: plan.table_spaces,
            locale: true,
            analyze: true,
            observer: &AfterLoad { observer: restoring.observer, loaded: &loaded },
        };
        let (archive, fetch) = self.backup.archive(restoring.observer, restoring.cancel);
        let proof = async {
            tokio::select! {
                () = restoring.cancel.cancelled() => Err(RestoreError::Interrupted),
                lost = scratch.lost() => Err(ProofError::from(lost).into()),
                proof = verify(&request, archive) => Ok(proof?),
            }
        };
        let (fetched, proof) = tokio::join!(fetch, proof);
        fetched?;
        let proof = proof?;
        failpoint::hit("restore.checked");
        if outcome_of(&proof.checks) != Outcome::Passed {
            return Err(RestoreError::Checks { checks: proof.checks });
        }
        // Whoever works with the live database would find the copy closed to him.
        if plan.roles && !proof.roles && matches!(plan.naming, Naming::Swap { .. }) {
            return Err(RestoreError::WithoutOwners { database: plan.database.clone() });
        }
        for script in &plan.scripts {
            self.run_script(script, scratch).await?;
        }
        restoring.observer.step("renaming", &plan.database);
        failpoint::hit("restore.before-rename");
        if let Some(agreed) = self.agreed
            && !agreed.claim.is_held().await
        {
            return Err(RestoreError::LockLost(plan.database.clone()));
        }
        let named = self.name(scratch).await?;
        Ok((proof, named))
    }

    /// Runs psql with a script of the operator's. Its output is shown by no one: a script tells by failing.
    async fn run_script(
        &self,
        script: &Path,
        scratch: &ScratchDatabase,
    ) -> Result<(), RestoreError> {
        self.restoring.observer.step("running", &script.display().to_string());
        let target = scratch.connection();
        let spec = ChildSpec::new(self.programs.program("psql")?)
            .connection(&target)
            .purpose("restore")
            .args(["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"])
            .args(["--output=/dev/null", "--file"])
            .arg(script);
        let mut child = Child::spawn(spec)?;
        let exit = tokio::select! {
            () = self.restoring.cancel.cancelled() => return Err(RestoreError::Interrupted),
            exit = child.exit() => exit?,
        };
        child
            .judge(&exit)
            .map_err(|source| RestoreError::Script { path: script.to_owned(), source })
    }

    async fn name(&self, scratch: &ScratchDatabase) -> Result<Named, RestoreError> {
        let plan = self.plan;
        match &plan.naming {
            Naming::Rename => {
                let facts = &self.backup.inventory.database;
                let mut properties = DatabaseProperties::recorded(facts);
                if !plan.roles {
                    properties = properties.without_roles();
                }
                let left_out = swap::rename(scratch, &plan.database, &properties).await?;
                Ok(Named { sessions_ended: 0, left_out })
            }
            Naming::Swap { oid, kept_as } => {
                let swap = swap::Swap { database: &plan.database, oid: *oid, kept_as };
                let sessions_ended = swap::replace(scratch, swap, self.restoring.cancel).await?;
                Ok(Named { sessions_ended, left_out: Vec::new() })
            }
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
