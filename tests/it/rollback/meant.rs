//! Which snapshot is meant, and on which server: what is not plain is refused.

use std::os::unix::fs::PermissionsExt;

use super::{guarded, kept};
use crate::support::{Database, Keeper, Server};

/// What `init` wrote, and these clusters; the file alone says where all is.
fn configure(keeper: &mut Keeper, clusters: &[(&str, &Server)]) {
    keeper.unset("PGKEEP_DATABASE_URL");
    let path = keeper.home().join("pgkeep.toml");
    let mut text = std::fs::read_to_string(&path).expect("init wrote it");
    for (name, server) in clusters {
        text = format!("{text}\n[clusters.{name}]\nurl = {:?}\n", server.url("postgres"));
    }
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("a mode");
}

/// A guarded snapshot by the host of another cluster.
#[track_caller]
fn guarded_elsewhere(keeper: &Keeper, cluster: &str, database: &Database) -> String {
    let snapshot = ["snapshot", "--trigger", "pre-migration", "--json"];
    let taken = keeper.pgkeep(snapshot).env("PGKEEP_CLUSTER", cluster);
    let taken = taken.env("PGKEEP_DATABASE_URL", database.url()).run().expect_code(0).json();
    taken["id"].as_str().expect("a snapshot has an id").to_owned()
}

#[test]
fn a_snapshot_of_another_cluster_is_not_swapped_onto_this_ones_server() {
    let (server, other_server) = (Server::older(), Server::newer());
    let database = server.database("which");
    let mut keeper = Keeper::initialised(&database.shop(20).url());
    other_server.psql("postgres", &format!("CREATE DATABASE {}", database.name));
    let other = Database { server: other_server.clone(), name: database.name.clone() };
    let id = guarded_elsewhere(&keeper, "other", other.shop(7));
    let (before, good) = (database.contents(), other.contents());
    // It is the newest guarded one of a database of that name, and of another server.
    let words = ["before a migration", &*database.name];
    keeper.pgkeep(["rollback", "--yes"]).run().expect_failure(8, &words);
    let words = [&*id, "`other`", "not configured here", "configured: main"];
    for wanted in [&["rollback", &*id, "--yes"][..], &["rollback", &*id, "--dry-run"]] {
        keeper.pgkeep(wanted).run().expect_failure(2, &words);
    }
    assert_eq!((database.contents(), kept(&database)), (before.clone(), Vec::new()));
    // Where both are configured, its own server is the one.
    configure(&mut keeper, &[("main", &server), ("other", &other_server)]);
    other.psql("DELETE FROM orders");
    let output = keeper.pgkeep(["rollback", &id, "--yes"]).run().expect_code(0);
    for words in [
        format!("of other/{}, taken", database.name),
        format!("on the server at 127.0.0.1:{}\n", other_server.port),
    ] {
        assert!(output.stdout.contains(&words), "{words}: {}", output.stdout);
    }
    assert_eq!((database.contents(), other.contents()), (before, good));
    assert_eq!((kept(&database).len(), kept(&other).len()), (0, 1));
}

#[test]
fn a_url_alone_means_its_own_database() {
    let server = Server::newer();
    let (one, two) = (server.database("url"), server.database("guarded"));
    let keeper = Keeper::initialised(&one.shop(10).url());
    two.shop(10);
    let snapshot = ["snapshot", "--trigger", "pre-migration", "--json"];
    let taken = keeper.pgkeep(snapshot).env("PGKEEP_DATABASE_URL", two.url()).run();
    let taken = taken.expect_code(0).json();
    let id = taken["id"].as_str().expect("an id").to_owned();
    two.psql("DELETE FROM orders");
    // The only one there is, and of a database that nobody spoke of.
    keeper.pgkeep(["rollback", "--yes"]).run().expect_failure(8, &[&one.name, "--database"]);
    let command = format!("`pgkeep rollback {id} --database {}`", two.name);
    let words = [&*id, &*one.name, &*command];
    keeper.pgkeep(["rollback", &id, "--yes"]).run().expect_failure(2, &words);
    // Nor without a file at all.
    let file = keeper.home().join("pgkeep.toml");
    let text = std::fs::read_to_string(&file).expect("init wrote it");
    std::fs::remove_file(&file).expect("removed");
    let list = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).expect("a line");
        line.split('"').nth(1).expect("one in quotes").to_owned()
    };
    let alone = |args: &[&str]| {
        let pgkeep = keeper.pgkeep(args).env("PGKEEP_TRUSTED_SIGNERS", list("trusted_signers"));
        pgkeep.env("PGKEEP_RECIPIENTS", list("recipients")).run()
    };
    alone(&["rollback", "--yes"]).expect_failure(8, &[&one.name]);
    alone(&["rollback", &id, "--yes"]).expect_failure(2, &words);
    assert_eq!((kept(&one), kept(&two)), (Vec::new(), Vec::new()));
    alone(&["rollback", "--database", &two.name, "--yes"]).expect_code(0);
    assert_eq!((kept(&one).len(), kept(&two).len()), (0, 1));
}

#[test]
fn where_several_databases_fit_the_choices_are_named() {
    let server = Server::newer();
    let (one, two) = (server.database("one"), server.database("two"));
    let mut keeper = Keeper::initialised(&one.shop(10).url());
    two.shop(10);
    configure(&mut keeper, &[("main", &server)]);
    let snapshot = ["snapshot", &one.name, &two.name, "--trigger", "pre-migration"];
    keeper.pgkeep(snapshot).run().expect_code(0);
    let rollback = ["rollback", "--yes"];
    keeper.pgkeep(rollback).run().expect_failure(2, &[&one.name, &two.name, "--database"]);
    assert_eq!((kept(&one), kept(&two)), (Vec::new(), Vec::new()));
    keeper.pgkeep(rollback).args(["--database", &two.name]).run().expect_code(0);
    assert_eq!((kept(&one).len(), kept(&two).len()), (0, 1));
    // Only one of them is this host's.
    let path = keeper.home().join("pgkeep.toml");
    let text = std::fs::read_to_string(&path).expect("configured");
    std::fs::write(&path, format!("{text}databases = [{:?}]\n", one.name)).expect("written");
    keeper.pgkeep(rollback).run().expect_code(0);
    assert_eq!((kept(&one).len(), kept(&two).len()), (1, 1));
}

#[test]
fn a_newer_snapshot_of_an_unknown_server_is_not_passed_over() {
    let database = Server::older().database("moved_back");
    let keeper = Keeper::initialised(&database.shop(50).url());
    let id = guarded(&keeper, &[]);
    let good = database.contents();
    let server = Server::newer();
    server.psql("postgres", &format!("CREATE DATABASE {}", database.name));
    let other = Database { server, name: database.name.clone() };
    let foreign = guarded_elsewhere(&keeper, "main", other.shop(7));
    database.psql("DELETE FROM orders");
    let before = database.contents();
    let (own, adopt) = (format!("`pgkeep rollback {id}`"), format!("`pgkeep adopt {foreign}`"));
    for how in ["--yes", "--dry-run"] {
        keeper.pgkeep(["rollback", how]).run().expect_failure(2, &[&id, &foreign, &own, &adopt]);
    }
    assert_eq!((database.contents(), kept(&database)), (before, Vec::new()));
    keeper.pgkeep(["rollback", &id, "--yes"]).run().expect_code(0);
    assert_eq!(database.contents(), good);
}
