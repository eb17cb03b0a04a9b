//! `--table` and `--schema`: what is asked for, with all that it needs and all that belongs to it.
//!
//! The archive's own dependencies decide. A table brings its rows, indexes, keys, triggers, policies, comments
//! and grants, its partitions and its sequences; and what it needs: schema, types, functions, extensions, the
//! table it inherits from, the tables below a view, with their rows. What ties it to a table that is not there
//! stays away: a foreign key to it, a rule. Large objects belong to no table, and publications and event triggers
//! to the whole database.

use std::collections::{BTreeSet, HashMap};

use crate::domain::archive::{Toc, TocEntry};

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    /// Tables, views, sequences; without a schema in any.
    pub tables: Vec<(Option<String>, String)>,
    /// Everything in these schemas that is in one.
    pub schemas: Vec<String>,
}

const RELATIONS: [&str; 5] = ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"];

/// What comes with the relations that it depends on, if all of them are there.
const BELONGING: [&str; 20] = [
    "TABLE DATA",
    "TABLE ATTACH",
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "STATISTICS",
    "STATISTICS DATA",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "COMMENT",
    "ACL",
    "SECURITY LABEL",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "MATERIALIZED VIEW DATA",
];

impl Only {
    /// `orders`, `shop.orders` or `"Odd.Schema"."Table"`.
    pub fn table(text: &str) -> Option<(Option<String>, String)> {
        let mut names = Vec::new();
        let mut rest = text;
        loop {
            let (name, after) = name(rest)?;
            names.push(name);
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => return None,
            }
        }
        match <[String; 2]>::try_from(names) {
            Ok([schema, table]) => Some((Some(schema), table)),
            Err(mut one) if one.len() == 1 => Some((None, one.remove(0))),
            Err(_) => None,
        }
    }

    /// What is asked for, in words.
    pub fn told(&self) -> String {
        let schemas = self.schemas.iter().map(|schema| format!("schema `{schema}`"));
        let tables = self.tables.iter().map(table_told);
        schemas.chain(tables).collect::<Vec<_>>().join(", ")
    }

    /// The first of what is asked for that the archive does not have.
    pub fn absent(&self, toc: &Toc) -> Option<String> {
        let schema = self.schemas.iter().find(|schema| {
            !toc.entries.iter().any(|entry| {
                entry.namespace.as_deref() == Some(schema)
                    || (&*entry.desc == "SCHEMA" && *entry.tag == ***schema)
            })
        });
        let table = self.tables.iter().find(|table| {
            !toc.entries.iter().any(|entry| is_relation(entry) && is_table(entry, table))
        });
        schema.map(|schema| format!("schema `{schema}`")).or_else(|| table.map(table_told))
    }

    fn asks_for(&self, entry: &TocEntry) -> bool {
        let in_schema = entry
            .namespace
            .as_deref()
            .is_some_and(|namespace| self.schemas.iter().any(|schema| schema == namespace));
        let table = is_relation(entry) && self.tables.iter().any(|table| is_table(entry, table));
        let object = !BELONGING.contains(&&*entry.desc) && &*entry.desc != "DEFAULT ACL";
        table || (in_schema && object)
    }

    /// The text of a `pg_restore --use-list` file.
    pub fn use_list(&self, toc: &Toc) -> String {
        let chosen = self.choose(toc);
        let entries = toc.entries.iter().map(|entry| entry.dump_id);
        super::use_list(&entries.filter(|id| chosen.contains(id)).collect::<Vec<_>>())
    }

    /// The entries to restore, by number.
    pub(super) fn choose(&self, toc: &Toc) -> BTreeSet<u32> {
        let entries: HashMap<u32, &TocEntry> =
            toc.entries.iter().map(|entry| (entry.dump_id, entry)).collect();
        let mut chosen = BTreeSet::new();
        for entry in toc.entries.iter().filter(|entry| self.asks_for(entry)) {
            take(entry, &entries, &mut chosen);
        }
        // What belongs to something may need more (a default its sequence, a trigger its function), and
        // something may belong to that.
        loop {
            let before = chosen.len();
            for entry in &toc.entries {
                if !chosen.contains(&entry.dump_id) && belongs(entry, &entries, &chosen) {
                    take(entry, &entries, &mut chosen);
                }
            }
            if chosen.len() == before {
                return chosen;
            }
        }
    }
}

fn table_told((schema, name): &(Option<String>, String)) -> String {
    let dot = schema.as_ref().map(|schema| format!("{schema}.")).unwrap_or_default();
    format!("table `{dot}{name}`")
}

fn is_relation(entry: &TocEntry) -> bool {
    RELATIONS.contains(&&*entry.desc)
}

