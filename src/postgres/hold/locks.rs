//! Takes the locks, then the snapshot: the steps that the head of [`super`] tells.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::{Held, HoldError, HoldOptions};
use crate::domain::inventory::display_name;
use crate::domain::observer::Observer;
use crate::postgres::dumped::{self, DumpedRelation, Excluded};
use crate::postgres::preflight::{self, PreflightError};

/// Timeouts that would end a long dump are off. Local to the transaction, since behind a pooler a session's
/// settings stay for others.
const HOLD_SETTINGS: &str = "\
    SET LOCAL statement_timeout = 0;\
    SET LOCAL lock_timeout = 0;\
    SET LOCAL idle_in_transaction_session_timeout = 0;\
    SET LOCAL search_path = ''";
/// PostgreSQL 17 and later.
const HOLD_SETTINGS_17: &str = "SET LOCAL transaction_timeout = 0";

/// A statement that names more tables than this would be long without being quicker.
const LOCKED_AT_ONCE: usize = 500;

const LIST: &str = "list the tables to be dumped";
const LOCK: &str = "lock the tables to be dumped";
const LOOK: &str = "look who holds a table";

/// Locks, exports and looks again, as the module's head tells. On success the session is inside the
/// transaction; on failure it is outside of any.
pub async fn hold(
    client: &Client,
    options: &HoldOptions,
    observer: &dyn Observer,
) -> Result<Held, HoldError> {
    const ASK: &str = "ask for the server's version";
    let version = step(ASK, text(client, "SHOW server_version_num").await)?;
    let version = version.and_then(|version| version.parse().ok()).unwrap_or_default();
    let excluded = dumped::excluded(client, &options.exclude_table_data).await;
    let excluded = excluded.map_err(|source| HoldError::Statement {
        step: "look up the tables of exclude_table_data",
        source,
    })?;
    let mut holder = Holder { client, options, observer, excluded, version };
    let held = holder.hold().await;
    if held.is_err() {
        holder.rollback().await;
    }
    held
}

/// Grows from a twentieth of a second to two seconds.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(50) * attempt.min(40)
}

fn step<T>(step: &'static str, result: Result<T, Error>) -> Result<T, HoldError> {
    result.map_err(|error| HoldError::Statement { step, source: error.into() })
}

/// The first cell of the first row.
async fn text(client: &Client, sql: &str) -> Result<Option<String>, Error> {
    let rows = client.query_typed(sql, &[]).await?;
    rows.first().map_or(Ok(None), |row| row.try_get(0))
}

impl From<HoldError> for Setback {
    fn from(error: HoldError) -> Self {
        Self::Fatal(error)
    }
}

/// Why an attempt came to nothing.
enum Setback {
    /// Trying again cannot help.
    Fatal(HoldError),
    /// 42501.
    Denied(Error),
    /// Another session holds or wants a table exclusively.
    Taken,
    /// The list of tables changed; one of them.
    Changed(String),
}

/// Who keeps us from tables.
#[derive(Default)]
pub(super) struct Blockers {
    /// The tables' names for people.
    tables: Vec<String>,
    /// The first of them.
    first: Option<DumpedRelation>,
    /// Who holds or wants them.
    pub(super) who: Vec<String>,
}

impl Blockers {
    pub(super) fn tables(&self) -> String {
        match self.tables.as_slice() {
            [] => "the tables to be dumped".to_owned(),
            [one] => format!("table {one}"),
            [one, rest @ ..] => format!("table {one} and {} more", rest.len()),
        }
    }
}

struct Holder<'a> {
    client: &'a Client,
    options: &'a HoldOptions,
    observer: &'a dyn Observer,
    excluded: Excluded,
    version: u32,
}

