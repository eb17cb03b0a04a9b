//! SIGKILL at every step of a commit: what was there before is whole, nothing half-made is listed, and the
//! next run goes on as if nothing had happened.

use std::time::Duration;

use pgkeep::failpoint::{ALL, VARIABLE};

use crate::support::s3_server::{S3Place, S3Server};
use crate::support::{Database, Keeper, Server, eventually};

/// As a shell tells a process that SIGKILL ended.
const KILLED: i32 = 137;

fn of(verb: &str) -> impl Iterator<Item = &'static str> + '_ {
    ALL.iter().copied().filter(move |name| name.split('.').next() == Some(verb))
}

#[test]
fn every_failpoint_belongs_to_a_story_here() {
    for name in ALL {
        assert!(
            ["snapshot", "restore", "rotate", "in-place", "migrate", "prune"]
                .contains(&name.split('.').next().expect("a verb")),
            "{name}"
        );
    }
}

#[test]
fn a_snapshot_killed_at_any_step_is_whole_or_not_there() {
    let database = Server::older().database("killed");
    killed_at_any_step(&Keeper::initialised(&database.shop(500).url()), &database);
}

#[test]
fn a_snapshot_into_a_bucket_killed_at_any_step_is_whole_or_not_there() {
    let database = Server::newer().database("killed3");
    let place = S3Place::of(S3Server::start());
    let keeper = Keeper::in_bucket(&database.shop(500).url(), &place, &place.endpoint);
    keeper.pgkeep(["init"]).run().expect_code(0);
    killed_at_any_step(&keeper, &database);
}

#[track_caller]
fn killed_at_any_step(keeper: &Keeper, database: &Database) {
    let server = &database.server;
    let first = keeper.snapshot_id();
    for name in of("snapshot") {
        database.psql("INSERT INTO customers (name, email) VALUES ('x', gen_random_uuid()::text)");
        let before = keeper.listed();
        let killed = keeper.pgkeep(["snapshot"]).env(VARIABLE, name).run();
        assert_eq!(killed.code, KILLED, "{name} was never hit: {}", killed.stderr);
        let after = keeper.listed();
        // Presence of the manifest is the backup: from that step on it counts.
        let committed = ["snapshot.manifest-put", "snapshot.done-put"].contains(&name);
        assert_eq!(after.len(), before.len() + usize::from(committed), "{name}");
        for id in &before {
            assert!(after.contains(id), "{name}: {id} is gone");
        }
        keeper.snapshot();
        eventually("the dead command's backends end", Duration::from_secs(20), || {
            let backends = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'",
                database.name
            );
            server.psql("postgres", &backends) == "0"
        });
    }
    assert!(keeper.listed().contains(&first));
    keeper.verify(&["--all", "--check", "counts"]);
    assert_eq!(keeper.leftovers(), [""; 0]);
}

#[test]
fn a_prune_killed_at_any_step_takes_no_backup_that_is_kept_and_the_next_one_ends_it() {
    let database = Server::newer().database("pruned");
    let mut keeper = Keeper::initialised(&database.shop(300).url());
    keeper
        .set("PGKEEP__CLUSTERS__MAIN__RETENTION__KEEP_LAST", "2")
        .set("PGKEEP__REPOSITORY__GRACE", "0s");
    keeper.snapshot();
    keeper.snapshot();
    for name in of("prune") {
        database.psql("INSERT INTO customers (name, email) VALUES ('x', gen_random_uuid()::text)");
        let died = keeper.pgkeep(["snapshot"]).env(VARIABLE, "snapshot.signature-put").run();
        assert_eq!(died.code, KILLED);
        keeper.snapshot();
        let kept: Vec<String> = keeper.listed().into_iter().take(2).collect();
        let killed = keeper.pgkeep(["prune"]).env(VARIABLE, name).run();
        assert_eq!(killed.code, KILLED, "{name} was never hit: {}", killed.stderr);
        let left = keeper.listed();
        assert!(kept.iter().all(|id| left.contains(id)), "{name}: {left:?}");
        keeper.verify(&["--all", "--check", "counts"]);
        keeper.pgkeep(["prune"]).run().expect_code(0);
        assert_eq!(keeper.listed(), kept, "{name}");
        keeper.verify(&["--check", "stored"]);
        assert_eq!(keeper.objects_under("condemned/"), [], "{name}");
        let beside = keeper.objects_under("clusters/main/snapshots/");
        assert_eq!(beside.len(), 6, "{name}: {beside:?}");
    }
}

#[test]
fn a_restore_killed_at_any_step_leaves_the_live_database_whole() {
    let server = Server::newer();
    let database = server.database("swapped");
    let keeper = Keeper::initialised(&database.shop(300).url());
    keeper.snapshot();
    let good = database.contents();
    for name in of("restore") {
        let ruin = format!("UPDATE orders SET note = '{name}'");
        database.psql(&ruin);
        let ruined = database.contents();
        assert_ne!(good, ruined);
        let kept_before = server.databases_like(&format!("{}_before_", database.name));
        let killed = keeper.pgkeep(["restore", "--replace", "--yes"]).env(VARIABLE, name).run();
        assert_eq!(killed.code, KILLED, "{name} was never hit: {}", killed.stderr);
        // Whatever happened, the name leads to one whole database: the old one or the proved copy.
        eventually("the server has ended the dead one's session", Duration::from_secs(20), || {
            server.try_psql(&database.name, "SELECT 1").is_ok()
        });
        let now = database.contents();
        let kept = server.databases_like(&format!("{}_before_", database.name));
        if kept.len() > kept_before.len() {
            assert_eq!(now, good, "{name}");
            let old = kept.iter().find(|name| !kept_before.contains(name)).expect("a new one");
            assert_eq!(server.contents(old), ruined, "{name}: the old database is kept");
        } else {
            assert_eq!(now, ruined, "{name}: the live database is untouched");
        }
        // The next run finds and removes what the killed one left, and only that.
        keeper.pgkeep(["restore", "--replace", "--yes"]).run().expect_code(0);
        assert_eq!(database.contents(), good, "{name}");
        assert_eq!(keeper.leftovers(), [""; 0], "{name}");
        let scratch = server.databases_like("pgkeep_");
        let ours = scratch.iter().filter(|scratch| scratch.contains(&database.name));
        assert_eq!(ours.count(), 0, "{name}: {scratch:?}");
    }
}
