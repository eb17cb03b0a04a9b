//! The story pgkeep exists for: a snapshot is taken, proved, and brings back what was lost.

use serde_json::Value;

use crate::support::{Database, Keeper, Server};

/// Every check of a verification or restore passed (or says why it could not apply), and some did.
#[track_caller]
fn all_passed(document: &Value) {
    let checks = document["checks"].as_array().expect("checks");
    let result = |check: &Value| check["result"].as_str().expect("a result").to_owned();
    assert!(checks.iter().all(|check| result(check) != "failed"), "{document:#}");
    assert!(checks.iter().any(|check| result(check) == "passed"), "{document:#}");
}

/// init → snapshot → list → show → verify → the database is gone → restore → the same rows.
#[track_caller]
fn disaster_and_restore(database: &Database) {
    let keeper = Keeper::new(&database.url());
    keeper.pgkeep(["init"]).run().expect_code(0);
    let before = database.contents();

    let snapshot = keeper.snapshot();
    let id = snapshot["id"].as_str().expect("an id");
    assert_eq!(snapshot["database"], *database.name);
    assert_eq!(snapshot["kind"], "snapshot");
    assert_eq!(snapshot["trigger"], "manual");
    assert!(snapshot["source_bytes"].as_u64() > Some(0));
    assert_eq!(keeper.listed(), [id]);
    assert_eq!(keeper.list()[0]["verification"], Value::Null);
    let shown = keeper.pgkeep(["show", id, "--json"]).run().expect_code(0).json();
    assert_eq!(shown["id"], id);

    let verified = keeper.pgkeep(["verify", "--check", "full", "--json"]).run().expect_code(0);
    let verified = &verified.json_lines()[0];
    assert_eq!((&verified["id"], &verified["result"]), (&snapshot["id"], &"passed".into()));
    all_passed(verified);
    assert_eq!(keeper.list()[0]["verification"], "passed");
    assert!(keeper.list()[0]["verified_at"].is_string());

    database.drop_now();
    let restored = keeper.pgkeep(["restore", "latest", "--json"]).run().expect_code(0).json();
    assert_eq!(restored["database"], *database.name);
    all_passed(&restored);
    assert_eq!(database.contents(), before);
    assert_eq!(keeper.leftovers(), [""; 0]);
    assert_eq!(database.server.databases_like(&database.name), [&*database.name]);
}

#[test]
fn a_lost_database_of_the_older_major_comes_back() {
    let database = Server::older().database("lost");
    disaster_and_restore(database.shop(2000));
}

#[test]
fn a_lost_database_of_the_newer_major_comes_back() {
    let database = Server::newer().database("lost");
    disaster_and_restore(database.shop(2000));
}

/// Partitions, identity and generated columns, large objects, materialized views, extensions, row security,
/// event triggers, domains, composite and enum types, unlogged and foreign tables, circular foreign keys.
#[test]
fn one_of_everything_comes_back() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("nasty");
        let definition = database.nasty().definition();
        disaster_and_restore(&database);
        assert_eq!(database.definition(), definition);
    }
}

#[test]
fn one_of_everything_moves_to_the_newer_major() {
    let (older, newer) = (Server::older(), Server::newer());
    let source = older.database("nasty");
    // The roles, so that owners and grants find them.
    newer.database("roles").nasty();
    let keeper = Keeper::initialised(&source.nasty().url());
    keeper.snapshot();
    let target = newer.database("nasty");
    let copy = format!("{}_copy", target.name);
    let restore = ["restore", "latest", "--as", &copy, "--to", &newer.url("postgres"), "--json"];
    all_passed(&keeper.pgkeep(restore).run().expect_code(0).json());
    assert_eq!(newer.contents(&copy), source.contents());
}

#[test]
fn an_empty_database_comes_back() {
    disaster_and_restore(&Server::older().database("empty"));
}

#[test]
fn a_snapshot_of_the_older_major_is_restored_on_the_newer() {
    let (older, newer) = (Server::older(), Server::newer());
    let source = older.database("moves");
    let keeper = Keeper::initialised(&source.shop(1000).url());
    keeper.snapshot();
    let target = newer.database("moved");
    let name = format!("{}_copy", target.name);
    let restore = ["restore", "latest", "--as", &name, "--to", &newer.url("postgres"), "--json"];
    all_passed(&keeper.pgkeep(restore).run().expect_code(0).json());
    assert_eq!(newer.contents(&name), source.contents());
}

