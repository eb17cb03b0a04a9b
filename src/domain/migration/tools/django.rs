//! Django. The table as `MigrationRecorder` of django/django (`django/db/migrations/recorder.py`) makes it. Files are those
//! of the applications below the project; applications that were installed have theirs elsewhere, so that nothing
//! pending among the former is not nothing pending.

use std::path::{Path, PathBuf};

use super::super::{
    Action, Command, Definition, FileMigration, Files, ProjectFiles, Tool, not_recorded,
};
use super::{unreadable, words};

pub(super) const DEFINITION: Definition = Definition {
    tool: Tool::Django,
    word: "django",
    name: "Django",
    tables: &["django_migrations"],
    only_named: true,
    columns: &[("id", ""), ("app", ""), ("name", ""), ("applied", "")],
    exact: true,
    rows: "SELECT app || '.' || name, app || '.' || name, NULL::text, 'applied', NULL::text FROM {table} ORDER BY id",
    programs: &["manage.py", "django-admin"],
    action,
    files,
    pending: not_recorded,
    has_file: |_| false,
    apply: "manage.py migrate",
    mend: None,
    after_failure: "",
};

/// So deep applications lie below a project.
const DEPTH: u32 = 3;

fn action(arguments: &[String]) -> Action {
    let only_looks = arguments.iter().any(|one| matches!(one.as_str(), "--plan" | "--check"));
    match words(arguments).next() {
        // `migrate shop zero` goes back, so only the plain forms are known.
        Some("migrate") if !only_looks && words(arguments).count() == 1 => Action::Apply,
        _ => Action::Other,
    }
}

fn files(command: &Command, project: &dyn ProjectFiles) -> Result<Files, String> {
    let base = &command.directory;
    project.text(&base.join("manage.py")).ok_or_else(|| unreadable(&base.join("manage.py")))?;
    let mut migrations = Vec::new();
    collect(base, project, DEPTH, &mut migrations);
    migrations.sort_by(|a, b| a.name.cmp(&b.name));
    let incomplete = Some("those of installed applications are not seen");
    Ok(Files { incomplete, ..Files::all(PathBuf::from(base), migrations) })
}

fn collect(
    place: &Path,
    project: &dyn ProjectFiles,
    depth: u32,
    migrations: &mut Vec<FileMigration>,
) {
    for entry in project.entries(place).unwrap_or_default() {
        let Some(directory) = entry.strip_suffix('/').filter(|name| !is_foreign(name)) else {
            continue;
        };
        let path = place.join(directory);
        if directory == "migrations" {
            let app = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let files = project.entries(&path).unwrap_or_default();
            let names = files.iter().filter_map(|file| file.strip_suffix(".py"));
            let names = names.filter(|name| !name.starts_with('_'));
            migrations.extend(names.map(|name| FileMigration::named(format!("{app}.{name}"))));
        } else if depth > 0 {
            collect(&path, project, depth - 1, migrations);
        }
    }
}

/// Where other people's programs lie.
fn is_foreign(name: &str) -> bool {
    name.starts_with('.')
        || matches!(name, "node_modules" | "venv" | "env" | "site-packages" | "__pycache__")
}
