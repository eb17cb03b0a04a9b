//! Finds and removes what a killed run left: scratch directories here, scratch databases on a server.
//!
//! A live owner holds a lock (a file lock, an advisory lock) that goes when it dies. What is removed must
//! carry pgkeep's mark, and the sweep must get its lock first; everything else stays, whatever its name.

use std::path::{Path, PathBuf};

use tracing::debug;

use super::database::{self, LockId, Mark, PREFIX};
use super::{ScratchError, directory};
use crate::domain::connection::ConnectionInfo;
use crate::postgres::PostgresError;
use crate::postgres::session::Session;
use crate::scratch::sql::Statements as _;

/// Removes the leftover scratch directories below `scratch_dir`, ending servers that still run in them.
///
/// Blocks while a server ends; returns what was removed.
pub fn sweep_directories(scratch_dir: &Path) -> Result<Vec<PathBuf>, ScratchError> {
    directory::sweep(scratch_dir)
}

/// Drops the leftover scratch databases on a server; returns their names.
///
/// One that cannot be dropped (another role owns it) is left, and tells nobody: it is not in the way.
pub async fn sweep_databases(server: &ConnectionInfo) -> Result<Vec<String>, ScratchError> {
    let (session, maintenance) = database::maintenance_session(server, None).await?;
    let mut removed = Vec::new();
    for candidate in candidates(&session).await? {
        match sweep_one(server, &session, &maintenance, &candidate).await {
            Ok(true) => removed.push(candidate.name),
            Ok(false) => {}
            Err(error) => debug!(database = candidate.name, %error, "leftover stays"),
        }
    }
    Ok(removed)
}

/// A database whose name has the shape of a scratch database.
struct Candidate {
    oid: u32,
    name: String,
    lock: LockId,
    comment: Option<String>,
    own: bool,
}

async fn candidates(session: &Session) -> Result<Vec<Candidate>, PostgresError> {
    let sql = "SELECT oid, datname::text, shobj_description(oid, 'pg_database'), \
               pg_has_role(datdba, 'MEMBER') FROM pg_database \
               WHERE starts_with(datname::text, $1) AND NOT datistemplate";
    let rows = session.query(sql, &[&PREFIX]).await?;
    let candidate = |row: &tokio_postgres::Row| {
        let name: String = row.get(1);
        let lock = database::tag_of_name(&name)?;
        Some(Candidate { oid: row.get(0), lock, comment: row.get(2), own: row.get(3), name })
    };
    Ok(rows.iter().filter_map(candidate).collect())
}

async fn sweep_one(
    server: &ConnectionInfo,
    session: &Session,
    maintenance: &str,
    candidate: &Candidate,
) -> Result<bool, ScratchError> {
    if !candidate.own {
        return Ok(false);
    }
    let mark = match &candidate.comment {
        Some(comment) => match Mark::parse(comment) {
            Some(mark) if mark.lock == candidate.lock => mark,
            _ => return Ok(false),
        },
        // Left between `CREATE DATABASE` and `COMMENT`, if it is really empty.
        None if is_empty(server, &candidate.name).await? => {
            Mark { lock: candidate.lock, database: maintenance.to_owned() }
        }
        None => return Ok(false),
    };
    // The lock lives in one database only; asked for in another, it would always be free.
    let elsewhere = if mark.database == maintenance {
        None
    } else {
        Some(Session::connect(&server.with_database(&mark.database), "scratch sweep").await?)
    };
    let holder = elsewhere.as_ref().unwrap_or(session);
    if !database::try_lock(holder, mark.lock).await? {
        return Ok(false);
    }
    // Looked at again under the lock: its owner may have ended well meanwhile.
    let still = "SELECT 1 FROM pg_database WHERE oid = $1 AND datname = $2 \
                 AND shobj_description(oid, 'pg_database') IS NOT DISTINCT FROM $3";
    let there = session
        .query_opt(still, &[&candidate.oid, &candidate.name, &candidate.comment])
        .await?
        .is_some();
    if there {
        database::drop_database(session, &candidate.name).await?;
    }
    let unlock = "SELECT pg_advisory_unlock_all()";
    holder.query_one(unlock, &[]).await?;
    Ok(there)
}

/// Whether a database holds nothing that anyone made: no relation, function or schema of its own.
async fn is_empty(server: &ConnectionInfo, name: &str) -> Result<bool, PostgresError> {
    let session = Session::connect(&server.with_database(name), "scratch sweep").await?;
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM pg_class WHERE oid >= 16384) \
               AND NOT EXISTS (SELECT 1 FROM pg_proc WHERE oid >= 16384) \
               AND NOT EXISTS (SELECT 1 FROM pg_type WHERE oid >= 16384) \
               AND NOT EXISTS (SELECT 1 FROM pg_namespace WHERE oid >= 16384) \
               AND NOT EXISTS (SELECT 1 FROM pg_extension WHERE oid >= 16384) \
               AND NOT EXISTS (SELECT 1 FROM pg_largeobject_metadata)";
    Ok(session.query_one(sql, &[]).await?.get(0))
}
