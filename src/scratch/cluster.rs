//! An ephemeral cluster: a server of our own, for one restore, that nobody else can reach.
//!
//! It lives in a [`ScratchDirectory`], listens on a socket in there and nowhere else, runs as an
//! unprivileged user, and is isolated by settings on its command line, which win over anything a restored
//! copy could bring (DESIGN.md rule 11). Durability is off: a copy that is thrown away needs none, and a
//! crash of this machine leaves a directory that the next run removes.
//!
//! One that a command is to work on ([`ScratchCluster::start_stage`]) listens on 127.0.0.1, too, lets nobody in there
//! without a password, tells of each connection in its log, and becomes durable once the copy is in it.
//!
//! Crash story: a SIGKILL of this process leaves the server running in a directory whose lock is free;
//! the next sweep ends the one and removes the other. The server's environment holds nothing of ours: code
//! that a copy carries runs in there.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child as Process, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::account::{self, Account};
use super::directory::{DATA, ScratchDirectory};
use super::{ScratchError, postmaster, space};
use crate::domain::connection::ConnectionInfo;
use crate::postgres::child::{Child, ChildSpec};
use crate::postgres::programs::Programs;
use crate::postgres::quote_ident;
use crate::postgres::session::Session;
use crate::scratch::sql::Statements as _;

/// The superuser of every scratch cluster.
pub const SUPERUSER: &str = "postgres";
/// Only the socket's name holds it, where there is nothing else to listen on.
const PORT: u16 = 5432;
/// So many free ports are tried: one can be taken between the look and the start.
const PORTS_MAX: u32 = 5;
/// Where a stage listens, and what its log calls whoever comes from there.
const LOOPBACK: &str = "127.0.0.1";
/// `sun_path` has 104 bytes on some systems, 108 on others.
const SOCKET_PATH_MAX: usize = 100;
const POLL: Duration = Duration::from_millis(20);
/// A server that neither logs nor moves on for this long while it starts is given up.
const STALL: Duration = Duration::from_mins(2);
const LOG_TAIL_BYTES: u64 = 2048;

/// What a scratch server may take of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerMemory {
    /// `shared_buffers`.
    pub shared_buffers_bytes: u64,
    /// `maintenance_work_mem`, which index builds use, per job.
    pub maintenance_bytes: u64,
}

impl ServerMemory {
    /// A modest share of the memory that is free now.
    pub fn of_this_machine() -> Self {
        Self::of(space::machine_memory())
    }

    fn of(available_bytes: u64) -> Self {
        Self {
            shared_buffers_bytes: (available_bytes / 16).clamp(32 << 20, 1 << 30),
            maintenance_bytes: (available_bytes / 32).clamp(32 << 20, 512 << 20),
        }
    }
}

/// A running scratch cluster. Dropping it ends the server and removes its directory.
pub struct ScratchCluster {
    /// Taken only when it is stopped.
    parts: Option<Parts>,
    connection: ConnectionInfo,
    major: u32,
    /// Of a stage: on 127.0.0.1.
    port: Option<u16>,
}

struct Parts {
    postmaster: Process,
    directory: ScratchDirectory,
}

/// Settings of a server, by name.
pub type Settings = [(&'static str, String)];

/// Where and as what a server is started.
#[derive(Clone, Copy)]
struct Plan<'a> {
    programs: &'a Programs,
    data: &'a Path,
    socket_dir: &'a Path,
    port: u16,
    memory: ServerMemory,
    /// Of a stage: the settings that it has from the server that it stands for.
    stage: Option<&'a Settings>,
}

impl fmt::Debug for ScratchCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.parts.as_ref().map(|parts| parts.directory.path());
        f.debug_struct("ScratchCluster").field("directory", &directory).finish_non_exhaustive()
    }
}

impl ScratchCluster {
    /// Makes a cluster in `directory` with the server programs of `programs`, and waits until it answers.
    pub async fn start(
        directory: ScratchDirectory,
        programs: &Programs,
        memory: ServerMemory,
        cancel: &CancellationToken,
    ) -> Result<Self, ScratchError> {
        Self::start_as(directory, programs, memory, None, cancel).await
    }

    /// The same for a copy that a command is to work on as on the server that `settings` are of: it can be reached on
    /// 127.0.0.1, by roles that have a password. Not durable yet: [`Self::become_durable`].
    pub async fn start_stage(
        directory: ScratchDirectory,
        programs: &Programs,
        memory: ServerMemory,
        settings: &Settings,
        cancel: &CancellationToken,
    ) -> Result<Self, ScratchError> {
        Self::start_as(directory, programs, memory, Some(settings), cancel).await
    }

