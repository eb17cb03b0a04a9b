//! What is looked at when the command has ended, however it did: a tool that was killed can still have committed, and one
//! that says it succeeded can have failed.

use super::error::MigrateError;
use super::survey::{Planned, Survey};
use super::{Guarding, MigrateOptions};
use crate::domain::migration::{Action, Command, Failed, MigrationRecord, State, Warning};
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
    let cancelled = || guarding.cancel.cancelled();
    let looked = async {
        guarding.observer.step("looking at", guarding.database);
        let found = database(guarding, survey, record).await;
        // Whatever became of the database: who uses it is asked.
        if !options.no_health {
            guarding.observer.step("asking whether all is well", "");
            record.checks.extend(guarding.health.look().await?);
        }
        found
    };
    tokio::select! {
        looked = looked => looked,
        () = cancelled() => Err(MigrateError::Interrupted),
    }
}

async fn database(
    guarding: &Guarding<'_>,
    survey: &Survey,
    record: &mut MigrationRecord,
) -> Result<(), MigrateError> {
    let connection = guarding.connection();
    let session = match Session::connect(&connection, "migrate").await {
        Ok(session) => session,
        Err(PostgresError::DatabaseMissing { .. })
            if matches!(survey.planned, Planned::NothingToLose(_)) =>
        {
            record.after = Some(survey.states.clone());
            if succeeded(record) && survey.applies {
                record.checks.push(nothing_arrived(survey));
            } else {
                // A command that makes none, such as one that only asks for its version.
                let message = format!("there is still no database `{}`", guarding.database);
                record.warnings.push(Warning { message, statement: None });
            }
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
    Ok(())
}

fn succeeded(record: &MigrationRecord) -> bool {
    record.ended.as_ref().is_some_and(|end| end.exit_code == 0)
}

async fn catalog(
    guarding: &Guarding<'_>,
    survey: &Survey,
    session: &Session,
    record: &mut MigrationRecord,
) -> Result<(), MigrateError> {
    let project = Project::at(guarding.directory);
    let schema = survey.schema.as_deref();
    let states = history::states(session, &survey.understood, schema, &project).await?;
    record.checks.extend(failed_rows(survey, &states));
    record.warnings.extend(states.iter().flat_map(|state| failed_as_before(survey, state)));
    if succeeded(record) && survey.applies {
        match arrived(&survey.states, &states, &survey.understood) {
            Arrived::Nothing => record.checks.push(nothing_arrived(survey)),
            Arrived::Perhaps => record.warnings.push(Warning {
                message: format!("what was pending is so still: does it use {}?", survey.place),
                statement: None,
            }),
            Arrived::Something => {}
        }
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
    // Without an identity it is as good as new, unless it was to be mended and is not yet.
    let known = failed.row.is_some() || survey.understood.action == Action::Repair;
    known && survey.states.iter().filter(same).any(|before| before.failed.contains(failed))
}

fn table(state: &State) -> &str {
    state.table.as_deref().unwrap_or("its history")
}

/// Whether a tool's own command that applied left anything.
#[derive(Debug, PartialEq, Eq)]
enum Arrived {
    Something,
    /// Nothing has moved, and it may be that nothing should have.
    Perhaps,
    Nothing,
}

fn arrived(before: &[State], after: &[State], command: &Command) -> Arrived {
    let stuck = |after: &State| {
        let same = |before: &&State| {
            before.tool == after.tool && (before.table == after.table || before.table.is_none())
        };
        before.iter().find(same).is_some_and(|before| {
            let counts = before.applied == after.applied && before.failed == after.failed;
            counts && before.pending == after.pending && !after.pending.is_empty()
        })
    };
    // What makes it uncertain which database is used makes it no less certain that this one was not.
    let read = |state: &State| {
        state.pending_unknown.is_none() || state.pending_unknown.as_deref() == command.uncertain()
    };
    if after.is_empty() || !after.iter().all(stuck) {
        Arrived::Something
    } else if command.may_leave_some() || !after.iter().all(read) {
        Arrived::Perhaps
    } else {
        Arrived::Nothing
    }
}

fn nothing_arrived(survey: &Survey) -> Check {
    let told = format!("nothing arrived in {}: does it use another database?", survey.place);
    Check::failed("arrived", told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::migration::{ProjectFiles, Tool};

    struct NoFiles;

    impl ProjectFiles for NoFiles {
        fn entries(&self, _: &std::path::Path) -> Option<Vec<String>> {
            None
        }
        fn text(&self, _: &std::path::Path) -> Option<String> {
            None
        }
        fn digest(
            &self,
            _: &std::path::Path,
            _: crate::domain::migration::Digest,
        ) -> Option<String> {
            None
        }
        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn command(line: &str) -> Command {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Command::understand(&words, &NoFiles)
    }

    fn state(applied: u64, pending: &[&str]) -> State {
        let none = Command::unknown();
        State {
            applied,
            pending: pending.iter().map(|&name| name.to_owned()).collect(),
            pending_unknown: None,
            ..State::of(Tool::Prisma, None, &[], &none, &NoFiles)
        }
    }

    #[test]
    fn what_is_pending_as_before_did_not_arrive() {
        let deploy = command("npx prisma migrate deploy");
        let told = |after: State| arrived(&[state(1, &["2"])], &[after], &deploy);
        assert_eq!(told(state(1, &["2"])), Arrived::Nothing);
        assert_eq!(
            told(State { table: Some("t".to_owned()), ..state(1, &["2"]) }),
            Arrived::Nothing
        );
        assert_eq!(told(state(2, &[])), Arrived::Something);
        let unsure = Some("some are programs".to_owned());
        assert_eq!(told(State { pending_unknown: unsure, ..state(1, &["2"]) }), Arrived::Perhaps);
        // Nothing was to come.
        assert_eq!(arrived(&[state(2, &[])], &[state(2, &[])], &deploy), Arrived::Something);
        // One that is told where to stop may have been there.
        let partly = command("flyway -target=1 migrate");
        assert_eq!(arrived(&[state(1, &["2"])], &[state(1, &["2"])], &partly), Arrived::Perhaps);
        // Which database it is may be unsure, and then this is the sign that it is another one.
        let launched = command("dotenv -e .env.production -- npx prisma migrate deploy");
        let unsure = launched.uncertain().map(str::to_owned);
        assert!(unsure.is_some());
        let after = State { pending_unknown: unsure, ..state(1, &["2"]) };
        assert_eq!(arrived(&[state(1, &["2"])], &[after], &launched), Arrived::Nothing);
    }
}
