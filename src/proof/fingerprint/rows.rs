//! One number for any set of rows, whatever their order.
//!
//! A row is its line in COPY's text format without the newline, the fields in the order of their columns'
//! names. Its hash is the first 16 bytes of a keyed BLAKE3, and the number is the sum of all of them modulo
//! 2^128. A sum, never an exclusive or: there a row that comes twice would vanish. The key keeps someone who
//! can choose rows from choosing them so that a sum comes out right.

use std::collections::HashMap;

use crate::codec::hash::ChunkKey;

/// Rows of one table, summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// How many.
    pub rows: u64,
    /// Of their hashes, modulo 2^128.
    pub sum: u128,
}

impl Fingerprint {
    /// The fingerprint of both sets together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, sum: self.sum.wrapping_add(other.sum) }
    }

    fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }
}

/// How often each row occurs, by its hash: for the question whether rows are contained in others.
pub(super) type Bag = HashMap<u128, u64>;

/// The first 16 bytes of the keyed hash.
pub(super) fn hash_of(key: &ChunkKey, bytes: &[u8]) -> u128 {
    u128::from_le_bytes(*key.hash(bytes).0.first_chunk().expect("a hash has 32 bytes"))
}

/// For each place of the sorted names, the place of that name in `columns`; none when they are sorted.
pub(super) fn order_of(columns: &[String]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by(|a, b| columns[*a].cmp(&columns[*b]));
    (!columns.is_sorted()).then_some(order)
}

/// Takes lines cut anywhere and sums the hashes of the rows.
#[derive(Debug)]
pub(super) struct RowHasher {
    key: ChunkKey,
    order: Option<Vec<usize>>,
    /// A row that the last bytes cut.
    carry: Vec<u8>,
    /// The row at hand in another order, and the ends of its fields: kept to be filled again.
    ordered: Vec<u8>,
    ends: Vec<usize>,
    sum: Fingerprint,
    bag: Option<Bag>,
    ended: bool,
    misshapen: bool,
}

/// What a table's rows came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summed {
    pub(super) sum: Fingerprint,
    pub(super) bag: Option<Bag>,
    /// A row had another number of fields than there are columns, or the last line no end.
    pub(super) misshapen: bool,
}

impl RowHasher {
    /// `order` as [`order_of`] gives it; with `bag`, the rows are also counted one by one.
    pub(super) fn new(key: ChunkKey, order: Option<Vec<usize>>, bag: bool) -> Self {
        Self {
            key,
            order,
            carry: Vec::new(),
            ordered: Vec::new(),
            ends: Vec::new(),
            sum: Fingerprint::default(),
            bag: bag.then(Bag::new),
            ended: false,
            misshapen: false,
        }
    }

    /// More lines; from the line `\.` on, nothing counts any more.
    pub(super) fn bytes(&mut self, mut bytes: &[u8]) {
        if !self.carry.is_empty() {
            let Some(end) = memchr::memchr(b'\n', bytes) else {
                self.carry.extend_from_slice(bytes);
                return;
            };
            let mut row = std::mem::take(&mut self.carry);
            row.extend_from_slice(&bytes[..end]);
            self.row(&row);
            row.clear();
            self.carry = row;
            bytes = &bytes[end + 1..];
        }
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.row(&bytes[..end]);
            bytes = &bytes[end + 1..];
        }
        self.carry.extend_from_slice(bytes);
    }

    /// What it came to.
    pub(super) fn finish(self) -> Summed {
        let cut = !self.carry.is_empty();
        Summed { sum: self.sum, bag: self.bag, misshapen: self.misshapen || cut }
    }

    #[inline]
    fn row(&mut self, row: &[u8]) {
        if self.ended || row == b"\\." {
            self.ended = true;
            return;
        }
        let hash = if self.order.is_some() {
            self.reorder(row);
            hash_of(&self.key, &self.ordered)
        } else {
            hash_of(&self.key, row)
        };
        self.sum.add(hash);
        if let Some(bag) = &mut self.bag {
            *bag.entry(hash).or_default() += 1;
        }
    }

    /// Puts the fields of `row` into `ordered`. Within a value a tab is written `\t`, so tabs separate.
    fn reorder(&mut self, row: &[u8]) {
        let order = self.order.as_deref().unwrap_or_default();
        self.ends.clear();
        self.ends.extend(memchr::memchr_iter(b'\t', row));
        self.ends.push(row.len());
        self.ordered.clear();
        if self.ends.len() != order.len() {
            self.misshapen = true;
            self.ordered.extend_from_slice(row);
            return;
        }
        for (place, from) in order.iter().enumerate() {
            if place > 0 {
                self.ordered.push(b'\t');
            }
            let start = if *from == 0 { 0 } else { self.ends[from - 1] + 1 };
            self.ordered.extend_from_slice(&row[start..self.ends[*from]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: ChunkKey = ChunkKey::from_bytes([7; 32]);

    fn summed(lines: &str, columns: &[&str]) -> Summed {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        let mut hasher = RowHasher::new(KEY, order_of(&columns), true);
        hasher.bytes(lines.as_bytes());
        hasher.finish()
    }

    #[test]
    fn the_order_of_rows_does_not_matter_and_their_number_does() {
        let one = summed("1\ta\n2\tb\n2\tb\n", &["id", "name"]);
        assert_eq!(one, summed("2\tb\n1\ta\n2\tb\n\\.\n\n\n", &["id", "name"]));
        assert_ne!(one.sum, summed("1\ta\n", &["id", "name"]).sum);
        assert_ne!(one.sum, summed("1\ta\n2\tb\n", &["id", "name"]).sum);
        assert_eq!(one.bag.expect("it was asked for").values().sum::<u64>(), 3);
    }

    #[test]
    fn fields_are_taken_in_the_order_of_their_names() {
        let sorted = summed("\\N\tb\\tb\t\n", &["a", "b", "c"]);
        assert_eq!(sorted, summed("b\\tb\t\t\\N\n", &["b", "c", "a"]));
        assert_ne!(sorted.sum, summed("b\\tb\t\t\\N\n", &["a", "b", "c"]).sum);
    }

    #[test]
    fn a_row_of_another_shape_is_told() {
        assert!(summed("1\t2\t3\n", &["b", "a"]).misshapen);
        assert!(summed("1", &["a"]).misshapen);
        assert!(!summed("1\n\\.\n\n\n", &["a"]).misshapen);
    }

    #[test]
    fn a_table_without_columns_still_counts_its_rows() {
        assert_eq!(summed("\n\n\\.\n\n\n", &[]).sum.rows, 2);
    }

    #[test]
    fn a_changed_row_among_equal_pairs_is_seen() {
        // Under exclusive or both would come to nothing.
        assert_ne!(summed("1\n1\n", &["a"]).sum, summed("2\n2\n", &["a"]).sum);
    }

    proptest! {
        #[test]
        fn any_cutting_of_the_lines_gives_the_same(
            rows in prop::collection::vec("[a-c\\\\]{0,6}\t[a-c]{0,6}", 0..20),
            cuts in prop::collection::vec(1..9_usize, 1..40),
        ) {
            let mut text = rows.join("\n");
            text.push('\n');
            let mut hasher = RowHasher::new(KEY, Some(vec![1, 0]), true);
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                hasher.bytes(piece);
                rest = after;
            }
            prop_assert_eq!(hasher.finish(), summed(&text, &["z", "a"]));
        }
    }
}
