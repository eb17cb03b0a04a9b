//! Puts an archive into a database within a transaction that the caller holds, and compares what came out in
//! the same transaction: nobody sees anything of it before the caller's COMMIT, and without it nothing was.
//!
//! One session does it all. `pg_restore` writes the statements as text, from the archive's head; rows and
//! large objects come as in [`load`](super::load). Rows are counted while the tables have no policy yet.
//! Contract: the session is in a transaction, with [`prepare`] called before its BEGIN; an error leaves the
//! transaction aborted or unfit to be committed, and the caller rolls it back. A crash is a rollback.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::fill::{fill_within, prepare as prepare_rows};
use super::intake::{Contents, Incoming, Intake, Wanted};
use super::load::{Chosen, LoadReport, analyze, ended, pg_restore, rights};
use super::selection::{Omission, Selection, select};
use super::verify::loaded;
use super::{Proof, ProofError, checks};
use crate::domain::archive::{Toc, TocEntry};
use crate::domain::inventory::{CompareOptions, Inventory, LeftOut};
use crate::domain::observer::{Observer, Severity};
use crate::postgres::child::capture;
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident};

/// What of the target stays where it is, and so is not made again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staying {
    /// Schemas.
    pub schemas: BTreeSet<String>,
    /// Those of them that belong to somebody else, who alone may change their privileges and comments.
    pub foreign_schemas: BTreeSet<String>,
    /// Objects whose privileges cannot be compared, since they were made anew without their first ones.
    pub without_first_privileges: Vec<LeftOut>,
}

/// What is put where.
#[derive(Clone, Copy)]
pub struct WithinRequest<'a> {
    /// In a transaction, and nobody else's.
    pub session: &'a Session,
    /// An empty directory for what `pg_restore` reads.
    pub directory: &'a Path,
    /// Where `pg_restore` is: of the `pg_dump` that wrote the archive, or newer.
    pub programs: &'a Programs,
    /// What was recorded, row counts and sequence values included.
    pub expected: &'a Inventory,
    /// What stays.
    pub staying: &'a Staying,
    /// Set owners and privileges; their roles must exist.
    pub roles: bool,
    /// Put tables into their tablespaces, which must exist.
    pub tablespaces: bool,
    /// Listens.
    pub observer: &'a dyn Observer,
}

/// Settings of the session for rows; before BEGIN, since one of them may not be had, which would abort it.
pub async fn prepare(session: &Session, expected: &Inventory) -> Result<(), PostgresError> {
    prepare_rows(session, &expected.database.lc_monetary).await
}

/// Loads and compares; the caller commits when all checks have passed.
pub async fn load_within(
    request: &WithinRequest<'_>,
    archive: Incoming,
) -> Result<Proof, ProofError> {
    let WithinRequest { session, observer, expected, .. } = *request;
    let subject = &expected.database.name;
    let intake = Intake::start(archive, request.directory, None);
    let Ok(head) = intake.head.await else { return Err(ended(intake.contents).await) };
    let mut selection = select(&head.toc, &rights(session).await?, None);
    let lost = selection.omitted.iter().filter(|omission| omission.holds_data);
    let lost: Vec<String> = lost.map(Omission::describe).collect();
    if !lost.is_empty() {
        return Err(ProofError::Rights { entries: lost });
    }
    selection.leave(&head.toc, request.staying);
    let wanted = Wanted { tables: selection.data.clone(), large_objects: true };
    if intake.wanted.send(wanted).is_err() {
        return Err(ended(intake.contents).await);
    }
    observer.step("restoring", subject);
    let roles = request.roles && !selection.without_owners;
    let script = Script { request, head: &head.path, roles };
    script.run(&selection.before).await?;
    clear_extension_tables(session, expected).await?;
    fill_within(session, intake.batches).await?;
    let contents = intake.contents.await.map_err(|_| ProofError::Stopped)??;
    let options = CompareOptions {
        left_out: selection
            .omitted
            .iter()
            .map(|omission| omission.entry.clone())
            .chain(request.staying.without_first_privileges.iter().cloned())
            .collect(),
        roles,
        subscriptions: false,
        locale: false,
    };
    observer.step("counting rows", subject);
    let Contents { summary, .. } = &contents;
    // Policies come later: with them a table may not tell its owner all of its rows.
    let counted = checks::row_counts_within(session, expected, summary, &options).await?;
    observer.step("building indexes and constraints", subject);
    script.run(&selection.behind_rows(&head.toc)).await?;
    session.batch(&analyze(session).await?).await?;
    let report = LoadReport {
        restored: selection.kept(),
        left_out: selection.omitted,
        unasked: Vec::new(),
        roles,
        contents,
        counts: Vec::new(),
    };
    let mut proof = Proof { checks: vec![loaded(&report)], ..Proof::default() };
    observer.step("comparing inventories", subject);
    let (inventory, notices) = checks::inventory(session, expected, &options, false).await?;
    for notice in &notices {
        observer.finding(Severity::Notice, notice);
    }
    let sequences = checks::sequences(session, expected, &options).await?;
    proof.checks.extend([inventory, counted, sequences]);
    proof.left_out = report.left_out;
    proof.roles = roles;
    proof.notices = notices;
    Ok(proof)
}

