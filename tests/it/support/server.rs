//! PostgreSQL servers: two that all tests share, and clusters of one's own for tests that break them.
//!
//! `tests/run` starts the shared ones and tells of them in `TEST_PG…`. A missing server is a failure.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::ops::Deref;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::eventually;

/// A variable of the harness.
#[track_caller]
fn told(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `make test`, or `tests/run cargo test`"))
}

/// A word that no other test of this run uses.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{name}_t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A name as SQL writes it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Every byte that is not plain, as a URL writes it.
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes it");
        }
    }
    encoded
}

/// A running server and how to speak to it as its superuser.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// 15 or 17 (16 and 18 in the matrix).
    pub(crate) major: u32,
    /// Of the TCP listener on 127.0.0.1.
    pub(crate) port: u16,
    /// The superuser's.
    pub(crate) password: String,
    /// The directory of its unix socket.
    pub(crate) socket: PathBuf,
    /// The directory of its programs.
    pub(crate) bin: PathBuf,
}

impl Server {
    /// The shared server of the older major (PostgreSQL 15, unless the matrix says another).
    #[track_caller]
    pub(crate) fn older() -> Self {
        Self::shared(majors().0)
    }

    /// The shared server of the newer major (PostgreSQL 17).
    #[track_caller]
    pub(crate) fn newer() -> Self {
        Self::shared(majors().1)
    }

    #[track_caller]
    fn shared(major: u32) -> Self {
        let url = told(&format!("TEST_PG{major}_URL"));
        let address = url.rsplit_once('@').expect("user and password, then the address").1;
        let port = address.split_once(':').and_then(|(_, rest)| rest.split('/').next());
        Self {
            major,
            port: port.and_then(|port| port.parse().ok()).expect("a port in the URL"),
            password: told("TEST_PG_PASSWORD"),
            socket: told(&format!("TEST_PG{major}_SOCKET")).into(),
            bin: told(&format!("TEST_PG{major}_BIN")).into(),
        }
    }

    /// The superuser's URL of that database.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_as("postgres", &self.password, database)
    }

    /// Another role's URL.
    pub(crate) fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        let [user, password, database] = [user, password, database].map(percent_encoded);
        format!("postgresql://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// One of the server's own programs, with a clean environment that leads to `database`.
    pub(crate) fn program(&self, name: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("PGCLIENTENCODING", "UTF8")
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", &self.password)
            .env("PGDATABASE", database);
        command
    }

    /// Runs SQL with the real `psql`; rows are lines, columns parted by `|`. An error fails the test.
    #[track_caller]
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|error| panic!("psql {database}: {error}"))
    }

    /// As [`Self::psql`], but an error is handed back.
    pub(crate) fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = self.program("psql", database);
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        let (code, stdout, stderr) = run_with_input(psql, sql.as_bytes());
        if code == Some(0) {
            Ok(String::from_utf8_lossy(&stdout).trim_end_matches('\n').to_owned())
        } else {
            Err(String::from_utf8_lossy(&stderr).into_owned())
        }
    }

    /// A database of this test alone, dropped at its end with whatever `restore` left beside it.
    #[track_caller]
    pub(crate) fn database(&self, name: &str) -> Database {
        let name = unique(name);
        self.psql("postgres", &format!("CREATE DATABASE {}", quoted(&name)));
        Database { server: self.clone(), name }
    }

    /// A role of this test alone that may log in, dropped at its end.
    #[track_caller]
    pub(crate) fn role(&self, name: &str, password: &str) -> Role {
        let name = unique(name);
        let sql = format!(
            "CREATE ROLE {} LOGIN PASSWORD '{}'",
            quoted(&name),
            password.replace('\'', "''")
        );
        self.psql("postgres", &sql);
        Role { server: self.clone(), name, password: password.to_owned() }
    }

    /// Whether the database is there.
    #[track_caller]
    pub(crate) fn has_database(&self, name: &str) -> bool {
        !self.databases_like(name).is_empty()
    }

    /// The databases whose name begins so, in order.
    #[track_caller]
    pub(crate) fn databases_like(&self, beginning: &str) -> Vec<String> {
        let all = "SELECT datname FROM pg_database ORDER BY datname";
        let all = self.psql("postgres", all);
        all.lines().filter(|name| name.starts_with(beginning)).map(str::to_owned).collect()
    }

    /// What is in the database, as `psql` alone sees it: per table its rows and a hash of them all, then
    /// sequences and large objects. Independent of how pgkeep compares.
    #[track_caller]
    pub(crate) fn contents(&self, database: &str) -> String {
        self.psql(database, include_str!("../sql/contents.sql"))
    }
}

