//! Old dumps become snapshots: whatever their format, whole or not at all, and nothing else is disturbed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::server::{quoted, run_with_input};
use crate::support::{Database, Keeper, Server, eventually};

/// A dump of `database`, made by its own server's `pg_dump`, in the keeper's directory.
#[track_caller]
fn dump(keeper: &Keeper, database: &Database, name: &str, words: &[&str]) -> PathBuf {
    let file = keeper.work().join(name);
    let mut pg_dump = database.server.program("pg_dump", &database.name);
    pg_dump.args(words).arg("--file").arg(&file);
    let (code, _, stderr) = run_with_input(pg_dump, b"");
    assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&stderr));
    file
}

fn word(path: &Path) -> &str {
    path.to_str().expect("plain")
}

/// An import that must succeed; its document.
#[track_caller]
fn imported(keeper: &Keeper, file: &Path, name: &str) -> Value {
    let words = ["import", word(file), "--database", name, "--json"];
    let document = keeper.pgkeep(words).without("PGKEEP_DATABASE_URL").run().expect_code(0).json();
    assert_eq!((&document["trigger"], &document["database"]), (&"imported".into(), &name.into()));
    assert_eq!(keeper.leftovers(), [""; 0]);
    document
}

/// An import that must fail so, with nothing listed and nothing left.
#[track_caller]
fn refused(keeper: &Keeper, file: &Path, code: i32, words: &[&str]) {
    for json in [&[][..], &["--json"]] {
        let line = ["import", word(file), "--database", "shop"];
        keeper.pgkeep(line).args(json).run().expect_failure(code, words);
    }
    assert_eq!(keeper.listed(), [""; 0]);
    assert_eq!(keeper.leftovers(), [""; 0]);
}

