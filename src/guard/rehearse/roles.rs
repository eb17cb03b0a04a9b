//! The roles that a command logs in as, made in the copy's server as they are on the source's: attributes, settings,
//! memberships. Their password is another.

use std::collections::BTreeSet;

use super::error::RehearseError;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident, quote_literal};
use crate::scratch::cluster::SUPERUSER;

/// Those roles and all that they are members of, directly or not.
const ROLES: &str = "
    WITH RECURSIVE up(oid) AS (
        SELECT oid FROM pg_catalog.pg_roles WHERE rolname::text = ANY ($1)
        UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN up ON m.member = up.oid)
    SELECT r.rolname::text, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolreplication,
           r.rolbypassrls, coalesce(r.rolconfig, '{}')
      FROM pg_catalog.pg_roles r JOIN up ON up.oid = r.oid
     ORDER BY 1";

const MEMBERSHIPS: &str = "
    SELECT r.rolname::text, m.rolname::text, bool_or(a.admin_option)
      FROM pg_catalog.pg_auth_members a
      JOIN pg_catalog.pg_roles r ON r.oid = a.roleid
      JOIN pg_catalog.pg_roles m ON m.oid = a.member
     WHERE m.rolname::text = ANY ($1) GROUP BY 1, 2 ORDER BY 1, 2";

/// The same with what 16 added.
const MEMBERSHIPS_16: &str = "
    SELECT r.rolname::text, m.rolname::text, bool_or(a.admin_option), bool_or(a.inherit_option),
           bool_or(a.set_option)
      FROM pg_catalog.pg_auth_members a
      JOIN pg_catalog.pg_roles r ON r.oid = a.roleid
      JOIN pg_catalog.pg_roles m ON m.oid = a.member
     WHERE m.rolname::text = ANY ($1) GROUP BY 1, 2 ORDER BY 1, 2";

/// A major that has options for inheriting and for becoming.
const WITH_OPTIONS: u32 = 16;

/// Makes those of `wanted` that the source has, able to log in with `password`; their names, in that order.
pub(super) async fn make(
    source: &Session,
    copy: &Session,
    wanted: &[String],
    password: &str,
) -> Result<Vec<String>, RehearseError> {
    let present = names(copy).await?;
    let mut all = Vec::new();
    for row in source.client().query(ROLES, &[&wanted]).await.map_err(PostgresError::from)? {
        let name: String = row.get(0);
        let role = quote_ident(&name);
        // What PostgreSQL brings itself is as it is.
        if name.starts_with("pg_") {
            continue;
        }
        if !present.contains(&name) {
            copy.batch(&format!("CREATE ROLE {role} NOLOGIN")).await?;
        }
        let mut words = Vec::new();
        for (at, word) in
            ["SUPERUSER", "INHERIT", "CREATEROLE", "CREATEDB", "REPLICATION", "BYPASSRLS"]
                .into_iter()
                .enumerate()
        {
            // The bootstrap superuser stays one: it must.
            let has = row.get::<_, bool>(at + 1) || name == SUPERUSER;
            words.push(format!("{}{word}", if has { "" } else { "NO" }));
        }
        copy.batch(&format!("ALTER ROLE {role} {}", words.join(" "))).await?;
        if wanted.contains(&name) {
            let password = quote_literal(password);
            copy.batch(&format!("ALTER ROLE {role} LOGIN PASSWORD {password}")).await?;
        }
        for item in row.get::<_, Vec<String>>(7) {
            let Some((setting, value)) = item.split_once('=') else { continue };
            // As `pg_db_role_setting` holds it: a list of names is quoted where it must be.
            let value =
                if setting == "search_path" { value.to_owned() } else { quote_literal(value) };
            let set = format!("ALTER ROLE {role} SET {} TO {value}", quote_ident(setting));
            match copy.batch(&set).await {
                // Of a library that is not loaded here.
                Err(error) if !error.is_verdict() => return Err(error.into()),
                _ => {}
            }
        }
        all.push(name);
    }
    grant(source, copy, &all).await?;
    Ok(wanted.iter().filter(|name| all.contains(name)).cloned().collect())
}

async fn names(copy: &Session) -> Result<BTreeSet<String>, PostgresError> {
    let rows = copy.client().query("SELECT rolname::text FROM pg_catalog.pg_roles", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn grant(source: &Session, copy: &Session, members: &[String]) -> Result<(), PostgresError> {
    let with_options = source.major() >= WITH_OPTIONS && copy.major() >= WITH_OPTIONS;
    let query = if source.major() >= WITH_OPTIONS { MEMBERSHIPS_16 } else { MEMBERSHIPS };
    let present = names(copy).await?;
    for row in source.client().query(query, &[&members]).await? {
        let (role, member): (String, String) = (row.get(0), row.get(1));
        if !present.contains(&role) {
            continue;
        }
        let flag = |at: usize| if row.get::<_, bool>(at) { "TRUE" } else { "FALSE" };
        let options = if with_options {
            format!(" WITH ADMIN {}, INHERIT {}, SET {}", flag(2), flag(3), flag(4))
        } else if row.get(2) {
            " WITH ADMIN OPTION".to_owned()
        } else {
            String::new()
        };
        let (role, member) = (quote_ident(&role), quote_ident(&member));
        copy.batch(&format!("GRANT {role} TO {member}{options}")).await?;
    }
    Ok(())
}