/// The two majors of this run, older and newer.
#[track_caller]
pub(crate) fn majors() -> (u32, u32) {
    let mut majors: Vec<u32> =
        told("TEST_PG_MAJORS").split_whitespace().filter_map(|word| word.parse().ok()).collect();
    majors.sort_unstable();
    match majors[..] {
        [older, .., newer] => (older, newer),
        _ => panic!("TEST_PG_MAJORS must name two majors"),
    }
}

/// Runs a command to its end with that input; exit code, stdout, stderr.
pub(crate) fn run_with_input(
    mut command: Command,
    input: &[u8],
) -> (Option<i32>, Vec<u8>, Vec<u8>) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().to_owned();
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let mut stdin = child.stdin.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    std::thread::scope(|scope| {
        // A program that ends early does not read all of it; its exit code tells.
        scope.spawn(move || drop(stdin.write_all(input)));
        let errors = scope.spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).expect("its words can be read");
            text
        });
        let output = child.wait_with_output().expect("a child can be waited for");
        (output.status.code(), output.stdout, errors.join().expect("the reader ends"))
    })
}

/// A database of one test.
#[derive(Debug)]
pub(crate) struct Database {
    /// Where it is.
    pub(crate) server: Server,
    /// Its whole name.
    pub(crate) name: String,
}

impl Database {
    /// The superuser's URL.
    pub(crate) fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// Runs SQL in it.
    #[track_caller]
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.server.psql(&self.name, sql)
    }

    /// What is in it.
    #[track_caller]
    pub(crate) fn contents(&self) -> String {
        self.server.contents(&self.name)
    }

    /// The disaster.
    #[track_caller]
    pub(crate) fn drop_now(&self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", quoted(&self.name));
        self.server.psql("postgres", &sql);
    }

    /// How it is defined: the schema as `pg_dump` of its own server writes it.
    #[track_caller]
    pub(crate) fn definition(&self) -> String {
        let mut pg_dump = self.server.program("pg_dump", &self.name);
        pg_dump.args(["--schema-only", "--create"]);
        let (code, stdout, stderr) = run_with_input(pg_dump, b"");
        assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&stderr));
        // Newer minors draw a key for each script.
        let drawn = |line: &&str| !line.contains("restrict ") && !line.starts_with("--");
        String::from_utf8_lossy(&stdout).lines().filter(drawn).collect::<Vec<_>>().join("\n")
    }

    /// Makes one of everything that a dump can hold.
    #[track_caller]
    pub(crate) fn nasty(&self) -> &Self {
        self.psql(include_str!("../sql/nasty.sql"));
        self
    }

    /// Makes the tables of a small shop with that many orders.
    #[track_caller]
    pub(crate) fn shop(&self, orders: u32) -> &Self {
        let script = include_str!("../sql/shop.sql").replace(":orders", &orders.to_string());
        self.psql(&script);
        self
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let like = self.name.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
        // Copies beside it too: `<name>_before_<id>` and names the test gave after its own.
        let sql = format!(
            "SELECT format('DROP DATABASE IF EXISTS %I WITH (FORCE)', datname) FROM pg_database \
             WHERE datname = '{name}' OR datname LIKE '{like}\\_%' \\gexec",
            name = self.name.replace('\'', "''"),
            like = like.replace('\'', "''"),
        );
        // A server that the test has ended has no databases to drop.
        drop(self.server.try_psql("postgres", &sql));
    }
}

/// A role of one test.
#[derive(Debug)]
pub(crate) struct Role {
    server: Server,
    /// Its whole name.
    pub(crate) name: String,
    /// Its password.
    pub(crate) password: String,
}

impl Role {
    /// Its URL of that database.
    pub(crate) fn url(&self, database: &str) -> String {
        self.server.url_as(&self.name, &self.password, database)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let role = quoted(&self.name);
        drop(self.server.try_psql("postgres", &format!("DROP OWNED BY {role}; DROP ROLE {role}")));
    }
}

