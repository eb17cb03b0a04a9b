//! Loading and comparing, as a library: what an honest restore proves, and what a changed one cannot.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use pgkeep::domain::archive::{ArchiveReader, ArchiveSummary, ROW_SETTINGS};
use pgkeep::domain::connection::ConnectionInfo;
use pgkeep::domain::failure::{Failure, FailureKind};
use pgkeep::domain::inventory::Inventory;
use pgkeep::domain::observer::Silent;
use pgkeep::domain::verification::{Check, Depth, Outcome};
use pgkeep::postgres::catalog;
use pgkeep::postgres::child::{Child, ChildSpec};
use pgkeep::postgres::programs::Programs;
use pgkeep::postgres::session::Session;
use pgkeep::postgres::sources::SystemSources;
use pgkeep::postgres::{quote_ident, quote_literal};
use pgkeep::proof::{
    Assertion, ContentRequest, Incoming, LoadRequest, Proof, ProofError, ProofRequest, Sums,
    content, load, verify,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::server::majors;

const ODD: &str = include_str!("../fixtures/archives/odd.sql");
const NASTY: &str = include_str!("sql/nasty.sql");
const ROW_KEY: [u8; 32] = [42; 32];

fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

/// In the matrix, 15 stands for the older of the two majors and 17 for the newer.
fn of_this_run(major: u32) -> u32 {
    let (older, newer) = majors();
    if major == 15 { older } else { newer }
}

/// A server of that major, as its superuser.
fn server(major: u32) -> ConnectionInfo {
    let major = of_this_run(major);
    ConnectionInfo::parse(&told(&format!("TEST_PG{major}_URL")), &SystemSources).expect("a URL")
}

fn programs(major: u32) -> Programs {
    let major = of_this_run(major);
    let bin = PathBuf::from(told(&format!("TEST_PG{major}_BIN")));
    Programs::find(major, Some(&bin)).expect("client programs")
}

/// A database of one test, dropped at its end.
struct Database {
    server: ConnectionInfo,
    info: ConnectionInfo,
}

impl Database {
    async fn create(major: u32, name: &str) -> Self {
        Self::create_with(major, name, "TEMPLATE template0 ENCODING 'UTF8'").await
    }

    async fn create_with(major: u32, name: &str, options: &str) -> Self {
        let server = server(major);
        let name = format!("proof '{name}' \\ {major} {}", std::process::id());
        let quoted = quote_ident(&name);
        run(&server, &format!("DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")).await;
        run(&server, &format!("CREATE DATABASE {quoted} {options}")).await;
        Self { info: server.with_database(&name), server }
    }

    async fn drop(self) {
        let clean = "DO $$ DECLARE s name; BEGIN FOR s IN SELECT subname FROM pg_subscription s \
                     JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database() LOOP \
                     EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', s); \
                     EXECUTE format('DROP SUBSCRIPTION %I', s); END LOOP; END $$";
        run(&self.info, clean).await;
        let quoted = quote_ident(self.info.database());
        run(&self.server, &format!("DROP DATABASE {quoted} WITH (FORCE)")).await;
    }
}

async fn run(info: &ConnectionInfo, sql: &str) {
    let session = Session::connect(info, "test").await.expect("the server lets us in");
    session.batch("SET client_min_messages = error").await.expect("a setting");
    session.batch(sql).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// A dump in memory, with a directory for the load.
struct Archive {
    bytes: Vec<u8>,
    summary: ArchiveSummary,
    directory: TempDir,
}

impl Archive {
    /// It comes in as from a store, in chunks that end anywhere.
    fn incoming(&self) -> Incoming {
        let whole: Vec<Vec<u8>> = self.bytes.chunks(10_007).map(<[u8]>::to_vec).collect();
        let (chunks, queue) = mpsc::channel(1);
        tokio::spawn(async move {
            for chunk in whole {
                if chunks.send(chunk).await.is_err() {
                    break;
                }
            }
        });
        Incoming { chunks: queue, bytes: self.bytes.len() as u64 }
    }
}

/// Dumps a database as the snapshot does, and records what it holds.
async fn dumped(source: &ConnectionInfo, programs: &Programs) -> (Archive, Inventory) {
    let settings: Vec<String> =
        ROW_SETTINGS.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
    let spec = ChildSpec::new(programs.program("pg_dump").expect("pg_dump"))
        .connection(&source.with_options(&settings.join(" ")))
        .args(["--format=custom", "--compress=0", "--no-password", "--encoding=UTF8"])
        .piped_stdout();
    let mut child = Child::spawn(spec).expect("pg_dump starts");
    let mut stdout = child.take_stdout().expect("a pipe");
    let bytes = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).expect("the pipe");
        bytes
    });
    let bytes = bytes.await.expect("it ran");
    child.wait().await.expect("pg_dump succeeds");
    let mut reader = ArchiveReader::counting();
    reader.push(&bytes).expect("it is an archive");
    let summary = reader.finish().expect("a whole archive");
    let session = Session::connect(source, "test").await.expect("the source");
    let mut inventory = catalog::inventory(session.client()).await.expect("an inventory");
    inventory.rows = summary.table_counts();
    inventory.sequences.clone_from(&summary.sequences);
    (Archive { bytes, summary, directory: tempfile::tempdir().expect("a directory") }, inventory)
}

