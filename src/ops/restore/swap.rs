//! Gives a proved copy its name: a plain rename, or both renames of a swap in one transaction.
//!
//! `ALTER DATABASE … RENAME` needs a database without sessions. It first takes a lock that keeps new
//! sessions waiting, then waits five seconds for the present ones to end; meanwhile a second session of ours
//! ends them. So nobody is locked out by a setting that a crash could leave behind: `ALLOW_CONNECTIONS` is
//! never touched, and who waited finds the new database under the old name when it connects again.
//!
//! Crash story: before COMMIT a crash changes nothing: the live database keeps its name, and the copy keeps
//! its scratch name and mark, by which the next run removes it. After COMMIT everything is done. Where the
//! answer to COMMIT is lost, the oid behind the name tells which of both it is, once the server can be asked; where
//! it cannot, that is what is told. A server that waits for us ends the transaction itself ([`IDLE`]), so that nobody
//! is kept out of the live database by a connection that went silent.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::RestoreError;
use crate::failpoint;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident};
use crate::scratch::ScratchError;
use crate::scratch::database::{ScratchDatabase, maintenance_session};
use crate::scratch::properties::DatabaseProperties;
use crate::scratch::sql::{Parameters, Statements as _};

/// Sessions get this long to be gone by themselves before any is ended.
const GRACE: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(50);
/// How long a server that was lost at the commit is asked what became of it: time to recover from a crash.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// A rename waits for sessions (5 s) and for its lock (30 s), and then is done.
const RENAME_MAX: Duration = Duration::from_mins(1);
/// How long a transaction that holds names may stand still.
const IDLE: &str = "SET LOCAL idle_in_transaction_session_timeout = '30s'";
/// Each attempt waits five seconds, by PostgreSQL's own clock.
const ATTEMPTS_MAX: u32 = 4;
/// `object_in_use`.
const IN_USE: &str = "55006";
/// `duplicate_database`.
const DUPLICATE: &str = "42P04";

/// What a swap is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Swap<'a> {
    /// The name that changes hands.
    pub(super) database: &'a str,
    /// The oid of the database that has it now.
    pub(super) oid: u32,
    /// The name that one gets.
    pub(super) kept_as: &'a str,
}

/// Swaps the copy for the live database. Returns how many sessions were ended.
pub(super) async fn replace(
    scratch: &ScratchDatabase,
    swap: Swap<'_>,
    cancel: &CancellationToken,
) -> Result<u64, RestoreError> {
    let avoid = Some(swap.database);
    let (terminator, _) = maintenance_session(&scratch.maintenance_connection(), avoid).await?;
    let mut progress = Progress::default();
    for attempt in 1.. {
        let attempted = attempt_swap(scratch, swap, &terminator, &mut progress, cancel);
        let Err(error) = attempted.await else { return Ok(progress.ended) };
        if progress.commit_sent {
            settle(scratch, swap.database, Some(swap.kept_as), error).await?;
            return Ok(progress.ended);
        }
        // An aborted transaction must not linger; on a broken session this fails, and needs not work.
        let _ = scratch.say("ROLLBACK").await;
        let busy = error.sqlstate().is_some_and(|code| code == IN_USE);
        if !busy || cancel.is_cancelled() {
            return Err(error);
        }
        if attempt == ATTEMPTS_MAX {
            let holders = holders(&terminator, swap.oid).await.unwrap_or_default();
            if holders.is_empty() {
                return Err(error);
            }
            return Err(RestoreError::InUse { database: swap.database.to_owned(), holders });
        }
    }
    unreachable!("the last attempt returns")
}

/// How far a swap came.
#[derive(Default)]
struct Progress {
    /// Sessions that were ended.
    ended: u64,
    /// From here on only the server knows.
    commit_sent: bool,
}

/// Who is in a database, for the one who has to end them.
async fn holders(session: &Session, oid: u32) -> Result<Vec<String>, PostgresError> {
    let sql = "SELECT format('%s (%s, pid %s)', coalesce(usename, backend_type), \
               coalesce(nullif(application_name, ''), 'no name'), pid) \
               FROM pg_stat_activity WHERE datid = $1 ORDER BY pid LIMIT 8";
    Ok(session.query(sql, &[&oid]).await?.iter().map(|row| row.get(0)).collect())
}

async fn attempt_swap(
    scratch: &ScratchDatabase,
    swap: Swap<'_>,
    terminator: &Session,
    progress: &mut Progress,
    cancel: &CancellationToken,
) -> Result<(), RestoreError> {
    let keeper = scratch.keeper();
    scratch.say("BEGIN").await?;
    scratch.say(IDLE).await?;
    scratch.say("SET LOCAL lock_timeout = '30s'").await?;
    let rename = rename_statement(swap.database, swap.kept_as);
    let renamed = scratch.answered_within(RENAME_MAX, keeper.execute(&rename));
    let oids = [swap.oid, scratch.oid()];
    tokio::select! {
        renamed = renamed => renamed?,
        // Never ready: it ends sessions until the rename has what it wants.
        never = end_sessions(terminator, oids, &mut progress.ended) => match never {},
        () = cancel.cancelled() => {
            // Where the request is lost, the rename fails by itself after five seconds.
            let _ = keeper.cancel().await;
            return Err(ScratchError::Interrupted.into());
        }
    }
    failpoint::hit("restore.live-renamed");
    let properties =
        DatabaseProperties::read(keeper.client(), swap.oid).await.map_err(PostgresError::from)?;
    let renamed = "SELECT oid FROM pg_database WHERE datname = $1";
    let oid = keeper.query_opt(renamed, &[&swap.kept_as]).await?.map(|row| row.get::<_, u32>(0));
    let (Some(properties), true) = (properties, oid == Some(swap.oid)) else {
        // Another hand renamed or dropped the live database since the plan was made.
        return Err(RestoreError::LiveChanged(swap.database.to_owned()));
    };
    for statement in properties.statements(scratch.name()) {
        scratch.say(&statement).await?;
    }
    scratch.say(&rename_statement(scratch.name(), swap.database)).await?;
    failpoint::hit("restore.copy-renamed");
    progress.commit_sent = true;
    scratch.say("COMMIT").await?;
    failpoint::hit("restore.swapped");
    Ok(())
}

