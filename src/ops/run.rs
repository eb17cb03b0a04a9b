//! The one door of every run: an id that logs, the audit trail and manifests have in common.
//!
//! A run begins with an id and a span; whatever is logged within the span bears the id. It ends with an event. The
//! trail is best effort: where the store refuses an event, or does not answer, that is a warning and the run is what
//! it was. A host without a writer key signs nothing and so leaves no event; nor does one whose keys were refused,
//! since what it signs may count for nothing.
//!
//! A run that is killed, or dropped, leaves no event of its end; of a prune there may be the one that it put before it
//! removed anything, of a guarded migration the one that says that its command begins.

use std::time::Duration;

use tracing::Span;

use crate::domain::audit::{Actor, Event, RunId};
use crate::domain::failure::FailureKind;
use crate::domain::id::{BackupId, ClusterName};
use crate::domain::migration::{MigrationRecord, Rehearsal};
use crate::domain::observer::{Observer, Severity};
use crate::domain::told::{Failed, chain};
use crate::repo::documents::FORMAT;
use crate::repo::{RepoError, Repository};

/// For so long the end of a run waits for the store to take its event.
const RECORD_MAX: Duration = Duration::from_secs(10);
/// More of a message is of no use in a list.
const MESSAGE_MAX: usize = 500;
/// The verb whose own event, of what it is about to remove, bears the run's id.
const PRUNE: &str = "prune";

/// A run that has begun. Dropped, it leaves no event.
#[derive(Debug)]
pub struct Run {
    id: RunId,
    verb: &'static str,
    clusters: Vec<ClusterName>,
    database: Option<String>,
    by: Actor,
    begun: Duration,
    span: Span,
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    kind: Option<FailureKind>,
    backup: Option<BackupId>,
    message: Option<String>,
    /// Where it is none of a kind's: a guarded command's own.
    code: Option<u8>,
    migration: Option<Box<MigrationRecord>>,
    rehearsal: Option<Box<Rehearsal>>,
}

impl Ending {
    /// As it should.
    pub fn succeeded() -> Self {
        Self::default()
    }

    /// With that failure.
    pub fn failed(failed: &Failed) -> Self {
        let (kind, message) = (Some(failed.kind), Some(failed.message.clone()));
        Self { kind, message, ..Self::default() }
    }

    /// As that says.
    pub fn of<T>(result: &Result<T, Failed>) -> Self {
        result.as_ref().map_or_else(Self::failed, |_| Self::succeeded())
    }

    /// With a failure of that kind, which a report tells.
    pub fn of_kind(kind: Option<FailureKind>) -> Self {
        Self { kind, ..Self::default() }
    }

    /// It was about that backup.
    #[must_use]
    pub fn about(self, backup: &BackupId) -> Self {
        Self { backup: Some(backup.clone()), ..self }
    }

    /// What is worth telling, one line.
    #[must_use]
    pub fn saying(self, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..self }
    }

    /// Of a guarded migration: its report, and the command's own exit code.
    #[must_use]
    pub fn guarding(self, migration: MigrationRecord) -> Self {
        let code = migration.ended.as_ref().map(|end| end.exit_code);
        Self { code, migration: Some(Box::new(migration)), ..self }
    }

    /// Of a rehearsal: its report.
    #[must_use]
    pub fn rehearsing(self, rehearsal: Rehearsal) -> Self {
        Self { rehearsal: Some(Box::new(rehearsal)), ..self }
    }

    fn exit_code(&self) -> u8 {
        self.kind.map(FailureKind::exit_code).or(self.code).unwrap_or(0)
    }
}

impl Run {
    /// Begins one with an id of its own; what it is about may come later.
    pub fn begin(
        repository: &Repository,
        verb: &'static str,
        cluster: Option<&ClusterName>,
        database: Option<&str>,
        by: &Actor,
    ) -> Self {
        let ambient = repository.ambient();
        let id = BackupId::new(ambient.now(), ambient.random());
        Self::begin_as(id, repository, verb, cluster, database, by)
    }

