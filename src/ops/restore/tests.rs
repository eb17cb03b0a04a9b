//! Naming a proved copy, on a real server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::{RestoreError, swap};
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::DatabaseFacts;
use crate::postgres::session::Session;
use crate::scratch::database::{Creation, ScratchDatabase};
use crate::scratch::properties::DatabaseProperties;
use crate::scratch::sql::Statements as _;
use crate::scratch::test_support::{PATIENCE, cluster, facts, scratch_dir};

async fn session(server: &ConnectionInfo, database: &str) -> Session {
    Session::connect(&server.with_database(database), "test").await.expect("a session")
}

async fn all(session: &Session, statements: &[&str]) {
    for statement in statements {
        session.execute(statement).await.expect(statement);
    }
}

async fn oid(session: &Session, database: &str) -> Option<u32> {
    let sql = "SELECT oid FROM pg_database WHERE datname = $1";
    session.query_opt(sql, &[&database]).await.expect("a row").map(|row| row.get(0))
}

async fn scratch(server: &ConnectionInfo, facts: &DatabaseFacts, avoid: &str) -> ScratchDatabase {
    let creation = Creation {
        facts,
        owner: None,
        tablespace: None,
        closed: true,
        avoid: Some(avoid),
        tag: 0xabc,
        patience: PATIENCE,
    };
    let scratch = ScratchDatabase::create(server, &creation).await.expect("scratch");
    let inside = Session::connect(&scratch.connection(), "test").await.expect("a session");
    all(&inside, &["CREATE TABLE t AS SELECT 'restored' AS what"]).await;
    scratch
}

