//! Retention and prune: what is kept restores, what is gone is gone whole, and no accident takes a good backup.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::keeper::{Output, Pgkeep};
use crate::support::s3_proxy::{Fault, Proxy};
use crate::support::s3_server::{S3Place, S3Server};
use crate::support::{Database, Keeper, Server, eventually};

const KEEP: &str = "PGKEEP__CLUSTERS__MAIN__RETENTION__KEEP_";
const GRACE: &str = "PGKEEP__REPOSITORY__GRACE";

/// The command on a host whose clock stands that far from the true time.
fn at(keeper: &Keeper, shift: &str, words: &str) -> Pgkeep {
    let program = env!("CARGO_BIN_EXE_pgkeep");
    keeper.shell(&format!("exec faketime --exclude-monotonic -f '{shift}' '{program}' {words}"))
}

fn id(document: &Value) -> String {
    document["id"].as_str().expect("an id").to_owned()
}

/// A snapshot that holds a row of its own, taken at that time.
#[track_caller]
fn taken(keeper: &Keeper, database: &Database, shift: &str) -> String {
    database.psql("INSERT INTO customers (name, email) VALUES ('x', gen_random_uuid()::text)");
    id(&at(keeper, shift, "snapshot --json").run().expect_code(0).json())
}

#[track_caller]
fn prune(keeper: &Keeper, args: &[&str]) -> Value {
    keeper.pgkeep(["prune", "--json"]).args(args).run().expect_code(0).json()
}

fn removed(document: &Value) -> BTreeSet<String> {
    let backups = document["backups"].as_array().expect("an array").iter();
    backups.filter(|one| one["verdict"] == "removed").map(id).collect()
}

fn reasons(document: &Value, wanted: &str) -> String {
    let backups = document["backups"].as_array().expect("an array");
    let one = backups.iter().find(|one| one["id"] == wanted).expect("every backup has a verdict");
    one["reasons"].to_string()
}

fn keys(keeper: &Keeper) -> Vec<String> {
    keeper.objects_but_events().into_iter().map(|(key, _)| key).collect()
}

/// Every chunk that is there is needed by a backup that is, and every one that is needed is there.
#[track_caller]
pub(crate) fn exact(keeper: &Keeper) {
    let mut needed = BTreeSet::new();
    for (key, path) in keeper.objects_under("clusters/") {
        if key.ends_with(".chunks") {
            let text = std::fs::read_to_string(path).expect("a text");
            needed.extend(
                text.lines().map(|line| line.split(' ').next().expect("a name").to_owned()),
            );
        }
    }
    let there = keeper.objects_under("chunks/").into_iter();
    let there = there.map(|(key, _)| key.rsplit('/').next().expect("a name").to_owned());
    assert_eq!(there.collect::<BTreeSet<_>>(), needed);
    assert_eq!(keeper.objects_under("condemned/"), []);
}

