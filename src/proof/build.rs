//! Builds the indexes and keys of a copy that has its rows, several side by side, and counts the rows meanwhile.
//!
//! `pg_restore --jobs` could build them too. It takes the indexes of the largest table first and its foreign keys
//! last, which one process checks while the other cores wait. So [`Plan`] takes keys first that foreign keys wait
//! for, then foreign keys, then the rest, of which several processes can build the last index. Rows are counted
//! where nothing else can be done. And an error has its SQLSTATE here, so that an accident is told from a bad copy.
//!
//! No step waits for another one's lock: it is taken only when the tables that it names are free for it. Only an
//! accident ends this halfway; the copy is the caller's, who removes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::try_join_all;
use tokio::sync::Notify;

use super::ProofError;
use super::checks::count_rows;
use super::fill::refused;
use crate::domain::archive::{ArchiveSummary, TocEntry};
use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::TableCount;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_literal};

/// What there is to do, and what stands in the way of each.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In the order in which they are taken.
    waiting: Vec<Step>,
    running: BTreeMap<usize, Hold>,
    /// Entries that are not made yet: waiting or running.
    unmade: BTreeSet<u32>,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// Where it stood in the plan.
    place: usize,
    work: Work,
    needs: Box<[u32]>,
    hold: Hold,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Work {
    Make(Entry),
    /// The rows of a table: schema and name.
    Count((String, String)),
}

/// An index or a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: u32,
    /// For messages.
    name: String,
    sql: String,
    tablespace: String,
}

/// What a statement locks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hold {
    tables: BTreeSet<u32>,
    lock: Lock,
}

/// How it locks its tables, from the weakest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    /// `ACCESS SHARE`, of a query.
    Read,
    /// `SHARE`, of `CREATE INDEX`.
    Index,
    /// `SHARE ROW EXCLUSIVE`, of a foreign key.
    ForeignKey,
    /// `ACCESS EXCLUSIVE`, of other changes.
    Change,
}

impl Hold {
    fn allows(&self, other: &Self) -> bool {
        let (weaker, stronger) = (self.lock.min(other.lock), self.lock.max(other.lock));
        stronger <= Lock::Index
            || (weaker == Lock::Read && stronger == Lock::ForeignKey)
            || self.tables.is_disjoint(&other.tables)
    }
}

/// The turns in which steps are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// A key that a foreign key waits for.
    Key,
    ForeignKey,
    Rest,
    Count,
}

impl Plan {
    /// For the entries `ids`, which need nothing that is not there but one another, and the rows of `tables`.
    pub(super) fn new(
        archive: &ArchiveSummary,
        ids: &[u32],
        tables: Vec<(String, String)>,
    ) -> Self {
        let index = Index::new(archive);
        let entries: Vec<&TocEntry> =
            ids.iter().filter_map(|id| index.entries.get(id).copied()).collect();
        let foreign_keys = entries.iter().filter(|entry| &*entry.desc == "FK CONSTRAINT");
        let waited_for: BTreeSet<u32> =
            foreign_keys.flat_map(|entry| entry.dependencies.iter().copied()).collect();
        let mut steps = Vec::with_capacity(entries.len() + tables.len());
        for entry in entries {
            let Some(sql) = entry.defn.as_deref() else { continue };
            let tables = index.tables_of(entry);
            let (lock, turn) = match &*entry.desc {
                "FK CONSTRAINT" => (Lock::ForeignKey, Turn::ForeignKey),
                "CONSTRAINT" if waited_for.contains(&entry.dump_id) => (Lock::Change, Turn::Key),
                "CONSTRAINT" => (Lock::Change, Turn::Rest),
                // It changes its table as well: `CLUSTER ON`, `REPLICA IDENTITY`.
                _ if sql.contains("\nALTER ") => (Lock::Change, Turn::Rest),
                _ => (Lock::Index, Turn::Rest),
            };
            let work = Work::Make(Entry {
                id: entry.dump_id,
                name: entry.describe(),
                sql: sql.to_owned(),
                tablespace: entry.tablespace.as_deref().unwrap_or_default().to_owned(),
            });
            steps.push((turn, work, entry.dependencies.clone(), Hold { tables, lock }));
        }
        for table in tables {
            let tables = index.ids.get(&(&*table.0, &*table.1)).copied().into_iter().collect();
            let hold = Hold { tables, lock: Lock::Read };
            steps.push((Turn::Count, Work::Count(table), Box::default(), hold));
        }
        steps.sort_by_key(|(turn, _, _, hold)| {
            let rows = hold.tables.iter().filter_map(|id| index.rows.get(id)).max().copied();
            (*turn, std::cmp::Reverse(rows))
        });
        let step = |(place, (_, work, needs, hold))| Step { place, work, needs, hold };
        let waiting: Vec<Step> = steps.into_iter().enumerate().map(step).collect();
        let made = |step: &Step| match &step.work {
            Work::Make(entry) => Some(entry.id),
            Work::Count(_) => None,
        };
        let unmade = waiting.iter().filter_map(made).collect();
        Self { waiting, running: BTreeMap::new(), unmade }
    }

