//! What people see while a verb runs: bars on a terminal, findings always, all of it on stderr.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text::harmless;
use crate::domain::observer::{Observer, Severity};

const KNOWN: &str =
    "{msg:<40!} {bar:24} {binary_bytes:>10}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
const UNKNOWN: &str = "{msg:<40!} {spinner} {binary_bytes:>10} {binary_bytes_per_sec}";

/// Listens to a run for people.
pub(super) struct Progress {
    bar: ProgressBar,
    quiet: bool,
    /// Findings so far: one that comes again (once per database) is told once.
    told: Mutex<Vec<String>>,
}

impl Progress {
    /// Bars only where stderr is a terminal, and neither logs nor quiet are asked for.
    pub(super) fn new(quiet: bool, verbose: bool) -> Self {
        let bars = std::io::stderr().is_terminal() && !quiet && !verbose;
        let target = if bars {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(ProgressStyle::with_template(UNKNOWN).expect("a sound template"));
        if bars {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { bar, quiet, told: Mutex::new(Vec::new()) }
    }

    /// Runs what prints, with the bar out of its way.
    pub(super) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Removes the bar, before results are printed.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Observer for Progress {
    fn step(&self, name: &str, subject: &str) {
        tracing::info!(subject, "{name}");
        self.bar.set_style(ProgressStyle::with_template(UNKNOWN).expect("a sound template"));
        self.bar.unset_length();
        self.bar.reset();
        self.bar.set_message(harmless(&format!("{name} {subject}")));
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        if let Some(total) = total.filter(|total| *total > 0)
            && self.bar.length() != Some(total)
        {
            self.bar.set_style(ProgressStyle::with_template(KNOWN).expect("a sound template"));
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    fn finding(&self, severity: Severity, message: &str) {
        let word = match severity {
            Severity::Notice if self.quiet => return,
            Severity::Notice => "note",
            Severity::Warning => "warning",
        };
        let line = format!("{word}: {}", harmless(message));
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !told.contains(&line) {
            // A reader that went away is no reason to stop a backup.
            self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{line}")));
            told.push(line);
        }
    }
}
