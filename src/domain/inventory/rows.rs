//! Row counts and sequence values: each has a check of its own, so neither is part of [`Inventory::compare`].

use std::collections::{BTreeMap, BTreeSet};

use super::compare::CompareOptions;
use super::names::display_name;
use super::{Inventory, SequenceValue, TableCount};

impl Inventory {
    /// Tables whose number of rows differs from the dump's, or that hold rows the dump did not have.
    ///
    /// Tables of extensions may hold more rows than the dump: the extension brings its own.
    pub fn row_differences(
        &self,
        restored: &[TableCount],
        options: &CompareOptions,
    ) -> Vec<String> {
        let theirs: BTreeMap<_, _> =
            restored.iter().map(|table| ((&*table.schema, &*table.name), table.rows)).collect();
        let of_extension: BTreeSet<_> =
            self.extension_tables.iter().map(|table| (&*table.schema, &*table.name)).collect();
        let mut lines = Vec::new();
        let mut dumped = BTreeSet::new();
        for table in &self.rows {
            let key = (&*table.schema, &*table.name);
            dumped.insert(key);
            let tags = [table.name.clone()];
            if options.is_left_out(&["TABLE", "TABLE DATA"], Some(&table.schema), &tags) {
                continue;
            }
            let name = display_name(Some(&table.schema), &table.name);
            match theirs.get(&key) {
                None => lines.push(format!("table {name}: {} rows, none restored", table.rows)),
                Some(rows) if *rows == table.rows => {}
                Some(rows) if *rows > table.rows && of_extension.contains(&key) => {}
                Some(rows) => {
                    lines.push(format!("table {name}: {} rows, restored {rows}", table.rows));
                }
            }
        }
        for table in restored {
            let key = (&*table.schema, &*table.name);
            if table.rows > 0 && !dumped.contains(&key) && !of_extension.contains(&key) {
                let name = display_name(Some(&table.schema), &table.name);
                lines.push(format!(
                    "table {name}: restored {} rows that the dump lacks",
                    table.rows
                ));
            }
        }
        lines
    }

    /// Sequences that stand elsewhere than in the dump.
    pub fn sequence_differences(
        &self,
        restored: &[SequenceValue],
        options: &CompareOptions,
    ) -> Vec<String> {
        let theirs: BTreeMap<_, _> = restored
            .iter()
            .map(|sequence| ((&*sequence.schema, &*sequence.name), sequence))
            .collect();
        let mut lines = Vec::new();
        for sequence in &self.sequences {
            let tags = [sequence.name.clone()];
            if options.is_left_out(&["SEQUENCE", "SEQUENCE SET"], Some(&sequence.schema), &tags) {
                continue;
            }
            let name = display_name(Some(&sequence.schema), &sequence.name);
            let told = |value: &SequenceValue| {
                let called = if value.is_called { "given out" } else { "not yet given out" };
                format!("{} ({called})", value.last_value)
            };
            match theirs.get(&(&*sequence.schema, &*sequence.name)) {
                None => lines.push(format!("sequence {name}: {}, not restored", told(sequence))),
                Some(other) if *other == sequence => {}
                Some(other) => {
                    lines.push(format!(
                        "sequence {name}: {}, restored as {}",
                        told(sequence),
                        told(other)
                    ));
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::{ExtensionTable, LeftOut};

    fn count(name: &str, rows: u64) -> TableCount {
        TableCount { schema: "shop".into(), name: name.into(), rows }
    }

    fn value(last_value: i64, is_called: bool) -> SequenceValue {
        SequenceValue { schema: "shop".into(), name: "ids".into(), last_value, is_called }
    }

    #[test]
    fn a_table_with_another_number_of_rows_is_named() {
        let mut source = Inventory::empty();
        source.rows = vec![count("a", 3), count("b", 2), count("c", 1)];
        let options = CompareOptions::default();
        assert_eq!(source.row_differences(&source.rows, &options), [""; 0]);
        let restored = [count("a", 2), count("b", 2), count("d", 4), count("e", 0)];
        assert_eq!(
            source.row_differences(&restored, &options),
            [
                "table shop.a: 3 rows, restored 2",
                "table shop.c: 1 rows, none restored",
                "table shop.d: restored 4 rows that the dump lacks"
            ]
        );
        let left_out = vec![LeftOut::new("TABLE DATA", "shop", "c")];
        let options = CompareOptions { left_out, ..CompareOptions::default() };
        assert_eq!(source.row_differences(&restored[..2], &options).len(), 1);
    }

    #[test]
    fn an_extension_may_bring_rows_of_its_own_but_lose_none() {
        let mut source = Inventory::empty();
        source.rows = vec![count("conf", 3)];
        source.extension_tables = vec![ExtensionTable {
            schema: "shop".into(),
            name: "conf".into(),
            extension: "x".into(),
            condition: String::new(),
        }];
        let options = CompareOptions::default();
        assert!(source.row_differences(&[count("conf", 9)], &options).is_empty());
        assert_eq!(source.row_differences(&[count("conf", 2)], &options).len(), 1);
    }

    #[test]
    fn a_sequence_that_would_give_a_value_out_twice_is_named() {
        let mut source = Inventory::empty();
        source.sequences = vec![value(42, true)];
        let options = CompareOptions::default();
        assert!(source.sequence_differences(&[value(42, true)], &options).is_empty());
        assert_eq!(
            source.sequence_differences(&[value(42, false)], &options),
            ["sequence shop.ids: 42 (given out), restored as 42 (not yet given out)"]
        );
        assert_eq!(
            source.sequence_differences(&[], &options),
            ["sequence shop.ids: 42 (given out), not restored"]
        );
    }
}
