//! What happens between the plan and the swap: what was agreed to is done, or nothing.

use std::path::PathBuf;

use super::{LIMIT, guarded, kept};
use crate::support::keeper::Running;
use crate::support::server::quoted;
use crate::support::{Keeper, Server, eventually};

/// A rollback on a terminal that has shown its plan and waits for an answer.
fn asked(keeper: &Keeper, go: &std::path::Path) -> Running {
    let program = env!("CARGO_BIN_EXE_pgkeep");
    let line = format!(
        "(while [ ! -e {} ]; do sleep 0.05; done; echo yes) | script -qec \"'{program}' rollback\" /dev/null",
        go.display()
    );
    let running = keeper.shell(&line).spawn();
    eventually("it asks", LIMIT, || running.stdout().contains("Type `yes`"));
    running
}

#[test]
fn what_was_not_shown_is_not_swapped() {
    let server = Server::newer();
    let database = server.database("shown");
    let keeper = Keeper::initialised(&database.shop(50).url());
    let id = guarded(&keeper, &[]);
    let (name, moved) = (quoted(&database.name), quoted(&format!("{}_moved", database.name)));
    let again = format!("`pgkeep rollback {id}`");
    // Another database under the name.
    let go = keeper.work().join("go");
    let running = asked(&keeper, &go);
    server.psql("postgres", &format!("ALTER DATABASE {name} RENAME TO {moved}"));
    server.psql("postgres", &format!("CREATE DATABASE {name}"));
    database.psql("CREATE TABLE anew AS SELECT 1 AS n");
    std::fs::write(&go, "").expect("written");
    let refused = running.wait().expect_code(4);
    for words in ["renamed, dropped or made anew", &*again] {
        assert!(refused.stdout.contains(words), "{words}: {}", refused.stdout);
    }
    assert_eq!((database.psql("SELECT n FROM anew"), kept(&database)), ("1".into(), Vec::new()));
    // None under it any more.
    std::fs::remove_file(&go).expect("removed");
    let running = asked(&keeper, &go);
    server.psql("postgres", &format!("DROP DATABASE {name}"));
    std::fs::write(&go, "").expect("written");
    running.wait().expect_code(4);
    assert_eq!(server.databases_like(&database.name), [format!("{}_moved", database.name)]);
    // A snapshot before another migration.
    server.psql("postgres", &format!("ALTER DATABASE {moved} RENAME TO {name}"));
    std::fs::remove_file(&go).expect("removed");
    let running = asked(&keeper, &go);
    let later = guarded(&keeper, &[]);
    let before = database.contents();
    std::fs::write(&go, "").expect("written");
    let refused = running.wait().expect_code(4);
    for words in ["came meanwhile", &*later, &*again] {
        assert!(refused.stdout.contains(words), "{words}: {}", refused.stdout);
    }
    assert_eq!((database.contents(), kept(&database)), (before, Vec::new()));
}

/// Programs whose `pg_restore` waits; the files that it makes when it does and that it waits for.
fn held_up(keeper: &Keeper, server: &Server) -> (PathBuf, PathBuf, PathBuf) {
    let (restores, go) = (keeper.work().join("restores"), keeper.work().join("go"));
    let body = format!(
        ": >{}; while [ ! -e {} ]; do sleep 0.1; done; exec $REAL \"$@\"",
        restores.display(),
        go.display()
    );
    (keeper.programs_with("pg_restore", server, &body), restores, go)
}

#[test]
fn a_snapshot_while_it_goes_back_is_busy_and_without_its_lock_nothing_is_renamed() {
    let server = Server::newer();
    let database = server.database("locked");
    let role = server.role("locked", "x");
    server.psql("postgres", &format!("ALTER ROLE {} SUPERUSER", quoted(&role.name)));
    let keeper = Keeper::initialised(&role.url(&database.name));
    database.shop(50);
    let id = guarded(&keeper, &[]);
    let good = database.contents();
    database.psql("DELETE FROM orders");
    let before = database.contents();
    let (programs, restores, go) = held_up(&keeper, &server);
    let rollback = || {
        let running = keeper.pgkeep(["rollback", &id, "--yes"]).env("PGKEEP_BIN_DIR", &programs);
        let running = running.spawn();
        eventually("it restores", LIMIT, || restores.exists());
        running
    };
    let running = rollback();
    keeper.pgkeep(["snapshot"]).run().expect_failure(6, &[&database.name]);
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = 'pgkeep/lock' AND usename = '{}'",
        role.name
    );
    assert_ne!(server.psql("postgres", &end), "0");
    std::fs::write(&go, "").expect("written");
    let again = format!("`pgkeep rollback {id}`");
    running.wait().expect_failure(4, &["the lock", "was lost", &again]);
    assert_eq!((database.contents(), kept(&database)), (before, Vec::new()));
    for file in [&restores, &go] {
        std::fs::remove_file(file).expect("removed");
    }
    let running = rollback();
    keeper.pgkeep(["snapshot"]).run().expect_failure(6, &[&database.name]);
    std::fs::write(&go, "").expect("written");
    running.wait().expect_code(0);
    assert_eq!(database.contents(), good);
}

#[test]
fn a_database_that_is_there_again_is_told_with_the_command_that_looks_at_it() {
    let server = Server::newer();
    let database = server.database("again");
    let keeper = Keeper::initialised(&database.shop(50).url());
    let id = guarded(&keeper, &[]);
    database.drop_now();
    let (programs, restores, go) = held_up(&keeper, &server);
    let running = keeper.pgkeep(["rollback"]).env("PGKEEP_BIN_DIR", &programs).spawn();
    eventually("it restores", LIMIT, || restores.exists());
    server.psql("postgres", &format!("CREATE DATABASE {}", quoted(&database.name)));
    database.psql("CREATE TABLE anew AS SELECT 1 AS n");
    std::fs::write(&go, "").expect("written");
    let again = format!("run `pgkeep rollback {id}` again");
    let refused = running.wait().expect_failure(2, &[&database.name, &again]);
    assert!(!refused.stderr.contains("--as"), "{}", refused.stderr);
    assert_eq!((database.psql("SELECT n FROM anew"), kept(&database)), ("1".into(), Vec::new()));
}
