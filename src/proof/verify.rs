//! Loads an archive into an empty database and proves it, check by check.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::checks::{self, Assertion};
use super::fingerprint::{ContentRequest, Sums, content};
use super::intake::{Contents, Incoming};
use super::load::{LoadReport, LoadRequest, load, missing};
use super::selection::{Omission, Only};
use super::{ProofError, amcheck, told};
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::{CompareOptions, Inventory};
use crate::domain::observer::{Observer, Severity};
use crate::domain::verification::{Check, Depth, Outcome};
use crate::postgres::PostgresError;
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;

/// What is proved, where, and how deep.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties of one target")]
pub struct ProofRequest<'a> {
    /// An empty directory for what `pg_restore` reads.
    pub directory: &'a Path,
    /// An empty database that nobody else uses.
    pub target: &'a ConnectionInfo,
    /// Client programs: of the `pg_dump` that wrote the archive and of the target, or newer.
    pub programs: &'a Programs,
    /// What was recorded, row counts and sequence values included.
    pub expected: &'a Inventory,
    /// How deep.
    pub depth: Depth,
    /// Queries that must return no row.
    pub assertions: &'a [Assertion],
    /// The limit of each of them; none is no limit.
    pub assertion_timeout: Option<Duration>,
    /// What row hashes are keyed with.
    pub row_key: [u8; 32],
    /// Sessions to restore and to compare with.
    pub jobs: usize,
    /// Restore and compare this alone, with what it needs.
    pub only: Option<&'a Only>,
    /// Set owners and privileges; their roles must exist.
    pub roles: bool,
    /// Put tables into their tablespaces, which must exist.
    pub tablespaces: bool,
    /// Whether the target was made with the source's encoding and locale.
    pub locale: bool,
    /// Gather statistics; a database that stays wants them.
    pub analyze: bool,
    /// Listens.
    pub observer: &'a dyn Observer,
}

/// What came out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// In order: `load`, `inventory`, `row-counts`, `sequences`, `assertions`, `content`, `amcheck`.
    pub checks: Vec<Check>,
    /// Entries that were not restored, with reasons.
    pub left_out: Vec<Omission>,
    /// Whether objects have their owners and privileges.
    pub roles: bool,
    /// What should be known and fails nothing.
    pub notices: Vec<String>,
}

/// Restores and compares. When the archive cannot be loaded, that is the only check, and it has failed.
pub async fn verify(request: &ProofRequest<'_>, archive: Incoming) -> Result<Proof, ProofError> {
    let mut proof = Proof::default();
    let subject = request.target.database();
    let step = |name| request.observer.step(name, subject);
    step("looking for what is missing");
    nothing_missing(request).await?;
    step("restoring");
    let sums = (request.depth == Depth::Full)
        .then(|| Sums::new(request.row_key, extension_tables(request.expected)));
    let report = match load(&load_request(request), archive, sums).await {
        Ok(report) => report,
        Err(
            error @ (ProofError::Refused { .. }
            | ProofError::Postgres(PostgresError::ProgramFailed { .. })),
        ) => {
            proof.checks.push(Check::failed("load", error.to_string()));
            return Ok(proof);
        }
        Err(error) => return Err(error),
    };
    proof.checks.push(loaded(&report));
    let options = CompareOptions {
        left_out: report
            .left_out
            .iter()
            .map(|omission| omission.entry.clone())
            .chain(report.unasked)
            .collect(),
        roles: report.roles,
        subscriptions: false,
        locale: request.locale,
    };
    let Contents { summary, sums } = report.contents;
    proof.left_out = report.left_out;
    proof.roles = report.roles;
    if request.roles && !report.roles {
        let told = "without owners and privileges: this role is not a member of every owner";
        request.observer.finding(Severity::Warning, told);
    }
    step("comparing inventories");
    let session = Session::connect(request.target, "verify").await?;
    let partial = request.only.is_some();
    let (check, mut notices) =
        checks::inventory(&session, request.expected, &options, partial).await?;
    if partial {
        // They count what the whole database has.
        notices.clear();
    }
    for notice in &notices {
        request.observer.finding(Severity::Notice, notice);
    }
    proof.checks.push(check);
    proof.notices = notices;
    let (target, expected) = (request.target, request.expected);
    let counted = checks::row_counts(&session, report.counts, expected, &summary, &options);
    proof.checks.push(counted.await?);
    proof.checks.push(checks::sequences(&session, expected, &options).await?);
    if !request.assertions.is_empty() {
        step("asserting");
        let (all, timeout) = (request.assertions, request.assertion_timeout);
        proof.checks.push(checks::assertions(target, expected, all, timeout).await?);
    }
    if let Some(sums) = &sums {
        step("comparing content");
        let left_out = left_out_tables(&options);
        let compared = content(ContentRequest {
            archive: &summary,
            sums,
            target,
            key: request.row_key,
            lc_monetary: &expected.database.lc_monetary,
            extension_tables: extension_tables(expected),
            left_out,
            large_objects: request.only.is_none(),
            sessions: request.jobs,
        });
        proof.checks.push(compared.await?);
        step("checking tables and indexes");
        let checked = amcheck::amcheck(&session, target, request.programs, request.jobs).await?;
        proof.checks.push(checked);
    }
    for check in proof.checks.iter().filter(|check| check.result == Outcome::Failed) {
        let message = format!("{}: {}", check.name, check.detail);
        request.observer.finding(Severity::Warning, &message);
    }
    Ok(proof)
}

async fn nothing_missing(request: &ProofRequest<'_>) -> Result<(), ProofError> {
    let session = Session::connect(request.target, "verify").await?;
    let mut missing = missing(&session, request.expected).await?;
    if !request.roles {
        missing.roles.clear();
    }
    if missing.is_empty() { Ok(()) } else { Err(ProofError::Missing(missing)) }
}

fn load_request<'a>(request: &ProofRequest<'a>) -> LoadRequest<'a> {
    LoadRequest {
        directory: request.directory,
        target: request.target,
        programs: request.programs,
        jobs: request.jobs,
        expected: request.expected,
        only: request.only,
        roles: request.roles,
        tablespaces: request.tablespaces,
        analyze: request.analyze,
        observer: request.observer,
    }
}

pub(super) fn loaded(report: &LoadReport) -> Check {
    let restored = report.restored;
    let owners = if report.roles { "" } else { ", without owners and privileges" };
    let left_out: Vec<String> = report.left_out.iter().map(Omission::describe).collect();
    let rest = if left_out.is_empty() {
        String::new()
    } else {
        format!("; left out: {}", told(&left_out))
    };
    Check::passed("load", format!("{restored} entries restored{owners}{rest}"))
}

fn extension_tables(expected: &Inventory) -> BTreeSet<(String, String)> {
    let tables = expected.extension_tables.iter();
    tables.map(|table| (table.schema.clone(), table.name.clone())).collect()
}

fn left_out_tables(options: &CompareOptions) -> BTreeSet<(String, String)> {
    let of_tables = |desc: &str| matches!(desc, "TABLE" | "TABLE DATA");
    let left_out = options.left_out.iter().filter(|entry| of_tables(&entry.desc));
    left_out.map(|entry| (entry.schema.clone().unwrap_or_default(), entry.name.clone())).collect()
}
