//! Client programs as child processes: told their server by `PG*` variables and private files, never by
//! arguments; ended with their whole process group when the value is dropped.
//!
//! Invariants: no `PG*` variable of our own environment reaches a child; the password lies in memory
//! (`memfd`) that the child reads through `/proc`, or where that cannot be, in a 0600 file that is removed
//! with the value. A group is signalled only while its leader is not yet reaped, so no foreign process can
//! be hit. Crash story: when pgkeep dies, pipes break and client programs end at their next write.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::sync::oneshot;

use super::error::PostgresError;
use crate::domain::connection::ConnectionInfo;

mod private;
mod spec;
mod tail;

use private::PrivateFile;
pub use spec::ChildSpec;
use tail::Tail;

/// Room in a pipe between us and a child: at 64 KiB, the kernel's default, switching costs more than copying.
const PIPE_BYTES: usize = 1 << 20;
/// How long to wait for the end of stderr after the leader has gone: a grandchild may hold it open.
const STDERR_WAIT: Duration = Duration::from_secs(1);
/// The most that [`capture`] takes.
const CAPTURE_LIMIT_BYTES: usize = 64 << 20;

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The end of what it wrote to stderr, at most 64 KiB.
    pub stderr: String,
}

/// Every child that has not ended, also when nobody holds it any more.
static RUNNING: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Arc<Shared>>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For the end of the process: waits until no child runs, and after `limit` kills those that do.
///
/// Children that were dropped have been asked to end. One that hangs (a client program waits without a limit for
/// the answer to its cancel request) would outlive the thread that is to kill it.
pub fn end_all(limit: Duration) {
    let deadline = Instant::now() + limit;
    let children = running().clone();
    for child in children {
        if !child.ends_within(deadline.saturating_duration_since(Instant::now())) {
            child.signal_group(Signal::KILL);
        }
    }
}

/// A running child. Dropping it ends its whole process group.
pub struct Child {
    name: String,
    shared: Arc<Shared>,
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    ended: Option<oneshot::Receiver<()>>,
    stop_signal: Signal,
    grace: Duration,
    /// Kept until the child has ended: libpq reads them at every connection.
    _private: Vec<PrivateFile>,
}

struct Shared {
    pid: Pid,
    state: Mutex<State>,
    changed: Condvar,
    tail: Tail,
}

enum State {
    /// Not reaped: its id, and its group's, are its own.
    Running,
    Ended(io::Result<ExitStatus>),
}

impl Child {
    /// Starts it, with two small threads that wait for its end and drain its stderr.
    pub fn spawn(spec: ChildSpec) -> Result<Child, PostgresError> {
        let name = file_name(&spec.program);
        let mut private = Vec::new();
        let (errors_in, errors_out) = io::pipe().map_err(pipe_failed)?;
        let mut command = spec.command();
        command.stderr(errors_out).process_group(0);
        if spec.outspoken {
            command.stderr(our_stderr()?);
        }
        if spec.isolated {
            isolate(&mut command);
        }
        if !spec.outspoken {
            clear_environment(&mut command);
        }
        if let Some(info) = &spec.connection {
            tell_connection(&mut command, info, &spec, &mut private)?;
        }
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &spec.directory {
            command.current_dir(directory);
        }
        if let Some((uid, gid)) = spec.run_as {
            command.gid(gid).uid(uid);
        }
        let stdin = if spec.pipe_stdin {
            let (reader, writer) = wide_pipe()?;
            command.stdin(reader);
            Some(writer)
        } else {
            command.stdin(Stdio::null());
            None
        };
        let stdout = if spec.pipe_stdout {
            let (reader, writer) = wide_pipe()?;
            command.stdout(writer);
            Some(reader)
        } else {
            command.stdout(if spec.outspoken { our_stderr()? } else { Stdio::null() });
            None
        };
        let process = command
            .spawn()
            .map_err(|source| PostgresError::ProgramUnusable { program: spec.program, source })?;
        // The command holds the child's ends of the pipes; while it lives, no pipe would ever end.
        drop(command);
        let pid = Pid::from_child(&process);
        let shared = Arc::new(Shared {
            pid,
            state: Mutex::new(State::Running),
            changed: Condvar::new(),
            tail: Tail::default(),
        });
        running().push(Arc::clone(&shared));
        let (tell, ended) = oneshot::channel();
        watch(Arc::clone(&shared), process, errors_in, tell);
        Ok(Child {
            name,
            shared,
            stdin,
            stdout,
            ended: Some(ended),
            stop_signal: spec.stop_signal,
            grace: spec.grace,
            _private: private,
        })
    }