impl Holder<'_> {
    async fn hold(&mut self) -> Result<Held, HoldError> {
        self.preflight().await?;
        let attempts = self.options.attempts_max.max(1);
        let mut changed = None;
        let mut blockers = Blockers::default();
        for attempt in 1..=attempts {
            let setback = match self.attempt().await {
                Ok((snapshot, tables)) => return self.facts(snapshot, tables, attempt).await,
                Err(setback) => setback,
            };
            self.rollback().await;
            match setback {
                Setback::Fatal(error) => return Err(error),
                Setback::Denied(error) => {
                    // Privileges were taken away meanwhile, or the preflight knows less than the server.
                    self.preflight().await?;
                    return Err(HoldError::Statement { step: LOCK, source: error.into() });
                }
                Setback::Changed(name) => changed = Some(name),
                Setback::Taken => {
                    changed = None;
                    blockers = self.wait().await?;
                }
            }
            if attempt < attempts {
                tokio::time::sleep(pause(attempt)).await;
            }
        }
        Err(match changed {
            Some(changed) => HoldError::Changing { attempts, changed },
            None => {
                HoldError::Blocked { tables: blockers.tables(), attempts, blockers: blockers.who }
            }
        })
    }

    async fn rollback(&self) {
        // When this fails the session is lost, and the next statement tells.
        let _ = self.client.batch_execute("ROLLBACK").await;
    }

    /// Begins a transaction that no setting of the role or the database ends early or leads astray.
    async fn begin(&self, level: &str) -> Result<(), HoldError> {
        let begin = format!("BEGIN ISOLATION LEVEL {level} READ ONLY");
        step("begin a transaction", self.client.batch_execute(&begin).await)?;
        step("switch timeouts off", self.client.batch_execute(HOLD_SETTINGS).await)?;
        if self.version >= 170_000 {
            step("switch timeouts off", self.client.batch_execute(HOLD_SETTINGS_17).await)?;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<DumpedRelation>, HoldError> {
        dumped::relations(self.client, &self.excluded.oids)
            .await
            .map_err(|source| HoldError::Statement { step: LIST, source })
    }

    /// Lists in a transaction of its own, which ends before the next statement.
    async fn list_apart(&self) -> Result<Vec<DumpedRelation>, HoldError> {
        self.begin("READ COMMITTED").await?;
        let tables = self.list().await?;
        step(LIST, self.client.batch_execute("COMMIT").await)?;
        Ok(tables)
    }

    async fn preflight(&self) -> Result<(), HoldError> {
        self.begin("READ COMMITTED").await?;
        let tables = self.list().await?;
        let obstacles = preflight::obstacles(self.client, self.version, &tables).await;
        step(LIST, self.client.batch_execute("COMMIT").await)?;
        Ok(obstacles.map_err(PreflightError::from)?.into_result()?)
    }

    async fn attempt(&self) -> Result<(String, Vec<DumpedRelation>), Setback> {
        let tables = self.list_apart().await?;
        self.begin("REPEATABLE READ").await?;
        let locked: Vec<&DumpedRelation> =
            tables.iter().filter(|table| table.is_locked()).collect();
        for some in locked.chunks(LOCKED_AT_ONCE) {
            let names: Vec<String> = some.iter().map(|table| table.quoted()).collect();
            let names = names.join(", ONLY ");
            let lock = format!("LOCK TABLE ONLY {names} IN ACCESS SHARE MODE NOWAIT");
            let locking = self.client.batch_execute(&lock).await;
            locking.map_err(|error| setback(error, locked.len()))?;
        }
        let export = "SELECT pg_catalog.pg_export_snapshot()";
        let snapshot = step("export a snapshot", text(self.client, export).await)?;
        let now = self.list().await?;
        match changed(&tables, &now) {
            Some(name) => Err(Setback::Changed(name)),
            None => Ok((snapshot.unwrap_or_default(), now)),
        }
    }

    /// Waits, holding nothing, until a table that others hold or want is free, or `lock_wait` is over.
    async fn wait(&self) -> Result<Blockers, HoldError> {
        self.begin("READ COMMITTED").await?;
        let tables = self.list().await?;
        let blockers = blockers(self.client, &tables).await?;
        step(LOOK, self.client.batch_execute("COMMIT").await)?;
        self.observer.step("waiting for locks on", &blockers.tables());
        if let Some(table) = &blockers.first {
            self.wait_for(table).await?;
        }
        Ok(blockers)
    }

    async fn wait_for(&self, table: &DumpedRelation) -> Result<(), HoldError> {
        self.begin("READ COMMITTED").await?;
        let waited = self.options.lock_wait.as_millis().max(1);
        let limit = format!("SET LOCAL lock_timeout = {waited}");
        step(LOCK, self.client.batch_execute(&limit).await)?;
        let lock = format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", table.quoted());
        let locking = self.client.batch_execute(&lock).await;
        self.rollback().await;
        match locking.map_err(|error| setback(error, 1)) {
            Err(Setback::Fatal(error)) => Err(error),
            // Free now, or taken still, or gone, or no longer ours: the next attempt tells.
            _ => Ok(()),
        }
    }

    /// What the manifest tells besides, each as far as the server lets us know.
    async fn facts(
        &mut self,
        snapshot: String,
        tables: Vec<DumpedRelation>,
        attempts: u32,
    ) -> Result<Held, HoldError> {
        const ASK: &str = "ask for the server's version";
        let in_recovery =
            step(ASK, text(self.client, IN_RECOVERY).await)?.as_deref() == Some("true");
        let (lsn, timeline) = if in_recovery {
            (STANDBY_LSN, CONTROL_TIMELINE)
        } else {
            (PRIMARY_LSN, PRIMARY_TIMELINE)
        };
        let timeline = self.best_effort(timeline).await?;
        Ok(Held {
            snapshot,
            tables,
            unmatched: std::mem::take(&mut self.excluded.unmatched),
            server_version_num: self.version,
            server_version: step(ASK, text(self.client, "SHOW server_version").await)?
                .unwrap_or_default(),
            in_recovery,
            lsn: self.best_effort(lsn).await?,
            timeline: timeline.and_then(|text| text.parse().ok()),
            system_identifier: self.best_effort(SYSTEM_IDENTIFIER).await?,
            attempts,
        })
    }

    /// One text, or none where the server refuses: a refusal must not end the transaction.
    async fn best_effort(&self, sql: &str) -> Result<Option<String>, HoldError> {
        const ASK: &str = "ask for the server's WAL position and identity";
        step(ASK, self.client.batch_execute("SAVEPOINT pgkeep").await)?;
        let Ok(value) = text(self.client, sql).await else {
            let undo = "ROLLBACK TO SAVEPOINT pgkeep; RELEASE SAVEPOINT pgkeep";
            step(ASK, self.client.batch_execute(undo).await)?;
            return Ok(None);
        };
        step(ASK, self.client.batch_execute("RELEASE SAVEPOINT pgkeep").await)?;
        Ok(value)
    }
}

const IN_RECOVERY: &str = "SELECT pg_catalog.pg_is_in_recovery()::text";
const PRIMARY_LSN: &str = "SELECT pg_catalog.pg_current_wal_lsn()::text";
const STANDBY_LSN: &str = "SELECT pg_catalog.pg_last_wal_replay_lsn()::text";
/// The control file's timeline is as old as the last checkpoint; the name of the present WAL file is not.
const PRIMARY_TIMELINE: &str = "
    SELECT ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int::text";
const CONTROL_TIMELINE: &str = "SELECT timeline_id::text FROM pg_catalog.pg_control_checkpoint()";
const SYSTEM_IDENTIFIER: &str =
    "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";

/// Who holds ACCESS EXCLUSIVE on one of these tables, or waits for it and so is before us in the queue.
const BLOCKERS: &str = "
    SELECT l.relation, CASE WHEN l.granted THEN 'held' ELSE 'wanted' END || ' by pid ' || l.pid
           || coalesce(' (' || NULLIF(pg_catalog.concat_ws(', ', NULLIF(a.application_name, ''), a.state), '') || ')', '')
      FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.relation = ANY ($1)
       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                          WHERE d.datname = pg_catalog.current_database())
     ORDER BY l.granted DESC, l.pid, l.relation";

