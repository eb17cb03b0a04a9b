//! A clock that a story moves on: the wall's and the steady one of a program alike, as if time had passed while nothing
//! happened. libfaketime gives it, and reads a file at every look.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use super::Keeper;
use super::keeper::Pgkeep;

pub(crate) struct Clock {
    file: PathBuf,
    ahead: Cell<Duration>,
}

impl Clock {
    /// One that is right so far.
    pub(crate) fn of(keeper: &Keeper) -> Self {
        let clock = Self { file: keeper.work().join("clock"), ahead: Cell::default() };
        clock.pass(Duration::ZERO);
        clock
    }

    /// So much time passes.
    pub(crate) fn pass(&self, time: Duration) {
        self.ahead.set(self.ahead.get() + time);
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("+{}", self.ahead.get().as_secs())).expect("written");
        std::fs::rename(&next, &self.file).expect("nobody reads half of it");
    }

    /// The built program with these words, by this clock.
    pub(crate) fn pgkeep(&self, keeper: &Keeper, words: &str) -> Pgkeep {
        let program = env!("CARGO_BIN_EXE_pgkeep");
        // faketime itself stays as the parent, and a signal to it would not arrive.
        keeper.shell(&format!(
            "LD_PRELOAD=$(faketime -f +0d printenv LD_PRELOAD)
             export LD_PRELOAD FAKETIME_TIMESTAMP_FILE='{}' FAKETIME_NO_CACHE=1
             exec '{program}' {words}",
            self.file.display()
        ))
    }
}
