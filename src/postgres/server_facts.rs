//! What a server says of itself and of the role, for `check`. Reads only.

use super::PostgresError;
use super::session::Session;

/// What is known of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerFacts {
    /// `server_version`, in words.
    pub version: String,
    /// Its clock, in milliseconds since 1970.
    pub clock_ms: i64,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// Its identifier in decimal; none where it hides it.
    pub system_identifier: Option<String>,
    /// `max_connections` without what is reserved for superusers.
    pub connections_max: i64,
    /// Client connections at this moment, ours included.
    pub connections_used: i64,
    /// How many locks the server has room for.
    pub locks_max: i64,
    /// The role.
    pub role: RoleFacts,
}

/// What is known of the session's role.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an attribute or a right of its own")]
pub struct RoleFacts {
    /// Its name.
    pub name: String,
    /// It may do anything.
    pub superuser: bool,
    /// Row security does not apply to it.
    pub bypasses_row_security: bool,
    /// It may read everything.
    pub reads_all_data: bool,
    /// It may read password hashes, so that roles are kept whole.
    pub reads_passwords: bool,
    /// At most so many sessions; -1 is no limit.
    pub connections_max: i32,
    /// Its sessions at this moment.
    pub connections_used: i64,
    /// Days until its password ends; none where it does not.
    pub password_days: Option<i64>,
}

/// Of other roles' sessions a role without statistics sees the database, not the kind of backend.
const SERVER: &str = "
    SELECT pg_catalog.current_setting('server_version'),
           (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000)::bigint,
           pg_catalog.pg_is_in_recovery(),
           pg_catalog.current_setting('max_connections')::bigint
             - pg_catalog.current_setting('superuser_reserved_connections')::bigint
             - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::bigint,
           (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datid IS NOT NULL),
           pg_catalog.current_setting('max_locks_per_transaction')::bigint
             * (pg_catalog.current_setting('max_connections')::bigint
                + pg_catalog.current_setting('max_prepared_transactions')::bigint)";

const ROLE: &str = "
    SELECT r.rolname::text, r.rolsuper, r.rolbypassrls,
           r.rolsuper OR pg_catalog.pg_has_role(r.oid, 'pg_read_all_data', 'USAGE'),
           pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT'),
           r.rolconnlimit,
           (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid),
           CASE WHEN pg_catalog.isfinite(r.rolvaliduntil) THEN
             floor(extract(epoch FROM r.rolvaliduntil - pg_catalog.clock_timestamp()) / 86400)::bigint END
      FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";

const IDENTIFIER: &str = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";

/// Asks a server of a supported major.
pub async fn ask(session: &Session) -> Result<ServerFacts, PostgresError> {
    let client = session.client();
    let mut facts = None;
    for row in client.query_typed(ROLE, &[]).await? {
        facts = Some(RoleFacts {
            name: row.try_get(0)?,
            superuser: row.try_get(1)?,
            bypasses_row_security: row.try_get(2)?,
            reads_all_data: row.try_get(3)?,
            reads_passwords: row.try_get(4)?,
            connections_max: row.try_get(5)?,
            connections_used: row.try_get(6)?,
            password_days: row.try_get(7)?,
        });
    }
    let role = facts.ok_or_else(|| PostgresError::ConnectionLost {
        reason: "the session's role is no more".to_owned(),
    })?;
    // A managed server may refuse.
    let identifier = client.query_typed(IDENTIFIER, &[]).await.ok();
    let identifier = identifier.as_ref().and_then(|rows| rows.first());
    let system_identifier = identifier.and_then(|row| row.try_get(0).ok());
    let row = client.query_typed(SERVER, &[]).await?;
    let row = row.first().ok_or_else(|| PostgresError::ConnectionLost {
        reason: "the server answered nothing".to_owned(),
    })?;
    Ok(ServerFacts {
        version: row.try_get(0)?,
        clock_ms: row.try_get(1)?,
        in_recovery: row.try_get(2)?,
        system_identifier,
        connections_max: row.try_get(3)?,
        connections_used: row.try_get(4)?,
        locks_max: row.try_get(5)?,
        role,
    })
}

/// Bytes that the session's database takes on the server's disk.
pub async fn database_bytes(session: &Session) -> Result<u64, PostgresError> {
    let sql = "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())";
    let rows = session.client().query_typed(sql, &[]).await?;
    let bytes: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}
