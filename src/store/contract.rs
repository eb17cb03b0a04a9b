//! The one suite that every store passes. It panics at the first promise that is broken, so it belongs in
//! tests; it lives here so that the tests of every store, outside this crate too, run the same.
//!
//! It works under the prefix `contract/`, which must be empty, and leaves it empty.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::{join, join_all};
use futures::stream::{StreamExt as _, TryStreamExt as _};

use super::{ObjectStore, StoreError};
use crate::domain::key::ObjectKey;

/// What a store does when a name is taken by other content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherContent {
    /// It answers [`StoreError::Exists`] and keeps what is there, whoever else puts at the same time.
    Refused,
    /// It cannot tell (a service without conditional puts): the object is one of the contents, whole.
    Unseen,
}

/// Runs the suite.
pub async fn run(store: &dyn ObjectStore, other_content: OtherContent) {
    let left = names(store, "contract/").await;
    assert!(left.is_empty(), "the suite begins with an empty prefix, not with {left:?}");

    what_was_put_is_there(store).await;
    a_part_is_just_that_part(store).await;
    what_is_not_there_is_not_found(store).await;
    the_same_content_twice_is_success(store).await;
    other_content_under_a_taken_name(store, other_content).await;
    contents_that_race_for_a_name(store, other_content).await;
    sizes_from_nothing_to_eight_mebibytes(store).await;
    a_prefix_is_a_string_and_not_a_directory(store).await;
    what_was_put_before_a_list_is_in_it(store).await;
    two_hundred_puts_at_once(store).await;
    what_was_deleted_is_gone(store).await;

    assert!(store.concurrency() > 0);
    assert!(!store.address().is_empty());
    for name in names(store, "contract/").await {
        store.delete(&key(&name)).await.expect("delete");
    }
    assert_eq!(names(store, "contract/").await, BTreeSet::new());
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).expect("the suite's keys are keys")
}

async fn put(store: &dyn ObjectStore, name: &str, content: &'static [u8]) {
    store.put(&key(name), Bytes::from_static(content)).await.expect("put");
}

async fn get(store: &dyn ObjectStore, name: &str) -> Bytes {
    store.get(&key(name)).await.expect("get")
}

async fn names(store: &dyn ObjectStore, prefix: &str) -> BTreeSet<String> {
    let all: Vec<_> = store.list(prefix).try_collect().await.expect("list");
    let names: BTreeSet<_> = all.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(names.len(), all.len(), "a list names an object once");
    names
}

async fn what_was_put_is_there(store: &dyn ObjectStore) {
    put(store, "contract/there/one.json", b"one").await;
    assert_eq!(get(store, "contract/there/one.json").await, &b"one"[..]);
    let all: Vec<_> = store.list("contract/there/").try_collect().await.expect("list");
    assert_eq!(all.len(), 1, "list after put");
    assert_eq!((all[0].key.as_str(), all[0].size_bytes), ("contract/there/one.json", 3));
}

async fn a_part_is_just_that_part(store: &dyn ObjectStore) {
    let content: Bytes = (0_u8..251).cycle().take(100_000).collect();
    let name = key("contract/parts/all");
    store.put(&name, content.clone()).await.expect("put");
    for (start, end) in [(0_usize, 1_usize), (0, 100_000), (99_999, 100_000), (300, 70_000)] {
        let part = store.get_range(&name, start as u64..end as u64).await.expect("a part");
        assert!(part == content[start..end], "{start} to {end}");
    }
    for (start, end) in [(7, 7), (99_999, 100_001), (100_000, 100_001), (1 << 40, 1 << 41)] {
        let part = store.get_range(&name, start..end).await;
        assert!(part.is_err(), "{start} to {end} is not within it");
    }
    let error =
        store.get_range(&key("contract/parts/none"), 0..1).await.expect_err("nothing there");
    assert!(error.is_not_found(), "{error:?}");
}

