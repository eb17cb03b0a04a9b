//! Whether the snapshot could be restored from here: by this host, by this role, onto that disk.

use super::Guarding;
use super::error::MigrateError;
use crate::domain::told::chain;
use crate::ops::restore::room_for_copy;
use crate::postgres::PostgresError;
use crate::postgres::session::Session;
use crate::scratch::space;

const MAY: &str = "
    SELECT r.rolsuper OR (r.rolcreatedb AND pg_catalog.pg_has_role(d.datdba, 'MEMBER'))
      FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
     WHERE r.rolname = current_user AND d.datname = pg_catalog.current_database()";

const SIZE: &str = "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())";

/// What keeps this host and this role from it.
pub(super) async fn closed(
    guarding: &Guarding<'_>,
    session: &Session,
) -> Result<Option<String>, MigrateError> {
    if guarding.repository.keys().opener.is_none() {
        return Ok(Some("this host holds no identity".to_owned()));
    }
    let may: bool = session.client().query_one(MAY, &[]).await.map_err(PostgresError::from)?.get(0);
    let role = guarding.snapshot.connection.user();
    let told = || format!("role {role} may not create databases and rename this one");
    Ok((!may).then(told))
}

/// The room that a copy beside the live database lacks, where the server's disk can be seen from here.
pub(super) async fn cramped(
    guarding: &Guarding<'_>,
    session: &Session,
) -> Result<Option<String>, MigrateError> {
    let row = session.client().query_one(SIZE, &[]).await.map_err(PostgresError::from)?;
    let size_bytes = u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    let copy_bytes = space::restored_bytes(size_bytes, Some(size_bytes));
    let (server, scratch_dir) = (guarding.connection(), guarding.verifying.scratch_dir);
    let room = room_for_copy(&server, session, scratch_dir, copy_bytes).await;
    Ok(room.err().map(|error| chain(&error)))
}