fn request<'a>(
    archive: &'a Archive,
    expected: &'a Inventory,
    target: &'a ConnectionInfo,
    programs: &'a Programs,
    assertions: &'a [Assertion],
) -> ProofRequest<'a> {
    ProofRequest {
        directory: archive.directory.path(),
        target,
        programs,
        expected,
        depth: Depth::Full,
        assertions,
        assertion_timeout: Some(Duration::from_secs(20)),
        row_key: ROW_KEY,
        jobs: 2,
        only: None,
        roles: true,
        tablespaces: false,
        locale: true,
        analyze: true,
        observer: &Silent,
    }
}

fn outcomes(proof: &Proof) -> Vec<(&str, Outcome)> {
    proof.checks.iter().map(|check| (check.name.as_str(), check.result)).collect()
}

#[track_caller]
fn check<'a>(proof: &'a Proof, name: &str) -> &'a Check {
    let found = proof.checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check {name}: {proof:?}"))
}

/// Dumps on one major, proves on another.
async fn story(name: &str, sql: &str, from: u32, to: u32) -> Proof {
    story_with(name, sql, from, to, "TEMPLATE template0 ENCODING 'UTF8'").await
}

async fn story_with(name: &str, sql: &str, from: u32, to: u32, options: &str) -> Proof {
    let source = Database::create_with(from, &format!("{name} source"), options).await;
    run(&source.info, sql).await;
    let newest = programs(from.max(to));
    let (archive, expected) = dumped(&source.info, &programs(from)).await;
    let target = Database::create_with(to, &format!("{name} target"), options).await;
    for role in &expected.roles_needed {
        let name = quote_literal(role);
        let create = format!("CREATE ROLE {}", quote_ident(role));
        run(
            &target.server,
            &format!(
                "DO $do$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) \
                 THEN {create}; END IF; END $do$"
            ),
        )
        .await;
    }
    let assertions = [
        Assertion { name: "none".into(), sql: "SELECT 1 WHERE false;".into() },
        Assertion {
            name: "tables".into(),
            sql: "SELECT 1 FROM pg_class HAVING count(*) < 3".into(),
        },
    ];
    let proof = verify(
        &request(&archive, &expected, &target.info, &newest, &assertions),
        archive.incoming(),
    )
    .await
    .unwrap_or_else(|error| panic!("{error} {:?}", error.hint()));
    target.drop().await;
    source.drop().await;
    proof
}

const ALL_PASSED: [(&str, Outcome); 7] = [
    ("load", Outcome::Passed),
    ("inventory", Outcome::Passed),
    ("row-counts", Outcome::Passed),
    ("sequences", Outcome::Passed),
    ("assertions", Outcome::Passed),
    ("content", Outcome::Passed),
    ("amcheck", Outcome::Passed),
];

#[tokio::test]
async fn an_honest_restore_of_odd_names_and_values_passes_every_check() {
    let proof = story("odd", ODD, 15, 15).await;
    assert_eq!(outcomes(&proof), ALL_PASSED, "{proof:#?}");
    let left_out: Vec<&str> = proof.left_out.iter().map(|left| &*left.entry.name).collect();
    assert_eq!(left_out, ["sub", "mv_foreign", "mv_over_mv", "mv_partition"]);
    assert!(check(&proof, "content").detail.starts_with("37 rows in 7 tables and 3 large objects"));
}

#[tokio::test]
async fn an_honest_restore_of_one_of_everything_passes_every_check() {
    let proof = story("nasty", NASTY, 15, 15).await;
    assert_eq!(outcomes(&proof), ALL_PASSED, "{proof:#?}");
}

