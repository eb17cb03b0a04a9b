//! Looks at the target server before anything is made there.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Live, Target};
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::PG_CRON;
use crate::postgres::PostgresError;
use crate::postgres::session::Session;
use crate::scratch::sql::Statements as _;

/// What the server has, and what `database` is there, if it is.
pub(super) async fn of(
    session: &Session,
    server: &ConnectionInfo,
    database: &str,
) -> Result<Target, PostgresError> {
    let role = session
        .query_one(
            "SELECT rolname::text, rolsuper, rolcreatedb, rolcreaterole, pg_is_in_recovery() FROM pg_roles \
             WHERE rolname = current_user",
            &[],
        )
        .await?;
    let act = if session.major() >= 16 { "SET" } else { "MEMBER" };
    let acts_as = format!("SELECT rolname::text FROM pg_roles WHERE pg_has_role(oid, '{act}')");
    Ok(Target {
        described: server.describe(),
        server_version_num: session.server_version_num(),
        role: role.get(0),
        superuser: role.get(1),
        createdb: role.get(2),
        createrole: role.get(3),
        standby: role.get(4),
        roles: names(session, "SELECT rolname::text FROM pg_roles").await?,
        acts_as: names(session, &acts_as).await?,
        extensions: names(session, "SELECT name::text FROM pg_available_extensions").await?,
        tablespaces: names(session, "SELECT spcname::text FROM pg_tablespace").await?,
        databases: names(session, "SELECT datname::text FROM pg_database").await?,
        live: live(session, server, database).await?,
    })
}

async fn names(session: &Session, sql: &str) -> Result<BTreeSet<String>, PostgresError> {
    let rows = session.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn live(
    session: &Session,
    server: &ConnectionInfo,
    database: &str,
) -> Result<Option<Live>, PostgresError> {
    let sql = "SELECT d.oid, pg_get_userbyid(d.datdba)::text, pg_has_role(d.datdba, 'MEMBER'), \
               t.spcname::text, d.datacl IS NOT NULL, d.datallowconn, \
               ARRAY(SELECT slot_name::text FROM pg_replication_slots WHERE database = d.datname), \
               ARRAY(SELECT subname::text FROM pg_subscription \
                     WHERE subdbid = d.oid AND subenabled), \
               ARRAY(SELECT gid FROM pg_prepared_xacts WHERE database = d.datname), \
               EXISTS (SELECT 1 FROM pg_settings \
                       WHERE name = 'cron.database_name' AND setting = d.datname), \
               pg_has_role('pg_read_all_settings', 'USAGE') \
               FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace \
               WHERE d.datname = $1";
    let Some(row) = session.query_opt(sql, &[&database]).await? else { return Ok(None) };
    Ok(Some(Live {
        oid: row.get(0),
        owner: row.get(1),
        owned: row.get(2),
        tablespace: row.get(3),
        has_grants: row.get(4),
        allows_connections: row.get(5),
        slots: row.get(6),
        subscriptions: row.get(7),
        prepared: row.get(8),
        cron: row.get(9) || !row.get::<_, bool>(10) && has_cron(server, database).await,
    }))
}

/// Whether `pg_cron` is installed there, as it can be in its own database only: for a role that may not read the
/// setting which names that one. A database that does not let us in tells nothing.
async fn has_cron(server: &ConnectionInfo, database: &str) -> bool {
    let sql = "SELECT 1 FROM pg_extension WHERE extname = $1";
    let Ok(session) = Session::connect(&server.with_database(database), "restore").await else {
        return false;
    };
    session.query_opt(sql, &[&PG_CRON]).await.is_ok_and(|found| found.is_some())
}

/// Whether nobody has made anything in that database.
pub(super) async fn is_empty(
    server: &ConnectionInfo,
    database: &str,
) -> Result<bool, PostgresError> {
    let session = Session::connect(&server.with_database(database), "restore").await?;
    // What initdb makes has an OID below this one (`FirstNormalObjectId`).
    let made = "SELECT EXISTS (SELECT FROM pg_class WHERE oid >= 16384) \
                OR EXISTS (SELECT FROM pg_proc WHERE oid >= 16384) \
                OR EXISTS (SELECT FROM pg_type WHERE oid >= 16384) \
                OR EXISTS (SELECT FROM pg_namespace WHERE oid >= 16384) \
                OR EXISTS (SELECT FROM pg_extension WHERE oid >= 16384) \
                OR EXISTS (SELECT FROM pg_largeobject_metadata)";
    let row = session.query_one(made, &[]).await?;
    let made: bool = row.get(0);
    Ok(!made)
}

/// What the server is set to.
pub(super) async fn settings(session: &Session) -> Result<BTreeMap<String, String>, PostgresError> {
    let rows = session.query("SELECT name, coalesce(reset_val, '') FROM pg_settings", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The server's data directory, when the server runs on this host and the role may know it.
pub(super) async fn local_data_directory(
    session: &Session,
    server: &ConnectionInfo,
) -> Option<std::path::PathBuf> {
    use crate::domain::connection::HostName;
    let here = server.endpoints().iter().all(|endpoint| match &endpoint.host {
        HostName::Socket(_) => true,
        HostName::Network(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    });
    if !here {
        return None;
    }
    let sql = "SELECT setting FROM pg_settings WHERE name = 'data_directory'";
    let row = session.query_opt(sql, &[]).await.ok()??;
    let path = std::path::PathBuf::from(row.get::<_, Option<String>>(0)?);
    path.is_dir().then_some(path)
}
