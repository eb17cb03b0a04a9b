//! Knex. The table as `lib/migrations/migrate/table-creator.js` of knex/knex makes it; a migration's name is its file's.

use super::super::{
    Action, Command, Definition, FileMigration, Files, ProjectFiles, Tool, not_recorded,
};
use super::{
    Said, below, braced, files_ending, flag, not_plain, said, spreads, uncommented, unreadable,
    values, words,
};

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
    apply: "knex migrate:latest",
    mend: Some("knex migrate:unlock"),
    after_failure: "",
};

const USUAL: &str = "migrations";

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
    } else if let Some((text, path)) = &configuration {
        let own = directory(&uncommented(text)).ok_or_else(|| not_plain(path))?;
        let beside = path.parent().unwrap_or(&command.directory);
        place = beside.join(own.trim_start_matches("./"));
    }
    let names = files_ending(project, &place, &[".js", ".ts", ".cjs", ".mjs", ".cts", ".mts"])?;
    let names = names.into_iter().filter(|name| !name.ends_with(".d.ts"));
    Ok(Files::all(place, names.map(FileMigration::named).collect()))
}

/// The one directory that all its environments name; none where they differ, or it is computed.
fn directory(configuration: &str) -> Option<String> {
    if spreads(configuration) {
        return None;
    }
    let mut named = Vec::new();
    for (_, section) in values(configuration, "migrations") {
        named.push(match said(braced(section)?, "directory") {
            Said::Plainly(own) => own.to_owned(),
            Said::Nothing => USUAL.to_owned(),
            Said::Otherwise => return None,
        });
    }
    // Each environment has a client; those that name no directory have the usual one.
    if named.len() < values(configuration, "client").count() {
        named.push(USUAL.to_owned());
    }
    named.dedup();
    match named.len() {
        0 => Some(USUAL.to_owned()),
        1 => named.pop(),
        _ => None,
    }
}
