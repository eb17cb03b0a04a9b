//! What a local directory does beyond the contract, and at its edges.

use super::super::contract::{self, OtherContent};
use super::*;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::SystemTime;

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).expect("a key")
}

fn store() -> (tempfile::TempDir, LocalStore) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = LocalStore::create(&directory.path().join("deep/root")).expect("created");
    (directory, store)
}

async fn put(store: &LocalStore, name: &str, content: &'static [u8]) -> Result<(), StoreError> {
    store.put(&key(name), Bytes::from_static(content)).await
}

async fn names(store: &LocalStore, prefix: &str) -> Vec<String> {
    let all: Vec<_> = store.list(prefix).try_collect().await.expect("list");
    let mut names: Vec<_> = all.into_iter().map(|object| object.key.to_string()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_local_store_keeps_the_contract() {
    let (_directory, store) = store();
    contract::run(&store, OtherContent::Refused).await;
    let left = fs::read_dir(store.place.root.join(TEMPORARY)).expect("made by the first put");
    assert_eq!(left.count(), 0, "no temporary file is left");
}

#[tokio::test]
async fn two_processes_at_once_keep_to_one_content() {
    let (_directory, one) = store();
    let two = LocalStore::open(&one.place.root).expect("opens");
    for n in 0..20 {
        let key = key(&format!("a/{n}"));
        let (left, right) = futures::future::join(
            one.put(&key, Bytes::from_static(b"left")),
            two.put(&key, Bytes::from_static(b"right")),
        )
        .await;
        assert!(left.is_ok() != right.is_ok(), "{left:?} {right:?}");
        let there = one.get(&key).await.expect("one of them");
        assert_eq!(left.is_ok(), there == b"left"[..]);
    }
}

#[tokio::test]
async fn what_a_crash_leaves_is_never_listed_and_never_in_the_way() {
    let (_directory, store) = store();
    let root = &store.place.root;
    put(&store, "chunks/ab/whole", b"whole").await.expect("put");
    // Killed while writing, before the rename, and after making directories.
    fs::write(root.join(".tmp/half"), b"ha").expect("written");
    fs::create_dir_all(root.join("chunks/cd")).expect("made");
    let after = LocalStore::open(root).expect("opens");
    assert_eq!(names(&after, "").await, ["chunks/ab/whole"]);
    // Killed after the rename, before the answer: run again, the same put succeeds.
    put(&after, "chunks/ab/whole", b"whole").await.expect("the same content");
    put(&after, "chunks/cd/new", b"new").await.expect("the directory is there already");
    assert_eq!(names(&after, "chunks/").await.len(), 2);
    assert!(root.join(".tmp/half").exists(), "too young: someone may be writing it");
}

const KILLED: &str = "TEST_STORE_OF_A_KILLED_WRITER";

/// The writer of the next test, in a process of its own; nothing where it was not asked for.
#[tokio::test]
async fn a_writer_to_be_killed() {
    let Some(root) = std::env::var_os(KILLED) else { return };
    let store = LocalStore::open(Path::new(&root)).expect("opens");
    let tag = std::process::id();
    for n in 0.. {
        let puts = (0_u8..8).map(|i| {
            let store = &store;
            async move {
                let key = key(&format!("c/{}/{tag}-{n}-{i}", n % 5));
                store.put(&key, Bytes::from(vec![i; 100_000])).await.expect("put");
                store.delete(&key).await.expect("delete");
                store.put(&key, Bytes::from(vec![i; 200_000])).await.expect("put");
            }
        });
        futures::future::join_all(puts).await;
    }
}

#[tokio::test]
async fn a_writer_killed_at_any_moment_leaves_whole_objects_and_nothing_else_listed() {
    let (_directory, store) = store();
    let root = &store.place.root;
    for round in 0..12 {
        let mut writer = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "store::local::tests::a_writer_to_be_killed"])
            .env(KILLED, root)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("runs itself");
        let begun = names(&store, "").await.len();
        while names(&store, "").await.len() < begun + 8 {
            assert!(writer.try_wait().expect("a child").is_none(), "the writer fell over");
            tokio::time::sleep(Duration::from_micros(300 + 170 * round)).await;
        }
        writer.kill().expect("SIGKILL");
        writer.wait().expect("reaped");
    }
    for name in names(&store, "").await {
        let bytes = store.get(&key(&name)).await.expect("what is listed is there");
        assert!([100_000, 200_000].contains(&bytes.len()), "{name}: {} bytes", bytes.len());
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{name}");
    }
}

