//! The store, tried with one small object: put, get, a range of it, list after put, delete, list after delete; and its clock.
//!
//! Its name is used once. A crash, or a credential that may only append, leaves it; nothing ever reads it.

use bytes::Bytes;
use futures::stream::TryStreamExt as _;
use jiff::SignedDuration;

use super::finding::{Finding, Problem};
use super::server::SKEW_MAX;
use crate::domain::ambient::Ambient;
use crate::domain::failure::FailureKind;
use crate::domain::id::BackupId;
use crate::domain::key::ObjectKey;
use crate::repo::layout;
use crate::store::service::ServiceFault;
use crate::store::{ObjectStore, StoreError};

/// What is put: enough for a proxy that changes bodies to show itself.
const PROBE_BYTES: usize = 4096;

/// Tries every call that backups make. What fails ends it: the rest could not tell anything.
pub(super) async fn round_trip(store: &dyn ObjectStore, ambient: &dyn Ambient) -> Vec<Finding> {
    let id = BackupId::new(ambient.now(), ambient.random());
    let key = layout::probe(&id);
    let seed = id.as_str().bytes().cycle().enumerate();
    let content: Bytes =
        seed.take(PROBE_BYTES).map(|(at, byte)| byte ^ at.to_le_bytes()[0]).collect();
    let mut findings = Vec::new();
    let begun = ambient.monotonic();
    if let Err(error) = store.put(&key, content.clone()).await {
        findings.push(Finding::error("store-put", &Problem::of(&error)));
        return findings;
    }
    let took = ambient.monotonic().saturating_sub(begun).as_millis();
    findings
        .push(Finding::ok("store-put", format!("{} takes objects ({took} ms)", store.address())));
    findings.push(read(store, &key, &content).await);
    findings.push(part(store, &key, &content).await);
    findings.push(listed(store, &key).await);
    findings.push(deleted(store, &key).await);
    findings.extend(store.ahead_seconds().map(clock));
    findings
}

/// A store with a clock of its own.
fn clock(ahead_seconds: i64) -> Finding {
    const NAME: &str = "store-clock";
    let apart = SignedDuration::from_secs(ahead_seconds).abs();
    let seconds = apart.as_secs();
    if apart <= SKEW_MAX {
        return Finding::ok(
            NAME,
            format!("the store's is within {} s of this host's", seconds + 1),
        );
    }
    let side = if ahead_seconds > 0 { "behind" } else { "ahead of" };
    Finding::warning(
        NAME,
        format!("the store's is {seconds} s {side} this host's"),
        "set this host's clock right (`timedatectl` shows it): backups are ordered, and expire, by it, and a store \
         refuses what is signed more than some minutes off",
    )
}

async fn read(store: &dyn ObjectStore, key: &ObjectKey, content: &Bytes) -> Finding {
    const NAME: &str = "store-get";
    match store.get(key).await {
        Ok(bytes) if bytes == *content => Finding::ok(NAME, "what was put comes back"),
        Ok(bytes) => Finding::failed(
            NAME,
            FailureKind::Store,
            format!("{PROBE_BYTES} bytes were put, and {} other bytes come back", bytes.len()),
            "something between changes objects: a proxy, a cache, a failing disk",
        ),
        Err(error) => Finding::error(NAME, &Problem::of(&error)),
    }
}

/// A part from its midst: downloads that break off go on by such a request.
async fn part(store: &dyn ObjectStore, key: &ObjectKey, content: &Bytes) -> Finding {
    const NAME: &str = "store-range";
    let (start, end) = (PROBE_BYTES / 4, PROBE_BYTES / 2);
    match store.get_range(key, start as u64..end as u64).await {
        Ok(bytes) if bytes == content.slice(start..end) => {
            Finding::ok(NAME, "a part of it can be asked for")
        }
        Ok(bytes) => Finding::failed(
            NAME,
            FailureKind::Store,
            format!(
                "{} bytes in its midst were asked for, and {} others came",
                end - start,
                bytes.len()
            ),
            "something between changes objects: a proxy, a cache, a failing disk",
        ),
        // Nothing is lost by it: what breaks off is read anew.
        Err(StoreError::Service { fault: fault @ ServiceFault::Range(_), .. }) => {
            Finding::warning(NAME, fault.to_string(), fault.hint())
        }
        Err(error) => Finding::error(NAME, &Problem::of(&error)),
    }
}

async fn sizes(store: &dyn ObjectStore, key: &ObjectKey) -> Result<Option<u64>, StoreError> {
    let all: Vec<_> = store.list(layout::PROBES).try_collect().await?;
    Ok(all.iter().find(|object| object.key == *key).map(|object| object.size_bytes))
}

