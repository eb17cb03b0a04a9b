//! `import`: a dump that another tool made is loaded into scratch, for a snapshot to be taken of it there.
//!
//! The runbook for one dump ([`load`]): what it is, by its content; whether a plain one is whole, and what it
//! names; programs that are new enough; an ephemeral cluster with its roles and its database; the load, which
//! stops at the first error; what the dump says of the database itself; the name that was asked for. The
//! snapshot is the ordinary one, taken by the caller of the copy in [`Loaded`], and so is its protocol.
//!
//! A dump is a program. A plain one runs in psql under the server's unprivileged account, in an environment
//! that holds nothing of ours, without psql's own commands (`domain::dump::script`); all of them run as
//! superuser of a cluster that nobody else can reach and that goes away.
//!
//! Crash story: nothing is written but below the scratch directory, which goes with the command; what a
//! SIGKILL leaves of it the next run finds by its mark and removes. The repository is not touched here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tokio_util::sync::CancellationToken;

mod archive;
mod error;
mod refresh;
mod script;
mod source;

pub use error::ImportError;

use self::source::{Content, Source};
use crate::domain::connection::ConnectionInfo;
use crate::domain::dump::script::ScriptFacts;
use crate::domain::dump::{creation, major_of};
use crate::domain::inventory::DatabaseFacts;
use crate::domain::observer::{Observer, Severity};
use crate::postgres::PostgresError;
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;
use crate::repo::Repository;
use crate::scratch::cluster::{ScratchCluster, ServerMemory};
use crate::scratch::database::NAME_BYTES_MAX;
use crate::scratch::directory::ScratchDirectory;
use crate::scratch::sql::Statements as _;
use crate::scratch::{ScratchError, registry, space};

/// The oldest major whose programs are of use: older dumps go into it.
const MAJOR_MIN: u32 = 12;

/// What an import works with.
#[derive(Clone, Copy)]
pub struct Importing<'a> {
    /// Where the snapshot goes; only its keys are looked at here.
    pub repository: &'a Repository,
    /// Where PostgreSQL's programs are looked for first.
    pub bin_dir: Option<&'a Path>,
    /// Where the cluster is made.
    pub scratch_dir: &'a Path,
    /// Who is told.
    pub observer: &'a dyn Observer,
    /// Ends it.
    pub cancel: &'a CancellationToken,
}

/// A dump that is loaded. Dropping it ends its cluster and removes all.
#[derive(Debug)]
pub struct Loaded {
    cluster: ScratchCluster,
    work: ScratchDirectory,
    /// What is remembered with the snapshot: the file's name, when it was made and of which server.
    pub labels: BTreeMap<String, String>,
}

impl Loaded {
    /// The scratch cluster that holds it.
    pub fn connection(&self) -> &ConnectionInfo {
        self.cluster.connection()
    }

    /// Ends the cluster and removes it.
    pub async fn stop(self) -> Result<(), ImportError> {
        self.cluster.stop().await?;
        Ok(self.work.remove()?)
    }
}

/// Refuses a name that no snapshot's database can have.
pub fn check_name(database: &str) -> Result<(), ImportError> {
    let reason = if database.is_empty() {
        "is empty"
    } else if database.len() > NAME_BYTES_MAX {
        "is longer than 63 bytes"
    } else if database.chars().any(char::is_control) {
        "holds a control character"
    } else if matches!(database, "template0" | "template1") {
        "is one of the server's own"
    } else {
        return Ok(());
    };
    Err(ImportError::Name { name: database.to_owned(), reason })
}

/// Removes what killed runs left here.
pub async fn sweep(importing: &Importing<'_>) -> Result<(), ImportError> {
    let parent = importing.scratch_dir.to_owned();
    let swept = tokio::task::spawn_blocking(move || registry::sweep_directories(&parent));
    for path in swept.await.expect("a sweep does not panic")? {
        let told = format!("removed `{}`, which a killed run left", path.display());
        importing.observer.finding(Severity::Notice, &told);
    }
    Ok(())
}

