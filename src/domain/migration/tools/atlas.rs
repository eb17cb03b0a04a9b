//! Atlas. The table as `cmd/atlas/internal/migrate/ent/schema/revision.go` of ariga/atlas has it: a migration of which
//! fewer statements were applied than it has broke off. Its files are not read.

use super::super::{Action, Definition, Tool, not_recorded};
use super::{unread, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Atlas,
    word: "atlas",
    name: "Atlas",
    tables: &["atlas_schema_revisions"],
    only_named: false,
    columns: &[
        ("partial_hashes", ""),
        ("version", ""),
        ("description", ""),
        ("applied", ""),
        ("total", ""),
        ("error", ""),
        ("operator_version", ""),
    ],
    exact: false,
    // A row whose version begins with a dot is about the table itself.
    rows: "SELECT version::text, version || ' ' || description, NULL::text, \
           CASE WHEN coalesce(error, '') <> '' OR applied < total THEN 'failed' ELSE 'applied' END, \
           CASE WHEN applied < total THEN applied || ' of ' || total || ' statements were applied' END, xmin::text \
           FROM {table} WHERE version NOT LIKE '.%' ORDER BY version",
    programs: &["atlas"],
    action,
    files: unread,
    pending: not_recorded,
    has_file: |_| false,
    apply: "atlas migrate apply",
    mend: None,
    after_failure: "correct what follows the last statement of `NAME` that was applied, and apply again, or `atlas \
                    migrate set`, through `pgkeep migrate` too",
};

fn action(arguments: &[String]) -> Action {
    let mut words = words(arguments);
    match (words.next(), words.next()) {
        (Some("migrate"), Some("apply")) => Action::Apply,
        (Some("migrate"), Some("set")) => Action::Repair,
        _ => Action::Other,
    }
}
