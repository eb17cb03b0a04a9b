//! A store that fails as told, around any other: for tests of what stands above the seam.
//!
//! A plan sees every call and says what becomes of it. Reports all calls afterwards, so that a test can
//! first walk a run and then crash it at each of its calls in turn.

use std::fmt;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};

use super::{ObjectMeta, ObjectStore, Store, StoreError};
use crate::domain::key::ObjectKey;

/// What was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// [`ObjectStore::put`].
    Put,
    /// [`ObjectStore::get`].
    Get,
    /// [`ObjectStore::list`].
    List,
    /// [`ObjectStore::delete`].
    Delete,
}

/// One call, as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What was called.
    pub op: Op,
    /// The key, or the prefix of a list.
    pub key: String,
    /// Its place among all calls of this store, from 1.
    pub nth: u64,
    /// Its place among those of the same kind, from 1.
    pub nth_of_op: u64,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is done.
    None,
    /// It fails, and nothing is done.
    FailBefore,
    /// It is done, and the answer is lost; a list gives all it has, and then fails.
    FailAfter,
    /// A get gives the first so many bytes. Nothing else is changed by it.
    Truncate(usize),
    /// A get gives a byte in the middle with one bit flipped. Nothing else is changed by it.
    Flip,
    /// It is not done and never answers.
    Stall,
}

type Plan = dyn Fn(&Call) -> Fault + Send + Sync;

/// A store around another, with a plan of what goes wrong.
pub struct FaultyStore {
    inner: Store,
    plan: Box<Plan>,
    calls: Mutex<Vec<Call>>,
}

impl FaultyStore {
    /// Calls go to `inner`, as far as `plan` lets them.
    pub fn new(inner: Store, plan: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> Self {
        Self { inner, plan: Box::new(plan), calls: Mutex::default() }
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.log().clone()
    }

    fn log(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().expect("no code panics while it holds the log")
    }

    fn fault(&self, op: Op, key: &str) -> Fault {
        let call = {
            let mut log = self.log();
            let nth = log.len() as u64 + 1;
            let nth_of_op = log.iter().filter(|call| call.op == op).count() as u64 + 1;
            log.push(Call { op, key: key.to_owned(), nth, nth_of_op });
            log[log.len() - 1].clone()
        };
        (self.plan)(&call)
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({:?})", self.inner)
    }
}

/// Does `work` as far as the fault lets it.
async fn under<T>(
    fault: Fault,
    key: &str,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match fault {
        Fault::None | Fault::Truncate(_) | Fault::Flip => work.await,
        Fault::FailBefore => Err(StoreError::Injected(key.to_owned())),
        Fault::FailAfter => {
            work.await?;
            Err(StoreError::Injected(key.to_owned()))
        }
        Fault::Stall => std::future::pending().await,
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        under(self.fault(Op::Put, key.as_str()), key.as_str(), self.inner.put(key, bytes)).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, StoreError> {
        let fault = self.fault(Op::Get, key.as_str());
        let bytes = under(fault, key.as_str(), self.inner.get(key)).await?;
        Ok(match fault {
            Fault::Truncate(length) => bytes.slice(..length.min(bytes.len())),
            Fault::Flip if !bytes.is_empty() => {
                let mut changed = bytes.to_vec();
                changed[bytes.len() / 2] ^= 1;
                changed.into()
            }
            _ => bytes,
        })
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        let failure = stream::iter([Err(StoreError::Injected(prefix.to_owned()))]);
        match self.fault(Op::List, prefix) {
            Fault::None | Fault::Truncate(_) | Fault::Flip => self.inner.list(prefix),
            Fault::FailBefore => failure.boxed(),
            Fault::FailAfter => self.inner.list(prefix).chain(failure).boxed(),
            Fault::Stall => stream::pending().boxed(),
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        under(self.fault(Op::Delete, key.as_str()), key.as_str(), self.inner.delete(key)).await
    }

    fn concurrency(&self) -> usize {
        self.inner.concurrency()
    }

    fn address(&self) -> String {
        self.inner.address()
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{self, OtherContent};
    use super::super::memory::MemoryStore;
    use super::*;
    use futures::future::FutureExt as _;
    use futures::stream::TryStreamExt as _;
    use std::sync::Arc;

    fn key(text: &str) -> ObjectKey {
        ObjectKey::parse(text).expect("a key")
    }

    /// A store whose `nth` call meets `fault`, around one that holds `a` = `rows`.
    async fn failing(nth: u64, fault: Fault) -> (Arc<MemoryStore>, FaultyStore) {
        let inner = Arc::new(MemoryStore::new());
        inner.put(&key("a"), Bytes::from_static(b"rows")).await.expect("put");
        let plan = move |call: &Call| if call.nth == nth { fault } else { Fault::None };
        (inner.clone(), FaultyStore::new(inner, plan))
    }

    #[tokio::test]
    async fn a_faulty_store_without_faults_keeps_the_contract() {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()), |_| Fault::None);
        contract::run(&store, OtherContent::Refused).await;
        assert!(store.calls().len() > 600);
    }

    #[tokio::test]
    async fn the_nth_call_fails_before_or_after_it_is_done() {
        for (fault, done) in [(Fault::FailBefore, false), (Fault::FailAfter, true)] {
            let (inner, store) = failing(2, fault).await;
            store.get(&key("a")).await.expect("the first call is let through");
            let error = store.put(&key("b"), Bytes::new()).await.expect_err("injected");
            assert!(matches!(error, StoreError::Injected(_)));
            assert_eq!(inner.objects().contains_key(&key("b")), done);
            let (inner, store) = failing(1, fault).await;
            store.delete(&key("a")).await.expect_err("injected");
            assert_eq!(inner.objects().is_empty(), done);
        }
    }

    #[tokio::test]
    async fn a_list_that_fails_after_gives_all_it_has_first() {
        let (_, store) = failing(1, Fault::FailAfter).await;
        let all: Vec<_> = store.list("").collect().await;
        assert_eq!(all.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
        let (_, store) = failing(1, Fault::FailBefore).await;
        assert!(store.list("").try_collect::<Vec<_>>().await.is_err());
    }

    #[tokio::test]
    async fn a_get_can_be_short_or_changed() {
        let (_, store) = failing(1, Fault::Truncate(2)).await;
        assert_eq!(store.get(&key("a")).await.expect("short"), &b"ro"[..]);
        let (_, store) = failing(1, Fault::Flip).await;
        assert_eq!(store.get(&key("a")).await.expect("changed"), &b"rovs"[..]);
    }

    #[tokio::test]
    async fn a_stalled_call_never_answers() {
        let (inner, store) = failing(1, Fault::Stall).await;
        assert!(store.put(&key("b"), Bytes::new()).now_or_never().is_none());
        assert!(!inner.objects().contains_key(&key("b")));
    }

    #[tokio::test]
    async fn the_calls_are_told_in_order() {
        let (_, store) = failing(0, Fault::None).await;
        store.get(&key("a")).await.expect("get");
        store.list("x/").try_collect::<Vec<_>>().await.expect("list");
        store.get(&key("a")).await.expect("get");
        let told: Vec<_> =
            store.calls().into_iter().map(|c| (c.op, c.key, c.nth, c.nth_of_op)).collect();
        let get = |nth, nth_of_op| (Op::Get, "a".to_owned(), nth, nth_of_op);
        assert_eq!(told, [get(1, 1), (Op::List, "x/".to_owned(), 2, 1), get(3, 2)]);
    }
}