    async fn start_as(
        directory: ScratchDirectory,
        programs: &Programs,
        memory: ServerMemory,
        stage: Option<&Settings>,
        cancel: &CancellationToken,
    ) -> Result<Self, ScratchError> {
        let account = account::for_server()?;
        if let Some(account) = &account {
            account::can_reach(account, directory.path())?;
        }
        let socket = directory.join(&format!(".s.PGSQL.{}", u16::MAX));
        let socket_dir = directory.join("s");
        if socket.as_os_str().len() + "s/".len() > SOCKET_PATH_MAX {
            return Err(ScratchError::SocketPath(socket));
        }
        let data = directory.join(DATA);
        for path in [&data, &socket_dir] {
            make_private(path, account.as_ref())?;
        }
        let env = ServerProcess { directory: &directory, account: account.as_ref() };
        env.initdb(programs, &data, cancel).await?;
        if stage.is_some() {
            prepare_stage(&data)?;
        }
        let (data, socket_dir) = (data.as_path(), socket_dir.as_path());
        let plan = Plan { programs, data, socket_dir, port: PORT, memory, stage };
        let port = if stage.is_some() { free_port()? } else { PORT };
        let postmaster = env.postgres(&Plan { port, ..plan })?;
        let connection = |port| ConnectionInfo::socket(socket_dir, port, SUPERUSER, "postgres");
        let mut cluster = Self {
            connection: connection(port),
            major: programs.major(),
            port: stage.map(|_| port),
            parts: Some(Parts { postmaster, directory }),
        };
        // From here on dropping it ends the server, whatever way this function is left.
        let mut tries = 1;
        loop {
            match cluster.wait_until_ready(cancel).await {
                Err(ScratchError::Server { log, .. })
                    if stage.is_some() && tries < PORTS_MAX && log.contains(PORT_TAKEN) => {}
                ended => return ended.map(|()| cluster),
            }
            tries += 1;
            let port = free_port()?;
            let parts = cluster.parts.as_mut().expect("a cluster that starts has its parts");
            let env = ServerProcess { directory: &parts.directory, account: account.as_ref() };
            parts.postmaster = env.postgres(&Plan { port, ..plan })?;
            (cluster.connection, cluster.port) = (connection(port), Some(port));
        }
    }

    /// How to reach it, as its superuser, in database `postgres`.
    pub fn connection(&self) -> &ConnectionInfo {
        &self.connection
    }

