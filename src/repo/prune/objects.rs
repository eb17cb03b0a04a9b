//! What one listing of `clusters/` showed: manifests, marks, verifications, and what lies beside each.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::stream::TryStreamExt as _;

use super::Prune;
use crate::domain::id::BackupId;
use crate::domain::key::ObjectKey;
use crate::repo::catalog::ManifestName;
use crate::repo::error::RepoError;
use crate::repo::layout::{self, Part};

#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) manifests: BTreeSet<ManifestName>,
    pub(super) pinned: HashSet<ManifestName>,
    /// Adoptions without their signatures, and whose they are.
    pub(super) adoptions: Vec<(ManifestName, ObjectKey)>,
    pub(super) records: HashMap<ManifestName, Vec<BackupId>>,
    /// What means nothing without its backup: signatures, chunk lists, pins, verification records.
    pub(super) beside: HashMap<ManifestName, Vec<ObjectKey>>,
}

impl Objects {
    fn add(&mut self, key: ObjectKey) -> Result<(), RepoError> {
        let Some((cluster, id, part)) = layout::part_of(&key) else {
            return Err(RepoError::UnknownObject(key));
        };
        let name = ManifestName { cluster, id };
        match part {
            Part::Manifest => _ = self.manifests.insert(name),
            Part::Adoption => {
                if layout::adopted(&key).is_some() {
                    self.adoptions.push((name, key));
                }
            }
            Part::Event => {}
            Part::Pin => {
                self.pinned.insert(name.clone());
                self.beside.entry(name).or_default().push(key);
            }
            Part::Record(record) => {
                self.records.entry(name.clone()).or_default().push(record);
                self.beside.entry(name).or_default().push(key);
            }
            Part::Beside => self.beside.entry(name).or_default().push(key),
        }
        Ok(())
    }
}

impl Prune<'_> {
    /// Lists `clusters/`. What is not known there may be a kind of backup of a later version, whose chunks would
    /// seem to be nobody's.
    pub(super) async fn objects(&self) -> Result<Objects, RepoError> {
        let mut objects = Objects::default();
        let mut listed = self.repository.store.list(layout::CLUSTERS);
        while let Some(object) = listed.try_next().await? {
            objects.add(object.key)?;
        }
        Ok(objects)
    }
}
