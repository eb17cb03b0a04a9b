//! SQL for whoever wants back what a rollback replaced, or its room.

use crate::guard::rollback::RollbackPlan;
use crate::ops::restore::RestoreReport;
use crate::postgres::{quote_ident, quote_literal};

/// The way back from a rollback.
pub(super) struct Way<'a> {
    /// The name of what was live.
    pub(super) kept: &'a str,
    /// Ends the sessions in both, without which nothing can be renamed; then both renames. A statement or a
    /// transaction each.
    pub(super) back: [String; 2],
    /// Drops it.
    pub(super) drop: String,
}

impl<'a> Way<'a> {
    /// None where nothing was replaced.
    pub(super) fn back(plan: &RollbackPlan, report: &'a RestoreReport) -> Option<Self> {
        let kept = report.kept_as.as_deref()?;
        let (name, kept_name) = (quote_ident(&report.database), quote_ident(kept));
        let aside = quote_ident(&plan.restore.aside);
        let both = [quote_literal(&report.database), quote_literal(kept)].join(", ");
        Some(Self {
            kept,
            back: [
                format!(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname IN ({both});"
                ),
                format!(
                    "BEGIN; ALTER DATABASE {name} RENAME TO {aside}; ALTER DATABASE {kept_name} RENAME TO {name}; COMMIT;"
                ),
            ],
            drop: format!("DROP DATABASE {kept_name};"),
        })
    }
}
