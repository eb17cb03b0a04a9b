//! node-pg-migrate. The table as `src/runner.ts` of salsita/node-pg-migrate makes it. Its files are not read.

use super::super::{Action, Definition, Tool, not_recorded};
use super::{unread, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::NodePgMigrate,
    word: "node-pg-migrate",
    name: "node-pg-migrate",
    tables: &["pgmigrations"],
    only_named: true,
    columns: &[("run_on", ""), ("id", ""), ("name", "")],
    exact: true,
    rows: "SELECT name::text, name::text, NULL::text, 'applied', NULL::text FROM {table} ORDER BY run_on, id",
    programs: &["node-pg-migrate"],
    action,
    files: unread,
    pending: not_recorded,
    has_file: |_| false,
    apply: "node-pg-migrate up",
    mend: None,
    after_failure: "",
};

fn action(arguments: &[String]) -> Action {
    match words(arguments).next() {
        Some("up") => Action::Apply,
        _ => Action::Other,
    }
}
