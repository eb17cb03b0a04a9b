//! `rollback`: back to what a database was before a migration.
//!
//! The order is: find the snapshot ([`choose()`]); look at the live database and tell what it would lose ([`plan`]);
//! then keep other runs away ([`keep_others_out`]), see that all is still as it was shown, and let `restore` do what it
//! does for `--replace` ([`run`]): a copy in scratch, checked, swapped for the live database by two renames in one
//! transaction. The migrated database is kept beside it, and with it whatever was written since.
//!
//! Crash story: that of `restore`. The lock that keeps other runs away goes with its session.

mod choose;
mod error;
mod live;
mod lost;
mod tool;

pub use choose::{Chosen, Later, Scope, choose};
pub use error::RollbackError;
pub use lost::{LargeObjects, Loss, Lost, OnlyHere, TableChange};

use crate::domain::manifest::Trigger;
use crate::domain::told::Failed;
use crate::domain::verification::Depth;
use crate::ops::claim::{self, Claim};
use crate::ops::inspect;
use crate::ops::restore::{
    self, Agreed, Consent, Destination, Naming, RestoreOptions, RestorePlan, RestoreReport,
    Restoring,
};
use crate::postgres::pooler::Pooling;

/// What a rollback would do.
#[derive(Debug, Clone)]
pub struct RollbackPlan {
    /// How the copy is made and gets its name.
    pub restore: RestorePlan,
    /// What the live name loses.
    pub loss: Loss,
    /// Whether what is live is what a migration made of the snapshot, as far as anybody knows: not where the snapshot
    /// is of another moment, or was gone back to before.
    pub is_migrated: bool,
    /// Whether the guarded run that took the snapshot has no recorded end, and its command may be at work still.
    pub unended: bool,
}

impl RollbackPlan {
    /// Whether a live database loses its name.
    pub fn swaps(&self) -> bool {
        matches!(self.restore.naming, Naming::Swap { .. })
    }
}

/// Decides what a rollback would do, and looks what would be lost; changes nothing. This is `--dry-run`.
pub async fn plan(
    restoring: &Restoring<'_>,
    chosen: &Chosen,
    consent: Consent,
) -> Result<RollbackPlan, RollbackError> {
    let plan = restore::plan(restoring, &chosen.entry, &options(consent)).await;
    let plan = plan.map_err(|error| chosen.failed(error))?;
    let manifest = &chosen.entry.manifest;
    let is_first = plan.kept_before.is_empty();
    let is_migrated = is_first && manifest.trigger == Trigger::PreMigration;
    let guard = restoring.repository.unended_guard(&manifest.cluster, &manifest.database).await;
    // Worth a word, and no reason to stop where it cannot be read.
    let unended = guard
        .unwrap_or_default()
        .is_some_and(|one| one.begun.is_some() && one.snapshot == manifest.id);
    let mut plan = RollbackPlan { restore: plan, loss: Loss::Nothing, is_migrated, unended };
    if !plan.swaps() {
        return Ok(plan);
    }
    // After a run that was killed, or whose end nobody saw, what is live may be what was gone back to.
    if !is_first && !chosen.by_id {
        let (id, kept) = (manifest.id.clone(), plan.restore.kept_before);
        let command = chosen.command.clone();
        return Err(RollbackError::GoneBackBefore { id, kept, command });
    }
    plan.loss = loss(restoring, chosen, &plan.restore.database).await?;
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
            Loss::Known(Box::new(Lost::between(&recorded, &live, taken_at, counted_at)))
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
    // The cluster is one of this host's, so this is the name that its snapshots take on that server.
    let (cluster, database) = (&manifest.cluster, &manifest.database);
    let name = claim::of_snapshots(restoring.repository, cluster, database);
    let own = restoring.server.with_database(database);
    // A restore refuses every pooler, and the plan was made.
    let claim = claim::take(&own, Pooling::None, &name, restoring.observer).await?;
    claim.ok_or_else(|| RollbackError::Busy(database.clone()))
}

/// Goes back as `plan` has told, while the caller holds that lock.
pub async fn run(
    restoring: &Restoring<'_>,
    chosen: &Chosen,
    plan: &RollbackPlan,
    consent: Consent,
    held: &Claim,
) -> Result<RestoreReport, RollbackError> {
    choose::look_again(restoring.repository, chosen).await?;
    let agreed = Agreed { plan: &plan.restore, claim: held };
    let report =
        restore::run_agreed(restoring, &chosen.entry, &options(consent), Some(agreed)).await;
    report.map_err(|error| chosen.failed(error))
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