#[test]
fn what_retention_keeps_restores_and_the_rest_is_gone_whole() {
    let database = Server::older().database("retained");
    let mut keeper = Keeper::initialised(&database.shop(400).url());
    let mut before = Vec::new();
    for days in [400, 70, 69, 3, 2, 1] {
        let id = taken(&keeper, &database, &format!("-{days}d"));
        before.push((id, database.contents()));
    }
    // Nothing configured: the shipped policy, which keeps all of these.
    assert_eq!(removed(&prune(&keeper, &["--dry-run"])).len(), 0);
    keeper.set(&format!("{KEEP}LAST"), "1").set(&format!("{KEEP}MONTHLY"), "2");
    let objects = keys(&keeper);
    let plan = prune(&keeper, &["--dry-run"]);
    assert_eq!(keys(&keeper), objects, "a dry run changes nothing");
    assert_eq!(
        (plan["dry_run"].as_bool(), plan["backups_removed"].as_u64()),
        (Some(true), Some(0))
    );
    let goes = removed(&plan);
    assert!(goes.len() >= 3 && goes.contains(&before[0].0), "{plan:#}");
    assert!(reasons(&plan, &before[5].0).contains("last 1"), "{plan:#}");

    let deed = prune(&keeper, &[]);
    for key in ["backups", "backups_condemned", "chunks_condemned", "condemned_bytes", "policies"] {
        assert_eq!(deed[key], plan[key], "{key}");
    }
    assert_eq!(deed["backups_removed"], goes.len());
    assert_eq!(deed["chunks_removed"], plan["chunks_condemned"]);
    assert_eq!(deed["freed_bytes"], plan["condemned_bytes"]);
    let left: BTreeSet<String> = keeper.listed().into_iter().collect();
    let stay: Vec<_> = before.iter().filter(|(id, _)| !goes.contains(id)).collect();
    assert_eq!(left, stay.iter().map(|(id, _)| id.clone()).collect());
    exact(&keeper);
    // Nothing is left of those that are gone but the signed record of it.
    for key in keys(&keeper) {
        assert!(!goes.iter().any(|id| key.contains(id.as_str())), "{key}");
    }
    let events = keeper.objects_under("clusters/main/events/").into_iter();
    let mut events = events.map(|(_, path)| std::fs::read_to_string(path).expect("a text"));
    let event = events.find(|event| event.contains("\"backups\"")).expect("what it removed");
    assert!(goes.iter().all(|id| event.contains(id.as_str())), "{event}");

    keeper.verify(&["--all", "--check", "full"]);
    for (at, (id, contents)) in stay.into_iter().enumerate() {
        let copy = format!("{}_{at}", database.name);
        keeper.pgkeep(["restore", id, "--as", &copy]).run().expect_code(0);
        assert_eq!(database.server.contents(&copy), *contents, "{id}");
    }
    let again = prune(&keeper, &[]);
    assert_eq!(
        (again["backups_removed"].as_u64(), again["chunks_removed"].as_u64()),
        (Some(0), Some(0))
    );
    // And the next snapshot shares with what is left.
    assert!(keeper.snapshot()["chunks_new"].as_u64() <= Some(2));
    let quiet = keeper.pgkeep(["prune", "--quiet"]).run().expect_code(0);
    assert_eq!((&*quiet.stdout, &*quiet.stderr), ("", ""), "cron mails nothing");
    let text = keeper.pgkeep(["prune"]).run().expect_code(0).stdout;
    assert!(
        text.starts_with("policy of main: last 1, monthly 2, pre-migration 30d, in UTC\n"),
        "{text}"
    );
    assert!(text.ends_with("removed 0 backups and 0 chunks, 0 B freed\n"), "{text}");
}

#[test]
fn what_somebody_may_want_back_is_kept_whatever_the_policy_says() {
    let database = Server::older().database("wanted");
    let mut keeper = Keeper::initialised(&database.shop(3000).url());
    keeper.set(&format!("{KEEP}LAST"), "1");
    let pinned = taken(&keeper, &database, "-50d");
    keeper.pgkeep(["pin", &pinned]).run().expect_code(0);
    let expired = taken(&keeper, &database, "-49d");
    let migration = id(&at(&keeper, "-9d", "snapshot --trigger pre-migration --json").run().json());
    let old_migration =
        id(&at(&keeper, "-45d", "snapshot --trigger pre-migration --json").run().json());
    let verified = taken(&keeper, &database, "-8d");
    keeper.verify(&[&verified]);
    let good = taken(&keeper, &database, "-7d");
    database.psql("DELETE FROM orders");
    let suspects: Vec<String> =
        ["-6d", "-5d", "-4d"].iter().map(|shift| taken(&keeper, &database, shift)).collect();
    let other = Server::newer();
    other.psql("postgres", &format!("CREATE DATABASE {}", database.name));
    let other = Database { server: other, name: database.name.clone() };
    other.shop(20);
    let foreign = at(&keeper, "-3d", "snapshot --json").env("PGKEEP_DATABASE_URL", other.url());
    let foreign = foreign.run().expect_code(0).json();
    assert_eq!(foreign["foreign"], true);
    let newest = taken(&keeper, &database, "-1d");

    let plan = prune(&keeper, &["--dry-run"]);
    let expected: BTreeSet<String> =
        [&expired, &old_migration, &suspects[1], &suspects[2]].into_iter().cloned().collect();
    assert_eq!(removed(&plan), expected, "{plan:#}");
    for (id, reason) in [
        (&pinned, "pinned"),
        (&migration, "pre-migration"),
        (&verified, "last verified"),
        (&good, "last good"),
        (&good, "was compared with it"),
        (&suspects[0], "suspect against"),
        (&id(&foreign), "foreign, not adopted"),
        (&newest, "newest"),
    ] {
        assert!(reasons(&plan, id).contains(reason), "{reason}: {plan:#}");
    }
    assert_eq!(removed(&prune(&keeper, &[])), expected);
    exact(&keeper);
    keeper.verify(&["--all", "--check", "counts"]);
    // Once somebody has said that those rows are right, nothing holds the others; the newest is verified now.
    keeper.pgkeep(["adopt", &newest]).run().expect_code(0);
    let after = prune(&keeper, &[]);
    let free: BTreeSet<String> = [&verified, &good, &suspects[0]].into_iter().cloned().collect();
    assert_eq!(removed(&after), free, "{after:#}");
    keeper.verify(&[&newest, &pinned]);
}

