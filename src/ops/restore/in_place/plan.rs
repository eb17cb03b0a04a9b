//! What a restore in place would do, decided before anything is touched: pure, and what `--dry-run` prints.

use std::collections::{BTreeMap, BTreeSet};

use super::super::RestoreError;
use super::super::plan::{Consent, Live, Source, Target, check_target, has_tablespaces};
use super::clearing::{Clearing, Found, decide as clear};
use crate::domain::globals::MissingRoles;
use crate::domain::id::BackupId;
use crate::domain::verification::Depth;

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlacePlan {
    /// The backup.
    pub id: BackupId,
    /// The database it was taken from.
    pub source: String,
    /// The database whose content it replaces.
    pub database: String,
    /// The target server.
    pub target: String,
    /// Its major version.
    pub target_major: u32,
    /// What goes and what stays.
    pub clearing: Clearing,
    /// Whether tables go into their own tablespaces, which the target has all of.
    pub table_spaces: bool,
    /// How deep it is checked in scratch.
    pub depth: Depth,
    /// Whether owners and grants are those of the source.
    pub roles: bool,
    /// Roles that are made first.
    pub roles_missing: MissingRoles,
    /// Plain size of the archive.
    pub archive_bytes: u64,
    /// What the operator should know.
    pub notices: Vec<String>,
}

impl InPlacePlan {
    /// The plan in words, one step a line.
    pub fn steps(&self) -> Vec<String> {
        let compared = match self.depth {
            Depth::Counts => "objects, row counts and sequences",
            Depth::Full => "objects, row counts, sequences and every row",
        };
        let (database, target) = (&self.database, &self.target);
        let mut steps = vec![format!(
            "restore backup {} of `{}` ({} MiB) into scratch elsewhere and compare {compared}",
            self.id,
            self.source,
            self.archive_bytes >> 20
        )];
        if !self.roles_missing.names.is_empty() {
            let names = self.roles_missing.names.join("`, `");
            steps.push(format!("create the roles `{names}` on {target}"));
        }
        steps.push(format!("keep writers out of `{database}` on {target}; readers go on"));
        steps.push("take a safety snapshot of it, pinned, into the same repository".to_owned());
        steps.push(format!(
            "in one transaction, nobody reading meanwhile: drop {}; load the backup; compare objects, row counts \
             and sequences; commit",
            self.clearing.told()
        ));
        steps
    }
}

/// Decides what to do, or why not.
pub(super) fn decide(
    source: &Source<'_>,
    database: &str,
    consent: Consent,
    depth: Depth,
    target: &Target,
    found: Found,
) -> Result<InPlacePlan, RestoreError> {
    check_target(source, target)?;
    if !source.excluded_table_data.is_empty() && !consent.allow_partial {
        return Err(RestoreError::Partial { tables: source.excluded_table_data.to_vec() });
    }
    let mut notices = Vec::new();
    if let Some(live) = &target.live {
        check_live(database, consent, live)?;
    }
    let clearing = clear(found, source.inventory).map_err(|(what, owners)| {
        let (database, role) = (database.to_owned(), target.role.clone());
        RestoreError::InTheWay { database, role, what, owners: owners.into_iter().collect() }
    })?;
    check_owners(source, target)?;
    let table_spaces = has_tablespaces(source, target);
    if !table_spaces {
        notices.push("tables lose their tablespaces, which the target lacks".to_owned());
    }
    if !consent.yes {
        return Err(RestoreError::NeedsYesInPlace { database: database.to_owned() });
    }
    Ok(InPlacePlan {
        id: source.id.clone(),
        source: source.database.to_owned(),
        database: database.to_owned(),
        target: target.described.clone(),
        target_major: target.server_version_num / 10_000,
        clearing,
        table_spaces,
        depth,
        roles: source.roles,
        roles_missing: source.roles_missing.clone(),
        archive_bytes: source.archive_bytes,
        notices,
    })
}

/// Whether the role may give everything to those whom the backup has as owners. Large objects are not in an
/// inventory: theirs are found when the archive is read, and then the transaction is rolled back.
fn check_owners(source: &Source<'_>, target: &Target) -> Result<(), RestoreError> {
    if !source.roles || target.superuser {
        return Ok(());
    }
    let inventory = source.inventory;
    let relations = inventory.relations.iter().map(|relation| &relation.owner);
    let objects = inventory.objects.iter().filter_map(|object| object.owner.as_ref());
    let owners: BTreeSet<&String> =
        relations.chain(objects).filter(|owner| !target.acts_as.contains(*owner)).collect();
    if owners.is_empty() {
        return Ok(());
    }
    let owners = owners.into_iter().cloned().collect();
    Err(RestoreError::Owners { role: target.role.clone(), owners })
}

/// What holds tables for ever, and what would carry the restore elsewhere or go on as if nothing had happened.
fn check_live(database: &str, consent: Consent, live: &Live) -> Result<(), RestoreError> {
    let mut what = BTreeMap::new();
    if !live.prepared.is_empty() {
        return Err(RestoreError::TablesHeld {
            database: database.to_owned(),
            holders: live.prepared.iter().map(|gid| format!("transaction `{gid}`")).collect(),
        });
    }
    if !live.slots.is_empty() {
        what.insert("logical replication slots", live.slots.clone());
    }
    if !live.subscriptions.is_empty() {
        what.insert("enabled subscriptions", live.subscriptions.clone());
    }
    if what.is_empty() || consent.force {
        return Ok(());
    }
    Err(RestoreError::Bound { database: database.to_owned(), what })
}
