//! A scratch database on a server that is not ours: where a copy is made before it takes a name.
//!
//! It is named `pgkeep_scratch_<8 hex>_<…>`, its comment marks it, and a session-level advisory lock is
//! held for it on a session of its own (the keeper), in a database that the comment names, since advisory
//! locks are per database. The keeper also does the renaming: who lost the lock cannot rename.
//!
//! Crash story: a SIGKILL ends the keeper's session and with it the lock; the next sweep takes the lock,
//! reads the comment and drops the database. Between `CREATE DATABASE` and `COMMENT` a crash leaves a
//! database without a mark: a sweep takes it only if it has this very shape of a name, belongs to the
//! sweeper's own role, and holds nothing at all.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::domain::connection::ConnectionInfo;
use crate::domain::inventory::DatabaseFacts;
use crate::postgres::session::Session;
use crate::postgres::{PostgresError, quote_ident, quote_literal};
use crate::scratch::sql::Statements as _;

use super::ScratchError;

/// What every scratch database's name begins with; 8 hex digits, `_` and a few words follow.
pub const PREFIX: &str = "pgkeep_scratch_";
/// The first half of every advisory lock on a scratch database: `pgks` in ASCII.
pub(super) const LOCK_CLASS: i32 = 0x7067_6b73;
/// `NAMEDATALEN - 1`.
pub const NAME_BYTES_MAX: usize = 63;
/// How often the keeper is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(30);
const MARK: &str = "pgkeep scratch database 1; lock ";

/// A scratch database of this process.
///
/// Call [`ScratchDatabase::discard`] when done. Dropping it instead ends the keeper, so that the next
/// sweep removes the database; a conductor never relies on that.
pub struct ScratchDatabase {
    keeper: Session,
    server: ConnectionInfo,
    maintenance: String,
    name: String,
    oid: u32,
    patience: Duration,
    /// The keeper was found to be gone or silent.
    is_lost: AtomicBool,
}

impl fmt::Debug for ScratchDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScratchDatabase").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a scratch database is made.
#[derive(Debug, Clone)]
pub struct Creation<'a> {
    /// Encoding and locale of the source.
    pub facts: &'a DatabaseFacts,
    /// Its owner; none is the role that makes it.
    pub owner: Option<&'a str>,
    /// Its tablespace; none is the server's default. A later swap cannot change it.
    pub tablespace: Option<&'a str>,
    /// Close it to PUBLIC from the beginning, as the database is that it will stand for.
    pub closed: bool,
    /// A database that the keeper must stay out of, since it is to be renamed.
    pub avoid: Option<&'a str>,
    /// A piece of chance.
    pub tag: u32,
    /// How long the server may take to answer.
    pub patience: Duration,
}