async fn listed(store: &dyn ObjectStore, key: &ObjectKey) -> Finding {
    const NAME: &str = "store-list";
    match sizes(store, key).await {
        Ok(Some(size)) if size == PROBE_BYTES as u64 => {
            Finding::ok(NAME, "a listing shows what was put before it")
        }
        Ok(other) => Finding::failed(
            NAME,
            FailureKind::Store,
            match other {
                Some(size) => format!("a listing shows {size} bytes of {PROBE_BYTES}"),
                None => "a listing does not show what was put before it".to_owned(),
            },
            "backups and prunes rely on listings after puts: use a store that promises them",
        ),
        Err(error) => Finding::error(NAME, &Problem::of(&error)),
    }
}

async fn deleted(store: &dyn ObjectStore, key: &ObjectKey) -> Finding {
    const NAME: &str = "store-delete";
    if let Err(error) = store.delete(key).await {
        // What an append-only credential is meant to do.
        return Finding::warning(
            NAME,
            format!("may not delete: {}", Problem::of(&error).message),
            "snapshots work without it, prune and unpin do not; this is right for an append-only credential",
        );
    }
    match sizes(store, key).await {
        Ok(None) => Finding::ok(NAME, "what was deleted is gone"),
        Ok(Some(_)) => Finding::warning(
            NAME,
            "an object is still listed after it was deleted",
            "object lock or a listing that lags behind: prune would keep its lists for ever",
        ),
        Err(error) => Finding::error(NAME, &Problem::of(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::store::memory::MemoryStore;

    #[derive(Debug)]
    struct Fixed;

    impl Ambient for Fixed {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::UNIX_EPOCH
        }
        fn monotonic(&self) -> std::time::Duration {
            std::time::Duration::ZERO
        }
        fn random(&self) -> u32 {
            7
        }
        fn sleep(&self, _: std::time::Duration) -> futures::future::BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    /// A store that breaks one promise.
    #[derive(Debug)]
    struct Breaking(MemoryStore, &'static str);

    #[async_trait::async_trait]
    impl ObjectStore for Breaking {
        async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
            match self.1 {
                "put" => Err(StoreError::Injected("put".to_owned())),
                "truncate" => self.0.put(key, bytes.slice(1..)).await,
                _ => self.0.put(key, bytes).await,
            }
        }
        async fn get(&self, key: &ObjectKey) -> Result<Bytes, StoreError> {
            self.0.get(key).await
        }
        async fn get_range(
            &self,
            key: &ObjectKey,
            range: std::ops::Range<u64>,
        ) -> Result<Bytes, StoreError> {
            let fault = ServiceFault::Range("the whole of it");
            let (action, name) = ("cannot read", key.to_string());
            match self.1 {
                "range" => Err(StoreError::Service { action, key: name, fault }),
                "range-fails" => Err(StoreError::Injected(name)),
                "range-shifted" => Ok(self.0.get(key).await?.slice(..1024)),
                _ => self.0.get_range(key, range).await,
            }
        }
        fn list(
            &self,
            prefix: &str,
        ) -> futures::stream::BoxStream<'_, Result<crate::store::ObjectMeta, StoreError>> {
            let prefix = if self.1 == "list" { "elsewhere/" } else { prefix };
            self.0.list(prefix)
        }
        async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
            match self.1 {
                "delete" => Err(StoreError::Injected("delete".to_owned())),
                "keep" => Ok(()),
                _ => self.0.delete(key).await,
            }
        }
        fn concurrency(&self) -> usize {
            1
        }
        fn address(&self) -> String {
            "memory".to_owned()
        }
    }

    async fn levels(broken: &'static str) -> Vec<(&'static str, Level)> {
        let store = Breaking(MemoryStore::default(), broken);
        let findings = round_trip(&store, &Fixed).await;
        findings.into_iter().map(|finding| (finding.name, finding.level)).collect()
    }

    #[test]
    fn clocks_that_differ_are_told_with_their_side() {
        assert_eq!(clock(0).level, Level::Ok);
        assert_eq!(clock(-60).level, Level::Ok);
        assert_eq!(clock(61).detail, "the store's is 61 s behind this host's");
        assert_eq!(clock(-300).detail, "the store's is 300 s ahead of this host's");
        assert_eq!(clock(-300).level, Level::Warning);
    }

    #[tokio::test]
    async fn each_promise_of_a_store_is_tried_and_an_append_only_one_is_a_warning() {
        let failed = Level::Failed(FailureKind::Store);
        let good = levels("").await;
        assert!(good.len() == 5 && good.iter().all(|(_, level)| *level == Level::Ok), "{good:?}");
        assert_eq!(levels("put").await, [("store-put", failed)]);
        let truncated = levels("truncate").await;
        let three = [("store-get", failed), ("store-range", failed), ("store-list", failed)];
        assert_eq!(truncated[1..4], three);
        assert_eq!(levels("range").await[2], ("store-range", Level::Warning));
        assert_eq!(levels("range-fails").await[2], ("store-range", failed));
        assert_eq!(levels("range-shifted").await[2], ("store-range", failed));
        assert_eq!(levels("list").await[3], ("store-list", failed));
        assert_eq!(levels("delete").await[4], ("store-delete", Level::Warning));
        assert_eq!(levels("keep").await[4], ("store-delete", Level::Warning));
    }
}