    /// Begins one that waited for its turn and was known by that id meanwhile.
    pub fn begin_as(
        id: RunId,
        repository: &Repository,
        verb: &'static str,
        cluster: Option<&ClusterName>,
        database: Option<&str>,
        by: &Actor,
    ) -> Self {
        let span = tracing::info_span!(
            "run",
            %id,
            verb,
            cluster = cluster.map(ClusterName::as_str),
            database,
        );
        span.in_scope(|| tracing::debug!("begun"));
        Self {
            id,
            verb,
            clusters: cluster.into_iter().cloned().collect(),
            database: database.map(str::to_owned),
            by: by.clone(),
            begun: repository.ambient().monotonic(),
            span,
        }
    }

    /// Its id.
    pub const fn id(&self) -> &RunId {
        &self.id
    }

    /// What is logged of it belongs in here.
    pub const fn span(&self) -> &Span {
        &self.span
    }

    /// Its event is told in that cluster's trail too.
    pub fn concerns(&mut self, cluster: &ClusterName) {
        if !self.clusters.contains(cluster) {
            self.clusters.push(cluster.clone());
        }
    }

    /// It is about that database.
    pub fn of_database(&mut self, database: &str) {
        self.database = Some(database.to_owned());
    }

    /// Records that a guarded command is about to begin: an event that has the id of its snapshot, so that a run that is
    /// killed from then on is known by it. Best effort, as the end is.
    pub async fn begins(
        &self,
        repository: &Repository,
        snapshot: &BackupId,
        record: MigrationRecord,
        observer: &dyn Observer,
    ) {
        if repository.keys().writer.is_none() {
            return;
        }
        let ambient = repository.ambient();
        let took = ambient.monotonic().saturating_sub(self.begun);
        let event = Event {
            format: FORMAT,
            id: snapshot.clone(),
            run: Some(self.id.clone()),
            event: self.verb.to_owned(),
            at: ambient.now(),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            database: self.database.clone(),
            backup: Some(snapshot.clone()),
            origin: self.by.origin.as_str().to_owned(),
            user: self.by.user.clone(),
            host: self.by.host.clone(),
            pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
            exit_code: 0,
            message: Some(shortened(&record.summary())),
            backups: Vec::new(),
            migration: Some(Box::new(record)),
            rehearsal: None,
        };
        if let Err(why) = put(repository, &self.clusters, &event).await {
            let told = format!("that run {} begins is not in the audit trail: {why}", self.id);
            observer.finding(Severity::Warning, &told);
        }
    }

    /// Leaves an event in the trail of each cluster that it was about.
    pub async fn end(self, repository: &Repository, ending: Ending, observer: &dyn Observer) {
        let ambient = repository.ambient();
        let took = ambient.monotonic().saturating_sub(self.begun);
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let exit_code = ending.exit_code();
        let message = ending.message.map(|message| shortened(&message));
        self.span.in_scope(|| match &message {
            Some(why) if exit_code != 0 => tracing::debug!(exit_code, duration_ms, "failed: {why}"),
            _ => tracing::debug!(exit_code, duration_ms, "ended"),
        });
        let refused = matches!(ending.kind, Some(FailureKind::Key));
        if repository.keys().writer.is_none() || refused {
            return;
        }
        let at = ambient.now();
        let taken = self.verb == PRUNE;
        let event = Event {
            format: FORMAT,
            id: if taken { BackupId::new(at, ambient.random()) } else { self.id.clone() },
            run: taken.then(|| self.id.clone()),
            event: self.verb.to_owned(),
            at,
            duration_ms,
            database: self.database,
            backup: ending.backup,
            origin: self.by.origin.as_str().to_owned(),
            user: self.by.user,
            host: self.by.host,
            pgkeep: env!("CARGO_PKG_VERSION").to_owned(),
            exit_code,
            message,
            backups: Vec::new(),
            migration: ending.migration,
            rehearsal: ending.rehearsal,
        };
        let Err(why) = put(repository, &self.clusters, &event).await else { return };
        let told = format!("run {} is not in the audit trail: {why}", self.id);
        if ending.kind == Some(FailureKind::Store) {
            // Nobody has to be told twice that the store is out of reach.
            tracing::debug!("{told}");
        } else {
            observer.finding(Severity::Warning, &told);
        }
    }
}