/// Writes `bytes` as a file of the test's own.
fn file(keeper: &Keeper, name: &str, bytes: &[u8]) -> PathBuf {
    let path = keeper.work().join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// The imported snapshot `id` passes, and brings back what `source` holds.
#[track_caller]
fn brings_back(keeper: &Keeper, id: &Value, source: &Database) {
    keeper.verify(&[id.as_str().expect("an id")]);
    restores(keeper, id, source);
}

/// The imported snapshot `id` brings back what `source` holds.
#[track_caller]
fn restores(keeper: &Keeper, id: &Value, source: &Database) {
    let id = id.as_str().expect("an id");
    let copy = format!("{}_copy", source.name);
    let to = source.server.url("postgres");
    keeper.pgkeep(["restore", id, "--as", &copy, "--to", &to]).run().expect_code(0);
    assert_eq!(source.server.contents(&copy), source.contents());
    source.server.psql("postgres", &format!("DROP DATABASE {}", quoted(&copy)));
}

#[track_caller]
fn every_format_comes_back(server: &Server, packed: &[&str]) {
    let source = server.database("Nästy");
    let mut keeper = Keeper::initialised(&source.nasty().url());
    keeper.unset("PGKEEP_DATABASE_URL");
    let plain = dump(&keeper, &source, "made.sql", &["--create", "--verbose"]);
    let bare = dump(&keeper, &source, "bare", &["--format=plain"]);
    let rows = dump(&keeper, &source, "rows.txt", &["--column-inserts", "--rows-per-insert=100"]);
    let custom = dump(&keeper, &source, "custom", &["--format=custom"]);
    let tar = dump(&keeper, &source, "tar.sql", &["--format=tar"]);
    let directory = dump(&keeper, &source, "directory", &["--format=directory", "--jobs=2"]);
    let flat = dump(&keeper, &source, "flat", &["--format=directory", "--compress=0"]);
    let pack = "gzip -k made.sql custom tar.sql && zstd -q bare && cat bare.zst >bare.gz && gzip <bare >two.gz";
    keeper.shell(pack).run().expect_code(0);
    let packed = packed.iter().map(|name| keeper.work().join(name));
    let all = [plain, bare, rows, custom, tar, directory, flat].into_iter().chain(packed);
    for (place, file) in all.enumerate() {
        let document = imported(&keeper, &file, "shop");
        let labels = &document["labels"];
        let name = file.file_name().expect("a name").to_str().expect("plain");
        assert_eq!(labels["file"], name);
        let version = labels["server"].as_str().expect("a version");
        assert!(version.starts_with(&server.major.to_string()), "{name}: {labels}");
        assert!(
            labels["dumped"].is_string() || labels["file_time"].is_string(),
            "{name}: {labels}"
        );
        // That a verification passes too is the same for all, and takes as long again: a plain one and an archive.
        match place {
            0 | 3 => brings_back(&keeper, &document["id"], &source),
            _ => restores(&keeper, &document["id"], &source),
        }
    }
    // What a dump tells of its database is kept.
    let shown = |file: &str| {
        let document = imported(&keeper, &keeper.work().join(file), "shop");
        let id = document["id"].as_str().expect("an id").to_owned();
        keeper.pgkeep(["show", &id, "--json"]).run().expect_code(0).json()["inventory"].clone()
    };
    for file in ["made.sql", "custom"] {
        let inventory = shown(file);
        let settings = inventory["database"]["settings"].to_string();
        assert!(settings.contains("5min") && settings.contains("nasty_reader"), "{settings}");
        assert_eq!(inventory["database"]["collate"], "C.UTF-8");
        assert_eq!(inventory["database"]["name"], "shop");
        assert_eq!(inventory["settings"], serde_json::json!({}));
    }
    keeper.pgkeep(["verify", "latest"]).run().expect_code(0);
}

#[test]
fn every_format_of_the_older_major_comes_back() {
    let packed = ["made.sql.gz", "custom.gz", "tar.sql.gz", "bare.zst", "bare.gz", "two.gz"];
    every_format_comes_back(&Server::older(), &packed);
}

#[test]
fn every_format_of_the_newer_major_comes_back() {
    // What is around a dump is the same for every major.
    every_format_comes_back(&Server::newer(), &["bare.gz"]);
}

#[test]
fn a_dump_comes_in_through_a_pipe() {
    let source = Server::older().database("pipe");
    let keeper = Keeper::initialised(&source.shop(50).url());
    dump(&keeper, &source, "shop.dump", &["--format=custom"]);
    let pgkeep = env!("CARGO_BIN_EXE_pgkeep");
    let line = format!(
        "gzip <shop.dump | {pgkeep} import - --database shop --label from=pipe --pin --json"
    );
    let document = keeper.shell(&line).run().expect_code(0).json();
    assert_eq!(
        (&document["labels"]["from"], &document["labels"]["file"]),
        (&"pipe".into(), &"stdin".into())
    );
    assert_eq!(keeper.list()[0]["pinned"], true);
    brings_back(&keeper, &document["id"], &source);
}

#[test]
fn roles_that_this_host_never_saw_are_made_for_the_load() {
    let server = Server::older();
    let source = server.database("roles");
    let keeper = Keeper::initialised(&source.shop(10).url());
    let (owner, reader) = (server.role("Old Owner", "x"), server.role("reader", "x"));
    source.psql(&format!(
        "ALTER TABLE orders OWNER TO {}; GRANT SELECT ON customers TO {}; \
         ALTER DEFAULT PRIVILEGES FOR ROLE {0} GRANT SELECT ON TABLES TO {1}; \
         CREATE POLICY p ON customers FOR SELECT TO {1}; CREATE SCHEMA s AUTHORIZATION {0}",
        quoted(&owner.name),
        quoted(&reader.name)
    ));
    for (name, words) in [("r.sql", &[][..]), ("r.dump", &["--format=custom"])] {
        let document = imported(&keeper, &dump(&keeper, &source, name, words), "shop");
        brings_back(&keeper, &document["id"], &source);
    }
}

#[test]
fn imports_leave_latest_suspicion_and_servers_as_they_were() {
    let database = Server::older().database("shop");
    let keeper = Keeper::initialised(&database.shop(2000).url());
    let old = dump(&keeper, &database, "old.sql", &[]);
    // The first thing in a repository may be an import: the live server that comes next is no stranger.
    let first = imported(&keeper, &old, &database.name);
    let live = keeper.snapshot();
    assert_eq!((&first["foreign"], &live["foreign"]), (&false.into(), &false.into()));
    for _ in 0..4 {
        imported(&keeper, &old, &database.name);
    }
    let id_of = |name: &str| {
        let output = keeper.pgkeep(["show", name, "--json"]).run().expect_code(0);
        output.json()["id"].as_str().expect("an id").to_owned()
    };
    assert_eq!(id_of("latest"), live["id"]);
    assert_eq!(id_of("latest:imported"), keeper.listed()[0]);
    let verified = keeper.pgkeep(["verify", "--json"]).run().expect_code(0);
    assert_eq!(verified.json_lines()[0]["id"], live["id"]);
    assert!(verified.stderr.contains("latest:imported"), "{}", verified.stderr);
    // A fall of the live rows is seen behind any number of imports, and what is stored is known.
    database.psql("DELETE FROM orders");
    let fallen = keeper.snapshot();
    assert!(fallen["suspect"].is_string(), "{fallen:#}");
    let few = dump(&keeper, &database, "few.sql", &[]);
    assert_eq!(imported(&keeper, &few, &database.name)["suspect"], Value::Null);
}

#[test]
fn several_files_are_several_snapshots_in_order_and_one_bad_one_stops_none() {
    let source = Server::older().database("several");
    let keeper = Keeper::initialised(&source.shop(10).url());
    dump(&keeper, &source, "1.sql", &[]);
    source.psql("DELETE FROM orders WHERE id > 5");
    dump(&keeper, &source, "3.dump", &["--format=custom"]);
    file(&keeper, "2.sql", b"hello");
    let words =
        ["import", "1.sql", "2.sql", "missing.sql", "3.dump", "--database", "shop", "--json"];
    let lines = keeper.pgkeep(words).run().expect_code(2).json_lines();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert_eq!(
        (&lines[0]["labels"]["file"], &lines[3]["labels"]["file"]),
        (&"1.sql".into(), &"3.dump".into())
    );
    assert_eq!((&lines[1]["file"], &lines[2]["file"]), (&"2.sql".into(), &"missing.sql".into()));
    assert_eq!(
        (&lines[1]["error"]["exit_code"], &lines[2]["error"]["exit_code"]),
        (&2.into(), &2.into())
    );
    let shown = keeper.pgkeep(["show", "latest", "--json"]).run().expect_code(0).json();
    assert_eq!(shown["id"], lines[3]["id"]);
    assert_eq!(keeper.listed().len(), 2);
}

#[test]
fn dumps_that_were_cut_are_refused() {
    let source = Server::newer().database("cut");
    let keeper = Keeper::initialised(&source.shop(3000).url());
    for (name, words) in [
        ("cut.sql", &[][..]),
        ("cut.dump", &["--format=custom"]),
        ("cut.z0", &["--format=custom", "--compress=0"]),
        ("cut.tar", &["--format=tar"]),
    ] {
        let whole = std::fs::read(dump(&keeper, &source, name, words)).expect("a dump");
        for part in [whole.len() / 2, whole.len() * 9 / 10, whole.len() - 1500] {
            refused(&keeper, &file(&keeper, name, &whole[..part]), 3, &[name]);
        }
        let cut = file(&keeper, name, &whole);
        for (packer, packed) in [("gzip -c", "p.gz"), ("zstd -qc", "p.zst")] {
            keeper.shell(&format!("{packer} {} >{packed}", word(&cut))).run().expect_code(0);
            let whole = std::fs::read(keeper.work().join(packed)).expect("a file");
            refused(
                &keeper,
                &file(&keeper, packed, &whole[..whole.len() * 2 / 3]),
                3,
                &[packed, "cut off"],
            );
        }
    }
    let directory = dump(&keeper, &source, "directory", &["--format=directory", "--compress=0"]);
    let rows =
        std::fs::read_dir(&directory).expect("a directory").flatten().map(|entry| entry.path());
    let largest = rows.max_by_key(|path| path.metadata().expect("a file").len()).expect("rows");
    let whole = std::fs::read(&largest).expect("rows");
    // At a line's end, where nothing else would tell.
    let half =
        whole[..whole.len() / 2].iter().rposition(|byte| *byte == b'\n').expect("a line") + 1;
    std::fs::write(&largest, &whole[..half]).expect("a file");
    refused(&keeper, &directory, 3, &["cut off"]);
    std::fs::remove_file(&largest).expect("the file");
    refused(&keeper, &directory, 3, &["directory"]);
    refused(&keeper, &directory.join("toc.dat"), 2, &["toc.dat", "a directory"]);
}

#[test]
fn what_is_no_dump_is_told_by_name() {
    let keeper = Keeper::initialised("postgresql://127.0.0.1:1/x");
    refused(&keeper, Path::new("missing.sql"), 2, &["missing.sql"]);
    for (name, bytes, code, words) in [
        ("empty", &b""[..], 3, "empty"),
        ("text", b"CREATE TABLE t (a int);\n", 2, "no dump"),
        ("mysql.sql", b"-- MySQL dump 10.13  Distrib 8.0.36\n--\n", 2, "MySQL"),
        ("secret.age", b"age-encryption.org/v1\n-> X25519 x\n", 2, "encrypted (age)"),
        (
            "all.sql",
            b"--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE x;\n",
            2,
            "pg_dumpall",
        ),
        ("x.xz", b"\xfd7zXZ\0\0", 2, "xz"),
        ("half.sql", b"--\n-- PostgreSQL database dump\n--\n\nSELECT 1;\n", 3, "not whole"),
        ("magic", b"PGDMP\x01\x0f", 3, "header"),
        ("secret.pgp", b"-----BEGIN PGP MESSAGE-----\n", 2, "encrypted (PGP)"),
        ("wide.sql", b"\xff\xfe-\0-\0", 2, "UTF-16"),
        ("toc.dat", b"PGDMP\x01\x0f\x00\x04\x08\x05", 3, "header"),
    ] {
        refused(&keeper, &file(&keeper, name, bytes), code, &[name, words]);
    }
    keeper.shell("touch some; tar cf some.tar some").run().expect_code(0);
    refused(&keeper, &keeper.work().join("some.tar"), 2, &["some.tar", "tar archive"]);
    let directory = keeper.work().join("empty-directory");
    std::fs::create_dir(&directory).expect("a directory");
    refused(&keeper, &directory, 2, &["empty-directory"]);
    if !rustix::process::geteuid().is_root() {
        let closed = file(&keeper, "closed.sql", b"x");
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).expect("a mode");
        refused(&keeper, &closed, 2, &["closed.sql"]);
    }
    let good = file(&keeper, "good.sql", b"x");
    keeper.pgkeep(["import", word(&good)]).run().expect_failure(2, &["database"]);
    for name in ["", "template1", "a\nb", &"x".repeat(64)] {
        keeper
            .pgkeep(["import", word(&good), "--database", name])
            .run()
            .expect_failure(2, &["name"]);
    }
    keeper.pgkeep(["import", "--database", "x"]).run().expect_failure(2, &["FILE"]);
}

