//! Migration tools: who keeps the history of a database, and how the history and the tool's files stand to each other.
//!
//! A tool is known by the columns of its table, and by the command. Its table is read by a query that gives every
//! tool's rows one shape ([`Row`]); its files come in through [`ProjectFiles`]. What comes out is a [`State`]: applied,
//! failed, edited after it was applied, and pending. Files that cannot be read, or not all of them, make `pending`
//! unknown, never none. What the tools say themselves is not asked: their `status` commands do not tell these apart.

mod around;
mod command;
mod earlier;
mod record;
pub mod rehearsal;
mod table;
mod tools;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use around::ADDRESSES;
pub use command::{Action, Command};
pub use earlier::{Earlier, since};
pub use record::{CommandEnd, GuardOutcome, MigrationRecord, SnapshotDecision, Warning};
pub use rehearsal::Rehearsal;
pub use table::{Column, Table, marks, recognise};

/// A tool that keeps a history of migrations in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// Prisma Migrate.
    Prisma,
    /// Flyway.
    Flyway,
    /// Liquibase.
    Liquibase,
    /// Django's `migrate`.
    Django,
    /// Active Record's migrations.
    Rails,
    /// Alembic, Flask-Migrate too.
    Alembic,
    /// sqlx.
    Sqlx,
    /// Diesel.
    Diesel,
    /// goose.
    Goose,
    /// Knex.
    Knex,
    /// TypeORM.
    Typeorm,
    /// Sequelize (umzug).
    Sequelize,
    /// Drizzle.
    Drizzle,
    /// golang-migrate.
    GolangMigrate,
    /// node-pg-migrate.
    NodePgMigrate,
    /// refinery.
    Refinery,
    /// Atlas.
    Atlas,
}

impl Tool {
    /// The word in labels and documents.
    pub fn as_str(self) -> &'static str {
        self.definition().word
    }

    /// How people call it.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// The tool of that word, however it is written.
    pub fn of_word(word: &str) -> Option<Self> {
        let found = tools::ALL.iter().find(|one| one.word.eq_ignore_ascii_case(word.trim()));
        found.map(|definition| definition.tool)
    }

    /// What its table is called, unless it was told otherwise.
    pub fn usual_table(self) -> &'static str {
        self.definition().tables[0]
    }

    /// The command that applies its migrations.
    pub fn apply(self) -> &'static str {
        self.definition().apply
    }

    /// The command that mends its table after a failure, where it has one.
    pub fn mend(self) -> Option<&'static str> {
        self.definition().mend
    }

    /// What is to be run when its history holds a migration that failed.
    pub fn after_failure(self, failed: &Failed) -> String {
        self.definition().after_failure.replace("NAME", &failed.name)
    }

    /// The query that gives its table's rows the shape of [`Row`]; `table` is quoted.
    pub fn rows_query(self, table: &str) -> String {
        self.definition().rows.replace("{table}", table)
    }

    fn definition(self) -> &'static Definition {
        let found = tools::ALL.iter().find(|definition| definition.tool == self);
        found.expect("every tool has its file")
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that is known of one tool.
struct Definition {
    tool: Tool,
    word: &'static str,
    name: &'static str,
    /// The usual names of its table, as it writes them.
    tables: &'static [&'static str],
    /// Whether others could have such columns, so that only the usual names count.
    only_named: bool,
    /// The columns that it has, with their types as `format_type` writes them; an empty type is any.
    columns: &'static [(&'static str, &'static str)],
    /// Whether it has no others.
    exact: bool,
    /// A query whose columns are those of [`Row`]: key, name, checksum, state, detail; all text, oldest first. Where a
    /// row can tell of a failure there is its identity, too.
    rows: &'static str,
    /// The file names of its programs.
    programs: &'static [&'static str],
    /// What its program does when it is given these arguments.
    action: fn(&[String]) -> Action,
    /// Its files, where they can be read.
    files: fn(&Command, &dyn ProjectFiles) -> Result<Files, String>,
    /// Which of the files are to come.
    pending: fn(&[Row], &[FileMigration]) -> Vec<String>,
    /// Whether such an applied row should have a file; not where the table holds a position only.
    has_file: fn(&Row) -> bool,
    /// What applies its migrations.
    apply: &'static str,
    /// What mends its table after a failure, where it has such a command.
    mend: Option<&'static str>,
    /// What is to be run after a failure; `NAME` stands for the migration.
    after_failure: &'static str,
}

/// What is asked of the files of a project; paths are relative to where the command runs.
pub trait ProjectFiles {
    /// The names in a directory, those of directories with a `/` behind; none when it cannot be read.
    fn entries(&self, directory: &Path) -> Option<Vec<String>>;
    /// A text file; none when it cannot be read.
    fn text(&self, path: &Path) -> Option<String>;
    /// A checksum of a file, as that tool writes it; none when it cannot be read.
    fn digest(&self, path: &Path, digest: Digest) -> Option<String>;
    /// An environment variable that the command will see.
    fn variable(&self, name: &str) -> Option<String>;
}

/// A checksum as tools make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// Of the bytes, in hex.
    Sha256,
    /// Of the bytes, in hex.
    Sha384,
    /// CRC-32 of the lines without their ends, as a signed number.
    LinesCrc32,
}

/// One row of a tool's table, in the shape that all have here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What a file is matched by.
    pub key: String,
    /// How people call it.
    pub name: String,
    /// The tool's checksum of the file, where it keeps one.
    pub checksum: Option<String>,
    /// Whether it is in force.
    pub state: RowState,
    /// What the row says besides.
    pub detail: Option<String>,
    /// What tells it from a later row of the same name, where that is known.
    pub identity: Option<String>,
}

