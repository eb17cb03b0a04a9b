//! `rollback`: back to what a database was before a migration.
//!
//! The order is: find the snapshot ([`choose`]); look at the live database and tell what it would lose ([`plan`]);
//! then keep other runs away ([`keep_others_out`]), and let `restore` do what it does for `--replace` ([`run`]): a copy
//! in scratch, checked, swapped for the live database by two renames in one transaction. The migrated database is kept
//! beside it, and with it whatever was written since.
//!
//! Crash story: that of `restore`. The lock that keeps other runs away goes with its session.

mod live;
mod lost;
mod tool;

pub use lost::{Loss, Lost, OnlyHere, TableChange};

use crate::domain::failure::{Failure, FailureKind};
use crate::domain::id::BackupId;
use crate::domain::manifest::Trigger;
use crate::domain::observer::{Observer, Severity};
use crate::domain::told::Failed;
use crate::domain::verification::Depth;
use crate::ops::claim::{self, Claim};
use crate::ops::inspect::{self, InspectError};
use crate::ops::restore::{
    self, Consent, Destination, Naming, RestoreError, RestoreOptions, RestorePlan, RestoreReport,
    Restoring,
};
use crate::postgres::PostgresError;
use crate::postgres::pooler::Pooling;
use crate::repo::catalog::{Catalog, Entry, Filter};
use crate::repo::{RepoError, Repository};

/// What is meant without an id.
const NEWEST: &str = "latest:pre-migration";

/// Why a rollback did not happen; what is live is as it was, unless it says that this is not known.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// No snapshot of the kind that is meant without an id.
    #[error("no snapshot was taken before a migration")]
    NoneGuarded,
    /// Whoever takes a snapshot of that database, or guards it.
    #[error("another run of pgkeep is at `{0}`")]
    Busy(String),
    /// The catalog, or the inventory.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The restore.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The lock.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl Failure for RollbackError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::NoneGuarded => FailureKind::NotFound,
            Self::Busy(_) => FailureKind::Busy,
            Self::Inspect(error) => error.kind(),
            Self::Restore(error) => error.kind(),
            Self::Postgres(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoneGuarded => Some(
                "`pgkeep list` shows the backups there are: `pgkeep rollback ID` goes back to any of them; \
                 `pgkeep snapshot --trigger pre-migration` takes one"
                    .to_owned(),
            ),
            Self::Busy(_) => {
                Some("a snapshot or a guard of it is running; run this again when it has ended".to_owned())
            }
            Self::Inspect(error) => error.hint(),
            Self::Restore(error) => restore_hint(error),
            Self::Postgres(error) => error.hint(),
        }
    }
}

/// The hints of `restore` name flags that are its own.
fn restore_hint(error: &RestoreError) -> Option<String> {
    match error {
        RestoreError::NeedsYes { .. } => Some(
            "`--dry-run` shows what would be lost, `--yes` goes on; the migrated database is kept under another name"
                .to_owned(),
        ),
        RestoreError::Partial { .. } => {
            Some("`--allow-partial` goes on: these rows are then in the kept database only".to_owned())
        }
        RestoreError::WithoutOwners { .. } => Some(
            "roll back as a superuser or a member of every owner; `pgkeep restore ID --replace --no-owner` swaps it \
             all the same"
                .to_owned(),
        ),
        RestoreError::Privileges { .. } => error.hint().map(|hint| {
            format!("{hint} where nobody may: `pgkeep restore ID --in-place`, as on managed hosting")
        }),
        RestoreError::MissingRoles { .. } => Some(
            "`pgkeep restore ID --replace --roles create` makes them as the snapshot has them; `--no-owner` leaves \
             owners and grants out"
                .to_owned(),
        ),
        error => error.hint(),
    }
}

/// The snapshot to go back to, and what came after it.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The snapshot.
    pub entry: Entry,
    /// Later backups of the same database, newest first.
    pub later: Vec<Later>,
}

/// A backup that is later than the one that is gone back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    /// Its id.
    pub id: BackupId,
    /// Why it was taken.
    pub trigger: Trigger,
}

impl Chosen {
    fn of(entry: Entry, catalog: &Catalog) -> Self {
        let manifest = &entry.manifest;
        let is_later = |other: &&Entry| {
            (&other.manifest.cluster, &other.manifest.database)
                == (&manifest.cluster, &manifest.database)
                && other.manifest.started_at > manifest.started_at
        };
        let later = catalog
            .entries
            .iter()
            .filter(is_later)
            .map(|other| Later { id: other.manifest.id.clone(), trigger: other.manifest.trigger });
        Self { later: later.collect(), entry }
    }

