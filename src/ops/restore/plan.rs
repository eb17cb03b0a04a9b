//! What a restore would do, decided before anything is made: pure, and what `--dry-run` prints.
//!
//! Everything that can be known beforehand is refused here: a name that is taken, a role, an extension or
//! a privilege that the target lacks, and what would stay behind with a database that is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::domain::globals::MissingRoles;
use crate::domain::id::BackupId;
use crate::domain::inventory::{Inventory, PG_CRON};
use crate::domain::verification::Depth;
use crate::postgres::quote_ident;
use crate::proof::selection::Only;

use super::RestoreError;
use super::error::listed;

/// `NAMEDATALEN - 1`.
const NAME_BYTES_MAX: usize = 63;

/// Which name the copy takes when it has proved itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Destination {
    /// `--as NAME`; none is the snapshot's own name.
    pub name: Option<String>,
    /// `--replace`: swap it for the live database of that name.
    pub replace: bool,
}

/// What the operator allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consent {
    /// `--yes`: a live database may lose its name.
    pub yes: bool,
    /// `--force`: what stays with the old database may stay there.
    pub force: bool,
    /// `--allow-partial`: a copy without some tables' rows may replace a whole one.
    pub allow_partial: bool,
}

/// The target server as it was found.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
#[derive(Debug, Clone, Default)]
pub(super) struct Target {
    /// `user@host:port/database`, for messages.
    pub(super) described: String,
    /// Its `server_version_num`.
    pub(super) server_version_num: u32,
    /// The role pgkeep connects as.
    pub(super) role: String,
    /// Whether that role is a superuser.
    pub(super) superuser: bool,
    /// Whether that role may create databases.
    pub(super) createdb: bool,
    /// Whether that role may create roles.
    pub(super) createrole: bool,
    /// Whether it is in recovery, and takes no writes.
    pub(super) standby: bool,
    /// Roles that exist.
    pub(super) roles: BTreeSet<String>,
    /// Those of them that pgkeep's role may give things to.
    pub(super) acts_as: BTreeSet<String>,
    /// Extensions that can be installed.
    pub(super) extensions: BTreeSet<String>,
    /// Tablespaces that exist.
    pub(super) tablespaces: BTreeSet<String>,
    /// Databases that exist.
    pub(super) databases: BTreeSet<String>,
    /// The database that has the wanted name.
    pub(super) live: Option<Live>,
}

/// A database that a copy would replace.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Live {
    /// Its oid, which a rename keeps.
    pub(super) oid: u32,
    /// Its owner.
    pub(super) owner: String,
    /// Whether pgkeep's role may act as its owner.
    pub(super) owned: bool,
    /// Its default tablespace.
    pub(super) tablespace: String,
    /// Whether someone granted or revoked something on it.
    pub(super) has_grants: bool,
    /// Whether it lets anyone in.
    pub(super) allows_connections: bool,
    /// Logical replication slots in it.
    pub(super) slots: Vec<String>,
    /// Enabled subscriptions in it.
    pub(super) subscriptions: Vec<String>,
    /// Prepared transactions in it.
    pub(super) prepared: Vec<String>,
    /// Whether `pg_cron` runs its jobs out of it.
    pub(super) cron: bool,
}

