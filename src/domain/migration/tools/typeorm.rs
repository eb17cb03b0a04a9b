//! TypeORM. The table as `src/migration/MigrationExecutor.ts` of typeorm/typeorm makes it; Laravel's and others' of the
//! same name have other columns. Where its files are, a program says.

use super::super::{Action, Definition, Tool, not_recorded};
use super::{unread, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Typeorm,
    word: "typeorm",
    name: "TypeORM",
    tables: &["migrations", "typeorm_migrations"],
    only_named: true,
    columns: &[("timestamp", "bigint"), ("id", ""), ("name", "")],
    exact: true,
    rows: "SELECT name::text, name::text, NULL::text, 'applied', NULL::text FROM {table} ORDER BY id",
    programs: &["typeorm", "typeorm-ts-node-commonjs", "typeorm-ts-node-esm"],
    action,
    files: unread,
    pending: not_recorded,
    has_file: |_| false,
    apply: "typeorm migration:run",
    mend: None,
    after_failure: "",
};

fn action(arguments: &[String]) -> Action {
    match words(arguments).find(|word| word.starts_with("migration:")) {
        Some("migration:run") => Action::Apply,
        _ => Action::Other,
    }
}