#[tokio::test]
async fn a_restore_on_a_newer_major_passes_every_check() {
    for (name, sql) in [("odd", ODD), ("nasty", NASTY)] {
        let proof = story(&format!("{name} newer"), sql, 15, 17).await;
        assert_eq!(outcomes(&proof), ALL_PASSED, "{proof:#?}");
    }
}

#[tokio::test]
async fn a_restore_on_an_older_major_passes_every_check() {
    let proof = story("odd older", ODD, 17, 15).await;
    assert_eq!(outcomes(&proof), ALL_PASSED, "{proof:#?}");
}

#[tokio::test]
async fn a_database_in_another_encoding_passes_every_check() {
    let latin = "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";
    let sql = "CREATE TABLE \"Größe\" (\"Maß\" text); INSERT INTO \"Größe\" VALUES ('ä'), ('ß')";
    let proof = story_with("latin", sql, 15, 15, latin).await;
    assert_eq!(outcomes(&proof), ALL_PASSED, "{proof:#?}");
}

#[tokio::test]
async fn rows_that_land_in_other_partitions_are_compared_below_their_root() {
    // The hash of an enum value is that of its OID, which another database draws anew.
    let sql = "CREATE TYPE colour AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k'); \
               CREATE TABLE hashed (c colour, n int) PARTITION BY HASH (c); \
               CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0); \
               CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1); \
               INSERT INTO hashed SELECT c, n FROM unnest(enum_range(NULL::colour)) WITH ORDINALITY u(c, n)";
    for (from, to) in [(15, 15), (17, 17)] {
        let proof = story("hashed", sql, from, to).await;
        assert_eq!(outcomes(&proof), ALL_PASSED, "{proof:#?}");
        assert!(check(&proof, "content").detail.starts_with("11 rows in 1 tables"), "{proof:#?}");
    }
}

#[tokio::test]
async fn checking_a_copy_does_not_fire_its_event_triggers() {
    let sql = "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'no %', tg_tag; END $$; \
               CREATE EVENT TRIGGER no_more ON ddl_command_start EXECUTE FUNCTION no();";
    let proof = story("watchful", sql, 15, 15).await;
    assert_eq!(outcomes(&proof), ALL_PASSED, "{proof:#?}");
}

/// Changes in a restored copy, each with the table that must be named.
const CHANGES: [(&str, &str); 7] = [
    ("UPDATE customers SET ratio = ratio + 1e-16 WHERE id = 2", "customers"),
    ("UPDATE customers SET raw = '\\x00ff5c2f' WHERE id = 3", "customers"),
    ("UPDATE onetext SET t = E'\\\\..' WHERE t = E'\\\\.'", "onetext"),
    ("UPDATE parts_1 SET k = 3 WHERE k = 4", "parts_1"),
    ("DELETE FROM nocols WHERE ctid = '(0,1)'", "nocols"),
    (
        "UPDATE \"Odd \"\"Schema\"\"\".\"Tab, (le) ünïcode\" SET \"Ä(b)\" = \"a\"\"q\", \"a\"\"q\" = \"Ä(b)\" \
      WHERE \"z col\" = 1",
        "Tab, (le) ünïcode",
    ),
    ("SELECT lo_put(3000000000, 2999, '\\x21')", "large objects"),
];

#[tokio::test]
async fn content_that_differs_in_one_value_is_named() {
    let source = Database::create(15, "changed source").await;
    run(&source.info, ODD).await;
    let tools = programs(15);
    let (archive, expected) = dumped(&source.info, &tools).await;
    let target = Database::create(15, "changed target").await;
    let request = LoadRequest {
        directory: archive.directory.path(),
        target: &target.info,
        programs: &tools,
        jobs: 2,
        expected: &expected,
        only: None,
        roles: true,
        tablespaces: false,
        analyze: false,
        observer: &Silent,
    };
    let sums = Sums::new(ROW_KEY, BTreeSet::new());
    let loaded = load(&request, archive.incoming(), Some(sums)).await.expect("it loads");
    let sums = loaded.contents.sums.expect("they were asked for");
    assert_eq!(loaded.contents.summary, archive.summary);
    let compared = async |info: &ConnectionInfo| {
        let request = ContentRequest {
            archive: &archive.summary,
            sums: &sums,
            target: info,
            key: ROW_KEY,
            lc_monetary: &expected.database.lc_monetary,
            extension_tables: BTreeSet::new(),
            left_out: BTreeSet::new(),
            large_objects: true,
            sessions: 2,
        };
        content(request).await.expect("it is compared")
    };
    for (change, named) in CHANGES {
        let template = format!("TEMPLATE {}", quote_ident(target.info.database()));
        let changed = Database::create_with(15, "changed copy", &template).await;
        assert_eq!(compared(&changed.info).await.result, Outcome::Passed);
        // Published tables without a key take no UPDATE.
        run(&changed.info, "DROP PUBLICATION all_of_it").await;
        run(&changed.info, change).await;
        let check = compared(&changed.info).await;
        assert_eq!(check.result, Outcome::Failed, "{change}");
        assert!(check.detail.contains(named), "{change}: {}", check.detail);
        changed.drop().await;
    }
    target.drop().await;
    source.drop().await;
}