/// The part of a manifest that a plan is made from.
#[derive(Debug, Clone)]
pub(super) struct Source<'a> {
    /// The backup.
    pub(super) id: &'a BackupId,
    /// Its database.
    pub(super) database: &'a str,
    /// Tables whose rows were left out when it was taken.
    pub(super) excluded_table_data: &'a [String],
    /// What it holds.
    pub(super) inventory: &'a Inventory,
    /// Plain size of its archive.
    pub(super) archive_bytes: u64,
    /// Whether owners and grants are to be those of the source.
    pub(super) roles: bool,
    /// Roles to make on the target; they count as there.
    pub(super) roles_missing: MissingRoles,
    /// This alone.
    pub(super) only: Option<&'a Only>,
    /// Scripts to run in the copy.
    pub(super) scripts: &'a [PathBuf],
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    /// The backup.
    pub id: BackupId,
    /// The database it was taken from.
    pub source: String,
    /// The name the copy takes.
    pub database: String,
    /// The target server.
    pub target: String,
    /// Its major version.
    pub target_major: u32,
    /// How the name is taken.
    pub naming: Naming,
    /// Whose the copy is from the beginning; none is pgkeep's role. Later owners of what is in it may need a right
    /// that only the database's owner has from the beginning, such as making things in `public`.
    pub owner: Option<String>,
    /// The tablespace that the copy is made in; none is the server's default.
    pub tablespace: Option<String>,
    /// Whether tables go into their own tablespaces, which the target has all of.
    pub table_spaces: bool,
    /// Whether the copy is closed to PUBLIC from the beginning.
    pub closed: bool,
    /// How deep it is checked.
    pub depth: Depth,
    /// Whether owners and grants are those of the source.
    pub roles: bool,
    /// Roles that are made first.
    pub roles_missing: MissingRoles,
    /// This alone is restored, with what it needs.
    pub only: Option<Only>,
    /// Scripts that are run in the copy.
    pub scripts: Vec<PathBuf>,
    /// Plain size of the archive.
    pub archive_bytes: u64,
    /// What the operator should know.
    pub notices: Vec<String>,
    /// Databases that earlier restores of this backup to this name have kept.
    pub kept_before: Vec<String>,
    /// A free name for the copy, should somebody want back what it replaced.
    pub aside: String,
}

/// How the copy takes its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// The name is free.
    Rename,
    /// Both renames in one transaction.
    Swap {
        /// The live database's oid.
        oid: u32,
        /// The name it keeps its content under.
        kept_as: String,
    },
}

impl RestorePlan {
    /// The oid of the database that loses its name; none where the name is free.
    pub const fn live_oid(&self) -> Option<u32> {
        match self.naming {
            Naming::Rename => None,
            Naming::Swap { oid, .. } => Some(oid),
        }
    }

    /// The plan in words, one step a line.
    pub fn steps(&self) -> Vec<String> {
        let mebibytes = self.archive_bytes >> 20;
        let mut steps = Vec::new();
        if !self.roles_missing.names.is_empty() {
            let names = self.roles_missing.names.join("`, `");
            steps.push(format!("create the roles `{names}` on {}", self.target));
        }
        steps.extend([
            format!("fetch backup {} of `{}` ({mebibytes} MiB)", self.id, self.source),
            match &self.only {
                Some(only) => {
                    format!("restore {} into a scratch database on {}", only.told(), self.target)
                }
                None => format!("restore it into a scratch database on {}", self.target),
            },
            match self.depth {
                Depth::Counts => "compare objects, row counts and sequences".to_owned(),
                Depth::Full => "compare objects, row counts, sequences and every row".to_owned(),
            },
        ]);
        steps.extend(self.scripts.iter().map(|path| format!("run `{}` in it", path.display())));
        match &self.naming {
            Naming::Rename => steps.push(format!("rename it to `{}`", self.database)),
            Naming::Swap { kept_as, .. } => {
                steps.push(format!("end the sessions in `{}`", self.database));
                steps.push(format!(
                    "in one transaction: rename `{0}` to `{kept_as}`, give the copy its owner, \
                     grants and settings, and rename the copy to `{0}`",
                    self.database
                ));
            }
        }
        steps
    }
}

