//! Limits of the process: too few open files are told with the way to more of them, and cost nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::keeper::Output;
use crate::support::s3_proxy::{Fault, Proxy};
use crate::support::s3_server::{S3Place, S3Server};
use crate::support::{Keeper, Server};

/// docs/operations.md tells it: so many open files are enough for every verb.
const ENOUGH: u32 = 256;
/// With fewer the program loader itself gives up.
const FEWEST: u32 = 8;

/// Runs the words with so many open files at most, none of which is whoever's runs the tests.
fn limited(keeper: &Keeper, files: u32, words: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_pgkeep");
    keeper
        .shell(&format!("exec 3>&- 4>&- 5>&- 6>&-; ulimit -n {files}; exec '{program}' {words}"))
        .run()
}

/// Runs the words with ever more open files until they succeed; whatever they stumbled over before, they said
/// how to mend it. Returns what was enough.
#[expect(clippy::print_stdout, reason = "`--nocapture` shows where it stumbled")]
#[track_caller]
fn climb(keeper: &Keeper, steps: impl IntoIterator<Item = u32>, words: &str) -> u32 {
    let mut stages = BTreeSet::new();
    for files in steps {
        let output = limited(keeper, files, words);
        if output.code == 0 {
            println!("`{words}` works with {files} open files; before that: {stages:#?}");
            return files;
        }
        let output = output.clone().expect_failure(output.code, &[]);
        assert!([1, 2, 4, 5].contains(&output.code), "{files}: {output:?}");
        let hint = output.stderr.lines().find(|line| line.starts_with("hint: "));
        assert!(hint.is_some_and(|hint| hint.contains("ulimit -n")), "{files}: {output:?}");
        stages.insert(output.stderr);
    }
    panic!("`{words}` fails: {stages:#?}");
}

#[test]
fn too_few_open_files_are_told_and_leave_nothing_half_made() {
    let database = Server::older().database("files");
    let keeper = Keeper::initialised(&database.shop(300).url());
    climb(&keeper, (FEWEST..ENOUGH).step_by(4), "snapshot");
    assert_eq!(keeper.listed().len(), 1, "the one that succeeded");
    let enough = climb(&keeper, [56, 80, ENOUGH], "verify --check full");
    // Less would be the live server's work.
    assert!(enough >= 58, "a scratch cluster needs more than {enough} files");
    assert_eq!(keeper.leftovers(), [""; 0]);
    let copy = format!("{}_copy", database.name);
    limited(&keeper, ENOUGH, &format!("restore latest --as {copy}")).expect_code(0);
    assert_eq!(database.server.contents(&copy), database.contents());
}

#[test]
fn too_few_open_files_for_a_bucket_are_told_and_leave_nothing_half_made() {
    let database = Server::older().database("s3files");
    // Chunks enough for several connections at once, and each long enough under way to need its own.
    database.shop(20_000);
    let place = S3Place::of(S3Server::start());
    let latency = Duration::from_millis(30);
    let proxy = Proxy::before(place.server().address(), |_| Fault::None).with_latency(latency);
    let keeper = Keeper::in_bucket(&database.url(), &place, &proxy.endpoint());
    keeper.pgkeep(["init"]).run().expect_code(0);
    climb(&keeper, (FEWEST..ENOUGH).step_by(4), "snapshot");
    assert_eq!(keeper.listed().len(), 1, "the one that succeeded");
    climb(&keeper, (FEWEST..ENOUGH).step_by(2), "verify --check stored");
    keeper.verify(&["--check", "counts"]);
}