#[test]
fn an_unchanged_database_is_stored_once() {
    let database = Server::older().database("unchanged");
    let keeper = Keeper::initialised(&database.shop(20_000).url());
    let first = keeper.snapshot();
    let again = keeper.snapshot();
    let stored = |snapshot: &Value| snapshot["stored_bytes"].as_u64().expect("a size");
    assert!(stored(&first) > 0);
    // The archive's own header tells the time; the chunk that holds it is new.
    assert!(again["chunks_new"].as_u64() <= Some(2), "{again:#}");
    assert_eq!(again["source_bytes"], first["source_bytes"]);
    assert_eq!(keeper.listed().len(), 2);
}

#[test]
fn one_failing_database_does_not_stop_the_others() {
    let server = Server::older();
    let (one, two) = (server.database("one"), server.database("two"));
    one.shop(10);
    two.shop(20);
    let keeper = Keeper::initialised(&server.url("postgres"));
    let names = [&*one.name, "no_such_database", &*two.name];
    let output = keeper.pgkeep(["snapshot", "--json"]).args(names).run().expect_code(4);
    let lines = output.json_lines();
    let done: Vec<_> = lines.iter().filter_map(|line| line["database"].as_str()).collect();
    assert!(done.contains(&&*one.name) && done.contains(&&*two.name), "{lines:#?}");
    assert!(lines.iter().any(|line| line["error"]["exit_code"] == 4), "{lines:#?}");
    assert_eq!(keeper.listed().len(), 2);
}

#[test]
fn a_copy_beside_the_live_database_leaves_it_alone() {
    let database = Server::newer().database("beside");
    let keeper = Keeper::initialised(&database.shop(100).url());
    keeper.snapshot();
    let before = database.contents();
    database.psql("DELETE FROM orders WHERE id < 50");
    let after = database.contents();
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", "--as", &copy]).run().expect_code(0);
    assert_eq!(database.server.contents(&copy), before);
    assert_eq!(database.contents(), after);
}

#[test]
fn the_archive_comes_out_as_pg_restore_and_psql_read_it() {
    let database = Server::older().database("out");
    let server = &database.server;
    let keeper = Keeper::initialised(&database.shop(300).url());
    keeper.snapshot();
    let file = keeper.work().join("out.dump");
    let output =
        ["restore", "latest", "--output", file.to_str().expect("plain"), "--format", "custom"];
    keeper.pgkeep(output).run().expect_code(0);
    let copy = format!("{}_copy", database.name);
    server.psql("postgres", &format!("CREATE DATABASE {copy}"));
    let status = server.program("pg_restore", &copy).args(["-e", "-d", &copy]).arg(&file).status();
    assert!(status.expect("pg_restore runs").success());
    assert_eq!(server.contents(&copy), database.contents());

    let sql = keeper.pgkeep(["restore", "latest", "--output", "-", "--format", "sql"]).run();
    let again = format!("{}_again", database.name);
    server.psql("postgres", &format!("CREATE DATABASE {again}"));
    server.psql(&again, &sql.expect_code(0).stdout);
    assert_eq!(server.contents(&again), database.contents());
}

#[test]
fn a_bare_host_with_the_recovery_kit_alone_restores() {
    let database = Server::older().database("bare");
    let keeper = Keeper::initialised(&database.shop(200).url());
    keeper.snapshot();
    let before = database.contents();
    database.drop_now();

    let mut bare = Keeper::new(&database.url());
    let kit = bare.work().join("kit");
    std::fs::copy(keeper.recovery_kit(), &kit).expect("the kit can be copied");
    bare.set("PGKEEP_REPOSITORY", keeper.repository_url()).set("PGKEEP_IDENTITY_FILE", &kit);
    assert_eq!(bare.listed(), keeper.listed());
    bare.pgkeep(["restore", "latest"]).run().expect_code(0);
    assert_eq!(database.contents(), before);
}

#[test]
fn the_backup_host_cannot_read_its_own_backups() {
    let database = Server::older().database("writer");
    let keeper = Keeper::initialised(&database.shop(20).url());
    let away = keeper.work().join("kit-elsewhere");
    let kit = keeper.recovery_kit();
    std::fs::rename(&kit, &away).expect("the kit can leave");
    let id = keeper.snapshot_id();
    assert_eq!(keeper.listed(), [&*id]);
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", &id, "--as", &copy]).run().expect_failure(7, &["identity"]);
    keeper.pgkeep(["verify", &id]).run().expect_failure(7, &["identity"]);
    assert!(!database.server.has_database(&copy));
    let identity = std::fs::read_to_string(&away).expect("the kit");
    keeper
        .pgkeep(["restore", &id, "--as", &copy])
        .env("PGKEEP_IDENTITY", identity)
        .run()
        .expect_code(0);
}

