//! Advisory locks by name: who holds one does the work, on whichever host he is.
//!
//! Taken in database `postgres`, since advisory locks are per database and every host must meet at the same; where that
//! is out of reach, in the database of the connection itself. The server releases a lock when its session ends, so a
//! holder that died holds nothing.

use std::time::Duration;

use crate::codec::hash::plain_hash;
use crate::domain::connection::ConnectionInfo;
use crate::domain::id::ClusterName;
use crate::domain::observer::{Observer, Severity};
use crate::postgres::PostgresError;
use crate::postgres::pooler::{self, Pooling};
use crate::postgres::session::Session;
use crate::repo::Repository;

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub struct Claim {
    session: Session,
}

impl Claim {
    /// Whether it is still held: who is about to do what cannot be undone asks once more.
    pub async fn is_held(&self) -> bool {
        let asked = self.session.client().query_one(HELD, &[]);
        match tokio::time::timeout(ANSWER_MAX, asked).await {
            Ok(Ok(row)) => row.get(0),
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// Takes the lock of that name; none where somebody holds it. A pooler may treat each database in its own way, so
/// `pooling` tells whether one was found before that of the connection.
pub async fn take(
    connection: &ConnectionInfo,
    pooling: Pooling,
    name: &str,
    observer: &dyn Observer,
) -> Result<Option<Claim>, PostgresError> {
    let meeting_place = connection.with_database("postgres");
    let meeting = async {
        if pooling == Pooling::Session {
            pooler::refuse_transaction_pooling(&meeting_place).await?;
        }
        Session::connect(&meeting_place, "lock").await
    };
    let session = match meeting.await {
        Ok(session) => session,
        Err(elsewhere) => {
            let session = Session::connect(connection, "lock").await?;
            let own = connection.database();
            let message =
                format!("the lock against a second run is taken in `{own}` itself: {elsewhere}");
            observer.finding(Severity::Notice, &message);
            session
        }
    };
    // It is idle for as long as the work takes, and a server may end sessions that are.
    if session.major() >= 14 {
        session.batch("SET idle_session_timeout = 0").await?;
    }
    let hash = plain_hash(name.as_bytes()).0;
    let key = i64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"));
    let row = session.client().query_one(TRY_LOCK, &[&key]).await?;
    Ok(row.get::<_, bool>(0).then_some(Claim { session }))
}

/// The name of the lock that a database's snapshots take, and whoever must have none of them beside him.
pub fn of_snapshots(repository: &Repository, cluster: &ClusterName, database: &str) -> String {
    format!("pgkeep snapshot {} {cluster} {database}", repository.document.id)
}

const TRY_LOCK: &str = "SELECT pg_catalog.pg_try_advisory_lock($1)";
/// The session takes no other.
const HELD: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted \
                    AND pid = pg_catalog.pg_backend_pid())";
/// A server that does not answer for so long keeps nobody away.
const ANSWER_MAX: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::observer::Silent;
    use crate::scratch::test_support::{cluster, scratch_dir};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_ends_idle_sessions_ends_no_claim_and_a_lost_one_is_noticed() {
        let parent = scratch_dir();
        let cluster = cluster(parent.path()).await;
        let server = cluster.connection().with_options("-c idle_session_timeout=300ms");
        let take = async || {
            take(&server, Pooling::None, "one at a time", &Silent).await.expect("an answer")
        };
        let claim = take().await.expect("nobody has it");
        assert!(claim.is_held().await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(claim.is_held().await);
        assert!(take().await.is_none(), "it is held");
        let other = Session::connect(&server, "test").await.expect("a session");
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgkeep/lock'";
        other.batch(end).await.expect("it may");
        assert!(!claim.is_held().await);
    }
}
