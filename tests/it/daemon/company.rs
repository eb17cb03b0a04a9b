//! A daemon is not alone: others take snapshots, migrate, make databases, and wait for its word.

use super::{A_MINUTE, Host, NIGHTLY, PATIENCE, page, stop, told, up};
use crate::prune::exact;
use crate::support::http::{self, Ear};
use crate::support::server::programs_at;
use crate::support::{Clock, Cluster, Database, Keeper, Server, eventually};

fn lines(path: &std::path::Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn somebody_else_who_is_at_it_is_no_failure_and_no_hook_is_run_for_it() {
    let server = Server::older();
    let database = server.database("daemon_busy");
    database.shop(50);
    let ear = Ear::new();
    let host = Host::new(&server, &[&database], "");
    let file = |name: &str| host.keeper.work().join(name);
    let (before, failed) = (file("before"), file("failed"));
    let hook = |path: &std::path::Path| format!("[\"sh\", \"-c\", \"echo >>{}\"]", path.display());
    host.configure(&format!(
        "databases = [{:?}]\nsnapshot = {{ schedule = \"0 2 * * *\", ping = \"{}\" }}\n\
         hooks = {{ before = {}, failed = {} }}",
        database.name,
        ear.url("/ping"),
        hook(&before),
        hook(&failed),
    ));
    let (dumps, go) = (file("dumps"), file("go"));
    let body = format!(
        ": >{}; while [ ! -e {} ]; do sleep 0.1; done; exec $REAL \"$@\"",
        dumps.display(),
        go.display()
    );
    let programs = host.keeper.programs_with_pg_dump(&server, &body);
    let first = host.keeper.pgkeep(["snapshot"]).env("PGKEEP_BIN_DIR", &programs).spawn();
    eventually("it dumps", PATIENCE, || dumps.exists());
    host.keeper.pgkeep(["snapshot"]).run().expect_failure(6, &["another snapshot"]);
    let running = host.start();
    told(&running, "somebody else does it", 1);
    let page = page(&running);
    assert_eq!(http::get(&format!("{page}v1/runs")), (200, "[]\n".to_owned()));
    let metrics = http::get(&format!("{page}metrics")).1;
    let none = "pgkeep_runs_total{verb=\"snapshot\",result=\"failed\"} 0";
    assert!(metrics.contains(none), "{metrics}");
    assert_eq!((lines(&before), lines(&failed)), (1, 0), "those of the first one alone");
    std::fs::write(&go, "").expect("written");
    first.wait().expect_code(0);
    let log = stop(&host, running);
    assert!(!log.contains("begins") && !log.contains("no backup yet"), "{log}");
    assert_eq!((ear.asked("/ping/start"), ear.asked("/ping"), ear.asked("/ping/fail")), (0, 0, 0));
    let events = host.keeper.pgkeep(["log", "--json"]).run().expect_code(0).json();
    let by: Vec<_> =
        events.as_array().expect("an array").iter().map(|one| &one["origin"]).collect();
    assert_eq!(by, ["command"; 2], "of the one that was taken, and of the one that was refused");
}

#[test]
fn what_a_killed_daemon_was_at_the_other_one_makes_up_for_once() {
    let cluster = Cluster::newer(&[]);
    // Before it counts, and after: then there is nothing to make up for.
    for (step, counts) in [("snapshot.chunks-put", false), ("snapshot.manifest-put", true)] {
        let name = if counts { "whole" } else { "half" };
        cluster.psql("postgres", &format!("CREATE DATABASE {name}"));
        let database = Database { server: cluster.clone(), name: name.to_owned() };
        database.shop(200);
        let host = Host::new(&cluster, &[&database], NIGHTLY);
        let (dumps, go) = (host.keeper.work().join("dumps"), host.keeper.work().join("go"));
        let body = format!(
            ": >{}; while [ ! -e {} ]; do sleep 0.05; done; exec $REAL \"$@\"",
            dumps.display(),
            go.display()
        );
        let programs = host.keeper.programs_with_pg_dump(&cluster, &body);
        let killed = host.daemon().env("PGKEEP_BIN_DIR", &programs).env("PGKEEP_FAILPOINT", step);
        let killed = up(killed.spawn());
        eventually("it dumps", PATIENCE, || dumps.exists());
        let clock = Clock::of(&host.keeper);
        let other = host.start_by(&clock);
        let held =
            |how: &str| format!("somebody else does it job=\"snapshot main/{name}\" held={how}");
        told(&other, &held("Busy"), 1);
        std::fs::write(&go, "").expect("written");
        assert_eq!(killed.wait().code, 137, "{step}");
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgkeep%' \
                        OR application_name = 'pg_dump'";
        eventually("its sessions end", PATIENCE, || cluster.psql("postgres", sessions) == "0");
        assert_eq!(programs_at(cluster.port), [""; 0]);
        assert_eq!(host.keeper.list().len(), usize::from(counts), "{step}");
        clock.pass(A_MINUTE);
        if counts {
            told(&other, &held("Done"), 1);
        } else {
            told(&other, &format!("snapshot main/{name} done"), 1);
        }
        let log = stop(&host, other);
        assert_eq!(log.contains("begins"), !counts, "{log}");
        assert_eq!(host.taken(), [(name.to_owned(), 1)].into(), "{step}");
        // Who comes later finds nothing to do, and what the dead one left goes.
        let third = host.start();
        told(&third, "looked at the catalog", 1);
        assert!(!stop(&host, third).contains("begins"), "{step}");
        let prune = host.keeper.pgkeep(["prune"]).env("PGKEEP__REPOSITORY__GRACE", "0s");
        prune.run().expect_code(0);
        exact(&host.keeper);
        host.keeper.verify(&["--check", "counts"]);
    }
}

#[test]
fn a_prune_of_several_clusters_tells_each_ones_ping() {
    let server = Server::newer();
    let database = server.database("daemon_pings");
    let ear = Ear::new();
    let host = Host::new(&server, &[&database], NIGHTLY);
    let cluster = |name: &str| {
        let ping = ear.url(&format!("/{name}"));
        format!(
            "[clusters.{name}]\nurl = \"{}\"\ndatabases = [{:?}]\n\
             prune = {{ schedule = \"@daily\", ping = \"{ping}\" }}\n",
            host.server, database.name
        )
    };
    host.write(&format!("{}{}", cluster("erp"), cluster("main")));
    let running = host.start();
    told(&running, "prune erp, prune main done", 1);
    for path in ["/erp/start", "/erp", "/main/start", "/main"] {
        eventually(path, PATIENCE, || ear.asked(path) == 1);
    }
    stop(&host, running);
}

#[test]
fn the_hook_takes_a_database_that_is_newer_than_the_list() {
    let cluster = Cluster::older(&[]);
    let url = cluster.url("postgres");
    let mut keeper = Keeper::initialised(&url);
    let token = "0123456789abcdef0123";
    keeper
        .unset("PGKEEP_DATABASE_URL")
        .set("PGKEEP__CLUSTERS__MAIN__URL", &url)
        .set("PGKEEP__DAEMON__TOKEN", token)
        .set("PGKEEP__DAEMON__LISTEN", "127.0.0.1:0");
    let running = up(keeper.pgkeep(["daemon"]).spawn());
    let page = page(&running);
    eventually("it is ready", PATIENCE, || http::get(&format!("{page}readyz")).0 == 200);
    cluster.psql("postgres", "CREATE DATABASE fresh");
    let head = format!("Authorization: Bearer {token}\r\n");
    let asked = |database: &str| {
        let path = format!("v1/clusters/main/databases/{database}/snapshots?wait=60");
        http::ask("POST", &format!("{page}{path}"), &head)
    };
    let (status, body) = asked("fresh");
    assert_eq!(status, 201, "{body}");
    let (status, body) = asked("nosuch");
    assert_eq!(status, 404, "{body}");
    assert!(body.contains("no database `nosuch`"), "{body}");
    assert_eq!(keeper.list()[0]["database"], "fresh");
    running.signal(super::TERM);
    running.wait().expect_code(0);
}