    /// Its process id, which is also its group's.
    pub fn id(&self) -> u32 {
        self.shared.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The end of the pipe into it, for a blocking thread; dropping it is end of file.
    pub fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.stdin.take()
    }

    /// The end of the pipe out of it, for a blocking thread.
    pub fn take_stdout(&mut self) -> Option<PipeReader> {
        self.stdout.take()
    }

    /// What it wrote to stderr so far, at most the last 64 KiB.
    pub fn stderr(&self) -> String {
        self.shared.tail.text()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(*self.shared.lock(), State::Ended(_))
    }

    /// Waits for its end, however it is. Cancel-safe; an ended pipe is no end of the program.
    pub async fn exit(&mut self) -> Result<Exit, PostgresError> {
        if let Some(ended) = &mut self.ended {
            // The watching thread drops its side only after the state is set.
            let _ = ended.await;
            self.ended = None;
        }
        let state = self.shared.lock();
        let stderr = self.shared.tail.text();
        match &*state {
            State::Ended(Ok(status)) => {
                Ok(Exit { code: status.code(), signal: status.signal(), stderr })
            }
            State::Ended(Err(error)) => Err(PostgresError::Io {
                what: format!("cannot wait for {}", self.name),
                source: io::Error::new(error.kind(), error.to_string()),
            }),
            State::Running => unreachable!("the watcher tells after the end"),
        }
    }

    /// Waits for its end; anything but exit code 0 is an error with its last words.
    pub async fn wait(&mut self) -> Result<(), PostgresError> {
        let exit = self.exit().await?;
        self.judge(&exit)
    }

    /// The error that `exit` is, unless it is success.
    pub fn judge(&self, exit: &Exit) -> Result<(), PostgresError> {
        let program = self.name.clone();
        let stderr = tail::last_words(&exit.stderr, &self.name);
        match (exit.code, exit.signal) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(PostgresError::ProgramFailed { program, code, stderr }),
            (None, signal) => Err(PostgresError::ProgramKilled {
                program,
                signal: signal.unwrap_or_default(),
                stderr,
            }),
        }
    }

    /// Asks the group to end, kills it after the grace, and waits until it is gone.
    pub async fn stop(mut self) -> Result<Exit, PostgresError> {
        self.end_group();
        self.exit().await
    }

    /// Sends a signal to the leader alone, while it runs.
    pub fn signal(&self, signal: Signal) {
        let state = self.shared.lock();
        if matches!(*state, State::Running) {
            // It may just have ended by itself: then there is nothing to signal.
            let _ = rustix::process::kill_process(self.shared.pid, signal);
        }
    }

    fn end_group(&mut self) {
        self.stdin = None;
        self.stdout = None;
        if self.shared.signal_group(self.stop_signal) {
            let (shared, grace) = (Arc::clone(&self.shared), self.grace);
            let killer = thread::Builder::new().name("child-killer".to_owned());
            let patient = killer.spawn(move || {
                if !shared.ends_within(grace) {
                    shared.signal_group(Signal::KILL);
                }
            });
            // Without a thread there is no patience.
            if patient.is_err() {
                self.shared.signal_group(Signal::KILL);
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end_group();
    }
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name)
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was a group to signal.
    fn signal_group(&self, signal: Signal) -> bool {
        let state = self.lock();
        let running = matches!(*state, State::Running);
        if running {
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
        running
    }

    fn ends_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while matches!(*state, State::Running) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Drains stderr and waits for the end, each in a thread; the state changes while the lock is held.
fn watch(
    shared: Arc<Shared>,
    mut process: std::process::Child,
    errors: PipeReader,
    tell: oneshot::Sender<()>,
) {
    let (drained, all_read) = std::sync::mpsc::channel::<()>();
    let reader = Arc::clone(&shared);
    thread::spawn(move || {
        reader.tail.drain(errors);
        drop(drained);
    });
    thread::spawn(move || {
        // Seen but not reaped: until the lock is held, the id cannot be given to another process.
        let succeeded = seen_to_end(shared.pid);
        let _ = all_read.recv_timeout(STDERR_WAIT);
        let mut state = shared.lock();
        if !succeeded {
            // What is left of the group (workers, a shell's children) has no one to work for.
            let _ = rustix::process::kill_process_group(shared.pid, Signal::TERM);
        }
        *state = State::Ended(process.wait());
        drop(state);
        running().retain(|other| !Arc::ptr_eq(other, &shared));
        shared.changed.notify_all();
        let _ = tell.send(());
    });
}

/// Waits without reaping; whether the exit code was 0.
fn seen_to_end(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    loop {
        match rustix::process::waitid(WaitId::Pid(pid), options) {
            Ok(seen) => return seen.and_then(|status| status.exit_status()) == Some(0),
            Err(rustix::io::Errno::INTR) => {}
            // Then the reaping that follows waits, and tells.
            Err(_) => return false,
        }
    }
}

fn wide_pipe() -> Result<(PipeReader, PipeWriter), PostgresError> {
    let (reader, writer) = io::pipe().map_err(pipe_failed)?;
    // Users without privileges may be held to less room: slower, but right.
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES);
    Ok((reader, writer))
}

fn pipe_failed(source: io::Error) -> PostgresError {
    PostgresError::Io { what: "cannot make a pipe".to_owned(), source }
}

fn our_stderr() -> Result<Stdio, PostgresError> {
    // Closed when it runs: what it starts, with its outputs elsewhere, must not hold ours.
    Ok(io::stderr().as_fd().try_clone_to_owned().map_err(pipe_failed)?.into())
}

fn file_name(program: &Path) -> String {
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

/// Takes out every variable but those that programs need to start.
fn isolate(command: &mut Command) {
    command.env_clear();
    for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

/// Takes out every `PG*` variable, and makes messages and times the same on every host.
fn clear_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(&name);
        }
    }
    command.env_remove("LANGUAGE").env("LC_ALL", "C").env("PGTZ", "UTC");
}

