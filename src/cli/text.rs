//! How people read sizes, times and tables.

use jiff::Timestamp;

pub(super) use crate::domain::told::harmless;
pub(super) use crate::domain::words::{count, duration, size};

/// `45 s ago`, `90 min ago`, `36 h ago`, `3 d ago`: an age needs no more digits.
pub(super) fn ago(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// `2026-11-21 02:00:00Z`.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A text that grows by lines.
#[derive(Default)]
pub(super) struct Lines(String);

impl Lines {
    pub(super) fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// A name in a column of its own, and what is known of it.
    pub(super) fn fact(&mut self, name: &str, value: &str) {
        self.line(&format!("{name:<14}{}", harmless(value)));
    }

    pub(super) fn block(&mut self, text: &str) {
        self.0.push_str(text);
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// Where a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Columns as wide as their widest cell, two spaces apart, no lines drawn.
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells.into_iter().map(|cell| harmless(&cell)).collect());
    }

    pub(super) fn render(&self) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.chain([self.columns[at].0.len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let header: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[at] - cell.chars().count());
                match self.columns[at].1 {
                    Align::Left => line.extend([cell, pad.as_str(), "  "]),
                    Align::Right => line.extend([pad.as_str(), cell, "  "]),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_coarse() {
        let hours = |hours: u64| hours * 3_600_000;
        let shown = [45_999, 5_400_000, hours(36), hours(80)].map(ago);
        assert_eq!(shown, ["45 s ago", "90 min ago", "36 h ago", "3 d ago"]);
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_steers_no_terminal() {
        let mut table = Table::new(&[("name", Align::Left), ("rows", Align::Right)]);
        table.row(vec!["a\u{1b}[31m".to_owned(), count(1_234_567)]);
        table.row(vec!["käse".to_owned(), "5".to_owned()]);
        assert_eq!(
            table.render(),
            "name              rows\na\\u{1b}[31m  1,234,567\nkäse                 5\n"
        );
    }
}
