//! Knex. The table as `lib/migrations/migrate/table-creator.js` of knex/knex makes it; a migration's name is its file's.

use super::super::{
    Action, Command, Definition, FileMigration, Files, ProjectFiles, Tool, not_recorded,
};
use super::{below, files_ending, flag, literal, unreadable, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Knex,
    word: "knex",
    name: "Knex",
    tables: &["knex_migrations"],
    only_named: false,
    columns: &[("migration_time", ""), ("id", ""), ("name", ""), ("batch", "integer")],
    exact: true,
    rows: "SELECT name::text, name::text, NULL::text, 'applied', NULL::text FROM {table} ORDER BY id",
    programs: &["knex"],
    action,
    files,
    pending: not_recorded,
    has_file: |_| true,
    after_failure: "",
};

fn action(arguments: &[String]) -> Action {
    match words(arguments).find(|word| word.starts_with("migrate:")) {
        Some("migrate:latest" | "migrate:up") => Action::Apply,
        Some("migrate:unlock") => Action::Repair,
        _ => Action::Other,
    }
}

fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let arguments = &command.arguments;
    if flag(arguments, &["cwd"]).is_some() {
        return Err("it works in another directory".to_owned());
    }
    let configuration = match flag(arguments, &["knexfile"]) {
        Some(given) => {
            let path = below(command, given);
            Some((project.text(&path).ok_or_else(|| unreadable(&path))?, path))
        }
        None => ["js", "ts", "cjs", "mjs"].iter().find_map(|ending| {
            let path = below(command, &format!("knexfile.{ending}"));
            project.text(&path).map(|text| (text, path))
        }),
    };
    let mut place = below(command, "migrations");
    if let Some(given) = flag(arguments, &["migrations-directory"]) {
        place = below(command, given);
    } else if let Some((text, path)) = &configuration
        && let Some(section) = text.find("migrations").map(|at| &text[at..])
    {
        let beside = path.parent().unwrap_or(&command.directory);
        place = match literal(section, "directory") {
            Some(own) => beside.join(own.trim_start_matches("./")),
            None if section.contains("directory") => {
                return Err(format!("`{}` does not say plainly where they are", path.display()));
            }
            None => beside.join("migrations"),
        };
    }
    let names = files_ending(project, &place, &[".js", ".ts", ".cjs", ".mjs", ".cts", ".mts"])?;
    let names = names.into_iter().filter(|name| !name.ends_with(".d.ts"));
    Ok(Files::all(place, names.map(FileMigration::named).collect()))
}
