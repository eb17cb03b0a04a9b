//! Accidents of the server that takes a copy: they are no word about the backup, and a copy is tried once more.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::{Database, Keeper, Server};

/// A database whose copies meet an accident while an index is built.
struct Trap {
    database: Database,
    keeper: Keeper,
    shots: PathBuf,
}

impl Trap {
    fn new(server: &Server, name: &str) -> Self {
        let database = server.database(name);
        let keeper = Keeper::initialised(&database.url());
        let shots = keeper.work().join("shots");
        let trap = Self { database, keeper, shots };
        trap.load("0 end");
        let anyone = PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&trap.shots, anyone).expect("the server writes it");
        let script =
            include_str!("sql/trap.sql").replace(":shots", &trap.shots.display().to_string());
        let psql = Server::newer().bin.join("psql").display().to_string();
        trap.database.psql(&script.replace(":psql", &psql));
        trap.keeper.snapshot();
        trap
    }

    /// So many accidents of that kind are to come.
    fn load(&self, shots: &str) {
        std::fs::write(&self.shots, shots).expect("a file");
    }

    #[track_caller]
    fn expect_left(&self, shots: &str) {
        let left = std::fs::read_to_string(&self.shots).expect("a file");
        assert_eq!(left.trim(), shots);
    }
}

#[test]
fn a_verification_that_met_an_accident_is_made_once_more_and_condemns_nothing() {
    let trap = Trap::new(&Server::older(), "hindered");
    let keeper = &trap.keeper;
    for (kind, told) in [("deadlock", "deadlock detected"), ("end", "terminating connection")] {
        // Twice: it is told, and nothing is recorded.
        trap.load(&format!("2 {kind}"));
        let failed = keeper.pgkeep(["verify"]).run().expect_failure(4, &[told]);
        assert!(failed.stderr.contains("once more"), "{}", failed.stderr);
        assert!(failed.stderr.contains("nothing about the backup"), "{}", failed.stderr);
        trap.expect_left(&format!("0 {kind}"));
        assert!(keeper.list()[0]["verification"].is_null());
        assert_eq!(keeper.leftovers(), [""; 0]);
    }
    trap.load("1 deadlock");
    let passed = keeper.pgkeep(["verify", "--json"]).run().expect_code(0);
    assert_eq!(passed.json()["result"], "passed");
    assert!(passed.stderr.contains("deadlock detected"), "{}", passed.stderr);
    trap.expect_left("0 deadlock");
    assert_eq!(keeper.list()[0]["verification"], "passed");
    assert_eq!(keeper.leftovers(), [""; 0]);
}

#[test]
fn a_restore_that_met_an_accident_is_made_once_more_and_touches_nothing_live() {
    let server = Server::newer();
    let trap = Trap::new(&server, "hindered");
    let keeper = &trap.keeper;
    let good = trap.database.contents();
    trap.database.psql("DELETE FROM other");
    let ruined = trap.database.contents();
    trap.load("2 end");
    let restore = ["restore", "--replace", "--yes"];
    keeper.pgkeep(restore).run().expect_failure(4, &["terminating connection"]);
    assert_eq!(trap.database.contents(), ruined);
    let copies = || {
        let ours = |name: &String| name.contains(&trap.database.name);
        server.databases_like("pgkeep_scratch_").into_iter().filter(ours).collect::<Vec<_>>()
    };
    assert_eq!(copies(), [""; 0]);
    trap.load("1 end");
    let restored = keeper.pgkeep(restore).run().expect_code(0);
    assert!(restored.stderr.contains("once more"), "{}", restored.stderr);
    trap.expect_left("0 end");
    assert_eq!(trap.database.contents(), good);
    assert_eq!(copies(), [""; 0]);
    assert_eq!(keeper.leftovers(), [""; 0]);
}