/// Puts it into the trail of each; why that came to nothing.
async fn put(
    repository: &Repository,
    clusters: &[ClusterName],
    event: &Event,
) -> Result<(), String> {
    let put = async {
        for cluster in clusters {
            repository.put_event(cluster, event).await?;
        }
        Ok::<_, RepoError>(())
    };
    match tokio::time::timeout(RECORD_MAX, put).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("the store gave no answer within {} s", RECORD_MAX.as_secs())),
    }
}

/// The message within bounds, cut between characters.
fn shortened(message: &str) -> String {
    let end = message.char_indices().nth(MESSAGE_MAX).map_or(message.len(), |(at, _)| at);
    if end < message.len() { format!("{}…", &message[..end]) } else { message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::BoxFuture;
    use jiff::Timestamp;

    use super::*;
    use crate::codec::cut::ChunkParams;
    use crate::codec::hash::ChunkKey;
    use crate::codec::seal::Sealer;
    use crate::codec::sign::SigningKey;
    use crate::codec::writer_key::WriterKey;
    use crate::domain::ambient::Ambient;
    use crate::domain::audit::Origin;
    use crate::domain::id::EpochId;
    use crate::repo::Keys;
    use crate::repo::events::{Trail, Wanted};
    use crate::repo::workers::Workers;
    use crate::store::faulty::{Fault, FaultyStore, Op};
    use crate::store::memory::MemoryStore;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Observer for Told {
        fn step(&self, _: &str, _: &str) {}
        fn bytes(&self, _: u64, _: Option<u64>) {}
        fn finding(&self, _: Severity, message: &str) {
            self.0.lock().expect("no panic holds it").push(message.to_owned());
        }
    }

    /// Each look at a clock is a second, and dice count.
    #[derive(Default)]
    struct World(Mutex<u32>);

    impl World {
        fn next(&self) -> u32 {
            let mut drawn = self.0.lock().expect("no panic holds it");
            *drawn += 1;
            *drawn
        }
    }

    impl Ambient for World {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(1_800_000_000 + i64::from(self.next())).expect("this century")
        }
        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.next().into())
        }
        fn random(&self) -> u32 {
            self.next()
        }
        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    /// A repository whose store treats events so, and the same without faults and, if told so, a writer key.
    async fn repositories(fault: Fault, writes: bool) -> (Repository, Repository) {
        let signing = SigningKey::generate(&[2; SigningKey::BYTES]);
        let trusted = vec![signing.public()];
        let chunk_key = ChunkKey::from_bytes([1; 32]);
        let writer = Some(WriterKey { epoch: EpochId::new(1), chunk_key, signing });
        let sealer = Some(Sealer::insecure_plaintext(1));
        let keys = Keys { writer, sealer, trusted, insecure_plaintext: true, ..Keys::default() };
        let memory = Arc::new(MemoryStore::new());
        let ambient = Arc::new(World::default());
        let (params, workers) = (ChunkParams::default(), Workers::Inline);
        let made =
            Repository::create(memory.clone(), keys.clone(), params, workers, ambient.clone());
        let sound = made.await.expect("it is made").0;
        let faulty = FaultyStore::new(memory, move |call| {
            let event = call.op == Op::Put && call.key.contains("/events/");
            if event { fault } else { Fault::None }
        });
        let own = Keys { writer: keys.writer.clone().filter(|_| writes), ..keys };
        let opened = Repository::open(Arc::new(faulty), own, Workers::Inline, ambient).await;
        (opened.expect("it opens"), sound)
    }

    fn actor() -> Actor {
        let (user, host) = ("maria".to_owned(), "db1".to_owned());
        Actor { origin: Origin::Schedule, user, host }
    }

    fn main() -> ClusterName {
        "main".parse().expect("a name")
    }

    async fn trail(repository: &Repository) -> Trail {
        let wanted = Wanted { limit: 9, ..Wanted::default() };
        repository.newest_events(&wanted).await.expect("read")
    }

    #[tokio::test]
    async fn a_run_that_failed_for_its_store_complains_of_that_once() {
        let failed = Ending::of_kind(Some(FailureKind::Store));
        assert_eq!(ended(Fault::FailBefore, true, failed).await, (Vec::new(), 0));
    }

    /// What was told, and how many events there are afterwards.
    async fn ended(fault: Fault, writes: bool, ending: Ending) -> (Vec<String>, usize) {
        let (repository, sound) = repositories(fault, writes).await;
        let told = Told::default();
        let run = Run::begin(&repository, "snapshot", Some(&main()), Some("shop"), &actor());
        run.end(&repository, ending, &told).await;
        let told = told.0.lock().expect("no panic holds it").clone();
        (told, trail(&sound).await.events.len())
    }

    #[tokio::test]
    async fn a_run_leaves_one_event_that_bears_its_id_and_tells_how_it_ended() {
        let (repository, sound) = repositories(Fault::None, true).await;
        let backup: BackupId = "20261121T020000Z-5f3a9c21".parse().expect("an id");
        let run = Run::begin(&repository, "snapshot", Some(&main()), Some("shop"), &actor());
        let id = run.id().clone();
        let kind = FailureKind::Postgres;
        let failed = Failed { kind, message: "ö".repeat(900), hint: None };
        run.end(&repository, Ending::failed(&failed).about(&backup), &Told::default()).await;
        let event = trail(&sound).await.events.remove(0).event;
        assert_eq!((&event.id, event.run(), event.exit_code), (&id, &id, 4));
        assert_eq!((&*event.event, &*event.origin), ("snapshot", "schedule"));
        assert_eq!((&*event.user, &*event.host), ("maria", "db1"));
        assert_eq!((event.database.as_deref(), event.backup), (Some("shop"), Some(backup)));
        assert!(event.duration_ms >= 1000);
        assert_eq!(event.message, Some(format!("{}…", "ö".repeat(500))));
    }

    #[tokio::test]
    async fn a_prune_of_several_clusters_leaves_each_an_event_beside_what_it_removed() {
        let (repository, sound) = repositories(Fault::None, true).await;
        let mut run = Run::begin(&repository, "prune", None, None, &actor());
        let other = "other".parse().expect("a name");
        for cluster in [&main(), &other, &other] {
            run.concerns(cluster);
        }
        let id = run.id().clone();
        run.end(&repository, Ending::succeeded().saying("removed nothing"), &Told::default()).await;
        let trail = trail(&sound).await;
        assert_eq!(trail.events.len(), 2);
        for one in trail.events {
            assert!(*one.event.run() == id && one.event.id != id);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_the_store_does_not_take_is_a_warning_and_no_more() {
        for (fault, words) in
            [(Fault::FailBefore, "injected fault"), (Fault::Stall, "no answer within 10 s")]
        {
            let (told, events) = ended(fault, true, Ending::succeeded()).await;
            assert!(events == 0 && told.len() == 1 && told[0].contains(words), "{told:?}");
        }
    }

    #[tokio::test]
    async fn without_keys_that_count_there_is_no_event_and_no_word_of_it() {
        assert_eq!(ended(Fault::None, false, Ending::succeeded()).await, (Vec::new(), 0));
        let refused = Ending::of_kind(Some(FailureKind::Key));
        assert_eq!(ended(Fault::None, true, refused).await, (Vec::new(), 0));
        assert_eq!(ended(Fault::None, true, Ending::succeeded()).await, (Vec::new(), 1));
    }
}
