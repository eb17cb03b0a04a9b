//! The small JSON documents of a repository, and how a signed object is put and read.
//!
//! A signature is put before its object, so that no crash leaves an object that cannot be trusted; an
//! orphaned signature vouches for nothing, because its trusted comment names the object.

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::RepoError;
use super::layout;
use crate::codec::cut::ChunkParams;
use crate::codec::sign::{PublicKey, SigningKey, signature_key_id};
use crate::domain::id::{BackupId, ClusterName, EpochId};
use crate::domain::key::ObjectKey;
use crate::domain::manifest::BackupKind;
use crate::store::{ObjectStore, StoreError};

/// The newest version of any document that this pgkeep reads and the one that it writes.
pub const FORMAT: u32 = 1;

/// Whether stored objects are age files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// They are.
    Age,
    /// Plain zstd frames, asked for with `--insecure-plaintext`.
    None,
}

impl Encryption {
    /// The word in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::None => "none",
        }
    }
}

/// `pgkeep-repository.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryDocument {
    /// Version of the repository's format.
    pub format: u32,
    /// 32 hex digits of chance; bound into every signature.
    pub id: String,
    /// When `init` made it.
    pub created_at: Timestamp,
    /// How streams are cut.
    pub chunking: ChunkParams,
    /// Whether objects are encrypted.
    pub encryption: Encryption,
}

/// `keys/<epoch>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochDocument {
    /// Version of this document.
    pub format: u32,
    /// The epoch's name.
    pub epoch: EpochId,
    /// When it was opened.
    pub created_at: Timestamp,
    /// Who can read what it seals, sorted.
    pub recipients: Vec<String>,
    /// Who signs in it.
    pub signers: Vec<String>,
    /// The chunk key, 64 hex digits sealed to the recipients, in base64.
    pub chunk_key: String,
    /// The epochs that were there when this one was opened: nothing is written in them any more.
    #[serde(default)]
    pub replaces: Vec<EpochId>,
}

/// `keys/<epoch>/<id>.json`: somebody who opened the sealed chunk key says where he did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmationDocument {
    /// Version of this document.
    pub format: u32,
    /// The confirmation's own id, in the shape of a backup id.
    pub id: BackupId,
    /// The epoch whose chunk key was opened.
    pub epoch: EpochId,
    /// The host that holds the identity.
    pub host: String,
    /// When, by that host's clock.
    pub confirmed_at: Timestamp,
    /// pgkeep's version.
    pub pgkeep: String,
    /// BLAKE3 of all this, keyed with a key derived from the chunk key, in hex.
    pub proof: String,
}

/// `intents/<id>`: who is writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentDocument {
    /// Version of this document.
    pub format: u32,
    /// The backup that is being made.
    pub id: BackupId,
    /// Its kind.
    pub kind: BackupKind,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its database.
    pub database: String,
    /// The epoch it writes in.
    pub epoch: EpochId,
    /// The host it runs on.
    pub host: String,
    /// When it began.
    pub started_at: Timestamp,
}

/// `intents/<id>.<n>`: still writing, and these names since the last renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewalDocument {
    /// Version of this document.
    pub format: u32,
    /// The backup that is being made.
    pub id: BackupId,
    /// Chunk names that are stored.
    pub chunks: Vec<String>,
}

/// Why names are condemned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CondemnedReason {
    /// No backup that is kept needs them: a prune's list.
    #[default]
    Unneeded,
    /// What is stored under them is not what was stored: a verification's list.
    Damaged,
}

/// `condemned/<prune id>`: what is to be removed, once nobody needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CondemnedDocument {
    /// Version of this document.
    pub format: u32,
    /// The prune or verification that wrote it.
    pub id: BackupId,
    /// When.
    pub created_at: Timestamp,
    /// Why.
    #[serde(default)]
    pub reason: CondemnedReason,
    /// Manifests to be removed.
    pub backups: Vec<CondemnedBackup>,
    /// Chunks to be removed, by epoch and name: `<epoch>/<name>`.
    pub chunks: Vec<String>,
}

/// A backup on a condemned list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CondemnedBackup {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its id.
    pub id: BackupId,
}

/// Pretty JSON with a final newline: people read these with `less`.
pub fn render(document: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(document).expect("documents have text keys only");
    text.push(b'\n');
    text
}

