//! Keeps a rehearsed command away from the live database: what its tool would have to lock there is locked, and whoever
//! waits for that is ended.
//!
//! What a crash leaves: nothing; the server takes the locks back with the sessions.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::error::RehearseError;
use crate::domain::connection::ConnectionInfo;
use crate::domain::migration::{State, Tool};
use crate::domain::observer::{Observer, Severity};
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident};
use crate::scratch::database::keeper_settings;

/// What Prisma Migrate locks for as long as it works.
const PRISMAS_LOCK: i64 = 72_707_369;
/// With this one Prisma does not.
const PRISMAS_SWITCH: &str = "PRISMA_SCHEMA_DISABLE_ADVISORY_LOCK";
/// How often it is asked for what somebody else has.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often it is looked who waits.
const PAUSE: Duration = Duration::from_millis(50);

const TABLE: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p')";

/// Who waits for the session whose id is `$1`. VACUUM and ANALYZE may wait: no tool migrates with their lock.
const WAITING: &str = "
    SELECT DISTINCT l.pid
      FROM pg_catalog.pg_locks l
     WHERE NOT l.granted AND l.locktype IN ('advisory', 'relation')
       AND l.mode <> 'ShareUpdateExclusiveLock'
       AND l.database = (SELECT oid FROM pg_catalog.pg_database
                          WHERE datname = pg_catalog.current_database())
       AND $1 = ANY (pg_catalog.pg_blocking_pids(l.pid))";

/// Locks that are held until it is lifted or dropped.
pub(super) struct Fence {
    /// In a transaction where it holds tables.
    holder: Session,
    pid: i32,
    watcher: Session,
    kept_out: BTreeSet<i32>,
    /// Whether anything is held at all.
    stands: bool,
}

impl Fence {
    /// Takes the locks of the tools whose histories these are; waits so long for who has them.
    pub(super) async fn raise(
        connection: &ConnectionInfo,
        states: &[State],
        wait: Duration,
        observer: &dyn Observer,
    ) -> Result<Self, RehearseError> {
        if connection.is_pooled() {
            return Err(RehearseError::Pooled);
        }
        let holder = Session::connect(connection, "rehearse").await?;
        holder.batch(&keeper_settings(holder.major())).await?;
        let watcher = Session::connect(connection, "rehearse").await?;
        watcher.batch(&keeper_settings(watcher.major())).await?;
        let row = holder.client().query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await;
        let pid = row.map_err(PostgresError::from)?.get(0);
        let mut fence = Self { holder, pid, watcher, kept_out: BTreeSet::new(), stands: false };
        if states.iter().any(|state| state.tool == Tool::Prisma) {
            fence.take_prismas(wait).await?;
            fence.stands = true;
        }
        let tables = states.iter().filter_map(|state| Some((state.tool, state.table.as_deref()?)));
        let tables: Vec<(Tool, &str)> = tables.collect();
        if !tables.is_empty() {
            fence.holder.batch("BEGIN").await?;
        }
        for (tool, table) in tables {
            // Prisma's own lock is enough, unless it is told to do without.
            let needed = tool != Tool::Prisma || std::env::var_os(PRISMAS_SWITCH).is_some();
            fence.take_table(table, wait, needed).await?;
        }
        if !fence.stands {
            let told = "no tool is known whose lock would keep the command away from the live database: \
                        it is led to the copy by its variables alone";
            observer.finding(Severity::Warning, told);
        }
        Ok(fence)
    }

    async fn take_prismas(&self, wait: Duration) -> Result<(), RehearseError> {
        let begun = Instant::now();
        let asked = "SELECT pg_catalog.pg_try_advisory_lock($1)";
        loop {
            let row = self.holder.client().query_one(asked, &[&PRISMAS_LOCK]).await;
            if row.map_err(PostgresError::from)?.get(0) {
                return Ok(());
            }
            if begun.elapsed() >= wait {
                return Err(RehearseError::Busy("Prisma Migrate's lock".to_owned()));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn take_table(
        &mut self,
        table: &str,
        wait: Duration,
        needed: bool,
    ) -> Result<(), RehearseError> {
        let found = self.holder.client().query_opt(TABLE, &[&table]).await;
        let Some(row) = found.map_err(PostgresError::from)? else { return Ok(()) };
        let (schema, name): (String, String) = (row.get(1), row.get(2));
        let quoted = format!("{}.{}", quote_ident(&schema), quote_ident(&name));
        let limit = wait.as_millis().max(1);
        let statement = format!(
            "SAVEPOINT one; SET LOCAL lock_timeout = {limit}; LOCK TABLE {quoted} IN SHARE MODE"
        );
        match self.holder.batch(&statement).await {
            Ok(()) => {
                self.stands = true;
                Ok(())
            }
            Err(PostgresError::LockNotAvailable { .. }) => {
                Err(RehearseError::Busy(format!("table {table}")))
            }
            Err(error) if needed => {
                Err(RehearseError::Unfenced { table: table.to_owned(), source: error })
            }
            Err(_) => Ok(self.holder.batch("ROLLBACK TO one").await?),
        }
    }

    /// Ends whoever waits, until it is dropped; or why it holds no more.
    pub(super) async fn watch(&mut self, observer: &dyn Observer) -> PostgresError {
        loop {
            if let Err(error) = self.look(observer).await {
                return error;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends whoever waits now.
    pub(super) async fn look(&mut self, observer: &dyn Observer) -> Result<(), PostgresError> {
        if self.holder.is_closed() {
            let reason = "the session that fences the live database was ended".to_owned();
            return Err(PostgresError::ConnectionLost { reason });
        }
        let client = self.watcher.client();
        for row in client.query(WAITING, &[&self.pid]).await? {
            let waiting: i32 = row.get(0);
            // Counted before it is ended: with its end the command may be over, and nobody waits for this answer any more.
            let first = self.kept_out.insert(waiting);
            let asked = "SELECT pg_catalog.pg_terminate_backend($1)";
            let ended = client.query(asked, &[&waiting]).await.map_err(PostgresError::from);
            if first {
                let how = match ended {
                    Ok(_) => "ended".to_owned(),
                    // It waits on, until the fence is lifted, or its patience is at its end.
                    Err(error) => format!("kept waiting, since it cannot be ended: {error}"),
                };
                let told =
                    format!("a session in the live database wanted the tool's lock and was {how}");
                observer.finding(Severity::Warning, &told);
            }
        }
        Ok(())
    }

    /// How many sessions were kept out.
    pub(super) fn kept_out(&self) -> usize {
        self.kept_out.len()
    }

    /// Gives the locks back.
    pub(super) async fn lift(self) -> Result<(), PostgresError> {
        self.holder.batch("ROLLBACK; SELECT pg_catalog.pg_advisory_unlock_all()").await
    }
}