impl ScratchDatabase {
    /// Makes an empty database on `server`, marked and locked.
    pub async fn create(
        server: &ConnectionInfo,
        creation: &Creation<'_>,
    ) -> Result<Self, ScratchError> {
        let (keeper, maintenance) = maintenance_session(server, creation.avoid).await?;
        let mut tag = creation.tag;
        while !try_lock(&keeper, LockId(tag)).await? {
            tag = tag.wrapping_add(1);
        }
        let name = scratch_name(tag, &creation.facts.name);
        let major = keeper.major();
        let result = async {
            keeper.execute(&create_statement(&name, creation, major)).await?;
            let mark = Mark { lock: LockId(tag), database: maintenance.clone() };
            keeper.execute(&comment_statement(&name, Some(&mark.to_string()))).await?;
            if creation.closed {
                let statement =
                    format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", quote_ident(&name));
                keeper.execute(&statement).await?;
            }
            let sql = "SELECT oid FROM pg_database WHERE datname = $1";
            let row = keeper.query_opt(sql, &[&name]).await?;
            row.map(|row| row.get(0)).ok_or_else(|| ScratchError::Lost(name.clone()))
        };
        match result.await {
            Ok(oid) => {
                let (server, patience) = (server.clone(), creation.patience);
                let is_lost = AtomicBool::new(false);
                Ok(Self { keeper, server, maintenance, name, oid, patience, is_lost })
            }
            Err(error) => {
                // Whatever step failed, nothing may stay; the first failure is the one to tell. A name that is
                // taken is another's database, whose lock lies elsewhere, and not ours to drop.
                if !is_taken(&error) {
                    let _ = drop_database(&keeper, &name).await;
                }
                Err(error)
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its oid, which a rename keeps.
    pub fn oid(&self) -> u32 {
        self.oid
    }

    /// How to reach it.
    pub fn connection(&self) -> ConnectionInfo {
        self.server.with_database(&self.name)
    }

    /// How to reach the server in the database that the keeper uses.
    pub fn maintenance_connection(&self) -> ConnectionInfo {
        self.server.with_database(&self.maintenance)
    }

    /// The session that holds the lock, outside of the database itself.
    pub fn keeper(&self) -> &Session {
        &self.keeper
    }

    /// Waits until the keeper's session is gone, and the lock with it, or its server answers no more; why.
    ///
    /// The sessions that fill the copy may be silent for hours, while an index is built. The keeper is idle, and a
    /// server that lives answers it.
    pub async fn lost(&self) -> PostgresError {
        loop {
            tokio::time::sleep(HEARTBEAT.min(self.patience / 4)).await;
            if let Err(error) = self.say("SELECT 1").await {
                self.is_lost.store(true, Ordering::Relaxed);
                return error;
            }
        }
    }

    /// How long the server may take to answer.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// What the server says within its time.
    pub async fn answered<T>(
        &self,
        answer: impl Future<Output = Result<T, PostgresError>>,
    ) -> Result<T, PostgresError> {
        self.answered_within(self.patience, answer).await
    }

    /// What the server says within a time that is known of the statement.
    pub async fn answered_within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, PostgresError>>,
    ) -> Result<T, PostgresError> {
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            let address = self.keeper.address().to_owned();
            Err(PostgresError::Silent { address, waited: limit })
        })
    }

    /// Has the keeper run a statement, within the server's time.
    pub async fn say(&self, statement: &str) -> Result<(), PostgresError> {
        self.answered(self.keeper.execute(statement)).await
    }

    /// A session that has taken over the keeper's lock, so that the keeper's own is gone with all it was doing; none
    /// while that one is still there.
    pub async fn successor(&self) -> Result<Option<Session>, ScratchError> {
        let session = Session::connect(&self.maintenance_connection(), "scratch keeper").await?;
        let lock = tag_of_name(&self.name).expect("a scratch name holds its lock");
        let is_taken = self.answered(try_lock(&session, lock)).await?;
        Ok(is_taken.then_some(session))
    }

    /// Drops the database, ending what still works in it.
    ///
    /// It goes by its scratch name, so a copy that has taken its real name is out of reach.
    pub async fn discard(self) -> Result<(), ScratchError> {
        let is_lost = self.is_lost.load(Ordering::Relaxed);
        if !is_lost && self.answered(drop_database(&self.keeper, &self.name)).await.is_ok() {
            return Ok(());
        }
        // The keeper's session is broken or busy with a cancelled transaction: once more over a new one.
        let (session, _) = maintenance_session(&self.server, Some(&self.name)).await?;
        Ok(self.answered(drop_database(&session, &self.name)).await?)
    }
}

fn is_taken(error: &ScratchError) -> bool {
    let ScratchError::Postgres(error) = error else { return false };
    error.sqlstate().is_some_and(|code| code == "42P04")
}

/// Ends the sessions in `name` and drops it; a missing one is success.
pub(super) async fn drop_database(session: &Session, name: &str) -> Result<(), PostgresError> {
    // Since 13 FORCE ends the others itself; before, they are ended first.
    let database = quote_ident(name);
    if session.major() >= 13 {
        session.execute(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).await
    } else {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        session.query(sql, &[&name]).await?;
        session.execute(&format!("DROP DATABASE IF EXISTS {database}")).await
    }
}