impl Selection {
    /// Takes out what stays in the target, and with it its comment.
    fn leave(&mut self, toc: &Toc, staying: &Staying) {
        let named = |tag: &str, schemas: &BTreeSet<String>| {
            schemas.iter().any(|schema| tag == schema || tag == quote_ident(schema))
        };
        let stays = |entry: &&TocEntry| match &*entry.desc {
            // Of `public` an archive holds no more than its owner.
            "SCHEMA" => &*entry.tag != "public" && named(&entry.tag, &staying.schemas),
            "ACL" | "COMMENT" | "SECURITY LABEL" => entry
                .tag
                .strip_prefix("SCHEMA ")
                .is_some_and(|tag| named(tag, &staying.foreign_schemas)),
            _ => false,
        };
        let staying: BTreeSet<u32> =
            toc.entries.iter().filter(stays).map(|entry| entry.dump_id).collect();
        self.before.retain(|id| !staying.contains(id));
        self.after.retain(|id| !staying.contains(id));
        // An extension that is there has kept its comment: nothing was left out.
        let missing = |name: &str| {
            let name = name.trim_matches('"');
            self.omitted.iter().any(|one| one.entry.desc == "EXTENSION" && one.entry.name == name)
        };
        let kept = |omission: &Omission| {
            let of = omission.entry.name.strip_prefix("EXTENSION ");
            omission.entry.desc == "COMMENT" && of.is_some_and(|name| !missing(name))
        };
        let omitted = self.omitted.iter().filter(|omission| !kept(omission)).cloned().collect();
        self.omitted = omitted;
    }

    /// What one session makes when the rows are there, in the archive's order.
    fn behind_rows(&self, toc: &Toc) -> Vec<u32> {
        let places: HashMap<u32, usize> =
            toc.entries.iter().enumerate().map(|(at, entry)| (entry.dump_id, at)).collect();
        let mut all: Vec<u32> = self.indexes.iter().chain(&self.after).copied().collect();
        all.sort_by_key(|id| places.get(id));
        all
    }
}

/// Rows of extensions' own tables that a dump holds are there already where the extension stays.
async fn clear_extension_tables(
    session: &Session,
    expected: &Inventory,
) -> Result<(), PostgresError> {
    for table in &expected.extension_tables {
        let name = format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name));
        let condition = &table.condition;
        let there = "SELECT pg_catalog.to_regclass($1) IS NOT NULL";
        let row = session.client().query_one(there, &[&name]).await?;
        if !row.try_get::<_, bool>(0)? {
            continue;
        }
        let sql = format!("SELECT EXISTS (SELECT FROM ONLY {name} {condition})");
        let row = session.client().query_one(&sql, &[]).await?;
        if row.try_get::<_, bool>(0)? {
            session.batch(&format!("DELETE FROM ONLY {name} {condition}")).await?;
        }
    }
    Ok(())
}

/// How statements come out of an archive's head.
struct Script<'a> {
    request: &'a WithinRequest<'a>,
    head: &'a Path,
    roles: bool,
}

impl Script<'_> {
    /// Runs the statements of `entries`, none of which has data.
    async fn run(&self, entries: &[u32]) -> Result<(), ProofError> {
        let request = self.request;
        if entries.is_empty() {
            return Ok(());
        }
        let chosen = Chosen { entries, roles: self.roles, tablespaces: request.tablespaces };
        let (spec, _list) = pg_restore(request.programs, request.directory, &chosen)?;
        let script = capture(spec.args(["--file", "-"]).arg(self.head)).await?;
        let script = String::from_utf8(script).map_err(|_| ProofError::Encoding)?;
        Ok(request.session.batch(&statements(&script)).await?)
    }
}

/// Settings at the head of a script that are the session's own affair: timeouts, which it has switched off by
/// itself and of which an older server does not know all, and the encoding, which is the driver's.
const OWN_SETTINGS: [&str; 5] = [
    "SET statement_timeout = ",
    "SET lock_timeout = ",
    "SET idle_in_transaction_session_timeout = ",
    "SET transaction_timeout = ",
    "SET client_encoding = ",
];

/// The SQL of a script that was written for psql: without psql's own commands, which newer minors put around
/// it, and without [`OWN_SETTINGS`].
fn statements(script: &str) -> String {
    let end = script.find("\n-- Name: ").unwrap_or(script.len());
    let (head, rest) = script.split_at(end);
    let mut key = None;
    let mut sql = String::with_capacity(script.len());
    for line in head.split_inclusive('\n') {
        if let Some(found) = line.strip_prefix("\\restrict ") {
            key = Some(found.trim_end().to_owned());
        } else if !OWN_SETTINGS.iter().any(|setting| line.starts_with(setting)) {
            sql.push_str(line);
        }
    }
    let end = key.map(|key| format!("\n\\unrestrict {key}\n"));
    match end.and_then(|end| rest.rfind(&end)) {
        Some(at) => sql.push_str(&rest[..at]),
        None => sql.push_str(rest),
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_psql_s_or_the_session_s_is_no_statement() {
        let script = "--\n-- PostgreSQL database dump\n--\n\n\\restrict Ab1\n\n-- Dumped by\n\n\
                      SET statement_timeout = 0;\nSET transaction_timeout = 0;\nSET client_encoding = 'UTF8';\n\
                      SET check_function_bodies = false;\n\nSET default_tablespace = '';\n\n--\n-- Name: f; Type: FUNCTION\n--\n\n\
                      CREATE FUNCTION f() AS $$\nSET statement_timeout = 5;\n\\unrestrict Xy\n$$;\n\n--\n\\unrestrict Ab1\n\n";
        let sql = statements(script);
        for gone in
            ["restrict Ab1", "transaction_timeout", "client_encoding", "statement_timeout = 0"]
        {
            assert!(!sql.contains(gone), "{gone} in {sql}");
        }
        for kept in [
            "SET check_function_bodies = false;",
            "SET default_tablespace = '';",
            "SET statement_timeout = 5;\n\\unrestrict Xy\n$$;",
        ] {
            assert!(sql.contains(kept), "{kept} not in {sql}");
        }
        assert_eq!(statements("SELECT 1;\n"), "SELECT 1;\n");
    }
}
