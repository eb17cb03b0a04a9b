//! Accidents on the way to a server: connections cut, servers restarted, servers that fall silent. Each is told with
//! its exit code, loses nothing, lists nothing half-made, and leaves no program and no session behind.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::s3::bulk;
use crate::support::server::programs_at;
use crate::support::wire::Piece;
use crate::support::{Cluster, Database, Fate, Keeper, Server, Wire, eventually};

const LIMIT: Duration = Duration::from_secs(20);
const MEGABYTE: u64 = 1 << 20;
/// What the tests take for silence.
const IDLE: &str = "PGKEEP__CLUSTERS__MAIN__IDLE_TIMEOUT";

/// The dump is at work: its first megabyte has passed.
fn dumping(piece: &Piece<'_>) -> bool {
    piece.who == "pgkeep/pg_dump" && piece.down > MEGABYTE
}

/// Waits until the dump is at work, and stands there.
fn gate(server: &Server) -> Wire {
    Wire::before(server, |piece| if dumping(piece) { Fate::Wait } else { Fate::Pass })
}

/// pgkeep's sessions in that database.
fn sessions(server: &Server, database: &str) -> String {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgkeep%' AND datname = '{database}'"
    );
    server.psql("postgres", &sql)
}

/// Nothing of an ended command is there any more.
#[track_caller]
fn expect_nothing_left(keeper: &Keeper, database: &Database, wire: &Wire) {
    assert_eq!(programs_at(wire.server.port), [""; 0]);
    eventually("its sessions end", LIMIT, || sessions(&database.server, &database.name) == "0");
    assert_eq!(keeper.leftovers(), [""; 0]);
}

/// Whether a run that came to nothing has said so, so that no prune waits for it.
fn is_declared_dead(keeper: &Keeper) -> bool {
    keeper.objects_under("intents").iter().any(|(key, _)| key.rsplit('.').next() == Some("dead"))
}

/// Scratch databases made of that one.
fn copies(database: &Database) -> Vec<String> {
    let all = database.server.databases_like("pgkeep_scratch_");
    all.into_iter().filter(|name| name.contains(&database.name)).collect()
}

#[test]
fn a_connection_cut_midway_through_a_dump_is_told_and_nothing_is_listed() {
    let server = Server::older();
    let database = server.database("cut");
    bulk(&database, 6);
    let wire = Wire::before(&server, |piece| if dumping(piece) { Fate::Cut } else { Fate::Pass });
    let keeper = Keeper::initialised(&wire.server.url(&database.name));
    keeper.pgkeep(["snapshot"]).run().expect_failure(4, &["pg_dump"]);
    expect_nothing_left(&keeper, &database, &wire);
    // The session that holds the tables: the dump would go on and end well, unprotected.
    let wire = gate(&server);
    let snapshot =
        keeper.pgkeep(["snapshot"]).env("PGKEEP_DATABASE_URL", wire.server.url(&database.name));
    let snapshot = snapshot.spawn();
    eventually("it dumps", LIMIT, || wire.has_reached());
    // The settings are the last that it reads; while it reads, its end is told as that of any query.
    eventually("the session only holds", LIMIT, || {
        database.psql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'pgkeep/snapshot' AND datname = current_database() \
               AND state = 'idle in transaction' AND query LIKE '%boot_val%'",
        ) == "t"
    });
    wire.open();
    snapshot.wait().expect_failure(4, &["ended before the dump"]);
    expect_nothing_left(&keeper, &database, &wire);
    assert_eq!(keeper.listed(), [""; 0]);
    keeper.pgkeep(["snapshot"]).env("PGKEEP_DATABASE_URL", database.url()).run().expect_code(0);
    keeper.verify(&["--check", "counts"]);
}

#[test]
fn a_server_restarted_midway_through_a_dump_is_told_and_the_next_snapshot_is_good() {
    let mut cluster = Cluster::newer(&[]);
    cluster.psql("postgres", "CREATE DATABASE shop");
    let database = Database { server: cluster.clone(), name: "shop".to_owned() };
    bulk(&database, 4);
    let mut keeper = Keeper::initialised(&cluster.url("shop"));
    // As `pg_ctl -m immediate` and `-m fast` do it.
    for signal in [Signal::QUIT, Signal::INT] {
        let wire = gate(&cluster);
        keeper.set("PGKEEP_DATABASE_URL", wire.server.url("shop"));
        let snapshot = keeper.pgkeep(["snapshot"]).spawn();
        eventually("it dumps", LIMIT, || wire.has_reached());
        cluster.stop(signal);
        wire.open();
        snapshot.wait().expect_failure(4, &[]);
        assert_eq!(programs_at(wire.server.port), [""; 0]);
        cluster.start();
        assert_eq!(keeper.listed(), [""; 0]);
    }
    keeper.set("PGKEEP_DATABASE_URL", cluster.url("shop"));
    keeper.snapshot();
    keeper.verify(&["--check", "counts"]);
}

