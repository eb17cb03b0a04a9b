//! Hosts whose clock is wrong: backups are safe, order is by the clock and said so, and doubts are judged all the same.

use serde_json::Value;

use crate::support::keeper::Pgkeep;
use crate::support::{Keeper, Server};

/// The command on a host whose clock stands that far from the true time.
fn at(keeper: &Keeper, shift: &str, words: &str) -> Pgkeep {
    let program = env!("CARGO_BIN_EXE_pgkeep");
    keeper.shell(&format!("exec faketime --exclude-monotonic -f '{shift}' '{program}' {words}"))
}

fn id(document: &Value) -> String {
    document["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_clock_that_stands_behind_is_told_and_hides_no_loss() {
    let database = Server::newer().database("behind");
    let keeper = Keeper::initialised(&database.shop(500).url());
    let first = keeper.snapshot_id();
    for shift in ["-1h", "-365d"] {
        let told = at(&keeper, shift, "snapshot --json").run().expect_code(0);
        let words = format!("the clock of this host stands before backup {first}");
        assert!(told.stderr.contains(&words), "{shift}: {}", told.stderr);
        assert!(id(&told.json()) < first, "{shift}");
        // What is the latest is what is told, until the clock is set.
        let latest = keeper.pgkeep(["show", "latest", "--json"]).run().expect_code(0).json();
        assert_eq!(id(&latest), first);
        let check = at(&keeper, shift, "check").run().expect_code(0).stdout;
        assert!(check.contains("the server's is "), "{check}");
        assert!(
            check.contains(&format!("this host's clock stands before backup {first}")),
            "{check}"
        );
    }
    // A loss is measured against the newest good backup, whatever the clock says.
    database.psql("TRUNCATE orders");
    let emptied = at(&keeper, "-365d", "snapshot --json").run().expect_code(0).json();
    assert!(emptied["suspect"].as_str().is_some_and(|why| why.contains(&first)), "{emptied}");
    // A mark counts whenever it was made.
    at(&keeper, "-365d", &format!("adopt {}", id(&emptied))).run().expect_code(0);
    assert!(keeper.list().iter().all(|item| item["suspect"].is_null()));
    at(&keeper, "-365d", "verify --all --check counts").run().expect_code(0);
    assert!(keeper.list().iter().all(|item| item["verification"] == "passed"));
    assert_eq!(keeper.listed().len(), 4);
}

#[test]
fn a_backup_from_a_clock_that_stood_ahead_is_told_until_time_has_passed_it() {
    let database = Server::older().database("ahead");
    let keeper = Keeper::initialised(&database.shop(200).url());
    let before = keeper.snapshot_id();
    let ahead = at(&keeper, "+365d", "snapshot --json").run().expect_code(0);
    assert!(!ahead.stderr.contains("clock"), "{}", ahead.stderr);
    let ahead = id(&ahead.json());
    assert!(ahead > before);
    let told = keeper.pgkeep(["snapshot", "--json"]).run().expect_code(0);
    let words = format!("`latest` means that one, not {}", id(&told.json()));
    assert!(told.stderr.contains(&words), "{}", told.stderr);
    let check = keeper.pgkeep(["check"]).run().expect_code(0).stdout;
    assert!(check.contains(&format!("this host's clock stands before backup {ahead}")), "{check}");
    keeper.verify(&["--all", "--check", "counts"]);
    // By its own id each comes back.
    let copy = format!("{}_copy", database.name);
    keeper.pgkeep(["restore", &before, "--as", &copy]).run().expect_code(0);
    assert_eq!(database.server.contents(&copy), database.contents());
}
