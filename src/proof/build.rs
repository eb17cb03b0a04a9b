//! The indexes and keys of a copy, built several side by side, and its rows, counted meanwhile.
//!
//! `pg_restore --jobs` could build them too. It takes the indexes of the largest table first and its foreign keys
//! last, which one process checks while the other cores wait. So [`Plan`] takes keys first that foreign keys wait
//! for, then foreign keys, then the rest, of which several processes build each of the last. Rows are counted
//! where nothing else can be done. And an error has its SQLSTATE here, so that an accident is told from a bad copy.
//!
//! What is made of columns alone begins as soon as its tables have their rows, while other tables get theirs: two
//! sessions that fill one table wait for each other at its end, one that fills and one that builds do not. An
//! expression or a condition may call a function that reads any table; it waits until all rows are there.
//!
//! No step waits for another one's lock: it is taken only when the tables that it names are free for it. Only an
//! accident ends this halfway; the copy is the caller's, who removes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::ProofError;
use super::checks::count_rows;
use super::fill::refused;
use crate::domain::archive::{Toc, TocEntry};
use crate::domain::inventory::TableCount;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_literal};

/// The least memory that a build sorts with.
const SORT_KIB_MIN: u64 = 16 << 10;
/// The least for each process where several build one index: below it the server takes fewer (`plan_create_index_workers`
/// in planner.c).
const SHARE_KIB: u64 = 32 << 10;
/// What PostgreSQL reads and writes each run of a merge through (`TAPE_BUFFER_OVERHEAD` and `MERGE_BUFFER_SIZE` in
/// tuplesort.c): so many runs are merged at once as the memory holds of it.
const RUN_KIB: u64 = 272;
/// An entry of an index as it is sorted, about.
const ENTRY_BYTES: u64 = 128;

/// What there is to do, and what stands in the way of each.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In the order in which they are taken.
    waiting: Vec<Step>,
    running: BTreeMap<usize, Hold>,
    /// Entries that are not made yet: waiting or running.
    unmade: BTreeSet<u32>,
    /// Tables that have all their rows.
    filled: BTreeSet<u32>,
    /// Whether all have.
    all_filled: bool,
    /// Whether the archive was read to its end: few rows are left to put in, if any.
    whole: bool,
    /// Nothing early could be done at the last look, and nothing has changed since: looks come with every batch.
    none_early: bool,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Where it stood in the plan.
    place: usize,
    work: Work,
    needs: Box<[u32]>,
    hold: Hold,
    /// Whether it needs no rows but those of the tables that it names.
    early: bool,
    /// Of its largest table, as the source had them.
    rows: u64,
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

impl Entry {
    /// Whether it is built by sorting: a B-tree, as every primary key and unique constraint is.
    fn sorts(&self) -> bool {
        let plain = unquoted(&self.sql);
        [" USING btree (", " PRIMARY KEY (", " UNIQUE "].iter().any(|words| plain.contains(words))
            && !plain.contains(" EXCLUDE ")
    }
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
    ///
    /// `rows` are the source's: what they say is a matter of order, not of truth.
    pub(super) fn new(
        toc: &Toc,
        rows: &[TableCount],
        ids: &[u32],
        tables: Vec<(String, String)>,
    ) -> Self {
        let index = Index::new(toc, rows);
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
        let rows = |hold: &Hold| {
            hold.tables.iter().filter_map(|id| index.rows.get(id)).max().copied().unwrap_or(0)
        };
        steps.sort_by_key(|(turn, _, _, hold)| (*turn, std::cmp::Reverse(rows(hold))));
        // The key that a foreign key points to names that table. One of an extension's table is in no archive.
        let names_its_tables = |needs: &[u32], hold: &Hold| {
            let mut needed = needs.iter().filter_map(|id| index.entries.get(id));
            hold.lock != Lock::ForeignKey
                || needed.any(|entry| matches!(&*entry.desc, "CONSTRAINT" | "INDEX"))
        };
        let step = |(place, (_, work, needs, hold)): (usize, (_, Work, Box<[u32]>, Hold))| {
            let early = matches!(&work, Work::Make(entry) if is_of_columns(&entry.sql))
                && names_its_tables(&needs, &hold);
            Step { place, work, needs, rows: rows(&hold), early, hold }
        };
        let waiting: Vec<Step> = steps.into_iter().enumerate().map(step).collect();
        let made = |step: &Step| match &step.work {
            Work::Make(entry) => Some(entry.id),
            Work::Count(_) => None,
        };
        let unmade = waiting.iter().filter_map(made).collect();
        Self { waiting, unmade, ..Self::default() }
    }

