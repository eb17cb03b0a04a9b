//! Where a copy is proved: an ephemeral cluster, or a database on a server that stands in for it.

use super::{ScratchChoice, VerifyError, Verifying};
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::{DatabaseFacts, Inventory};
use crate::domain::observer::Severity;
use crate::ops::copy::{OpenedBackup, dump_major};
use crate::postgres::PostgresError;
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;
use crate::proof::{Missing, ProofError, missing};
use crate::scratch::cluster::{ScratchCluster, ServerMemory, Settings};
use crate::scratch::database::{Creation, ScratchDatabase, maintenance_session};
use crate::scratch::directory::ScratchDirectory;
use crate::scratch::{ScratchError, registry, space};

/// A server for one copy.
pub(super) struct Server {
    /// Ours, when it is an ephemeral one.
    cluster: Option<ScratchCluster>,
    connection: ConnectionInfo,
    programs: Programs,
    has_roles: bool,
}

/// Makes an ephemeral cluster, or falls back on a server where the setting allows it.
pub(super) async fn server(
    verifying: &Verifying<'_>,
    backup: &OpenedBackup<'_>,
) -> Result<Server, VerifyError> {
    let parent = match verifying.scratch {
        ScratchChoice::Server(server) => return standing_in(verifying, backup, server).await,
        ScratchChoice::Directory(directory) => directory.as_path(),
        ScratchChoice::Auto => verifying.scratch_dir,
    };
    let reason = match ephemeral(verifying, backup, parent, None).await? {
        Ok(server) => return Ok(server),
        Err(reason) => reason,
    };
    let may_stand_in = matches!(verifying.scratch, ScratchChoice::Auto);
    match verifying.server.filter(|_| may_stand_in) {
        Some(server) => {
            let told = format!(
                "no scratch cluster: {reason}; restoring into a scratch database on {} instead",
                server.describe()
            );
            verifying.observer.finding(Severity::Warning, &told);
            standing_in(verifying, backup, server).await
        }
        None => Err(no_ground(backup, reason)),
    }
}

/// Makes an ephemeral cluster that a command can work on; nothing stands in for it.
pub(super) async fn stage(
    verifying: &Verifying<'_>,
    backup: &OpenedBackup<'_>,
    settings: &Settings,
) -> Result<Server, VerifyError> {
    let parent = match verifying.scratch {
        ScratchChoice::Directory(directory) => directory.as_path(),
        ScratchChoice::Auto | ScratchChoice::Server(_) => verifying.scratch_dir,
    };
    let made = ephemeral(verifying, backup, parent, Some(settings)).await?;
    made.map_err(|reason| no_ground(backup, reason))
}

fn no_ground(backup: &OpenedBackup<'_>, reason: Reason) -> VerifyError {
    match reason {
        Reason::Scratch(source) => {
            VerifyError::NoGround { major: backup.inventory.major(), source }
        }
        Reason::Missing(missing) => ProofError::Missing(missing).into(),
    }
}

/// Why there is no ephemeral cluster that could take the copy.
enum Reason {
    /// It cannot be made on this host.
    Scratch(ScratchError),
    /// It can, and lacks extensions.
    Missing(Missing),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scratch(error) => error.fmt(f),
            Self::Missing(missing) => write!(f, "its programs lack {missing}"),
        }
    }
}

/// The inner error is one that another server could do without.
async fn ephemeral(
    verifying: &Verifying<'_>,
    backup: &OpenedBackup<'_>,
    parent: &std::path::Path,
    stage: Option<&Settings>,
) -> Result<Result<Server, Reason>, VerifyError> {
    let major = backup.inventory.major();
    let server_programs = match Programs::find_server(major, verifying.bin_dir) {
        Ok(programs) => programs,
        Err(error) => return Ok(Err(Reason::Scratch(error.into()))),
    };
    let programs = client_programs(verifying, backup, server_programs.major())?;
    std::fs::create_dir_all(parent).map_err(ScratchError::io("cannot create", parent))?;
    space::require(parent, space::restored_bytes(backup.archive_bytes(), None))?;
    let directory = ScratchDirectory::create(parent, verifying.repository.ambient().random())?;
    let memory = ServerMemory::of_this_machine();
    let (programs_of_server, cancel) = (&server_programs, verifying.cancel);
    let started = match stage {
        None => ScratchCluster::start(directory, programs_of_server, memory, cancel).await,
        Some(settings) => {
            let start = ScratchCluster::start_stage;
            start(directory, programs_of_server, memory, settings, cancel).await
        }
    };
    let cluster = match started {
        Ok(cluster) => cluster,
        Err(ScratchError::Interrupted) => return Err(VerifyError::Interrupted),
        // As with too little room from the start: the live server is not to carry what this host cannot.
        Err(error) if error.is_shortage() => return Err(error.into()),
        Err(
            error @ (ScratchError::NoAccount
            | ScratchError::Unreachable { .. }
            | ScratchError::SocketPath(_)
            | ScratchError::Server { .. }
            | ScratchError::Postgres(PostgresError::ProgramMissing { .. })),
        ) => return Ok(Err(Reason::Scratch(error))),
        Err(error) => return Err(error.into()),
    };
    let inventory = &backup.inventory;
    cluster.create_roles(&roles_of(inventory)).await?;
    let session = Session::connect(cluster.connection(), "verify").await?;
    let lacking = missing(&session, inventory).await?;
    drop(session);
    if !lacking.is_empty() {
        cluster.stop().await?;
        return Ok(Err(Reason::Missing(lacking)));
    }
    let connection = cluster.connection().clone();
    Ok(Ok(Server { cluster: Some(cluster), connection, programs, has_roles: true }))
}