#[tokio::test]
async fn only_stale_temporary_files_are_swept() {
    let (_directory, store) = store();
    let temporary = store.place.root.join(TEMPORARY);
    fs::create_dir(&temporary).expect("made");
    for (name, hours) in [("old", 25), ("young", 23)] {
        let file = File::create(temporary.join(name)).expect("made");
        let then = SystemTime::now() - Duration::from_hours(hours);
        file.set_modified(then).expect("dated");
    }
    put(&store, "a", b"a").await.expect("put");
    assert!(!temporary.join("old").exists());
    assert!(temporary.join("young").exists());
}

#[tokio::test]
async fn files_and_directories_are_private() {
    let (directory, store) = store();
    put(&store, "a/b/c", b"rows").await.expect("put");
    let mode = |path: PathBuf| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let root = directory.path().join("deep/root");
    assert_eq!(mode(root.join("a/b/c")), 0o600);
    for path in [".", ".tmp", "a", "a/b"] {
        assert_eq!(mode(root.join(path)), 0o700, "{path}");
    }
}

#[tokio::test]
async fn what_root_makes_in_anothers_directory_is_his() {
    let directory = tempfile::tempdir().expect("a directory");
    let above = File::open(directory.path()).expect("opens");
    let root = rustix::process::geteuid().is_root();
    let own = rustix::process::geteuid().as_raw();
    let his = if root { 65534 } else { own };
    fchown(&above, Some(his), None).expect("given");
    let store = LocalStore::create(&directory.path().join("deep/root")).expect("created");
    assert_eq!(store.place.owner.map(|owner| owner.uid), root.then_some(his));
    put(&store, "a/b/c", b"rows").await.expect("put");
    for path in ["deep", "deep/root", "deep/root/.tmp", "deep/root/a/b", "deep/root/a/b/c"] {
        let found = fs::metadata(directory.path().join(path)).expect("there");
        assert_eq!(found.uid(), his, "{path}");
    }
}

#[tokio::test]
async fn what_is_no_key_is_neither_listed_nor_followed() {
    let (directory, store) = store();
    let root = &store.place.root;
    put(&store, "a/real", b"real").await.expect("put");
    fs::write(directory.path().join("outside"), b"secret").expect("written");
    for name in [".hidden", "a b", "x~", "\u{e4}"] {
        fs::write(root.join(name), b"x").expect("written");
        fs::write(root.join("a").join(name), b"x").expect("written");
    }
    symlink(directory.path().join("outside"), root.join("a/link")).expect("linked");
    symlink(root.join("a"), root.join("loop")).expect("linked");
    assert_eq!(names(&store, "").await, ["a/real"]);
    assert!(store.get(&key("a/link")).await.expect_err("a link").is_not_found());
    let error = put(&store, "a/link", b"secret").await.expect_err("taken");
    assert!(matches!(error, StoreError::Exists(_)), "{error:?}");
    assert_eq!(fs::read(directory.path().join("outside")).expect("there"), b"secret");
}

#[tokio::test]
async fn a_root_that_is_not_there_is_missing_and_not_empty() {
    let (directory, store) = store();
    let absent = directory.path().join("absent");
    assert!(matches!(LocalStore::open(&absent), Err(StoreError::Missing(_))));
    assert!(!absent.exists(), "open never creates");
    put(&store, "a/b", b"x").await.expect("put");
    let opened = LocalStore::open(&store.place.root).expect("opens");
    fs::rename(&store.place.root, directory.path().join("away")).expect("moved away");
    is_missing(&store).await;
    assert!(!store.place.root.exists(), "no call makes the root");
    // As where a disk was mounted.
    fs::create_dir(&store.place.root).expect("made");
    for store in [&store, &opened] {
        is_missing(store).await;
    }
    assert_eq!(names_of(&store.place.root), [""; 0], "no call writes there");
    // To who sees it so at first it is empty, as before `init`.
    let fresh = LocalStore::open(&store.place.root).expect("opens");
    assert!(fresh.get(&key("a/b")).await.is_err_and(|error| error.is_not_found()));
    assert_eq!(names(&fresh, "").await, [""; 0]);
}