/// Decides what to do, or why not.
pub(super) fn decide(
    source: &Source<'_>,
    destination: &Destination,
    consent: Consent,
    depth: Depth,
    target: &Target,
) -> Result<RestorePlan, RestoreError> {
    let database = destination.name.as_deref().unwrap_or(source.database);
    check_name(database)?;
    check_target(source, target)?;
    if !target.superuser && !target.createdb {
        return Err(RestoreError::Privileges {
            role: target.role.clone(),
            lacks: "may not create databases".to_owned(),
            statement: format!("ALTER ROLE {} CREATEDB;", quote_ident(&target.role)),
        });
    }
    let mut notices = Vec::new();
    let naming = match (&target.live, destination.replace) {
        (None, _) => {
            if destination.replace {
                notices.push(format!("there is no database `{database}` to replace"));
            }
            Naming::Rename
        }
        (Some(_), false) => {
            return Err(RestoreError::NameTaken {
                database: database.to_owned(),
                target: target.described.clone(),
            });
        }
        (Some(live), true) => {
            check_swap(source, database, consent, target, live)?;
            if !live.allows_connections {
                notices.push(format!(
                    "`{database}` lets nobody in (ALLOW_CONNECTIONS false); the copy will"
                ));
            }
            let kept_as = kept_name(database, source.id, &target.databases);
            // Consented to; who reads it is to know where to look for it.
            let stays = stays_behind(live);
            if !stays.is_empty() {
                let what = listed(&stays);
                notices.push(format!("stays with the old database, `{kept_as}`: {what}"));
            }
            Naming::Swap { oid: live.oid, kept_as }
        }
    };
    let facts = &source.inventory.database;
    let wanted = target.live.as_ref().map_or(&facts.tablespace, |live| &live.tablespace);
    if !target.tablespaces.contains(wanted) {
        notices.push(format!("there is no tablespace `{wanted}`; the default one is used"));
    }
    let table_spaces = has_tablespaces(source, target);
    if !table_spaces {
        notices.push("tables lose their tablespaces, which the target lacks".to_owned());
    }
    let default = wanted == "pg_default" || !target.tablespaces.contains(wanted);
    Ok(RestorePlan {
        id: source.id.clone(),
        source: source.database.to_owned(),
        database: database.to_owned(),
        target: target.described.clone(),
        target_major: target.server_version_num / 10_000,
        naming,
        owner: first_owner(source, target),
        tablespace: (!default).then(|| wanted.clone()),
        table_spaces,
        closed: target.live.as_ref().map_or(!facts.acl.is_empty(), |live| live.has_grants),
        depth,
        roles: source.roles,
        roles_missing: source.roles_missing.clone(),
        only: source.only.cloned(),
        scripts: source.scripts.to_vec(),
        archive_bytes: source.archive_bytes,
        notices,
        kept_before: kept_before(database, source.id, &target.databases),
        aside: aside_name(database, &target.databases),
    })
}

/// The live database's owner, else the recorded one, where a role that is no superuser may make it one.
fn first_owner(source: &Source<'_>, target: &Target) -> Option<String> {
    let recorded = &source.inventory.database.owner;
    let owner = target.live.as_ref().map_or(recorded, |live| &live.owner);
    (source.roles && !target.superuser && target.acts_as.contains(owner)).then(|| owner.clone())
}

/// Whether the target has all tablespaces that tables lie in.
pub(super) fn has_tablespaces(source: &Source<'_>, target: &Target) -> bool {
    let mut spaces =
        source.inventory.relations.iter().filter_map(|table| table.tablespace.as_ref());
    spaces.all(|name| target.tablespaces.contains(name))
}

fn check_name(database: &str) -> Result<(), RestoreError> {
    let good = !database.is_empty()
        && database.len() <= NAME_BYTES_MAX
        && !database.contains('\0')
        && !matches!(database, "template0" | "template1");
    if good { Ok(()) } else { Err(RestoreError::Name(database.to_owned())) }
}