#[test]
fn leftovers_of_killed_snapshots_are_swept_and_two_prunes_of_cron_tell_who_died() {
    let database = Server::older().database("swept");
    let mut keeper = Keeper::initialised(&database.shop(500).url());
    let good = keeper.snapshot_id();
    for name in ["intent-put", "chunks-put", "chunks-seen", "list-put", "signature-put"] {
        database.psql("INSERT INTO customers (name, email) VALUES ('x', gen_random_uuid()::text)");
        let name = format!("snapshot.{name}");
        let killed = keeper.pgkeep(["snapshot", "--pin"]).env("PGKEEP_FAILPOINT", name).run();
        assert_eq!(killed.code, 137);
    }
    let whole = keeper.pgkeep(["snapshot", "--pin"]);
    let whole = whole.env("PGKEEP_FAILPOINT", "snapshot.manifest-put").run();
    assert_eq!(whole.code, 137);
    let whole = keeper.listed().into_iter().find(|id| *id != good).expect("it counts");
    // A first prune has never seen them; a second within the grace waits too.
    for _ in 0..2 {
        let early = prune(&keeper, &[]);
        assert_eq!(early["settled"].as_array().map(Vec::len), Some(0), "{early:#}");
        assert_eq!(early["writers"].as_array().map(Vec::len), Some(6), "{early:#}");
    }
    keeper.set(GRACE, "1s");
    eventually("the grace is over", Duration::from_secs(20), || {
        prune(&keeper, &[])["settled"].as_array().is_some_and(|settled| settled.len() == 6)
    });
    exact(&keeper);
    let left = keys(&keeper);
    let of = |words: &[&str]| {
        left.iter().filter(|key| words.iter().all(|word| key.contains(word))).count()
    };
    assert_eq!((of(&["intents/", ".broken"]), of(&["intents/", ".dead"])), (5, 5), "{left:#?}");
    assert_eq!((of(&["intents/"]), of(&["intents/", ".done"])), (12, 2), "{left:#?}");
    assert_eq!((of(&["/pin-"]), of(&["/snapshots/"])), (1, 6), "{left:#?}");
    keeper.verify(&["--all", "--check", "counts"]);
    let listed = keeper.listed();
    assert!(listed.len() == 2 && listed.contains(&good) && listed.contains(&whole));
}

/// A snapshot that is held while it dumps, until `go` is there.
fn held(keeper: &Keeper, server: &Server) -> (crate::support::keeper::Running, std::path::PathBuf) {
    let go = keeper.work().join("go");
    let reached = keeper.work().join("reached");
    let body = format!(
        "touch {}; while [ ! -e {} ]; do sleep 0.1; done; exec \"$REAL\" \"$@\"",
        reached.display(),
        go.display()
    );
    let programs = keeper.programs_with_pg_dump(server, &body);
    let running = keeper.pgkeep(["snapshot", "--json"]).env("PGKEEP_BIN_DIR", programs).spawn();
    eventually("it dumps", Duration::from_secs(30), || reached.exists());
    (running, go)
}

