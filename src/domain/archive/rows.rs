//! Counts rows as they stream by, and says what an archive holds.
//!
//! In COPY's text format a newline within a value is written `\n`, so a row is a line; the line `\.` and
//! empty lines end the rows, and no row is ever just `\.` (its backslash would be doubled). So the count
//! is the number of newlines less those from the marker on, which costs one pass of `memchr`.

use serde::{Deserialize, Serialize};

use super::{ArchiveError, DataSink, Toc, TocEntry, parse_copy};
use crate::domain::inventory::{SequenceValue, TableCount};

/// The rows of one table in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    /// Schema, unquoted.
    pub schema: String,
    /// Table, unquoted.
    pub name: String,
    /// Columns in the order of the rows' fields; generated ones are not among them.
    pub columns: Vec<String>,
    /// Exact.
    pub rows: u64,
    /// The partitioned table that the rows are loaded through, where partitions can come out
    /// differently in another database (hash over an enum): schema and name.
    pub via_root: Option<(String, String)>,
}

/// Settings of a session that fix how values are printed, so that rows from two servers compare.
///
/// `pg_dump` makes some of them itself; the rest must come to it from outside (`PGOPTIONS`), lest a setting
/// of the role or the database decide. Besides these: `search_path` empty, and `lc_monetary` of the source.
pub const ROW_SETTINGS: [(&str, &str); 7] = [
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "3"),
    ("quote_all_identifiers", "off"),
    ("synchronize_seqscans", "off"),
];

/// Enough for the marker, the newline before it and those behind it.
const TAIL: usize = 8;

/// The sink that counts.
#[derive(Debug, Clone, Default)]
pub struct RowCounter {
    tables: Vec<TableRows>,
    newlines: u64,
    /// The last bytes of the rows, right-aligned; zeros before the first.
    tail: [u8; TAIL],
    large_objects: u64,
    large_object_bytes: u64,
    in_large_object: bool,
}

impl DataSink for RowCounter {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.tables.push(table_of(entry)?);
        self.newlines = 0;
        self.tail = [0; TAIL];
        self.in_large_object = false;
        Ok(())
    }

    fn large_object(&mut self, _oid: u32) {
        self.large_objects += 1;
        self.in_large_object = true;
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        if self.in_large_object {
            self.large_object_bytes += bytes.len() as u64;
            return;
        }
        self.newlines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        if let Some(tail) = bytes.last_chunk::<TAIL>() {
            self.tail = *tail;
        } else {
            self.tail.rotate_left(bytes.len());
            self.tail[TAIL - bytes.len()..].copy_from_slice(bytes);
        }
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        if self.in_large_object {
            return Ok(());
        }
        let table = self.tables.last_mut().expect("rows end only after they began");
        let behind = self.tail.iter().rev().take_while(|byte| **byte == b'\n').count();
        let before = &self.tail[..TAIL - behind];
        let marked = behind > 0
            && (before.ends_with(b"\n\\.")
                || (before.ends_with(b"\0\\.") && self.newlines == behind as u64));
        if !marked {
            return Err(ArchiveError::Unterminated {
                table: format!("{}.{}", table.schema, table.name),
            });
        }
        table.rows = self.newlines - behind as u64;
        Ok(())
    }
}

/// The table that a `TABLE DATA` entry fills, without rows yet.
pub(crate) fn table_of(entry: &TocEntry) -> Result<TableRows, ArchiveError> {
    let schema = entry.namespace.as_deref().unwrap_or_default().to_owned();
    let name = String::from(entry.tag.clone());
    let Some(target) = entry.copy_stmt.as_deref().and_then(parse_copy) else {
        return Err(ArchiveError::NotCopy { table: format!("{schema}.{name}") });
    };
    let via_root =
        (target.schema != schema || target.name != name).then_some((target.schema, target.name));
    Ok(TableRows { schema, name, columns: target.columns, rows: 0, via_root })
}

