//! A store in memory, for tests: what it holds can be looked at, copied and damaged.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use super::{ObjectMeta, ObjectStore, StoreError};
use crate::domain::key::ObjectKey;

/// Objects in a map. Refuses other content under a name that is taken.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<ObjectKey, Bytes>>);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that holds these objects.
    pub fn with(objects: BTreeMap<ObjectKey, Bytes>) -> Self {
        Self(Mutex::new(objects))
    }

    /// All it holds: what a crash at this moment would leave.
    pub fn objects(&self) -> BTreeMap<ObjectKey, Bytes> {
        self.lock().clone()
    }

    /// One line an object, key and size; for messages of tests.
    pub fn dump(&self) -> String {
        let lines = |(key, bytes): (&ObjectKey, &Bytes)| format!("{key} {}\n", bytes.len());
        self.lock().iter().map(lines).collect()
    }

    /// Puts other content in an object's place, or takes it away: damage that the seam does not allow.
    pub fn damage(&self, key: &ObjectKey, content: Option<Bytes>) {
        match content {
            Some(bytes) => self.lock().insert(key.clone(), bytes),
            None => self.lock().remove(key),
        };
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Bytes>> {
        self.0.lock().expect("no code panics while it holds the map")
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let mut objects = self.lock();
        match objects.get(key) {
            Some(there) if *there == bytes => Ok(()),
            Some(_) => Err(StoreError::Exists(key.clone())),
            None => {
                // Of its own, or a small object would hold on to the large buffer it is a part of.
                objects.insert(key.clone(), Bytes::copy_from_slice(&bytes));
                Ok(())
            }
        }
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, StoreError> {
        self.lock().get(key).cloned().ok_or_else(|| StoreError::NotFound(key.clone()))
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let found: Vec<_> = self
            .lock()
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, bytes)| Ok(ObjectMeta { key: key.clone(), size_bytes: bytes.len() as u64 }))
            .collect();
        stream::iter(found).boxed()
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.lock().remove(key);
        Ok(())
    }

    fn concurrency(&self) -> usize {
        16
    }

    fn address(&self) -> String {
        "memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{self, OtherContent};
    use super::*;

    #[tokio::test]
    async fn the_memory_store_keeps_the_contract() {
        contract::run(&MemoryStore::new(), OtherContent::Refused).await;
    }

    #[tokio::test]
    async fn what_it_holds_can_be_looked_at_and_damaged() {
        let store = MemoryStore::new();
        let key = ObjectKey::parse("a/b").expect("a key");
        store.put(&key, Bytes::from_static(b"rows")).await.expect("put");
        assert_eq!(store.dump(), "a/b 4\n");
        let copy = MemoryStore::with(store.objects());
        store.damage(&key, Some(Bytes::from_static(b"rowz")));
        assert_eq!(store.get(&key).await.expect("get"), &b"rowz"[..]);
        store.damage(&key, None);
        assert!(store.get(&key).await.expect_err("gone").is_not_found());
        assert_eq!(copy.get(&key).await.expect("a copy of its own"), &b"rows"[..]);
    }
}
