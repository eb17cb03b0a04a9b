//! Flyway. The table as `PostgreSQLDatabase.getRawCreateScript` of flyway/flyway makes it; the checksum is the CRC-32 of
//! the lines without their ends (`ChecksumCalculator`), as a signed number. `V2__add.sql` is version 2, `R__views.sql`
//! is applied again whenever it was changed.

use std::path::{Path, PathBuf};

use super::super::{
    Action, Command, Definition, Digest, FileMigration, Files, ProjectFiles, Row, RowState, Tool,
};
use super::{flag, unreadable, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Flyway,
    word: "flyway",
    name: "Flyway",
    tables: &["flyway_schema_history", "schema_version"],
    only_named: false,
    columns: &[
        ("installed_rank", ""),
        ("version", ""),
        ("description", ""),
        ("script", ""),
        ("checksum", ""),
        ("success", "boolean"),
    ],
    exact: false,
    // What a repeatable one's checksum is tells whether it is to come again, not whether it was edited.
    rows: "SELECT coalesce(version, 'R ' || description)::text, script::text, \
           CASE WHEN version IS NOT NULL THEN checksum::text END, \
           CASE WHEN NOT success THEN 'failed' \
                WHEN type = 'DELETE' OR type LIKE 'UNDO%' THEN 'rolled back' ELSE 'applied' END, \
           CASE WHEN type = 'BASELINE' THEN 'baseline' WHEN version IS NULL THEN checksum::text END, \
           installed_rank::text \
           FROM {table} WHERE type <> 'SCHEMA' ORDER BY installed_rank",
    programs: &["flyway"],
    action,
    files,
    pending,
    has_file: |row| row.checksum.is_some(),
    apply: "flyway migrate",
    mend: Some("flyway repair"),
    after_failure: "take back what of NAME is in force and correct it, then `flyway repair`, through `pgkeep migrate` \
                    too",
};

fn action(arguments: &[String]) -> Action {
    let mut action = Action::Other;
    for word in words(arguments) {
        match word {
            // `flyway clean migrate` is more than that.
            "clean" | "undo" | "baseline" => return Action::Other,
            "migrate" => action = Action::Apply,
            "repair" if action == Action::Other => action = Action::Repair,
            _ => {}
        }
    }
    action
}

fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let base = &command.directory;
    let places = places(command, project)?;
    let Some(first) = places.first().cloned() else {
        return Err("it says nowhere from here where they are".to_owned());
    };
    let mut migrations = Vec::new();
    for place in places {
        collect(&place, project, &mut migrations)?;
    }
    migrations.sort_by_key(|file| order(&file.key));
    let programs = ["src/main/java/db/migration", "src/main/kotlin/db/migration"];
    let written = programs.iter().any(|path| project.entries(&base.join(path)).is_some());
    let incomplete = written.then_some("some are programs");
    Ok(Files { incomplete, ..Files::all(first, migrations) })
}

fn places(command: &Command, project: &dyn ProjectFiles) -> Result<Vec<PathBuf>, String> {
    let base = &command.directory;
    if flag(&command.arguments, &["workingDirectory"]).is_some() {
        return Err("it works in another directory".to_owned());
    }
    let given = flag(&command.arguments, &["locations"]).map(str::to_owned);
    let files = ["flyway.toml", "flyway.user.toml", "conf/flyway.toml"];
    let more = flag(&command.arguments, &["configFiles", "environment"]).is_some()
        || project.variable("FLYWAY_CONFIG_FILES").is_some()
        || files.iter().any(|name| project.text(&base.join(name)).is_some());
    if given.is_none() && more {
        return Err("a configuration that is not read may say where they are".to_owned());
    }
    let configured = || {
        ["flyway.conf", "conf/flyway.conf"].iter().find_map(|name| {
            let text = project.text(&base.join(name))?;
            let key = "flyway.locations";
            let value = text.lines().find_map(|line| line.trim().strip_prefix(key))?;
            Some(value.trim_start().strip_prefix('=')?.trim().to_owned())
        })
    };
    let Some(list) = given.or_else(|| project.variable("FLYWAY_LOCATIONS")).or_else(configured)
    else {
        let usual = ["sql", "src/main/resources/db/migration"].map(|path| base.join(path));
        let there = usual.into_iter().filter(|path| project.entries(path).is_some());
        return Ok(there.take(1).collect());
    };
    let place = |one: &str| match one.trim().split_once(':') {
        Some(("filesystem", path)) => Ok(base.join(path.trim_start_matches("./"))),
        _ => Err(format!("its location `{}` is no directory", one.trim())),
    };
    list.split(',').map(place).collect()
}

fn collect(
    place: &Path,
    project: &dyn ProjectFiles,
    migrations: &mut Vec<FileMigration>,
) -> Result<(), String> {
    for entry in project.entries(place).ok_or_else(|| unreadable(place))? {
        if let Some(directory) = entry.strip_suffix('/') {
            collect(&place.join(directory), project, migrations)?;
        } else if let Some(key) = key_of(&entry) {
            let checksum = project.digest(&place.join(&entry), Digest::LinesCrc32);
            migrations.push(FileMigration { key, name: entry, checksum });
        }
    }
    Ok(())
}

fn key_of(file: &str) -> Option<String> {
    let (prefix, description) = file.strip_suffix(".sql")?.split_once("__")?;
    match prefix.split_at_checked(1)? {
        ("V", version) if !version.is_empty() => Some(version.replace('_', ".")),
        ("R", "") => Some(format!("R {}", description.replace('_', " "))),
        _ => None,
    }
}

/// Versions by their numbers, then those that are repeated, by their names.
fn order(key: &str) -> (bool, Vec<u64>, String) {
    let numbers = key.split('.').map(|part| part.parse().unwrap_or(u64::MAX)).collect();
    (key.starts_with("R "), numbers, key.to_owned())
}

fn pending(rows: &[Row], files: &[FileMigration]) -> Vec<String> {
    let baseline = rows.iter().rfind(|row| row.detail.as_deref() == Some("baseline"));
    let below = |key: &str| {
        baseline.is_some_and(|row| order(key).1 <= order(&row.key).1 && !key.starts_with("R "))
    };
    let same = |a: &str, b: &str| a == b || order(a).1 == order(b).1 && !a.starts_with("R ");
    let is_to_come = |file: &&FileMigration| {
        let last = rows.iter().rfind(|row| same(&row.key, &file.key));
        match last {
            None => !below(&file.key),
            Some(row) if file.key.starts_with("R ") => {
                row.state != RowState::Failed && row.detail != file.checksum
            }
            Some(row) => row.state == RowState::RolledBack,
        }
    };
    files.iter().filter(is_to_come).map(|file| file.name.clone()).collect()
}
