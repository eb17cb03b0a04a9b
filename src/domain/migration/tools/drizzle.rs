//! Drizzle. The table as `drizzle-orm/src/pg-core/dialect.ts` of drizzle-team/drizzle-orm makes it, in a schema of its
//! own: a row holds the SHA-256 of a script and the time that the journal gives it. What the journal has after the
//! newest of these times is to come.

use super::super::{
    Action, Command, Definition, Digest, FileMigration, Files, ProjectFiles, Row, Tool,
};
use super::{Said, below, flag, not_plain, said, spreads, uncommented, unreadable, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Drizzle,
    word: "drizzle",
    name: "Drizzle",
    tables: &["__drizzle_migrations"],
    only_named: true,
    columns: &[("id", ""), ("hash", ""), ("created_at", "bigint")],
    exact: false,
    rows: "SELECT created_at::text, created_at::text, hash::text, 'applied', NULL::text FROM {table} \
           ORDER BY created_at, id",
    programs: &["drizzle-kit"],
    action,
    files,
    pending,
    has_file: |_| true,
    apply: "drizzle-kit migrate",
    mend: None,
    after_failure: "",
};

fn action(arguments: &[String]) -> Action {
    match words(arguments).next() {
        Some("migrate") => Action::Apply,
        _ => Action::Other,
    }
}

fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let configuration = match flag(&command.arguments, &["config"]) {
        Some(given) => {
            let path = below(command, given);
            Some((project.text(&path).ok_or_else(|| unreadable(&path))?, path))
        }
        None => ["ts", "js", "mjs", "json"].iter().find_map(|ending| {
            let path = below(command, &format!("drizzle.config.{ending}"));
            project.text(&path).map(|text| (text, path))
        }),
    };
    let configuration = configuration.map(|(text, path)| (uncommented(&text), path));
    let own = match &configuration {
        Some((text, path)) => match said(text, "out") {
            Said::Plainly(own) => Some(own),
            Said::Nothing if !spreads(text) => None,
            _ => return Err(not_plain(path)),
        },
        None => None,
    };
    let place = below(command, flag(&command.arguments, &["out"]).or(own).unwrap_or("drizzle"));
    let journal = place.join("meta/_journal.json");
    let text = project.text(&journal).ok_or_else(|| unreadable(&journal))?;
    let document: serde_json::Value =
        serde_json::from_str(&text).map_err(|_| unreadable(&journal))?;
    let entries = document["entries"].as_array().ok_or_else(|| unreadable(&journal))?;
    let migration = |entry: &serde_json::Value| {
        let (tag, when) = (entry["tag"].as_str()?, entry["when"].as_i64()?);
        let checksum = project.digest(&place.join(format!("{tag}.sql")), Digest::Sha256);
        Some(FileMigration { key: when.to_string(), name: tag.to_owned(), checksum })
    };
    let migrations: Option<Vec<_>> = entries.iter().map(migration).collect();
    Ok(Files::all(place, migrations.ok_or_else(|| unreadable(&journal))?))
}

fn pending(rows: &[Row], files: &[FileMigration]) -> Vec<String> {
    let time = |key: &str| key.parse::<i64>().unwrap_or(i64::MAX);
    let newest = rows.iter().map(|row| time(&row.key)).max();
    let to_come = files.iter().filter(|file| newest.is_none_or(|newest| time(&file.key) > newest));
    to_come.map(|file| file.name.clone()).collect()
}
