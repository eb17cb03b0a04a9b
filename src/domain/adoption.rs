//! Adoptions: a person says that a suspect snapshot is right, or that a server belongs to a cluster's name.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::BackupId;
use super::manifest::Manifest;

/// An adoption as it is kept, signed, among the marks of a backup. Never edited, never removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adoption {
    /// Version of this document: 1.
    pub format: u32,
    /// The backup that was adopted.
    pub backup: BackupId,
    /// Its database.
    pub database: String,
    /// The server that belongs to the cluster's name from now on; none where it did before.
    pub system_identifier: Option<String>,
    /// Whether its few rows are right, and those of the database's earlier suspects.
    pub rows: bool,
    /// When, by that host's clock.
    pub adopted_at: Timestamp,
    /// Where.
    pub host: String,
}

impl Adoption {
    /// Whether this says that the server of `manifest` belongs to the cluster.
    pub fn knows_server_of(&self, manifest: &Manifest) -> bool {
        self.knows_server(manifest.system_identifier.as_deref())
    }

    /// Whether this says that this server belongs to the cluster.
    pub fn knows_server(&self, system_identifier: Option<&str>) -> bool {
        self.system_identifier.is_some() && self.system_identifier.as_deref() == system_identifier
    }

    /// Whether this says that the rows of `manifest` are right: what holds for one backup holds for those
    /// before it that were suspect for the same reason.
    pub fn accepts_rows_of(&self, manifest: &Manifest) -> bool {
        self.accepts_rows(&manifest.database, &manifest.id)
    }

    /// The same of a backup of that database.
    pub fn accepts_rows(&self, database: &str, id: &BackupId) -> bool {
        // Ids of one second are in no order; which came first is not for chance to say.
        self.rows && self.database == database && id.second() <= self.backup.second()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_of_the_same_second_is_accepted_whichever_id_chance_gave_it() {
        let id = |text: &str| -> BackupId { text.parse().expect("an id") };
        let adoption = Adoption {
            format: 1,
            adopted_at: Timestamp::UNIX_EPOCH,
            host: "vault".to_owned(),
            backup: id("20261121T020000Z-5f3a9c21"),
            database: "shop".to_owned(),
            rows: true,
            system_identifier: None,
        };
        assert!(adoption.accepts_rows("shop", &id("20261121T020000Z-ffffffff")));
        assert!(adoption.accepts_rows("shop", &id("20261121T015959Z-ffffffff")));
        assert!(!adoption.accepts_rows("shop", &id("20261121T020001Z-00000000")));
        assert!(!adoption.accepts_rows("other", &id("20261121T020000Z-00000000")));
    }
}