#[test]
fn a_statement_of_an_archive_that_fails_ends_the_import() {
    let source = Server::older().database("archive");
    // What a dump brings back under an empty search_path finds no table of that name.
    source.psql(
        "CREATE TABLE known (a int); INSERT INTO known VALUES (1); \
         CREATE FUNCTION is_known(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM known WHERE a = $1)'; \
         CREATE TABLE uses (a int CHECK (is_known(a))); INSERT INTO uses VALUES (1); \
         CREATE TABLE zebra (a int)",
    );
    let keeper = Keeper::initialised(&source.url());
    for (name, words) in [
        ("f.dump", &["--format=custom"][..]),
        ("f.tar", &["--format=tar"]),
        ("f.dir", &["--format=directory"]),
        ("f.sql", &[]),
    ] {
        refused(&keeper, &dump(&keeper, &source, name, words), 4, &[name, "known"]);
    }
}

#[test]
fn keys_that_cannot_write_are_told_before_anything_is_loaded() {
    let keeper = Keeper::initialised("postgresql://127.0.0.1:1/x");
    // It would take ten minutes.
    let file = file(&keeper, "long.sql", &plain("SELECT pg_sleep(600);"));
    std::fs::remove_file(keeper.home().join("writer.key")).expect("a writer key");
    let line = ["import", word(&file), "--database", "shop"];
    keeper.pgkeep(line).run().expect_failure(7, &["key"]);
    assert_eq!(keeper.leftovers(), [""; 0]);
}

