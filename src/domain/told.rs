//! A failure as it is shown: one line, then a hint; or the JSON document of the contract.

use std::error::Error;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::failure::{Failure, FailureKind, system_hint};

/// What of an error reaches the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The class, and with it the exit code.
    pub kind: FailureKind,
    /// The error and its causes, one line.
    pub message: String,
    /// What to check or run.
    pub hint: Option<String>,
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    exit_code: u8,
    kind: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
}

impl Failed {
    /// Of any error of the floors below.
    pub fn of(error: &dyn Failure) -> Self {
        Self { kind: error.kind(), message: chain(error), hint: error.hint() }
    }

    /// A wrong use that was noticed on this floor.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind: FailureKind::Usage, message: message.into(), hint: Some(hint.into()) }
    }

    /// What no one foresaw.
    pub fn unexpected(message: &str, error: &(dyn Error + 'static)) -> Self {
        let message = format!("{message}: {}", chain(error));
        let of_the_system = std::iter::successors(Some(error), |error| (*error).source())
            .find_map(|error| system_hint(error.downcast_ref()?));
        Self { kind: FailureKind::Unexpected, message, hint: of_the_system.map(str::to_owned) }
    }

    /// After a signal.
    pub fn interrupted() -> Self {
        Self {
            kind: FailureKind::Interrupted,
            message: "interrupted".to_owned(),
            hint: Some("nothing half-made is listed; run it again".to_owned()),
        }
    }

    /// Something of our own broke; the log has its words.
    pub fn panicked() -> Self {
        Self {
            kind: FailureKind::Unexpected,
            message: "it panicked".to_owned(),
            hint: Some("the log has its words; please report them".to_owned()),
        }
    }

    /// `error: …` and `hint: …`, a line each.
    pub fn text(&self) -> String {
        let hint = self.hint.as_deref().map(|hint| format!("hint: {}\n", one_line(hint)));
        format!("error: {}\n{}", self.message, hint.unwrap_or_default())
    }

    /// `{"error": {"exit_code", "kind", "message", "hint"}}`.
    pub fn json(&self) -> Json {
        json!({ "error": ErrorDocument {
            exit_code: self.kind.exit_code(),
            kind: self.kind.name(),
            message: &self.message,
            hint: self.hint.as_deref(),
        }})
    }
}

/// What of an error reaches the outside, as `map_err` takes it.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives the error away")]
pub fn failed(error: impl Failure) -> Failed {
    Failed::of(&error)
}

/// An error and its sources as one line. A source whose words are there already is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut source = error.source();
    while let Some(error) = source {
        let next = one_line(&error.to_string());
        if !next.is_empty() && !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

/// What came from outside (names, labels, server messages) may hold bytes that steer a terminal.
pub fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    harmless(&lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner\n  second line")]
    struct Inner;

    impl Failure for Outer {
        fn kind(&self) -> FailureKind {
            FailureKind::Store
        }
        fn hint(&self) -> Option<String> {
            Some("look there".to_owned())
        }
    }

    #[test]
    fn a_failure_is_one_line_and_a_hint() {
        let failed = Failed::of(&Outer(Inner));
        assert_eq!(failed.text(), "error: outer: inner; second line\nhint: look there\n");
        assert_eq!(
            failed.json().to_string(),
            r#"{"error":{"exit_code":5,"hint":"look there","kind":"store","message":"outer: inner; second line"}}"#
        );
    }

    #[test]
    fn transparent_sources_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error(transparent)]
        struct Through(#[from] Outer);
        assert_eq!(chain(&Through(Outer(Inner))), "outer: inner; second line");
    }
}
