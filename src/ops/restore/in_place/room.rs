//! Makes room: keeps others out, and removes what is there, all within the one transaction.
//!
//! First writers are kept out (SHARE ROW EXCLUSIVE on every table: readers go on, and so does `pg_dump`), then everybody
//! (ACCESS EXCLUSIVE), and then the drops come at once. Nobody is waited for without end: each lock is waited
//! for a little longer than `deadlock_timeout`, at which a waiter sends an autovacuum away, then all that is new
//! is let go, so that who queued behind us goes on, and it is tried again while [`PATIENCE`] lasts.
//!
//! A transaction that is idle with a view of its own (REPEATABLE READ) and has not touched our tables holds no
//! lock on them. It would find the new tables empty, so it is waited for like a lock.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::super::RestoreError;
use super::clearing::Clearing;
use crate::domain::inventory::{Inventory, LeftOut, ObjectKind};
use crate::postgres::present::{self, Present, TABLE};
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident};
use crate::proof::Staying;
use crate::scratch::sql::Statements as _;

/// How long one lock is waited for at a time.
const WAIT: &str = "SET LOCAL lock_timeout = '2s'";
/// Between two tries, for those who queued behind us.
const PAUSE: Duration = Duration::from_millis(300);
/// How long it is tried.
const PATIENCE: Duration = Duration::from_secs(20);
/// Statements that are sent together.
const TOGETHER: usize = 200;

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// Whom a lock keeps out.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Writers,
    Everybody,
}

impl Mode {
    const fn words(self) -> &'static str {
        match self {
            Self::Writers => "SHARE ROW EXCLUSIVE",
            Self::Everybody => "ACCESS EXCLUSIVE",
        }
    }
}

