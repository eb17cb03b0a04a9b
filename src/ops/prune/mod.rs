//! `prune`: what retention does not keep is removed, and what killed runs left.
//!
//! Runbook: settle the runs that this host has seen do nothing for `repository.grace`; look at everything; let
//! retention decide; condemn; sweep every list whose writers have all ended; tidy (`repo::prune` has the protocol and
//! its crash story). A dry run ends after the decision, with what it would settle taken for settled.
//!
//! A prune of a cron job ends long before any grace. So when each writer was last heard of is noted in a file on this
//! host, by a clock that begins at the host's start and never goes back; after a start it counts anew
//! (`docs/decisions/0010-retention-and-prune.md`). Where there is no note, nobody is taken for dead.

#[cfg(test)]
mod calls;
mod note;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::domain::audit::{Actor, RunId};
use crate::domain::failure::{Failure, FailureKind};
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::observer::{Observer, Severity};
use crate::domain::retention::RetentionPolicy;
use crate::repo::prune::intents::{End, Settled};
use crate::repo::prune::survey::{Planned, Survey};
use crate::repo::prune::sweep::{Swept, Waiting};
use crate::repo::prune::watch::Watch;
use crate::repo::prune::{Prune, Terms};
use crate::repo::{RepoError, Repository};

use note::Note;

/// Ages are told by this host's clock: one that is more than this far from the store's judges nothing.
const SKEW_MAX_SECONDS: u64 = 3600;

/// A clock that begins at this host's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootClock {
    /// Tells one start from another.
    pub boot: String,
    /// Since then.
    pub uptime: Duration,
}

/// What a prune is asked for.
#[derive(Debug, Clone)]
pub struct PruneOptions<'a> {
    /// The policies of the clusters that are meant.
    pub policies: BTreeMap<ClusterName, RetentionPolicy>,
    /// Of these, only this database.
    pub database: Option<String>,
    /// How long a writer must have done nothing before it is taken for dead.
    pub grace: Duration,
    /// The clock for that; none where the host has none.
    pub clock: Option<BootClock>,
    /// Where it is noted.
    pub note: &'a Path,
    /// Only tell.
    pub dry_run: bool,
    /// Who prunes.
    pub by: Actor,
    /// The run, for the record of what is removed.
    pub run: Option<RunId>,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The repository.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// This host's clock, or the store's, is wrong.
    #[error(
        "this host's clock and the store's are {0} s apart, so a prune would judge ages wrongly"
    )]
    Clock(u64),
    /// `--database` names what no backup is of.
    #[error("no backup of database `{0}`")]
    NoDatabase(String),
}

impl Failure for PruneError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Repo(error) => error.kind(),
            Self::Clock(_) => FailureKind::Usage,
            Self::NoDatabase(_) => FailureKind::NotFound,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::Repo(error) => error.hint(),
            Self::Clock(_) => {
                Some("set this host's clock right (`timedatectl` shows it), then prune".to_owned())
            }
            Self::NoDatabase(_) => {
                Some("`pgkeep list` shows the databases that have backups".to_owned())
            }
        }
    }
}

/// What was decided, and what was done.
#[derive(Debug)]
pub struct PruneReport {
    /// Whether it was only told.
    pub dry_run: bool,
    /// The backups it was about, newest first, each with its verdict.
    pub backups: Vec<Planned>,
    /// Backups that were condemned or, in a dry run, would be; chunks; and the stored size of those.
    pub condemned: (usize, usize, u64),
    /// Chunks in the repository before.
    pub chunks_total: usize,
    /// Runs that were settled, or would be.
    pub settled: Vec<Settled>,
    /// What went; nothing in a dry run.
    pub swept: Swept,
    /// The writers that may be at work.
    pub writers: Vec<BackupId>,
    /// Another prune condemned the rest of a history meanwhile, so this one withdrew its list.
    pub withdrawn: bool,
}

/// Prunes, or tells what a prune would do.
pub async fn run(
    repository: &Repository,
    options: PruneOptions<'_>,
    observer: &dyn Observer,
) -> Result<PruneReport, PruneError> {
    let PruneOptions { policies, database, grace, clock, note, dry_run, by, run } = options;
    if !dry_run && repository.keys().writer.is_none() {
        return Err(RepoError::NoWriterKey.into());
    }
    let terms = Terms { policies, database, by, run };
    let prune = Prune::new(repository, &terms);
    let overdue = overdue(&prune, grace, clock, note, observer).await?;
    refuse_wrong_clock(repository)?;
    let settled = prune.settle(&overdue, !dry_run).await?;
    for one in settled.iter().filter(|one| one.end == End::Undecided) {
        let told = format!(
            "backup {} of {} is neither finished nor dead, and what is condemned waits for it: see \
             docs/operations.md, `What a prune waits for`",
            one.id, one.place
        );
        observer.finding(Severity::Warning, &told);
    }
    observer.step("reading what is there", &repository.store.address());
    let mut survey = prune.survey(if dry_run { &settled } else { &[] }).await?;
    refuse_wrong_clock(repository)?;
    refuse_unknown(&terms, &survey)?;
    let mut report = PruneReport {
        dry_run,
        backups: survey.backups.clone(),
        condemned: survey.to_condemn(),
        chunks_total: survey.chunks_total(),
        settled,
        swept: Swept::default(),
        writers: survey.writers(),
        withdrawn: false,
    };
    if dry_run {
        let waiting = survey.listed().map(|(list, backups, chunks)| Waiting {
            list: list.clone(),
            backups,
            chunks,
            writers: Vec::new(),
        });
        report.swept.waiting = waiting.collect();
        return Ok(report);
    }
    observer.step("condemning", &repository.store.address());
    let lists = prune.condemn(&survey).await?;
    report.withdrawn = lists.is_empty() && !survey.condemns_nothing();
    observer.step("removing", &repository.store.address());
    report.swept = prune.sweep(&mut survey).await?;
    Ok(report)
}

