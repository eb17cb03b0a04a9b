//! sqlx. The table as `sqlx-postgres/src/migrate.rs` of launchbadge/sqlx makes it; the checksum is the SHA-384 of the
//! file. Files are `<version>_<description>.sql`, or `.up.sql` with a `.down.sql` beside it.

use super::super::{
    Action, Command, Definition, Digest, FileMigration, Files, ProjectFiles, Tool, not_recorded,
};
use super::{below, files_ending, flag, number, version_of, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Sqlx,
    word: "sqlx",
    name: "sqlx",
    tables: &["_sqlx_migrations"],
    only_named: false,
    columns: &[
        ("installed_on", ""),
        ("version", "bigint"),
        ("description", ""),
        ("success", "boolean"),
        ("checksum", "bytea"),
        ("execution_time", "bigint"),
    ],
    exact: true,
    rows: "SELECT version::text, version || ' ' || description, pg_catalog.encode(checksum, 'hex'), \
           CASE WHEN success THEN 'applied' ELSE 'failed' END, NULL::text, xmin::text FROM {table} ORDER BY version",
    programs: &["sqlx"],
    action,
    files,
    pending: not_recorded,
    has_file: |_| true,
    apply: "sqlx migrate run",
    mend: None,
    after_failure: "take back what of `NAME` is in force and delete its row, through `pgkeep migrate` too",
};

fn action(arguments: &[String]) -> Action {
    let mut words = words(arguments);
    match (words.next(), words.next()) {
        (Some("migrate" | "mig" | "m"), Some("run")) => Action::Apply,
        _ => Action::Other,
    }
}

fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let place = below(command, flag(&command.arguments, &["source"]).unwrap_or("migrations"));
    let mut migrations: Vec<FileMigration> = Vec::new();
    for name in files_ending(project, &place, &[".sql"])? {
        let Some(version) = version_of(&name).filter(|_| !name.ends_with(".down.sql")) else {
            continue;
        };
        let checksum = project.digest(&place.join(&name), Digest::Sha384);
        let name = name.trim_end_matches(".sql").trim_end_matches(".up").to_owned();
        migrations.push(FileMigration { key: number(version), name, checksum });
    }
    Ok(Files::all(place, migrations))
}