    /// Its major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The port on 127.0.0.1 of one that listens there.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// From now on what it commits is written to the disk first, as on a server that is meant to stay.
    pub async fn become_durable(&self) -> Result<(), ScratchError> {
        let parts = self.parts.as_ref().expect("a cluster that runs has its parts");
        append_settings(&parts.directory.join(DATA), "on")?;
        let session = Session::connect(&self.connection, "scratch").await?;
        session.query("SELECT pg_reload_conf()", &[]).await?;
        let begun = Instant::now();
        loop {
            let asked = "SELECT bool_and(setting = 'on') FROM pg_settings WHERE name = ANY ($1)";
            let row = session.query_one(asked, &[&DURABILITY.as_slice()]).await?;
            if row.get(0) {
                break;
            }
            if begun.elapsed() > STALL {
                let log = format!("it does not read its settings again; {}", self.log_tail());
                return Err(ScratchError::Server { program: "postgres", log });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(session.execute("CHECKPOINT").await?)
    }

    /// How many sessions it has let in on 127.0.0.1.
    pub fn visits(&self) -> Result<usize, ScratchError> {
        let parts = self.parts.as_ref().expect("a cluster that runs has its parts");
        let path = log_path(parts.directory.path());
        let log = fs::read(&path).map_err(ScratchError::io("cannot read", &path))?;
        Ok(visits_in(&String::from_utf8_lossy(&log)))
    }

    /// Makes the roles of `names` that it lacks, unable to log in: what the copy's owners and grants name.
    ///
    /// Names that PostgreSQL keeps for itself (`pg_…`) cannot be made and are passed over.
    pub async fn create_roles(&self, names: &[String]) -> Result<(), ScratchError> {
        let session = Session::connect(&self.connection, "roles for a scratch copy").await?;
        let rows = session.query("SELECT rolname::text FROM pg_roles", &[]).await?;
        let mut present: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
        let reserved = |name: &str| name.starts_with("pg_") || name == "public" || name == "none";
        for name in names {
            if !reserved(name) && present.insert(name.clone()) {
                session.execute(&format!("CREATE ROLE {} NOLOGIN", quote_ident(name))).await?;
            }
        }
        Ok(())
    }

    /// The end of the server's log, for a failure that only it can explain.
    pub fn log_tail(&self) -> String {
        self.parts.as_ref().map(|parts| log_tail(parts.directory.path())).unwrap_or_default()
    }

    /// Ends the server at once and removes everything; says if something stayed behind.
    pub async fn stop(mut self) -> Result<(), ScratchError> {
        let Some(parts) = self.parts.take() else { return Ok(()) };
        let ended = tokio::task::spawn_blocking(move || end(parts)).await;
        ended.expect("ending a scratch server does not panic")
    }

    /// As if this process had been killed: the server runs on, the lock is free, nothing is removed.
    #[cfg(test)]
    pub(super) fn abandon(mut self) -> PathBuf {
        let parts = self.parts.take().expect("a cluster that runs has its parts");
        let data = parts.directory.join(DATA);
        parts.directory.abandon();
        data
    }

    async fn wait_until_ready(&mut self, cancel: &CancellationToken) -> Result<(), ScratchError> {
        let parts = self.parts.as_mut().expect("a cluster that runs has its parts");
        let directory = parts.directory.path().to_owned();
        let mut seen = (progress(&directory), Instant::now());
        loop {
            let exited = parts.postmaster.try_wait();
            if !matches!(exited, Ok(None)) {
                let log = log_tail(&directory);
                return Err(ScratchError::Server { program: "postgres", log });
            }
            if is_ready(&directory) && Session::connect(&self.connection, "scratch").await.is_ok() {
                return Ok(());
            }
            let now = progress(&directory);
            if now != seen.0 {
                seen = (now, Instant::now());
            } else if seen.1.elapsed() > STALL {
                let log = format!("it does not come up; {}", log_tail(&directory));
                return Err(ScratchError::Server { program: "postgres", log });
            }
            tokio::select! {
                () = cancel.cancelled() => return Err(ScratchError::Interrupted),
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }
}

impl Drop for ScratchCluster {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            let _ = end(parts);
        }
    }
}

fn end(mut parts: Parts) -> Result<(), ScratchError> {
    postmaster::end(&parts.directory.join(DATA));
    // Reaps it; a zombie would be counted against this process until it ends.
    let _ = parts.postmaster.try_wait();
    parts.directory.remove()
}

/// The programs of a server, in its directory, under its account, in an environment of its own.
struct ServerProcess<'a> {
    directory: &'a ScratchDirectory,
    account: Option<&'a Account>,
}

impl ServerProcess<'_> {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // Nothing of ours is inherited: a copy's own code must find no key and no password.
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("HOME", self.directory.path());
        for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.current_dir(self.directory.path()).stdin(Stdio::null()).process_group(0);
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    async fn initdb(
        &self,
        programs: &Programs,
        data: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), ScratchError> {
        let mut spec = ChildSpec::new(programs.program("initdb")?)
            .arg("--pgdata")
            .arg(data)
            .args(["--username", SUPERUSER, "--auth=trust"])
            .args(["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"])
            .current_dir(self.directory.path())
            .run_as(self.account.map(|account| (account.uid, account.gid)));
        // 18 turned them on by default; what is thrown away needs none.
        if programs.major() >= 18 {
            spec = spec.arg("--no-data-checksums");
        }
        let mut child = Child::spawn(spec)?;
        let exit = tokio::select! {
            () = cancel.cancelled() => {
                // With all it started, so that nothing writes any more when the directory goes.
                child.stop().await?;
                return Err(ScratchError::Interrupted);
            }
            exit = child.exit() => exit?,
        };
        if exit.code == Some(0) {
            return Ok(());
        }
        let log = one_line(&exit.stderr);
        Err(ScratchError::Server { program: "initdb", log })
    }

    fn postgres(&self, plan: &Plan<'_>) -> Result<Process, ScratchError> {
        let postgres = plan.programs.program("postgres")?;
        let log_path = log_path(self.directory.path());
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&log_path);
        let log = log.map_err(ScratchError::io("cannot create", &log_path))?;
        let errors = log.try_clone().map_err(ScratchError::io("cannot open", &log_path))?;
        let mut command = self.command(&postgres);
        command.arg("-D").arg(plan.data);
        for (name, value) in settings(plan) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(log).stderr(errors);
        command.spawn().map_err(ScratchError::io("cannot run", &postgres))
    }
}

