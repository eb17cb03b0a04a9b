//! Alembic. The table as `MigrationContext` of sqlalchemy/alembic (`alembic/runtime/migration.py`) makes it: a row for each
//! head that the database stands at. Each file names its revision and the ones before it, so what is to come is what no
//! head descends from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::super::{Action, Command, Definition, FileMigration, Files, ProjectFiles, Row, Tool};
use super::{below, files_ending, flag, unreadable, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Alembic,
    word: "alembic",
    name: "Alembic",
    tables: &["alembic_version"],
    only_named: false,
    columns: &[("version_num", "")],
    exact: true,
    rows: "SELECT version_num::text, version_num::text, NULL::text, 'applied', NULL::text FROM {table} ORDER BY version_num",
    programs: &["alembic"],
    action,
    files,
    pending,
    has_file: |_| true,
    apply: "alembic upgrade",
    mend: None,
    after_failure: "",
};

/// Parts a revision from those before it in a key.
const AFTER: char = '<';

fn action(arguments: &[String]) -> Action {
    let mut words =
        words(arguments).filter(|word| matches!(*word, "upgrade" | "downgrade" | "stamp"));
    match words.next() {
        Some("upgrade") if !arguments.iter().any(|one| one == "--sql") => Action::Apply,
        Some("stamp") => Action::Repair,
        _ => Action::Other,
    }
}

fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let given = flag(&command.arguments, &["c", "config"]).unwrap_or("alembic.ini");
    let path = below(command, given);
    // Flask keeps it in a usual place.
    let flask = below(command, "migrations");
    let (scripts, several) = match project.text(&path) {
        Some(text) => {
            let value = |key: &str| {
                let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
                line.and_then(|line| line.trim_start().strip_prefix('=')).map(str::trim)
            };
            let place = value("script_location").unwrap_or_default().replace("%(here)s", "");
            if place.is_empty() || place.contains(':') {
                return Err(format!("`{}` does not say plainly where they are", path.display()));
            }
            let place = place.trim_start_matches(['/', '.']).to_owned();
            let beside = path.parent().map(PathBuf::from).unwrap_or_default();
            (beside.join(place), value("version_locations").is_some())
        }
        None if project.text(&flask.join("alembic.ini")).is_some() => (flask, false),
        None => return Err(unreadable(&path)),
    };
    let place = scripts.join("versions");
    let mut migrations = Vec::new();
    for name in files_ending(project, &place, &[".py"])? {
        let text =
            project.text(&place.join(&name)).ok_or_else(|| unreadable(&place.join(&name)))?;
        if let Some(revision) = texts(&text, "revision").pop() {
            let before = texts(&text, "down_revision").join(",");
            let key = format!("{revision}{AFTER}{before}");
            migrations.push(FileMigration { key, name: revision, checksum: None });
        }
    }
    let incomplete = several.then_some("version_locations names more places");
    Ok(Files { incomplete, ..Files::all(place, migrations) })
}

/// The texts in quotes of the assignment to that name; none of `None`.
fn texts(script: &str, name: &str) -> Vec<String> {
    let mut lines = script.lines().skip_while(|line| {
        let rest = line.strip_prefix(name);
        !rest.is_some_and(|rest| rest.trim_start().starts_with([':', '=']) && rest.contains('='))
    });
    let first = lines.next().and_then(|line| line.split_once('=')).map_or("", |(_, value)| value);
    let mut value = first.to_owned();
    if first.trim_start().starts_with('(') {
        let rest = lines.take_while(|line| !line.trim_start().starts_with(')'));
        value.extend(rest.take_while(|_| !first.contains(')')).map(str::to_owned));
    }
    let value = value.split('#').next().unwrap_or_default();
    value.split(['"', '\'']).skip(1).step_by(2).map(str::to_owned).collect()
}

fn pending(rows: &[Row], files: &[FileMigration]) -> Vec<String> {
    let before: BTreeMap<&str, &str> =
        files.iter().filter_map(|file| file.key.split_once(AFTER)).collect();
    let mut done = BTreeSet::new();
    let mut heads: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    while let Some(head) = heads.pop() {
        if done.insert(head) {
            let earlier = before.get(head).copied().unwrap_or_default();
            heads.extend(earlier.split(',').filter(|one| !one.is_empty()));
        }
    }
    // In the order in which they follow each other.
    let mut to_come: Vec<&str> = Vec::new();
    let mut left: Vec<&str> = before.keys().copied().filter(|one| !done.contains(one)).collect();
    while !left.is_empty() {
        let ready = |one: &&str| {
            let mut earlier = before[*one].split(',').filter(|one| !one.is_empty());
            earlier.all(|one| !left.contains(&one))
        };
        // A circle is the tool's to complain about.
        let next: Vec<&str> = left.iter().copied().filter(|one| ready(one)).collect();
        let next = if next.is_empty() { left.clone() } else { next };
        left.retain(|one| !next.contains(one));
        to_come.extend(next);
    }
    to_come.into_iter().map(str::to_owned).collect()
}
