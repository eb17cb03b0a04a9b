//! Reads configuration files and files of secrets, and refuses those that others can read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::layer::{Layer, from_toml, known};
use super::schema::{Place, Secrecy, Shape};
use super::secret::connection_has_password;
use super::{ConfigError, environment::Environment, schema};
use crate::domain::connection::Secret;
use crate::domain::id::ClusterName;

/// A key or configuration file is a few lines; more is a mistake, such as a dump.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The text of a file and its permission bits, taken from one open file.
pub(super) fn read_with_mode(path: &Path) -> Result<(String, u32), ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::Encoding(path.to_owned()))?;
    Ok((text, mode))
}

/// The text of a file.
pub(super) fn read_text(path: &Path) -> Result<String, ConfigError> {
    Ok(read_with_mode(path)?.0)
}

/// The text of a file that holds a secret: refused when group or others have any right to it.
pub fn read_secret(path: &Path, what: &str) -> Result<Secret, ConfigError> {
    let (text, mode) = read_with_mode(path)?;
    refuse_exposed(path, what, mode)?;
    Ok(Secret::new(text))
}

fn refuse_exposed(path: &Path, what: &str, mode: u32) -> Result<(), ConfigError> {
    const OF_GROUP_AND_OTHERS: u32 = 0o077;
    if (mode & OF_GROUP_AND_OTHERS).count_ones() == 0 {
        return Ok(());
    }
    Err(ConfigError::Exposed { path: path.to_owned(), what: what.to_owned(), mode })
}

/// Reads a configuration file into a layer.
pub(super) fn read_layer(path: &Path) -> Result<Layer, ConfigError> {
    let (text, mode) = read_with_mode(path)?;
    let layer = parse(&text, path, &|line| format!("{}:{line}", path.display()))?;
    for (key, value) in &layer.leaves {
        let Place::Key(known) = schema::place(&key.split('.').collect::<Vec<_>>()) else {
            continue;
        };
        let text = value.clone().into_string().unwrap_or_default();
        match known.secrecy {
            Secrecy::Secret => refuse_exposed(path, known.what(), mode)?,
            Secrecy::Connection if connection_has_password(&text) => {
                refuse_exposed(path, "a password", mode)?;
            }
            _ => {}
        }
    }
    Ok(layer)
}

/// Parses a configuration text; `origin` words where a line is.
pub(super) fn parse(
    text: &str,
    path: &Path,
    origin: &dyn Fn(usize) -> String,
) -> Result<Layer, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line_start = text[..at].rfind('\n').map_or(0, |found| found + 1);
        ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(text, at),
            column: text[line_start..at].chars().count() + 1,
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        }
    })?;
    let mut reader = Reader { text, dir: path.parent(), origin, layer: Layer::default() };
    reader.table(&[], document.get_ref())?;
    Ok(reader.layer)
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

struct Reader<'a> {
    text: &'a str,
    dir: Option<&'a Path>,
    origin: &'a dyn Fn(usize) -> String,
    layer: Layer,
}

impl Reader<'_> {
    fn table(&mut self, path: &[&str], table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let origin = (self.origin)(line_of(self.text, name.span().start));
            let path: Vec<&str> = path.iter().copied().chain([name.get_ref().as_ref()]).collect();
            let dotted = path.join(".");
            refuse_chosen(&origin, &path)?;
            if let Place::Key(key) = known(&origin, &path)? {
                let value = from_toml(&origin, &dotted, key.shape, value.get_ref())?;
                let value = self.beside_the_file(key.shape, value);
                self.layer.leaves.insert(dotted, value);
                continue;
            }
            let DeValue::Table(table) = value.get_ref() else {
                let expected = "a table".to_owned();
                return Err(ConfigError::Shape { origin, key: dotted, expected });
            };
            self.table(&path, table)?;
        }
        Ok(())
    }

    /// A relative path in a file means one beside that file.
    fn beside_the_file(&self, shape: Shape, mut value: config::Value) -> config::Value {
        if let (Shape::Path, config::ValueKind::String(text), Some(dir)) =
            (shape, &mut value.kind, self.dir)
        {
            *text = dir.join(&*text).to_string_lossy().into_owned();
        }
        value
    }
}

/// Cluster names are lower case, which also spares us that variables cannot tell case.
pub(super) fn refuse_cluster_name(origin: &str, key: &str, name: &str) -> Result<(), ConfigError> {
    name.parse::<ClusterName>().map(drop).map_err(|_| ConfigError::Shape {
        origin: origin.to_owned(),
        key: key.to_owned(),
        expected: "named with lower-case letters, digits, `-` and `_`".to_owned(),
    })
}

/// The same for whatever name is in a path; a webhook's follows the rule of clusters.
pub(super) fn refuse_chosen(origin: &str, path: &[&str]) -> Result<(), ConfigError> {
    match schema::chosen(path) {
        Some(name) => refuse_cluster_name(origin, &path.join("."), name),
        None => Ok(()),
    }
}

/// The file to read: the one asked for, else the one at home if it is there.
pub(super) fn choose(
    environment: &Environment,
    asked: Option<&Path>,
) -> Option<std::path::PathBuf> {
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(path) = asked.or_else(|| environment.get("PGKEEP_CONFIG").map(Path::new)) {
        return Some(whole(path));
    }
    let path = whole(&environment.config_home().join(super::FILE_NAME));
    // A file that is there but cannot be looked at is an error later, not an absence.
    let absent = std::fs::symlink_metadata(&path)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    (!absent).then_some(path)
}