/// A server of one test, that it may stop, kill and configure.
#[derive(Debug)]
pub(crate) struct Cluster {
    server: Server,
    dir: TempDir,
    postmaster: Option<Child>,
    options: Vec<String>,
}

impl Deref for Cluster {
    type Target = Server;
    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Cluster {
    /// A copy of this run's `initdb` of the older major, started.
    #[track_caller]
    pub(crate) fn older(options: &[&str]) -> Self {
        Self::own(majors().0, options)
    }

    /// The same of the newer major.
    #[track_caller]
    pub(crate) fn newer(options: &[&str]) -> Self {
        Self::own(majors().1, options)
    }

    #[track_caller]
    fn own(major: u32, options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("cluster-").tempdir().expect("a directory");
        let (user, group) = account();
        chown(dir.path(), user, group).expect("the servers' user can own it");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        let template = told(&format!("TEST_PG{major}_TEMPLATE"));
        let copied = Command::new("cp")
            .args([OsStr::new("-a"), template.as_ref(), dir.path().join("data").as_ref()])
            .status()
            .expect("cp runs");
        assert!(copied.success(), "the template of PostgreSQL {major} cannot be copied");
        let mut cluster = Self {
            server: Server {
                major,
                port: 0,
                password: told("TEST_PG_PASSWORD"),
                socket: dir.path().to_owned(),
                bin: told(&format!("TEST_PG{major}_BIN")).into(),
            },
            dir,
            postmaster: None,
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        cluster.start();
        cluster
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts it on a free port (a new one each time) and waits until it answers.
    #[track_caller]
    pub(crate) fn start(&mut self) {
        for _ in 0..5 {
            // The port can be taken between the two lines; then the server ends and another is tried.
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            self.server.port = listener.local_addr().expect("its address").port();
            drop(listener);
            let mut postmaster = self.spawn();
            let mut ended = false;
            eventually("the server answers", Duration::from_mins(1), || {
                ended = postmaster.try_wait().expect("a child can be asked").is_some();
                ended || self.server.try_psql("postgres", "SELECT 1").is_ok()
            });
            if !ended {
                self.postmaster = Some(postmaster);
                return;
            }
        }
        panic!("the server does not start: {}", self.log());
    }

    fn spawn(&self) -> Child {
        let mut command = Command::new(self.server.bin.join("postgres"));
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path());
        command.args(["-p", &self.server.port.to_string()]);
        // What was committed survives `kill`: no test is to lose rows to the template's haste.
        command.args(["-c", "synchronous_commit=on"]);
        for option in &self.options {
            command.args(["-c", option]);
        }
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log file");
        command.current_dir("/").env_clear().env("LC_ALL", "C.UTF-8").env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A group of its own: what ends the test's programs does not end the server under them.
        command.process_group(0);
        if rustix::process::geteuid().is_root() {
            let (user, group) = account();
            command.uid(user.expect("told")).gid(group.expect("told"));
        }
        command.spawn().expect("postgres starts")
    }

    /// What the server said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        // SIGQUIT, not SIGKILL: the postmaster takes its children with it, without a checkpoint.
        self.stop(Signal::QUIT);
    }

    /// Ends it with that signal: SIGINT is `pg_ctl stop -m fast`, SIGQUIT `-m immediate`.
    pub(crate) fn stop(&mut self, signal: Signal) {
        if let Some(mut postmaster) = self.postmaster.take() {
            let id = i32::try_from(postmaster.id()).ok().and_then(Pid::from_raw);
            if let Some(id) = id {
                kill_process(id, signal).expect("a child can be signalled");
            }
            drop(postmaster.wait());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whom servers run under, when that is another user than the test's.
pub(crate) fn account() -> (Option<u32>, Option<u32>) {
    if rustix::process::geteuid().is_root() {
        let id = |name| Some(told(name).parse().expect("a number"));
        (id("TEST_PG_UID"), id("TEST_PG_GID"))
    } else {
        (None, None)
    }
}

/// Whether any process works in that directory (for what must not be left behind).
pub(crate) fn processes_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let wanted = directory.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        if line.windows(wanted.len()).any(|window| window == wanted) {
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

/// Client programs of ours that speak to a server at that port.
pub(crate) fn programs_at(port: u16) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let wanted = format!("PGPORT={port}");
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(variables) = std::fs::read(entry.path().join("environ")) else { continue };
        if variables.split(|&byte| byte == 0).any(|one| one == wanted.as_bytes()) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}
