//! The daemon: no run is lost and none doubled, whatever happens to it, to the clock, or beside it.

mod company;
mod outages;
mod reach;
mod service;
mod turns;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;

use crate::support::keeper::{Pgkeep, Running};
use crate::support::{Clock, Database, Keeper, Server, eventually};

/// Servers are slow while others use them.
const PATIENCE: Duration = Duration::from_secs(90);
const TERM: Signal = Signal::TERM;
/// More than a job waits before it is tried again, after it failed once or somebody else was at it.
const A_MINUTE: Duration = Duration::from_secs(61);

/// A host with a configuration of its own: these databases, and what else is said of the cluster.
struct Host {
    keeper: Keeper,
    server: String,
}

impl Host {
    fn new(server: &Server, databases: &[&Database], cluster: &str) -> Self {
        let url = databases[0].url();
        let mut keeper = Keeper::initialised(&url);
        keeper.unset("PGKEEP_REPOSITORY");
        Self::of(keeper, server, databases, cluster)
    }

    /// With that keeper, whose repository is there.
    fn of(mut keeper: Keeper, server: &Server, databases: &[&Database], cluster: &str) -> Self {
        keeper
            // The file alone says where all is, so that it can be changed under a daemon.
            .unset("PGKEEP_DATABASE_URL")
            .set("PGKEEP__DAEMON__LISTEN", "127.0.0.1:0")
            .set("PGKEEP_LOG", "pgkeep=debug");
        let host = Self { keeper, server: server.url("postgres") };
        let names: Vec<String> = databases.iter().map(|one| format!("{:?}", one.name)).collect();
        host.configure(&format!("databases = [{}]\n{cluster}", names.join(", ")));
        host
    }

    /// Replaces what is said of the cluster.
    fn configure(&self, cluster: &str) {
        self.write(&format!("[clusters.main]\nurl = \"{}\"\n{cluster}", self.server));
    }

    /// Replaces all from the clusters on.
    fn write(&self, clusters: &str) {
        self.edit(|text| {
            let head = text.split("[clusters.").next().expect("a head");
            format!("{}\n{clusters}\n", head.trim_end_matches(['#', ' ']))
        });
    }

    fn edit(&self, change: impl FnOnce(&str) -> String) {
        let path = self.keeper.home().join("pgkeep.toml");
        let text = std::fs::read_to_string(&path).expect("init wrote it");
        std::fs::write(&path, change(&text)).expect("a configuration");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).expect("a mode");
    }

    fn daemon(&self) -> Pgkeep {
        self.keeper.pgkeep(["daemon"])
    }

    #[track_caller]
    fn start(&self) -> Running {
        up(self.daemon().spawn())
    }

    /// Starts it by that clock.
    #[track_caller]
    fn start_by(&self, clock: &Clock) -> Running {
        up(clock.pgkeep(&self.keeper, "daemon").spawn())
    }

    /// How many backups each database has.
    fn taken(&self) -> BTreeMap<String, usize> {
        let mut taken = BTreeMap::new();
        for one in self.keeper.list() {
            let database = one["database"].as_str().expect("a name").to_owned();
            *taken.entry(database).or_default() += 1;
        }
        taken
    }
}

#[track_caller]
fn up(running: Running) -> Running {
    eventually("the daemon is up", PATIENCE, || running.stdout().contains("listening on"));
    running
}

/// Where its page is.
#[track_caller]
fn page(running: &Running) -> String {
    let said = running.stdout();
    said.split_whitespace().find(|word| word.starts_with("http://")).expect("a URL").to_owned()
}