async fn what_is_not_there_is_not_found(store: &dyn ObjectStore) {
    put(store, "contract/missing/here", b"x").await;
    let keys = ["contract/missing/nothing", "contract/missing/here"].map(key);
    let each = store.get_each(&keys).await.expect("an answer");
    assert!(
        matches!(&each[..], [Err(StoreError::NotFound(none)), Ok(x)] if *none == keys[0] && *x == b"x"[..]),
        "{each:?}"
    );
    for name in ["contract/missing/nothing", "contract/missing", "contract/no/such/place"] {
        let error = store.get(&key(name)).await.expect_err("nothing lies there");
        assert!(matches!(&error, StoreError::NotFound(k) if k.as_str() == name), "{error:?}");
    }
    assert_eq!(names(store, "contract/no/such/place/").await, BTreeSet::new());
}

async fn the_same_content_twice_is_success(store: &dyn ObjectStore) {
    put(store, "contract/same", b"same").await;
    put(store, "contract/same", b"same").await;
    let key = key("contract/same");
    let again = || store.put(&key, Bytes::from_static(b"same"));
    for result in join_all((0..8).map(|_| again())).await {
        result.expect("the same content at once");
    }
    assert_eq!(get(store, "contract/same").await, &b"same"[..]);
    assert_eq!(names(store, "contract/same").await.len(), 1);
}

async fn other_content_under_a_taken_name(store: &dyn ObjectStore, other: OtherContent) {
    put(store, "contract/other", b"first").await;
    // A prefix, a continuation, and the same length.
    for content in [&b""[..], b"firs", b"first!", b"fIrst"] {
        let result = store.put(&key("contract/other"), Bytes::from_static(content)).await;
        if other == OtherContent::Refused {
            let error = result.expect_err("the name is taken");
            assert!(matches!(error, StoreError::Exists(_)), "{error:?}");
            assert_eq!(get(store, "contract/other").await, &b"first"[..]);
        }
    }
}

async fn contents_that_race_for_a_name(store: &dyn ObjectStore, other: OtherContent) {
    let contents: Vec<_> = (0..8_u8).map(|n| Bytes::from(vec![n; 100_000])).collect();
    let key = key("contract/race");
    let results = join_all(contents.iter().map(|bytes| store.put(&key, bytes.clone()))).await;
    let there = store.get(&key).await.expect("one of them");
    let winner = contents.iter().position(|bytes| *bytes == there).expect("whole, not a mixture");
    if other == OtherContent::Refused {
        for (at, result) in results.iter().enumerate() {
            assert_eq!(result.is_ok(), at == winner, "put {at}, winner {winner}: {result:?}");
        }
    }
}

async fn sizes_from_nothing_to_eight_mebibytes(store: &dyn ObjectStore) {
    for size in [0, 1, 65_536, 8 << 20] {
        let content: Bytes = (0_u8..251).cycle().take(size).collect();
        let key = key(&format!("contract/sizes/{size}"));
        store.put(&key, content.clone()).await.expect("put");
        assert!(store.get(&key).await.expect("get") == content, "{size} bytes");
        let listed: Vec<_> = store.list(key.as_str()).try_collect().await.expect("list");
        assert_eq!(listed.first().map(|object| object.size_bytes), Some(size as u64));
    }
}

