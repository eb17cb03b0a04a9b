//! `verify --check stored`: a host without keys finds what is damaged, and the next snapshot is whole again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::keeper::Output;
use crate::support::s3_proxy::{Fault, Proxy};
use crate::support::s3_server::{S3Place, S3Server};
use crate::support::{Database, Keeper, Server, eventually};

/// A host that writes, one that only checks, and two snapshots that share most of their chunks.
struct Scene {
    writer: Keeper,
    checker: Keeper,
    database: Database,
    first: String,
    second: String,
}

impl Scene {
    #[track_caller]
    fn new(name: &str) -> Self {
        let database = Server::older().database(name);
        // Enough for several chunks that are whole in both snapshots.
        database.shop(150_000);
        let writer = Keeper::initialised(&database.url());
        let first = writer.snapshot_id();
        database.psql("INSERT INTO customers (name, email) VALUES ('x', 'x@example.org')");
        let second = writer.snapshot_id();
        let mut checker = Keeper::new("postgres://nobody@127.0.0.1:1/none");
        let signer = writer.pgkeep(["key", "show", "--json"]).run().expect_code(0).json();
        let signer = signer["signer"].as_str().expect("it signs").to_owned();
        checker
            .set("PGKEEP_REPOSITORY", writer.repository_url())
            .set("PGKEEP_TRUSTED_SIGNERS", signer);
        assert_eq!(std::fs::read_dir(checker.home()).expect("a home").count(), 0, "no keys");
        Self { writer, checker, database, first, second }
    }

    /// The names in a backup's chunk list.
    fn names(&self, id: &str) -> BTreeSet<String> {
        let all = self.writer.objects();
        let list = all.iter().find(|(key, _)| key.ends_with(&format!("/{id}.chunks")));
        let text = std::fs::read_to_string(&list.expect("a list").1).expect("a text");
        text.lines().map(|line| line.split(' ').next().expect("a name").to_owned()).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        let all = self.writer.objects_under("chunks/");
        all.into_iter().find(|(key, _)| key.ends_with(name)).expect("a chunk").1
    }

    /// Chunks that both snapshots need, largest first.
    fn shared(&self) -> Vec<String> {
        let (first, second) = (self.names(&self.first), self.names(&self.second));
        let mut shared: Vec<String> = first.intersection(&second).cloned().collect();
        let size = |name: &String| std::fs::metadata(self.path(name)).expect("a file").len();
        shared.sort_by_key(|name| std::cmp::Reverse(size(name)));
        shared
    }

    fn check(&self, args: &[&str]) -> Output {
        self.checker.pgkeep(["verify", "--check", "stored", "--json"]).args(args).run()
    }

    fn condemned(&self) -> usize {
        self.writer.objects_under("condemned/").len()
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a chunk");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

fn of<'a>(documents: &'a [Value], id: &str) -> &'a Value {
    documents.iter().find(|one| one["id"] == id).expect("every backup has its line")
}