/// The settings of the command line, which no file and no `ALTER SYSTEM` can overrule.
fn settings(plan: &Plan<'_>) -> Vec<(&'static str, String)> {
    let given = |settings: &[(&'static str, &str)]| {
        settings.iter().map(|&(name, value)| (name, value.to_owned())).collect::<Vec<_>>()
    };
    let mut all = given(&ISOLATION);
    match plan.stage {
        None => all.extend(given(&HASTE)),
        Some(_) => all.extend(given(&STAGE)),
    }
    let memory = plan.memory;
    all.push(("unix_socket_directories", plan.socket_dir.display().to_string()));
    all.push(("port", plan.port.to_string()));
    all.push(("shared_buffers", format!("{}kB", memory.shared_buffers_bytes >> 10)));
    all.push(("maintenance_work_mem", format!("{}kB", memory.maintenance_bytes >> 10)));
    // Of one setting the last counts.
    all.extend(plan.stage.into_iter().flatten().cloned());
    all
}

/// What holds for every scratch cluster.
const ISOLATION: [(&str, &str); 15] = [
    // Rule 11: a copy never acts.
    ("archive_mode", "off"),
    ("max_wal_senders", "0"),
    ("max_logical_replication_workers", "0"),
    ("synchronous_standby_names", ""),
    ("shared_preload_libraries", ""),
    ("autovacuum", "off"),
    ("restart_after_crash", "off"),
    // Segments of dynamic shared memory in the data directory go with it, and need no /dev/shm, which
    // is small in containers.
    ("dynamic_shared_memory_type", "mmap"),
    ("unix_socket_permissions", "0700"),
    // A snapshot of what was imported locks every table at once, as many as there may be.
    ("max_locks_per_transaction", "1024"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("ssl", "off"),
    ("max_connections", "40"),
    ("listen_addresses", ""),
];

/// What is thrown away need not survive a crash.
const HASTE: [(&str, &str); 10] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("wal_level", "minimal"),
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
    ("wal_init_zero", "off"),
    ("wal_recycle", "off"),
    ("bgwriter_lru_maxpages", "0"),
    ("jit", "off"),
];

/// One that a command works on. What makes it durable stands in its file, since it comes later.
const STAGE: [(&str, &str); 6] = [
    ("listen_addresses", LOOPBACK),
    ("password_encryption", "scram-sha-256"),
    ("wal_level", "replica"),
    ("max_connections", "100"),
    ("log_connections", "on"),
    // Whence it comes stands before each line.
    ("log_line_prefix", "%h "),
];

/// Off while the copy is loaded, on while the command works.
const DURABILITY: [&str; 3] = ["fsync", "synchronous_commit", "full_page_writes"];

/// What the server says, in English, where its port was taken meanwhile.
const PORT_TAKEN: &str = "could not create any TCP/IP sockets";

/// `initdb --auth=trust` would let everybody in who comes to that port.
const STAGE_RULES: &str = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";

fn prepare_stage(data: &Path) -> Result<(), ScratchError> {
    let rules = data.join("pg_hba.conf");
    fs::write(&rules, STAGE_RULES).map_err(ScratchError::io("cannot write", &rules))?;
    append_settings(data, "off")
}

/// Of one setting the last in the file counts.
fn append_settings(data: &Path, value: &str) -> Result<(), ScratchError> {
    let path = data.join("postgresql.conf");
    let lines: String = DURABILITY.map(|name| format!("{name} = {value}\n")).concat();
    let file = OpenOptions::new().append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(lines.as_bytes()));
    written.map_err(ScratchError::io("cannot write", &path))
}

fn free_port() -> Result<u16, ScratchError> {
    let bound = std::net::TcpListener::bind((LOOPBACK, 0)).and_then(|one| one.local_addr());
    let address = bound.map_err(ScratchError::io("cannot listen on", Path::new(LOOPBACK)))?;
    Ok(address.port())
}

/// A line of several begins with a blank, so that no statement can pass for one.
fn visits_in(log: &str) -> usize {
    let of_network = log.lines().filter_map(|line| line.strip_prefix(LOOPBACK));
    of_network.filter(|line| line.starts_with(" LOG:  connection authorized: ")).count()
}

fn make_private(path: &Path, owner: Option<&Account>) -> Result<(), ScratchError> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(ScratchError::io("cannot create", path))?;
    if let Some(account) = owner {
        std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
            .map_err(ScratchError::io("cannot give away", path))?;
    }
    Ok(())
}