    fn has_its_needs(&self, step: &Step) -> bool {
        step.needs.iter().all(|id| !self.unmade.contains(id))
    }

    /// Where the steps are that can be done now, in their order.
    fn ready(&self) -> impl Iterator<Item = usize> + '_ {
        let is_ready = |step: &Step| {
            self.has_its_needs(step) && self.running.values().all(|hold| hold.allows(&step.hold))
        };
        (0..self.waiting.len()).filter(move |at| is_ready(&self.waiting[*at]))
    }

    /// Whether a foreign key in front of the step at `at` waits for their tables, now or once its key is made. One
    /// process checks it, beside which nothing else can be done to them: that should not be at the end.
    fn holds_up(&self, at: usize) -> bool {
        let hold = &self.waiting[at].hold;
        let foreign_key = |other: &&Step| other.hold.lock == Lock::ForeignKey;
        self.waiting[..at].iter().filter(foreign_key).any(|other| !other.hold.allows(hold))
    }

    /// Takes a step that can be done now; says how many processes may work at it, where `sessions` do.
    fn take(&mut self, sessions: usize) -> Option<(Step, Crew)> {
        let at = self.ready().find(|at| !self.holds_up(*at)).or_else(|| self.ready().next())?;
        let step = self.waiting.remove(at);
        self.running.insert(step.place, step.hold.clone());
        let builds = |at: &usize| matches!(self.waiting[*at].work, Work::Make(_));
        let enough = self.ready().filter(builds).count() >= sessions;
        Some((step, if enough { Crew::One } else { Crew::Several }))
    }

    fn done(&mut self, step: &Step) {
        self.running.remove(&step.place);
        if let Work::Make(entry) = &step.work {
            self.unmade.remove(&entry.id);
        }
    }
}

/// An archive's entries and tables by number.
struct Index<'a> {
    entries: HashMap<u32, &'a TocEntry>,
    ids: HashMap<(&'a str, &'a str), u32>,
    rows: HashMap<u32, u64>,
}

impl<'a> Index<'a> {
    fn new(archive: &'a ArchiveSummary) -> Self {
        let all = &archive.toc.entries;
        let tables = all.iter().filter(|entry| is_table(entry));
        let ids: HashMap<_, _> = tables
            .map(|entry| {
                ((entry.namespace.as_deref().unwrap_or_default(), &*entry.tag), entry.dump_id)
            })
            .collect();
        let rows = archive.tables.iter().filter_map(|table| {
            let id = ids.get(&(&*table.schema, &*table.name))?;
            Some((*id, table.rows))
        });
        let rows = rows.collect();
        Self { entries: all.iter().map(|entry| (entry.dump_id, entry)).collect(), ids, rows }
    }

    /// The tables that an entry names. A foreign key needs the table it points to by a key of that table.
    fn tables_of(&self, entry: &TocEntry) -> BTreeSet<u32> {
        let needed = entry.dependencies.iter().filter_map(|id| self.entries.get(id));
        let behind = needed.flat_map(|needed| needed.dependencies.iter());
        let all = behind.chain(&entry.dependencies).copied();
        all.filter(|id| self.entries.get(id).is_some_and(|entry| is_table(entry))).collect()
    }
}

fn is_table(entry: &TocEntry) -> bool {
    matches!(&*entry.desc, "TABLE" | "MATERIALIZED VIEW" | "FOREIGN TABLE")
}

/// How many processes build an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crew {
    /// The session's own, while there is enough to build for all sessions: sharing costs some.
    One,
    /// As many as the server gives.
    Several,
}

