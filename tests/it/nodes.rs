//! A store of three nodes that loses some of them: a test program of its own, which `make test-stores` runs and
//! `cargo test` does not (`test = false` in Cargo.toml). It needs a store it may break: `TEST_STORE_CONTROL`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::support::s3_proxy::{Asked, Fault, Proxy};
use crate::support::s3_server::S3Place;
use crate::support::{Database, Keeper, Server, eventually};

#[allow(dead_code, unused_imports, reason = "the stories share it, and these two use a part")]
mod support;

/// The nodes are everybody's: one story at a time.
static TURN: Mutex<()> = Mutex::new(());

/// The control of the store's nodes, 1 to 3.
#[derive(Clone)]
struct Nodes(PathBuf);

impl Nodes {
    /// All of them up.
    fn of_this_run() -> Self {
        let control = std::env::var_os("TEST_STORE_CONTROL")
            .expect("TEST_STORE_CONTROL is not set: `make test-stores` runs this");
        let nodes = Self(control.into());
        for node in 1..=3 {
            nodes.start(node);
        }
        nodes.await_whole();
        nodes
    }

    fn does(&self, args: &[&str]) -> bool {
        Command::new(&self.0).args(args).status().expect("the control starts").success()
    }

    /// SIGKILL.
    fn stop(&self, node: u8) {
        assert!(self.does(&["stop", &node.to_string()]), "node {node} can be stopped");
    }

    fn start(&self, node: u8) {
        assert!(self.does(&["start", &node.to_string()]), "node {node} can be started");
    }

    fn await_whole(&self) {
        eventually("all nodes know of each other", Duration::from_mins(2), || {
            self.does(&["whole"])
        });
    }
}

type Deed = Box<dyn FnOnce() + Send>;
/// The requests that are meant, how many more of them, and what happens then.
type Line = (&'static str, usize, Deed);

/// What is to happen when so many more requests of a kind have come.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<Line>>>);

impl Script {
    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the `nth` request of that kind from now.
    fn at(&self, kind: &'static str, nth: usize, deed: impl FnOnce() + Send + 'static) {
        self.lines().push((kind, nth, Box::new(deed)));
    }

    fn heard(&self, asked: &Asked) {
        let mut due = Vec::new();
        let mut lines = self.lines();
        for line in std::mem::take(&mut *lines) {
            match line {
                (kind, 1, deed) if kind == asked.kind() => due.push(deed),
                (kind, nth, deed) if kind == asked.kind() => lines.push((kind, nth - 1, deed)),
                other => lines.push(other),
            }
        }
        // Held meanwhile: no other request slips by.
        for deed in due {
            deed();
        }
    }

    /// It all happened.
    #[track_caller]
    fn is_played(&self) {
        assert_eq!(self.lines().len(), 0, "fewer requests came than the story needs");
    }
}

struct Scene {
    _turn: MutexGuard<'static, ()>,
    nodes: Nodes,
    script: Script,
    database: Database,
    keeper: Keeper,
    _proxy: Proxy,
}

impl Scene {
    fn set(name: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (nodes, script) = (Nodes::of_this_run(), Script::default());
        let place = S3Place::of_this_run();
        let server = place.endpoint.trim_start_matches("http://").parse().expect("an address");
        let heard = script.clone();
        let proxy = Proxy::before(server, move |asked| {
            heard.heard(asked);
            Fault::None
        });
        let database = Server::newer().database(name);
        database.shop(2000);
        let mut keeper = Keeper::in_bucket(&database.url(), &place, &proxy.endpoint());
        keeper.set("PGKEEP__REPOSITORY__IDLE_TIMEOUT", "5s");
        keeper.set("PGKEEP__REPOSITORY__RETRY_FOR", "2m");
        let scene = Self { _turn: turn, nodes, script, database, keeper, _proxy: proxy };
        scene.grow("first");
        scene.keeper.pgkeep(["init"]).run().expect_code(0);
        scene
    }

    /// 16 MB more that no chunk has yet.
    fn grow(&self, table: &str) {
        self.database.psql(&format!(
            "CREATE TABLE {table} AS SELECT n, md5('{table}' || n) || md5(n || '{table}') AS noise \
             FROM generate_series(1, 220000) AS n"
        ));
    }

    /// The node dies with the `from`th request of that kind and comes back with the `to`th.
    fn down(&self, node: u8, kind: &'static str, from: usize, to: usize) {
        let (stopped, started) = (self.nodes.clone(), self.nodes.clone());
        self.script.at(kind, from, move || stopped.stop(node));
        self.script.at(kind, to, move || started.start(node));
    }

    /// What the script had for this is played, and all nodes are back.
    #[track_caller]
    fn survived(&self) {
        self.script.is_played();
        self.nodes.await_whole();
    }

    fn listed(&self) -> BTreeSet<String> {
        self.keeper.listed().into_iter().collect()
    }

    /// Each of the backups is whole, read row by row.
    #[track_caller]
    fn all_restore(&self) {
        self.keeper.verify(&["--all", "--check", "full"]);
    }
}

#[test]
fn backup_prune_and_restore_go_on_while_one_node_dies_and_comes_back() {
    let mut scene = Scene::set("one_node");
    let first = scene.keeper.snapshot_id();

    scene.down(2, "PUT", 4, 12);
    scene.grow("second");
    let second = scene.keeper.snapshot_id();
    scene.survived();
    let before = scene.database.contents();

    // What was written while it was away is read without either of the others.
    for away in [3, 2] {
        scene.nodes.stop(away);
        scene.all_restore();
        scene.nodes.start(away);
        scene.nodes.await_whole();
    }

    // The one that is spoken to: there is nobody for two seconds.
    let nodes = scene.nodes.clone();
    scene.script.at("PUT", 4, move || {
        nodes.stop(1);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(2));
            nodes.start(1);
        });
    });
    scene.database.psql("DROP TABLE first");
    scene.grow("third");
    let third = scene.keeper.snapshot_id();
    scene.survived();
    assert_eq!(scene.listed(), [&first, &second, &third].map(String::clone).into());

    scene.down(2, "GET", 3, 10);
    scene.database.drop_now();
    scene.keeper.pgkeep(["restore", &second]).run().expect_code(0);
    scene.survived();
    assert_eq!(scene.database.contents(), before);

    // `third` is the newest and the last one verified; what only the others have goes.
    scene.keeper.verify(&["--check", "full"]);
    scene.keeper.set("PGKEEP__CLUSTERS__MAIN__RETENTION__KEEP_LAST", "1");
    scene.down(3, "DELETE", 3, 8);
    let pruned = scene.keeper.pgkeep(["prune", "--json"]).run().expect_code(0).json();
    scene.survived();
    assert!(pruned["chunks_removed"].as_u64() >= Some(8), "{pruned:#}");
    assert_eq!(scene.listed(), [third].into(), "{pruned:#}");
    scene.all_restore();
}