/// Loads the dump `file` (`-` is stdin) into a scratch cluster, as the database `database`.
pub async fn load(
    importing: &Importing<'_>,
    file: &Path,
    database: &str,
) -> Result<Loaded, ImportError> {
    tokio::select! {
        () = importing.cancel.cancelled() => Err(ImportError::Interrupted),
        loaded = loaded(importing, file, database) => loaded,
    }
}

async fn loaded(
    importing: &Importing<'_>,
    file: &Path,
    database: &str,
) -> Result<Loaded, ImportError> {
    let Importing { observer, scratch_dir, .. } = *importing;
    // What is wrong with keys or repository is known before hours of loading.
    importing.repository.write_access().await?;
    std::fs::create_dir_all(scratch_dir).map_err(ScratchError::io("cannot create", scratch_dir))?;
    space::require(scratch_dir, 0)?;
    let work = ScratchDirectory::create(scratch_dir, importing.repository.ambient().random())?;
    observer.step("reading the dump", &file.display().to_string());
    let source = source::open(file, work.path(), importing.cancel).await?;
    let (facts, server, programs) = match &source.content {
        Content::Plain => {
            let facts = script::facts(&source, importing.cancel).await?;
            let told = [&facts.server_version, &facts.dump_version];
            let majors = told.into_iter().flatten().filter_map(|version| major_of(version));
            let (server, programs) = find(importing, majors.max())?;
            (facts, server, programs)
        }
        Content::Archive(archive) => {
            let (server, programs) = find(importing, archive.majors())?;
            (archive::facts(&source, &programs).await?, server, programs)
        }
    };
    let cluster = cluster(importing, &source, &facts, &server).await?;
    // Under the name that its own statements use.
    let mut own = describe(&facts, database);
    let kept = own.name.clone();
    make_database(importing, &cluster, &mut own).await?;
    let target = cluster.connection().with_database(&kept);
    observer.step("loading", &source.name);
    match &source.content {
        Content::Plain => {
            script::load(importing, &source, &facts, &programs, &target, work.path()).await
        }
        Content::Archive(_) => archive::load(&source, &programs, &target, work.path()).await,
    }
    .map_err(|error| error.explained(&cluster))?;
    refresh::fill(&target, &facts.refreshes, observer).await?;
    finish(&cluster, &source, &facts, &kept, database).await?;
    remark(&source, &facts, observer);
    let labels = labels(&source, &facts);
    Ok(Loaded { cluster, work, labels })
}

/// Programs for a server and for its clients, of the dump's major or the lowest newer one.
fn find(
    importing: &Importing<'_>,
    major: Option<u32>,
) -> Result<(Programs, Programs), ImportError> {
    let major = major.unwrap_or(MAJOR_MIN).max(MAJOR_MIN);
    let server = Programs::find_server(major, importing.bin_dir)?;
    let client = Programs::find(server.major(), importing.bin_dir)?;
    Ok((server, client))
}

/// A cluster with the dump's roles, that has its extensions.
async fn cluster(
    importing: &Importing<'_>,
    source: &Source,
    facts: &ScriptFacts,
    server: &Programs,
) -> Result<ScratchCluster, ImportError> {
    let plain_bytes = source.plain_bytes(facts);
    space::require(importing.scratch_dir, space::restored_bytes(plain_bytes, None))?;
    importing
        .observer
        .step("starting a scratch cluster", &format!("PostgreSQL {}", server.major()));
    let random = importing.repository.ambient().random();
    let directory = ScratchDirectory::create(importing.scratch_dir, random)?;
    let memory = ServerMemory::of_this_machine();
    let cluster = ScratchCluster::start(directory, server, memory, importing.cancel).await?;
    let roles: Vec<String> = facts.roles.iter().cloned().collect();
    cluster.create_roles(&roles).await?;
    let session = Session::connect(cluster.connection(), "import").await?;
    let sql = "SELECT name::text FROM pg_catalog.pg_available_extensions";
    let rows = session.query(sql, &[]).await?;
    let there: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let missing: Vec<String> = facts.extensions.difference(&there).cloned().collect();
    if missing.is_empty() {
        return Ok(cluster);
    }
    drop(session);
    cluster.stop().await?;
    Err(ImportError::Extensions { names: missing, major: server.major() })
}