#[test]
fn a_backup_is_found_by_prefix_by_age_and_by_trigger() {
    let database = Server::older().database("names");
    let keeper = Keeper::initialised(&database.shop(10).url());
    let first = keeper.snapshot_id();
    let guarded = ["snapshot", "--trigger", "pre-migration", "--label", "ticket=7", "--json"];
    let second = keeper.pgkeep(guarded).run().expect_code(0).json();
    assert_eq!(second["trigger"], "pre-migration");
    assert_eq!(second["labels"]["ticket"], "7");
    let third = keeper.snapshot_id();
    let id_of = |name: &str| {
        let shown = keeper.pgkeep(["show", name, "--json"]).run().expect_code(0).json();
        shown["id"].as_str().expect("an id").to_owned()
    };
    assert_eq!(id_of(&first), first);
    assert_eq!(id_of("latest"), third);
    assert_eq!(id_of("latest~2"), first);
    assert_eq!(id_of("latest:pre-migration"), second["id"].as_str().expect("an id"));
    keeper.pgkeep(["show", "20"]).run().expect_failure(2, &[]);
    keeper.pgkeep(["show", "19990101T"]).run().expect_failure(8, &["19990101T"]);
    keeper.pgkeep(["show", "latest~9"]).run().expect_failure(8, &[]);
    keeper.pgkeep(["show", "newest"]).run().expect_failure(2, &["newest"]);
}

#[test]
fn a_pinned_backup_is_shown_as_such() {
    let database = Server::older().database("pinned");
    let keeper = Keeper::initialised(&database.shop(10).url());
    let id = keeper.snapshot_id();
    assert_eq!(keeper.list()[0]["pinned"], false);
    keeper.pgkeep(["pin", &id]).run().expect_code(0);
    assert_eq!(keeper.list()[0]["pinned"], true);
    keeper.pgkeep(["unpin", &id]).run().expect_code(0);
    assert_eq!(keeper.list()[0]["pinned"], false);
    keeper.pgkeep(["snapshot", "--pin"]).run().expect_code(0);
    assert_eq!(keeper.list().iter().filter(|item| item["pinned"] == true).count(), 1);
}

#[test]
fn init_is_safe_to_run_again() {
    let database = Server::older().database("again");
    let keeper = Keeper::initialised(&database.shop(10).url());
    let before = keeper.objects();
    let kit = std::fs::read(keeper.recovery_kit()).expect("the kit");
    keeper.snapshot();
    keeper.pgkeep(["init"]).run().expect_code(0);
    assert_eq!(std::fs::read(keeper.recovery_kit()).expect("the kit"), kit);
    assert!(keeper.objects().len() > before.len());
    keeper.verify(&["--check", "counts"]);
}

#[test]
fn secrets_lie_in_files_that_others_cannot_read() {
    use std::os::unix::fs::PermissionsExt;
    let database = Server::older().database("modes");
    let keeper = Keeper::initialised(&database.shop(10).url());
    keeper.snapshot();
    let mode = |path: &std::path::Path| path.metadata().expect("it is there").permissions().mode();
    for entry in std::fs::read_dir(keeper.home()).expect("the home").flatten() {
        if entry.path().is_file() {
            assert_eq!(mode(&entry.path()) & 0o077, 0, "{:?}", entry.path());
        }
    }
    for (key, path) in keeper.objects() {
        assert_eq!(mode(&path) & 0o777, 0o600, "{key}");
    }
    let chunks = keeper.objects_under("chunks/");
    assert!(!chunks.is_empty());
    for (key, path) in chunks {
        let bytes = std::fs::read(path).expect("a chunk");
        assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{key} is no age file");
    }
}

/// As root a scratch server has an account of its own, which must be able to pass.
#[test]
fn a_strict_umask_hinders_no_verification() {
    let database = Server::newer().database("umask");
    let mut keeper = Keeper::initialised(&database.shop(10).url());
    keeper.snapshot();
    let scratch = keeper.scratch();
    keeper.set("PGKEEP__CLUSTERS__MAIN__VERIFY__SCRATCH", scratch);
    let program = env!("CARGO_BIN_EXE_pgkeep");
    let verify = format!("umask 077; exec '{program}' verify --check counts");
    keeper.shell(&verify).run().expect_code(0);
    assert_eq!(keeper.list()[0]["verification"], "passed");
    assert_eq!(keeper.leftovers(), [""; 0]);
}
