//! Puts an archive into an empty database while it comes in: `pg_restore` makes what rows need, several
//! sessions put the rows in ([`fill`](super::fill)) and build indexes and keys ([`build`](super::build)), and
//! `pg_restore` makes the rest.
//!
//! What is missing on the server is found first, before anything is created. Then lists say what to
//! restore ([`selection`](super::selection)), and `pg_restore` stops at its first error: an error is never
//! skipped. One exception is not ours to avoid: `pg_restore` 17 and later sets `transaction_timeout`, which
//! an older server does not know; there it runs on, and everything it says is read afterwards.
//!
//! A crash leaves a database half filled, which the caller made and removes.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use futures::future::try_join_all;

use super::ProofError;
use super::accident::{self, PLAIN_WORDS};
use super::build::{Plan, Steps};
use super::checks::tables;
use super::fill::fill;
use super::fingerprint::Sums;
use super::intake::{Contents, Incoming, Intake, Wanted};
use super::selection::{Omission, Only, Rights, select, use_list};
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::{Inventory, LeftOut, PG_CRON, TableCount};
use crate::domain::observer::Observer;
use crate::postgres::PostgresError;
use crate::postgres::child::{Child, ChildSpec};
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;

/// How to load.
#[derive(Clone, Copy)]
pub struct LoadRequest<'a> {
    /// Where the archive's head is put, for `pg_restore`: an empty directory of this load.
    pub directory: &'a Path,
    /// The empty database.
    pub target: &'a ConnectionInfo,
    /// Where `pg_restore` is: of the `pg_dump` that wrote the archive, or newer.
    pub programs: &'a Programs,
    /// Sessions to work with.
    pub jobs: usize,
    /// What was recorded of the source.
    pub expected: &'a Inventory,
    /// Restore this alone, with what it needs.
    pub only: Option<&'a Only>,
    /// Set owners and privileges; their roles must exist.
    pub roles: bool,
    /// Put tables into their tablespaces, which must exist.
    pub tablespaces: bool,
    /// Gather statistics at the end.
    pub analyze: bool,
    /// Told of the steps.
    pub observer: &'a dyn Observer,
}

/// What a load did.
#[derive(Debug)]
pub struct LoadReport {
    /// Entries that were restored.
    pub restored: usize,
    /// Entries that were left out, with reasons.
    pub left_out: Vec<Omission>,
    /// Entries that nobody asked for.
    pub unasked: Vec<LeftOut>,
    /// Whether objects have their owners and privileges.
    pub roles: bool,
    /// What the archive held.
    pub contents: Contents,
    /// The rows that are there, counted while indexes were built.
    pub counts: Vec<TableCount>,
}

/// What the target's server must have and has not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Missing {
    /// Roles that the dump names.
    pub roles: Vec<String>,
    /// Extensions that are not installed on its host.
    pub extensions: Vec<String>,
}

impl Missing {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.extensions.is_empty()
    }

    pub(super) fn hint(&self) -> String {
        let mut hints = Vec::new();
        if !self.extensions.is_empty() {
            hints.push("install the extensions' packages on the server's host");
        }
        if !self.roles.is_empty() {
            hints.push("create the roles first: the snapshot's part `globals` has the statements");
        }
        hints.join(", and ")
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |one: &str, many: &str, names: &[String]| {
            let word = if names.len() == 1 { one } else { many };
            (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")))
        };
        let roles = list("role", "roles", &self.roles);
        let extensions = list("extension", "extensions", &self.extensions);
        let all: Vec<String> = roles.into_iter().chain(extensions).collect();
        f.write_str(&all.join(" and "))
    }
}

/// Compares what `expected` needs with what the server of `session` has.
pub async fn missing(session: &Session, expected: &Inventory) -> Result<Missing, PostgresError> {
    let roles = names(session, "SELECT rolname::text FROM pg_catalog.pg_roles").await?;
    let extensions = names(
        session,
        "SELECT name::text FROM pg_catalog.pg_available_extensions \
         UNION SELECT extname::text FROM pg_catalog.pg_extension",
    )
    .await?;
    let lacks = |all: &BTreeSet<String>, name: &&String| !all.contains(*name);
    // One that no copy gets is not missed.
    let needed = expected.extensions.iter().map(|extension| &extension.name);
    let needed = needed.filter(|name| *name != PG_CRON);
    Ok(Missing {
        roles: expected.roles_needed.iter().filter(|name| lacks(&roles, name)).cloned().collect(),
        extensions: needed.filter(|name| lacks(&extensions, name)).cloned().collect(),
    })
}

