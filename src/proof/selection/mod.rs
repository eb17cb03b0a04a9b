//! Which entries of an archive a restore takes: a pure decision, with a reason for each one left out.
//!
//! Into a scratch cluster of its own goes all but subscriptions, which would reach out (a copy never acts),
//! the refresh of materialized views over foreign tables, and `pg_cron` with its jobs, for the same reason. A role that is no superuser
//! also cannot make some kinds of objects; they, and what cannot be without them, are left out and named, so
//! that everything else may stop at the first error.

mod only;

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

pub use only::Only;

use crate::domain::archive::{Section, Toc, TocEntry};
use crate::domain::inventory::{LeftOut, PG_CRON};

/// What the role of a restore may do in the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// Then nothing below matters but `label_providers` and `plain_words`.
    pub superuser: bool,
    /// Extensions installed in the target database already.
    pub installed_extensions: BTreeSet<String>,
    /// Extensions that the role may create: trusted ones, and those that need no superuser.
    pub creatable_extensions: BTreeSet<String>,
    /// Roles that the role is a member of, itself included.
    pub member_of: BTreeSet<String>,
    /// Languages that anyone may write functions in.
    pub trusted_languages: BTreeSet<String>,
    /// Whether anything is loaded that could know a security label.
    pub label_providers: bool,
    /// Whether it may choose the language of the server's messages.
    pub plain_words: bool,
}

/// An entry that a restore passes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Omission {
    /// The entry, as the comparison of inventories knows it.
    pub entry: LeftOut,
    /// Why.
    pub reason: String,
    /// Whether rows or large objects are lost with it.
    pub holds_data: bool,
}

impl Omission {
    /// `EVENT TRIGGER audit: only a superuser can create it`.
    pub fn describe(&self) -> String {
        let LeftOut { desc, schema, name } = &self.entry;
        let dot = schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
        format!("{desc} {dot}{name}: {}", self.reason)
    }
}

/// What goes and what stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Numbers of the entries to restore before any row, in the archive's order.
    pub before: Vec<u32>,
    /// Those whose rows or large objects go in then.
    pub data: BTreeSet<u32>,
    /// Then indexes and keys, which several sessions can make at once.
    pub indexes: Vec<u32>,
    /// And the rest, one after the other in the archive's order.
    pub after: Vec<u32>,
    /// The others, but for those that no restore into an existing database takes.
    pub omitted: Vec<Omission>,
    /// Those that nobody asked for.
    pub unasked: Vec<LeftOut>,
    /// Owners cannot be set, since the role is not a member of all of them.
    pub without_owners: bool,
}

impl Selection {
    /// How many entries are restored.
    pub fn kept(&self) -> usize {
        self.before.len() + self.data.len() + self.indexes.len() + self.after.len()
    }

    fn keep(&mut self, entry: &TocEntry) {
        if entry.has_data {
            self.data.insert(entry.dump_id);
            return;
        }
        // A large object is made in the data section (`BLOB`, since 17 `BLOB METADATA`), before its bytes.
        let large_object = entry.desc.starts_with("BLOB");
        let list = if large_object || entry.section == Section::PreData {
            &mut self.before
        } else {
            &mut self.after
        };
        list.push(entry.dump_id);
    }
}

/// The text of a `pg_restore --use-list` file.
pub fn use_list(entries: &[u32]) -> String {
    let mut text = String::with_capacity(entries.len() * 8);
    for id in entries {
        writeln!(text, "{id};").expect("a string takes any text");
    }
    text
}

const SUPERUSER: &str = "only a superuser can create it";

