//! Prisma Migrate. The table is that of the schema engine (`schema-engine/ARCHITECTURE.md` of prisma/prisma-engines, and
//! what 6.19.3 makes): a row is put before its script runs, and gets `finished_at` when it has succeeded. So a deploy
//! that was killed leaves a row without `logs`, though the server may have committed the script. A migration that is
//! tried again has two rows. `checksum` is the SHA-256 of `migration.sql`.

use std::path::{Path, PathBuf};

use super::super::{
    Action, Command, Definition, Digest, FileMigration, Files, ProjectFiles, Tool, not_recorded,
};
use super::{Said, braced, flag, not_plain, said, spreads, uncommented, unreadable, values, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Prisma,
    word: "prisma",
    name: "Prisma Migrate",
    tables: &["_prisma_migrations"],
    only_named: false,
    columns: &[
        ("migration_name", ""),
        ("checksum", ""),
        ("finished_at", ""),
        ("rolled_back_at", ""),
        ("applied_steps_count", ""),
        ("logs", ""),
        ("id", ""),
    ],
    exact: false,
    rows: "SELECT migration_name::text, migration_name::text, checksum::text, \
           CASE WHEN rolled_back_at IS NOT NULL THEN 'rolled back' \
                WHEN finished_at IS NOT NULL THEN 'applied' ELSE 'failed' END, \
           CASE WHEN rolled_back_at IS NULL AND finished_at IS NULL THEN \
                CASE WHEN logs IS NULL THEN 'it was cut short: all of it, or none, may be in force' \
                     ELSE 'it ended in an error' END END, id::text \
           FROM {table} ORDER BY started_at, migration_name",
    programs: &["prisma"],
    action,
    files,
    pending: not_recorded,
    has_file: |_| true,
    apply: "prisma migrate deploy",
    mend: Some("prisma migrate resolve"),
    after_failure: "look what of it is in force, then `prisma migrate resolve --rolled-back NAME` to have it applied \
                    again, or `--applied NAME` if all of it is there, through `pgkeep migrate` too",
};

fn action(arguments: &[String]) -> Action {
    let mut words = words(arguments);
    match (words.next(), words.next()) {
        // `migrate dev` may reset.
        (Some("migrate"), Some("deploy")) => Action::Apply,
        (Some("migrate"), Some("resolve")) | (Some("db"), Some("execute")) => Action::Repair,
        _ => Action::Other,
    }
}

/// `migrations/<name>/migration.sql`, beside the schema unless the configuration says another place.
fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let place = place(command, project)?;
    let entries = project.entries(&place).ok_or_else(|| unreadable(&place))?;
    let mut migrations = Vec::new();
    for entry in entries {
        let Some(name) = entry.strip_suffix('/') else { continue };
        let script = place.join(name).join("migration.sql");
        if let Some(checksum) = project.digest(&script, Digest::Sha256) {
            let checksum = Some(checksum);
            migrations.push(FileMigration { checksum, ..FileMigration::named(name) });
        } else if project.entries(&place.join(name)).is_none_or(|files| !files.is_empty()) {
            return Err(unreadable(&script));
        }
    }
    migrations.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Files::all(place, migrations))
}

fn place(command: &Command, project: &dyn ProjectFiles) -> Result<PathBuf, String> {
    let base = &command.directory;
    let configuration = configuration(command, project)?;
    let mut configured = None;
    if let Some((path, text)) = &configuration {
        if spreads(text) {
            return Err(not_plain(path));
        }
        if let Some((_, section)) = values(text, "migrations").next() {
            match braced(section).map(|section| said(section, "path")) {
                Some(Said::Plainly(own)) => return Ok(beside(path, own)),
                Some(Said::Nothing) => {}
                Some(Said::Otherwise) | None => return Err(not_plain(path)),
            }
        }
        configured = match said(text, "schema") {
            Said::Plainly(schema) => Some(beside(path, schema)),
            Said::Nothing => None,
            Said::Otherwise => return Err(not_plain(path)),
        };
    }
    let given = flag(&command.arguments, &["schema"]).map(|schema| base.join(schema));
    let schema = given.or(configured).or_else(|| of_package(base, project));
    let usual = ["prisma/schema.prisma", "schema.prisma"].map(|path| base.join(path));
    let there = |path: &PathBuf| project.text(path).is_some();
    // A directory `prisma` without that file holds several schema files.
    let schema = schema.or_else(|| usual.into_iter().find(there));
    let schema = schema.unwrap_or_else(|| base.join("prisma"));
    // Of several schema files, the migrations lie beside the one with the datasource, or beside their directory.
    let within = schema.join("migrations");
    if project.entries(&within).is_some() {
        return Ok(within);
    }
    Ok(schema.parent().unwrap_or(base).join("migrations"))
}

/// `prisma.config.ts` or what `--config` names.
fn configuration(
    command: &Command,
    project: &dyn ProjectFiles,
) -> Result<Option<(PathBuf, String)>, String> {
    if let Some(given) = flag(&command.arguments, &["config"]) {
        let path = command.directory.join(given);
        let text = project.text(&path).ok_or_else(|| unreadable(&path))?;
        return Ok(Some((path, uncommented(&text))));
    }
    let endings = ["ts", "js", "mts", "mjs", "cts", "cjs"];
    let usual = endings
        .map(|ending| [format!("prisma.config.{ending}"), format!(".config/prisma.{ending}")]);
    let found = usual.iter().flatten().find_map(|name| {
        let path = command.directory.join(name);
        project.text(&path).map(|text| (path, uncommented(&text)))
    });
    Ok(found)
}

/// `"prisma": {"schema": …}` of `package.json`.
fn of_package(base: &Path, project: &dyn ProjectFiles) -> Option<PathBuf> {
    let text = project.text(&base.join("package.json"))?;
    let package: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(base.join(package["prisma"]["schema"].as_str()?))
}

fn beside(file: &Path, name: &str) -> PathBuf {
    let name = name.trim_start_matches("./");
    file.parent().map_or_else(|| name.into(), |directory| directory.join(name))
}
