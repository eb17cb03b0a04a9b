//! What one look found.

use crate::domain::failure::{Failure, FailureKind};

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, and should be looked at.
    Warning,
    /// Something that backups or restores need does not work.
    Failed(FailureKind),
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// The database, where it was one.
    pub database: Option<String>,
    /// How it is.
    pub level: Level,
    /// One line.
    pub detail: String,
    /// What to check or do.
    pub hint: Option<String>,
    /// SQL that mends it, to be run in `database` by somebody who may.
    pub statement: Option<String>,
}

impl Finding {
    fn new(name: &'static str, level: Level, detail: String) -> Self {
        Self { name, database: None, level, detail, hint: None, statement: None }
    }

    /// As it should be.
    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self::new(name, Level::Ok, detail.into())
    }

    /// Works, but.
    pub(super) fn warning(
        name: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(name, Level::Warning, detail.into()).hint(hint)
    }

    /// Does not work.
    pub(super) fn failed(
        name: &'static str,
        kind: FailureKind,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(name, Level::Failed(kind), detail.into()).hint(hint)
    }

    /// Does not work, as this error says.
    pub(super) fn error(name: &'static str, problem: &Problem) -> Self {
        let mut finding = Self::new(name, Level::Failed(problem.kind), problem.message.clone());
        finding.hint.clone_from(&problem.hint);
        finding
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The SQL that mends it.
    pub(super) fn mended_by(mut self, statement: String) -> Self {
        self.statement = Some(statement);
        self
    }

    /// Of one database.
    pub(super) fn of(mut self, database: &str) -> Self {
        self.database = Some(database.to_owned());
        self
    }
}

/// An error, as far as a finding tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its class.
    pub kind: FailureKind,
    /// It and its sources on one line.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Problem {
    /// Of any error, as `map_err` takes it.
    #[expect(clippy::needless_pass_by_value, reason = "`map_err` gives the error away")]
    pub fn from_failure(error: impl Failure) -> Self {
        Self::of(&error)
    }

    /// Of any error.
    pub fn of(error: &dyn Failure) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let next = cause.to_string();
            if !message.ends_with(&next) {
                message = format!("{message}: {next}");
            }
            source = cause.source();
        }
        Self { kind: error.kind(), message, hint: error.hint() }
    }
}

/// All that was found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// The gravest problem; none where there are only warnings.
    pub fn gravest(&self) -> Option<FailureKind> {
        let kind = |finding: &Finding| match finding.level {
            Level::Failed(kind) => Some(kind),
            _ => None,
        };
        self.findings.iter().filter_map(kind).min()
    }

    /// How many failed, and how many are warnings.
    pub fn counts(&self) -> (usize, usize) {
        let count = |wanted: fn(&Level) -> bool| {
            self.findings.iter().filter(|finding| wanted(&finding.level)).count()
        };
        (count(|level| matches!(level, Level::Failed(_))), count(|level| *level == Level::Warning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_problem_counts_and_warnings_do_not() {
        let warning = Finding::warning("a", "b", "c");
        let failed = |kind| Finding::failed("a", kind, "b", "c");
        let report = |findings: Vec<Finding>| CheckReport { findings };
        assert_eq!(report(vec![warning.clone(), Finding::ok("a", "b")]).gravest(), None);
        let several = report(vec![
            failed(FailureKind::Usage),
            warning,
            failed(FailureKind::Key),
            failed(FailureKind::Store),
        ]);
        assert_eq!(several.gravest(), Some(FailureKind::Key));
        assert_eq!(several.counts(), (3, 1));
    }
}