/// Whether what a row tells of is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// It was applied.
    Applied,
    /// It was begun and did not succeed.
    Failed,
    /// It was undone, or said to be.
    RolledBack,
}

impl RowState {
    /// As the queries write it.
    pub fn parse(text: &str) -> Self {
        match text {
            "failed" => Self::Failed,
            "rolled back" => Self::RolledBack,
            _ => Self::Applied,
        }
    }
}

/// A migration among the files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileMigration {
    key: String,
    name: String,
    checksum: Option<String>,
}

impl FileMigration {
    /// One that is called by its key, and has no checksum.
    fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { key: name.clone(), name, checksum: None }
    }
}

/// The migrations of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    migrations: Vec<FileMigration>,
    /// Where they are.
    place: PathBuf,
    /// Why there may be more of them.
    incomplete: Option<&'static str>,
}

impl Files {
    fn all(place: PathBuf, migrations: Vec<FileMigration>) -> Self {
        Self { migrations, place, incomplete: None }
    }
}

/// A migration that was begun and did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// What the tool calls it.
    pub name: String,
    /// What its row says besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What tells its row from one that a second failure leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<String>,
}

/// How a tool's history and its files stand to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The tool.
    pub tool: Tool,
    /// Its table, as `schema.table`; none where it has made none yet.
    pub table: Option<String>,
    /// How many are applied, as far as its table tells: some hold their position only.
    pub applied: u64,
    /// The newest of those.
    pub last_applied: Option<String>,
    /// Those that were begun and did not succeed.
    pub failed: Vec<Failed>,
    /// Applied, and their file is another one now.
    pub edited: Vec<String>,
    /// Applied, and no file of that name is there.
    pub without_file: Vec<String>,
    /// Not applied yet, as far as the files could be read.
    pub pending: Vec<String>,
    /// Why there may be more of them; none when all files were read.
    pub pending_unknown: Option<String>,
    /// Where the files are.
    pub files: Option<String>,
}

impl State {
    /// From a tool's rows and the files that the command would use. Without a table the history is empty.
    pub fn of(
        tool: Tool,
        table: Option<String>,
        rows: &[Row],
        command: &Command,
        project: &dyn ProjectFiles,
    ) -> Self {
        let definition = tool.definition();
        let of_state = |state| rows.iter().filter(move |row| row.state == state);
        let failed: BTreeSet<Failed> = of_state(RowState::Failed)
            .map(|row| Failed {
                name: row.name.clone(),
                detail: row.detail.clone(),
                row: row.identity.clone(),
            })
            .collect();
        let mut state = Self {
            tool,
            table,
            applied: of_state(RowState::Applied).count() as u64,
            last_applied: of_state(RowState::Applied).next_back().map(|row| row.name.clone()),
            failed: failed.into_iter().collect(),
            edited: Vec::new(),
            without_file: Vec::new(),
            pending: Vec::new(),
            pending_unknown: None,
            files: None,
        };
        let elsewhere = || Err("its launcher works in another directory".to_owned());
        let files =
            if command.around.moved { elsewhere() } else { (definition.files)(command, project) };
        match files {
            Ok(files) => state.compare(definition, rows, &files),
            Err(reason) => state.pending_unknown = Some(reason),
        }
        if command.tool != Some(tool) && state.pending_unknown.is_none() {
            state.pending_unknown = Some("the command does not say whose files it uses".to_owned());
        }
        if state.pending_unknown.is_none() {
            state.pending_unknown = command.uncertain().map(str::to_owned);
        }
        state
    }

    fn compare(&mut self, definition: &Definition, rows: &[Row], files: &Files) {
        self.files = Some(files.place.display().to_string());
        self.pending = (definition.pending)(rows, &files.migrations);
        self.pending_unknown = files.incomplete.map(str::to_owned);
        let applied = rows.iter().filter(|row| row.state == RowState::Applied);
        for row in applied {
            // Alembic's keys say what comes before, too.
            let own = |file: &&FileMigration| file.key == row.key || file.name == row.key;
            match files.migrations.iter().find(own) {
                Some(file) => {
                    let both = row.checksum.as_ref().zip(file.checksum.as_ref());
                    if both.is_some_and(|(then, now)| then != now) {
                        self.edited.push(row.name.clone());
                    }
                }
                None if files.incomplete.is_none() && (definition.has_file)(row) => {
                    self.without_file.push(row.name.clone());
                }
                None => {}
            }
        }
        // Both may be signs of a place that is not the tool's.
        if self.pending_unknown.is_none() {
            self.pending_unknown = if files.migrations.is_empty() {
                Some("no migration was found there".to_owned())
            } else {
                let gone = !self.without_file.is_empty();
                gone.then(|| "some that are applied have no file there".to_owned())
            };
        }
    }

    /// Whether every file was read and none of them is to come.
    pub fn has_nothing_pending(&self) -> bool {
        self.pending.is_empty() && self.pending_unknown.is_none()
    }

    /// `3`, `3 or more`, `unknown`.
    pub fn pending_count(&self) -> String {
        match (self.pending.len(), &self.pending_unknown) {
            (0, Some(_)) => "unknown".to_owned(),
            (some, Some(_)) => format!("{some} or more"),
            (all, None) => all.to_string(),
        }
    }
}

/// The files that no row says are applied or failed.
fn not_recorded(rows: &[Row], files: &[FileMigration]) -> Vec<String> {
    let recorded: BTreeSet<&str> = rows
        .iter()
        .filter(|row| row.state != RowState::RolledBack)
        .map(|row| row.key.as_str())
        .collect();
    let to_come = files.iter().filter(|file| !recorded.contains(file.key.as_str()));
    to_come.map(|file| file.name.clone()).collect()
}

#[cfg(test)]
mod tests;