/// Decides for each entry of `toc`, or for those that are asked for.
pub fn select(toc: &Toc, rights: &Rights, only: Option<&Only>) -> Selection {
    let mut selection = Selection::default();
    let asked = only.map(|only| only.choose(toc));
    if !rights.superuser {
        let foreign =
            |entry: &TocEntry| !entry.owner.is_empty() && !rights.member_of.contains(&*entry.owner);
        selection.without_owners = toc.entries.iter().any(foreign);
    }
    let refreshes: BTreeSet<usize> = toc.refreshes_over_foreign_tables().into_iter().collect();
    let mut gone: HashMap<u32, String> = HashMap::new();
    let mut without_pg_cron = false;
    for (at, entry) in toc.entries.iter().enumerate() {
        if matches!(
            &*entry.desc,
            "ENCODING" | "STDSTRINGS" | "SEARCHPATH" | "DATABASE" | "DATABASE PROPERTIES"
        ) {
            continue;
        }
        let left_out = || {
            let namespace = entry.namespace.as_deref().unwrap_or_default();
            LeftOut::new(&entry.desc, namespace, &entry.tag)
        };
        if asked.as_ref().is_some_and(|asked| !asked.contains(&entry.dump_id)) {
            selection.unasked.push(left_out());
            continue;
        }
        let own = if refreshes.contains(&at) {
            Some("it reads a foreign table, and a copy reaches nowhere".to_owned())
        } else {
            reason(entry, rights)
        };
        // The archive does not tell that what lies in an extension's schema needs the extension.
        let of_pg_cron = without_pg_cron && lies_in_cron(entry);
        let inherited = || {
            if of_pg_cron {
                return Some(format!("it needs EXTENSION {PG_CRON}"));
            }
            let needs = entry.dependencies.iter().find_map(|id| gone.get(id))?;
            Some(format!("it needs {needs}"))
        };
        let Some(reason) = own.or_else(inherited) else {
            selection.keep(entry);
            continue;
        };
        gone.insert(entry.dump_id, entry.describe());
        without_pg_cron |= is_pg_cron(entry);
        // Its jobs are no loss: they stay in the archive, and a copy must not run them.
        let is_jobs = of_pg_cron && matches!(&*entry.tag, "job" | "job_run_details");
        let holds_data = entry.has_data && !is_jobs;
        selection.omitted.push(Omission { entry: left_out(), reason, holds_data });
    }
    selection.set_indexes_apart(toc);
    selection
}

impl Selection {
    /// Moves out of `after` what several sessions can make without waiting for each other in a circle, with all
    /// that it needs.
    ///
    /// The archive tells which tables a statement names. It does not tell that a key of a partitioned table locks
    /// the partitions, which ends in deadlocks with their indexes (measured with `pg_restore --jobs`: a foreign
    /// key beside `ALTER INDEX … ATTACH PARTITION`, one of ten restores with six jobs). And a statement that is not
    /// UTF-8, out of a database without an encoding, is left to `pg_restore`, which has its bytes.
    fn set_indexes_apart(&mut self, toc: &Toc) {
        let partitioned = |entry: &&TocEntry| {
            &*entry.desc == "TABLE"
                && entry.defn.as_ref().is_some_and(|defn| defn.contains("\nPARTITION BY "))
        };
        let partitioned: BTreeSet<u32> =
            toc.entries.iter().filter(partitioned).map(|entry| entry.dump_id).collect();
        let entries: HashMap<u32, &TocEntry> =
            toc.entries.iter().map(|entry| (entry.dump_id, entry)).collect();
        // What is still waiting for the second turn; the archive's order has what is needed first.
        let mut waits: BTreeSet<u32> = self.after.iter().copied().collect();
        let at_once = |id: &u32, waits: &BTreeSet<u32>| {
            entries.get(id).is_some_and(|entry| {
                matches!(&*entry.desc, "INDEX" | "CONSTRAINT" | "FK CONSTRAINT")
                    && entry.defn.as_ref().is_some_and(|defn| !defn.contains('\u{FFFD}'))
                    && entry
                        .dependencies
                        .iter()
                        .all(|need| !partitioned.contains(need) && !waits.contains(need))
            })
        };
        let mut rest = Vec::with_capacity(self.after.len());
        for id in std::mem::take(&mut self.after) {
            if at_once(&id, &waits) {
                waits.remove(&id);
                self.indexes.push(id);
            } else {
                rest.push(id);
            }
        }
        self.after = rest;
    }
}

fn is_pg_cron(entry: &TocEntry) -> bool {
    &*entry.desc == "EXTENSION" && &*entry.tag == PG_CRON
}

/// Whether it lies in the schema that `pg_cron` brings.
fn lies_in_cron(entry: &TocEntry) -> bool {
    entry.namespace.as_deref() == Some("cron") || &*entry.tag == "SCHEMA cron"
}