#[test]
fn a_scratch_server_that_goes_away_is_no_fault_of_the_dump() {
    let keeper = Keeper::initialised("postgresql://127.0.0.1:1/x");
    let body = "CREATE TABLE t (a text);\n\
                COPY t FROM PROGRAM 'kill -QUIT $(head -n 1 postmaster.pid); sleep 60';";
    let file = file(&keeper, "kills.sql", &plain(body));
    refused(&keeper, &file, 4, &["the scratch cluster failed"]);
}

#[test]
fn what_a_dump_says_and_this_host_lacks_is_told() {
    let keeper = Keeper::initialised("postgresql://127.0.0.1:1/x");
    let body = "SET client_encoding = 'UTF8';\n\
                CREATE DATABASE gone WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc \
                LOCALE = 'tlh_QO.UTF-8';\n\n\\connect gone\n\n\
                SET default_tablespace = 'fast';\nCREATE TABLE t (price money);";
    let line = ["import", "odd.sql", "--database", "shop", "--json"];
    file(&keeper, "odd.sql", &plain(body));
    let output = keeper.pgkeep(line).run().expect_code(0);
    for words in ["tlh_QO.UTF-8", "locale C", "tablespaces", "money"] {
        assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
    }
    let id = output.json()["id"].as_str().expect("an id").to_owned();
    let shown = keeper.pgkeep(["show", &id, "--json"]).run().expect_code(0).json();
    assert_eq!(shown["inventory"]["database"]["collate"], "C");
}

