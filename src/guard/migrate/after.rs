//! What is looked at when the command has ended, however it did: a tool that was killed can still have committed, and one
//! that says it succeeded can have failed.

use super::error::MigrateError;
use super::survey::{Planned, Survey};
use super::{Guarding, MigrateOptions};
use crate::domain::migration::{Failed, MigrationRecord, State, Warning};
use crate::domain::verification::Check;
use crate::guard::aftermath::{self, Flaws};
use crate::guard::history;
use crate::guard::project::Project;
use crate::postgres::PostgresError;
use crate::postgres::session::Session;
use crate::proof::assertions_hold;

/// Looks at table, catalog, assertions and health; what was found goes into the record.
pub(super) async fn look(
    guarding: &Guarding<'_>,
    options: &MigrateOptions,
    survey: &Survey,
    record: &mut MigrationRecord,
) -> Result<(), MigrateError> {
    let connection = guarding.connection();
    let cancelled = || guarding.cancel.cancelled();
    let looked = async {
        guarding.observer.step("looking at", guarding.database);
        let session = match Session::connect(&connection, "migrate").await {
            Ok(session) => session,
            Err(PostgresError::DatabaseMissing { .. })
                if matches!(survey.planned, Planned::NothingToLose(_)) =>
            {
                // A command that makes none, such as one that only asks for its version.
                record.after = Some(survey.states.clone());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        catalog(guarding, survey, &session, record).await?;
        drop(session);
        if !guarding.assertions.is_empty() {
            let idle = Some(guarding.snapshot.idle);
            record.checks.push(assertions_hold(&connection, guarding.assertions, idle).await?);
        }
        if !options.no_health {
            guarding.observer.step("asking whether all is well", "");
            record.checks.extend(guarding.health.look().await?);
        }
        Ok(())
    };
    tokio::select! {
        looked = looked => looked,
        () = cancelled() => Err(MigrateError::Interrupted),
    }
}

async fn catalog(
    guarding: &Guarding<'_>,
    survey: &Survey,
    session: &Session,
    record: &mut MigrationRecord,
) -> Result<(), MigrateError> {
    let project = Project::at(guarding.directory);
    let schema = guarding.snapshot.connection.schema();
    let states = history::states(session, &survey.understood, schema, &project).await?;
    record.checks.extend(failed_rows(survey, &states));
    record.warnings.extend(states.iter().flat_map(|state| failed_as_before(survey, state)));
    let succeeded = record.ended.as_ref().is_some_and(|end| end.exit_code == 0);
    if succeeded && survey.applies {
        record.warnings.extend(states.iter().filter_map(|after| still_pending(survey, after)));
    }
    record.after = Some(states);
    record.warnings.extend(Flaws::of(session).await?.since(&survey.flaws));
    let excluded = &guarding.snapshot.exclude_table_data;
    record.warnings.extend(aftermath::unreadable(session, excluded).await?);
    Ok(())
}

/// Those that the command has left. One of several steps of a repair may leave what it found: that is a warning.
fn failed_rows(survey: &Survey, after: &[State]) -> Option<Check> {
    let mut told = Vec::new();
    for state in after {
        let new = state.failed.iter().filter(|failed| !was_there(survey, state, failed));
        let new: Vec<&str> = new.map(|failed| failed.name.as_str()).collect();
        if !new.is_empty() {
            told.push(format!("{} holds failed migrations: {}", table(state), new.join(", ")));
        }
    }
    let failed = || Check::failed("failed-rows", told.join("; "));
    let any = after.iter().any(|state| !state.failed.is_empty());
    let none = if any { "none that were not there before" } else { "none" };
    let passed = || Check::passed("failed-rows", none);
    (!after.is_empty()).then(|| if told.is_empty() { passed() } else { failed() })
}

fn failed_as_before(survey: &Survey, state: &State) -> Vec<Warning> {
    let old = state.failed.iter().filter(|failed| was_there(survey, state, failed));
    let warning = |failed: &Failed| Warning {
        message: format!(
            "{} holds `{}`, which failed, as before: {}",
            table(state),
            failed.name,
            state.tool.after_failure(failed)
        ),
        statement: None,
    };
    old.map(warning).collect()
}

fn was_there(survey: &Survey, after: &State, failed: &Failed) -> bool {
    let same = |before: &&State| before.tool == after.tool && before.table == after.table;
    survey.states.iter().filter(same).any(|before| before.failed.contains(failed))
}

fn table(state: &State) -> &str {
    state.table.as_deref().unwrap_or("its history")
}

/// The command was its tool's own, and nothing has moved: it may have gone to another database.
fn still_pending(survey: &Survey, after: &State) -> Option<Warning> {
    let before = survey.states.iter().find(|before| before.tool == after.tool)?;
    let moved = before.applied != after.applied || before.pending != after.pending;
    (!moved && !after.pending.is_empty()).then(|| Warning {
        message: format!(
            "{} migrations are pending as before: does the command use this database, {}?",
            after.pending_count(),
            survey.place
        ),
        statement: None,
    })
}

/// Whether the snapshot could be restored from here, by this role.
pub(super) async fn way_back_is_open(guarding: &Guarding<'_>) -> Result<(), MigrateError> {
    const MAY: &str = "
        SELECT r.rolsuper OR (r.rolcreatedb AND pg_catalog.pg_has_role(d.datdba, 'MEMBER'))
          FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
         WHERE r.rolname = current_user AND d.datname = pg_catalog.current_database()";
    if guarding.repository.keys().opener.is_none() {
        return Err(MigrateError::NoWayBack("this host holds no identity".to_owned()));
    }
    let session = Session::connect(&guarding.connection(), "migrate").await?;
    let may: bool = session.client().query_one(MAY, &[]).await.map_err(PostgresError::from)?.get(0);
    if may {
        return Ok(());
    }
    let role = guarding.snapshot.connection.user();
    Err(MigrateError::NoWayBack(format!(
        "role {role} may not create databases and rename this one"
    )))
}