/// A session beside the databases that are worked on: in `postgres`, else in the one of the connection
/// string, else in `template1`, which stays last because a session there keeps others from copying it.
pub async fn maintenance_session(
    server: &ConnectionInfo,
    avoid: Option<&str>,
) -> Result<(Session, String), ScratchError> {
    let mut failure = None;
    let mut tried: Vec<&str> = Vec::new();
    for database in ["postgres", server.database(), "template1"] {
        if tried.contains(&database) || avoid == Some(database) {
            continue;
        }
        tried.push(database);
        match Session::connect(&server.with_database(database), "scratch keeper").await {
            Ok(session) => {
                // It waits for hours while a copy is loaded; nothing may end it meanwhile.
                session.execute(&keeper_settings(session.major())).await?;
                return Ok((session, database.to_owned()));
            }
            // The first failure tells about the server; later ones only about databases.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.map_or_else(
        || ScratchError::NoMaintenance(avoid.unwrap_or_default().to_owned()),
        ScratchError::Postgres,
    ))
}

/// What keeps the server from ending a session that waits.
pub fn keeper_settings(major: u32) -> String {
    let mut names =
        vec!["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];
    if major >= 14 {
        names.push("idle_session_timeout");
    }
    if major >= 17 {
        names.push("transaction_timeout");
    }
    names.iter().map(|name| format!("SET {name} = 0")).collect::<Vec<_>>().join("; ")
}

/// The second half of a scratch database's advisory lock: the 8 hex digits of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LockId(pub(super) u32);

impl LockId {
    /// As the second key of `pg_advisory_lock(int, int)`.
    fn key(self) -> i32 {
        self.0.cast_signed()
    }
}

/// Takes the lock for the life of the session, if nobody has it.
pub(super) async fn try_lock(session: &Session, id: LockId) -> Result<bool, PostgresError> {
    let sql = "SELECT pg_try_advisory_lock($1, $2)";
    let row = session.query_one(sql, &[&LOCK_CLASS, &id.key()]).await?;
    Ok(row.get(0))
}

/// The comment that makes a database scratch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// The lock of its owner.
    pub(super) lock: LockId,
    /// The database in which the lock is held.
    pub(super) database: String,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{:08x} in {}", self.lock.0, self.database)
    }
}

impl Mark {
    /// Reads a comment; none unless it is such a mark and nothing else.
    pub(super) fn parse(comment: &str) -> Option<Self> {
        let (digits, database) = comment.strip_prefix(MARK)?.split_once(" in ")?;
        let lock = hex_tag(digits)?;
        (!database.is_empty()).then(|| Self { lock, database: database.to_owned() })
    }
}

/// The lock of a scratch database by its name; none for any other name.
pub(super) fn tag_of_name(name: &str) -> Option<LockId> {
    let rest = name.strip_prefix(PREFIX)?;
    let (digits, word) = rest.split_at_checked(8)?;
    word.starts_with('_').then(|| hex_tag(digits)).flatten()
}

fn hex_tag(digits: &str) -> Option<LockId> {
    let shape = digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if shape { u32::from_str_radix(digits, 16).ok().map(LockId) } else { None }
}

/// Plain lower-case words only, so that no tool needs quotes for it, and within PostgreSQL's limit.
fn scratch_name(tag: u32, source: &str) -> String {
    let plain = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() { c } else { '_' }
    };
    let mut name = format!("{PREFIX}{tag:08x}_");
    let room = NAME_BYTES_MAX - name.len();
    name.extend(source.chars().map(plain).take(room));
    name
}

pub(super) fn comment_statement(name: &str, comment: Option<&str>) -> String {
    let comment = comment.map_or_else(|| "NULL".to_owned(), quote_literal);
    format!("COMMENT ON DATABASE {} IS {comment}", quote_ident(name))
}