/// What sessions share.
struct Desk {
    plan: Plan,
    counts: Vec<TableCount>,
}

/// Does all of `plan` with up to `sessions` sessions of `target`; says how many rows were counted. The first error
/// ends all of it.
pub(super) async fn build(
    target: &ConnectionInfo,
    sessions: usize,
    tablespaces: bool,
    plan: Plan,
) -> Result<Vec<TableCount>, ProofError> {
    let sessions = sessions.max(1).min(plan.waiting.len());
    let desk = Mutex::new(Desk { plan, counts: Vec::new() });
    let changed = Notify::new();
    let workers = (0..sessions).map(|_| async {
        let session = Session::connect(target, "restore").await?;
        prepare(&session).await?;
        work(&session, sessions, tablespaces, &desk, &changed).await
    });
    try_join_all(workers).await?;
    Ok(desk.into_inner().unwrap_or_else(PoisonError::into_inner).counts)
}

/// As `pg_restore` sets it; rows are counted one process a table, since the others have work.
async fn prepare(session: &Session) -> Result<(), PostgresError> {
    session
        .batch(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
             SET search_path = ''; SET check_function_bodies = false; SET xmloption = content; \
             SET client_min_messages = warning; SET row_security = off; SET synchronous_commit = off; \
             SET max_parallel_workers_per_gather = 0",
        )
        .await
}

async fn work(
    session: &Session,
    sessions: usize,
    tablespaces: bool,
    desk: &Mutex<Desk>,
    changed: &Notify,
) -> Result<(), ProofError> {
    loop {
        // Before the look, so that a change right after it is not missed.
        let mut change = std::pin::pin!(changed.notified());
        change.as_mut().enable();
        let taken = {
            let mut desk = locked(desk);
            if desk.plan.waiting.is_empty() {
                return Ok(());
            }
            desk.plan.take(sessions)
        };
        let Some((step, crew)) = taken else {
            change.await;
            continue;
        };
        match &step.work {
            Work::Make(entry) => make(session, entry, crew, tablespaces).await?,
            Work::Count(table) => {
                let count = count_rows(session, table.clone()).await?;
                locked(desk).counts.extend(count);
            }
        }
        locked(desk).plan.done(&step);
        changed.notify_waiters();
    }
}

