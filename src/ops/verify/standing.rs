//! A copy that stands: a backup loaded into scratch and compared, for whoever has a use for it.
//!
//! A verification looks at the checks and has done with it. A rehearsal goes on with a copy that looks like its source: it has
//! the source's name, owner and settings, can be reached on 127.0.0.1, and is durable ([`stand`]).

use super::{VerifyError, Verifying, chain, ground, milliseconds, sweep};
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::DatabaseFacts;
use crate::domain::observer::Severity;
use crate::domain::verification::{Check, Outcome};
use crate::ops::copy::{OpenedBackup, jobs};
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident};
use crate::proof::{Incoming, ProofError, ProofRequest, verify as prove};
use crate::repo::catalog::Entry;
use crate::scratch::ScratchError;
use crate::scratch::cluster::{ScratchCluster, Settings};
use crate::scratch::directory::ScratchDirectory;
use crate::scratch::properties::DatabaseProperties;

/// Databases that every cluster has.
const PRESENT: [&str; 3] = ["postgres", "template0", "template1"];

/// A copy on its server, and what was found when it was compared.
pub(super) struct Stood {
    pub(super) server: ground::Server,
    /// The copy's name there; gone already where the server is not ours.
    pub(super) name: String,
    pub(super) checks: Vec<Check>,
}

/// Restores the archive into a scratch of its own and compares; into a stage where its settings are given.
pub(super) async fn load(
    verifying: &Verifying<'_>,
    backup: &OpenedBackup<'_>,
    stage: Option<&Settings>,
) -> Result<Stood, VerifyError> {
    match Box::pin(load_once(verifying, backup, stage)).await {
        // A deadlock or an ended session is not the backup's fault; what comes again may well be.
        Err(error) if error.is_passing() && !verifying.cancel.is_cancelled() => {
            let told = format!("once more, in a fresh scratch, since {}", chain(&error));
            verifying.observer.finding(Severity::Warning, &told);
            Box::pin(load_once(verifying, backup, stage)).await
        }
        first => first,
    }
}

async fn load_once(
    verifying: &Verifying<'_>,
    backup: &OpenedBackup<'_>,
    stage: Option<&Settings>,
) -> Result<Stood, VerifyError> {
    let random = verifying.repository.ambient().random();
    let directory = ScratchDirectory::create(verifying.scratch_dir, random)?;
    // The first chunks come in while a server comes up, the others while they are loaded.
    let (archive, fetch) = backup.archive(verifying.observer, verifying.cancel);
    let proof = async {
        let server = match stage {
            None => ground::server(verifying, backup).await?,
            Some(settings) => ground::stage(verifying, backup, settings).await?,
        };
        let stays = stage.is_some();
        match prove_on(verifying, backup, archive, &directory, &server, stays).await {
            Ok((name, checks)) => Ok(Stood { server, name, checks }),
            Err(error) => {
                // The first failure is the one to tell.
                let _ = server.stop().await;
                Err(error)
            }
        }
    };
    let (fetched, stood) = tokio::join!(fetch, proof);
    fetched?;
    let stood = stood?;
    directory.remove()?;
    Ok(stood)
}

async fn prove_on(
    verifying: &Verifying<'_>,
    backup: &OpenedBackup<'_>,
    archive: Incoming,
    directory: &ScratchDirectory,
    server: &ground::Server,
    stays: bool,
) -> Result<(String, Vec<Check>), VerifyError> {
    let (scratch, locale) = server.database(verifying, backup).await?;
    let name = scratch.name().to_owned();
    let request = ProofRequest {
        directory: directory.path(),
        target: &scratch.connection(),
        programs: server.programs(),
        expected: &backup.inventory,
        depth: verifying.depth,
        assertions: verifying.assertions,
        assertion_timeout: None,
        row_key: backup.row_key(),
        jobs: jobs(),
        only: None,
        roles: server.has_roles(),
        tablespaces: false,
        locale,
        // A copy that is thrown away is compared by scans, which need no statistics; assertions may, and who uses it.
        analyze: stays || !verifying.assertions.is_empty(),
        observer: verifying.observer,
    };
    let proved = tokio::select! {
        () = verifying.cancel.cancelled() => Err(VerifyError::Interrupted),
        lost = scratch.lost() => Err(ProofError::from(lost).into()),
        proof = prove(&request, archive) => proof.map_err(VerifyError::from),
    };
    // In a cluster of our own it goes with the cluster.
    let discarded = if server.is_ours() { Ok(()) } else { scratch.discard().await };
    let proof = proved.map_err(|error| server.explain(error))?;
    discarded?;
    Ok((name, proof.checks))
}