fn tell_connection(
    command: &mut Command,
    info: &ConnectionInfo,
    spec: &ChildSpec,
    private: &mut Vec<PrivateFile>,
) -> Result<(), PostgresError> {
    command.envs(info.child_environment());
    command.env("PGAPPNAME", format!("pgkeep/{}", spec.purpose));
    if info.tls().root_cert.as_deref() == Some("system")
        && let Some(bundle) = private::system_roots()
    {
        // libpq reads the word `system` from PostgreSQL 16 on; a path it always read.
        command.env("PGSSLROOTCERT", bundle);
    }
    let mut file = |variable: &str, text: &str| {
        let made = PrivateFile::new(text, spec.run_as).map_err(|source| PostgresError::Io {
            what: "cannot make a private file for a client program".to_owned(),
            source,
        })?;
        command.env(variable, made.path());
        private.push(made);
        Ok::<(), PostgresError>(())
    };
    match info.private_passfile() {
        Some(text) => file("PGPASSFILE", text.expose())?,
        // Or libpq would look into the user's own, which may fit another server.
        None => file("PGPASSFILE", "")?,
    }
    let settings = info.private_service();
    if !settings.is_empty() {
        let mut text = String::from("[pgkeep]\n");
        for (name, value) in settings {
            text.push_str(&[name, "=", &value.to_string(), "\n"].concat());
        }
        file("PGSERVICEFILE", &text)?;
        command.env("PGSERVICE", "pgkeep");
    }
    Ok(())
}

/// Runs a program to its end and takes what it wrote, up to 64 MiB; anything but exit code 0 is an error.
pub async fn capture(spec: ChildSpec) -> Result<Vec<u8>, PostgresError> {
    let mut child = Child::spawn(spec.piped_stdout())?;
    let output = read_all(&mut child).await?;
    child.wait().await?;
    Ok(output)
}

async fn read_all(child: &mut Child) -> Result<Vec<u8>, PostgresError> {
    let failed = |source| PostgresError::Io {
        what: format!("cannot read what {} writes", child.name),
        source,
    };
    let stdout = child.stdout.take().expect("the spec pipes stdout");
    let reading = tokio::task::spawn_blocking(move || {
        let mut output = Vec::new();
        let limit = CAPTURE_LIMIT_BYTES as u64 + 1;
        stdout.take(limit).read_to_end(&mut output)?;
        if output.len() > CAPTURE_LIMIT_BYTES {
            return Err(io::Error::other("more than 64 MiB"));
        }
        Ok(output)
    });
    reading.await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
}

/// Runs a program with `input` on its stdin; anything but exit code 0 is an error.
pub async fn feed(spec: ChildSpec, input: Vec<u8>) -> Result<(), PostgresError> {
    let mut child = Child::spawn(spec.piped_stdin())?;
    let mut stdin = child.take_stdin().expect("the spec pipes stdin");
    let writing = tokio::task::spawn_blocking(move || stdin.write_all(&input));
    let written = writing.await.map_err(io::Error::other).flatten();
    // Its own word on why it stopped reading goes before ours.
    child.wait().await?;
    written.map_err(|source| PostgresError::Io {
        what: format!("cannot write to {}", child.name),
        source,
    })
}

#[cfg(test)]
mod tests;