/// What an error of LOCK TABLE means.
fn setback(error: Error, tables: usize) -> Setback {
    // What is gone or is something else now was dropped or renamed after it was listed.
    const CHANGED: [SqlState; 4] = [
        SqlState::UNDEFINED_TABLE,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::UNDEFINED_OBJECT,
        SqlState::WRONG_OBJECT_TYPE,
    ];
    match error.code() {
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => Setback::Taken,
        Some(code) if CHANGED.contains(code) => {
            let said =
                error.as_db_error().map_or_else(String::new, |said| said.message().to_owned());
            Setback::Changed(format!("`{said}`"))
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => Setback::Denied(error),
        Some(code) if *code == SqlState::OUT_OF_MEMORY => {
            Setback::Fatal(HoldError::TooManyTables { tables, source: error.into() })
        }
        _ => Setback::Fatal(HoldError::Statement { step: LOCK, source: error.into() }),
    }
}

/// Who keeps others from these tables.
pub(super) async fn blockers(
    client: &Client,
    tables: &[DumpedRelation],
) -> Result<Blockers, HoldError> {
    let locked: Vec<_> = tables.iter().filter(|table| table.is_locked()).collect();
    let oids: Vec<u32> = locked.iter().map(|table| table.oid).collect();
    let rows = client.query_typed(BLOCKERS, &[(&oids, Type::OID_ARRAY)]).await;
    let mut found = Blockers::default();
    for row in step(LOOK, rows)? {
        let oid: u32 = step(LOOK, row.try_get(0))?;
        if let Some(table) = locked.iter().find(|table| table.oid == oid) {
            let name = display_name(Some(&table.schema), &table.name);
            if !found.tables.contains(&name) {
                found.tables.push(name);
            }
            found.first.get_or_insert_with(|| (*table).clone());
        }
        let who: String = step(LOOK, row.try_get(1))?;
        if !found.who.contains(&who) {
            found.who.push(who);
        }
    }
    Ok(found)
}

/// The name of a table to be locked that is in one list only.
fn changed(before: &[DumpedRelation], after: &[DumpedRelation]) -> Option<String> {
    let locked = |list: &[DumpedRelation]| -> BTreeSet<DumpedRelation> {
        list.iter().filter(|table| table.is_locked()).cloned().collect()
    };
    let (before, after) = (locked(before), locked(after));
    before
        .symmetric_difference(&after)
        .next()
        .map(|table| display_name(Some(&table.schema), &table.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::dumped::DumpedKind;

    fn table(name: &str, oid: u32) -> DumpedRelation {
        DumpedRelation {
            schema: "s".into(),
            name: name.into(),
            oid,
            kind: DumpedKind::Table,
            of_extension: false,
            rows_excluded: false,
        }
    }

    #[test]
    fn a_table_that_came_went_or_was_swapped_is_seen() {
        let list = [table("a", 1), table("b", 2)];
        assert_eq!(changed(&list, &list), None);
        assert_eq!(changed(&list, &list[..1]), Some("s.b".into()));
        assert_eq!(changed(&list[..1], &list), Some("s.b".into()));
        assert_eq!(changed(&list, &[table("a", 2), table("b", 1)]), Some("s.a".into()));
    }

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(pause(1), Duration::from_millis(50));
        assert_eq!(pause(1000), Duration::from_secs(2));
    }
}
