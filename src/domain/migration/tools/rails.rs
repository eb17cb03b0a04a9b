//! Active Record. The table as `ActiveRecord::SchemaMigration` of rails/rails makes it: one column without a length, by
//! which it is told from dbmate's table of the same name. Files are `db/migrate/<version>_<name>.rb`.

use super::super::{
    Action, Command, Definition, FileMigration, Files, ProjectFiles, Tool, not_recorded,
};
use super::{below, files_ending, number, version_of, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Rails,
    word: "rails",
    name: "Rails",
    tables: &["schema_migrations"],
    only_named: true,
    columns: &[("version", "character varying")],
    exact: true,
    rows: "SELECT coalesce(nullif(pg_catalog.ltrim(version, '0'), ''), '0'), version::text, NULL::text, 'applied', NULL::text \
           FROM {table} ORDER BY version",
    programs: &["rails", "rake"],
    action,
    files,
    pending: not_recorded,
    has_file: |_| true,
    apply: "rails db:migrate",
    mend: None,
    after_failure: "",
};

fn action(arguments: &[String]) -> Action {
    // To a version it goes back, too.
    if arguments.iter().any(|word| word.starts_with("VERSION=")) {
        return Action::Other;
    }
    let mut words = words(arguments).filter(|word| !word.contains('='));
    match (words.next(), words.next()) {
        (Some("db:migrate" | "db:prepare"), None) => Action::Apply,
        _ => Action::Other,
    }
}

fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let place = below(command, "db/migrate");
    let names = files_ending(project, &place, &[".rb"])?;
    let migration = |name: &String| {
        let key = number(version_of(name)?);
        Some(FileMigration { key, ..FileMigration::named(name.trim_end_matches(".rb")) })
    };
    let migrations = names.iter().filter_map(migration).collect();
    let settings = project.text(&below(command, "config/database.yml")).unwrap_or_default();
    let incomplete =
        settings.contains("migrations_paths").then_some("config/database.yml names more places");
    Ok(Files { incomplete, ..Files::all(place, migrations) })
}