/// A proved copy on a server of its own. Dropping it ends the server and removes everything.
#[derive(Debug)]
pub struct StandingCopy {
    cluster: ScratchCluster,
    connection: ConnectionInfo,
    port: u16,
    /// How long fetching, restoring and comparing took.
    pub restore_ms: u64,
}

impl StandingCopy {
    /// How pgkeep reaches it: by its socket, as the superuser.
    pub fn connection(&self) -> &ConnectionInfo {
        &self.connection
    }

    /// Its server's major version.
    pub fn major(&self) -> u32 {
        self.cluster.major()
    }

    /// Where everybody else does, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many sessions came in there.
    pub fn visits(&self) -> Result<usize, VerifyError> {
        Ok(self.cluster.visits()?)
    }

    /// The server's last words.
    pub fn log_tail(&self) -> String {
        self.cluster.log_tail()
    }

    /// Ends the server and removes everything.
    pub async fn stop(self) -> Result<(), VerifyError> {
        Ok(self.cluster.stop().await?)
    }
}

/// Restores a snapshot into a server of its own with these settings, compares it, and gives it the source's name, owner and
/// properties. A copy that is not what was recorded is an error.
pub async fn stand(
    verifying: &Verifying<'_>,
    entry: &Entry,
    settings: &Settings,
) -> Result<StandingCopy, VerifyError> {
    sweep(verifying).await?;
    let ambient = verifying.repository.ambient();
    let begun = ambient.monotonic();
    let backup = OpenedBackup::open(verifying.repository, entry).await?;
    let scratch_dir = verifying.scratch_dir;
    std::fs::create_dir_all(scratch_dir).map_err(ScratchError::io("cannot create", scratch_dir))?;
    let stood = load(verifying, &backup, Some(settings)).await?;
    let broken = stood.checks.iter().filter(|check| check.result == Outcome::Failed);
    let broken: Vec<String> =
        broken.map(|check| format!("{}: {}", check.name, check.detail)).collect();
    let cluster = stood.server.into_cluster().expect("nothing stands in for a stage");
    if !broken.is_empty() {
        cluster.stop().await?;
        return Err(VerifyError::NotProved(broken.join("; ")));
    }
    let facts = &backup.inventory.database;
    let finished = tokio::select! {
        () = verifying.cancel.cancelled() => Err(VerifyError::Interrupted),
        finished = finish(verifying, &cluster, facts, stood.name) => finished,
    };
    match finished {
        Ok(name) => Ok(StandingCopy {
            connection: cluster.connection().with_database(&name),
            port: cluster.port().expect("a stage listens"),
            cluster,
            restore_ms: milliseconds(ambient.monotonic().saturating_sub(begun)),
        }),
        Err(error) => {
            // The first failure is the one to tell.
            let _ = cluster.stop().await;
            Err(error)
        }
    }
}

/// What makes it look like its source; its name.
async fn finish(
    verifying: &Verifying<'_>,
    cluster: &ScratchCluster,
    facts: &DatabaseFacts,
    name: String,
) -> Result<String, VerifyError> {
    let session = Session::connect(cluster.connection(), "rehearse").await?;
    if facts.acl.is_empty() {
        // Nobody ever granted or revoked anything on the source; a scratch database is closed at first.
        let (database, public) = (quote_ident(&name), "CONNECT, TEMPORARY");
        session.batch(&format!("GRANT {public} ON DATABASE {database} TO PUBLIC")).await?;
    }
    session.batch("BEGIN").await?;
    for statement in DatabaseProperties::recorded(facts).statements(&name) {
        session.batch("SAVEPOINT one").await?;
        match session.batch(&statement).await {
            Ok(()) => {}
            // A setting of a library that is not loaded here, and the like.
            Err(error) if error.is_verdict() => {
                session.batch("ROLLBACK TO one").await?;
                let told = format!("the copy has no `{statement}`: {error}");
                verifying.observer.finding(Severity::Notice, &told);
            }
            Err(error) => return Err(error.into()),
        }
    }
    session.batch("COMMIT").await?;
    let name = if PRESENT.contains(&facts.name.as_str()) {
        name
    } else {
        rename(&session, &name, &facts.name).await?;
        facts.name.clone()
    };
    cluster.become_durable().await?;
    Ok(name)
}

/// The sessions that compared it may still be on their way out; the server itself waits for them some seconds.
async fn rename(session: &Session, from: &str, to: &str) -> Result<(), PostgresError> {
    let (from, to) = (quote_ident(from), quote_ident(to));
    session.batch(&format!("ALTER DATABASE {from} RENAME TO {to}")).await
}