async fn a_prefix_is_a_string_and_not_a_directory(store: &dyn ObjectStore) {
    let all = ["a", "ab/c", "abc", "b/a/a", "b/ab", "intents.x"].map(|n| format!("contract/p/{n}"));
    for name in &all {
        store.put(&key(name), Bytes::from_static(b"x")).await.expect("put");
    }
    for prefix in [
        "contract/p/",
        "contract/p/a",
        "contract/p/ab",
        "contract/p/ab/",
        "contract/p/b/a",
        "contract/p/b/a/",
        "contract/p/intents.",
        "contract/p/abc",
        "contract/p/abc/",
        "contract/p/zzz",
    ] {
        let wanted = all.iter().filter(|name| name.starts_with(prefix)).cloned().collect();
        assert_eq!(names(store, prefix).await, wanted, "prefix {prefix:?}");
    }
    // What is no beginning of any key finds nothing, and reaches nothing outside.
    for prefix in ["/", "../", "contract/../contract/p/", "contract//p", "contract/p/.", "./"] {
        assert_eq!(names(store, prefix).await, BTreeSet::new(), "prefix {prefix:?}");
    }
    if let Some(found) = store.directories("contract/p/").await.expect("listed") {
        let found: BTreeSet<String> = found.into_iter().collect();
        assert_eq!(found, ["contract/p/ab/", "contract/p/b/"].map(str::to_owned).into());
        let none = store.directories("contract/zzz/").await.expect("listed");
        assert_eq!(none, Some(Vec::new()));
    }
    let everything = names(store, "").await;
    assert!(all.iter().all(|name| everything.contains(name)), "the empty prefix is all");
}

async fn what_was_put_before_a_list_is_in_it(store: &dyn ObjectStore) {
    let name = |kind: &str, n: usize| format!("contract/busy/{:02}/{kind}{n}", n % 7);
    for n in 0..40 {
        store.put(&key(&name("before", n)), Bytes::from_static(b"b")).await.expect("put");
        store.put(&key(&name("doomed", n)), Bytes::from_static(b"d")).await.expect("put");
    }
    let changes = async {
        for n in 0..40 {
            store.put(&key(&name("during", n)), Bytes::from_static(b"d")).await.expect("put");
            store.delete(&key(&name("doomed", n))).await.expect("delete");
        }
    };
    let lists = async {
        for _ in 0..10 {
            let seen = names(store, "contract/busy/").await;
            let missing: Vec<_> =
                (0..40).map(|n| name("before", n)).filter(|n| !seen.contains(n)).collect();
            assert!(missing.is_empty(), "not in the list: {missing:?}");
        }
    };
    join(changes, lists).await;
    let seen = names(store, "contract/busy/").await;
    assert!(!seen.iter().any(|name| name.contains("doomed")), "list after delete");
    assert_eq!(seen.len(), 80, "list after put");
}

async fn two_hundred_puts_at_once(store: &dyn ObjectStore) {
    let name = |n: usize| format!("contract/many/{:02x}/{n}", n % 16);
    let content = |n: usize| Bytes::from(n.to_le_bytes().repeat(n * 5));
    let puts = (0..200).map(|n| async move { store.put(&key(&name(n)), content(n)).await });
    for result in join_all(puts).await {
        result.expect("put");
    }
    assert_eq!(names(store, "contract/many/").await, (0..200).map(name).collect());
    let gets = futures::stream::iter(0..200)
        .map(|n| async move { (n, store.get(&key(&name(n))).await) })
        .buffer_unordered(16);
    let wrong = gets.filter(|(n, got)| {
        let wrong = !matches!(got, Ok(bytes) if *bytes == content(*n));
        async move { wrong }
    });
    assert_eq!(wrong.count().await, 0);
}

async fn what_was_deleted_is_gone(store: &dyn ObjectStore) {
    put(store, "contract/gone/a", b"a").await;
    put(store, "contract/gone/ab", b"ab").await;
    store.delete(&key("contract/gone/a")).await.expect("delete");
    store.delete(&key("contract/gone/a")).await.expect("delete of what is gone");
    store.delete(&key("contract/gone")).await.expect("delete of what never was");
    store.delete(&key("contract/never/was")).await.expect("delete of what never was");
    assert!(store.get(&key("contract/gone/a")).await.expect_err("gone").is_not_found());
    assert_eq!(get(store, "contract/gone/ab").await, &b"ab"[..]);
    assert_eq!(names(store, "contract/gone/").await.len(), 1);
}
