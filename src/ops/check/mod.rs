//! `check`: prove that the live set-up works, before a night depends on it.
//!
//! The runbook: configuration and keys can be read; the store keeps its promises; the repository can be opened
//! and written for those who are configured; the server can be reached, without a pooler that breaks
//! snapshots; the role may read every object of every database that would be dumped; there are programs,
//! connections, locks and room for scratch. One look that fails does not stop those that can go on without it.
//!
//! Nothing is changed but one small object in the repository, put and taken away again ([`store`]); a crash
//! leaves at most that object.

mod database;
mod finding;
mod keys;
mod server;
mod store;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::finding::{CheckReport, Finding, Level, Problem};
use crate::domain::ambient::Ambient;
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::FailureKind;
use crate::domain::id::ClusterName;
use crate::domain::observer::Observer;
use crate::repo::workers::Workers;
use crate::repo::{Keys, Repository};
use crate::scratch::space;
use crate::store::Store;

/// How long a server may take to answer all that is asked about it, or about one database.
const PATIENCE: Duration = Duration::from_mins(5);

/// What is to be looked at: the live parts, or why they did not come to life.
pub struct Checking<'a> {
    /// Where the configuration came from.
    pub configuration: String,
    /// What was understood but left out of the connection string.
    pub notices: Vec<String>,
    /// The store.
    pub store: Result<Store, Problem>,
    /// The keys.
    pub keys: Result<Keys, Problem>,
    /// Where the identity is, if one is here.
    pub identity: Option<String>,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Whether anything says where its server is; else libpq's defaults would be meant.
    pub server_named: bool,
    /// How to reach its server.
    pub connection: Result<ConnectionInfo, Problem>,
    /// The databases that would be dumped; a problem where they could not be asked for.
    pub databases: Result<Vec<String>, Problem>,
    /// Tables whose rows are left out.
    pub exclude_table_data: &'a [String],
    /// Where programs are looked for first.
    pub bin_dir: Option<&'a Path>,
    /// Where copies are proved.
    pub scratch_dir: &'a Path,
    /// Clocks and dice.
    pub ambient: Arc<dyn Ambient>,
    /// Who is told of the steps.
    pub observer: &'a dyn Observer,
}

/// Looks at everything.
pub async fn run(checking: &Checking<'_>) -> CheckReport {
    let mut findings = vec![configuration(checking)];
    findings.push(keys::parsed(checking.keys.as_ref().err()));
    let repository = repository(checking, &mut findings).await;
    if let Some(repository) = &repository {
        checking.observer.step("checking", "keys");
        findings.extend(keys::look(checking, repository).await);
    }
    let writes = checking.keys.as_ref().is_ok_and(|keys| keys.writer.is_some());
    match &checking.connection {
        // A host that only verifies.
        _ if !checking.server_named && !writes => {
            findings.push(Finding::ok(
                "server",
                "none is named here, and this host takes no snapshots",
            ));
        }
        Ok(connection) => server(checking, connection, repository.as_ref(), &mut findings).await,
        Err(problem) => findings.push(Finding::error("server", problem)),
    }
    CheckReport { findings }
}

fn configuration(checking: &Checking<'_>) -> Finding {
    const NAME: &str = "configuration";
    if checking.notices.is_empty() {
        return Finding::ok(NAME, &checking.configuration);
    }
    let told = format!("{}: {}", checking.configuration, checking.notices.join("; "));
    Finding::ok(NAME, told)
}

/// The store and the repository in it.
async fn repository(checking: &Checking<'_>, findings: &mut Vec<Finding>) -> Option<Repository> {
    let store = match &checking.store {
        Ok(store) => store,
        Err(problem) => {
            findings.push(Finding::error("store", problem));
            return None;
        }
    };
    checking.observer.step("checking", "store");
    let keys = checking.keys.clone().unwrap_or_default();
    let known = checking.keys.is_ok();
    let opened =
        Repository::open(store.clone(), keys, Workers::threads(), checking.ambient.clone()).await;
    match opened {
        Ok(repository) => {
            findings.extend(store::round_trip(&**store, &*checking.ambient).await);
            Some(repository)
        }
        // Without keys no signature can be trusted, and that has been told. A place that holds no repository
        // is no place to put things in.
        Err(error) if known => {
            findings.push(Finding::error("repository", &Problem::of(&error)));
            None
        }
        Err(_) => None,
    }
}

async fn server(
    checking: &Checking<'_>,
    connection: &ConnectionInfo,
    repository: Option<&Repository>,
    findings: &mut Vec<Finding>,
) {
    checking.observer.step("checking", &connection.describe());
    let look = server::look(checking, connection, repository, findings);
    let server = match tokio::time::timeout(PATIENCE, look).await {
        Ok(Some(server)) => server,
        Ok(None) => return,
        Err(_) => {
            findings.push(stalled("server"));
            return;
        }
    };
    let databases = match &checking.databases {
        Ok(databases) => databases,
        Err(problem) => {
            findings.push(Finding::error("databases", problem));
            return;
        }
    };
    let mut largest = 0;
    for database in databases {
        checking.observer.step("checking", database);
        let connection = connection.with_database(database);
        let look = database::look(checking, &connection, &server, findings);
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(bytes) => largest = largest.max(bytes.unwrap_or_default()),
            Err(_) => findings.push(stalled("privileges").of(database)),
        }
    }
    findings.push(scratch_space(checking.scratch_dir, largest));
}

/// A server that lets us in and then says nothing.
fn stalled(name: &'static str) -> Finding {
    Finding::failed(
        name,
        FailureKind::Postgres,
        format!("the server gave no answer within {} minutes", PATIENCE.as_secs() / 60),
        "is it overloaded, or stopped? look at pg_stat_activity and its log",
    )
}

/// Room to prove the largest database.
fn scratch_space(directory: &Path, largest_bytes: u64) -> Finding {
    const NAME: &str = "scratch-space";
    let needed = space::restored_bytes(largest_bytes, Some(largest_bytes));
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let free = match space::of(directory) {
        Ok(space) => space.free_bytes,
        Err(error) => {
            let problem = Problem::of(&error);
            let hint = problem.hint.unwrap_or_default();
            return Finding::warning(NAME, problem.message, hint);
        }
    };
    let told = format!(
        "{} has {} free, and proving the largest database takes about {}",
        directory.display(),
        mib(free),
        mib(needed)
    );
    if free >= needed {
        return Finding::ok(NAME, told);
    }
    Finding::warning(NAME, told, "name a `scratch_dir` on a larger disk, or verify on another host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_too_small_for_the_largest_database_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(scratch_space(directory.path(), 1 << 20).level, Level::Ok);
        let small = scratch_space(directory.path(), 1 << 60);
        assert_eq!(small.level, Level::Warning);
        assert!(small.detail.contains("MiB free"), "{}", small.detail);
        let absent = scratch_space(&directory.path().join("absent"), 1);
        assert_eq!(absent.level, Level::Warning);
        assert!(absent.detail.contains("absent"), "{}", absent.detail);
    }
}