#[test]
fn two_nodes_down_are_a_clear_error_and_lose_nothing() {
    let mut scene = Scene::set("two_nodes");
    let first = scene.keeper.snapshot_id();
    let before = scene.database.contents();

    // For longer than anybody wants to wait.
    scene.keeper.set("PGKEEP__REPOSITORY__RETRY_FOR", "8s");
    scene.grow("second");
    let nodes = scene.nodes.clone();
    scene.script.at("PUT", 4, move || {
        nodes.stop(2);
        nodes.stop(3);
    });
    for verb in [
        &["snapshot"][..],
        &["list"],
        &["restore", &first, "--as", "nobody"],
        &["verify"],
        &["prune"],
        &["snapshot", "--json"],
    ] {
        let start = Instant::now();
        scene.keeper.pgkeep(verb).run().expect_failure(5, &[]);
        assert!(start.elapsed() < Duration::from_secs(90), "{verb:?}: {:?}", start.elapsed());
        scene.script.is_played();
    }
    // With two of three it goes on.
    scene.nodes.start(2);
    scene.keeper.set("PGKEEP__REPOSITORY__RETRY_FOR", "2m");
    let second = scene.keeper.snapshot_id();
    scene.nodes.start(3);
    scene.nodes.await_whole();
    assert_eq!(scene.listed(), [&first, &second].map(String::clone).into());
    scene.all_restore();

    // For less than it is waited for: nobody notices.
    let nodes = scene.nodes.clone();
    scene.script.at("PUT", 4, move || {
        nodes.stop(2);
        nodes.stop(3);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(5));
            nodes.start(2);
            nodes.start(3);
        });
    });
    scene.grow("third");
    let third = scene.keeper.snapshot_id();
    scene.survived();

    // What the failed ones left is swept, and nothing else goes.
    scene.keeper.set("PGKEEP__REPOSITORY__GRACE", "0s");
    for _ in 0..2 {
        scene.keeper.pgkeep(["prune"]).run().expect_code(0);
    }
    assert_eq!(scene.listed(), [&first, &second, &third].map(String::clone).into());
    scene.all_restore();
    scene.database.drop_now();
    scene.keeper.pgkeep(["restore", &first]).run().expect_code(0);
    assert_eq!(scene.database.contents(), before);
}
