//! The one place that changes a configuration file: one list of texts, and nothing else of it.
//!
//! Crash story: the new file is written beside the old one, synced, and renamed over it. What is there is the
//! old file or the new one, with the old one's mode and owner.

use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, fchown};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::files::{parse, read_text};

/// Sets `key` (`section.name`) to this list in the file; comments and everything else stay as they are.
pub fn set_list(path: &Path, key: &str, items: &[String]) -> Result<(), ConfigError> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let text = read_text(&path)?;
    let refused = || ConfigError::Edit { path: path.clone(), key: key.to_owned() };
    let edited = with_list(&text, key, items).ok_or_else(refused)?;
    // Nothing but that key may have changed, whatever way the file is written.
    let leaves = |text: &str| parse(text, &path, &|_| String::new()).map(|layer| layer.leaves);
    let (mut before, mut after) = (leaves(&text)?, leaves(&edited)?);
    let set = after.remove(key).and_then(|value| value.into_array().ok());
    let set: Option<Vec<String>> =
        set.map(|list| list.into_iter().filter_map(|item| item.into_string().ok()).collect());
    before.remove(key);
    let same = before.len() == after.len()
        && before
            .iter()
            .all(|(key, value)| after.get(key).is_some_and(|other| other.kind == value.kind));
    if !same || set.as_deref() != Some(items) {
        return Err(refused());
    }
    replace_file(&path, edited.as_bytes())
        .map_err(|source| ConfigError::Write { path: path.clone(), source })
}

fn with_list(text: &str, key: &str, items: &[String]) -> Option<String> {
    let (section, name) = key.split_once('.')?;
    let quoted = items.iter().map(|item| toml::Value::String(item.clone()).to_string());
    let list = format!("[{}]", quoted.collect::<Vec<_>>().join(", "));
    let document = DeTable::parse(text).ok()?;
    let found = document.get_ref().get(section);
    if let Some(DeValue::Table(table)) = found.map(toml::Spanned::get_ref) {
        if let Some(value) = table.get(name) {
            let span = value.span();
            return Some(format!("{}{list}{}", &text[..span.start], &text[span.end..]));
        }
        let header = format!("[{section}]");
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            at += line.len();
            if line.split('#').next().is_some_and(|line| line.trim() == header) {
                let end = if line.ends_with('\n') { "" } else { "\n" };
                return Some(format!("{}{end}{name} = {list}\n{}", &text[..at], &text[at..]));
            }
        }
        // The section is only there by dotted names, which may stand above all headers.
        return Some(format!("{key} = {list}\n{text}"));
    }
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Some(format!("{text}{end}\n[{section}]\n{name} = {list}\n"))
}

/// Puts a file in the place of another, whole and durable or not at all. A new file is its owner's alone, and what
/// root makes in a service's directory is the service's; one that is there keeps its mode and, where this user may
/// give it, its owner.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let directory = above.unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    if let Ok(old) = std::fs::metadata(path) {
        // Not ours to give: then the directory's rules decide, as for an editor.
        let _ = chown(file.path(), Some(old.uid()), Some(old.gid()));
        let mode = std::fs::Permissions::from_mode(old.mode() & 0o777);
        file.as_file().set_permissions(mode)?;
    } else if rustix::process::geteuid().is_root() {
        let above = std::fs::metadata(directory)?;
        fchown(file.as_file(), Some(above.uid()), Some(above.gid()))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "encryption.trusted_signers";

    fn set(text: &str, items: &[&str]) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pgkeep.toml");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("a mode");
        let items: Vec<String> = items.iter().map(|item| (*item).to_owned()).collect();
        set_list(&path, KEY, &items).expect("edited");
        let mode = std::fs::metadata(&path).expect("a file").mode() & 0o777;
        assert_eq!(mode, 0o640);
        std::fs::read_to_string(&path).expect("a file")
    }

    #[test]
    fn one_list_is_set_and_every_other_byte_stays() {
        let text = "# ours\n[encryption] # keys\ntrusted_signers = [\n  \"RWa\", # old\n] # end\n\
                    [clusters.main]\nurl = \"x\"\n";
        assert_eq!(
            set(text, &["RWa", "RWb"]),
            "# ours\n[encryption] # keys\ntrusted_signers = [\"RWa\", \"RWb\"] # end\n\
             [clusters.main]\nurl = \"x\"\n"
        );
    }

    #[test]
    fn a_list_that_is_not_there_is_put_into_its_section() {
        let line = "trusted_signers = [\"RWa\"]\n";
        for (text, expected) in [
            ("", format!("\n[encryption]\n{line}")),
            (
                "[compression]\nlevel = 3",
                format!("[compression]\nlevel = 3\n\n[encryption]\n{line}"),
            ),
            ("[encryption]", format!("[encryption]\n{line}")),
            (
                "[encryption]\nrecipients = []\n[compression]\n",
                format!("[encryption]\n{line}recipients = []\n[compression]\n"),
            ),
            (
                "encryption.recipients = []\n",
                format!("encryption.{line}encryption.recipients = []\n"),
            ),
        ] {
            assert_eq!(set(text, &["RWa"]), expected, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_changed_alone_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pgkeep.toml");
        let text = "encryption = { recipients = [\"age1x\"] }\n";
        std::fs::write(&path, text).expect("a file");
        let error =
            set_list(&path, KEY, &["RWa".to_owned()]).expect_err("an inline table is closed");
        assert!(error.to_string().contains("pgkeep.toml"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), text);
    }
}