#[tokio::test]
async fn an_assertion_that_finds_a_row_fails_and_cannot_write() {
    let source = Database::create(15, "asserted source").await;
    run(&source.info, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)").await;
    let tools = programs(15);
    let (archive, expected) = dumped(&source.info, &tools).await;
    let target = Database::create(15, "asserted target").await;
    let assertions = [
        Assertion { name: "good".into(), sql: "SELECT 1 FROM t WHERE a <> 1".into() },
        Assertion { name: "bad".into(), sql: "SELECT 1 FROM t -- ends".into() },
        Assertion { name: "writes".into(), sql: "DELETE FROM t RETURNING a".into() },
        Assertion { name: "two".into(), sql: "SELECT 1 WHERE false; DROP TABLE t".into() },
        Assertion { name: "wrong".into(), sql: "SELEC".into() },
    ];
    let request = ProofRequest {
        depth: Depth::Counts,
        ..request(&archive, &expected, &target.info, &tools, &assertions)
    };
    let proof = verify(&request, archive.incoming()).await.expect("it is compared");
    let found = check(&proof, "assertions");
    assert_eq!(found.result, Outcome::Failed);
    assert!(found.detail.starts_with("4 of 5: `bad` does not hold; `writes` cannot"), "{found:?}");
    assert_eq!(check(&proof, "row-counts").result, Outcome::Passed);
    target.drop().await;
    source.drop().await;
}

#[tokio::test]
async fn an_archive_that_cannot_be_loaded_fails_the_check_named_load() {
    let source = Database::create(15, "unloadable source").await;
    run(&source.info, "CREATE TABLE t (a int)").await;
    let tools = programs(15);
    let (archive, expected) = dumped(&source.info, &tools).await;
    let target = Database::create(15, "unloadable target").await;
    run(&target.info, "CREATE TABLE t (b text)").await;
    let proof =
        verify(&request(&archive, &expected, &target.info, &tools, &[]), archive.incoming())
            .await
            .expect("a verdict");
    assert_eq!(outcomes(&proof), [("load", Outcome::Failed)]);
    assert!(proof.checks[0].detail.contains("already exists"), "{proof:?}");
    target.drop().await;
    source.drop().await;
}

#[tokio::test]
async fn an_archive_that_ends_early_is_damage_and_not_a_verdict() {
    let source = Database::create(15, "cut source").await;
    run(&source.info, "CREATE TABLE t AS SELECT n FROM generate_series(1, 9000) n").await;
    let tools = programs(15);
    let (mut archive, expected) = dumped(&source.info, &tools).await;
    let target = Database::create(15, "cut target").await;
    archive.bytes.truncate(archive.bytes.len() - 100);
    let error =
        verify(&request(&archive, &expected, &target.info, &tools, &[]), archive.incoming())
            .await
            .expect_err("rows are missing");
    assert!(matches!(&error, ProofError::Archive(_)), "{error}");
    assert_eq!(error.kind(), FailureKind::Damage);
    target.drop().await;
    source.drop().await;
}

#[tokio::test]
async fn rows_that_the_tables_do_not_take_fail_the_check_named_load() {
    let source = Database::create(15, "refused source").await;
    // A check that held when the rows came, and does not any more.
    run(
        &source.info,
        "CREATE FUNCTION small(n int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT n < 10'; \
         CREATE TABLE t (n int CHECK (small(n))); INSERT INTO t VALUES (5); \
         CREATE OR REPLACE FUNCTION small(n int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT n < 5'",
    )
    .await;
    let tools = programs(15);
    let (archive, expected) = dumped(&source.info, &tools).await;
    let target = Database::create(15, "refused target").await;
    let proof =
        verify(&request(&archive, &expected, &target.info, &tools, &[]), archive.incoming())
            .await
            .expect("a verdict");
    assert_eq!(outcomes(&proof), [("load", Outcome::Failed)]);
    let detail = &proof.checks[0].detail;
    assert!(detail.contains("public.t") && detail.contains("t_n_check"), "{detail}");
    target.drop().await;
    source.drop().await;
}

