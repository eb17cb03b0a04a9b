//! PostgreSQL's own programs: which directory of them to use for a server of a given major.
//!
//! The server's own major, else the lowest newer one: `pg_dump` refuses newer servers, and an archive of a
//! newer major may hold settings that an older server does not know. Real programs go before wrapper
//! scripts (Debian's `/usr/bin/pg_dump` is one that picks a version by its own rules). What a program is,
//! its `--version` says, not its place.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::PostgresError;
use crate::domain::failure::is_out_of_files;

/// Directories whose subdirectories are versions, and where the programs lie in each.
const VERSIONED: [(&str, &str); 6] = [
    ("/usr/lib/postgresql", "bin"),
    ("/usr/pgsql-*", "bin"),
    ("/opt/homebrew/opt/postgresql@*", "bin"),
    ("/usr/local/opt/postgresql@*", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "bin"),
    ("/usr/lib64/pgsql", "bin"),
];

/// One directory of programs of one major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    directory: PathBuf,
    major: u32,
}

impl Programs {
    /// Client programs for a server of `major`; `bin_dir` (several, joined as in `PATH`) is looked at first.
    pub fn find(major: u32, bin_dir: Option<&Path>) -> Result<Programs, PostgresError> {
        find_among(&candidates(bin_dir), "pg_dump", major)
    }

    /// Server programs, to run a scratch cluster of `major`.
    pub fn find_server(major: u32, bin_dir: Option<&Path>) -> Result<Programs, PostgresError> {
        find_among(&candidates(bin_dir), "postgres", major)
    }

    /// The major of these programs.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Where they lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of one of them.
    pub fn program(&self, name: &str) -> Result<PathBuf, PostgresError> {
        let path = self.directory.join(name);
        if is_executable(&path) {
            return Ok(path);
        }
        Err(PostgresError::ProgramMissing {
            program: name.to_owned(),
            directory: self.directory.clone(),
            major: self.major,
        })
    }

    /// The first line of its `--version`.
    pub fn version(&self, name: &str) -> Result<String, PostgresError> {
        let program = self.program(name)?;
        version_line(&program).map_err(|source| PostgresError::ProgramUnusable { program, source })
    }
}

fn find_among(
    candidates: &[PathBuf],
    probe: &'static str,
    major: u32,
) -> Result<Programs, PostgresError> {
    let mut seen = HashSet::new();
    let mut newer: Option<Programs> = None;
    let mut newest = None;
    for directory in candidates {
        let program = directory.join(probe);
        let real = fs::canonicalize(&program).unwrap_or_else(|_| program.clone());
        if !is_executable(&program) || !seen.insert(real) {
            continue;
        }
        let line = match version_line(&program) {
            // That is not its fault, and another one must not be taken in its place.
            Err(source) if is_out_of_files(&source.to_string()) => {
                return Err(PostgresError::ProgramUnusable { program, source });
            }
            line => line,
        };
        // A program that cannot say its version is none of ours.
        let Some(found) = line.ok().and_then(|line| major_of(&line)) else { continue };
        newest = newest.max(Some(found));
        if found == major {
            return Ok(Programs { directory: directory.clone(), major });
        }
        if found > major && newer.as_ref().is_none_or(|best| found < best.major) {
            newer = Some(Programs { directory: directory.clone(), major: found });
        }
    }
    newer.ok_or(match newest {
        Some(newest) => PostgresError::ProgramsTooOld { program: probe, newest, major },
        None => PostgresError::ProgramsMissing { program: probe, major },
    })
}

/// Directories in the order of trust: named, versioned, on `PATH`; wrapper scripts last of all.
fn candidates(bin_dir: Option<&Path>) -> Vec<PathBuf> {
    let named = bin_dir.map(|list| std::env::split_paths(list).collect::<Vec<_>>());
    let versioned = VERSIONED.iter().flat_map(|(pattern, below)| versions(pattern, below));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let (scripts, on_path): (Vec<_>, Vec<_>) = std::env::split_paths(&path)
        .filter(|directory| directory.is_absolute())
        .partition(|directory| is_script(&directory.join("pg_dump")));
    named.unwrap_or_default().into_iter().chain(versioned).chain(on_path).chain(scripts).collect()
}

/// `/usr/lib/postgresql` gives each subdirectory; `/usr/pgsql-*` each sibling that begins so. Sorted.
fn versions(pattern: &str, below: &str) -> Vec<PathBuf> {
    let pattern = Path::new(pattern);
    let name = pattern.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let (parent, prefix) = match name.strip_suffix('*') {
        Some(prefix) => (pattern.parent().unwrap_or(pattern), prefix),
        None => (pattern, ""),
    };
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)))
        .map(|entry| entry.path().join(below))
        .filter(|directory| directory.is_dir())
        .collect();
    found.sort();
    found
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn is_script(path: &Path) -> bool {
    let mut head = [0; 2];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *b"#!"
}

fn version_line(program: &Path) -> std::io::Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().map(str::trim).filter(|line| !line.is_empty());
    match line {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => Err(std::io::Error::other("it does not answer --version")),
    }
}

/// `pg_dump (PostgreSQL) 15.18 (Debian 15.18-1)` is 15; so are `15beta1` and `15devel`.
fn major_of(line: &str) -> Option<u32> {
    let (_, version) = line.split_once("(PostgreSQL) ")?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_of(root: &Path, name: &str, says: &str) -> PathBuf {
        let directory = root.join(name);
        fs::create_dir(&directory).unwrap();
        let program = directory.join("pg_dump");
        fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        directory
    }

    #[test]
    fn the_own_major_goes_before_the_lowest_newer_and_older_ones_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let all: Vec<PathBuf> = [("c", 18), ("a", 13), ("b", 16)]
            .iter()
            .map(|(name, major)| {
                directory_of(root.path(), name, &format!("pg_dump (PostgreSQL) {major}.2"))
            })
            .collect();
        let major = |wanted| find_among(&all, "pg_dump", wanted).map(|found| found.major());
        assert_eq!(major(13).unwrap(), 13);
        assert_eq!(major(14).unwrap(), 16);
        assert_eq!(major(17).unwrap(), 18);
        assert!(matches!(
            major(19),
            Err(PostgresError::ProgramsTooOld { newest: 18, major: 19, .. })
        ));
        let none = find_among(&[root.path().join("nowhere")], "pg_dump", 15);
        assert!(matches!(none, Err(PostgresError::ProgramsMissing { .. })));
    }

    #[test]
    fn a_program_that_says_no_version_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let odd = directory_of(root.path(), "odd", "hello");
        assert!(matches!(
            find_among(&[odd], "pg_dump", 15),
            Err(PostgresError::ProgramsMissing { .. })
        ));
    }

    #[test]
    fn a_missing_neighbour_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = directory_of(root.path(), "a", "pg_dump (PostgreSQL) 15.1 (Debian 15.1-1)");
        let programs = find_among(&[at], "pg_dump", 15).unwrap();
        assert_eq!(
            programs.version("pg_dump").unwrap(),
            "pg_dump (PostgreSQL) 15.1 (Debian 15.1-1)"
        );
        assert!(matches!(programs.program("initdb"), Err(PostgresError::ProgramMissing { .. })));
    }

    #[test]
    fn versions_of_every_shape_are_read() {
        for (line, major) in [
            ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(15)),
            ("postgres (PostgreSQL) 19devel", Some(19)),
            ("initdb (PostgreSQL) 18beta1", Some(18)),
            ("git version 2.1", None),
        ] {
            assert_eq!(major_of(line), major, "{line}");
        }
    }
}