/// Reads a document, telling a newer version apart from damage.
pub fn parse<T: DeserializeOwned>(key: &ObjectKey, bytes: &[u8]) -> Result<T, RepoError> {
    serde_json::from_slice(bytes).map_err(|error| {
        // Only a document that does not fit is read again for its version, so the common path parses once.
        let version = serde_json::from_slice::<serde_json::Value>(bytes).ok();
        match version.and_then(|value| value.get("format")?.as_u64()) {
            Some(found) if found > u64::from(FORMAT) => {
                RepoError::NewerFormat { key: key.to_string(), found, known: FORMAT }
            }
            _ => RepoError::Damaged { key: key.clone(), reason: error.to_string() },
        }
    })
}

/// Refuses a document of a newer version that happens to parse.
pub fn check_format(key: &ObjectKey, format: u32) -> Result<(), RepoError> {
    if format <= FORMAT {
        return Ok(());
    }
    Err(RepoError::NewerFormat { key: key.to_string(), found: format.into(), known: FORMAT })
}

/// What a signature's trusted comment says: where the object belongs.
pub fn trusted_comment(repository: &str, key: &ObjectKey) -> String {
    format!("pgkeep repository={repository} object={key}")
}

/// Puts the signature of `bytes`, then `bytes`.
pub async fn put_signed(
    store: &dyn ObjectStore,
    repository: &str,
    signer: &SigningKey,
    key: &ObjectKey,
    bytes: Bytes,
) -> Result<(), RepoError> {
    let signature = signer.sign(&bytes, &trusted_comment(repository, key));
    store.put(&layout::signature(key), signature.into()).await?;
    store.put(key, bytes).await?;
    Ok(())
}

/// Checks that one of `trusted` signed these bytes as this object of this repository.
pub fn check_signature(
    trusted: &[PublicKey],
    repository: &str,
    key: &ObjectKey,
    bytes: &[u8],
    signature: &str,
) -> Result<(), RepoError> {
    let untrusted = |source| RepoError::Untrusted { key: key.clone(), source };
    let id = signature_key_id(signature).map_err(untrusted)?;
    let Some(signer) = trusted.iter().find(|signer| signer.key_id() == id) else {
        return Err(RepoError::Stranger { key: key.clone(), signer: id });
    };
    let comment = signer.verify(bytes, signature).map_err(untrusted)?;
    if comment == trusted_comment(repository, key) {
        Ok(())
    } else {
        Err(RepoError::Misplaced(key.clone()))
    }
}

/// An object's bytes and its signature.
pub type Signed = (Bytes, String);

/// Reads an object and its signature, both at once; an absent signature is an untrusted object.
pub async fn get_with_signature(
    store: &dyn ObjectStore,
    key: &ObjectKey,
) -> Result<Signed, RepoError> {
    let beside = layout::signature(key);
    let (bytes, signature) = tokio::join!(store.get(key), store.get(&beside));
    signed(store, key, bytes, signature).await
}

/// [`get_with_signature`] of each of `keys`, in their order.
pub async fn get_each_with_signature(
    store: &dyn ObjectStore,
    keys: &[ObjectKey],
) -> Result<Vec<Result<Signed, RepoError>>, RepoError> {
    let pairs = keys.iter().flat_map(|key| [key.clone(), layout::signature(key)]);
    let mut found = store.get_each(&pairs.collect::<Vec<_>>()).await?.into_iter();
    let mut next = || found.next().expect("a store answers for every key");
    let all: Vec<_> = keys.iter().map(|key| signed(store, key, next(), next())).collect();
    Ok(stream::iter(all).buffered(store.concurrency().max(1)).collect().await)
}

/// The signature is put first, so one that is absent is looked for again when the object is there: the first look
/// may have been before both were put.
async fn signed(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    bytes: Result<Bytes, StoreError>,
    mut signature: Result<Bytes, StoreError>,
) -> Result<Signed, RepoError> {
    let bytes = bytes?;
    if let Err(StoreError::NotFound(_)) = signature {
        signature = store.get(&layout::signature(key)).await;
    }
    let signature = match signature {
        Ok(signature) => signature,
        Err(StoreError::NotFound(_)) => {
            return Err(RepoError::Unsigned(key.clone()));
        }
        Err(error) => return Err(error.into()),
    };
    let signature = String::from_utf8_lossy(&signature).into_owned();
    Ok((bytes, signature))
}