#[test]
fn a_server_that_falls_silent_is_given_up_in_the_configured_time() {
    let server = Server::newer();
    let database = server.database("silent");
    bulk(&database, 4);
    // From then on nothing gets through, not even what would cancel the dump.
    let silent = AtomicBool::new(false);
    let wire = Wire::before(&server, move |piece| {
        silent.fetch_or(dumping(piece), Ordering::Relaxed);
        if silent.load(Ordering::Relaxed) { Fate::Hold } else { Fate::Pass }
    });
    let mut keeper = Keeper::initialised(&wire.server.url(&database.name));
    keeper.set(IDLE, "4s");
    let begun = Instant::now();
    let told = keeper.pgkeep(["snapshot"]).run();
    told.expect_failure(4, &["stood still for 4 s while dumping", "idle_timeout"]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    expect_nothing_left(&keeper, &database, &wire);
    assert_eq!(keeper.listed(), [""; 0]);
    assert!(is_declared_dead(&keeper));
    keeper.set("PGKEEP_DATABASE_URL", database.url());
    keeper.snapshot();
}

/// A snapshot, a ruined database, and a wire before the server it is restored to.
struct Ruin {
    database: Database,
    keeper: Keeper,
    good: String,
    ruined: String,
}

impl Ruin {
    fn new(server: &Server, name: &str) -> Self {
        let database = server.database(name);
        bulk(&database, 4);
        let keeper = Keeper::initialised(&database.url());
        keeper.snapshot();
        let good = database.contents();
        database.psql("DELETE FROM bulk WHERE n % 2 = 0");
        let ruined = database.contents();
        Self { database, keeper, good, ruined }
    }

    fn restore(&self, wire: &Wire) -> crate::support::keeper::Pgkeep {
        let to = wire.server.url(&self.database.name);
        self.keeper.pgkeep(["restore", "--replace", "--yes", "--to", &to])
    }
}

/// Tells each time when another megabyte of rows has gone into a copy.
fn loading() -> impl Fn(&Piece<'_>) -> bool + Send + Sync {
    let sent = AtomicU64::new(0);
    move |piece| {
        let bytes = piece.said.filter(|_| piece.who == "pgkeep/restore").map_or(0, <[u8]>::len);
        let is_full = sent.fetch_add(bytes as u64, Ordering::Relaxed) > MEGABYTE;
        if is_full {
            sent.store(0, Ordering::Relaxed);
        }
        is_full
    }
}

#[test]
fn a_target_cut_midway_through_a_restore_gets_a_second_copy_and_the_live_one_stays() {
    let server = Server::older();
    let ruin = Ruin::new(&server, "target");
    let loading = loading();
    let wire =
        Wire::before(&server, move |piece| if loading(piece) { Fate::Cut } else { Fate::Pass });
    ruin.restore(&wire).run().expect_failure(4, &["connection"]);
    assert_eq!(ruin.database.contents(), ruin.ruined);
    assert_eq!(copies(&ruin.database), [""; 0]);
    expect_nothing_left(&ruin.keeper, &ruin.database, &wire);

    let (loading, cut) = (self::loading(), AtomicBool::new(false));
    let wire = Wire::before(&server, move |piece| {
        let first = loading(piece) && !cut.swap(true, Ordering::Relaxed);
        if first { Fate::Cut } else { Fate::Pass }
    });
    let restored = ruin.restore(&wire).run().expect_code(0);
    assert!(restored.stderr.contains("once more"), "{}", restored.stderr);
    assert_eq!(ruin.database.contents(), ruin.good);
    assert_eq!(copies(&ruin.database), [""; 0]);
}

#[test]
fn a_target_that_falls_silent_is_given_up_and_its_copy_is_told_and_swept() {
    let server = Server::newer();
    let ruin = Ruin::new(&server, "mute");
    let (loading, silent) = (loading(), AtomicBool::new(false));
    let wire = Wire::before(&server, move |piece| {
        silent.fetch_or(loading(piece), Ordering::Relaxed);
        if silent.load(Ordering::Relaxed) { Fate::Hold } else { Fate::Pass }
    });
    let begun = Instant::now();
    let to = format!("{}?connect_timeout=8", wire.server.url(&ruin.database.name));
    let restore = ruin.keeper.pgkeep(["restore", "--replace", "--yes", "--to", &to]);
    // Longer than a busy server takes for any one step, and found out before a session that is just being
    // opened would be given up.
    let told = restore.env(IDLE, "4s").run().expect_failure(4, &["has not answered for 4 s"]);
    assert!(wire.has_reached(), "it was given up before the silence: {}", told.stderr);
    assert!(told.stderr.contains("the next restore drops it"), "{}", told.stderr);
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
    expect_nothing_left(&ruin.keeper, &ruin.database, &wire);
    assert_eq!(ruin.database.contents(), ruin.ruined);
    assert_eq!(copies(&ruin.database).len(), 1);
    let restored = ruin.keeper.pgkeep(["restore", "--replace", "--yes"]).run().expect_code(0);
    assert!(restored.stderr.contains("which a killed run left"), "{}", restored.stderr);
    assert_eq!(copies(&ruin.database), [""; 0]);
    assert_eq!(ruin.database.contents(), ruin.good);
}

/// What the server was asked to commit is asked for afterwards, and where it cannot be, that is said.
#[test]
fn a_swap_whose_commit_got_no_answer_is_told_as_what_it_came_to() {
    let server = Server::newer();
    let ruin = Ruin::new(&server, "commit");
    let commits = |piece: &Piece<'_>| piece.who == "pgkeep/scratch keeper" && piece.says("COMMIT");
    let wire =
        Wire::before(&server, move |piece| if commits(piece) { Fate::Cut } else { Fate::Pass });
    ruin.restore(&wire).run().expect_failure(4, &["connection"]);
    assert_eq!(ruin.database.contents(), ruin.ruined, "it was not asked to");
    assert_eq!(copies(&ruin.database), [""; 0]);

    let wire = Wire::before(
        &server,
        move |piece| if commits(piece) { Fate::PassAndCut } else { Fate::Pass },
    );
    ruin.restore(&wire).run().expect_code(0);
    assert_eq!(ruin.database.contents(), ruin.good);

    ruin.database.psql("DELETE FROM bulk WHERE n % 2 = 0");
    let gone = AtomicBool::new(false);
    let wire = Wire::before(&server, move |piece| {
        if commits(piece) {
            gone.store(true, Ordering::Relaxed);
            return Fate::PassAndCut;
        }
        if gone.load(Ordering::Relaxed) { Fate::Cut } else { Fate::Pass }
    });
    let told = ruin.restore(&wire).env(IDLE, "4s").run().expect_failure(4, &["is not known"]);
    assert!(told.stderr.contains(&format!("{}_before_", ruin.database.name)), "{}", told.stderr);
    assert_eq!(ruin.database.contents(), ruin.good);
}

#[test]
fn a_signal_midway_ends_a_snapshot_and_a_second_one_ends_it_at_once() {
    let server = Server::older();
    let database = server.database("signalled");
    bulk(&database, 4);
    let wire = gate(&server);
    let mut keeper = Keeper::initialised(&wire.server.url(&database.name));
    let snapshot = keeper.pgkeep(["snapshot"]).spawn();
    eventually("it dumps", LIMIT, || wire.has_reached());
    snapshot.signal(Signal::TERM);
    let told = snapshot.wait().expect_failure(130, &["interrupted"]);
    assert_eq!(told.stderr.lines().count(), 2, "{}", told.stderr);
    expect_nothing_left(&keeper, &database, &wire);
    assert_eq!(keeper.listed(), [""; 0]);
    assert!(is_declared_dead(&keeper));

    // Nothing gets through any more, so the dump's own end would take its time.
    let silent = AtomicBool::new(false);
    let wire = Wire::before(&server, move |piece| {
        silent.fetch_or(dumping(piece), Ordering::Relaxed);
        if silent.load(Ordering::Relaxed) { Fate::Hold } else { Fate::Pass }
    });
    keeper.set("PGKEEP_DATABASE_URL", wire.server.url(&database.name));
    let snapshot = keeper.pgkeep(["snapshot"]).spawn();
    eventually("it dumps", LIMIT, || wire.has_reached());
    snapshot.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    snapshot.signal(Signal::INT);
    snapshot.wait().expect_code(130);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    eventually("pg_dump ends", LIMIT, || programs_at(wire.server.port).is_empty());
    expect_nothing_left(&keeper, &database, &wire);
    assert_eq!(keeper.listed(), [""; 0]);
}

#[test]
fn a_signal_before_the_swap_changes_nothing_and_at_the_swap_lets_it_be_done() {
    let server = Server::newer();
    let ruin = Ruin::new(&server, "stopped");
    let loading = loading();
    let wire =
        Wire::before(&server, move |piece| if loading(piece) { Fate::Wait } else { Fate::Pass });
    let restore = ruin.restore(&wire).spawn();
    eventually("it loads", LIMIT, || wire.has_reached());
    restore.signal(Signal::TERM);
    restore.wait().expect_failure(130, &["interrupted"]);
    assert_eq!(ruin.database.contents(), ruin.ruined);
    assert_eq!(copies(&ruin.database), [""; 0]);
    expect_nothing_left(&ruin.keeper, &ruin.database, &wire);

    let wire = Wire::before(&server, |piece| {
        let commits = piece.who == "pgkeep/scratch keeper" && piece.says("COMMIT");
        if commits { Fate::Wait } else { Fate::Pass }
    });
    let restore = ruin.restore(&wire).spawn();
    eventually("it commits", LIMIT, || wire.has_reached());
    restore.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(200));
    wire.open();
    // What was done is told as done.
    restore.wait().expect_code(0);
    assert_eq!(ruin.database.contents(), ruin.good);
    assert_eq!(copies(&ruin.database), [""; 0]);
}