fn locked(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn make(
    session: &Session,
    entry: &Entry,
    crew: Crew,
    tablespaces: bool,
) -> Result<(), ProofError> {
    let workers = match crew {
        Crew::One => "0",
        Crew::Several => "DEFAULT",
    };
    let tablespace = quote_literal(if tablespaces { &entry.tablespace } else { "" });
    let settings = format!(
        "SET max_parallel_maintenance_workers = {workers}; SET default_tablespace = {tablespace}"
    );
    session.batch(&settings).await?;
    let made = session.client().batch_execute(&entry.sql).await;
    made.map_err(|error| refused(&entry.name, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::archive::{ArchiveReader, NoSink, RowCounter, Section, TableRows};

    /// An archive of tables 1 (10 rows) and 2 (1000 rows) with entries of post-data.
    fn archive(entries: &[(u32, &str, &str, &[u32])]) -> ArchiveSummary {
        let mut reader = ArchiveReader::new(NoSink);
        let bytes = include_bytes!("../../tests/fixtures/archives/odd-1.16.dump");
        reader.push(bytes).expect("an archive");
        let mut toc = reader.complete().expect("a whole one").0;
        let like = toc.entries.remove(0);
        let entry = |&(dump_id, desc, tag, needs): &(u32, &str, &str, &[u32])| TocEntry {
            dump_id,
            desc: desc.into(),
            tag: tag.into(),
            namespace: Some("s".into()),
            defn: Some(format!("make {tag}").into()),
            dependencies: needs.into(),
            section: Section::PostData,
            has_data: false,
            ..like.clone()
        };
        let tables = [(1, "TABLE", "small", &[][..]), (2, "TABLE", "large", &[])];
        toc.entries = tables.iter().chain(entries).map(entry).collect();
        let rows = |name: &str, rows| TableRows {
            schema: "s".into(),
            name: name.into(),
            columns: Vec::new(),
            rows,
            via_root: None,
        };
        let mut summary = ArchiveSummary::new(toc, RowCounter::default(), 1).expect("a summary");
        summary.tables = vec![rows("small", 10), rows("large", 1000)];
        summary
    }

    fn plan(entries: &[(u32, &str, &str, &[u32])], tables: &[&str]) -> Plan {
        let ids: Vec<u32> = entries.iter().map(|entry| entry.0).collect();
        let tables = tables.iter().map(|name| ("s".to_owned(), (*name).to_owned())).collect();
        Plan::new(&archive(entries), &ids, tables)
    }

    /// The name of the step that is taken.
    fn take(plan: &mut Plan) -> Option<(Step, String)> {
        let step = plan.take(2)?.0;
        let name = match &step.work {
            Work::Make(entry) => entry.name.clone(),
            Work::Count((_, name)) => format!("count {name}"),
        };
        Some((step, name))
    }

    #[test]
    fn foreign_keys_come_first_with_the_keys_they_need_and_large_tables_before_small_ones() {
        let mut plan = plan(
            &[
                (3, "INDEX", "small_i", &[1]),
                (4, "INDEX", "large_i", &[2]),
                (5, "CONSTRAINT", "small_pkey", &[1]),
                (6, "CONSTRAINT", "large_pkey", &[2]),
                (7, "FK CONSTRAINT", "large_small", &[2, 5]),
            ],
            &["small", "large"],
        );
        let mut order = Vec::new();
        while let Some((step, name)) = take(&mut plan) {
            plan.done(&step);
            order.push(name);
        }
        let expected = [
            "CONSTRAINT s.small_pkey",
            "FK CONSTRAINT s.large_small",
            "INDEX s.large_i",
            "CONSTRAINT s.large_pkey",
            "INDEX s.small_i",
            "count large",
            "count small",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn nothing_is_taken_that_would_wait_for_a_lock_or_for_what_it_needs() {
        let mut plan = plan(
            &[
                (3, "INDEX", "small_i", &[1]),
                (5, "CONSTRAINT", "small_pkey", &[1]),
                (7, "FK CONSTRAINT", "large_small", &[2, 5]),
            ],
            &["small", "large"],
        );
        let (key, _) = take(&mut plan).expect("the key");
        assert_eq!(take(&mut plan).expect("another table's rows").1, "count large");
        assert!(take(&mut plan).is_none(), "the key holds `small`, and the foreign key needs it");
        plan.done(&key);
        let (foreign_key, name) = take(&mut plan).expect("the foreign key, beside a count");
        assert_eq!(name, "FK CONSTRAINT s.large_small");
        assert_eq!(take(&mut plan).expect("reading beside a foreign key").1, "count small");
        assert!(take(&mut plan).is_none(), "the foreign key holds the table it points to");
        plan.done(&foreign_key);
        assert_eq!(take(&mut plan).expect("the index").1, "INDEX s.small_i");
    }

    #[test]
    fn indexes_of_one_table_are_built_side_by_side_unless_one_changes_the_table() {
        let changes = "c;\n\nALTER TABLE s.small CLUSTER ON c";
        let mut plan = plan(
            &[(3, "INDEX", "a", &[1]), (4, "INDEX", "b", &[1]), (5, "INDEX", changes, &[1])],
            &[],
        );
        let (first, crew) = plan.take(1).expect("one index");
        assert_eq!(crew, Crew::One, "there is another for the session");
        let (second, crew) = plan.take(1).expect("another index");
        assert_eq!(crew, Crew::Several, "nothing is left that can be built now");
        assert!(plan.take(1).is_none());
        plan.done(&first);
        assert!(plan.take(1).is_none());
        plan.done(&second);
        assert!(plan.take(1).is_some());
    }

    #[test]
    fn a_foreign_key_is_held_up_only_where_there_is_nothing_else() {
        let mut plan = plan(
            &[
                (3, "INDEX", "small_i", &[1]),
                (4, "CONSTRAINT", "other_pkey", &[9]),
                (5, "CONSTRAINT", "large_pkey", &[2]),
                (7, "FK CONSTRAINT", "large_small", &[1, 2, 5]),
            ],
            &[],
        );
        assert_eq!(take(&mut plan).expect("a step").1, "CONSTRAINT s.large_pkey");
        assert_eq!(take(&mut plan).expect("a step").1, "CONSTRAINT s.other_pkey");
        assert_eq!(take(&mut plan).expect("a step").1, "INDEX s.small_i");
    }
}