/// `CREATE DATABASE` with the source's encoding and locale, in the words of the server's major version.
pub(super) fn create_statement(name: &str, creation: &Creation<'_>, major: u32) -> String {
    let facts = creation.facts;
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote_ident(name),
        quote_literal(&facts.encoding),
        quote_literal(&facts.collate),
        quote_literal(&facts.ctype),
    );
    let mut add = |word: &str, value: &str| {
        sql.extend([" ", word, " ", &quote_literal(value)]);
    };
    let locale = facts.icu_locale.as_deref();
    // Before 15 a database had no provider of its own, and could not be one of ICU's. The builtin
    // provider came with 17; on an older server the plan has refused it.
    match (facts.locale_provider.as_str(), locale) {
        ("icu", Some(locale)) if major >= 15 => {
            add("LOCALE_PROVIDER", "icu");
            add("ICU_LOCALE", locale);
            if let Some(rules) = facts.icu_rules.as_deref().filter(|_| major >= 16) {
                add("ICU_RULES", rules);
            }
        }
        ("builtin", Some(locale)) if major >= 17 => {
            add("LOCALE_PROVIDER", "builtin");
            add("BUILTIN_LOCALE", locale);
        }
        _ if major >= 15 => add("LOCALE_PROVIDER", "libc"),
        _ => {}
    }
    if let Some(owner) = creation.owner {
        sql.extend([" OWNER ", &quote_ident(owner)]);
    }
    if let Some(tablespace) = creation.tablespace {
        sql.extend([" TABLESPACE ", &quote_ident(tablespace)]);
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::inventory::Inventory;

    fn facts(provider: &str, locale: Option<&str>) -> DatabaseFacts {
        DatabaseFacts {
            locale_provider: provider.into(),
            collate: "C".into(),
            ctype: "C".into(),
            icu_locale: locale.map(str::to_owned),
            ..Inventory::empty().database
        }
    }

    #[test]
    fn a_mark_reads_back_and_nothing_else_is_a_mark() {
        let mark = Mark { lock: LockId(0xdead_0001), database: "my db in x".into() };
        assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        for other in ["", "our shop", "pgkeep scratch database 1; lock xyz in postgres"] {
            assert_eq!(Mark::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_name_fits_postgresql_and_tells_its_lock() {
        let name = scratch_name(0x00c0_ffee, &"Größe \"x\"".repeat(9));
        assert_eq!(name.len(), NAME_BYTES_MAX);
        assert!(name.starts_with("pgkeep_scratch_00c0ffee_gr__e__x_"));
        assert_eq!(tag_of_name(&name), Some(LockId(0x00c0_ffee)));
        for other in ["pgkeep_scratch_", "pgkeep_scratch_notes_old", "pgkeep_scratch_00c0ffee"] {
            assert_eq!(tag_of_name(other), None, "{other}");
        }
    }

    #[test]
    fn the_locale_is_said_in_the_servers_words() {
        let (libc, icu) = (facts("libc", None), facts("icu", Some("de-u-co-phonebk")));
        let statement = |facts, major| {
            let creation = Creation {
                facts,
                owner: Some("App"),
                tablespace: Some("Fast"),
                closed: false,
                avoid: None,
                tag: 0,
                patience: Duration::MAX,
            };
            create_statement("d", &creation, major)
        };
        assert_eq!(
            statement(&libc, 14),
            "CREATE DATABASE \"d\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' \
             OWNER \"App\" TABLESPACE \"Fast\""
        );
        assert!(statement(&libc, 15).contains("LOCALE_PROVIDER 'libc'"));
        assert!(statement(&icu, 15).contains("ICU_LOCALE 'de-u-co-phonebk'"));
        assert!(
            statement(&facts("builtin", Some("C.UTF-8")), 17)
                .contains("LOCALE_PROVIDER 'builtin' BUILTIN_LOCALE 'C.UTF-8'")
        );
    }
}