#[track_caller]
fn told(running: &Running, words: &str, times: usize) {
    let begun = Instant::now();
    while running.stderr().matches(words).count() < times {
        let said = || running.stderr();
        assert!(begun.elapsed() < PATIENCE, "`{words}` not within {PATIENCE:?}: {}", said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends it as a service manager does; nothing is left.
#[track_caller]
fn stop(host: &Host, running: Running) -> String {
    running.signal(TERM);
    let ended = running.wait().expect_code(0);
    assert_eq!(host.keeper.leftovers(), [""; 0]);
    ended.stderr
}

/// A snapshot a day, the next one in so many minutes.
fn daily_in(minutes: i64) -> String {
    let then = Timestamp::now() + SignedDuration::from_mins(minutes);
    let then = then.to_zoned(TimeZone::UTC);
    format!("snapshot.schedule = \"{} {} * * *\"", then.minute(), then.hour())
}

const NIGHTLY: &str = "snapshot = { schedule = \"0 2 * * *\" }";

#[test]
fn what_was_missed_is_caught_up_once_however_often_the_daemon_is_killed() {
    let server = Server::older();
    let (one, two) = (server.database("daemon one"), server.database("daemon_two"));
    one.shop(300);
    two.shop(50);
    let host = Host::new(&server, &[&one, &two], NIGHTLY);
    // Nothing was ever taken: the run of last night was missed.
    let running = host.start();
    told(&running, " done", 2);
    assert!(!running.stderr().contains("no backup yet"), "they are on their way");
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code, 137);
    let all = || [&one.name, &two.name].map(|name| (name.clone(), 1)).into();
    assert_eq!(host.taken(), all());
    // Again and again: what the catalog has is not taken again.
    for _ in 0..2 {
        let running = host.start();
        told(&running, "looked at the catalog", 1);
        let log = stop(&host, running);
        assert!(!log.contains("begins"), "{log}");
    }
    assert_eq!(host.taken(), all());
    let scheduled = host.keeper.list().iter().all(|item| item["trigger"] == "scheduled");
    assert!(scheduled);
    host.keeper.verify(&["--all"]);
}

#[test]
fn a_daemon_killed_within_a_run_takes_it_when_it_is_back() {
    let server = Server::newer();
    let database = server.database("daemon_killed");
    database.shop(200);
    let host = Host::new(&server, &[&database], NIGHTLY);
    for step in ["snapshot.intent-put", "snapshot.chunks-put", "snapshot.signature-put"] {
        host.daemon().env("PGKEEP_FAILPOINT", step).run().expect_code(137);
        assert_eq!(host.keeper.listed(), [""; 0], "{step}");
    }
    let running = host.start();
    told(&running, "looked at the catalog", 1);
    eventually("the run is taken", PATIENCE, || !host.keeper.list().is_empty());
    stop(&host, running);
    assert_eq!(host.taken()[&database.name], 1);
    host.keeper.verify(&[]);
}

#[test]
fn two_daemons_on_one_configuration_share_the_work_and_double_nothing() {
    let server = Server::newer();
    let names = ["shared_a", "shared_b", "shared_c", "shared_d"];
    let databases: Vec<Database> = names
        .iter()
        .map(|name| {
            let database = server.database(name);
            database.shop(50);
            database
        })
        .collect();
    let host = Host::new(&server, &databases.iter().collect::<Vec<_>>(), NIGHTLY);
    let both = [host.daemon().spawn(), host.daemon().spawn()].map(up);
    eventually("all are taken", PATIENCE, || host.keeper.list().len() >= databases.len());
    for running in &both {
        told(running, "looked at the catalog", 2);
    }
    // Longer than the one who came second waits before he looks again would take minutes: a third one asks at once.
    let third = host.start();
    told(&third, "looked at the catalog", 1);
    stop(&host, third);
    for running in both {
        stop(&host, running);
    }
    assert!(host.taken().values().all(|count| *count == 1), "{:?}", host.taken());
    assert_eq!(host.taken().len(), databases.len());
}

#[test]
fn one_database_that_fails_stops_no_other_and_is_tried_again() {
    let server = Server::older();
    let (good, gone) = (server.database("daemon_good"), server.database("daemon_gone"));
    good.shop(50);
    let host = Host::new(&server, &[&gone, &good], NIGHTLY);
    let name = gone.name.clone();
    drop(gone);
    let clock = Clock::of(&host.keeper);
    let running = host.start_by(&clock);
    eventually("the good one is taken", PATIENCE, || host.taken().contains_key(&good.name));
    told(&running, &format!("snapshot main/{name} failed"), 1);
    // A minute later once more.
    clock.pass(A_MINUTE);
    told(&running, &format!("snapshot main/{name} failed"), 2);
    let log = stop(&host, running);
    assert!(log.contains("exit_code=4"), "{log}");
}

#[test]
fn a_bad_configuration_is_refused_and_the_old_one_goes_on() {
    let server = Server::older();
    let (one, two) = (server.database("reload_one"), server.database("reload_two"));
    one.shop(50);
    two.shop(50);
    let host = Host::new(&server, &[&one], NIGHTLY);
    let running = host.start();
    eventually("the first is taken", PATIENCE, || host.taken().contains_key(&one.name));
    host.configure("snapshot = { schedule = \"0 25 * * *\" }");
    running.signal(Signal::HUP);
    told(&running, "the old configuration stays in force", 1);
    assert!(!running.stderr().contains("the configuration is in force"));
    let names = format!("databases = [{:?}, {:?}]", one.name, two.name);
    host.configure(&format!("{names}\n{NIGHTLY}"));
    running.signal(Signal::HUP);
    told(&running, "the configuration is in force", 1);
    eventually("the second is taken", PATIENCE, || host.taken().contains_key(&two.name));
    // What counts at the start only is told as such.
    host.configure(&format!("{names}\n{NIGHTLY}\n[daemon]\nallow_remote = true"));
    running.signal(Signal::HUP);
    told(&running, "daemon.allow_remote is read at the start only", 1);
    told(&running, "the configuration is in force", 2);
    assert!(!running.stderr().contains("daemon.listen is read"), "nobody changed that one");
    stop(&host, running);
    assert!(host.taken().values().all(|count| *count == 1));
    // Other clusters would be backed up and not watched.
    let other = "PGKEEP__CLUSTERS__ERP__URL";
    let selected = host.daemon().env("PGKEEP_CLUSTER", "main").env(other, "postgres://nobody@h/d");
    selected.run().expect_failure(2, &["PGKEEP_CLUSTER", "`erp`"]);
    // At the start it is refused like by any other command.
    host.configure("snapshot = { schedule = \"0 25 * * *\" }");
    host.daemon().run().expect_failure(2, &["clusters.main.snapshot.schedule", "0 25 * * *"]);
}

#[test]
fn the_first_signal_lets_a_run_end_and_the_second_leaves_nothing_half_made() {
    let server = Server::newer();
    let database = server.database("daemon_drained");
    database.shop(200);
    let host = Host::new(&server, &[&database], NIGHTLY);
    let slow = |seconds: u32| format!("sleep {seconds}; exec $REAL \"$@\"");
    let programs = host.keeper.programs_with_pg_dump(&server, &slow(4));
    // The second: nothing is listed, nothing runs on.
    let running = up(host.daemon().env("PGKEEP_BIN_DIR", &programs).spawn());
    told(&running, "dumping", 1);
    running.signal(TERM);
    told(&running, "going down", 1);
    running.signal(TERM);
    running.wait().expect_code(0);
    assert_eq!(host.keeper.listed(), [""; 0]);
    assert_eq!(host.keeper.leftovers(), [""; 0]);
    // The first alone: it is waited for.
    let running = up(host.daemon().env("PGKEEP_BIN_DIR", &programs).spawn());
    told(&running, "dumping", 1);
    stop(&host, running);
    assert_eq!(host.taken()[&database.name], 1);
}

#[test]
fn a_schedule_is_kept_by_the_clock_of_its_zone() {
    let server = Server::older();
    let database = server.database("daemon_clock");
    database.shop(50);
    let nightly = "snapshot = { schedule = \"0 2 * * *\", timezone = \"Asia/Kathmandu\" }";
    let host = Host::new(&server, &[&database], nightly);
    let program = env!("CARGO_BIN_EXE_pgkeep");
    // faketime itself stays as the parent, and a signal to it would not arrive.
    let at = |time: &str, words: &str| {
        host.keeper.shell(&format!(
            "LD_PRELOAD=$(faketime -f +0d printenv LD_PRELOAD)
             export LD_PRELOAD FAKETIME='@{time}' FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1
             exec '{program}' {words}"
        ))
    };
    at("2026-11-20 20:14:00", "snapshot").run().expect_code(0);
    // Two o'clock in Kathmandu is 20:15 in UTC.
    let running = up(at("2026-11-20 20:14:40", "daemon").spawn());
    told(&running, "looked at the catalog", 1);
    assert!(!running.stderr().contains("begins"), "{}", running.stderr());
    eventually("its time comes", PATIENCE, || host.taken()[&database.name] == 2);
    stop(&host, running);
    let newest = host.keeper.list()[0]["started_at"].as_str().expect("a time").to_owned();
    assert!(newest.starts_with("2026-11-20T20:15"), "{newest}");
    // A day later, and a day back: the one is a night that was missed, the other is nothing new.
    for (time, count) in [("2026-11-21 20:20:00", 3), ("2026-11-20 20:30:00", 3)] {
        let running = up(at(time, "daemon").spawn());
        told(&running, "looked at the catalog", 1);
        eventually("the night is caught up", PATIENCE, || host.taken()[&database.name] == count);
        stop(&host, running);
        assert_eq!(host.taken()[&database.name], count, "{time}");
    }
}

#[test]
fn what_is_taken_is_verified_and_pruned_on_schedule() {
    let server = Server::newer();
    let database = server.database("daemon_whole");
    database.shop(100);
    let all = "snapshot.schedule = \"@daily\"\nverify = { schedule = \"@daily\", check = \"counts\" }\n\
               prune.schedule = \"@daily\"\nretention.keep_last = 1";
    let host = Host::new(&server, &[&database], all);
    for _ in 0..2 {
        // Of days that are long gone, so retention takes the older one.
        let program = env!("CARGO_BIN_EXE_pgkeep");
        let old = format!("exec faketime --exclude-monotonic -f '-3d' '{program}' snapshot");
        host.keeper.shell(&old).run().expect_code(0);
    }
    let running = host.start();
    told(&running, &format!("verify main/{} done", database.name), 1);
    told(&running, "prune main done", 1);
    told(&running, &format!("snapshot main/{} done", database.name), 1);
    stop(&host, running);
    // What was condemned while the snapshot was at work waited for it.
    host.keeper.pgkeep(["prune"]).run().expect_code(0);
    let list = host.keeper.list();
    // Verified is what was just taken, and not the one before it.
    assert_eq!(list[0]["verification"], "passed", "{list:?}");
    assert_eq!(list[0]["trigger"], "scheduled", "{list:?}");
    let plan = host.keeper.pgkeep(["prune", "--dry-run"]).run().stdout;
    assert!(list.len() < 3, "{plan}");
}
