//! What to run: program, arguments, server, pipes.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::file_name;
use crate::domain::connection::ConnectionInfo;

/// How long a group may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// As `stdbuf` takes it: enough that a write costs nothing beside its bytes, and little enough for a processor's cache.
const BUFFERED: &str = "64K";

/// What to run, and how.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent answers, each named")]
pub struct ChildSpec {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) connection: Option<ConnectionInfo>,
    pub(super) purpose: String,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) directory: Option<PathBuf>,
    pub(super) isolated: bool,
    pub(super) run_as: Option<(u32, u32)>,
    pub(super) pipe_stdin: bool,
    pub(super) pipe_stdout: bool,
    pub(super) buffered: bool,
    pub(super) outspoken: bool,
    pub(super) grace: Duration,
    pub(super) stop_signal: Signal,
}

impl ChildSpec {
    /// That program without arguments; stdin and stdout are `/dev/null`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        let purpose = file_name(&program);
        Self {
            program,
            arguments: Vec::new(),
            connection: None,
            purpose,
            environment: Vec::new(),
            directory: None,
            isolated: false,
            run_as: None,
            pipe_stdin: false,
            pipe_stdout: false,
            buffered: false,
            outspoken: false,
            grace: GRACE,
            stop_signal: Signal::TERM,
        }
    }

    /// One more argument. Never a secret: every user of the host can read it.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<T: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|one| one.as_ref().to_owned()));
        self
    }

    /// The server it talks to; added session settings are [`ConnectionInfo::with_options`].
    #[must_use]
    pub fn connection(mut self, info: &ConnectionInfo) -> Self {
        self.connection = Some(info.clone());
        self
    }

    /// Ends its `application_name`; the program's own name unless said otherwise.
    #[must_use]
    pub fn purpose(mut self, purpose: &str) -> Self {
        purpose.clone_into(&mut self.purpose);
        self
    }

    /// A variable, set after all others.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Its working directory.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Nothing of our own environment reaches it but where programs and libraries are: it may run what a
    /// stranger wrote, who must find no key and no password.
    #[must_use]
    pub fn isolated(mut self) -> Self {
        self.isolated = true;
        self
    }

    /// A program of the operator's own: it has all of our environment, and what it writes goes to our stderr.
    #[must_use]
    pub fn outspoken(mut self) -> Self {
        self.outspoken = true;
        self
    }

    /// Run as that user and group; only root can.
    #[must_use]
    pub fn run_as(mut self, ids: Option<(u32, u32)>) -> Self {
        self.run_as = ids;
        self
    }

    /// Its stdin becomes a pipe: [`Child::take_stdin`].
    #[must_use]
    pub fn piped_stdin(mut self) -> Self {
        self.pipe_stdin = true;
        self
    }

    /// Its stdout becomes a pipe: [`Child::take_stdout`].
    #[must_use]
    pub fn piped_stdout(mut self) -> Self {
        self.pipe_stdout = true;
        self
    }

    /// As [`ChildSpec::piped_stdout`], and it writes [`BUFFERED`] at a time where coreutils' `stdbuf` is there to ask for
    /// that. By itself C's library takes what a pipe calls its block, 4 KiB, and each write is a call of the kernel.
    #[must_use]
    pub fn buffered_stdout(mut self) -> Self {
        self.buffered = true;
        self.piped_stdout()
    }

    /// What is executed: the program, or `stdbuf`, which sets a variable for the library and becomes the program.
    pub(super) fn command(&self) -> Command {
        self.command_from(std::env::var_os("PATH").as_deref())
    }

    pub(super) fn command_from(&self, path: Option<&OsStr>) -> Command {
        let stdbuf = path.filter(|_| self.buffered).and_then(|path| within(path, "stdbuf"));
        let stdbuf = stdbuf.filter(|program| works(program));
        let mut command = match stdbuf {
            Some(stdbuf) => {
                let mut command = Command::new(stdbuf);
                command.arg(format!("--output={BUFFERED}")).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.arguments);
        command
    }

    /// How it is asked to end (SIGTERM), and how long before SIGKILL (5 s).
    #[must_use]
    pub fn stopped_by(mut self, signal: Signal, grace: Duration) -> Self {
        (self.stop_signal, self.grace) = (signal, grace);
        self
    }
}

/// It needs a library that lies beside it.
fn works(stdbuf: &Path) -> bool {
    let mut command = Command::new(stdbuf);
    command.arg(format!("--output={BUFFERED}")).arg("true").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|end| end.success())
}

fn within(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|program| program.is_file())
}
