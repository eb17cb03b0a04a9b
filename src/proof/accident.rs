//! Accidents of a server, known by the words of the program that met them.
//!
//! `pg_restore` hands on the server's text and no SQLSTATE. Where the role may, the text is asked for in C
//! ([`PLAIN_WORDS`]), and the messages here are those of PostgreSQL's sources for the classes 08, 40, 53, 55P03 and
//! 57. A text that is not among them counts as a verdict about the copy, which somebody looks at.

use super::ProofError;
use crate::postgres::PostgresError;
use crate::postgres::child::{Child, Exit};

/// The session option that has the server speak as this module reads. Superusers may ask for it, and since 15 whoever
/// was granted it.
pub(super) const PLAIN_WORDS: &str = "-c lc_messages=C";

/// Beginnings of the server's messages after which another try may go better.
const PASSING: &[&str] = &[
    "could not serialize access due to",
    "terminating connection due to",
    "terminating connection because of",
    "canceling statement due to",
    "the database system is ",
    "sorry, too many clients already",
    "too many connections for ",
    "remaining connection slots are reserved",
];
/// Of libpq's own messages. A server that crashes says no more.
const LOST: &[&str] = &[
    "server closed the connection unexpectedly",
    "connection to server ",
    "could not receive data from server",
    "could not send data to server",
    "SSL connection has been closed unexpectedly",
    "SSL SYSCALL error",
    "SSL error: ",
];
/// What a server lacks: it will lack it at the next try, too.
const LACKS: &[&str] = &[
    "No space left on device",
    "Input/output error",
    "Disk quota exceeded",
    "Too many open files",
    "out of memory",
    "out of shared memory",
];

/// The error that `exit` is, unless it is success.
pub(super) fn judge(child: &Child, exit: &Exit) -> Result<(), ProofError> {
    child.judge(exit).map_err(|source| match passing(&exit.stderr) {
        Some(passing) => ProofError::Accident { source, passing },
        None => source.into(),
    })
}

/// Whether another try may go better; none when it was no accident. What is told first is the cause.
fn passing(stderr: &str) -> Option<bool> {
    // Other lines are details, or statements with any text in them.
    let errors = stderr.lines().filter_map(|line| line.split_once(": error: "));
    let mut errors = errors.filter(|(program, _)| program.starts_with("pg_")).map(|(_, said)| said);
    // `load` tells why an older server's complaint about this one is no error.
    let said = errors.find(|said| !said.contains("\"transaction_timeout\""))?;
    let server = ["ERROR:  ", "FATAL:  ", "PANIC:  "];
    let Some(said) = server.iter().find_map(|word| Some(said.split_once(word)?.1)) else {
        return LOST.iter().any(|text| said.contains(text)).then_some(true);
    };
    if said == "deadlock detected" || PASSING.iter().any(|text| said.starts_with(text)) {
        return Some(true);
    }
    // A write that was cut short names no cause, but in its hint.
    let lacks = |text: &str| said == text || said.ends_with(&format!(": {text}"));
    (said.starts_with("could not extend file ") || LACKS.iter().any(|text| lacks(text)))
        .then_some(false)
}

/// What the server says to a role that may not do something (42501).
const FORBIDDEN: &[&str] = &[
    "permission denied for ",
    "permission denied to ",
    "must be owner of ",
    "must be member of role ",
    "must be able to SET ROLE ",
    "must be superuser ",
];

/// The same error, told as the role's lack where it is one. For a role that is no superuser: that one is held up by
/// nothing but the rights of those in whose name a statement of the archive works, and they belong to the copy.
pub(super) fn of_the_role(error: ProofError) -> ProofError {
    match error {
        ProofError::Refused { source, .. } if source.sqlstate() == Some("42501") => {
            ProofError::Forbidden { source }
        }
        ProofError::Postgres(source) if is_forbidden(&source) => ProofError::Forbidden { source },
        other => other,
    }
}

fn is_forbidden(error: &PostgresError) -> bool {
    let PostgresError::ProgramFailed { stderr, .. } = error else {
        return error.sqlstate() == Some("42501");
    };
    let said = stderr.split_once("ERROR:  ").map(|(_, said)| said);
    said.is_some_and(|said| FORBIDDEN.iter().any(|text| said.starts_with(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_role_may_not_do_is_told_from_what_is_wrong_with_the_copy() {
        let judged = |said: &str| {
            let stderr = format!("error: could not execute query: {said}");
            let (program, code) = ("pg_restore".to_owned(), 1);
            of_the_role(PostgresError::ProgramFailed { program, code, stderr }.into())
        };
        for said in [
            "ERROR:  permission denied for schema public",
            "ERROR:  must be owner of table t | Command was: ALTER TABLE t",
        ] {
            assert!(matches!(judged(said), ProofError::Forbidden { .. }), "{said}");
        }
        for said in [
            "ERROR:  relation \"x\" does not exist",
            "ERROR:  syntax error | Command was: SELECT 'ERROR:  permission denied for x'",
        ] {
            assert!(matches!(judged(said), ProofError::Postgres(_)), "{said}");
        }
    }

    #[test]
    fn accidents_are_known_by_the_first_error_and_not_by_statements() {
        let query = |said: &str| format!("pg_restore: error: could not execute query: {said}\n");
        for (said, expected) in [
            ("ERROR:  deadlock detected", Some(true)),
            ("ERROR:  canceling statement due to user request", Some(true)),
            ("FATAL:  terminating connection due to administrator command", Some(true)),
            ("server closed the connection unexpectedly", Some(true)),
            ("ERROR:  could not extend file \"base/1/2\": No space left on device", Some(false)),
            ("ERROR:  out of memory", Some(false)),
            ("ERROR:  deadlock detected in the plot", None),
            ("ERROR:  could not create unique index \"x\"", None),
        ] {
            assert_eq!(passing(&query(said)), expected, "{said}");
        }
        let unreachable =
            "pg_restore: error: connection to server at \"h\", port 1 failed: Connection refused";
        assert_eq!(passing(unreachable), Some(true));
        let starting = "pg_restore: error: connection to server on socket \"/s\" failed: FATAL:  the database system is shutting down";
        assert_eq!(passing(starting), Some(true));
        let foreign = query(
            "ERROR:  unrecognized configuration parameter \"transaction_timeout\"\nCommand was: SET transaction_timeout = 0;",
        );
        assert_eq!(
            passing(&format!("{foreign}{}", query("ERROR:  deadlock detected"))),
            Some(true)
        );
        assert_eq!(passing(&foreign), None);
        // What a statement quotes is nobody's error, and what follows from an error is not its cause.
        let quoting =
            query("ERROR:  syntax error\nCommand was: SELECT 'ERROR:  deadlock detected'");
        assert_eq!(passing(&quoting), None);
        let followed = query("ERROR:  could not create unique index \"x\"")
            + &query("FATAL:  terminating connection due to administrator command");
        assert_eq!(passing(&followed), None);
    }
}
