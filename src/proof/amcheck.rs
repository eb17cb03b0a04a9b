//! `pg_amcheck`: that tables and indexes of the copy are sound below the rows.

use std::io::Read;

use super::accident::{self, PLAIN_WORDS};
use super::load::conninfo;
use super::{ProofError, told};
use crate::domain::connection::ConnectionInfo;
use crate::domain::verification::Check;
use crate::postgres::PostgresError;
use crate::postgres::child::{Child, ChildSpec};
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;

const AMCHECK: &str = "amcheck";
/// Keeps the copy's own event triggers from firing when the extension comes and goes.
const QUIET: &str = "-c session_replication_role=replica";
/// What is kept of its report.
const REPORT_BYTES_MAX: u64 = 1 << 20;

/// Runs it over the target, whose server must offer the extension; puts nothing there for good.
pub(super) async fn amcheck(
    session: &Session,
    target: &ConnectionInfo,
    programs: &Programs,
    jobs: usize,
) -> Result<Check, ProofError> {
    let row = session
        .client()
        .query_one(
            "SELECT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), \
             EXISTS (SELECT 1 FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'), \
             EXISTS (SELECT 1 FROM pg_catalog.pg_extension WHERE extname = 'amcheck')",
            &[],
        )
        .await
        .map_err(PostgresError::from)?;
    let cell = |at| row.try_get::<_, bool>(at).map_err(PostgresError::from);
    let (superuser, available, installed) = (cell(0)?, cell(1)?, cell(2)?);
    if !superuser {
        return Ok(Check::skipped(AMCHECK, "the role is no superuser"));
    }
    if !available && !installed {
        return Ok(Check::skipped(AMCHECK, "the server does not offer the extension amcheck"));
    }
    let Ok(program) = programs.program("pg_amcheck") else {
        return Ok(Check::skipped(AMCHECK, "the program pg_amcheck is not installed"));
    };
    let spec = ChildSpec::new(program)
        .connection(&target.with_options(QUIET).with_options(PLAIN_WORDS))
        .purpose("verify")
        .args(["--no-password", "--install-missing"])
        .arg(format!("--jobs={}", jobs.max(1)))
        .arg(conninfo(target.database()))
        .piped_stdout();
    let checked = run(spec).await;
    if !installed {
        session
            .batch(
                "SET session_replication_role = replica; DROP EXTENSION IF EXISTS amcheck; \
                 RESET session_replication_role",
            )
            .await?;
    }
    checked
}

async fn run(spec: ChildSpec) -> Result<Check, ProofError> {
    let mut child = Child::spawn(spec)?;
    let stdout = child.take_stdout();
    let report = tokio::task::spawn_blocking(move || {
        let mut report = Vec::new();
        if let Some(mut stdout) = stdout {
            stdout.by_ref().take(REPORT_BYTES_MAX).read_to_end(&mut report)?;
            std::io::copy(&mut stdout, &mut std::io::sink())?;
        }
        std::io::Result::Ok(report)
    });
    let exit = child.exit().await?;
    let report = report.await.map_err(|_| ProofError::Stopped)?.map_err(|source| {
        PostgresError::Io { what: "cannot read what pg_amcheck writes".to_owned(), source }
    })?;
    // Its codes: 0 sound, 2 corruption found, else it could not check.
    if exit.code == Some(2) {
        let lines: Vec<String> = String::from_utf8_lossy(&report)
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        return Ok(Check::failed(AMCHECK, told(&lines)));
    }
    accident::judge(&child, &exit)?;
    Ok(Check::passed(AMCHECK, "tables and indexes are sound"))
}