#[test]
fn a_prune_beside_a_snapshot_waits_for_it_and_a_pin_meanwhile_is_heard() {
    let server = Server::older();
    let database = server.database("beside");
    let mut keeper = Keeper::initialised(&database.shop(500).url());
    keeper.set(&format!("{KEEP}LAST"), "1");
    let old = taken(&keeper, &database, "-3d");
    let older = taken(&keeper, &database, "-4d");
    let newest = taken(&keeper, &database, "-1d");
    let (running, go) = held(&keeper, &server);
    let waits = prune(&keeper, &[]);
    assert_eq!(removed(&waits).len(), 2, "{waits:#}");
    assert_eq!(waits["backups_removed"], 0);
    assert_eq!(waits["waiting"][0]["waits_for"].as_array().map(Vec::len), Some(1), "{waits:#}");
    assert_eq!(keeper.listed().len(), 3);
    // A second one adds no list of the same.
    let again = prune(&keeper, &[]);
    assert_eq!(again["waiting"].as_array().map(Vec::len), Some(1), "{again:#}");
    assert!(reasons(&again, &old).contains("condemned by"), "{again:#}");
    keeper.pgkeep(["pin", &old]).run().expect_failure(6, &["is condemned"]);
    std::fs::write(go, "").expect("written");
    let after = id(&running.wait().expect_code(0).json());
    let done = prune(&keeper, &[]);
    assert_eq!(done["backups_removed"], 2, "the one that was newest, and the oldest: {done:#}");
    let left: BTreeSet<String> = keeper.listed().into_iter().collect();
    assert_eq!(
        left,
        [&old, &after].into_iter().cloned().collect(),
        "{older} and {newest} are gone"
    );
    keeper.verify(&["--all", "--check", "counts"]);
    // Unpinned, it goes with its list.
    keeper.pgkeep(["unpin", &old]).run().expect_code(0);
    prune(&keeper, &[]);
    assert_eq!(keeper.listed(), [after]);
    exact(&keeper);
}

#[test]
fn prunes_and_snapshots_at_once_lose_nothing() {
    let database = Server::newer().database("crowd");
    let mut keeper = Keeper::initialised(&database.shop(300).url());
    keeper.set(&format!("{KEEP}LAST"), "2");
    for shift in ["-5d", "-4d", "-3d", "-2d"] {
        taken(&keeper, &database, shift);
    }
    for _ in 0..3 {
        taken(&keeper, &database, "-1h");
        let prunes: Vec<_> = (0..3).map(|_| keeper.pgkeep(["prune", "--json"]).spawn()).collect();
        let snapshot = keeper.pgkeep(["snapshot", "--json"]).spawn();
        let made = id(&snapshot.wait().expect_code(0).json());
        for prune in prunes {
            prune.wait().expect_code(0);
        }
        assert!(keeper.listed().contains(&made));
        keeper.verify(&["--all", "--check", "counts"]);
    }
    prune(&keeper, &[]);
    assert_eq!(keeper.listed().len(), 2);
    exact(&keeper);
}

#[test]
fn what_cannot_be_read_or_is_not_known_stops_a_prune_before_it_removes_anything() {
    let database = Server::older().database("stopped");
    let mut keeper = Keeper::initialised(&database.shop(200).url());
    keeper.set(&format!("{KEEP}LAST"), "1");
    let old = taken(&keeper, &database, "-9d");
    let kept = taken(&keeper, &database, "-1d");
    let snapshots = keeper.repository().join("clusters/main/snapshots");
    let refused = |keeper: &Keeper, code: i32, word: &str| {
        let before = keys(keeper);
        keeper.pgkeep(["prune"]).run().expect_failure(code, &[word]);
        assert_eq!(keys(keeper), before, "{word}");
    };
    let spoiled = |name: String, code: i32| {
        let path = snapshots.join(&name);
        let whole = std::fs::read(&path).expect("an object");
        std::fs::write(&path, &whole[..whole.len() - 9]).expect("written");
        refused(&keeper, code, &name);
        std::fs::write(&path, whole).expect("written");
    };
    spoiled(format!("{kept}.json"), 7);
    spoiled(format!("{old}.json"), 7);
    spoiled(format!("{kept}.chunks"), 3);
    let stray = |name: &str, code: i32, word: &str| {
        let path = keeper.repository().join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::fs::write(&path, "{}").expect("written");
        refused(&keeper, code, word);
        std::fs::remove_file(path).expect("removed");
    };
    stray("clusters/main/base-backups/x.json", 2, "not known to this pgkeep");
    stray("clusters/main/marks/x/guard-1", 2, "not known to this pgkeep");
    stray("condemned/20261121T020000Z-5f3a9c21", 3, "damaged");
    let key = keeper.home().join("writer.key");
    std::fs::rename(&key, keeper.work().join("key")).expect("moved");
    let signer = keeper.recovery_kit();
    assert!(signer.exists());
    refused(&keeper, 7, "no writer key");
    std::fs::rename(keeper.work().join("key"), &key).expect("moved");
    assert_eq!(removed(&prune(&keeper, &[])), [old].into());
    keeper.verify(&[&kept]);
}