/// Why this entry cannot be restored, or must not be.
fn reason(entry: &TocEntry, rights: &Rights) -> Option<String> {
    let defn = entry.defn.as_deref().unwrap_or_default();
    match &*entry.desc {
        "SUBSCRIPTION" | "SUBSCRIPTION TABLE" => {
            return Some("a copy must not subscribe".to_owned());
        }
        // The server makes it in one database alone, and no copy has that one's name while it is proved.
        "EXTENSION" if is_pg_cron(entry) && !rights.installed_extensions.contains(PG_CRON) => {
            return Some(
                "only the database in cron.database_name can have it; create it there".to_owned(),
            );
        }
        "SECURITY LABEL" if !rights.label_providers => {
            return Some("no label provider is loaded".to_owned());
        }
        _ if rights.superuser => return None,
        _ => {}
    }
    let superuser_only = match &*entry.desc {
        "EVENT TRIGGER"
        | "FOREIGN DATA WRAPPER"
        | "PROCEDURAL LANGUAGE"
        | "ACCESS METHOD"
        | "OPERATOR CLASS"
        | "OPERATOR FAMILY"
        | "TEXT SEARCH PARSER"
        | "TEXT SEARCH TEMPLATE"
        | "PUBLICATION TABLES IN SCHEMA"
        | "SHELL TYPE" => true,
        "PUBLICATION" => defn.contains(" FOR ALL TABLES"),
        "CAST" => defn.contains(" WITHOUT FUNCTION"),
        // A base type; composite, enum and range types are anyone's.
        "TYPE" => defn.contains("\n    INPUT = "),
        "FUNCTION" | "PROCEDURE" => {
            language(defn).is_some_and(|name| !rights.trusted_languages.contains(name))
        }
        "EXTENSION" => {
            !rights.installed_extensions.contains(&*entry.tag)
                && !rights.creatable_extensions.contains(&*entry.tag)
        }
        "DEFAULT ACL" if !rights.member_of.contains(&*entry.owner) => {
            return Some(format!("the role is not a member of {}", entry.owner));
        }
        // An extension that was there before belongs to someone else.
        "COMMENT" => {
            let of = entry.tag.strip_prefix("EXTENSION ").map(|name| name.trim_matches('"'));
            return of
                .filter(|name| rights.installed_extensions.contains(*name))
                .map(|_| "the extension was there before".to_owned());
        }
        _ => false,
    };
    superuser_only.then(|| SUPERUSER.to_owned())
}