/// Whether that server can hold the backup at all.
pub(super) fn check_target(source: &Source<'_>, target: &Target) -> Result<(), RestoreError> {
    let inventory = source.inventory;
    if inventory.major() > target.server_version_num / 10_000 {
        return Err(RestoreError::OlderTarget {
            source_major: inventory.major(),
            target_major: target.server_version_num / 10_000,
        });
    }
    if target.standby {
        return Err(RestoreError::Standby(target.described.clone()));
    }
    if !source.roles_missing.names.is_empty() && !target.superuser && !target.createrole {
        return Err(RestoreError::Privileges {
            role: target.role.clone(),
            lacks: "may not create roles".to_owned(),
            statement: format!("ALTER ROLE {} CREATEROLE;", quote_ident(&target.role)),
        });
    }
    let needed = if source.roles { inventory.roles_needed.as_slice() } else { &[] };
    let lacks = |role: &&String| !target.roles.contains(*role);
    let roles: Vec<String> = needed.iter().filter(lacks).cloned().collect();
    if !roles.is_empty() {
        return Err(RestoreError::MissingRoles { roles, target: target.described.clone() });
    }
    let names = inventory.extensions.iter().map(|extension| &extension.name);
    let lacks = |name: &&String| *name != PG_CRON && !target.extensions.contains(*name);
    let extensions: Vec<String> = names.filter(lacks).cloned().collect();
    if !extensions.is_empty() {
        let target = target.described.clone();
        return Err(RestoreError::MissingExtensions { extensions, target });
    }
    let facts = &inventory.database;
    if facts.locale_provider == "builtin" && target.server_version_num < 170_000 {
        return Err(RestoreError::OlderTarget {
            source_major: inventory.major().max(17),
            target_major: target.server_version_num / 10_000,
        });
    }
    Ok(())
}

/// Whether the live database may lose its name.
fn check_swap(
    source: &Source<'_>,
    database: &str,
    consent: Consent,
    target: &Target,
    live: &Live,
) -> Result<(), RestoreError> {
    if !target.superuser && !live.owned {
        return Err(RestoreError::Privileges {
            role: target.role.clone(),
            lacks: format!("is no member of `{}`, which owns `{database}`", live.owner),
            statement: format!(
                "GRANT {} TO {};",
                quote_ident(&live.owner),
                quote_ident(&target.role)
            ),
        });
    }
    if !source.excluded_table_data.is_empty() && !consent.allow_partial {
        return Err(RestoreError::Partial { tables: source.excluded_table_data.to_vec() });
    }
    // A database with prepared transactions cannot be renamed: no consent helps there.
    if !live.prepared.is_empty() {
        return Err(RestoreError::StaysBehind {
            database: database.to_owned(),
            what: BTreeMap::from([("prepared transactions", live.prepared.clone())]),
            can_be_forced: false,
        });
    }
    let what = stays_behind(live);
    if !what.is_empty() && !consent.force {
        return Err(RestoreError::StaysBehind {
            database: database.to_owned(),
            what,
            can_be_forced: true,
        });
    }
    if !consent.yes {
        return Err(RestoreError::NeedsYes { database: database.to_owned() });
    }
    Ok(())
}

/// What belongs to a database by its oid and not by its name.
fn stays_behind(live: &Live) -> BTreeMap<&'static str, Vec<String>> {
    let mut what = BTreeMap::new();
    if !live.slots.is_empty() {
        what.insert("logical replication slots", live.slots.clone());
    }
    if !live.subscriptions.is_empty() {
        what.insert("enabled subscriptions", live.subscriptions.clone());
    }
    if live.cron {
        what.insert("pg_cron", vec!["its jobs".to_owned()]);
    }
    what
}

/// `<name>_before_<id>`, and `_2`, `_3`, … behind it where an earlier restore of that backup has kept one;
/// the database's name is cut at a character where 63 bytes would not do.
pub(super) fn kept_name(database: &str, id: &BackupId, taken: &BTreeSet<String>) -> String {
    free_name(database, &format!("_before_{id}"), taken)
}

/// `<name>_rolled_back`, likewise.
fn aside_name(database: &str, taken: &BTreeSet<String>) -> String {
    free_name(database, "_rolled_back", taken)
}

fn free_name(database: &str, ending: &str, taken: &BTreeSet<String>) -> String {
    let name = |number: u32| {
        let again = if number == 1 { String::new() } else { format!("_{number}") };
        cut(database, &format!("{ending}{again}"))
    };
    let numbers = 1..=u32::MAX;
    numbers.map(name).find(|name| !taken.contains(name)).expect("a server has fewer databases")
}

fn cut(database: &str, ending: &str) -> String {
    let room = (NAME_BYTES_MAX - ending.len()).min(database.len());
    let end = (0..=room).rev().find(|at| database.is_char_boundary(*at));
    format!("{}{ending}", &database[..end.unwrap_or(0)])
}

