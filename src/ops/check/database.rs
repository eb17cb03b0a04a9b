//! One database: may the role read all that a dump holds, and would it see every row.

use super::Checking;
use super::finding::{Finding, Problem};
use super::server::{Server, denied};
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::{Failure as _, FailureKind};
use crate::postgres::dumped::{self, DumpedRelation};
use crate::postgres::preflight::{self, Obstacles, PreflightError};
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident, server_facts};

const NAME: &str = "privileges";

/// Looks at one database; its size, where it can be told.
pub(super) async fn look(
    checking: &Checking<'_>,
    connection: &ConnectionInfo,
    server: &Server,
    findings: &mut Vec<Finding>,
) -> Option<u64> {
    let database = connection.database();
    let session = match Session::connect(connection, "check").await {
        Ok(session) => session,
        Err(error) => {
            findings.push(denied("connect", connection, &error).of(database));
            return None;
        }
    };
    match obstacles(checking, &session, server).await {
        Ok(found) => findings.extend(found.into_iter().map(|finding| finding.of(database))),
        Err(error) => findings.push(Finding::error(NAME, &Problem::of(&error)).of(database)),
    }
    server_facts::database_bytes(&session).await.ok()
}

async fn obstacles(
    checking: &Checking<'_>,
    session: &Session,
    server: &Server,
) -> Result<Vec<Finding>, PostgresError> {
    let client = session.client();
    // Before the transaction, whose search_path is the dump's.
    let excluded = dumped::excluded(client, checking.exclude_table_data).await?;
    session.batch("BEGIN READ ONLY; SET LOCAL search_path = ''").await?;
    let tables = dumped::relations(client, &excluded.oids).await?;
    let obstacles = preflight::obstacles(client, server.version, &tables).await?;
    session.batch("COMMIT").await?;
    let mut findings = privileges(&obstacles, &tables);
    findings.extend(excluded.unmatched.iter().map(|pattern| {
        Finding::warning(
            "exclude-table-data",
            format!("no table matches `{pattern}`"),
            "a typing error, or a table that is no more: correct exclude_table_data",
        )
    }));
    let locks = tables.iter().filter(|table| table.is_locked()).count() as u64;
    let room = server.facts.locks_max;
    if i64::try_from(locks).is_ok_and(|locks| locks > room) {
        findings.push(Finding::warning(
            "locks",
            format!("a dump locks {locks} tables, and the server has room for {room} locks"),
            "raise max_locks_per_transaction (needs a restart)",
        ));
    }
    Ok(findings)
}

fn privileges(obstacles: &Obstacles, tables: &[DumpedRelation]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rows_hidden = obstacles.row_security.clone();
    let statements = obstacles.statements();
    let unreadable = Obstacles { row_security: Vec::new(), ..obstacles.clone() };
    match unreadable.into_result() {
        Ok(()) => findings.push(Finding::ok(
            NAME,
            format!("role {} may read all {} tables and sequences", obstacles.role, tables.len()),
        )),
        Err(error) => findings.push(
            Finding::failed(
                NAME,
                FailureKind::Postgres,
                error.to_string(),
                "run this there as their owner or a superuser; for all databases and whatever comes later: \
                 GRANT pg_read_all_data",
            )
            .mended_by(statements),
        ),
    }
    if !rows_hidden.is_empty() {
        let hidden = Obstacles {
            role: obstacles.role.clone(),
            row_security: rows_hidden,
            ..Obstacles::default()
        };
        let error = PreflightError::RowSecurity(Box::new(hidden));
        let hint = error.hint().unwrap_or_default();
        findings.push(
            Finding::failed("row-security", FailureKind::Postgres, error.to_string(), hint)
                .mended_by(format!("ALTER ROLE {} BYPASSRLS;", quote_ident(&obstacles.role))),
        );
    }
    findings
}