async fn is_missing(store: &LocalStore) {
    let missing = |error: &StoreError| matches!(error, StoreError::Missing(_));
    assert!(put(store, "a/c", b"x").await.is_err_and(|e| missing(&e)));
    assert!(put(store, "n/c", b"x").await.is_err_and(|e| missing(&e)));
    assert!(store.get(&key("a/b")).await.is_err_and(|e| missing(&e)));
    assert!(store.delete(&key("a/b")).await.is_err_and(|e| missing(&e)));
    for prefix in ["", "a/"] {
        let listed: Result<Vec<_>, _> = store.list(prefix).try_collect().await;
        assert!(listed.is_err_and(|e| missing(&e)), "{prefix}");
    }
}

#[tokio::test]
async fn a_store_of_which_everything_was_deleted_is_empty_and_not_missing() {
    let (_directory, store) = store();
    put(&store, "a/b", b"x").await.expect("put");
    store.delete(&key("a/b")).await.expect("deleted");
    for store in [&store, &LocalStore::open(&store.place.root).expect("opens")] {
        assert!(store.get(&key("a/b")).await.is_err_and(|error| error.is_not_found()));
        assert_eq!(names(store, "").await, [""; 0]);
        put(store, "a/c", b"x").await.expect("put");
        store.delete(&key("a/c")).await.expect("deleted");
    }
}

#[tokio::test]
async fn a_file_in_the_way_is_named() {
    let (directory, store) = store();
    put(&store, "a", b"x").await.expect("put");
    let error = put(&store, "a/b", b"x").await.expect_err("a is a file");
    let path = store.place.root.join("a/b");
    assert_eq!(error.to_string(), format!("cannot write `{}`", path.display()));
    let file = directory.path().join("file");
    fs::write(&file, b"x").expect("written");
    let error = LocalStore::open(&file).expect_err("a file is no directory");
    assert_eq!(error.to_string(), format!("cannot open `{}`", file.display()));
    assert!(LocalStore::create(&file).is_err());
}

#[tokio::test]
async fn a_directory_taken_away_by_hand_is_made_again() {
    let (_directory, store) = store();
    put(&store, "a/b", b"x").await.expect("put");
    fs::remove_dir_all(store.place.root.join("a")).expect("removed");
    let first = put(&store, "a/c", b"x").await;
    assert!(first.is_err_and(|error| matches!(error, StoreError::Io { .. })));
    put(&store, "a/c", b"x").await.expect("the next one knows");
}

#[tokio::test]
async fn a_put_whose_caller_gives_up_is_whole_or_nothing() {
    let (_directory, store) = store();
    let content = Bytes::from(vec![7; 1 << 20]);
    for n in 0..20 {
        let (key, content) = (key(&format!("a/{n}")), content.clone());
        let put = store.put(&key, content);
        let _ = tokio::time::timeout(Duration::from_micros(200 * n), put).await;
    }
    // Every permit back: all that had begun has ended.
    let calls = u32::try_from(CALLS_MAX).expect("a few");
    let _all = store.calls.acquire_many(calls).await.expect("open");
    let listed: Vec<_> = names_of(&store.place.root.join("a"));
    let found = listed.iter().map(|name| fs::metadata(store.place.root.join("a").join(name)));
    assert!(found.into_iter().all(|file| file.is_ok_and(|file| file.len() == 1 << 20)));
    assert_eq!(names_of(&store.place.root.join(TEMPORARY)).len(), 0);
}

fn names_of(directory: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.file_name()).collect()
}

#[tokio::test]
async fn a_listing_of_thousands_names_each_once() {
    let (_directory, store) = store();
    for directory in 0..7 {
        let path = store.place.root.join(format!("l/{directory}"));
        fs::create_dir_all(&path).expect("made");
        for file in 0..500 {
            fs::write(path.join(file.to_string()), b"").expect("written");
        }
    }
    let mut all = names(&store, "l/").await;
    all.dedup();
    assert_eq!(all.len(), 3500);
}
