//! goose. The table as `internal/dialect/dialectquery/postgres.go` of pressly/goose makes it: a row for each step up or
//! down, the newest of a version counts. Files are `<version>_<name>.sql` or `.go`.

use super::super::{
    Action, Command, Definition, FileMigration, Files, ProjectFiles, Tool, not_recorded,
};
use super::{below, files_ending, flag, number, version_of, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Goose,
    word: "goose",
    name: "goose",
    tables: &["goose_db_version"],
    only_named: false,
    columns: &[("is_applied", "boolean"), ("id", ""), ("version_id", "bigint"), ("tstamp", "")],
    exact: true,
    // Version 0 is the table's own beginning.
    rows: "SELECT version_id::text, version_id::text, NULL::text, \
           CASE WHEN is_applied THEN 'applied' ELSE 'rolled back' END, NULL::text \
           FROM (SELECT DISTINCT ON (version_id) * FROM {table} ORDER BY version_id, id DESC) AS newest \
           WHERE version_id > 0 ORDER BY version_id",
    programs: &["goose"],
    action,
    files,
    pending: not_recorded,
    has_file: |_| true,
    apply: "goose up",
    mend: None,
    after_failure: "",
};

fn action(arguments: &[String]) -> Action {
    let known = ["up", "up-by-one", "up-to", "down", "down-to", "redo", "reset"];
    match words(arguments).find(|word| known.contains(word)) {
        Some(word) if word.starts_with("up") => Action::Apply,
        _ => Action::Other,
    }
}

fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let given = flag(&command.arguments, &["dir"]).map(str::to_owned);
    let given = given.or_else(|| project.variable("GOOSE_MIGRATION_DIR"));
    let place = below(command, given.as_deref().unwrap_or("."));
    let names = files_ending(project, &place, &[".sql", ".go"])?;
    let migration = |name: &String| {
        let version = version_of(name).filter(|_| !name.ends_with("_test.go"))?;
        Some(FileMigration { key: number(version), ..FileMigration::named(name.as_str()) })
    };
    let migrations: Vec<_> = names.iter().filter_map(migration).collect();
    if migrations.is_empty() && given.is_none() {
        return Err("it says nowhere from here where they are".to_owned());
    }
    Ok(Files::all(place, migrations))
}
