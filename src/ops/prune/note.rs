//! When each writer was last heard of: a small file on this host, replaced as a whole. One that cannot be read, or is of
//! another start of the host, counts as none; then the grace begins anew.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::edit::replace_file;
use crate::repo::prune::watch::Watch;

const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    format: u32,
    boot: String,
    writers: Watch,
}

impl Note {
    /// What was noted since this start of the host.
    pub(super) fn load(path: &Path, boot: &str) -> Watch {
        let text = std::fs::read(path).unwrap_or_default();
        let note = serde_json::from_slice::<Self>(&text).ok();
        let note = note.filter(|note| note.format == FORMAT && note.boot == boot);
        note.map(|note| note.writers).unwrap_or_default()
    }

    /// False where it cannot be written.
    pub(super) fn save(path: &Path, boot: &str, writers: &Watch) -> bool {
        let note = Self { format: FORMAT, boot: boot.to_owned(), writers: writers.clone() };
        let text = serde_json::to_vec(&note).expect("documents have text keys only");
        replace_file(path, &text).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_another_start_or_none_at_all_counts_as_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state/prune.json");
        let sight = r#"{"20261121T020000Z-5f3a9c21":{"renewals":2,"since_ms":7}}"#;
        let watch: Watch = serde_json::from_str(sight).expect("a watch");
        assert_eq!(Note::load(&path, "one"), Watch::default());
        assert!(Note::save(&path, "one", &watch));
        assert_eq!(Note::load(&path, "one"), watch);
        assert_eq!(Note::load(&path, "two"), Watch::default());
        std::fs::write(&path, "{").expect("written");
        assert_eq!(Note::load(&path, "one"), Watch::default());
    }
}