/// What a whole archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSummary {
    /// Tables with rows in the archive (perhaps none), in its order. A table without an entry had its
    /// rows left out.
    pub tables: Vec<TableRows>,
    /// Sequences with their values. Sequences ignore snapshots, so these are the values that count.
    pub sequences: Vec<SequenceValue>,
    /// Number of large objects.
    pub large_objects: u64,
    /// Their bytes.
    pub large_object_bytes: u64,
    /// Length of the archive.
    pub bytes: u64,
    /// The table of contents, with the places of the data blocks.
    pub toc: Toc,
}

impl ArchiveSummary {
    /// What a whole archive of `bytes` bytes came to.
    pub fn new(toc: Toc, counter: RowCounter, bytes: u64) -> Result<Self, ArchiveError> {
        Ok(Self {
            tables: counter.tables,
            sequences: sequences(&toc)?,
            large_objects: counter.large_objects,
            large_object_bytes: counter.large_object_bytes,
            bytes,
            toc,
        })
    }

    /// All rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Rows by table, for an inventory.
    pub fn table_counts(&self) -> Vec<TableCount> {
        let count = |table: &TableRows| TableCount {
            schema: table.schema.clone(),
            name: table.name.clone(),
            rows: table.rows,
        };
        self.tables.iter().map(count).collect()
    }
}

/// The sequence values of an archive's `SEQUENCE SET` entries.
fn sequences(toc: &Toc) -> Result<Vec<SequenceValue>, ArchiveError> {
    let of = |entry: &TocEntry| {
        let (last_value, is_called) =
            entry.defn.as_deref().and_then(set_value).ok_or(ArchiveError::Shape {
                position: entry.begins_at,
                what: "a sequence without its value",
            })?;
        Ok(SequenceValue {
            schema: entry.namespace.as_deref().unwrap_or_default().to_owned(),
            name: entry.tag.to_string(),
            last_value,
            is_called,
        })
    };
    toc.entries.iter().filter(|entry| &*entry.desc == "SEQUENCE SET").map(of).collect()
}

/// The end of `SELECT pg_catalog.setval('s.q', 12, true);`: the name is in the entry, unquoted.
fn set_value(statement: &str) -> Option<(i64, bool)> {
    let (_, values) = statement.rsplit_once("', ")?;
    let (value, called) = values.trim().strip_suffix(");")?.split_once(", ")?;
    Some((value.parse().ok()?, called.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(pieces: &[&[u8]]) -> Option<u64> {
        let mut counter = RowCounter::default();
        counter.tables.push(TableRows {
            schema: "s".into(),
            name: "t".into(),
            columns: vec![],
            rows: 0,
            via_root: None,
        });
        for piece in pieces {
            counter.bytes(piece);
        }
        counter.end().ok().map(|()| counter.tables[0].rows)
    }

    #[test]
    fn rows_are_the_lines_before_the_marker() {
        assert_eq!(counted(&[b"\\.\n\n\n"]), Some(0));
        assert_eq!(counted(&[b"a\tb\n", b"c\\n\td\n", b"\\.\n\n\n"]), Some(2));
        assert_eq!(counted(&[b"\n\n", b"\\", b".", b"\n", b"\n\n"]), Some(2));
        assert_eq!(counted(&[b"a long row before the end\n\\.\n"]), Some(1));
    }

    #[test]
    fn rows_without_the_marker_are_told() {
        for cut in [&b""[..], b"a\n", b"a\n\n\n", b"\\.", b"x\\\\.\n\n\n", b"\n\n\n\n\n\n\n\n\n"] {
            assert_eq!(counted(&[cut]), None, "{cut:?}");
        }
    }

    #[test]
    fn a_sequence_value_is_read_behind_any_name() {
        let odd = r#"SELECT pg_catalog.setval('"Odd ""S"""."it''s a (seq), true', 9, false);"', 41, false);"#;
        assert_eq!(set_value(&format!("{odd}\n")), Some((41, false)));
        assert_eq!(
            set_value("SELECT pg_catalog.setval('public.down', -9223372036854775808, true);\n"),
            Some((i64::MIN, true))
        );
        assert_eq!(set_value("SELECT pg_catalog.setval('a.b', NULL, true);"), None);
    }
}