/// Begins the transaction and keeps writers out of every table there is.
pub(super) async fn keep_writers_out(
    session: &Session,
    database: &str,
) -> Result<(), RestoreError> {
    let begun = Instant::now();
    loop {
        session.execute(BEGIN).await?;
        session.execute(WAIT).await?;
        let objects = present::objects(session).await?;
        let locked = lock(session, &objects, Mode::Writers).await;
        // Where something came or went meanwhile, it begins anew.
        let error = match locked {
            Ok(()) => match changed(session, database, &objects).await? {
                None => return Ok(()),
                Some(error) => error,
            },
            Err(error) => error.into(),
        };
        session.execute("ROLLBACK").await?;
        if !matches!(error, RestoreError::ObjectsChanged { .. }) && !is_blocked(&error) {
            return Err(error);
        }
        if begun.elapsed() > PATIENCE {
            return Err(in_use(session, database, &objects, Mode::Writers, error).await);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The error that it is when what is there is not what was seen.
async fn changed(
    session: &Session,
    database: &str,
    seen: &BTreeSet<Present>,
) -> Result<Option<RestoreError>, PostgresError> {
    let now = present::objects(session).await?;
    if now == *seen {
        return Ok(None);
    }
    let what = now.symmetric_difference(seen).map(Present::describe).collect();
    Ok(Some(RestoreError::ObjectsChanged { database: database.to_owned(), what }))
}

/// Keeps everybody out and drops what is to go.
pub(super) async fn clear(
    session: &Session,
    database: &str,
    clearing: &Clearing,
) -> Result<(), RestoreError> {
    let begun = Instant::now();
    loop {
        session.execute("SAVEPOINT room").await?;
        session.execute(WAIT).await?;
        let error = match try_clear(session, database, clearing).await {
            Ok(()) => {
                session.execute("RELEASE SAVEPOINT room; SET LOCAL lock_timeout = 0").await?;
                return Ok(());
            }
            Err(error) => error,
        };
        if !is_blocked(&error) {
            return Err(error);
        }
        session.execute("ROLLBACK TO SAVEPOINT room; RELEASE SAVEPOINT room").await?;
        if begun.elapsed() > PATIENCE {
            let (objects, mode) = (&clearing.seen, Mode::Everybody);
            return Err(in_use(session, database, objects, mode, error).await);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn try_clear(
    session: &Session,
    database: &str,
    clearing: &Clearing,
) -> Result<(), RestoreError> {
    lock(session, &clearing.seen, Mode::Everybody).await?;
    if let Some(error) = changed(session, database, &clearing.seen).await? {
        return Err(error);
    }
    let holders = holders(session, OLD_VIEWS, &[]).await?;
    if !holders.is_empty() {
        return Err(RestoreError::TablesHeld { database: database.to_owned(), holders });
    }
    session.execute("SET LOCAL client_min_messages = 'error'").await?;
    for some in clearing.statements().chunks(TOGETHER) {
        session.execute(&some.join(";\n")).await?;
    }
    Ok(())
}

/// In the order of the OIDs, each table alone: its partitions and children are in the list themselves.
async fn lock(
    session: &Session,
    objects: &BTreeSet<Present>,
    mode: Mode,
) -> Result<(), PostgresError> {
    let tables: Vec<&str> =
        objects.iter().filter(|one| one.kind == TABLE).map(|one| &*one.identity).collect();
    for some in tables.chunks(TOGETHER) {
        let names = some.join(", ONLY ");
        session.execute(&format!("LOCK TABLE ONLY {names} IN {} MODE", mode.words())).await?;
    }
    Ok(())
}

/// A view that is too old, 55P03, 40P01, and 42P01: a table that went between the look and the lock.
fn is_blocked(error: &RestoreError) -> bool {
    let states = ["55P03", "40P01", "42P01"];
    matches!(error, RestoreError::TablesHeld { .. })
        || error.sqlstate().is_some_and(|state| states.contains(&state))
}

/// Names those who are in the way, if it is a lock that was not to be had and they still are.
async fn in_use(
    session: &Session,
    database: &str,
    objects: &BTreeSet<Present>,
    mode: Mode,
    error: RestoreError,
) -> RestoreError {
    if error.sqlstate().is_none() {
        return error;
    }
    let oids: Vec<u32> = objects.iter().map(|one| one.oid).collect();
    let sql = match mode {
        Mode::Writers => WRITERS,
        Mode::Everybody => EVERYBODY,
    };
    let holders = holders(session, sql, &[&oids]).await.unwrap_or_default();
    if holders.is_empty() {
        return error;
    }
    RestoreError::TablesHeld { database: database.to_owned(), holders }
}

/// Whatever role asks, PostgreSQL tells it pid, role and application.
macro_rules! holders {
    ($rest:literal) => {
        concat!(
            "SELECT DISTINCT pg_catalog.format('%s (pid %s, %s%s)', coalesce(a.usename::text, 'nobody'), a.pid, \
             a.application_name, coalesce(', ' || a.state, '')) FROM pg_catalog.pg_stat_activity a ",
            $rest
        )
    };
}

const WRITERS: &str = holders!(
    "JOIN pg_catalog.pg_locks l ON l.pid = a.pid WHERE l.locktype = 'relation' AND l.granted \
     AND l.relation = ANY($1) AND l.mode NOT IN ('AccessShareLock', 'RowShareLock') \
     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
     AND a.pid <> pg_catalog.pg_backend_pid()"
);
const EVERYBODY: &str = holders!(
    "JOIN pg_catalog.pg_locks l ON l.pid = a.pid WHERE l.locktype = 'relation' AND l.granted \
     AND l.relation = ANY($1) \
     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
     AND a.pid <> pg_catalog.pg_backend_pid()"
);
const OLD_VIEWS: &str = holders!(
    "WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid() \
     AND a.state = 'idle in transaction' AND a.backend_xmin IS NOT NULL"
);

async fn holders(
    session: &Session,
    sql: &str,
    parameters: crate::scratch::sql::Parameters<'_>,
) -> Result<Vec<String>, PostgresError> {
    let rows = session.query(sql, parameters).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Brings the schemas that stay to the state in which a new database would have them. Told: what cannot be
/// compared afterwards.
pub(super) async fn settle_schemas(
    session: &Session,
    clearing: &Clearing,
    expected: &Inventory,
) -> Result<Staying, RestoreError> {
    let mut staying = clearing.staying.clone();
    let public = expected.objects_of(ObjectKind::Schema).find(|schema| schema.name == "public");
    if let Some(recorded) = public {
        settle_public(session, &mut staying, recorded.owner.is_none()).await?;
    }
    for schema in staying.schemas.difference(&staying.foreign_schemas) {
        if let Some(statements) = present::schema_privileges(session, schema).await? {
            session.execute(&statements).await?;
        }
    }
    if !staying.without_first_privileges.is_empty() {
        // What `initdb` gives it.
        let what = if session.major() >= 15 { "USAGE" } else { "ALL" };
        session.execute(&format!("GRANT {what} ON SCHEMA public TO PUBLIC")).await?;
    }
    Ok(staying)
}

/// `DROP SCHEMA public CASCADE` belongs to the accidents that bring people here, and so does making it anew.
async fn settle_public(
    session: &Session,
    staying: &mut Staying,
    initial_owner: bool,
) -> Result<(), PostgresError> {
    if !staying.schemas.contains("public") {
        session.execute("CREATE SCHEMA public").await?;
        staying.schemas.insert("public".to_owned());
    }
    let sql = "SELECT pg_get_userbyid(n.nspowner)::text, pg_has_role(n.nspowner, 'USAGE'), \
                      EXISTS (SELECT FROM pg_init_privs i WHERE i.objoid = n.oid \
                              AND i.classoid = 'pg_namespace'::regclass AND i.objsubid = 0) \
               FROM pg_namespace n WHERE n.nspname = 'public'";
    let row = session.query_one(sql, &[]).await?;
    let (owner, may, first): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
    if !may {
        return Ok(());
    }
    let initial = "pg_database_owner";
    if initial_owner && session.major() >= 15 && owner != initial {
        session.execute(&format!("ALTER SCHEMA public OWNER TO {}", quote_ident(initial))).await?;
    }
    if !first {
        staying.without_first_privileges.push(LeftOut::new("ACL", "", "SCHEMA public"));
    }
    Ok(())
}
