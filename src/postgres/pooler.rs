//! Whether something stands between us and the server, told by how it behaves.
//!
//! A pooler that keeps a server connection for a session only changes what can be asked for when connecting.
//! One that gives it to others after each transaction breaks what a snapshot stands on: locks, exported
//! snapshots and settings belong to a server process, and the next statement may meet another one. So two
//! sessions ask which process serves them: on a server each has its own as long as it lives.
//! Reads only; simple queries only, since prepared statements would not last either.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;

use super::PostgresError;
use super::session::Session;
use crate::domain::connection::ConnectionInfo;

/// A setting that no server has: what comes back is what we sent when connecting.
const PROBE: &str = "pgkeep.probe";
/// Each session is asked so often: a pooler that gives connections out in turn needs more than one look.
const ROUNDS: u32 = 4;

/// How long an answer to such a question may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Nothing that could be noticed.
    None,
    /// A server process for each session, but settings that are asked for when connecting do not reach it.
    Session,
    /// A server process for each transaction or statement.
    Transaction,
}

/// Looks what stands between us and the database of `info`.
pub async fn look(info: &ConnectionInfo) -> Result<Pooling, PostgresError> {
    let (first, options) = connect(info).await?;
    let other = if options { &info.with_options(&option()) } else { info };
    let second = Session::connect(other, "check").await?;
    let process = served_by(&first).await?;
    for _ in 0..ROUNDS {
        let others = served_by(&second).await?;
        if others == process || served_by(&first).await? != process {
            return Ok(Pooling::Transaction);
        }
    }
    Ok(if options { Pooling::None } else { Pooling::Session })
}

/// Refuses what no snapshot, copy or lock survives; tells whether session settings can be asked for.
pub async fn refuse_transaction_pooling(info: &ConnectionInfo) -> Result<Pooling, PostgresError> {
    match look(info).await? {
        Pooling::Transaction => Err(PostgresError::TransactionPooler { address: address(info) }),
        other => Ok(other),
    }
}

/// Refuses what no renaming of databases survives: a pooler stays connected after its clients have gone.
pub async fn refuse_pooling(info: &ConnectionInfo) -> Result<(), PostgresError> {
    match refuse_transaction_pooling(info).await? {
        Pooling::None => Ok(()),
        _ => Err(PostgresError::SessionPooler { address: address(info) }),
    }
}

fn address(info: &ConnectionInfo) -> String {
    let hosts: Vec<String> = info.endpoints().iter().map(ToString::to_string).collect();
    hosts.join(",")
}

fn option() -> String {
    format!("-c {PROBE}=on")
}

/// A session, and whether the settings asked for reached the server.
async fn connect(info: &ConnectionInfo) -> Result<(Session, bool), PostgresError> {
    match Session::connect(&info.with_options(&option()), "check").await {
        Ok(session) => {
            let sql = format!("SELECT pg_catalog.current_setting('{PROBE}', true)");
            let arrived = cell(&session, &sql).await?;
            Ok((session, arrived.as_deref() == Some("on")))
        }
        Err(error) if refuses_options(&error) => {
            Ok((Session::connect(info, "check").await?, false))
        }
        Err(error) => Err(error),
    }
}

/// The words of PgBouncer and of Amazon's proxy.
fn refuses_options(error: &PostgresError) -> bool {
    let told = error.to_string();
    told.contains("unsupported startup parameter") || told.contains("command-line options")
}

async fn served_by(session: &Session) -> Result<Option<String>, PostgresError> {
    cell(session, "SELECT pg_catalog.pg_backend_pid()").await
}

async fn cell(session: &Session, sql: &str) -> Result<Option<String>, PostgresError> {
    // A pooler may let us in and have no server connection left for us.
    let asked = tokio::time::timeout(PATIENCE, session.client().simple_query(sql)).await;
    let messages = asked.map_err(|_| PostgresError::TimedOut {
        address: session.address().to_owned(),
        waited: PATIENCE,
    })??;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(row.and_then(|row| row.get(0)).map(str::to_owned))
}

/// Settings that `pg_dump` does not make itself, and that decide how rows and definitions are written.
const DUMP_SETTINGS: [(&str, &str); 2] =
    [("bytea_output", "hex"), ("quote_all_identifiers", "off")];

/// Refuses a session whose rows would be written otherwise than the proof compares them, where `pg_dump` cannot
/// be told when connecting. The rest it sets itself, and the time zone comes from `PGTZ`, which gets through.
pub async fn refuse_odd_settings(session: &Session) -> Result<(), PostgresError> {
    for (setting, wanted) in DUMP_SETTINGS {
        let sql = format!("SELECT pg_catalog.current_setting('{setting}')");
        let value = cell(session, &sql).await?.unwrap_or_default();
        if value != wanted {
            return Err(PostgresError::PooledSetting { setting, wanted, value });
        }
    }
    Ok(())
}
