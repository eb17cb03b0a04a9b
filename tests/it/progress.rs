//! Bars: on a terminal's stderr while a verb runs, gone at its end, and nowhere else.

use crate::support::keeper::Output;
use crate::support::{Keeper, Server};

/// Runs it with a real terminal for stderr alone; what was seen there is the output's stdout.
fn on_a_terminal(keeper: &Keeper, words: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_pgkeep");
    let script = format!("script -qec \"'{program}' {words} >said\" /dev/null");
    keeper.shell(&script).env("TERM", "xterm").run()
}

#[test]
fn snapshot_and_restore_show_a_bar_on_a_terminal_and_none_without() {
    let database = Server::older().database("bars");
    let keeper = Keeper::initialised(&database.shop(3000).url());
    let copy = format!("{}_copy", database.name);
    for (words, step) in
        [("snapshot".to_owned(), "dumping"), (format!("restore --as {copy}"), "restoring")]
    {
        let step = format!("{step} {}", if words == "snapshot" { &database.name } else { "" });
        let seen = on_a_terminal(&keeper, &words).expect_code(0).stdout;
        assert!(seen.contains(&step), "{seen:?}");
        // What is drawn is wiped off at the end, and the result comes on stdout, clean.
        assert!(seen.trim_end().ends_with("\u{1b}[2K"), "{seen:?}");
        let said = std::fs::read_to_string(keeper.work().join("said")).expect("a file");
        assert!(!said.is_empty() && !said.contains('\u{1b}'), "{said:?}");
        let drop_copy = || {
            let sql = format!("DROP DATABASE IF EXISTS {copy}");
            database.server.psql("postgres", &sql);
        };
        drop_copy();
        let quiet = on_a_terminal(&keeper, &format!("--quiet {words}")).expect_code(0).stdout;
        assert_eq!(quiet, "");
        drop_copy();
        let plain = keeper.pgkeep(words.split(' ')).env("TERM", "xterm").run().expect_code(0);
        assert!(!plain.stderr.contains('\u{1b}') && !plain.stderr.contains(&step), "{plain:?}");
        drop_copy();
    }
}