/// All that `ALTER DATABASE` and its like set, in an order of its own.
async fn properties(session: &Session, database: &str) -> Vec<String> {
    let sql = "SELECT format('owner %s limit %s template %s comment %s', \
                 pg_get_userbyid(datdba), datconnlimit, datistemplate, \
                 shobj_description(d.oid, 'pg_database')) FROM pg_database d WHERE datname = $1 \
               UNION ALL SELECT 'acl ' || a::text FROM pg_database d, unnest(datacl) a \
                 WHERE datname = $1 \
               UNION ALL SELECT format('setting %s %s', s.setrole::regrole, s.setconfig) \
                 FROM pg_database d JOIN pg_db_role_setting s ON s.setdatabase = d.oid \
                 WHERE datname = $1 ORDER BY 1";
    let rows = session.query(sql, &[&database]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

const LIVE: &str = "My \"Shop\"";
const OLD: &str = "My \"Shop\"_before_x";

const SETUP: [&str; 12] = [
    "CREATE ROLE app",
    "CREATE ROLE \"Read er\"",
    "CREATE ROLE lead",
    "CREATE DATABASE \"My \"\"Shop\"\"\" OWNER app CONNECTION LIMIT 33",
    "REVOKE ALL ON DATABASE \"My \"\"Shop\"\"\" FROM PUBLIC",
    "GRANT CONNECT ON DATABASE \"My \"\"Shop\"\"\" TO lead WITH GRANT OPTION",
    "SET ROLE lead; GRANT CONNECT ON DATABASE \"My \"\"Shop\"\"\" TO \"Read er\"; RESET ROLE",
    "COMMENT ON DATABASE \"My \"\"Shop\"\"\" IS 'it''s \\ ours'",
    "ALTER DATABASE \"My \"\"Shop\"\"\" SET search_path TO \"$user\", \"Odd, one\", public",
    "ALTER DATABASE \"My \"\"Shop\"\"\" SET app.tenant TO 'a\\b'",
    "ALTER ROLE lead IN DATABASE \"My \"\"Shop\"\"\" SET work_mem TO '12MB'",
    "ALTER DATABASE \"My \"\"Shop\"\"\" IS_TEMPLATE true",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_ends_the_sessions_and_carries_over_all_that_hangs_on_the_name() {
    let parent = scratch_dir();
    let cluster = cluster(parent.path()).await;
    let server = cluster.connection().clone();
    let watcher = session(&server, "postgres").await;
    all(&watcher, &SETUP).await;
    let before = properties(&watcher, LIVE).await;
    let live_oid = oid(&watcher, LIVE).await.expect("it is there");
    let scratch = scratch(&server, &facts(LIVE), LIVE).await;

    // Clients that connect again and again, and must see the one database or the other, never none.
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (server, stop) = (server.with_database(LIVE), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    // A failed connection may never wait, and a task must.
                    tokio::task::yield_now().await;
                    let Ok(session) = Session::connect(&server, "app").await else { continue };
                    let sql = "SELECT oid, pg_sleep(0.05)::text FROM pg_database \
                               WHERE datname = current_database()";
                    if let Ok(row) = session.query_one(sql, &[]).await {
                        seen.push(row.get::<_, u32>(0));
                    }
                }
                seen
            })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let guest = session(&server, LIVE).await;
    let wanted = swap::Swap { database: LIVE, oid: live_oid, kept_as: OLD };
    let ended = swap::replace(&scratch, wanted, &CancellationToken::new()).await.expect("swapped");
    assert!(ended > 0, "a session was there that would not have gone");
    assert!(guest.query_one("SELECT 1", &[]).await.is_err());
    let copy = scratch.oid();
    scratch.discard().await.expect("nothing to drop");
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let seen = client.await.expect("a client");
        assert!(seen.iter().all(|oid| [live_oid, copy].contains(oid)));
        assert_eq!(seen.last(), Some(&copy), "it came back to the new database");
    }
    assert_eq!(oid(&watcher, LIVE).await, Some(copy));
    assert_eq!(oid(&watcher, OLD).await, Some(live_oid));
    assert_eq!(properties(&watcher, LIVE).await, before);
    assert_eq!(properties(&watcher, OLD).await, before);
    let inside = session(&server, LIVE).await;
    let row = inside.query_one("SELECT what FROM t", &[]).await.expect("a row");
    assert_eq!(row.get::<_, &str>(0), "restored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_cannot_be_leaves_the_live_database_as_it_was() {
    let parent = scratch_dir();
    let cluster = cluster(parent.path()).await;
    let server = cluster.connection().clone();
    let watcher = session(&server, "postgres").await;
    all(&watcher, &SETUP).await;
    let before = properties(&watcher, LIVE).await;
    let live_oid = oid(&watcher, LIVE).await.expect("it is there");
    let copy = scratch(&server, &facts(LIVE), LIVE).await;
    let token = CancellationToken::new();

    // Made anew by another hand since the plan.
    let stale = swap::Swap { database: LIVE, oid: live_oid + 1, kept_as: OLD };
    let error = swap::replace(&copy, stale, &token).await.expect_err("another database");
    assert!(matches!(error, RestoreError::LiveChanged(_)), "{error}");
    // The name for the old one is taken meanwhile.
    all(&watcher, &["CREATE DATABASE taken"]).await;
    let taken = swap::Swap { database: LIVE, oid: live_oid, kept_as: "taken" };
    let error = swap::replace(&copy, taken, &token).await.expect_err("a taken name");
    assert_eq!(error.sqlstate(), Some("42P04"), "{error}");
    // Cancelled while a session is in the way: that session is not ended.
    all(&watcher, &["ALTER DATABASE taken RENAME TO other"]).await;
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let guest = session(&server, LIVE).await;
    let wanted = swap::Swap { database: LIVE, oid: live_oid, kept_as: "taken" };
    let error = swap::replace(&copy, wanted, &cancelled).await.expect_err("cancelled");
    assert!(error.to_string().contains("interrupted"), "{error}");
    guest.query_one("SELECT 1", &[]).await.expect("it was left alone");

    assert_eq!(oid(&watcher, LIVE).await, Some(live_oid));
    assert_eq!(properties(&watcher, LIVE).await, before);
    let name = copy.name().to_owned();
    copy.discard().await.expect("dropped");
    assert_eq!(oid(&watcher, &name).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_a_free_name_gets_what_was_recorded_and_tells_the_rest() {
    let parent = scratch_dir();
    let cluster = cluster(parent.path()).await;
    let server = cluster.connection().clone();
    let watcher = session(&server, "postgres").await;
    all(&watcher, &SETUP).await;
    let live = session(&server, LIVE).await;
    let recorded = crate::postgres::catalog::inventory(live.client()).await.expect("an inventory");
    drop(live);
    let before = properties(&watcher, LIVE).await;
    let copy = scratch(&server, &recorded.database, "copy").await;
    let left_out = swap::rename(&copy, "copy", &DatabaseProperties::recorded(&recorded.database))
        .await
        .expect("renamed");
    assert!(left_out.is_empty(), "{left_out:?}");
    copy.discard().await.expect("nothing to drop");
    assert_eq!(properties(&watcher, "copy").await, before);

    let mut stranger = recorded.database.clone();
    stranger.owner = "nobody_here".to_owned();
    let properties = DatabaseProperties::recorded(&stranger);
    let copy = scratch(&server, &stranger, "copy2").await;
    let error = swap::rename(&copy, "copy", &properties).await.expect_err("a taken name");
    assert!(matches!(error, RestoreError::NameTaken { .. }), "{error}");
    let left_out = swap::rename(&copy, "copy2", &properties).await.expect("renamed");
    assert!(left_out[0].starts_with("ALTER DATABASE \"copy2\" OWNER TO \"nobody_here\";"));
    copy.discard().await.expect("nothing to drop");
    assert!(oid(&watcher, "copy2").await.is_some());
}
