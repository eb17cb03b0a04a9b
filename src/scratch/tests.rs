//! Scratch on a real server.

use tokio_util::sync::CancellationToken;

use super::cluster::{ScratchCluster, ServerMemory};
use super::database::{Creation, ScratchDatabase};
use super::directory::ScratchDirectory;
use super::registry::{sweep_databases, sweep_directories};
use super::sql::Statements as _;
use super::test_support::{PATIENCE, cluster, facts, programs, scratch_dir};
use super::{ScratchError, postmaster};
use crate::domain::connection::ConnectionInfo;
use crate::postgres::session::Session;
use crate::postgres::sources::SystemSources;

async fn session(server: &ConnectionInfo) -> Session {
    Session::connect(server, "test").await.expect("a session")
}

async fn databases(session: &Session) -> Vec<String> {
    let sql = "SELECT datname::text FROM pg_database WHERE NOT datistemplate ORDER BY 1";
    session.query(sql, &[]).await.expect("rows").iter().map(|row| row.get(0)).collect()
}

fn creation(facts: &crate::domain::inventory::DatabaseFacts, tag: u32) -> Creation<'_> {
    Creation {
        facts,
        owner: None,
        tablespace: None,
        closed: false,
        avoid: None,
        tag,
        patience: PATIENCE,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_isolated_and_leaves_nothing() {
    let parent = scratch_dir();
    let cluster = cluster(parent.path()).await;
    cluster.create_roles(&["app".into(), "Odd \"name".into(), "app".into()]).await.expect("roles");
    cluster.create_roles(&["pg_of_a_later_major".into()]).await.expect("passed over");
    let session = session(cluster.connection()).await;
    for (setting, value) in [
        ("listen_addresses", ""),
        ("archive_mode", "off"),
        ("max_logical_replication_workers", "0"),
    ] {
        let sql = "SELECT setting, source FROM pg_settings WHERE name = $1";
        let row = session.query_one(sql, &[&setting]).await.expect("a row");
        assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), (value, "command line"));
    }
    let sql = "SELECT rolname::text FROM pg_roles WHERE rolname !~ '^pg_' AND NOT rolcanlogin \
               ORDER BY 1";
    let rows = session.query(sql, &[]).await.expect("rows");
    let roles: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(roles, ["Odd \"name", "app"]);
    drop(session);
    cluster.stop().await.expect("stopped");
    assert_eq!(std::fs::read_dir(parent.path()).expect("a directory").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_lets_those_in_who_have_a_password_and_becomes_durable() {
    let parent = scratch_dir();
    let directory = ScratchDirectory::create(parent.path(), 1).expect("a directory");
    let memory = ServerMemory { shared_buffers_bytes: 16 << 20, maintenance_bytes: 16 << 20 };
    let settings = [("work_mem", "3MB".to_owned())];
    let (programs, cancel) = (programs(), CancellationToken::new());
    let stage = ScratchCluster::start_stage(directory, &programs, memory, &settings, &cancel);
    let stage = stage.await.expect("a cluster");
    let own = session(stage.connection()).await;
    own.execute("CREATE ROLE app LOGIN PASSWORD 'drawn'").await.expect("a role");
    let port = stage.port().expect("it listens");
    let address = |password: &str| {
        let text = format!("postgres://app:{password}@127.0.0.1:{port}/postgres?sslmode=disable");
        ConnectionInfo::parse(&text, &SystemSources).expect("an address")
    };
    assert!(Session::connect(&address("guessed"), "test").await.is_err());
    assert_eq!(stage.visits().expect("a log"), 0);
    drop(session(&address("drawn")).await);
    assert_eq!(stage.visits().expect("a log"), 1);
    let told = "SELECT concat_ws(' ', current_setting('fsync'), current_setting('work_mem'), \
                current_setting('archive_mode'), current_setting('listen_addresses'))";
    let row = own.query_one(told, &[]).await.expect("a row");
    assert_eq!(row.get::<_, &str>(0), "off 3MB off 127.0.0.1");
    stage.become_durable().await.expect("durable");
    let row = own.query_one(told, &[]).await.expect("a row");
    assert_eq!(row.get::<_, &str>(0), "on 3MB off 127.0.0.1");
    drop(own);
    stage.stop().await.expect("stopped");
    assert_eq!(std::fs::read_dir(parent.path()).expect("a directory").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_cluster_ends_it_too() {
    let parent = scratch_dir();
    drop(cluster(parent.path()).await);
    assert_eq!(std::fs::read_dir(parent.path()).expect("a directory").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_owner_was_killed_is_ended_by_the_next_sweep() {
    let parent = scratch_dir();
    let cluster = cluster(parent.path()).await;
    let connection = cluster.connection().clone();
    assert!(sweep_directories(parent.path()).expect("swept").is_empty(), "its owner lives");
    let data = cluster.abandon();
    assert!(Session::connect(&connection, "test").await.is_ok());
    assert_eq!(sweep_directories(parent.path()).expect("swept").len(), 1);
    assert!(Session::connect(&connection, "test").await.is_err());
    assert!(!data.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_start_leaves_nothing() {
    let parent = scratch_dir();
    let directory = ScratchDirectory::create(parent.path(), 1).expect("a directory");
    let cancel = CancellationToken::new();
    let memory = ServerMemory { shared_buffers_bytes: 16 << 20, maintenance_bytes: 16 << 20 };
    let programs = programs();
    let start = ScratchCluster::start(directory, &programs, memory, &cancel);
    let soon = async {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        cancel.cancel();
    };
    let (started, ()) = tokio::join!(start, soon);
    assert!(matches!(started, Err(ScratchError::Interrupted)), "{started:?}");
    assert_eq!(std::fs::read_dir(parent.path()).expect("a directory").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_drops_scratch_databases_without_an_owner_and_no_others() {
    let parent = scratch_dir();
    let cluster = cluster(parent.path()).await;
    let server = cluster.connection();
    let watcher = session(server).await;
    let facts = facts("My Shop");
    let live = ScratchDatabase::create(server, &creation(&facts, 1)).await.expect("scratch");
    let dead = ScratchDatabase::create(server, &creation(&facts, 2)).await.expect("scratch");
    assert_eq!(dead.name(), "pgkeep_scratch_00000002_my_shop");
    let guest = session(&dead.connection()).await;
    guest.execute("CREATE TABLE t (i int)").await.expect("a table");
    // As after a SIGKILL: the keeper's session ends, and nobody drops anything.
    drop(dead);
    for sql in [
        "CREATE DATABASE pgkeep_scratch_00000003_commented",
        "COMMENT ON DATABASE pgkeep_scratch_00000003_commented IS 'my notes'",
        "CREATE DATABASE pgkeep_scratch_00000004_early",
        "CREATE DATABASE pgkeep_scratch_00000005_filled",
        "CREATE DATABASE pgkeep_scratch_notes",
    ] {
        watcher.execute(sql).await.expect("done");
    }
    let filled = session(&server.with_database("pgkeep_scratch_00000005_filled")).await;
    filled.execute("CREATE TABLE t (i int)").await.expect("a table");
    drop(filled);

    let mut removed = Vec::new();
    // The ended session's lock goes a moment later.
    for _ in 0..100 {
        removed.extend(sweep_databases(server).await.expect("swept"));
        if removed.len() == 2 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    removed.sort();
    assert_eq!(removed, ["pgkeep_scratch_00000002_my_shop", "pgkeep_scratch_00000004_early"]);
    assert_eq!(
        databases(&watcher).await,
        [
            "pgkeep_scratch_00000001_my_shop",
            "pgkeep_scratch_00000003_commented",
            "pgkeep_scratch_00000005_filled",
            "pgkeep_scratch_notes",
            "postgres"
        ]
    );
    live.discard().await.expect("dropped");
    assert!(!databases(&watcher).await.iter().any(|name| name.contains("00000001")));
    drop(watcher);
    cluster.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scratch_database_is_dropped_though_its_keeper_was_ended() {
    let parent = scratch_dir();
    let cluster = cluster(parent.path()).await;
    let server = cluster.connection();
    let watcher = session(server).await;
    let facts = facts("shop");
    let scratch = ScratchDatabase::create(server, &creation(&facts, 9)).await.expect("scratch");
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    watcher.query(sql, &[]).await.expect("ended");
    scratch.discard().await.expect("dropped");
    assert_eq!(databases(&watcher).await, ["postgres"]);
    drop(watcher);
    cluster.stop().await.expect("stopped");
    assert!(postmaster::end(&parent.path().join("nothing")));
}