/// A plain dump around `body`.
fn plain(body: &str) -> Vec<u8> {
    format!(
        "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.4\n\n{body}\n\n\
         --\n-- PostgreSQL database dump complete\n--\n\n"
    )
    .into_bytes()
}

#[test]
fn a_statement_that_fails_is_told_with_its_line() {
    let keeper = Keeper::initialised("postgresql://127.0.0.1:1/x");
    let body =
        "CREATE TABLE t (a int);\nREFRESH MATERIALIZED\nVIEW nowhere;\nSELECT broken;\nSELECT 1;";
    let bad = file(&keeper, "bad.sql", &plain(body));
    refused(&keeper, &bad, 4, &["bad.sql", "line 10", "broken"]);
    let body = "COPY t FROM stdin;\n1\n\\.\n";
    refused(&keeper, &file(&keeper, "copy.sql", &plain(body)), 4, &["line 7", "\"t\""]);
    let body = "CREATE EXTENSION no_such_thing;\nCREATE EXTENSION IF NOT EXISTS nor_this WITH SCHEMA public;";
    refused(&keeper, &file(&keeper, "ext.sql", &plain(body)), 4, &["no_such_thing", "nor_this"]);
}

#[test]
fn commands_of_psql_are_never_run() {
    let keeper = Keeper::initialised("postgresql://127.0.0.1:1/x");
    for (name, body) in [
        ("bang", "\\! touch RAN"),
        ("copy", "SELECT 1 \\g | touch RAN"),
        ("hidden", "SELECT (COPY t FROM stdin;\n\\! touch RAN\n\\.\n"),
        ("include", "\\i /etc/passwd"),
    ] {
        let ran = keeper.work().join(name);
        let body = body.replace("RAN", word(&ran));
        refused(&keeper, &file(&keeper, "x.sql", &plain(&body)), 2, &["x.sql", "psql command"]);
        assert!(!ran.exists(), "{name}");
    }
    let two = plain("\\connect one\nSELECT 1;\n\\connect two");
    refused(&keeper, &file(&keeper, "two.sql", &two), 2, &["two", "whole server"]);
}

