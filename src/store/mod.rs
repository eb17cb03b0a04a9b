//! Floor 1: where objects lie.
//!
//! A store holds immutable objects under keys. What is asked of it is little, so that every S3-compatible
//! service can serve: read after write and list after write. No clock of its own is trusted and no
//! conditional put is needed (REMOVAL.md). Every implementation passes one suite, [`contract`].

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use crate::domain::failure::{Failure, FailureKind, system_hint};
use crate::domain::key::ObjectKey;

pub mod contract;
pub mod faulty;
pub mod local;
pub mod memory;
#[cfg(feature = "s3")]
pub mod s3;
pub mod service;

use service::ServiceFault;

/// Why a store call failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object is not there.
    #[error("no object `{0}`")]
    NotFound(ObjectKey),
    /// The name is taken by other content: names are used once.
    #[error("object `{0}` exists with other content")]
    Exists(ObjectKey),
    /// The repository's place is not there at all.
    #[error("no repository at {0}")]
    Missing(String),
    /// The operating system or the network said no.
    #[error("{action} `{key}`")]
    Io {
        /// Such as `cannot write`.
        action: &'static str,
        /// The object, prefix or path.
        key: String,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// A storage service said no, or could not be reached.
    #[error("{action} `{key}`")]
    Service {
        /// Such as `cannot write`.
        action: &'static str,
        /// The object, or the prefix of a listing; the repository's address where it is neither.
        key: String,
        /// What it said.
        #[source]
        fault: ServiceFault,
    },
    /// A failure that a test ordered.
    #[error("injected fault at `{0}`")]
    Injected(String),
}

impl StoreError {
    /// Whether the object is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

impl Failure for StoreError {
    fn kind(&self) -> FailureKind {
        FailureKind::Store
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(_) => "the repository may be damaged or incomplete".to_owned(),
            Self::Exists(_) => {
                "an object is never overwritten; two writers used one name".to_owned()
            }
            Self::Missing(_) => {
                "check the address, or create the repository with `pgkeep init`".to_owned()
            }
            Self::Io { source, .. } => match system_hint(source) {
                Some(hint) => hint.to_owned(),
                None if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    "check the owner and mode of the repository directory".to_owned()
                }
                None => "check that the store can be reached and written".to_owned(),
            },
            Self::Service { fault, .. } => fault.hint(),
            Self::Injected(_) => "this is a test".to_owned(),
        })
    }
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectMeta {
    /// Its key.
    pub key: ObjectKey,
    /// Its size.
    pub size_bytes: u64,
}

/// The seam. Calls may run at once in any number; each is complete or has failed.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// Stores `bytes` under `key`, durably: when this returns, a power cut loses nothing of it.
    ///
    /// The same content under the same key is success; other content is [`StoreError::Exists`] where the
    /// store can tell. After an error the object may be there whole, or not at all, never in part.
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError>;

    /// The whole object.
    async fn get(&self, key: &ObjectKey) -> Result<Bytes, StoreError>;

    /// Several small objects, in the order of their keys, each as [`ObjectStore::get`] would give it.
    ///
    /// For a store whose calls cost more than what they do: it does several in one.
    async fn get_each(
        &self,
        keys: &[ObjectKey],
    ) -> Result<Vec<Result<Bytes, StoreError>>, StoreError> {
        let gets: Vec<_> = keys.iter().map(|key| self.get(key)).collect();
        Ok(stream::iter(gets).buffered(self.concurrency().max(1)).collect().await)
    }

    /// Just these bytes of the object, which must lie within it; else an error, never others.
    ///
    /// [`ObjectStore::get`] reads on where a connection broke by such a request. What a service answers to one
    /// is its own affair, and this is how `check` finds out. A store in which nothing breaks needs no other than
    /// this one.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let whole = self.get(key).await?;
        within(&whole, &range).map_err(|source| StoreError::Io {
            action: "cannot read",
            key: key.to_string(),
            source,
        })
    }

    /// All objects whose key begins with `prefix` (a plain string prefix, often ending in `/`), in no
    /// promised order. What was put before the call is in it.
    fn list(&self, prefix: &str) -> BoxStream<'_, Result<ObjectMeta, StoreError>>;

    /// What `list` would name up to the next `/` after `prefix`, which ends in one; none where the store cannot tell
    /// that without listing all below. There may be some with nothing in them.
    async fn directories(&self, _prefix: &str) -> Result<Option<Vec<String>>, StoreError> {
        Ok(None)
    }

    /// Removes the object; that it is not there is success.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// How many calls are worth having in flight at once.
    fn concurrency(&self) -> usize;

    /// The address, without secrets, for messages.
    fn address(&self) -> String;

    /// By how many seconds this host's clock is ahead of the store's own (negative: behind), as its last answer
    /// told; none where the store has no other clock than this host's, or has not told it.
    fn ahead_seconds(&self) -> Option<i64> {
        None
    }
}

/// The part of an object that was asked for.
fn within(whole: &Bytes, range: &Range<u64>) -> std::io::Result<Bytes> {
    let bound = |at: u64| usize::try_from(at).ok().filter(|at| *at <= whole.len());
    match (bound(range.start), bound(range.end)) {
        (Some(start), Some(end)) if start < end => Ok(whole.slice(start..end)),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A store as the floors above hold it.
pub type Store = Arc<dyn ObjectStore>;
