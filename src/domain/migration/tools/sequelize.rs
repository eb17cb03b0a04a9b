//! Sequelize. The table as `src/storage/sequelize.ts` of sequelize/umzug makes it, in mixed case. Its files are not read.

use super::super::{Action, Definition, Tool, not_recorded};
use super::{unread, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Sequelize,
    word: "sequelize",
    name: "Sequelize",
    tables: &["SequelizeMeta"],
    only_named: true,
    columns: &[("name", "")],
    exact: false,
    rows: "SELECT name::text, name::text, NULL::text, 'applied', NULL::text FROM {table} ORDER BY name",
    programs: &["sequelize", "sequelize-cli"],
    action,
    files: unread,
    pending: not_recorded,
    has_file: |_| false,
    apply: "sequelize db:migrate",
    mend: None,
    after_failure: "",
};

fn action(arguments: &[String]) -> Action {
    match words(arguments).find(|word| word.starts_with("db:")) {
        Some("db:migrate") => Action::Apply,
        _ => Action::Other,
    }
}
