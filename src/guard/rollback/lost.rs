//! What a rollback takes from the live name: pure, from what the snapshot recorded and what the live database has.
//!
//! Counts tell how many rows a table has more or less. They see no update, and not a row that took another's place.
//! The server's statistics counters have seen some of that, and what they have seen is told, but it bounds nothing:
//! they know no row of a table that was truncated, rewritten or made anew, and count work that was rolled back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::domain::inventory::{Inventory, Relation, display_name};

/// A table of the live database.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of each other")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether it holds rows itself, which a partitioned one does not.
    pub holds_rows: bool,
    /// Whether its columns are those of another table: a partition.
    pub is_partition: bool,
    /// Its columns: those of its own, and those that it inherits.
    pub columns: Vec<LiveColumn>,
    /// Its rows; none where nothing tells.
    pub rows: Option<u64>,
    /// Whether they were counted, and not taken from the server's statistics.
    pub exact: bool,
    /// Rows that the server's counters saw updated or deleted.
    pub changed: Option<u64>,
    /// Whether it was truncated or rewritten at some time since it was made.
    pub rewritten: bool,
}

/// A column of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveColumn {
    /// Its name.
    pub name: String,
    /// Whether the table declares it, and does not only inherit it.
    pub own: bool,
}

/// The live database, as far as it could be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Its tables.
    pub tables: Vec<LiveTable>,
    /// When the server's counters began, as far as this role may know.
    pub counters_since: Option<Timestamp>,
    /// Whether they can have begun no later.
    pub counters_certain: bool,
    /// Its large objects; none where they could not be counted.
    pub large_objects: Option<u64>,
    /// Tables of extensions whose rows are the database's own, as `schema.table`; nobody looked at them.
    pub extension_tables: Vec<String>,
}

/// What is known of what goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The live database was looked at.
    Known(Box<Lost>),
    /// It could not be, for that reason.
    Unknown(String),
    /// There is no database of that name: nothing is replaced.
    Nothing,
}

/// What the live database has and the snapshot has not, and the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// When this was looked at; what clients write from then on is lost too.
    pub counted_at: Timestamp,
    /// Tables of both whose rows differ, or may: most rows first.
    pub tables: Vec<TableChange>,
    /// Number of the other tables of both: as many rows, by an exact count, and no update that the counters saw. Which
    /// proves nothing: rows were not compared.
    pub tables_same_count: usize,
    /// Those that are like that too, but were truncated or rewritten at some time, which counters do not see.
    pub tables_rewritten: Vec<String>,
    /// When the counters began, as far as the role may know.
    pub counters_since: Option<Timestamp>,
    /// Whether they began before the snapshot was taken; none where nobody knows.
    pub counters_before_snapshot: Option<bool>,
    /// Tables that only the live database has, with their rows.
    pub tables_only_live: Vec<OnlyHere>,
    /// Columns that only the live database has, as `schema.table.column`.
    pub columns_only_live: Vec<String>,
    /// Tables that only the snapshot has: they come back.
    pub tables_back: Vec<OnlyHere>,
    /// Columns that only the snapshot has, likewise.
    pub columns_back: Vec<String>,
    /// Large objects.
    pub large_objects: LargeObjects,
    /// Tables whose rows nobody looked at: those of extensions.
    pub not_looked_at: Vec<String>,
}

/// How many large objects there are; what is in them was not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeObjects {
    /// In the snapshot.
    pub then: u64,
    /// Now; none where nothing tells.
    pub now: Option<u64>,
}

/// A table of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChange {
    /// `schema.table`.
    pub table: String,
    /// Rows in the snapshot; none where they were left out of it.
    pub rows_then: Option<u64>,
    /// Rows now; none where nothing tells.
    pub rows_now: Option<u64>,
    /// Whether `rows_now` was counted.
    pub exact: bool,
    /// Rows that the counters saw updated or deleted.
    pub changed: Option<u64>,
    /// Whether it was truncated or rewritten at some time, which they do not see.
    pub rewritten: bool,
}

impl TableChange {
    /// How many rows it has more than the snapshot; negative where those come back.
    pub fn more(&self) -> Option<i64> {
        let (now, then) = (self.rows_now?, self.rows_then.unwrap_or(0));
        Some(i64::try_from(i128::from(now) - i128::from(then)).unwrap_or(i64::MAX))
    }
}