fn is_table(entry: &TocEntry, (schema, name): &(Option<String>, String)) -> bool {
    *entry.tag == **name
        && schema.as_deref().is_none_or(|schema| entry.namespace.as_deref() == Some(schema))
}

/// Takes an entry with all that it needs.
fn take(entry: &TocEntry, entries: &HashMap<u32, &TocEntry>, chosen: &mut BTreeSet<u32>) {
    let mut waiting = vec![entry];
    while let Some(entry) = waiting.pop() {
        if chosen.insert(entry.dump_id) {
            waiting.extend(entry.dependencies.iter().filter_map(|id| entries.get(id)));
        }
    }
}

/// Whether an entry comes with what is chosen.
fn belongs(entry: &TocEntry, entries: &HashMap<u32, &TocEntry>, chosen: &BTreeSet<u32>) -> bool {
    let needs = || entry.dependencies.iter().filter_map(|id| entries.get(id));
    let there = |need: &&TocEntry| chosen.contains(&need.dump_id);
    match &*entry.desc {
        // An identity's sequence belongs to its table.
        "SEQUENCE" => needs().any(|need| &*need.desc == "TABLE" && there(need)),
        // The partitions of a table come with it.
        "TABLE ATTACH" => needs().any(|need| {
            there(need)
                && need.defn.as_ref().is_some_and(|defn| defn.contains("\nPARTITION BY "))
                && !(need.tag == entry.tag && need.namespace == entry.namespace)
        }),
        desc if BELONGING.contains(&desc) => {
            needs().any(there)
                && needs().all(|need| {
                    let elsewhere = is_relation(need) && &*need.desc != "SEQUENCE";
                    !elsewhere || there(need)
                })
                // A key needs the other table's key, which is no relation.
                && needs().all(|need| !is_key(need) || there(need))
        }
        _ => false,
    }
}

fn is_key(entry: &TocEntry) -> bool {
    matches!(&*entry.desc, "CONSTRAINT" | "INDEX" | "FK CONSTRAINT")
}

/// One name, quoted or not, and what follows it.
fn name(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (!name.is_empty()).then_some((name, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::archive::{ArchiveReader, NoSink};

    const V16: &[u8] = include_bytes!("../../../tests/fixtures/archives/odd-1.16.dump");

    fn toc() -> Toc {
        let mut reader = ArchiveReader::new(NoSink);
        reader.push(V16).expect("an archive");
        reader.complete().expect("a whole one").0
    }

    fn chosen(only: &Only) -> BTreeSet<String> {
        let toc = toc();
        let ids = only.choose(&toc);
        let chosen = toc.entries.iter().filter(|entry| ids.contains(&entry.dump_id));
        chosen.map(TocEntry::describe).collect()
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let parsed = |text| Only::table(text);
        assert_eq!(parsed("orders"), Some((None, "orders".into())));
        assert_eq!(parsed("Shop.Orders"), Some((Some("Shop".into()), "Orders".into())));
        assert_eq!(parsed(r#""a.b"."c""d""#), Some((Some("a.b".into()), "c\"d".into())));
        for bad in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"a\"b", "\"\""] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_partitioned_table_comes_with_its_partitions_and_their_rows() {
        let found = chosen(&Only { tables: vec![(None, "parts".into())], schemas: vec![] });
        for wanted in ["TABLE public.parts", "TABLE public.parts_1", "TABLE DATA public.parts_1"] {
            assert!(found.contains(wanted), "{wanted} in {found:#?}");
        }
        assert!(!found.iter().any(|entry| entry.contains("customers")), "{found:#?}");
    }

    #[test]
    fn what_a_table_needs_comes_and_other_tables_do_not() {
        let found = chosen(&Only { tables: vec![(None, "customers".into())], schemas: vec![] });
        for wanted in ["TABLE public.customers", "TABLE DATA public.customers", "EXTENSION hstore"]
        {
            assert!(found.contains(wanted), "{wanted} in {found:#?}");
        }
        assert!(!found.iter().any(|entry| entry.starts_with("PUBLICATION")), "{found:#?}");
        assert!(!found.iter().any(|entry| entry.contains("parts")), "{found:#?}");
    }

    #[test]
    fn what_the_archive_has_not_is_told() {
        let none = Only { tables: vec![(Some("public".into()), "nosuch".into())], schemas: vec![] };
        assert_eq!(none.absent(&toc()).as_deref(), Some("table `public.nosuch`"));
        let none = Only { tables: vec![], schemas: vec!["nosuch".into()] };
        assert_eq!(none.absent(&toc()).as_deref(), Some("schema `nosuch`"));
        let there =
            Only { tables: vec![(None, "customers".into())], schemas: vec!["public".into()] };
        assert_eq!(there.absent(&toc()), None);
    }
}
