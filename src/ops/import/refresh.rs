//! Materialized views are filled after the load, those over foreign tables excepted (DESIGN.md rule 11).

use crate::domain::connection::ConnectionInfo;
use crate::domain::dump::script::Refresh;
use crate::domain::observer::{Observer, Severity};
use crate::postgres::session::Session;
use crate::scratch::sql::Statements as _;

use super::ImportError;

/// The materialized views that read a foreign table, through views, partitions and each other.
const REACHING: &str = "
    WITH RECURSIVE reaching(oid) AS (
      SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'f'
      UNION SELECT more.oid FROM reaching r CROSS JOIN LATERAL (
        SELECT w.ev_class AS oid FROM pg_catalog.pg_depend d
          JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
         WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
           AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = r.oid
        UNION ALL
        SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = r.oid) more)
    SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname)
      FROM reaching r JOIN pg_catalog.pg_class c ON c.oid = r.oid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm'";

/// Runs the dump's REFRESH statements in their order, but for those that would reach out of scratch.
pub(super) async fn fill(
    target: &ConnectionInfo,
    refreshes: &[Refresh],
    observer: &dyn Observer,
) -> Result<(), ImportError> {
    if refreshes.is_empty() {
        return Ok(());
    }
    let session = Session::connect(target, "import").await?;
    let rows = session.query(REACHING, &[]).await?;
    let reaching: Vec<(u32, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    // Nothing of the copy's own acts on it, no event trigger either.
    let calm = "SET session_replication_role = replica; SET statement_timeout = 0";
    session.execute(calm).await?;
    for Refresh { search_path, statement } in refreshes {
        session.execute(search_path.as_deref().unwrap_or("SET search_path = ''")).await?;
        let sql = "SELECT pg_catalog.to_regclass($1)::oid";
        let name = name_of(statement).unwrap_or_default();
        let oid: Option<u32> = session.query_one(sql, &[&name]).await?.get(0);
        if let Some((_, view)) = reaching.iter().find(|(own, _)| oid.is_none_or(|oid| oid == *own))
        {
            let told =
                format!("{view} reads a foreign table and stays empty: nothing here reaches out");
            observer.finding(Severity::Warning, &told);
            continue;
        }
        session.execute(statement).await?;
    }
    Ok(())
}

/// `schema.name`, quoted as it stands, of `REFRESH MATERIALIZED VIEW schema.name;`.
fn name_of(statement: &str) -> Option<&str> {
    let (_, rest) = statement.rsplit_once("REFRESH MATERIALIZED VIEW ")?;
    rest.trim_end().strip_suffix(';')
}