/// The names of that kind that are taken, whichever of them were dropped in between.
pub fn kept_before(database: &str, id: &BackupId, taken: &BTreeSet<String>) -> Vec<String> {
    let ending = format!("_before_{id}");
    let is_one = |name: &&String| {
        name.rfind(&ending).is_some_and(|at| {
            let number = &name[at + ending.len()..];
            let is_number = number.strip_prefix('_').is_some_and(|n| n.parse::<u32>().is_ok());
            (number.is_empty() || is_number)
                && **name == cut(database, &format!("{ending}{number}"))
        })
    };
    taken.iter().filter(is_one).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::failure::{Failure as _, FailureKind};
    use crate::domain::inventory::Extension;

    fn inventory() -> Inventory {
        Inventory {
            extensions: vec![Extension {
                name: "citext".into(),
                version: "1.6".into(),
                schema: "public".into(),
            }],
            roles_needed: vec!["app".into(), "Odd \"role".into()],
            ..Inventory::empty()
        }
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn target(live: Option<Live>) -> Target {
        Target {
            described: "admin@db:5432/postgres".into(),
            server_version_num: 150_018,
            role: "admin".into(),
            superuser: false,
            createdb: true,
            createrole: false,
            standby: false,
            roles: set(&["admin", "app", "Odd \"role"]),
            acts_as: set(&["admin", "app"]),
            extensions: set(&["citext", "plpgsql"]),
            tablespaces: set(&["pg_default", "pg_global"]),
            databases: set(&["postgres"]),
            live,
        }
    }

    fn live() -> Live {
        Live {
            oid: 16_400,
            owner: "app".into(),
            owned: true,
            tablespace: "pg_default".into(),
            allows_connections: true,
            ..Live::default()
        }
    }

    fn plan(
        destination: &Destination,
        consent: Consent,
        excluded: &[String],
        target: &Target,
    ) -> Result<RestorePlan, RestoreError> {
        let inventory = inventory();
        let id = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        let source = Source {
            id: &id,
            database: "shop",
            excluded_table_data: excluded,
            inventory: &inventory,
            archive_bytes: 5 << 20,
            roles: true,
            roles_missing: MissingRoles::default(),
            only: None,
            scripts: &[],
        };
        decide(&source, destination, consent, Depth::Counts, target)
    }

    const REPLACE: Destination = Destination { name: None, replace: true };
    const YES: Consent = Consent { yes: true, force: false, allow_partial: false };

    #[test]
    fn a_free_name_is_taken_and_a_taken_one_refused_with_the_choices() {
        let own = Destination::default();
        let good = plan(&own, Consent::default(), &[], &target(None)).expect("a plan");
        assert_eq!((good.database.as_str(), &good.naming), ("shop", &Naming::Rename));
        let error = plan(&own, YES, &[], &target(Some(live()))).expect_err("it is taken");
        assert_eq!(error.kind(), FailureKind::Usage);
        let hint = error.hint().expect("a hint");
        for choice in ["--as", "--replace", "--output"] {
            assert!(hint.contains(choice), "{hint}");
        }
    }

    #[test]
    fn a_live_database_needs_consent_and_keeps_a_name() {
        let with_live = target(Some(live()));
        let error = plan(&REPLACE, Consent::default(), &[], &with_live).expect_err("no consent");
        assert!(matches!(error, RestoreError::NeedsYes { .. }), "{error}");
        let good = plan(&REPLACE, YES, &[], &with_live).expect("a plan");
        let kept_as = "shop_before_20261121T020000Z-5f3a9c21".to_owned();
        assert_eq!(good.naming, Naming::Swap { oid: 16_400, kept_as: kept_as.clone() });
        assert!(good.steps().iter().any(|step| step.contains(&kept_as)));
        let mut taken = with_live;
        taken.databases.insert(kept_as);
        let again = plan(&REPLACE, YES, &[], &taken).expect("a plan");
        let kept_as = "shop_before_20261121T020000Z-5f3a9c21_2".to_owned();
        assert_eq!(again.naming, Naming::Swap { oid: 16_400, kept_as });
    }

    #[test]
    fn what_earlier_restores_of_the_backup_kept_is_known_and_the_way_back_has_a_free_name() {
        let id: BackupId = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        let mut with_live = target(Some(live()));
        let before = |rest: &str| format!("shop_before_{id}{rest}");
        for name in
            [before("_2"), before("_x"), format!("x{}", before("")), "shop_rolled_back".into()]
        {
            with_live.databases.insert(name);
        }
        let again = plan(&REPLACE, YES, &[], &with_live).expect("a plan");
        assert_eq!((again.kept_before, &*again.aside), (vec![before("_2")], "shop_rolled_back_2"));
        let long = "ä".repeat(31);
        let kept = kept_name(&long, &id, &BTreeSet::new());
        assert_eq!(kept_before(&long, &id, &BTreeSet::from([kept.clone()])), [kept]);
        let aside = aside_name(&long, &BTreeSet::new());
        assert!(aside.len() <= NAME_BYTES_MAX && aside.ends_with("ä_rolled_back"), "{aside}");
    }

    #[test]
    fn what_would_stay_with_the_old_database_is_named() {
        let bound = Live {
            slots: vec!["cdc".into()],
            subscriptions: vec!["orders_in".into()],
            cron: true,
            ..live()
        };
        let error = plan(&REPLACE, YES, &[], &target(Some(bound.clone()))).expect_err("refused");
        assert_eq!(error.kind(), FailureKind::Postgres);
        for name in ["cdc", "orders_in", "pg_cron"] {
            assert!(error.to_string().contains(name), "{error}");
        }
        let force = Consent { force: true, ..YES };
        let forced = plan(&REPLACE, force, &[], &target(Some(bound))).expect("a plan");
        for name in ["cdc", "orders_in", "pg_cron", "`shop_before_"] {
            assert!(forced.notices[0].contains(name), "{:?}", forced.notices);
        }
        let prepared = Live { prepared: vec!["tx1".into()], ..live() };
        let error = plan(&REPLACE, force, &[], &target(Some(prepared))).expect_err("refused");
        assert!(error.to_string().contains("tx1"), "{error}");
    }

    #[test]
    fn a_partial_snapshot_replaces_nothing_unasked() {
        let excluded = ["public.log".to_owned()];
        let with_live = target(Some(live()));
        let error = plan(&REPLACE, YES, &excluded, &with_live).expect_err("partial");
        assert!(error.to_string().contains("public.log"), "{error}");
        let allowed = Consent { allow_partial: true, ..YES };
        assert!(plan(&REPLACE, allowed, &excluded, &with_live).is_ok());
        assert!(plan(&Destination::default(), YES, &excluded, &target(None)).is_ok());
    }

    #[test]
    fn what_the_target_lacks_is_named_with_the_statement_that_mends_it() {
        let own = Destination::default();
        let mut poor = target(None);
        poor.roles = set(&["admin", "app"]);
        let error = plan(&own, YES, &[], &poor).expect_err("a role is missing");
        assert_eq!(error.kind(), FailureKind::Postgres);
        let hint = error.hint().expect("a hint");
        assert!(hint.starts_with("`--roles create`"), "{hint}");
        let mut bare = target(None);
        bare.extensions = set(&["plpgsql"]);
        let error = plan(&own, YES, &[], &bare).expect_err("an extension is missing");
        assert!(error.to_string().contains("`citext`"), "{error}");
        let mut weak = target(None);
        weak.createdb = false;
        let error = plan(&own, YES, &[], &weak).expect_err("no right");
        assert!(error.hint().is_some_and(|hint| hint.contains("CREATEDB")));
        let mut old = target(None);
        old.server_version_num = 140_023;
        let error = plan(&own, YES, &[], &old).expect_err("an older target");
        assert!(matches!(error, RestoreError::OlderTarget { .. }), "{error}");
    }

    #[test]
    fn the_kept_name_is_cut_at_a_character() {
        let id: BackupId = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        let name = kept_name(&"ä".repeat(31), &id, &BTreeSet::new());
        assert!(name.len() <= NAME_BYTES_MAX);
        assert_eq!(name, format!("{}_before_{id}", "ä".repeat(15)));
    }
}