fn log_path(directory: &Path) -> PathBuf {
    directory.join("server.log")
}

/// `postmaster.pid`'s eighth line; the socket exists before the server takes connections.
fn is_ready(directory: &Path) -> bool {
    let text = fs::read_to_string(directory.join(DATA).join("postmaster.pid"));
    text.is_ok_and(|text| text.lines().nth(7).is_some_and(|status| status.trim() == "ready"))
}

/// What changes while a server starts.
fn progress(directory: &Path) -> (u64, u64) {
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    (size(&log_path(directory)), size(&directory.join(DATA).join("postmaster.pid")))
}

fn log_tail(directory: &Path) -> String {
    let read = || {
        let mut file = fs::File::open(log_path(directory))?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok::<_, std::io::Error>(tail)
    };
    one_line(&String::from_utf8_lossy(&read().unwrap_or_default()))
}

/// Whether a line of a server's log gives a statement in its own words: they may hold passwords and what rows hold.
fn holds_statement(line: &str) -> bool {
    ["STATEMENT:  ", "QUERY:  ", "CONTEXT:  ", "DETAIL:  Failed process was running"]
        .iter()
        .any(|words| line.contains(words))
}

/// The last lines of a program's words as one, for an error that must be one line.
fn one_line(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('\t') && !holds_statement(line));
    let lines: Vec<&str> = lines.map(str::trim).filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(4);
    if lines.is_empty() { "it said nothing".to_owned() } else { lines[from..].join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_takes_a_modest_share_of_the_machine() {
        let small = ServerMemory::of(100 << 20);
        assert_eq!((small.shared_buffers_bytes, small.maintenance_bytes), (32 << 20, 32 << 20));
        let large = ServerMemory::of(1 << 40);
        assert_eq!((large.shared_buffers_bytes, large.maintenance_bytes), (1 << 30, 512 << 20));
    }

    #[test]
    fn the_settings_keep_a_copy_from_acting() {
        let programs = super::super::test_support::programs();
        let memory = ServerMemory::of(1 << 30);
        let (data, socket_dir) = (Path::new("/d"), Path::new("/s"));
        let plan = Plan { programs: &programs, data, socket_dir, port: 1, memory, stage: None };
        let told = |plan: &Plan<'_>, wanted: &str| {
            let all = settings(plan);
            // As the server reads them.
            all.into_iter().rfind(|(name, _)| *name == wanted).map(|(_, value)| value)
        };
        let own = [("shared_buffers", "77MB".to_owned())];
        let stage = Plan { stage: Some(&own), ..plan };
        for plan in [&plan, &stage] {
            for (name, value) in [
                ("archive_mode", "off"),
                ("max_logical_replication_workers", "0"),
                ("shared_preload_libraries", ""),
                ("unix_socket_directories", "/s"),
            ] {
                assert_eq!(told(plan, name).as_deref(), Some(value));
            }
        }
        assert_eq!(told(&plan, "listen_addresses").as_deref(), Some(""));
        assert_eq!(told(&stage, "listen_addresses").as_deref(), Some("127.0.0.1"));
        assert_eq!(told(&stage, "shared_buffers").as_deref(), Some("77MB"));
        assert_eq!((told(&plan, "fsync").as_deref(), told(&stage, "fsync")), (Some("off"), None));
    }

    #[test]
    fn only_who_came_over_the_network_and_was_let_in_was_there() {
        let log = "[local] LOG:  connection authorized: user=postgres database=shop\n\
            127.0.0.1 LOG:  connection received: host=127.0.0.1 port=1\n\
            127.0.0.1 FATAL:  password authentication failed for user \"app\"\n\
            \t127.0.0.1 LOG:  connection authorized: user=app\n";
        assert_eq!(visits_in(log), 0);
        let there = "127.0.0.1 LOG:  connection authorized: user=app database=shop\n";
        assert_eq!(visits_in(&format!("{log}{there}")), 1);
    }

    #[test]
    fn the_last_words_of_a_program_become_one_line() {
        assert_eq!(one_line("a\n\n b\nc\nd\ne\n"), "b; c; d; e");
        assert_eq!(one_line("\n"), "it said nothing");
        let crashed = "a LOG:  server process was terminated by signal 9\n\
            a DETAIL:  Failed process was running: ALTER ROLE app\n\tPASSWORD 'secret';\na LOG:  shutting down\n";
        let told = "a LOG:  server process was terminated by signal 9; a LOG:  shutting down";
        assert_eq!(one_line(crashed), told);
    }
}
