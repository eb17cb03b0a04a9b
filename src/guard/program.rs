//! The guarded command itself: it has our stdin, stdout and stderr, our process group and so our terminal, and hears the
//! signals that are sent to us; its exit code is ours.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::signal::unix::{Signal as Heard, SignalKind, signal};

use crate::domain::migration::CommandEnd;

/// A signal that ended the command reaches pgkeep at the same time, and may be heard a little later than its end.
const ECHO: Duration = Duration::from_millis(300);

/// Whether signals belong to the command, and not to pgkeep. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Relay(Arc<Mutex<Passing>>);

#[derive(Debug, Default)]
enum Passing {
    #[default]
    No,
    Yes,
    Until(Instant),
}

impl Relay {
    /// Whether a guarded command is at work, which gets the signals.
    pub fn is_passing(&self) -> bool {
        match *self.lock() {
            Passing::No => false,
            Passing::Yes => true,
            Passing::Until(end) => Instant::now() < end,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Passing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a program lies; what is wrong with it otherwise.
pub(super) fn find(program: &str, path: Option<&OsStr>) -> Result<PathBuf, &'static str> {
    let executable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if program.contains('/') {
        let path = PathBuf::from(program);
        return match path.metadata() {
            Ok(known) if known.is_file() && executable(&path) => Ok(path),
            Ok(_) => Err("is no program that can be run"),
            Err(_) => Err("is not there"),
        };
    }
    let places = path.into_iter().flat_map(std::env::split_paths);
    let found =
        places.map(|place| place.join(program)).find(|path| path.is_file() && executable(path));
    found.ok_or("is not on the PATH")
}

/// Runs it to its end. `to_stderr` leaves stdout to pgkeep.
pub(super) async fn run(
    program: &Path,
    arguments: &[String],
    to_stderr: bool,
    relay: &Relay,
) -> io::Result<CommandEnd> {
    let mut command = Command::new(program);
    command.args(arguments);
    if to_stderr {
        command.stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
    }
    // Heard from before it starts, so that none is lost, and none ends us under it.
    let mut signals = Signals::listen()?;
    *relay.lock() = Passing::Yes;
    let begun = Instant::now();
    let ended = match command.spawn() {
        Ok(child) => attend(child, &mut signals).await,
        Err(error) => Err(error),
    };
    *relay.lock() = Passing::Until(Instant::now() + ECHO);
    let status = ended?;
    let signal = status.signal();
    let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(1);
    Ok(CommandEnd {
        exit_code: u8::try_from(code).unwrap_or(u8::MAX),
        signal,
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Passes signals on until it has ended. It is reaped only when no more are passed, so its id is its own until then.
async fn attend(
    mut child: std::process::Child,
    signals: &mut Signals,
) -> io::Result<std::process::ExitStatus> {
    let pid = Pid::from_child(&child);
    let mut ended = tokio::task::spawn_blocking(move || seen_to_end(pid));
    loop {
        tokio::select! {
            seen = &mut ended => {
                seen.map_err(io::Error::other)??;
                return child.wait();
            }
            signal = signals.next() => {
                // It may just have ended by itself.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }
}

/// Waits without reaping.
pub(super) fn seen_to_end(pid: Pid) -> io::Result<()> {
    loop {
        match rustix::process::waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        ) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether whoever started us has us pass over that signal, as `nohup` does; what we start then does so, too.
pub fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signals are numbered from 1, which is the lowest bit.
    mask.is_some_and(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}

/// The signals that are passed on; none of those that were ignored from the start, which stay so for the command.
struct Signals {
    interrupt: Heard,
    terminate: Heard,
    quit: Option<Heard>,
    hangup: Option<Heard>,
    first: Option<Heard>,
    second: Option<Heard>,
    /// The terminal sends its own to the whole foreground group, so the command has them already.
    by_terminal: bool,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let unless_ignored = |kind| (!is_ignored(kind)).then(|| signal(kind)).transpose();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: unless_ignored(SignalKind::quit())?,
            hangup: unless_ignored(SignalKind::hangup())?,
            first: unless_ignored(SignalKind::user_defined1())?,
            second: unless_ignored(SignalKind::user_defined2())?,
            by_terminal: has_terminal(),
        })
    }

    async fn next(&mut self) -> Signal {
        loop {
            let (signal, of_terminal) = tokio::select! {
                _ = self.interrupt.recv() => (Signal::INT, true),
                _ = self.terminate.recv() => (Signal::TERM, false),
                () = heard(&mut self.quit) => (Signal::QUIT, true),
                () = heard(&mut self.hangup) => (Signal::HUP, false),
                () = heard(&mut self.first) => (Signal::USR1, false),
                () = heard(&mut self.second) => (Signal::USR2, false),
            };
            if !(of_terminal && self.by_terminal) {
                return signal;
            }
        }
    }
}

/// One that is not listened to never comes.
async fn heard(signal: &mut Option<Heard>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether a terminal has us in its foreground.
fn has_terminal() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    rustix::termios::tcgetpgrp(&terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ended(script: &str) -> CommandEnd {
        let arguments = ["-c".to_owned(), script.to_owned()];
        run(Path::new("/bin/sh"), &arguments, true, &Relay::default()).await.expect("it runs")
    }

    #[tokio::test]
    async fn exit_codes_and_signals_are_told_as_a_shell_tells_them() {
        let end = ended("exit 7").await;
        assert_eq!((end.exit_code, end.signal), (7, None));
        let end = ended("kill -KILL $$").await;
        assert_eq!((end.exit_code, end.signal), (137, Some(9)));
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let path = Some(OsStr::new("/nowhere:/bin:/usr/bin"));
        assert!(find("sh", path).is_ok());
        assert_eq!(find("no-such-program", path), Err("is not on the PATH"));
        assert_eq!(find("sh", None), Err("is not on the PATH"));
        assert_eq!(find("/no/such", path), Err("is not there"));
        assert_eq!(find("/etc/passwd", path), Err("is no program that can be run"));
    }
}