/// The writers that did nothing for `grace`, as far as this host has seen.
async fn overdue(
    prune: &Prune<'_>,
    grace: Duration,
    clock: Option<BootClock>,
    path: &Path,
    observer: &dyn Observer,
) -> Result<Vec<BackupId>, RepoError> {
    let intents = prune.intents().await?;
    if grace.is_zero() {
        return Ok(intents.unfinished().map(|(id, _)| id.clone()).collect());
    }
    let Some(clock) = clock else { return Ok(Vec::new()) };
    let mut watch: Watch = Note::load(path, &clock.boot);
    watch.look(&intents, clock.uptime);
    if !Note::save(path, &clock.boot, &watch) {
        let told = format!(
            "`{}` cannot be written: runs that died are not noticed by this host",
            path.display()
        );
        observer.finding(Severity::Warning, &told);
    }
    Ok(watch.overdue(grace, clock.uptime))
}

fn refuse_wrong_clock(repository: &Repository) -> Result<(), PruneError> {
    let apart = repository.store.ahead_seconds().map_or(0, i64::unsigned_abs);
    if apart > SKEW_MAX_SECONDS { Err(PruneError::Clock(apart)) } else { Ok(()) }
}

fn refuse_unknown(terms: &Terms, survey: &Survey) -> Result<(), PruneError> {
    let Some(database) = &terms.database else { return Ok(()) };
    if survey.backups.iter().any(|planned| planned.in_scope) {
        return Ok(());
    }
    Err(PruneError::NoDatabase(database.clone()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use bytes::Bytes;
    use futures::future::BoxFuture;
    use futures::stream::BoxStream;
    use jiff::Timestamp;

    use super::*;
    use crate::codec::cut::ChunkParams;
    use crate::domain::ambient::Ambient;
    use crate::domain::key::ObjectKey;
    use crate::domain::observer::Silent;
    use crate::repo::test_support::plaintext_keys;
    use crate::repo::workers::Workers;
    use crate::store::memory::MemoryStore;
    use crate::store::{ObjectMeta, ObjectStore, StoreError};

    /// A store whose clock is that far from this host's.
    #[derive(Debug)]
    struct Elsewhere(MemoryStore, i64);

    #[async_trait]
    impl ObjectStore for Elsewhere {
        async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
            self.0.put(key, bytes).await
        }
        async fn get(&self, key: &ObjectKey) -> Result<Bytes, StoreError> {
            self.0.get(key).await
        }
        fn list(&self, prefix: &str) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
            self.0.list(prefix)
        }
        async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
            self.0.delete(key).await
        }
        fn concurrency(&self) -> usize {
            self.0.concurrency()
        }
        fn address(&self) -> String {
            self.0.address()
        }
        fn ahead_seconds(&self) -> Option<i64> {
            Some(self.1)
        }
    }

    struct World;

    impl Ambient for World {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }
        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
        fn random(&self) -> u32 {
            7
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    async fn pruned(ahead_seconds: i64) -> Result<PruneReport, PruneError> {
        let keys = plaintext_keys();
        let store = Arc::new(Elsewhere(MemoryStore::new(), ahead_seconds));
        let (chunking, workers) = (ChunkParams::default(), Workers::Inline);
        let made = Repository::create(store, keys, chunking, workers, Arc::new(World)).await;
        let repository = made.expect("it is made").0;
        let options = PruneOptions {
            policies: BTreeMap::new(),
            database: None,
            grace: Duration::ZERO,
            clock: None,
            note: Path::new("/nowhere"),
            dry_run: false,
            by: Actor::default(),
            run: None,
        };
        run(&repository, options, &Silent).await
    }

    #[tokio::test]
    async fn a_clock_more_than_an_hour_from_the_stores_judges_nothing() {
        for good in [0, 3600, -3600] {
            assert_eq!(pruned(good).await.expect("it prunes").condemned, (0, 0, 0));
        }
        for wrong in [3601, -86_400] {
            let told = pruned(wrong).await.expect_err("it refuses");
            assert!(matches!(told, PruneError::Clock(_)) && told.kind() == FailureKind::Usage);
        }
    }
}
