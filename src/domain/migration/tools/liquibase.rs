//! Liquibase. The table as `CreateDatabaseChangeLogTableGenerator` of liquibase/liquibase makes it. Its change logs
//! include each other in four languages, and are not read.

use super::super::{Action, Definition, Tool, not_recorded};
use super::{unread, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Liquibase,
    word: "liquibase",
    name: "Liquibase",
    tables: &["databasechangelog"],
    only_named: false,
    columns: &[
        ("orderexecuted", ""),
        ("id", ""),
        ("author", ""),
        ("filename", ""),
        ("exectype", ""),
        ("md5sum", ""),
    ],
    exact: false,
    rows: "SELECT filename || '::' || id || '::' || author, filename || '::' || id || '::' || author, NULL::text, \
           CASE WHEN exectype = 'FAILED' THEN 'failed' ELSE 'applied' END, NULL::text, xmin::text \
           FROM {table} ORDER BY dateexecuted, orderexecuted",
    programs: &["liquibase"],
    action,
    files: unread,
    pending: not_recorded,
    has_file: |_| false,
    apply: "liquibase update",
    mend: None,
    after_failure: "correct the change set NAME and run the update again",
};

fn action(arguments: &[String]) -> Action {
    match words(arguments).find(|word| word.starts_with("update") || word.contains("rollback")) {
        Some(word) if word.starts_with("update") && !word.contains("sql") => Action::Apply,
        _ => Action::Other,
    }
}
