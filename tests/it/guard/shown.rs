//! `show RUN`: what is recorded of a run, as people read it.

use super::{guarded, shop, told};
use crate::support::{Keeper, Server};

#[test]
fn the_report_of_a_guarded_run_is_shown_by_the_id_that_log_prints() {
    for server in [Server::older(), Server::newer()] {
        let database = server.database("shown");
        let keeper = Keeper::initialised(&database.shop(50).url());
        let script =
            "psql -q \"$URL\" -c 'ALTER TABLE orders ADD CONSTRAINT c CHECK (id > 0) NOT VALID'";
        let report = told(&guarded(&keeper, &database, &["--json"], script).run().expect_code(0));
        let run = report["run"].as_str().expect("a run");
        let logged = keeper.pgkeep(["log"]).run().expect_code(0).stdout;
        assert!(logged.contains(run), "{logged}");
        let shown = keeper.pgkeep(["show", run]).run().expect_code(0).stdout;
        let id = report["snapshot"]["id"].as_str().expect("a snapshot");
        for words in [
            run,
            &*format!("database {} of cluster main", database.name),
            "ALTER TABLE orders",
            "succeeded",
            "with exit 0",
            id,
            "is NOT VALID",
            "VALIDATE CONSTRAINT",
            &format!("pgkeep rollback {id}"),
        ] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        let document = keeper.pgkeep(["show", run, "--json"]).run().expect_code(0).json();
        assert_eq!((&document["run"], &document["event"]), (&run.into(), &"migrate".into()));
        assert_eq!(document["migration"]["warnings"], report["warnings"]);
        assert_eq!(document["exit_code"], 0);
        // The backup is shown as before, also by the beginning of its id that no run shares.
        let beginning = &id[..23];
        let backup = keeper.pgkeep(["show", beginning, "--json"]).run().expect_code(0).json();
        assert_eq!(backup["trigger"], "pre-migration");
        // Both begin with the same day.
        let both = keeper.pgkeep(["show", &run[..9]]).run();
        both.expect_failure(
            2,
            &["fits several", &format!("backup {id}"), &format!("run {run} (migrate)")],
        );
        let nothing = keeper.pgkeep(["show", "20990101"]).run();
        nothing.expect_failure(8, &["no backup and no run matches"]);
        // A rollback is a run, too.
        let output = keeper.pgkeep(["rollback", "--yes", "--json"]).run().expect_code(0).json();
        let log = keeper.pgkeep(["log", "--json", "--limit", "1"]).run().expect_code(0).json();
        let rollback = log[0]["run"].as_str().expect("a run");
        let shown = keeper.pgkeep(["show", rollback]).run().expect_code(0).stdout;
        let kept = output["kept_as"].as_str().expect("it is kept");
        for words in ["rollback", kept, id, "lost: "] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
    }
}

#[test]
fn a_prune_is_shown_with_what_it_removed_and_how_it_ended() {
    let (database, mut keeper) = shop("pruneshown");
    keeper
        .set("PGKEEP__CLUSTERS__MAIN__RETENTION__KEEP_LAST", "1")
        .set("PGKEEP__REPOSITORY__GRACE", "0s");
    let first = keeper.snapshot_id();
    keeper.snapshot();
    keeper.pgkeep(["prune"]).run().expect_code(0);
    let log = keeper.pgkeep(["log", "--json", "--limit", "1"]).run().expect_code(0).json();
    let run = log[0]["run"].as_str().expect("a run");
    let document = keeper.pgkeep(["show", run, "--json"]).run().expect_code(0).json();
    assert_eq!(document["backups"][0]["id"], first.as_str());
    assert_eq!(document["id"], log[0]["id"], "its end");
    drop(database);
}
