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

/// What a configuration that is written as a program says of a key.
#[derive(Debug, PartialEq, Eq)]
enum Said<'a> {
    Nothing,
    /// A text in quotes and nothing more.
    Plainly(&'a str),
    /// A variable, a call, or whatever a program can say.
    Otherwise,
}

/// What is said of the first `key` that is followed by a value. `text` is without comments.
fn said<'a>(text: &'a str, key: &str) -> Said<'a> {
    let Some((_, value)) = values(text, key).next() else { return Said::Nothing };
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
    let Some((text, rest)) = quote.and_then(|quote| value[1..].split_once(quote)) else {
        return Said::Otherwise;
    };
    let ends = rest.trim_start().chars().next().is_none_or(|c| matches!(c, ',' | ';' | '}' | ')'))
        || rest.starts_with(['\n', '\r']) && !rest.trim_start().starts_with(['+', '.', '?', '|']);
    if ends && !text.contains("${") { Said::Plainly(text) } else { Said::Otherwise }
}

/// Where `key` stands with a value, and what follows; a key without one (`{ key }`) has an empty one.
fn values<'a>(text: &'a str, key: &str) -> impl Iterator<Item = (usize, &'a str)> {
    text.match_indices(key).filter_map(move |(at, _)| {
        let starts =
            !text[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '/'));
        let after = text[at + key.len()..].trim_start_matches(['"', '\'']).trim_start();
        match after.chars().next() {
            _ if !starts => None,
            Some(':' | '=') => Some((at, after[1..].trim_start())),
            Some(',' | '}') if !text[..at].ends_with(['"', '\'']) => Some((at, "")),
            _ => None,
        }
    })
}

/// Whether another object is taken in, which is not seen.
fn spreads(text: &str) -> bool {
    text.match_indices("...").any(|(at, _)| text[..at].trim_end().ends_with(['{', ',']))
}

/// What stands between the braces that `value` begins with.
fn braced(value: &str) -> Option<&str> {
    let mut depth = 0_u32;
    for (at, c) in value.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return value.get(1..at);
        }
    }
    None
}

/// A program without its comments.
fn uncommented(text: &str) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        left.push_str(&rest[..at]);
        rest = rest[at..].split_once("*/").map_or("", |(_, after)| after);
    }
    left.push_str(rest);
    let line = |line: &str| {
        let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        comment.map_or(line, |(at, _)| &line[..at]).to_owned()
    };
    left.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The complaint about a configuration that computes the place.
fn not_plain(path: &Path) -> String {
    format!("`{}` does not say plainly where they are", path.display())
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