    /// Those that were taken before later migrations: what these did goes too.
    pub fn guarded(&self) -> impl Iterator<Item = &Later> {
        self.later.iter().filter(|later| later.trigger == Trigger::PreMigration)
    }

    /// What the migration tool's own bookkeeping needs afterwards, one line each.
    pub fn bookkeeping(&self) -> Vec<String> {
        tool::bookkeeping(&self.entry.manifest.labels)
    }
}

/// What a rollback would do.
#[derive(Debug, Clone)]
pub struct RollbackPlan {
    /// How the copy is made and gets its name.
    pub restore: RestorePlan,
    /// What the live name loses.
    pub loss: Loss,
}

impl RollbackPlan {
    /// Whether a live database loses its name.
    pub fn swaps(&self) -> bool {
        matches!(self.restore.naming, Naming::Swap { .. })
    }
}

/// Finds the snapshot that `wanted` names, else the newest that was taken before a migration.
pub async fn choose(
    repository: &Repository,
    filter: &Filter,
    wanted: Option<&str>,
    observer: &dyn Observer,
) -> Result<Chosen, RollbackError> {
    let found = inspect::find_among(repository, filter, wanted.unwrap_or(NEWEST), observer).await;
    let (entry, catalog) = found.map_err(|error| match error {
        InspectError::Repo(RepoError::NoMatch(_)) if wanted.is_none() => RollbackError::NoneGuarded,
        error => error.into(),
    })?;
    let chosen = Chosen::of(entry, &catalog);
    let id = &chosen.entry.manifest.id;
    let guarded: Vec<&str> = chosen.guarded().map(|later| later.id.as_str()).collect();
    if !guarded.is_empty() {
        let told = format!(
            "backup {id} is older than later guarded migrations, which are undone too; their snapshots: {}",
            guarded.join(", ")
        );
        observer.finding(Severity::Warning, &told);
    }
    Ok(chosen)
}

/// Decides what a rollback would do, and looks what would be lost; changes nothing. This is `--dry-run`.
pub async fn plan(
    restoring: &Restoring<'_>,
    chosen: &Chosen,
    consent: Consent,
) -> Result<RollbackPlan, RollbackError> {
    let plan = restore::plan(restoring, &chosen.entry, &options(consent)).await?;
    let mut plan = RollbackPlan { restore: plan, loss: Loss::Nothing };
    if plan.swaps() {
        plan.loss = loss(restoring, chosen, &plan.restore.database).await?;
    }
    Ok(plan)
}

/// A live database that cannot be looked at may be the very reason to go back: then what is lost is not known, and
/// that is told.
async fn loss(
    restoring: &Restoring<'_>,
    chosen: &Chosen,
    database: &str,
) -> Result<Loss, RollbackError> {
    restoring.observer.step("counting", database);
    let recorded = inspect::inventory(restoring.repository, &chosen.entry)?;
    let ambient = restoring.repository.ambient();
    let counted_at = ambient.now();
    let live = live::look(&restoring.server.with_database(database), &**ambient).await;
    Ok(match live {
        Ok(live) => {
            let taken_at = chosen.entry.manifest.started_at;
            Loss::Known(Lost::between(&recorded, &live, taken_at, counted_at))
        }
        Err(error) => Loss::Unknown(Failed::of(&error).message),
    })
}

/// Takes the lock that keeps snapshots and guards of that database away. The swap would end the sessions of a snapshot,
/// and a migration that is running would go on in the kept database.
pub async fn keep_others_out(
    restoring: &Restoring<'_>,
    chosen: &Chosen,
) -> Result<Claim, RollbackError> {
    let manifest = &chosen.entry.manifest;
    let (cluster, database) = (&manifest.cluster, &manifest.database);
    let name = claim::of_snapshots(restoring.repository, cluster, database);
    let own = restoring.server.with_database(database);
    // A restore refuses every pooler, and the plan was made.
    let claim = claim::take(&own, Pooling::None, &name, restoring.observer).await?;
    claim.ok_or_else(|| RollbackError::Busy(database.clone()))
}

/// Goes back, while the caller holds that lock.
pub async fn run(
    restoring: &Restoring<'_>,
    chosen: &Chosen,
    consent: Consent,
    _held: &Claim,
) -> Result<RestoreReport, RollbackError> {
    Ok(restore::run(restoring, &chosen.entry, &options(consent)).await?)
}

/// As `restore --replace` without further words.
fn options(consent: Consent) -> RestoreOptions {
    RestoreOptions {
        destination: Destination { name: None, replace: true },
        consent,
        depth: Depth::Counts,
        no_owner: false,
        create_roles: false,
        only: None,
        scripts: Vec::new(),
    }
}
