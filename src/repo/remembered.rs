//! What a process that looks at the catalog often has read before.
//!
//! Objects never change, so a manifest, and what stands of a set of verification records, are read once. Marks come and
//! go and are few: they are listed each time. Whose signatures count must not change meanwhile: a repository that was
//! opened with other keys begins anew.

use std::collections::{HashMap, HashSet};

use super::catalog::{Entry, ManifestName};
use crate::domain::id::BackupId;
use crate::domain::verification::VerificationRecord;

/// Empty at first; [`super::Repository::catalog_again`] fills it.
#[derive(Debug, Default)]
pub struct Remembered {
    /// As their manifests say, without marks.
    entries: HashMap<ManifestName, Entry>,
    /// What stands of exactly these records of a backup.
    standing: HashMap<BackupId, (Vec<BackupId>, Option<VerificationRecord>)>,
}

impl Remembered {
    /// Those of `names` that were not read before.
    pub(super) fn unknown(&self, names: &[ManifestName]) -> Vec<ManifestName> {
        names.iter().filter(|name| !self.entries.contains_key(name)).cloned().collect()
    }

    /// Takes in what was read, forgets what is gone, and gives all of `names`.
    pub(super) fn exchange(&mut self, read: Vec<Entry>, names: &[ManifestName]) -> Vec<Entry> {
        for mut entry in read {
            // Sealed, nobody who looks so often reads it, and it is nearly all of a manifest.
            entry.manifest.sealed = String::new();
            let (cluster, id) = (entry.manifest.cluster.clone(), entry.manifest.id.clone());
            self.entries.insert(ManifestName { cluster, id }, entry);
        }
        let there: HashSet<&ManifestName> = names.iter().collect();
        self.entries.retain(|name, _| there.contains(name));
        let ids: HashSet<&BackupId> = names.iter().map(|name| &name.id).collect();
        self.standing.retain(|id, _| ids.contains(id));
        self.entries.values().cloned().collect()
    }

    /// What stands of these records, in their order, if that was found out before.
    #[expect(
        clippy::option_option,
        reason = "known that there is none is not the same as not known"
    )]
    pub(super) fn standing(
        &self,
        backup: &BackupId,
        records: &[BackupId],
    ) -> Option<Option<VerificationRecord>> {
        let (known, standing) = self.standing.get(backup)?;
        (known == records).then(|| standing.clone())
    }

    /// Takes that in.
    pub(super) fn keep_standing(
        &mut self,
        backup: BackupId,
        records: Vec<BackupId>,
        standing: Option<VerificationRecord>,
    ) {
        self.standing.insert(backup, (records, standing));
    }
}
