//! Where results go: stdout, for people or as JSON.

use std::io::{ErrorKind, IsTerminal, Write};

use serde_json::Value as Json;

use crate::domain::told::Failed;

/// Results and failures on their way out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) quiet: bool,
    colour: bool,
}

impl Output {
    /// Colour only on a terminal, and not where `NO_COLOR` is set.
    pub(super) fn new(json: bool, quiet: bool, no_colour: bool) -> Self {
        let colour = !no_colour && std::io::stdout().is_terminal();
        Self { json, quiet, colour }
    }

    /// A result: `text` for people, `document` as one line of JSON.
    pub(super) fn result(
        self,
        text: impl FnOnce() -> String,
        document: impl FnOnce() -> Json,
    ) -> Result<(), Failed> {
        if self.json {
            write_stdout(&format!("{}\n", document()))
        } else {
            write_stdout(&self.coloured(&text()))
        }
    }

    /// A result that says no more than that all went well: nothing for people who asked for quiet, so that cron sends
    /// no mail.
    pub(super) fn success(
        self,
        text: impl FnOnce() -> String,
        document: impl FnOnce() -> Json,
    ) -> Result<(), Failed> {
        if self.quiet && !self.json { Ok(()) } else { self.result(text, document) }
    }

    /// Words around a result, for people only and not when they asked for quiet.
    pub(super) fn remark(self, text: &str) -> Result<(), Failed> {
        if self.json || self.quiet { Ok(()) } else { write_stdout(text) }
    }

    /// Words for people beside a stdout that belongs to somebody else: on stderr.
    pub(super) fn beside(self, text: &str) {
        if !self.json && !self.quiet {
            // A reader that went away is no reason to stop.
            drop(std::io::stderr().write_all(text.as_bytes()));
        }
    }

    /// A failure: for people on stderr, as JSON on stdout.
    pub(super) fn failure(self, failed: &Failed) {
        self.failure_of(failed, &failed.json());
    }

    /// A failure whose document says more, such as which database it was.
    pub(super) fn failure_of(self, failed: &Failed, document: &Json) {
        if self.json {
            // There is no one left to tell when this fails too.
            drop(write_stdout(&format!("{document}\n")));
        } else {
            self.complaint(failed);
        }
    }

    /// A failure beside a result: on stderr in any case.
    #[expect(clippy::unused_self, reason = "stderr belongs to the output as much as stdout")]
    pub(super) fn complaint(self, failed: &Failed) {
        drop(std::io::stderr().write_all(failed.text().as_bytes()));
    }

    /// The words for outcomes in green and red.
    fn coloured(self, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        text.replace("FAILED", "\u{1b}[31mFAILED\u{1b}[0m")
            .replace(" passed ", " \u{1b}[32mpassed\u{1b}[0m ")
    }
}

/// Writes to stdout. A reader that went away (`| head`) is no failure.
pub(super) fn write_stdout(text: &str) -> Result<(), Failed> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failed::unexpected("cannot write to stdout", &error))
        }
        _ => Ok(()),
    }
}