/// What became of a COMMIT whose answer is `error`: success where the copy has its name.
async fn settle(
    scratch: &ScratchDatabase,
    database: &str,
    kept_as: Option<&str>,
    error: RestoreError,
) -> Result<(), RestoreError> {
    let begun = Instant::now();
    loop {
        match has_name(scratch, database).await {
            Ok(Some(true)) => return Ok(()),
            Ok(Some(false)) => return Err(error),
            _ if begun.elapsed() < RECOVERY_MAX.min(scratch.patience()) => {
                tokio::time::sleep(POLL).await;
            }
            _ => {
                let kept_as = kept_as.map(str::to_owned);
                return Err(RestoreError::Unknown { database: database.to_owned(), kept_as });
            }
        }
    }
}

/// Whether the name belongs to the copy. None while the keeper's session is there, which may still be committing.
async fn has_name(scratch: &ScratchDatabase, database: &str) -> Result<Option<bool>, ScratchError> {
    let Some(session) = scratch.successor().await? else { return Ok(None) };
    let sql = "SELECT 1 FROM pg_database WHERE oid = $1 AND datname = $2";
    let oid = scratch.oid();
    let parameters: Parameters<'_> = &[&oid, &database];
    let found = session.query_opt(sql, parameters);
    Ok(Some(scratch.answered(found).await?.is_some()))
}

enum Never {}

/// Ends sessions in the databases, again and again, until dropped.
async fn end_sessions(session: &Session, oids: [u32; 2], ended: &mut u64) -> Never {
    let begun = Instant::now();
    tokio::time::sleep_until(begun + GRACE).await;
    loop {
        let sql = "SELECT pid FROM pg_stat_activity WHERE datid = ANY($1) \
                   AND pid <> pg_backend_pid()";
        // A failure shows as the rename's own: it will say that the database is in use.
        for row in session.query(sql, &[&oids.as_slice()]).await.unwrap_or_default() {
            let pid: i32 = row.get(0);
            // One by one: a role may end some sessions and not others.
            let sql = "SELECT pg_terminate_backend($1)";
            if session.query_one(sql, &[&pid]).await.is_ok_and(|row| row.get(0)) {
                *ended += 1;
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

fn rename_statement(from: &str, to: &str) -> String {
    format!("ALTER DATABASE {} RENAME TO {}", quote_ident(from), quote_ident(to))
}

/// Gives the copy a free name and what its database should have beside its content; returns what could
/// not be given, one line each.
pub(super) async fn rename(
    scratch: &ScratchDatabase,
    database: &str,
    properties: &DatabaseProperties,
) -> Result<Vec<String>, RestoreError> {
    let mut left_out = Vec::new();
    let mut commit_sent = false;
    let renaming = try_rename(scratch, database, properties, &mut left_out, &mut commit_sent);
    let Err(error) = renaming.await else { return Ok(left_out) };
    if commit_sent {
        settle(scratch, database, None, error).await?;
        return Ok(left_out);
    }
    let _ = scratch.say("ROLLBACK").await;
    if error.sqlstate().is_some_and(|code| code == DUPLICATE) {
        let target = scratch.connection().describe();
        return Err(RestoreError::NameTaken { database: database.to_owned(), target });
    }
    Err(error)
}

async fn try_rename(
    scratch: &ScratchDatabase,
    database: &str,
    properties: &DatabaseProperties,
    left_out: &mut Vec<String>,
    commit_sent: &mut bool,
) -> Result<(), RestoreError> {
    scratch.say("BEGIN").await?;
    scratch.say(IDLE).await?;
    for statement in properties.statements(scratch.name()) {
        // A role that the target lacks, or a setting that this role may not make, is no reason to have no
        // copy: it is told instead.
        scratch.say("SAVEPOINT property").await?;
        match scratch.say(&statement).await {
            Ok(()) => scratch.say("RELEASE SAVEPOINT property").await?,
            Err(error) if error.sqlstate().is_some() => {
                scratch.say("ROLLBACK TO SAVEPOINT property").await?;
                let told = statement.replace(&quote_ident(scratch.name()), &quote_ident(database));
                left_out.push(format!("{told}; -- {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    scratch.say(&rename_statement(scratch.name(), database)).await?;
    failpoint::hit("restore.copy-renamed");
    *commit_sent = true;
    scratch.say("COMMIT").await?;
    failpoint::hit("restore.swapped");
    Ok(())
}