#[test]
fn what_a_dump_runs_finds_no_key_of_ours() {
    let mut keeper = Keeper::initialised("postgresql://127.0.0.1:1/x");
    keeper.set("AWS_SECRET_ACCESS_KEY", "certainly-secret").set("PGKEEP_SCRATCH_NOTE", "");
    keeper.unset("PGKEEP_SCRATCH_NOTE");
    // What runs in the server; psql's own environment is the same by the same means.
    let body = "CREATE TABLE told (line text);\nCOPY told FROM PROGRAM 'env';\n\
                DO $$ BEGIN IF EXISTS (SELECT FROM told WHERE line LIKE '%certainly-secret%' OR line LIKE 'PGKEEP%') \
                THEN RAISE 'a key was found'; END IF; END $$;";
    let file = file(&keeper, "env.sql", &plain(body));
    keeper.pgkeep(["import", word(&file), "--database", "shop"]).run().expect_code(0);
}

#[test]
fn the_program_that_runs_a_dump_finds_no_key_of_ours() {
    let server = Server::older();
    let mut keeper = Keeper::initialised("postgresql://127.0.0.1:1/x");
    let programs = keeper.programs_with_pg_dump(&server, "exec $REAL \"$@\"");
    let told = keeper.work().join("told");
    std::fs::create_dir(&told).expect("a directory");
    std::fs::set_permissions(&told, PermissionsExt::from_mode(0o777)).expect("a mode");
    let psql = programs.join("psql");
    std::fs::remove_file(&psql).expect("the link");
    let script = format!(
        "#!/bin/sh\ncase $1 in --version|-V) ;; *) env >{0}/env; id -u >{0}/uid ;; esac\nexec {1}/psql \"$@\"\n",
        told.display(),
        server.bin.display()
    );
    std::fs::write(&psql, script).expect("a script");
    std::fs::set_permissions(&psql, PermissionsExt::from_mode(0o755)).expect("a mode");
    keeper
        .set("PGKEEP_BIN_DIR", &programs)
        .set("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    keeper.set("AWS_SECRET_ACCESS_KEY", "certainly-secret");
    let file = file(&keeper, "any.sql", &plain("SELECT 1;"));
    keeper.pgkeep(["import", word(&file), "--database", "shop"]).run().expect_code(0);
    let environment = std::fs::read_to_string(told.join("env")).expect("it ran");
    assert!(!environment.contains("certainly-secret"), "{environment}");
    assert!(!environment.contains("PGKEEP_"), "{environment}");
    let uid = std::fs::read_to_string(told.join("uid")).expect("it ran");
    assert_ne!(uid.trim(), "0", "a dump never works as root");
}

#[test]
fn a_dump_of_a_newer_major_names_it() {
    let source = Server::newer().database("newer");
    let mut keeper = Keeper::initialised(&source.shop(10).url());
    let files = [
        dump(&keeper, &source, "n.dump", &["--format=custom"]),
        dump(&keeper, &source, "n.sql", &[]),
    ];
    let (older, newer) = (Server::older().bin, Server::newer().major);
    keeper.set("PGKEEP_BIN_DIR", &older).set("PATH", format!("{}:/usr/bin:/bin", older.display()));
    if Path::new(&format!("/usr/lib/postgresql/{newer}")).exists() {
        // The distribution has its programs; then they are found and used, which is right.
        return drop(imported(&keeper, &files[0], "shop"));
    }
    for file in files {
        refused(&keeper, &file, 4, &[&format!("older than {newer}")]);
    }
}

#[test]
fn an_interrupted_import_leaves_nothing_and_a_killed_one_is_cleared_away() {
    use rustix::process::Signal;
    let keeper = Keeper::initialised("postgresql://127.0.0.1:1/x");
    // Where the scratch server, whoever it runs as, may say that it is there.
    let told = keeper.work().join("told");
    std::fs::create_dir(&told).expect("a directory");
    std::fs::set_permissions(&told, PermissionsExt::from_mode(0o777)).expect("a mode");
    let begun = told.join("begun");
    let body = format!("COPY (SELECT 1) TO '{}';\nSELECT pg_sleep(600);", begun.display());
    let endless = file(&keeper, "endless.sql", &plain(&body));
    let begin = || {
        drop(std::fs::remove_file(&begun));
        let running = keeper.pgkeep(["import", word(&endless), "--database", "shop"]).spawn();
        eventually("the dump is being loaded", Duration::from_mins(1), || begun.exists());
        running
    };
    let running = begin();
    running.signal(Signal::INT);
    running.wait().expect_failure(130, &["interrupted"]);
    assert_eq!(keeper.leftovers(), [""; 0]);
    let running = begin();
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code, 137);
    assert_ne!(keeper.leftovers(), [""; 0]);
    let good = file(&keeper, "good.sql", &plain("CREATE TABLE t (a int);"));
    let output = keeper.pgkeep(["import", word(&good), "--database", "shop"]).run().expect_code(0);
    assert!(output.stderr.contains("a killed run left"), "{}", output.stderr);
    assert_eq!(keeper.leftovers(), [""; 0]);
    assert_eq!(keeper.listed().len(), 1);
}