async fn names(session: &Session, query: &str) -> Result<BTreeSet<String>, PostgresError> {
    let rows = session.client().query(query, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// What the role of `session` may do in its database.
pub(super) async fn rights(session: &Session) -> Result<Rights, PostgresError> {
    let row = session
        .client()
        .query_one(
            "SELECT rolsuper, EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name IN \
               ('shared_preload_libraries', 'session_preload_libraries', \
                'local_preload_libraries') AND setting <> '') \
             FROM pg_catalog.pg_roles WHERE rolname = current_user",
            &[],
        )
        .await?;
    let (superuser, label_providers) = (row.try_get(0)?, row.try_get(1)?);
    let plain_words = superuser
        || session.major() >= 15 && {
            let sql = "SELECT pg_catalog.has_parameter_privilege('lc_messages', 'SET')";
            session.client().query_one(sql, &[]).await?.try_get(0)?
        };
    let member = if session.major() >= 16 { "SET" } else { "MEMBER" };
    let creatable_extensions = names(
        session,
        "SELECT name::text FROM pg_catalog.pg_available_extension_versions \
         WHERE trusted OR NOT superuser",
    )
    .await?;
    let mut trusted_languages =
        names(session, "SELECT lanname::text FROM pg_catalog.pg_language WHERE lanpltrusted")
            .await?;
    // A language that comes with such an extension.
    trusted_languages.extend(creatable_extensions.iter().cloned());
    Ok(Rights {
        superuser,
        installed_extensions: names(session, "SELECT extname::text FROM pg_catalog.pg_extension")
            .await?,
        creatable_extensions,
        member_of: names(
            session,
            &format!(
                "SELECT rolname::text FROM pg_catalog.pg_roles \
                 WHERE pg_catalog.pg_has_role(oid, '{member}')"
            ),
        )
        .await?,
        trusted_languages,
        label_providers,
        plain_words,
    })
}

/// Restores the archive into the target. With `sums`, its content is summed on the way.
pub async fn load(
    request: &LoadRequest<'_>,
    incoming: Incoming,
    sums: Option<Sums>,
) -> Result<LoadReport, ProofError> {
    let session = Session::connect(request.target, "restore").await?;
    let rights = rights(&session).await?;
    let loaded = load_as(request, &session, &rights, incoming, sums).await;
    if rights.superuser { loaded } else { loaded.map_err(accident::of_the_role) }
}

async fn load_as(
    request: &LoadRequest<'_>,
    session: &Session,
    rights: &Rights,
    incoming: Incoming,
    sums: Option<Sums>,
) -> Result<LoadReport, ProofError> {
    let intake = Intake::start(incoming, request.directory, sums);
    let Ok(head) = intake.head.await else { return Err(ended(intake.contents).await) };
    if let Some(absent) = request.only.and_then(|only| only.absent(&head.toc)) {
        return Err(ProofError::Absent(absent));
    }
    let selection = select(&head.toc, rights, request.only);
    let lost: Vec<String> = selection
        .omitted
        .iter()
        .filter(|omission| omission.holds_data)
        .map(Omission::describe)
        .collect();
    if !lost.is_empty() {
        return Err(ProofError::Rights { entries: lost });
    }
    let roles = request.roles && !selection.without_owners;
    let target =
        if rights.plain_words { &request.target.with_options(PLAIN_WORDS) } else { request.target };
    let restore =
        Restore { request, target, head: &head.path, roles, server_major: session.major() };
    // The first batches are made ready while there is no table yet.
    let large_objects = request.only.is_none();
    let wanted = Wanted { tables: selection.data.clone(), large_objects };
    if intake.wanted.send(wanted).is_err() {
        return Err(ended(intake.contents).await);
    }
    restore.run(&selection.before).await?;
    let tables = tables(session, request.expected).await?;
    let plan = Plan::new(&head.toc, &request.expected.rows, &selection.indexes, tables);
    let sessions = request.jobs.max(1);
    let steps = Steps::new(plan, sessions, request.tablespaces);
    let lc_monetary = &request.expected.database.lc_monetary;
    let filled = fill(request.target, sessions, lc_monetary, intake.batches, &steps);
    let read = async {
        let contents = intake.contents.await.map_err(|_| ProofError::Stopped)??;
        request
            .observer
            .step("building indexes and constraints, counting rows", request.target.database());
        steps.whole();
        Ok(contents)
    };
    let ((), contents) = futures::try_join!(filled, read)?;
    let counts = steps.into_counts();
    restore.run(&selection.after).await?;
    if request.analyze {
        request.observer.step("gathering statistics", request.target.database());
        gather(session, request.target, request.jobs).await?;
    }
    Ok(LoadReport {
        restored: selection.kept(),
        left_out: selection.omitted,
        unasked: selection.unasked,
        roles,
        contents,
        counts,
    })
}

/// Why there was no head.
pub(super) async fn ended(
    contents: tokio::task::JoinHandle<Result<Contents, ProofError>>,
) -> ProofError {
    match contents.await {
        Ok(Err(error)) => error,
        _ => ProofError::Stopped,
    }
}

/// Gathers statistics, with up to `sessions` sessions beside each other.
async fn gather(
    session: &Session,
    target: &ConnectionInfo,
    sessions: usize,
) -> Result<(), ProofError> {
    let tables = Mutex::new(to_analyze(session).await?.into_iter());
    let next = || tables.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = (0..sessions.max(1)).map(async |_| {
        let mut own = None;
        while let Some(table) = next() {
            if own.is_none() {
                own = Some(Session::connect(target, "restore").await?);
            }
            let session = own.as_ref().expect("connected for the first table");
            session.batch(&format!("{QUIETLY}ANALYZE {table}")).await?;
        }
        Ok::<_, ProofError>(())
    });
    try_join_all(work).await.map(|_| ())
}

const QUIETLY: &str = "SET statement_timeout = 0; SET lock_timeout = 0; \
    SET client_min_messages = warning; SET synchronous_commit = off; ";

/// The statement that gathers statistics and reaches nowhere.
pub(super) async fn analyze(session: &Session) -> Result<String, PostgresError> {
    Ok(format!("ANALYZE {}", to_analyze(session).await?.join(", ")))
}

/// The tables that statistics are gathered of, largest first; of none, the catalogs' own are.
///
/// ANALYZE of a table samples its children and partitions, foreign ones at their server. So tables above
/// a foreign one are left out, and what lies below them is named by itself.
async fn to_analyze(session: &Session) -> Result<Vec<String>, PostgresError> {
    let rows = session
        .client()
        .query(
            "WITH RECURSIVE reaching(oid) AS ( \
               SELECT i.inhparent FROM pg_catalog.pg_inherits i \
               JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'f' \
               UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i \
               JOIN reaching r ON i.inhrelid = r.oid) \
             SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^pg_' \
               AND n.nspname <> 'information_schema' \
               AND c.oid NOT IN (SELECT oid FROM reaching) \
               AND (NOT c.relispartition OR EXISTS (SELECT FROM pg_catalog.pg_inherits i \
                    WHERE i.inhrelid = c.oid AND i.inhparent IN (SELECT oid FROM reaching))) \
             ORDER BY pg_catalog.pg_relation_size(c.oid) DESC",
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// How `pg_restore` is run.
struct Restore<'a> {
    request: &'a LoadRequest<'a>,
    target: &'a ConnectionInfo,
    head: &'a Path,
    roles: bool,
    server_major: u32,
}

impl Restore<'_> {
    /// Restores `entries`, none of which has data.
    async fn run(&self, entries: &[u32]) -> Result<(), ProofError> {
        let request = self.request;
        if entries.is_empty() {
            return Ok(());
        }
        let chosen = Chosen { entries, roles: self.roles, tablespaces: request.tablespaces };
        let (spec, _list) = pg_restore(request.programs, request.directory, &chosen)?;
        let foreign_setting = request.programs.major() >= 17 && self.server_major < 17;
        let mut spec = spec
            .connection(self.target)
            .purpose("restore")
            .arg("--no-password")
            .arg(connection_string(request.target));
        if !foreign_setting {
            spec = spec.arg("--exit-on-error");
        }
        let mut child = Child::spawn(spec.arg(self.head))?;
        let exit = child.exit().await?;
        if foreign_setting && exit.code == Some(1) && only_foreign_setting(&exit.stderr) {
            return Ok(());
        }
        accident::judge(&child, &exit)
    }
}

/// What `pg_restore` is to take of an archive.
pub(super) struct Chosen<'a> {
    pub(super) entries: &'a [u32],
    pub(super) roles: bool,
    pub(super) tablespaces: bool,
}

/// `pg_restore` for that, without its archive and where it goes; and the list it reads, which must outlive it.
pub(super) fn pg_restore(
    programs: &Programs,
    directory: &Path,
    chosen: &Chosen<'_>,
) -> Result<(ChildSpec, tempfile::NamedTempFile), ProofError> {
    let failed = |source| ProofError::Head { path: directory.to_owned(), source };
    let mut list = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    list.write_all(use_list(chosen.entries).as_bytes()).map_err(failed)?;
    let mut spec =
        ChildSpec::new(programs.program("pg_restore")?).arg(option("--use-list=", list.path()));
    if !chosen.roles {
        spec = spec.args(["--no-owner", "--no-privileges"]);
    }
    if !chosen.tablespaces {
        spec = spec.arg("--no-tablespaces");
    }
    Ok((spec, list))
}

fn option(name: &str, value: &std::path::Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(name);
    text.push(value);
    text
}

/// `--dbname=dbname='…'`: only so can a database have any name.
fn connection_string(target: &ConnectionInfo) -> String {
    format!("--dbname={}", conninfo(target.database()))
}

/// A connection string that names a database and nothing else.
pub(super) fn conninfo(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Whether all that `pg_restore` complained of is the setting that the older server does not know.
///
/// It tells how many errors it ignored: one a session of its leader, of which there are at most two, so
/// another error cannot hide in front of the part of its output that was kept.
fn only_foreign_setting(stderr: &str) -> bool {
    let mut ignored = None;
    for line in stderr.lines().filter(|line| !line.is_empty()) {
        if let Some((_, count)) = line.split_once("errors ignored on restore: ") {
            ignored = count.trim().parse::<u32>().ok();
        } else if line.contains("pg_restore: error: ") {
            if !line.ends_with("unrecognized configuration parameter \"transaction_timeout\"") {
                return false;
            }
        } else if line.starts_with("Command was: ")
            && line != "Command was: SET transaction_timeout = 0;"
        {
            return false;
        }
    }
    ignored.is_some_and(|count| count <= 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: &str = "pg_restore: error: could not execute query: ERROR:  unrecognized \
                           configuration parameter \"transaction_timeout\"\n\
                           Command was: SET transaction_timeout = 0;\n";

    #[test]
    fn the_setting_that_an_older_server_does_not_know_is_no_failure() {
        let ignored =
            |count: u32| format!("pg_restore: warning: errors ignored on restore: {count}\n");
        assert!(only_foreign_setting(&format!("{SETTING}{SETTING}{}", ignored(2))));
        let other =
            "pg_restore: error: could not execute query: ERROR:  type \"x\" does not exist\n";
        assert!(!only_foreign_setting(&format!("{SETTING}{other}{}", ignored(2))));
        assert!(!only_foreign_setting(&format!("{SETTING}{}", ignored(3))));
        assert!(!only_foreign_setting(SETTING), "it did not come to its end");
        let cut = "Command was: CREATE TABLE t ();\n";
        assert!(!only_foreign_setting(&format!("{cut}{SETTING}{}", ignored(2))));
    }

    #[test]
    fn any_name_of_a_database_is_kept() {
        assert_eq!(conninfo("a'b\\c =d"), "dbname='a\\'b\\\\c =d'");
    }

    #[test]
    fn what_is_missing_is_named_in_one_line() {
        let missing = Missing {
            roles: vec!["app".into(), "reader".into()],
            extensions: vec!["postgis".into()],
        };
        assert_eq!(missing.to_string(), "roles app, reader and extension postgis");
    }
}
