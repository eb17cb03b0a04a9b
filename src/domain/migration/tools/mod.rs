//! One file for each tool: its table, its rows as a query, its programs, its files.
//!
//! The order is the one in which tables are looked at: a table that fits two is the first one's.

mod alembic;
mod atlas;
mod diesel;
mod django;
mod drizzle;
mod flyway;
mod golang_migrate;
mod goose;
mod knex;
mod liquibase;
mod node_pg_migrate;
mod prisma;
mod rails;
mod refinery;
mod sequelize;
mod sqlx;
mod typeorm;

use std::path::{Path, PathBuf};

use super::{Command, Definition, Files, ProjectFiles};

/// All of them.
pub(super) const ALL: &[Definition] = &[
    prisma::DEFINITION,
    flyway::DEFINITION,
    liquibase::DEFINITION,
    django::DEFINITION,
    rails::DEFINITION,
    alembic::DEFINITION,
    sqlx::DEFINITION,
    diesel::DEFINITION,
    goose::DEFINITION,
    knex::DEFINITION,
    typeorm::DEFINITION,
    sequelize::DEFINITION,
    drizzle::DEFINITION,
    golang_migrate::DEFINITION,
    node_pg_migrate::DEFINITION,
    refinery::DEFINITION,
    atlas::DEFINITION,
];

/// For tools whose files pgkeep does not read.
fn unread(_: &Command, _: &dyn ProjectFiles) -> Result<Files, String> {
    Err("pgkeep does not read this tool's files".to_owned())
}

/// The complaint about a place that cannot be read.
fn unreadable(place: &Path) -> String {
    format!("`{}` cannot be read from here", place.display())
}

/// The value of a flag: `--flag value`, `--flag=value`, and the same with one dash; the last one counts.
fn flag<'a>(arguments: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut found = None;
    for (at, argument) in arguments.iter().enumerate() {
        let Some(bare) = argument.strip_prefix('-') else { continue };
        let bare = bare.strip_prefix('-').unwrap_or(bare);
        match bare.split_once('=') {
            Some((name, value)) if names.contains(&name) => found = Some(value),
            None if names.contains(&bare) => found = arguments.get(at + 1).map(String::as_str),
            _ => {}
        }
    }
    found
}

/// The words that are no flags, in order; the value of a flag that is apart from it is among them.
fn words(arguments: &[String]) -> impl Iterator<Item = &str> {
    arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with('-'))
}

/// The entries of a directory that are files and end so, sorted by name.
fn files_ending(
    project: &dyn ProjectFiles,
    place: &Path,
    endings: &[&str],
) -> Result<Vec<String>, String> {
    let mut entries = project.entries(place).ok_or_else(|| unreadable(place))?;
    entries.retain(|name| endings.iter().any(|ending| name.ends_with(ending)));
    entries.sort();
    Ok(entries)
}

/// The first text in quotes that follows `key` and a `:` or `=` in a configuration written as a program.
fn literal<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let starts = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        rest = &rest[at + key.len()..];
        let after = rest.trim_start_matches(['"', '\'']).trim_start();
        let Some(value) = after.strip_prefix([':', '=']).filter(|_| starts) else { continue };
        let value = value.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
        let body = quote.map(|quote| (quote, &value[1..]));
        return body.and_then(|(quote, body)| body.split(quote).next());
    }
    None
}

/// A directory given or usual, below where the command's tool works.
fn below(command: &Command, place: &str) -> PathBuf {
    command.directory.join(place.trim_start_matches("./"))
}

/// A version before `_` in a file's name, such as `0001` of `0001_init.sql`.
fn version_of(name: &str) -> Option<&str> {
    let version = name.split('_').next()?;
    let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    digits.then_some(version)
}

/// A version without the zeros that stand before it.
fn number(version: &str) -> String {
    let bare = version.trim_start_matches('0');
    if bare.is_empty() { "0".to_owned() } else { bare.to_owned() }
}