#[test]
fn a_policy_that_keeps_nothing_is_refused_and_the_last_good_one_outlives_any() {
    let database = Server::older().database("lastgood");
    let another = Server::older().database("narrowed");
    let mut keeper = Keeper::initialised(&database.shop(100).url());
    let url = another.shop(100).url();
    for shift in ["-40d", "-39d"] {
        taken(&keeper, &database, shift);
        let snapshot = at(&keeper, shift, "snapshot --json");
        snapshot.env("PGKEEP_DATABASE_URL", &url).run().expect_code(0);
    }
    keeper.set(&format!("{KEEP}LAST"), "0");
    let told = keeper.pgkeep(["prune"]).run().expect_failure(2, &["keep_last"]);
    assert!(told.stderr.contains("nothing would be kept"), "{}", told.stderr);
    keeper.unset(&format!("{KEEP}LAST")).set(&format!("{KEEP}HOURLY"), "1");
    keeper.pgkeep(["prune", "--database", "nosuch"]).run().expect_failure(8, &["nosuch"]);
    keeper.pgkeep(["prune", "--cluster", "nosuch"]).run().expect_code(0);
    assert_eq!(keeper.listed().len(), 4);
    let one = prune(&keeper, &["--database", &another.name]);
    assert_eq!(one["backups"].as_array().map(Vec::len), Some(2), "{one:#}");
    assert_eq!(keeper.listed().len(), 3);
    prune(&keeper, &[]);
    assert_eq!(keeper.listed().len(), 2);
    exact(&keeper);
    keeper.verify(&["--all", "--check", "counts"]);
}

#[test]
fn a_prune_in_a_bucket_and_what_may_go_wrong_there() {
    let database = Server::newer().database("bucketed");
    let place = S3Place::of(S3Server::start());
    let mode = Arc::new(AtomicU8::new(0));
    let watched = Arc::clone(&mode);
    let two_hours_ago = jiff::Timestamp::now() - Duration::from_hours(2);
    let date = two_hours_ago.to_zoned(jiff::tz::TimeZone::UTC);
    let date = jiff::fmt::strtime::format("%a, %d %b %Y %H:%M:%S GMT", &date).expect("a date");
    let proxy = Proxy::before(place.server().address(), move |asked| {
        let denied = || Fault::Answer(403, "<Error><Code>AccessDenied</Code></Error>".to_owned());
        match watched.load(Ordering::Relaxed) {
            1 if asked.method == "DELETE" => denied(),
            2 if asked.method == "PUT" => denied(),
            3 if asked.is_list() && asked.target.contains("clusters%2F") => denied(),
            4 if asked.kind() == "GET" && asked.target.ends_with(".chunks?x-id=GetObject") => {
                denied()
            }
            5 => Fault::Date(date.clone()),
            _ => Fault::None,
        }
    });
    let mut keeper = Keeper::in_bucket(&database.shop(800).url(), &place, &proxy.endpoint());
    keeper.pgkeep(["init"]).run().expect_code(0);
    keeper.set(&format!("{KEEP}LAST"), "1");
    database
        .psql("CREATE TABLE big AS SELECT gen_random_uuid() AS u FROM generate_series(1, 20000)");
    let old = keeper.snapshot_id();
    database.psql("UPDATE big SET u = gen_random_uuid()");
    let kept = keeper.snapshot_id();
    let failed = |how: u8, code: i32, word: &str| -> Output {
        mode.store(how, Ordering::Relaxed);
        let (deletes, puts) = (proxy.count("DELETE"), proxy.count("PUT"));
        let told = keeper.pgkeep(["prune"]).run().expect_failure(code, &[word]);
        // What it puts beside is its event: that it failed. A request that is refused for its time is made again.
        let most = if how == 5 { 6 } else { 3 };
        assert!(proxy.count("DELETE") <= deletes + 1 && proxy.count("PUT") <= puts + most, "{how}");
        mode.store(0, Ordering::Relaxed);
        told
    };
    failed(1, 5, "probes/");
    failed(2, 5, "condemned/");
    failed(3, 5, "clusters/");
    failed(4, 5, ".chunks");
    // The service is the first to refuse that.
    failed(5, 5, "clock");
    assert_eq!(keeper.listed().len(), 2);
    let done = prune(&keeper, &[]);
    assert_eq!(removed(&done), [old].into());
    assert!(done["chunks_removed"].as_u64() >= Some(1), "{done:#}");
    assert_eq!(keeper.listed(), [kept]);
    keeper.verify(&["--all", "--check", "full"]);
}
