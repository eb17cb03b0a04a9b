//! golang-migrate. The table as `database/postgres/postgres.go` of golang-migrate/migrate makes it: one row that says at
//! which version the database stands, and whether a step broke off there. Files are `<version>_<title>.up.sql`.

use super::super::{Action, Command, Definition, FileMigration, Files, ProjectFiles, Row, Tool};
use super::{below, files_ending, flag, number, version_of, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::GolangMigrate,
    word: "golang-migrate",
    name: "golang-migrate",
    tables: &["schema_migrations"],
    only_named: false,
    columns: &[("dirty", "boolean"), ("version", "bigint")],
    exact: true,
    rows: "SELECT version::text, version::text, NULL::text, CASE WHEN dirty THEN 'failed' ELSE 'applied' END, NULL::text, xmin::text \
           FROM {table} ORDER BY version",
    programs: &["migrate"],
    action,
    files,
    pending,
    has_file: |_| true,
    apply: "migrate up",
    mend: Some("migrate force"),
    after_failure: "take back what of version NAME is in force, then `migrate force` the version before it, through \
                    `pgkeep migrate` too",
};

fn action(arguments: &[String]) -> Action {
    let known = ["up", "goto", "down", "drop", "force"];
    match words(arguments).find(|word| known.contains(word)) {
        Some("up") => Action::Apply,
        Some("force") => Action::Repair,
        _ => Action::Other,
    }
}

fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let given = flag(&command.arguments, &["path"]);
    let source = || flag(&command.arguments, &["source"])?.strip_prefix("file://");
    let Some(place) = given.or_else(source) else {
        return Err("it says nowhere from here where they are".to_owned());
    };
    let place = below(command, place);
    let names = files_ending(project, &place, &[".up.sql"])?;
    let migration = |name: &String| {
        let key = number(version_of(name)?);
        Some(FileMigration { key, ..FileMigration::named(name.trim_end_matches(".up.sql")) })
    };
    let mut migrations: Vec<_> = names.iter().filter_map(migration).collect();
    migrations.sort_by_key(|file| file.key.parse::<u64>().unwrap_or(u64::MAX));
    Ok(Files::all(place, migrations))
}

fn pending(rows: &[Row], files: &[FileMigration]) -> Vec<String> {
    let version = |key: &str| key.parse::<u64>().unwrap_or(u64::MAX);
    let stands = rows.last().map(|row| version(&row.key));
    let to_come =
        files.iter().filter(|file| stands.is_none_or(|stands| version(&file.key) > stands));
    to_come.map(|file| file.name.clone()).collect()
}