#[test]
fn a_host_without_keys_finds_all_damage_and_names_who_needs_it() {
    let scene = Scene::new("found");
    let passed = scene.check(&[]).expect_code(0).json_lines();
    assert_eq!(passed.len(), 2);
    assert!(passed.iter().all(|one| one["result"] == "passed"), "{passed:?}");
    assert_eq!(scene.condemned(), 0);

    let shared = scene.shared();
    let [flipped, cut, gone, ..] = &shared[..] else { panic!("too few chunks: {shared:?}") };
    let only = scene.names(&scene.second).difference(&scene.names(&scene.first)).next().cloned();
    let only = only.expect("the second stored something of its own");
    flip(&scene.path(flipped));
    let cut_path = scene.path(cut);
    let bytes = std::fs::read(&cut_path).expect("a chunk");
    std::fs::write(&cut_path, &bytes[..bytes.len() / 2]).expect("written");
    std::fs::remove_file(scene.path(gone)).expect("a chunk");
    flip(&scene.path(&only));

    let found = scene.check(&[]).expect_code(3).json_lines();
    let (first, second) = (of(&found, &scene.first), of(&found, &scene.second));
    assert_eq!(first["result"], "failed");
    assert_eq!(first["damaged"].as_array().map(Vec::len), Some(3));
    assert_eq!(second["damaged"].as_array().map(Vec::len), Some(4));
    for (name, reason) in
        [(flipped, "its bytes are not"), (cut, "bytes long"), (gone, "is missing")]
    {
        let damaged = first["damaged"].as_array().expect("a list");
        let one =
            damaged.iter().find(|one| one["chunk"].as_str().is_some_and(|k| k.ends_with(name)));
        let one = one.expect("named");
        assert!(one["reason"].as_str().expect("a reason").contains(reason), "{one}");
        assert_eq!(one["needed_by"], serde_json::json!([scene.second, scene.first]));
    }
    // A record of no key's: what was found is condemned once, however often it is found.
    assert_eq!(scene.condemned(), 1);
    let told = scene.checker.pgkeep(["verify", "--check", "stored"]).run();
    let told = told.expect_failure(3, &["2 of 2 backups are damaged"]);
    assert!(told.stdout.contains(&format!("needed by {}, {}", scene.second, scene.first)));
    assert_eq!(scene.condemned(), 1);
    // Asked for one, it tells of that one.
    let one = scene.check(&[&scene.first]).expect_code(3).json_lines();
    assert_eq!(one.len(), 1);
}

#[test]
fn the_snapshot_after_stores_afresh_what_was_found_damaged_and_is_whole() {
    let scene = Scene::new("afresh");
    let damaged: BTreeSet<String> = scene.shared().into_iter().take(2).collect();
    // Same names, same sizes: nothing but a reader of the bytes can tell.
    for name in &damaged {
        flip(&scene.path(name));
    }
    scene.check(&[]).expect_code(3);
    let snapshot = scene.writer.snapshot();
    let third = snapshot["id"].as_str().expect("an id");
    assert!(scene.names(third).is_disjoint(&damaged));
    assert!(snapshot["chunks_new"].as_u64() < snapshot["chunks_total"].as_u64(), "{snapshot}");
    scene.writer.verify(&["latest", "--check", "full"]);
    // Those before are as they were; nothing was taken away from them.
    for name in &damaged {
        assert!(scene.path(name).exists());
    }
    let found = scene.check(&[]).expect_code(3).json_lines();
    assert_eq!(of(&found, third)["result"], "passed");
    assert_eq!(of(&found, &scene.first)["result"], "failed");
    let copy = format!("{}_copy", scene.database.name);
    scene.writer.pgkeep(["restore", "latest", "--as", &copy]).run().expect_code(0);
    assert_eq!(scene.database.server.contents(&copy), scene.database.contents());
}

#[test]
fn a_check_that_was_cut_short_goes_on_where_it_was_and_keeps_to_its_rate() {
    let scene = Scene::new("resumed");
    let state = scene.checker.home().join("state");
    let note = || {
        let file = std::fs::read_dir(&state).ok()?.flatten().next()?.path();
        serde_json::from_slice::<Value>(&std::fs::read(file).ok()?).ok()
    };
    let stored: u64 = {
        let chunks = scene.writer.objects_under("chunks/");
        chunks.iter().map(|(_, path)| std::fs::metadata(path).expect("a file").len()).sum()
    };
    // It would take half a minute.
    let rate = (stored / 30).to_string();
    let slow = ["verify", "--check", "stored", "--rate", &rate];
    let running = scene.checker.pgkeep(slow).spawn();
    let compared = || note().and_then(|note| note["chunks"].as_u64()).unwrap_or(0);
    eventually("some are compared", Duration::from_mins(1), || compared() > 0);
    running.signal(rustix::process::Signal::INT);
    running.wait().expect_code(130);
    let before = note().expect("it is noted");
    let distinct = scene.names(&scene.first).union(&scene.names(&scene.second)).count() as u64;
    let done = before["chunks"].as_u64().expect("a number");
    assert!(done > 0 && done < distinct, "{done} of {distinct}");

    // What is behind is not read again: damage that comes there now is the next run's to find.
    let behind = before["chunk"].as_str().expect("a name").to_owned();
    flip(&scene.path(&behind));
    let third = scene.writer.snapshot_id();
    let told = scene.checker.pgkeep(["verify", "--check", "stored"]).run().expect_code(0);
    assert!(told.stderr.contains(&format!("behind {done} chunks")), "{}", told.stderr);
    assert!(told.stdout.contains(&format!("{distinct} chunks")), "{}", told.stdout);
    assert!(!told.stdout.contains(&third), "it is the next run's");
    assert!(note().is_none(), "the work is done");
    let found = scene.check(&[]).expect_code(3).json_lines();
    assert_eq!(found.len(), 3);
    assert!(found.iter().any(|one| one["result"] == "failed"));
}

