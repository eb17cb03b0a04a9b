//! Disks that fill up and disks that turn read-only: what cannot be written fails with one clear line and a way
//! on, what was there stays, and nothing half-made is ever listed.

use std::path::Path;
use std::time::Duration;

use rustix::mount::MountFlags;
use serde_json::Value;

use crate::support::s3_server::{S3Place, S3Server};
use crate::support::{Database, Disk, Keeper, Server, eventually, with_own_mounts};

const NO_ROOM: &str = "No space left on device";

/// The command fails so, with a hint that holds `cure`.
#[track_caller]
fn fails(keeper: &Keeper, verb: &[&str], code: i32, words: &[&str], cure: &str) {
    let output = keeper.pgkeep(verb).args(["--json"]).run().expect_failure(code, words);
    let hint = output.error().expect("an error")["hint"].clone();
    assert!(hint.as_str().is_some_and(|hint| hint.contains(cure)), "{hint}");
}

/// Rows of about so many megabytes, which compression halves.
fn noise(database: &Database, megabytes: u32) {
    let rows = megabytes * 1_000_000 / 140;
    database.psql(&format!(
        "CREATE TABLE noise AS SELECT n, md5(n::text) || md5('a' || n) || md5('b' || n) || md5('c' || n) AS noise \
         FROM generate_series(1, {rows}) AS n"
    ));
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What was there before the repository could not be written is listed, shown, verified and restored; that the
/// verification leaves no record is told, with the store's exit code.
#[track_caller]
fn what_was_there_still_serves(keeper: &Keeper, database: &Database, id: &str, expected: &str) {
    assert_eq!(keeper.listed(), [id]);
    keeper.pgkeep(["show", id]).run().expect_code(0);
    let verified = keeper.pgkeep(["verify", "--check", "counts", "--json"]).run();
    let verified = verified.expect_failure(5, &["is not recorded"]);
    let report: Value = serde_json::from_str(verified.stdout.lines().next().expect("a report"))
        .expect("a document");
    assert_eq!((&report["result"], &report["recorded"]), (&"passed".into(), &false.into()));
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", id, "--as", &copy]).run().expect_code(0);
    assert_eq!(database.server.contents(&copy), expected);
}

#[test]
fn a_full_repository_fails_what_writes_and_serves_what_reads() {
    with_own_mounts("disks::a_full_repository_fails_what_writes_and_serves_what_reads", || {
        let database = Server::older().database("full");
        let keeper = Keeper::new(&database.shop(300).url());
        let disk = Disk::mount(&keeper.repository(), 32);
        keeper.pgkeep(["init"]).run().expect_code(0);
        let first = keeper.snapshot_id();
        let before = database.contents();
        noise(&database, 4);
        let repository = keeper.repository().display().to_string();
        let words = ["cannot write", &*repository, NO_ROOM];
        // It fills up midway, and is full from the start.
        disk.leave(1000);
        fails(&keeper, &["snapshot"], 5, &words, "free some space");
        disk.leave(0);
        fails(&keeper, &["snapshot"], 5, &words, "free some space");
        fails(&keeper, &["key", "rotate"], 5, &words, "free some space");
        // A pin is an empty object, and has room.
        keeper.pgkeep(["pin", "latest"]).run().expect_code(0);
        what_was_there_still_serves(&keeper, &database, &first, &before);

        disk.free();
        let second = keeper.snapshot_id();
        assert_eq!(keeper.listed(), [second, first]);
        keeper.verify(&["--all", "--check", "stored"]);
        keeper.pgkeep(["key", "rotate"]).run().expect_code(0);
    });
}

#[test]
fn what_init_began_on_full_disks_is_done_by_the_next() {
    with_own_mounts("disks::what_init_began_on_full_disks_is_done_by_the_next", || {
        let database = Server::older().database("initfull");
        let keeper = Keeper::new(&database.shop(10).url());
        let (repository, home) =
            (Disk::mount(&keeper.repository(), 8), Disk::mount(&keeper.home(), 1));
        home.leave(0);
        let place = keeper.home().display().to_string();
        fails(&keeper, &["init"], 2, &["cannot write", &place, NO_ROOM], "free some space");
        assert_eq!(names(&keeper.home()), [".ballast"]);
        assert_eq!(names(&keeper.repository()), [""; 0]);
        home.free();
        repository.leave(0);
        let place = keeper.repository().display().to_string();
        fails(&keeper, &["init"], 5, &["cannot write", &place, NO_ROOM], "free some space");
        repository.free();
        keeper.pgkeep(["init"]).run().expect_code(0);
        keeper.snapshot();
    });
}

#[test]
fn a_full_home_keeps_no_backup_from_being_taken_and_no_key_is_half_changed() {
    let name = "disks::a_full_home_keeps_no_backup_from_being_taken_and_no_key_is_half_changed";
    with_own_mounts(name, || {
        let database = Server::older().database("homefull");
        let keeper = Keeper::new(&database.shop(10).url());
        let home = Disk::mount(&keeper.home(), 1);
        keeper.pgkeep(["init"]).run().expect_code(0);
        home.leave(0);
        let id = keeper.snapshot_id();
        // How far it came cannot be noted; that costs nothing unless it is cut short.
        keeper.verify(&["--check", "stored"]);
        let held = names(&keeper.home());
        let place = keeper.home().display().to_string();
        fails(
            &keeper,
            &["key", "rotate"],
            2,
            &["cannot write", &place, NO_ROOM],
            "free some space",
        );
        assert_eq!(names(&keeper.home()), held);
        keeper.snapshot();
        home.free();
        keeper.pgkeep(["key", "rotate"]).run().expect_code(0);
        keeper.snapshot();
        keeper.verify(&[&id, "--check", "counts"]);
    });
}

#[test]
fn a_scratch_directory_without_room_is_refused_before_anything_is_made() {
    let name = "disks::a_scratch_directory_without_room_is_refused_before_anything_is_made";
    with_own_mounts(name, || {
        let database = Server::older().database("scratchless");
        database.shop(100);
        let local = Keeper::initialised(&database.url());
        let place = S3Place::of(S3Server::start());
        let remote = Keeper::in_bucket(&database.url(), &place, &place.endpoint);
        remote.pgkeep(["init"]).run().expect_code(0);
        for keeper in [local, remote] {
            keeper.snapshot();
            let disk = Disk::mount(&keeper.scratch(), 100);
            let scratch = keeper.scratch().display().to_string();
            let words = [&*scratch, "MiB free", "MiB are needed"];
            fails(&keeper, &["verify"], 4, &words, "scratch_dir");
            let old = keeper.work().join("old.sql");
            let text = "--
-- PostgreSQL database dump
--

SELECT 1;

--
-- PostgreSQL database dump complete
--
";
            std::fs::write(&old, text).expect("a dump");
            let import = ["import", "old.sql", "--database", "old"];
            fails(&keeper, &import, 4, &words, "scratch_dir");
            assert_eq!(keeper.leftovers(), [""; 0]);
            // A restore needs little of it, and not nothing.
            disk.leave(1000);
            let restore = ["restore", "latest", "--as", "never_made"];
            fails(&keeper, &restore, 4, &words, "scratch_dir");
            assert_eq!(database.server.databases_like("never_made"), [""; 0]);
            assert_eq!(keeper.list()[0]["verification"], Value::Null);
        }
    });
}

#[test]
fn a_server_without_room_for_a_copy_is_seen_before_anything_is_made() {
    let name = "disks::a_server_without_room_for_a_copy_is_seen_before_anything_is_made";
    with_own_mounts(name, || {
        let server = Server::newer();
        let database = server.database("crowded");
        let keeper = Keeper::initialised(&database.shop(100).url());
        keeper.pgkeep(["snapshot"]).run().expect_code(0);
        // As pgkeep sees it; the server itself goes on.
        let data = database.psql("SHOW data_directory");
        let disk = Disk::mount(Path::new(data.trim()), 100);
        let words = [data.trim(), "100 MiB free", "MiB are needed"];
        let restore = ["restore", "--as", "crowded_copy", "--yes"];
        keeper.pgkeep(restore).run().expect_failure(4, &words);
        let guarded = |flags: &[&str]| {
            let command = ["--", "touch", "ran"];
            keeper.pgkeep(["migrate", "--yes"]).args(flags).args(command).run()
        };
        // A copy would not fit, which keeps nobody from migrating unless the way back is a condition.
        let words = ["a rollback could not run from here", "100 MiB free"];
        guarded(&["--require-rollback"]).expect_failure(10, &words);
        assert!(!keeper.work().join("ran").exists());
        assert_eq!(keeper.list().len(), 1, "no snapshot was taken for it");
        let output = guarded(&[]).expect_code(0);
        assert!(words.iter().all(|words| output.stderr.contains(words)), "{}", output.stderr);
        assert!(keeper.work().join("ran").exists());
        drop(disk);
        let output = guarded(&["--require-rollback"]).expect_code(0);
        assert!(!output.stderr.contains(words[0]), "{}", output.stderr);
        assert!(!server.has_database("crowded_copy"));
    });
}

/// The estimate cannot know an index that is many times its table.
#[test]
fn a_scratch_directory_that_fills_up_midway_is_no_verdict_on_the_backup() {
    let name = "disks::a_scratch_directory_that_fills_up_midway_is_no_verdict_on_the_backup";
    with_own_mounts(name, || {
        let database = Server::older().database("bloat");
        database.psql(
            "CREATE TABLE thin AS SELECT n FROM generate_series(1, 400000) AS n; \
             CREATE INDEX ON thin (n) WITH (fillfactor = 10); \
             CREATE INDEX ON thin (n) WITH (fillfactor = 10)",
        );
        let keeper = Keeper::initialised(&database.url());
        keeper.snapshot();
        let disk = Disk::mount(&keeper.scratch(), 210);
        let told = keeper.pgkeep(["verify", "--check", "counts"]).run();
        let told = told.expect_failure(4, &["could not extend file"]);
        assert!(told.stderr.contains("scratch_dir"), "{}", told.stderr);
        assert_eq!(keeper.leftovers(), [""; 0]);
        assert_eq!(keeper.list()[0]["verification"], Value::Null, "nothing is known of the backup");
        let old = "--
-- PostgreSQL database dump
--

CREATE TABLE t AS SELECT n FROM generate_series(1, 9000000) AS n;

                   --
-- PostgreSQL database dump complete
--
";
        std::fs::write(keeper.work().join("old.sql"), old).expect("a dump");
        let import = ["import", "old.sql", "--database", "old"];
        let told = keeper.pgkeep(import).run().expect_failure(4, &["No space left on device"]);
        assert!(told.stderr.contains("scratch_dir"), "{}", told.stderr);
        assert_eq!(keeper.leftovers(), [""; 0]);
        drop(disk);
        keeper.verify(&["--check", "counts"]);
        assert_eq!(keeper.list()[0]["verification"], "passed");

        let small = Disk::mount(&keeper.work().join("small"), 1);
        let output = keeper.work().join("small/archive").display().to_string();
        for format in ["custom", "sql"] {
            let export = ["restore", "latest", "--output", &output, "--format", format];
            fails(&keeper, &export, 1, &["cannot write", &output, NO_ROOM], "free some space");
            assert_eq!(names(&keeper.work().join("small")), [""; 0]);
        }
        drop(small);
    });
}

#[test]
fn a_repository_that_turns_read_only_fails_what_writes_and_serves_what_reads() {
    let name = "disks::a_repository_that_turns_read_only_fails_what_writes_and_serves_what_reads";
    with_own_mounts(name, || {
        let database = Server::older().database("readonly");
        let keeper = Keeper::new(&database.shop(300).url());
        let disk = Disk::mount(&keeper.repository(), 64);
        keeper.pgkeep(["init"]).run().expect_code(0);
        let first = keeper.snapshot_id();
        let before = database.contents();
        noise(&database, 4);
        let repository = keeper.repository().display().to_string();
        let words = ["cannot write", &*repository, "Read-only file system"];

        // Midway: half of the dump is there, and the rest comes when the disk can no longer be written.
        let path = |name: &str| keeper.work().join(name);
        let (half, go_on) = (path("half"), path("go-on"));
        let body = format!(
            "$REAL \"$@\" | {{ head -c 2000000; touch {}; while [ ! -e {} ]; do sleep 0.05; done; cat; }}",
            half.display(),
            go_on.display()
        );
        let programs = keeper.programs_with_pg_dump(&database.server, &body);
        let running = keeper.pgkeep(["snapshot"]).env("PGKEEP_BIN_DIR", programs).spawn();
        eventually("half of it came", Duration::from_mins(1), || half.exists());
        disk.remount(MountFlags::RDONLY);
        std::fs::write(&go_on, "").expect("a file");
        let output = running.wait().expect_failure(5, &words);
        assert!(output.stderr.contains("remount it for writing"), "{}", output.stderr);
        // Before.
        for verb in [&["snapshot"][..], &["pin", "latest"], &["key", "rotate"]] {
            fails(&keeper, verb, 5, &words, "remount it for writing");
        }
        what_was_there_still_serves(&keeper, &database, &first, &before);
        keeper.verify(&["--check", "stored"]);

        disk.remount(MountFlags::empty());
        let second = keeper.snapshot_id();
        assert_eq!(keeper.listed(), [&*second, &*first]);

        // Damage is told where nothing can be written about it.
        for (_, path) in keeper.objects_under("chunks/") {
            let mut bytes = std::fs::read(&path).expect("a chunk");
            bytes[100] ^= 1;
            std::fs::write(&path, bytes).expect("written");
        }
        disk.remount(MountFlags::RDONLY);
        let found = keeper.pgkeep(["verify", "--check", "stored"]).run();
        let found = found.expect_failure(3, &["are damaged", "could not be condemned"]);
        assert!(found.stdout.contains(&format!("needed by {second}")), "{}", found.stdout);
        disk.remount(MountFlags::empty());
        assert_eq!(keeper.objects_under("condemned/").len(), 0);
        keeper.pgkeep(["verify", "--check", "stored"]).run().expect_failure(3, &["damaged"]);
        assert_eq!(keeper.objects_under("condemned/").len(), 1);
    });
}