/// The language of a function, from the line that `pg_dump` writes below its head.
fn language(defn: &str) -> Option<&str> {
    let (_, rest) = defn.split_once("\n    LANGUAGE ")?;
    let name = rest.split(|c: char| c.is_whitespace() || c == ';').next()?;
    Some(name.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::archive::{ArchiveReader, NoSink};

    const V14: &[u8] = include_bytes!("../../../tests/fixtures/archives/odd-1.14.dump");
    const V16: &[u8] = include_bytes!("../../../tests/fixtures/archives/odd-1.16.dump");

    fn toc(archive: &[u8]) -> Toc {
        let mut reader = ArchiveReader::new(NoSink);
        reader.push(archive).expect("an archive");
        reader.complete().expect("a whole one").0
    }

    fn names(selection: &Selection) -> Vec<String> {
        selection
            .omitted
            .iter()
            .map(|left| format!("{} {}", left.entry.desc, left.entry.name))
            .collect()
    }

    const REFRESHES: [&str; 3] = [
        "MATERIALIZED VIEW DATA mv_foreign",
        "MATERIALIZED VIEW DATA mv_over_mv",
        "MATERIALIZED VIEW DATA mv_partition",
    ];

    #[test]
    fn a_superuser_restores_all_but_subscriptions_and_what_reaches_out() {
        for archive in [V14, V16] {
            let toc = toc(archive);
            let rights = Rights { superuser: true, ..Rights::default() };
            let selection = select(&toc, &rights, None);
            let mut expected = vec!["SUBSCRIPTION sub"];
            expected.extend(REFRESHES);
            assert_eq!(names(&selection), expected);
            assert!(!selection.without_owners);
            assert!(selection.omitted.iter().all(|left| !left.holds_data));
            // Encoding, quoting, search path and the database itself are no entries of a list.
            assert_eq!(selection.kept() + 4 + 4, toc.entries.len());
            assert_eq!(use_list(&selection.after).lines().count(), selection.after.len());
            // What rows need comes before them, and what would slow them or fire on them behind.
            let of = |id: &u32| toc.entries.iter().find(|entry| entry.dump_id == *id);
            let descs = |list: &[u32]| -> BTreeSet<String> {
                list.iter().filter_map(of).map(|entry| entry.desc.to_string()).collect()
            };
            let (before, after) = (descs(&selection.before), descs(&selection.after));
            assert!(descs(&selection.indexes).contains("CONSTRAINT"));
            assert!(before.contains("TABLE") && before.iter().any(|desc| desc.starts_with("BLOB")));
            assert!(after.contains("SEQUENCE SET"), "{after:?}");
            assert!(after.contains("COMMENT") && !after.contains("TABLE"), "{after:?}");
            assert_eq!(selection.data.len(), 8);
        }
    }

    #[test]
    fn another_role_leaves_out_what_it_cannot_create_and_what_hangs_on_it() {
        let toc = toc(V14);
        let rights = Rights {
            creatable_extensions: BTreeSet::from(["hstore".to_owned()]),
            member_of: BTreeSet::from(["postgres".to_owned()]),
            trusted_languages: BTreeSet::from(["plpgsql".to_owned(), "sql".to_owned()]),
            ..Rights::default()
        };
        let found = names(&select(&toc, &rights, None));
        let expected = [
            "EXTENSION postgres_fdw",
            "COMMENT EXTENSION postgres_fdw",
            "SERVER elsewhere",
            "FOREIGN TABLE far",
            "FOREIGN TABLE mixed_far",
            "VIEW over_foreign",
            "MATERIALIZED VIEW mv_foreign",
            "MATERIALIZED VIEW mv_over_mv",
            "TABLE ATTACH mixed_far",
            "PUBLICATION all_of_it",
            "EVENT TRIGGER evt",
        ];
        for name in expected {
            assert!(found.iter().any(|left| left == name), "{name} in {found:?}");
        }
        assert!(!found.iter().any(|left| left.contains("customers") || left.contains("hstore")));
    }

    #[test]
    fn an_owner_that_the_role_is_not_a_member_of_means_restoring_without_owners() {
        assert!(select(&toc(V14), &Rights::default(), None).without_owners);
    }

    #[test]
    fn a_rows_loss_is_told() {
        let rights = Rights::default();
        let selection = select(&toc(V14), &rights, None);
        let lost: Vec<&str> = selection
            .omitted
            .iter()
            .filter(|left| left.holds_data)
            .map(|left| &*left.entry.name)
            .collect();
        // Its columns are of a type of the extension hstore, which this role cannot create.
        assert_eq!(lost, ["customers"]);
    }

    #[test]
    fn pg_cron_and_its_jobs_stay_out_and_are_no_loss_unless_it_is_there() {
        let like = toc(V16).entries.remove(0);
        let entry = |dump_id: u32, desc: &str, namespace: Option<&str>, tag: &str| TocEntry {
            dump_id,
            desc: desc.into(),
            namespace: namespace.map(Into::into),
            tag: tag.into(),
            has_data: desc == "TABLE DATA",
            dependencies: [].into(),
            ..like.clone()
        };
        let entries = vec![
            entry(1, "EXTENSION", None, PG_CRON),
            entry(2, "ACL", None, "SCHEMA cron"),
            entry(3, "TABLE DATA", Some("cron"), "job"),
            entry(4, "TABLE DATA", Some("cron"), "somebody's"),
            entry(5, "TABLE DATA", Some("public"), "job"),
        ];
        let toc = Toc { entries, ..toc(V16) };
        let superuser = Rights { superuser: true, ..Rights::default() };
        let without = select(&toc, &superuser, None);
        assert_eq!(without.data, BTreeSet::from([5]));
        let lost = without.omitted.iter().filter(|left| left.holds_data);
        let lost: Vec<&str> = lost.map(|left| &*left.entry.name).collect();
        assert_eq!((without.omitted.len(), lost), (4, vec!["somebody's"]));
        let installed_extensions = BTreeSet::from([PG_CRON.to_owned()]);
        let there = select(&toc, &Rights { installed_extensions, ..superuser }, None);
        assert_eq!(there.omitted, []);
    }

    #[test]
    fn keys_of_a_partitioned_table_wait_and_so_does_what_needs_them() {
        let like = toc(V16).entries.remove(0);
        let entry = |dump_id: u32, desc: &str, defn: &str, needs: &[u32]| TocEntry {
            dump_id,
            desc: desc.into(),
            defn: Some(defn.into()),
            dependencies: needs.into(),
            section: if desc == "TABLE" { Section::PreData } else { Section::PostData },
            has_data: false,
            ..like.clone()
        };
        let entries = vec![
            entry(1, "TABLE", "CREATE TABLE s.p (\n)\nPARTITION BY LIST (a);", &[]),
            entry(2, "TABLE", "CREATE TABLE s.p1 (\n);", &[]),
            entry(3, "CONSTRAINT", "", &[1]),
            entry(4, "CONSTRAINT", "", &[2]),
            entry(5, "INDEX", "", &[2]),
            entry(6, "INDEX ATTACH", "", &[3, 4]),
            entry(7, "FK CONSTRAINT", "", &[2, 3]),
            entry(8, "FK CONSTRAINT", "", &[2, 4]),
            entry(9, "TRIGGER", "", &[2]),
        ];
        let toc = Toc { entries, ..toc(V16) };
        let selection = select(&toc, &Rights { superuser: true, ..Rights::default() }, None);
        assert_eq!(selection.before, [1, 2]);
        assert_eq!(selection.indexes, [4, 5, 8]);
        assert_eq!(selection.after, [3, 6, 7, 9]);
    }

    #[test]
    fn the_language_of_a_function_is_found() {
        let defn =
            "CREATE FUNCTION public.ev() RETURNS event_trigger\n    LANGUAGE plpgsql\n    AS $$";
        assert_eq!(language(defn), Some("plpgsql"));
        assert_eq!(language("CREATE FUNCTION f() RETURNS int"), None);
    }
}