    fn has_its_needs(&self, step: &Step) -> bool {
        self.has_its_rows(step) && step.needs.iter().all(|id| !self.unmade.contains(id))
    }

    /// Of a partitioned table only the partitions are filled, so what is made of it waits for all.
    fn has_its_rows(&self, step: &Step) -> bool {
        let tables = &step.hold.tables;
        self.all_filled || (step.early && !tables.is_empty() && tables.is_subset(&self.filled))
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

    /// The first step that can be done now, if possible one that holds nothing up.
    fn next_of(&self, wanted: impl Fn(&Step) -> bool) -> Option<usize> {
        let mut ready = self.ready().filter(|at| wanted(&self.waiting[*at])).peekable();
        let first = ready.peek().copied();
        ready.find(|at| !self.holds_up(*at)).or(first)
    }

    /// Takes a step that can be done now; says how many processes may work at it, where `sessions` do.
    fn take(&mut self, sessions: usize, only_early: bool) -> Option<(Step, Crew)> {
        if only_early && self.none_early {
            return None;
        }
        let Some(at) = self.next_of(|step| !only_early || step.early) else {
            self.none_early = only_early;
            return None;
        };
        let step = self.waiting.remove(at);
        self.running.insert(step.place, step.hold.clone());
        let builds = |at: &usize| matches!(self.waiting[*at].work, Work::Make(_));
        let others = self.ready().filter(builds).count();
        // Which of the last builds takes longest is not known: keys of one type are sorted many times slower than of
        // another. Who is done sooner should not leave a core idle meanwhile.
        let enough = !self.whole || others >= sessions;
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
    fn new(toc: &'a Toc, rows: &[TableCount]) -> Self {
        let all = &toc.entries;
        let tables = all.iter().filter(|entry| is_table(entry));
        let ids: HashMap<_, _> = tables
            .map(|entry| {
                ((entry.namespace.as_deref().unwrap_or_default(), &*entry.tag), entry.dump_id)
            })
            .collect();
        let rows = rows.iter().filter_map(|table| {
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

/// A statement without the names that stand in quotes.
fn unquoted(sql: &str) -> String {
    sql.split('"').step_by(2).collect()
}

/// Whether an index or key is made of columns alone: no expression, which has parentheses within the parentheses of
/// the columns, and no condition.
fn is_of_columns(sql: &str) -> bool {
    let plain = unquoted(sql);
    let mut depth = 0_u32;
    let mut deepest = 0;
    for letter in plain.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    let says = |wanted: &str| plain.split_whitespace().any(|word| word == wanted);
    deepest == 1 && !says("WHERE") && !says("EXCLUDE")
}

fn is_table(entry: &TocEntry) -> bool {
    matches!(&*entry.desc, "TABLE" | "MATERIALIZED VIEW" | "FOREIGN TABLE")
}

/// How many processes build an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crew {
    /// The session's own, while there is enough to do for all sessions: sharing costs one merge more.
    One,
    /// As many as the server gives.
    Several,
}

/// A plan, as the sessions share it that carry it out.
pub(super) struct Steps {
    desk: Mutex<Desk>,
    changed: Notify,
    sessions: usize,
    tablespaces: bool,
}

struct Desk {
    plan: Plan,
    counts: Vec<TableCount>,
    /// Sessions that have rows which are not put in yet.
    filling: usize,
    /// All rows were taken.
    taken: bool,
}

impl Steps {
    /// For so many sessions, which fill the tables meanwhile.
    pub(super) fn new(plan: Plan, sessions: usize, tablespaces: bool) -> Self {
        let desk = Desk { plan, counts: Vec::new(), filling: 0, taken: false };
        Self { desk: Mutex::new(desk), changed: Notify::new(), sessions, tablespaces }
    }

    /// The next step that can be done now.
    pub(super) fn take(&self) -> Option<(Step, Crew)> {
        self.locked().plan.take(self.sessions, false)
    }

    /// The next one that may be done beside sessions that fill other tables.
    pub(super) fn take_early(&self) -> Option<(Step, Crew)> {
        self.locked().plan.take(self.sessions, true)
    }

    /// Whether none is left to take.
    pub(super) fn is_empty(&self) -> bool {
        self.locked().plan.waiting.is_empty()
    }

    /// Ends when anything has changed since this was called and first polled.
    pub(super) fn change(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// This table has all its rows.
    pub(super) fn filled(&self, table: u32) {
        self.change_by(|desk| {
            desk.plan.filled.insert(table);
        });
    }

    /// A session has rows that are not put in yet, or has no more.
    pub(super) fn has_rows(&self, has: bool) {
        self.change_by(|desk| if has { desk.filling += 1 } else { desk.filling -= 1 });
    }

    /// There are no more rows to take.
    pub(super) fn taken(&self) {
        self.change_by(|desk| desk.taken = true);
    }

    /// The archive is whole: all its rows were handed out.
    pub(super) fn whole(&self) {
        self.change_by(|desk| desk.plan.whole = true);
    }

    fn change_by(&self, change: impl FnOnce(&mut Desk)) {
        let mut desk = self.locked();
        change(&mut desk);
        desk.plan.none_early = false;
        desk.plan.all_filled = desk.plan.whole && desk.taken && desk.filling == 0;
        drop(desk);
        self.changed.notify_waiters();
    }

    fn locked(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a step that was taken.
    pub(super) async fn carry_out(
        &self,
        session: &Session,
        memory_kib: u64,
        (step, crew): (Step, Crew),
    ) -> Result<(), ProofError> {
        let mut counted = None;
        match &step.work {
            Work::Make(entry) => {
                let memory_kib = match (step.hold.lock, crew) {
                    // A foreign key's check hashes the keys that are pointed to. Other kinds of index make other use of
                    // memory: some are built many times slower with less of it, some not at all.
                    (Lock::ForeignKey, _) => memory_kib,
                    _ if !entry.sorts() => memory_kib,
                    (_, Crew::One) => memory_kib.min(sort_kib(step.rows)),
                    (_, Crew::Several) => {
                        let share = sort_kib(step.rows).max(SHARE_KIB);
                        memory_kib.min(share * self.sessions as u64)
                    }
                };
                let tablespace = if self.tablespaces { &*entry.tablespace } else { "" };
                make(session, entry, crew, tablespace, memory_kib).await?;
            }
            Work::Count(table) => counted = count_rows(session, table.clone()).await?,
        }
        self.change_by(|desk| {
            desk.counts.extend(counted);
            desk.plan.done(&step);
        });
        Ok(())
    }

    /// How many rows were counted.
    pub(super) fn into_counts(self) -> Vec<TableCount> {
        self.desk.into_inner().unwrap_or_else(PoisonError::into_inner).counts
    }
}

/// Sets a session up as `pg_restore` does, and says what memory it may build with, in KiB. Rows are counted one
/// process a table, since the others have work.
pub(super) async fn prepare(session: &Session) -> Result<u64, PostgresError> {
    session
        .batch(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
             SET search_path = ''; SET check_function_bodies = false; SET xmloption = content; \
             SET client_min_messages = warning; SET row_security = off; SET synchronous_commit = off; \
             SET max_parallel_workers_per_gather = 0",
        )
        .await?;
    let sql =
        "SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem'";
    let memory: i64 = session.client().query_one(sql, &[]).await?.try_get(0)?;
    Ok(memory.unsigned_abs())
}

/// What to sort so many entries with: as little as is merged in one pass, since what fits the processor's caches is
/// sorted sooner (4.6 million of a text and a time: 3.2 s with 16 MiB, 4.0 s with 64, 4.7 s with 512).
fn sort_kib(rows: u64) -> u64 {
    // With m of memory, s to sort makes s/m runs, and m/RUN_KIB of them are merged at once.
    let all_kib = rows.saturating_mul(ENTRY_BYTES) >> 10;
    all_kib.saturating_mul(RUN_KIB).isqrt().max(SORT_KIB_MIN)
}

async fn make(
    session: &Session,
    entry: &Entry,
    crew: Crew,
    tablespace: &str,
    memory_kib: u64,
) -> Result<(), ProofError> {
    let workers = match crew {
        Crew::One => "0",
        Crew::Several => "DEFAULT",
    };
    let tablespace = quote_literal(tablespace);
    let settings = format!(
        "SET max_parallel_maintenance_workers = {workers}; SET default_tablespace = {tablespace}; \
         SET maintenance_work_mem = {memory_kib}"
    );
    session.batch(&settings).await?;
    let made = session.client().batch_execute(&entry.sql).await;
    made.map_err(|error| refused(&entry.name, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::archive::{ArchiveReader, NoSink, Section};

    /// An archive of tables 1 (10 rows) and 2 (1000 rows) with entries of post-data.
    fn archive(entries: &[(u32, &str, &str, &[u32])]) -> Toc {
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
        toc
    }

    /// Of tables that have all their rows.
    fn plan(entries: &[(u32, &str, &str, &[u32])], tables: &[&str]) -> Plan {
        let ids: Vec<u32> = entries.iter().map(|entry| entry.0).collect();
        let rows = [("small", 10), ("large", 1000)].map(|(name, rows)| TableCount {
            schema: "s".to_owned(),
            name: name.to_owned(),
            rows,
        });
        let tables = tables.iter().map(|name| ("s".to_owned(), (*name).to_owned())).collect();
        Plan { all_filled: true, whole: true, ..Plan::new(&archive(entries), &rows, &ids, tables) }
    }

    /// The name of the step that is taken.
    fn take(plan: &mut Plan) -> Option<(Step, String)> {
        let step = plan.take(2, false)?.0;
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
            &[
                (3, "INDEX", "a", &[1]),
                (4, "INDEX", "b", &[1]),
                (5, "INDEX", "d", &[1]),
                (6, "INDEX", changes, &[1]),
            ],
            &[],
        );
        let (first, crew) = plan.take(2, false).expect("one index");
        assert_eq!(crew, Crew::One, "each session has another one to build after it");
        let (second, crew) = plan.take(2, false).expect("another index");
        assert_eq!(crew, Crew::Several, "one session may find nothing to do before it is built");
        let (third, crew) = plan.take(2, false).expect("a third index");
        assert_eq!(crew, Crew::Several);
        assert!(plan.take(2, false).is_none());
        plan.done(&first);
        plan.done(&second);
        assert!(plan.take(2, false).is_none());
        plan.done(&third);
        let (_, crew) = plan.take(2, false).expect("the last");
        assert_eq!(crew, Crew::Several);
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

    #[test]
    fn what_is_made_of_columns_begins_when_its_tables_are_filled_and_the_rest_when_all_are() {
        let mut plan = plan(
            &[
                (3, "INDEX", "i ON s.small USING btree (a)", &[1]),
                (4, "INDEX", "e ON s.small USING btree (lower(a))", &[1]),
                (5, "CONSTRAINT", "k PRIMARY KEY (a)", &[1]),
                (7, "FK CONSTRAINT", "f FOREIGN KEY (b) REFERENCES s.small(a)", &[2, 5]),
                (8, "INDEX", "p ON ONLY s.parted USING btree (a)", &[9]),
            ],
            &["small"],
        );
        plan.all_filled = false;
        assert!(take(&mut plan).is_none());
        plan.filled.insert(1);
        let mut order = Vec::new();
        let mut all = |plan: &mut Plan| {
            while let Some((step, name)) = take(plan) {
                plan.done(&step);
                order.push(
                    name.split_whitespace()
                        .find(|word| word.starts_with("s."))
                        .unwrap_or("count")
                        .to_owned(),
                );
            }
        };
        all(&mut plan);
        plan.filled.insert(2);
        all(&mut plan);
        plan.all_filled = true;
        all(&mut plan);
        assert_eq!(order, ["s.k", "s.i", "s.f", "s.e", "s.p", "count"]);
    }

    #[test]
    fn columns_are_told_from_what_may_read_other_tables() {
        for columns in [
            "ALTER TABLE ONLY s.t\n    ADD CONSTRAINT \"a ( ( WHERE\" PRIMARY KEY (a, b);",
            "CREATE UNIQUE INDEX i ON s.t USING btree (a DESC NULLS LAST, b text_pattern_ops) INCLUDE (c) WITH (fillfactor='70');",
            "ALTER TABLE s.t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.u(id) ON DELETE CASCADE;",
        ] {
            assert!(is_of_columns(columns), "{columns}");
        }
        for other in [
            "CREATE INDEX i ON s.t USING btree (lower(a));",
            "CREATE INDEX i ON s.t USING gin (((a || b)));",
            "CREATE INDEX i ON s.t USING btree (a) WHERE s.f(a);",
            "CREATE INDEX i ON s.t USING btree (a) WHERE active;",
            "ALTER TABLE s.t ADD CONSTRAINT e EXCLUDE USING gist (a WITH &&);",
            "ALTER TABLE s.t ADD CONSTRAINT \"x\"\"(\" CHECK (s.f(a));",
            "CREATE STATISTICS s.x ON a, b FROM s.t;",
        ] {
            assert!(!is_of_columns(other), "{other}");
        }
    }

    #[test]
    fn a_foreign_key_to_a_table_that_no_key_names_waits_for_all_rows() {
        // As `pg_dump` writes one to an extension's table: it needs the extension, 8.
        let entries: &[(u32, &str, &str, &[u32])] =
            &[(7, "FK CONSTRAINT", "f FOREIGN KEY (srid) REFERENCES s.spatial(srid)", &[1, 8])];
        let mut plan = plan(entries, &[]);
        plan.all_filled = false;
        plan.filled.insert(1);
        assert!(plan.take(2, true).is_none());
        plan.all_filled = true;
        assert!(plan.take(2, false).is_some());
    }

    #[test]
    fn only_what_sorts_is_given_less_memory() {
        let sorts = |sql: &str| {
            let (name, tablespace) = (String::new(), String::new());
            Entry { id: 1, name, sql: sql.to_owned(), tablespace }.sorts()
        };
        assert!(sorts("CREATE INDEX i ON s.t USING btree (a);"));
        assert!(sorts("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k PRIMARY KEY (a);"));
        assert!(sorts("ALTER TABLE ONLY s.t\n    ADD CONSTRAINT k UNIQUE NULLS NOT DISTINCT (a);"));
        assert!(!sorts("CREATE INDEX i ON s.t USING ivfflat (v) WITH (lists='100');"));
        assert!(!sorts("CREATE INDEX \" USING btree (\" ON s.t USING gin (a);"));
        assert!(!sorts("ALTER TABLE s.t ADD CONSTRAINT x EXCLUDE USING gist (a WITH &&);"));
    }

    #[test]
    fn a_look_that_found_nothing_is_not_repeated_until_something_changes() {
        let index = [(3, "INDEX", "i ON s.small USING btree (a)", &[1][..])];
        let plan = Plan { all_filled: false, ..plan(&index, &[]) };
        let steps = Steps::new(plan, 2, false);
        assert!(steps.take_early().is_none());
        steps.locked().plan.filled.insert(1);
        assert!(steps.take_early().is_none(), "nobody said that anything changed");
        steps.filled(1);
        assert!(steps.take_early().is_some());
    }

    #[test]
    fn a_sort_takes_what_one_merge_needs() {
        assert_eq!(sort_kib(0), SORT_KIB_MIN);
        assert_eq!(sort_kib(4_600_000), SORT_KIB_MIN);
        let memory = sort_kib(1_000_000_000);
        let (runs, at_once) = (1_000_000_000 * ENTRY_BYTES / 1024 / memory, memory / RUN_KIB);
        assert!(runs.abs_diff(at_once) <= 1, "{runs} runs, {at_once} at once");
        assert_eq!(sort_kib(u64::MAX), (u64::MAX >> 10).saturating_mul(RUN_KIB).isqrt());
    }
}