/// The database as the dump describes it, as far as it does.
fn describe(facts: &ScriptFacts, database: &str) -> DatabaseFacts {
    let mut own = facts.database.clone().unwrap_or_else(|| {
        // Bytes without an encoding fit no other.
        let raw = facts.client_encoding.as_deref() == Some("SQL_ASCII");
        creation::unknown(database, if raw { "SQL_ASCII" } else { "UTF8" })
    });
    facts.connects.as_deref().unwrap_or(database).clone_into(&mut own.name);
    own
}

/// Makes it; where this host lacks its locale, in the plainest one, which is said.
async fn make_database(
    importing: &Importing<'_>,
    cluster: &ScratchCluster,
    own: &mut DatabaseFacts,
) -> Result<(), ImportError> {
    let refused = match cluster.create_database(own).await {
        Ok(()) => return Ok(()),
        Err(ScratchError::Postgres(error @ PostgresError::Statement { .. })) => error,
        Err(error) => return Err(error.into()),
    };
    let told = format!(
        "no database with locale `{}` here ({refused}): the snapshot has the locale C; to keep the other, make it on \
         this host and import again",
        own.icu_locale.as_ref().unwrap_or(&own.collate)
    );
    importing.observer.finding(Severity::Warning, &told);
    *own = creation::unknown(&own.name, &own.encoding);
    Ok(cluster.create_database(own).await?)
}

/// Runs what the dump says of the database itself, and gives it the name that was asked for.
async fn finish(
    cluster: &ScratchCluster,
    source: &Source,
    facts: &ScriptFacts,
    kept: &str,
    database: &str,
) -> Result<(), ImportError> {
    let session = Session::connect(cluster.connection(), "import").await?;
    // A plain dump has run the later ones itself, after it connected.
    let later = match source.content {
        Content::Plain => &[][..],
        Content::Archive(_) => &facts.of_database_later,
    };
    for statement in facts.of_database.iter().chain(later) {
        session.execute(statement).await?;
    }
    drop(session);
    if kept != database {
        cluster.rename_database(kept, database).await?;
    }
    Ok(())
}

fn remark(source: &Source, facts: &ScriptFacts, observer: &dyn Observer) {
    let name = &source.name;
    if facts.database.is_none() {
        let told = format!(
            "{name} does not tell the locale of its database (pg_dump --create would): the snapshot has the locale C"
        );
        observer.finding(Severity::Notice, &told);
    }
    if facts.tablespaces {
        let told = format!("{name} names tablespaces: the snapshot is without them");
        observer.finding(Severity::Notice, &told);
    }
    if facts.money {
        let told = format!(
            "{name} may hold values of type money, whose text depends on lc_monetary: they were read as in the locale \
             C; compare some"
        );
        observer.finding(Severity::Warning, &told);
    }
}

/// What `list` and `show` tell of where it came from.
fn labels(source: &Source, facts: &ScriptFacts) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([("file".to_owned(), source.name.clone())]);
    let (created, server) = match &source.content {
        Content::Archive(archive) => (Some(archive.created()), Some(archive.server_version())),
        Content::Plain => (facts.started.clone(), facts.server_version.as_deref()),
    };
    if let Some(version) = server.and_then(|version| version.split(' ').next()) {
        labels.insert("server".to_owned(), version.to_owned());
    }
    match (created, source.modified_at) {
        (Some(time), _) => drop(labels.insert("dumped".to_owned(), time)),
        // Often the time of a copy, and so not said to be the dump's.
        (None, Some(time)) => drop(labels.insert("file_time".to_owned(), time.to_string())),
        (None, None) => {}
    }
    labels
}