#[tokio::test]
async fn large_objects_and_one_large_table_go_in_through_several_sessions() {
    let sql = "CREATE TABLE big AS SELECT n, md5(n::text) AS word, repeat('x', 300) AS pad \
                 FROM generate_series(1, 30000) n; \
               CREATE TABLE wide AS SELECT repeat(md5(n::text), 60000) AS text FROM generate_series(1, 2) n; \
               SELECT lo_from_bytea(0, convert_to(repeat(md5(n::text), n), 'UTF8')) \
                 FROM unnest(ARRAY[0, 1, 50, 16384, 16385, 40000]) n; \
               CREATE TABLE till (amount money); INSERT INTO till VALUES ('$1,234.50')";
    let proof = story("sessions", sql, 15, 15).await;
    assert_eq!(outcomes(&proof), ALL_PASSED, "{proof:#?}");
    let detail = &check(&proof, "content").detail;
    assert!(detail.starts_with("30003 rows in 3 tables and 6 large objects"), "{detail}");
}

#[tokio::test]
async fn what_the_server_lacks_is_found_before_anything_is_created() {
    let source = Database::create(15, "lacking source").await;
    run(&source.info, "CREATE TABLE t (a int)").await;
    let tools = programs(15);
    let (archive, mut expected) = dumped(&source.info, &tools).await;
    expected.roles_needed = vec!["no such role".into()];
    let target = Database::create(15, "lacking target").await;
    let error =
        verify(&request(&archive, &expected, &target.info, &tools, &[]), archive.incoming())
            .await
            .expect_err("a role is missing");
    assert!(matches!(&error, ProofError::Missing(_)), "{error}");
    assert_eq!(error.to_string(), "the target server lacks role no such role");
    let session = Session::connect(&target.info, "test").await.expect("the target");
    let tables = session.client().query("SELECT 1 FROM pg_class WHERE relname = 't'", &[]).await;
    assert!(tables.expect("a query").is_empty());
    drop(session);
    target.drop().await;
    source.drop().await;
}

#[tokio::test]
async fn a_role_that_is_no_superuser_restores_what_it_can_and_names_the_rest() {
    let source = Database::create(15, "plain source").await;
    run(
        &source.info,
        "CREATE EXTENSION hstore; CREATE TABLE t (a int PRIMARY KEY, h hstore); \
         INSERT INTO t VALUES (1, 'a=>1'); CREATE PUBLICATION everything FOR ALL TABLES; \
         CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$; \
         CREATE EVENT TRIGGER evt ON ddl_command_end EXECUTE FUNCTION ev(); \
         COMMENT ON EVENT TRIGGER evt IS 'watches'",
    )
    .await;
    let tools = programs(15);
    let (archive, expected) = dumped(&source.info, &tools).await;
    let target = Database::create(15, "plain target").await;
    let role = format!("proof plain {}", std::process::id());
    let (quoted, database) = (quote_ident(&role), quote_ident(target.info.database()));
    run(&target.server, &format!("DROP ROLE IF EXISTS {quoted}")).await;
    run(&target.server, &format!("CREATE ROLE {quoted} LOGIN")).await;
    run(&target.server, &format!("ALTER DATABASE {database} OWNER TO {quoted}")).await;
    let as_role = target.info.with_options(&format!("-c role={}", role.replace(' ', "\\ ")));
    let proof =
        verify(&request(&archive, &expected, &as_role, &tools, &[]), archive.incoming()).await;
    let proof = proof.unwrap_or_else(|error| panic!("{error}"));
    let left_out: Vec<&str> = proof.left_out.iter().map(|left| &*left.entry.name).collect();
    assert_eq!(left_out, ["everything", "evt", "EVENT TRIGGER evt"], "{proof:#?}");
    for check in &proof.checks {
        let expected = if check.name == "amcheck" { Outcome::Skipped } else { Outcome::Passed };
        assert_eq!(check.result, expected, "{proof:#?}");
    }
    let server = target.server.clone();
    target.drop().await;
    run(&server, &format!("DROP ROLE {quoted}")).await;
    source.drop().await;
}
