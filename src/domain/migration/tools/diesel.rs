//! Diesel. The table as `diesel/src/migration/setup_migration_table.sql` of diesel-rs/diesel makes it. Its files are not
//! read: most projects build them into their program.

use super::super::{Action, Definition, Tool, not_recorded};
use super::{unread, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Diesel,
    word: "diesel",
    name: "Diesel",
    tables: &["__diesel_schema_migrations"],
    only_named: true,
    columns: &[("version", ""), ("run_on", "")],
    exact: true,
    rows: "SELECT version::text, version::text, NULL::text, 'applied', NULL::text FROM {table} ORDER BY version",
    programs: &["diesel"],
    action,
    files: unread,
    pending: not_recorded,
    has_file: |_| false,
    apply: "diesel migration run",
    mend: None,
    after_failure: "",
};

fn action(arguments: &[String]) -> Action {
    let mut words = words(arguments);
    match (words.next(), words.next()) {
        (Some("migration"), Some("run")) => Action::Apply,
        _ => Action::Other,
    }
}