#[test]
fn damage_in_a_store_that_may_only_be_read_is_told_and_not_condemned() {
    let database = Server::older().database("readonly");
    let place = S3Place::of(S3Server::start());
    let writer = Keeper::in_bucket(&database.shop(20_000).url(), &place, &place.endpoint);
    writer.pgkeep(["init"]).run().expect_code(0);
    let id = writer.snapshot_id();
    let signer = writer.pgkeep(["key", "show", "--json"]).run().expect_code(0).json();
    // A credential that may read, and nothing else.
    let reads = Proxy::before(place.server().address(), |asked| match asked.kind() {
        "PUT" | "DELETE" => {
            Fault::Answer(403, "<Error><Code>AccessDenied</Code></Error>".to_owned())
        }
        _ => Fault::None,
    });
    let mut checker =
        Keeper::in_bucket("postgres://nobody@127.0.0.1:1/none", &place, &reads.endpoint());
    checker.set("PGKEEP_TRUSTED_SIGNERS", signer["signer"].as_str().expect("it signs"));
    let check = ["verify", "--check", "stored", "--json"];
    checker.pgkeep(check).run().expect_code(0);
    let (key, path) = writer.objects_under("chunks/").remove(0);
    flip(&path);
    for _ in 0..2 {
        let output = checker.pgkeep(check).run().expect_code(3);
        let found = output.json_lines();
        assert_eq!(of(&found, &id)["damaged"][0]["chunk"], *key, "{found:?}");
        // Nobody may think that the next snapshot mends it.
        let told = output.stderr.lines().any(|line| {
            line.starts_with("warning: ")
                && line.contains("s3:PutObject")
                && line.contains("condemned")
        });
        assert!(told, "{}", output.stderr);
        assert_eq!(writer.objects_under("condemned/").len(), 0);
    }
    // Where it may be written, it is.
    checker.set("AWS_ENDPOINT_URL", &place.endpoint);
    checker.pgkeep(check).run().expect_code(3);
    assert_eq!(writer.objects_under("condemned/").len(), 1);
}

#[test]
fn a_run_that_begins_anew_reads_everything_again() {
    let scene = Scene::new("anew");
    let running = scene.checker.pgkeep(["verify", "--check", "stored", "--rate", "20000"]).spawn();
    let state = scene.checker.home().join("state");
    eventually("it is noted", Duration::from_mins(1), || {
        std::fs::read_dir(&state).is_ok_and(|mut entries| entries.next().is_some())
    });
    running.signal(rustix::process::Signal::KILL);
    running.wait();
    flip(&scene.path(&scene.shared()[0]));
    scene.check(&["--restart"]).expect_code(3);
}

#[test]
fn a_forged_manifest_is_told_and_hides_no_other() {
    let scene = Scene::new("forged");
    let all = scene.writer.objects();
    let manifest = all.iter().find(|(key, _)| key.ends_with(&format!("/{}.json", scene.first)));
    let path = &manifest.expect("a manifest").1;
    let text = std::fs::read_to_string(path).expect("a text").replace("manual", "scheduled");
    std::fs::write(path, text).expect("written");
    let output = scene.check(&[]).expect_code(7);
    let documents = output.json_lines();
    assert_eq!(of(&documents, &scene.second)["result"], "passed");
    assert_eq!(of(&documents, &scene.first)["error"]["exit_code"], 7);
    // Whom to trust is not in the store.
    scene
        .checker
        .pgkeep(["verify", "--check", "stored"])
        .without("PGKEEP_TRUSTED_SIGNERS")
        .run()
        .expect_failure(7, &["no trusted signer"]);
}
