//! refinery. The table as `refinery_core/src/traits/mod.rs` of rust-db/refinery makes it; times are texts. Most projects
//! build its files into their program.

use super::super::{Action, Definition, Tool, not_recorded};
use super::{unread, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Refinery,
    word: "refinery",
    name: "refinery",
    tables: &["refinery_schema_history"],
    only_named: false,
    columns: &[
        ("applied_on", "character varying(255)"),
        ("version", ""),
        ("name", ""),
        ("checksum", ""),
    ],
    exact: true,
    rows: "SELECT version::text, 'V' || version || '__' || name, checksum::text, 'applied', NULL::text \
           FROM {table} ORDER BY version",
    programs: &["refinery"],
    action,
    files: unread,
    pending: not_recorded,
    has_file: |_| false,
    apply: "refinery migrate",
    mend: None,
    after_failure: "",
};

fn action(arguments: &[String]) -> Action {
    match words(arguments).next() {
        Some("migrate") => Action::Apply,
        _ => Action::Other,
    }
}