/// A database on a server that is not ours.
async fn standing_in(
    verifying: &Verifying<'_>,
    backup: &OpenedBackup<'_>,
    server: &ConnectionInfo,
) -> Result<Server, VerifyError> {
    for name in registry::sweep_databases(server).await? {
        let told = format!("dropped `{name}`, which a killed run left");
        verifying.observer.finding(Severity::Notice, &told);
    }
    let (session, _) = maintenance_session(server, None).await?;
    let (major, server_major) = (backup.inventory.major(), session.major());
    if major > server_major {
        let server = server.describe();
        return Err(VerifyError::OlderServer { major, server, server_major });
    }
    let lacking = missing(&session, &backup.inventory).await?;
    if !lacking.extensions.is_empty() {
        return Err(ProofError::Missing(lacking).into());
    }
    let has_roles = lacking.roles.is_empty();
    if !has_roles {
        let told =
            format!("{} lacks {lacking}: owners and grants are not proved", server.describe());
        verifying.observer.finding(Severity::Warning, &told);
    }
    let programs = client_programs(verifying, backup, server_major)?;
    Ok(Server { cluster: None, connection: server.clone(), programs, has_roles })
}

/// Client programs of the server's major, or of the `pg_dump` that wrote the archive where that is newer.
fn client_programs(
    verifying: &Verifying<'_>,
    backup: &OpenedBackup<'_>,
    server_major: u32,
) -> Result<Programs, VerifyError> {
    let dumped = dump_major(&backup.entry.manifest.versions.pg_dump).unwrap_or_default();
    Ok(Programs::find(server_major.max(dumped), verifying.bin_dir)?)
}

/// All roles that statements of the restore, or of the database itself, name.
fn roles_of(inventory: &Inventory) -> Vec<String> {
    let mut roles = inventory.roles_needed.clone();
    roles.push(inventory.database.owner.clone());
    roles
}

impl Server {
    pub(super) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Whether it is an ephemeral cluster, which nothing outlives.
    pub(super) fn is_ours(&self) -> bool {
        self.cluster.is_some()
    }

    pub(super) fn has_roles(&self) -> bool {
        self.has_roles
    }

    /// An empty database with the source's encoding and locale. The flag is false where this host lacks
    /// the locale and the copy is made without, which an ephemeral cluster may do.
    pub(super) async fn database(
        &self,
        verifying: &Verifying<'_>,
        backup: &OpenedBackup<'_>,
    ) -> Result<(ScratchDatabase, bool), VerifyError> {
        let facts = &backup.inventory.database;
        let tag = verifying.repository.ambient().random();
        let patience = verifying.idle;
        let creation = Creation {
            facts,
            owner: None,
            tablespace: None,
            closed: true,
            avoid: None,
            tag,
            patience,
        };
        let refused = match ScratchDatabase::create(&self.connection, &creation).await {
            Ok(scratch) => return Ok((scratch, true)),
            Err(ScratchError::Postgres(error @ PostgresError::Statement { .. })) => error,
            Err(error) => return Err(error.into()),
        };
        let told = format!(
            "no database with locale `{}` here ({refused}): sorting is not proved",
            facts.icu_locale.as_ref().unwrap_or(&facts.collate)
        );
        verifying.observer.finding(Severity::Warning, &told);
        let plain = DatabaseFacts {
            locale_provider: "libc".to_owned(),
            collate: "C".to_owned(),
            ctype: "C".to_owned(),
            icu_locale: None,
            icu_rules: None,
            ..facts.clone()
        };
        let scratch =
            ScratchDatabase::create(&self.connection, &Creation { facts: &plain, ..creation })
                .await?;
        Ok((scratch, false))
    }

    /// The server's own words, where it went away under the client's hands.
    pub(super) fn explain(&self, error: VerifyError) -> VerifyError {
        match (error, &self.cluster) {
            (
                VerifyError::Proof(
                    source @ ProofError::Postgres(PostgresError::ConnectionLost { .. }),
                ),
                Some(cluster),
            ) => VerifyError::Server { log: cluster.log_tail(), source },
            (error, _) => error,
        }
    }

    /// The ephemeral cluster; none where another server stood in.
    pub(super) fn into_cluster(self) -> Option<ScratchCluster> {
        self.cluster
    }

    /// Ends the cluster, if it is ours, and removes it.
    pub(super) async fn stop(self) -> Result<(), VerifyError> {
        match self.cluster {
            Some(cluster) => Ok(cluster.stop().await?),
            None => Ok(()),
        }
    }
}
