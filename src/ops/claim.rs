//! Advisory locks by name: who holds one does the work, on whichever host he is.
//!
//! Taken in database `postgres`, since advisory locks are per database and every host must meet at the same; where that
//! is out of reach, in the database of the connection itself. The server releases a lock when its session ends, so a
//! holder that died holds nothing.

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
    /// Whether the session ended, and with it the lock.
    pub fn is_lost(&self) -> bool {
        self.session.is_closed()
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