#[test]
fn materialized_views_over_foreign_tables_stay_empty_and_are_named() {
    let server = Server::older();
    let source = server.database("foreign");
    let there = source.url().rsplit_once(':').expect("a port").1.to_owned();
    let port = there.split_once('/').expect("a path").0;
    // A server that answers: an import that asked it would get its rows, and nobody would notice.
    source.psql(&format!(
        "CREATE EXTENSION postgres_fdw; CREATE TABLE own AS SELECT 1 AS a; \
         CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname '{0}'); \
         CREATE USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (user 'postgres', password '{1}'); \
         CREATE SEQUENCE asked; CREATE VIEW counting AS SELECT nextval('asked')::int AS a; \
         CREATE FOREIGN TABLE remote (a int) SERVER elsewhere OPTIONS (table_name 'counting'); \
         CREATE MATERIALIZED VIEW near AS SELECT a FROM own; \
         CREATE MATERIALIZED VIEW far AS SELECT a FROM own UNION ALL SELECT a FROM remote",
        source.name,
        std::env::var("TEST_PG_PASSWORD").expect("tests/run sets it")
    ));
    let asked = || source.psql("SELECT last_value FROM asked");
    let before = asked();
    let keeper = Keeper::initialised(&source.url());
    for (name, words) in [("m.sql", &[][..]), ("m.dump", &["--format=custom"])] {
        let path = dump(&keeper, &source, name, words);
        let line = ["import", word(&path), "--database", "shop"];
        let output = keeper.pgkeep(line).run().expect_code(0);
        assert!(output.stderr.contains("public.far"), "{name}: {}", output.stderr);
        let copy = format!("{}_copy", source.name);
        let restore = ["restore", "latest", "--as", &copy, "--to", &server.url("postgres")];
        keeper.pgkeep(restore).run().expect_code(0);
        assert_eq!(server.psql(&copy, "SELECT a FROM near"), "1");
        assert_eq!(asked(), before, "{name}: something reached out");
        server.psql("postgres", &format!("DROP DATABASE {copy}"));
    }
}