#[test]
fn a_second_signal_to_a_verification_leaves_what_the_next_one_removes() {
    let database = Server::older().database("twice");
    bulk(&database, 6);
    let keeper = Keeper::initialised(&database.url());
    keeper.snapshot();
    let verify = keeper.pgkeep(["verify"]).spawn();
    eventually("scratch is there", LIMIT, || !keeper.leftovers().is_empty());
    verify.signal(Signal::TERM);
    verify.signal(Signal::TERM);
    verify.wait().expect_code(130);
    keeper.verify(&["--check", "counts"]);
    assert_eq!(keeper.leftovers(), [""; 0]);
}

#[test]
fn the_end_of_a_parent_ends_no_snapshot_and_a_killed_one_leaves_no_dump() {
    let cluster = Cluster::older(&[]);
    cluster.psql("postgres", "CREATE DATABASE shop");
    let database = Database { server: cluster.clone(), name: "shop".to_owned() };
    bulk(&database, 4);
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgkeep%'";
    let none = || cluster.psql("postgres", ours) == "0";

    let wire = gate(&cluster);
    let mut keeper = Keeper::initialised(&wire.server.url("shop"));
    let program = env!("CARGO_BIN_EXE_pgkeep");
    let shell = keeper.shell(&format!("'{program}' snapshot; true")).spawn();
    eventually("it dumps", LIMIT, || wire.has_reached());
    shell.signal(Signal::KILL);
    wire.open();
    // Whoever reads its output does so to its end.
    shell.wait().expect_code(137);
    eventually("its sessions end", LIMIT, none);
    assert_eq!(keeper.listed().len(), 1);

    let wire = gate(&cluster);
    keeper.set("PGKEEP_DATABASE_URL", wire.server.url("shop"));
    let snapshot = keeper.pgkeep(["snapshot"]).spawn();
    eventually("it dumps", LIMIT, || wire.has_reached());
    snapshot.signal(Signal::KILL);
    wire.open();
    snapshot.wait().expect_code(137);
    eventually("pg_dump ends", LIMIT, || programs_at(wire.server.port).is_empty());
    eventually("its sessions end", LIMIT, none);
    assert_eq!(keeper.listed().len(), 1);
    keeper.set("PGKEEP_DATABASE_URL", cluster.url("shop"));
    keeper.snapshot();
    keeper.verify(&["--check", "counts"]);
}

#[test]
fn an_interruption_between_two_databases_is_told_and_not_taken_for_their_end() {
    let server = Server::newer();
    let (one, two) = (server.database("first"), server.database("second"));
    let keeper = Keeper::initialised(&one.url());
    let hook = "kill -TERM $PPID; sleep 0.3";
    let configuration = keeper.home().join("pgkeep.toml");
    let mut text = std::fs::read_to_string(&configuration).expect("init wrote it");
    writeln!(text, "\n[clusters.main.hooks]\nafter = [\"/bin/sh\", \"-c\", \"{hook}\"]")
        .expect("a string takes it");
    std::fs::write(&configuration, text).expect("a file");
    let snapshot = keeper.pgkeep(["snapshot", &one.name, &two.name]).run();
    snapshot.expect_failure(130, &["interrupted"]);
    assert_eq!(keeper.listed().len(), 1);
}