/// A table of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlyHere {
    /// `schema.table`.
    pub table: String,
    /// Its rows; none for a partitioned table, or where nothing tells.
    pub rows: Option<u64>,
    /// Whether they were counted.
    pub exact: bool,
}

impl Lost {
    /// Compares what the snapshot recorded with what the live database has. `taken_at` is when the snapshot began.
    pub fn between(
        recorded: &Inventory,
        live: &Live,
        taken_at: Timestamp,
        counted_at: Timestamp,
    ) -> Self {
        type Name<'a> = (&'a str, &'a str);
        let then: BTreeMap<Name<'_>, &Relation> =
            recorded.tables().map(|table| ((&*table.schema, &*table.name), table)).collect();
        let now: BTreeMap<Name<'_>, &LiveTable> =
            live.tables.iter().map(|table| ((&*table.schema, &*table.name), table)).collect();
        let rows: BTreeMap<Name<'_>, u64> =
            recorded.rows.iter().map(|one| ((&*one.schema, &*one.name), one.rows)).collect();
        let mut lost = Self {
            counted_at,
            tables: Vec::new(),
            tables_same_count: 0,
            tables_rewritten: Vec::new(),
            counters_since: live.counters_since,
            counters_before_snapshot: match live.counters_since {
                Some(since) if since > taken_at => Some(false),
                _ => live.counters_certain.then_some(true),
            },
            tables_only_live: Vec::new(),
            columns_only_live: Vec::new(),
            tables_back: Vec::new(),
            columns_back: Vec::new(),
            large_objects: LargeObjects { then: recorded.large_objects, now: live.large_objects },
            not_looked_at: live.extension_tables.clone(),
        };
        for (name, table) in &now {
            match then.get(name) {
                Some(relation) => {
                    lost.of_both(table, relation, rows.get(name).copied());
                }
                None => lost.tables_only_live.push(OnlyHere {
                    table: display_name(Some(name.0), name.1),
                    rows: table.rows.filter(|_| table.holds_rows),
                    exact: table.exact,
                }),
            }
        }
        let gone = then.keys().filter(|name| !now.contains_key(*name));
        lost.tables_back = gone
            .map(|name| OnlyHere {
                table: display_name(Some(name.0), name.1),
                rows: rows.get(name).copied(),
                exact: true,
            })
            .collect();
        let weight = |change: &TableChange| {
            (change.more().map_or(u64::MAX, i64::unsigned_abs), change.changed)
        };
        lost.tables.sort_by(|a, b| weight(b).cmp(&weight(a)).then_with(|| a.table.cmp(&b.table)));
        lost
    }

    fn of_both(&mut self, table: &LiveTable, relation: &Relation, rows_then: Option<u64>) {
        let name = display_name(Some(&table.schema), &table.name);
        if !table.is_partition && relation.partition_of.is_none() {
            let column = |column: &str| format!("{name}.{}", display_name(None, column));
            let then: BTreeSet<&str> = relation.columns.iter().map(|one| &*one.name).collect();
            let now: BTreeSet<&str> = table.columns.iter().map(|one| &*one.name).collect();
            let own = table.columns.iter().filter(|one| one.own).map(|one| &*one.name);
            self.columns_only_live.extend(own.filter(|one| !then.contains(one)).map(column));
            let gone = relation.columns.iter().map(|one| &*one.name);
            self.columns_back.extend(gone.filter(|one| !now.contains(one)).map(column));
        }
        if !table.holds_rows {
            return;
        }
        let change = TableChange {
            table: name,
            rows_then,
            rows_now: table.rows,
            exact: table.exact,
            changed: table.changed,
            rewritten: table.rewritten,
        };
        let same = change.exact && change.more() == Some(0) && rows_then.is_some();
        if !same || change.changed != Some(0) {
            self.tables.push(change);
        } else if change.rewritten {
            self.tables_rewritten.push(change.table);
        } else {
            self.tables_same_count += 1;
        }
    }

    /// Rows that the live database has more than the snapshot, those of new tables among them, as far as anything tells.
    pub fn rows_more(&self) -> u64 {
        let both = self.tables.iter().filter_map(TableChange::more);
        let both = both.filter_map(|more| u64::try_from(more).ok());
        both.chain(self.tables_only_live.iter().filter_map(|table| table.rows)).sum()
    }

    /// The whole in one line, for the audit trail: without names, since whoever reads the repository reads that.
    pub fn line(&self) -> String {
        let mut said = vec![format!("{} rows more than the snapshot", self.rows_more())];
        let (tables, columns) = (self.tables_only_live.len(), self.columns_only_live.len());
        if tables + columns > 0 {
            said.push(format!("tables that it lacks: {tables}, columns: {columns}"));
        }
        let changed: u64 = self.tables.iter().filter_map(|table| table.changed).sum();
        if changed > 0 {
            said.push(format!("{changed} updates and deletions of rows seen"));
        }
        let LargeObjects { then, now } = self.large_objects;
        if let Some(more) = now.and_then(|now| now.checked_sub(then)).filter(|more| *more > 0) {
            said.push(format!("{more} large objects more"));
        }
        said.join("; ")
    }
}

impl Loss {
    /// The same in one line.
    pub fn line(&self) -> String {
        match self {
            Self::Known(lost) => lost.line(),
            Self::Unknown(why) => format!("not known: {why}"),
            Self::Nothing => "nothing, there was no database of that name".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::{Column, Persistence, RelationKind, TableCount};

    fn relation(name: &str, columns: &[&str]) -> Relation {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            type_name: "text".to_owned(),
            not_null: false,
            default: None,
            identity: None,
            generated: None,
            collation: None,
            facts: BTreeMap::new(),
            acl: Vec::new(),
        };
        Relation {
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind: RelationKind::Table,
            persistence: Persistence::Permanent,
            owner: "app".to_owned(),
            columns: columns.iter().map(column).collect(),
            row_security: false,
            force_row_security: false,
            partition_of: None,
            partition_bound: None,
            options: Vec::new(),
            tablespace: None,
            definition: None,
            facts: BTreeMap::new(),
            acl: Vec::new(),
        }
    }

    fn recorded(tables: &[(&str, &[&str], Option<u64>)]) -> Inventory {
        let rows = tables.iter().filter_map(|(name, _, rows)| {
            let (schema, name) = ("public".to_owned(), (*name).to_owned());
            rows.map(|rows| TableCount { schema, name, rows })
        });
        Inventory {
            relations: tables.iter().map(|(name, columns, _)| relation(name, columns)).collect(),
            rows: rows.collect(),
            ..Inventory::empty()
        }
    }

    fn table(name: &str, columns: &[&str], rows: u64) -> LiveTable {
        let own = |name: &&str| LiveColumn { name: (*name).to_owned(), own: true };
        LiveTable {
            schema: "public".to_owned(),
            name: name.to_owned(),
            holds_rows: true,
            is_partition: false,
            columns: columns.iter().map(own).collect(),
            rows: Some(rows),
            exact: true,
            changed: Some(0),
            rewritten: false,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("this century")
    }

    fn between(recorded: &Inventory, tables: Vec<LiveTable>, since: Option<i64>) -> Lost {
        let counters_since = since.map(at);
        let counters_certain = since.is_some();
        let live = Live { tables, counters_since, counters_certain, ..Live::default() };
        Lost::between(recorded, &live, at(0), at(60))
    }

    #[test]
    fn rows_tables_and_columns_of_the_live_database_alone_are_named() {
        let recorded = recorded(&[
            ("orders", &["id", "note"], Some(500)),
            ("customers", &["id"], Some(50)),
            ("legacy", &["id"], Some(7)),
        ]);
        let live = vec![
            table("orders", &["id", "Status"], 512),
            table("customers", &["id"], 50),
            table("audit", &["id"], 5),
        ];
        let lost = between(&recorded, live, None);
        let change = &lost.tables[0];
        assert_eq!((&*change.table, change.more()), ("public.orders", Some(12)));
        assert_eq!((lost.tables.len(), lost.tables_same_count, lost.rows_more()), (1, 1, 17));
        assert_eq!(lost.columns_only_live, ["public.orders.\"Status\""]);
        assert_eq!(lost.columns_back, ["public.orders.note"]);
        assert_eq!(lost.tables_only_live[0].table, "public.audit");
        assert_eq!(
            (&*lost.tables_back[0].table, lost.tables_back[0].rows),
            ("public.legacy", Some(7))
        );
        assert_eq!(
            lost.line(),
            "17 rows more than the snapshot; tables that it lacks: 1, columns: 1"
        );
    }

    #[test]
    fn equal_counts_hide_no_update_that_the_counters_know_of() {
        let recorded = recorded(&[("orders", &["id"], Some(500)), ("seen", &["id"], Some(1))]);
        let updated = LiveTable { changed: Some(3), ..table("orders", &["id"], 500) };
        let live = vec![updated, table("seen", &["id"], 1)];
        for (since, before) in [(Some(-5), Some(true)), (Some(5), Some(false)), (None, None)] {
            let lost = between(&recorded, live.clone(), since);
            assert_eq!((lost.counters_before_snapshot, lost.tables_same_count), (before, 1));
            assert_eq!((lost.tables[0].more(), lost.tables[0].changed), (Some(0), Some(3)));
            // What was seen, and no bound of any kind.
            let line = lost.line();
            assert!(line.ends_with("; 3 updates and deletions of rows seen"), "{line}");
        }
    }

    #[test]
    fn a_table_that_counters_cannot_have_followed_is_not_among_those_with_nothing_seen() {
        let recorded = recorded(&[("orders", &["id"], Some(5)), ("uncounted", &["id"], Some(5))]);
        let truncated = LiveTable { rewritten: true, ..table("orders", &["id"], 5) };
        let uncounted = LiveTable { changed: None, ..table("uncounted", &["id"], 5) };
        let lost = between(&recorded, vec![truncated, uncounted], Some(-5));
        assert_eq!(
            (lost.tables_same_count, &*lost.tables_rewritten),
            (0, &["public.orders".to_owned()][..])
        );
        assert_eq!(lost.tables[0].table, "public.uncounted");
    }

    #[test]
    fn large_objects_are_compared_by_number_and_tables_of_extensions_named() {
        let recorded = Inventory { large_objects: 2, ..Inventory::empty() };
        let extension_tables = vec!["public.spatial_ref_sys".to_owned()];
        let live = Live { large_objects: Some(5), extension_tables, ..Live::default() };
        let lost = Lost::between(&recorded, &live, at(0), at(60));
        assert_eq!(lost.large_objects, LargeObjects { then: 2, now: Some(5) });
        assert_eq!(lost.not_looked_at, ["public.spatial_ref_sys"]);
        assert!(lost.line().ends_with("; 3 large objects more"), "{}", lost.line());
    }

    #[test]
    fn what_was_not_counted_is_never_alike() {
        let recorded = recorded(&[("big", &["id"], Some(500)), ("left_out", &["id"], None)]);
        let estimated = LiveTable { exact: false, ..table("big", &["id"], 500) };
        let lost = between(&recorded, vec![estimated, table("left_out", &["id"], 0)], None);
        assert_eq!((lost.tables.len(), lost.tables_same_count), (2, 0));
        let unknown = LiveTable { rows: None, exact: false, ..table("big", &["id"], 0) };
        let lost = between(&recorded, vec![table("left_out", &["id"], 9), unknown], None);
        assert_eq!((&*lost.tables[0].table, lost.tables[0].more()), ("public.big", None));
        assert_eq!(lost.tables[1].more(), Some(9));
    }

    #[test]
    fn rows_that_come_back_are_no_loss() {
        let recorded = recorded(&[("orders", &["id"], Some(500))]);
        let lost = between(&recorded, vec![table("orders", &["id"], 480)], None);
        assert_eq!((lost.tables[0].more(), lost.rows_more()), (Some(-20), 0));
    }

    #[test]
    fn columns_of_partitions_are_told_once_with_their_table() {
        let mut recorded = recorded(&[("log", &["id"], None), ("log_1", &["id"], Some(2))]);
        recorded.relations[0].kind = RelationKind::PartitionedTable;
        recorded.relations[1].partition_of = Some("public.log".to_owned());
        let parent = LiveTable { holds_rows: false, rows: None, ..table("log", &["id", "x"], 0) };
        let part = LiveTable { is_partition: true, ..table("log_1", &["id", "x"], 2) };
        let lost = between(&recorded, vec![parent, part], None);
        assert_eq!(lost.columns_only_live, ["public.log.x"]);
        assert_eq!((lost.tables.len(), lost.tables_same_count), (0, 1));
    }
}
