//! Runs the built `pgkeep` as a user would: a home and a repository of its own, a clean environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::s3_server::S3Place;
use super::server::{Server, processes_in};

/// No command of a test takes this long; one that does hangs.
const LIMIT: Duration = Duration::from_mins(3);

/// One user of pgkeep: `PGKEEP_HOME`, a repository, and the database he means.
pub(crate) struct Keeper {
    dir: TempDir,
    environment: BTreeMap<OsString, OsString>,
    /// Where a bucket's objects lie as files.
    bucket: Option<PathBuf>,
}

impl Keeper {
    /// Nothing but the environment yet.
    pub(crate) fn new(url: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("keeper-").tempdir().expect("a directory");
        let mut keeper = Self { dir, environment: BTreeMap::new(), bucket: None };
        // Scratch clusters run under the servers' user, who must be able to pass.
        let passable = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(keeper.dir.path(), passable).expect("a mode");
        for name in ["home", "work", "scratch"] {
            std::fs::create_dir(keeper.path(name)).expect("a directory");
        }
        let newer = Server::newer().bin;
        let path = format!("{}:{}:/usr/bin:/bin", Server::older().bin.display(), newer.display());
        let (home, repository) = (keeper.path("home"), keeper.repository_url());
        let scratch = keeper.path("scratch");
        keeper
            .set("PATH", path)
            .set("HOME", &home)
            .set("LC_ALL", "C.UTF-8")
            .set("NO_COLOR", "1")
            .set("TMPDIR", std::env::temp_dir())
            .set("PGKEEP_HOME", &home)
            .set("PGKEEP_BIN_DIR", newer)
            .set("PGKEEP_SCRATCH_DIR", scratch)
            .set("PGKEEP_REPOSITORY", repository)
            .set("PGKEEP_DATABASE_URL", url);
        keeper
    }

    /// With the repository in a bucket, spoken to at `endpoint`: by variables alone, and not for long.
    pub(crate) fn in_bucket(url: &str, place: &S3Place, endpoint: &str) -> Self {
        let mut keeper = Self::new(url);
        keeper.bucket = place.directory();
        keeper
            .set("PGKEEP_REPOSITORY", place.url())
            .set("PGKEEP__REPOSITORY__IDLE_TIMEOUT", "2s")
            .set("PGKEEP__REPOSITORY__RETRY_FOR", "10s")
            .set("AWS_ENDPOINT_URL", endpoint)
            .set("AWS_REGION", &place.region)
            .set("AWS_ACCESS_KEY_ID", &place.access_key)
            .set("AWS_SECRET_ACCESS_KEY", &place.secret_key);
        keeper
    }

    /// After `pgkeep init`.
    #[track_caller]
    pub(crate) fn initialised(url: &str) -> Self {
        let keeper = Self::new(url);
        keeper.pgkeep(["init"]).run().expect_code(0);
        keeper
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `PGKEEP_HOME`.
    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A directory for the test's own files; commands run in it.
    pub(crate) fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// Where copies are proved.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.path("scratch")
    }

    /// Where the repository lies.
    pub(crate) fn repository(&self) -> PathBuf {
        self.bucket.clone().unwrap_or_else(|| self.path("repository"))
    }

    /// Its address.
    pub(crate) fn repository_url(&self) -> String {
        format!("file://{}", self.repository().display())
    }

    /// The file that `init` calls the recovery kit: an age identity with comments.
    #[track_caller]
    pub(crate) fn recovery_kit(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.home()).expect("the home can be read");
        let holds_identity = |path: &PathBuf| {
            std::fs::read_to_string(path).is_ok_and(|text| text.contains("AGE-SECRET-KEY-"))
        };
        let mut found = entries.flatten().map(|entry| entry.path()).filter(holds_identity);
        found.next().expect("init leaves the identity in its home")
    }

    /// One more variable for every later command.
    pub(crate) fn set(&mut self, name: &str, value: impl AsRef<OsStr>) -> &mut Self {
        self.environment.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// One variable less.
    pub(crate) fn unset(&mut self, name: &str) -> &mut Self {
        self.environment.remove(OsStr::new(name));
        self
    }

    /// A directory of client programs whose `pg_dump` misbehaves: `body` runs with the real one in `$REAL`.
    pub(crate) fn programs_with_pg_dump(&self, server: &Server, body: &str) -> PathBuf {
        self.programs_with("pg_dump", server, body)
    }

    /// The same of another program.
    pub(crate) fn programs_with(&self, name: &str, server: &Server, body: &str) -> PathBuf {
        let directory = self.work().join("programs");
        std::fs::create_dir(&directory).expect("a directory");
        for entry in std::fs::read_dir(&server.bin).expect("programs").flatten() {
            let link = directory.join(entry.file_name());
            std::os::unix::fs::symlink(entry.path(), link).expect("a link");
        }
        let program = directory.join(name);
        std::fs::remove_file(&program).expect("the link");
        let script = format!(
            "#!/bin/sh\nREAL={}/{name}\ncase $1 in --version|-V) exec $REAL --version ;; esac\n{body}\n",
            server.bin.display()
        );
        std::fs::write(&program, script).expect("a script");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a mode");
        directory
    }

    /// A command, not yet run.
    pub(crate) fn pgkeep<I, A>(&self, args: I) -> Pgkeep
    where
        I: IntoIterator<Item = A>,
        A: AsRef<OsStr>,
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgkeep"));
        command.env_clear().envs(&self.environment).current_dir(self.work()).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Pgkeep { command }
    }

    /// Runs a shell script with this user's environment (for the stock tools).
    pub(crate) fn shell(&self, script: &str) -> Pgkeep {
        let mut command = Command::new("/bin/sh");
        command.env_clear().envs(&self.environment).current_dir(self.work());
        command.args(["-euc", script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Pgkeep { command }
    }

    /// Takes a snapshot that must succeed; its document.
    #[track_caller]
    pub(crate) fn snapshot(&self) -> Value {
        self.pgkeep(["snapshot", "--json"]).run().expect_code(0).json()
    }

    /// Takes a snapshot that must succeed; its id.
    #[track_caller]
    pub(crate) fn snapshot_id(&self) -> String {
        self.snapshot()["id"].as_str().expect("a snapshot has an id").to_owned()
    }

    /// Verifies; every backup that is meant must pass, and there must be one.
    #[track_caller]
    pub(crate) fn verify(&self, args: &[&str]) {
        let output = self.pgkeep(["verify", "--json"]).args(args).run().expect_code(0);
        let documents = output.json_lines();
        if documents.is_empty() || documents.iter().any(|one| one["result"] != "passed") {
            output.fail("not everything passed");
        }
    }

    /// What `list` shows.
    #[track_caller]
    pub(crate) fn list(&self) -> Vec<Value> {
        let list = self.pgkeep(["list", "--json"]).run().expect_code(0).json();
        list.as_array().expect("`list` is an array").clone()
    }

    /// The ids that `list` shows.
    #[track_caller]
    pub(crate) fn listed(&self) -> Vec<String> {
        let id = |item: &Value| item["id"].as_str().expect("an item has an id").to_owned();
        self.list().iter().map(id).collect()
    }

    /// What a command left behind that should be gone: scratch directories and processes in them.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let scratch = self.path("scratch");
        let mut found = processes_in(&scratch);
        let entries = std::fs::read_dir(&scratch).into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().display().to_string()));
        found
    }

    /// Every object of the repository, sorted: key and path.
    pub(crate) fn objects(&self) -> Vec<(String, PathBuf)> {
        let root = self.repository();
        let mut found = Vec::new();
        collect(&root, &root, &mut found);
        found.sort();
        found
    }

    /// All of it but the audit trail, which failures leave their events in too.
    pub(crate) fn objects_but_events(&self) -> Vec<(String, PathBuf)> {
        self.objects().into_iter().filter(|(key, _)| !key.contains("/events/")).collect()
    }

    /// The objects whose key begins so.
    pub(crate) fn objects_under(&self, prefix: &str) -> Vec<(String, PathBuf)> {
        self.objects().into_iter().filter(|(key, _)| key.starts_with(prefix)).collect()
    }
}

fn collect(root: &Path, directory: &Path, found: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let key = path.strip_prefix(root).expect("below the root").display().to_string();
            found.push((key, path));
        }
    }
}

/// A command that can still be changed.
pub(crate) struct Pgkeep {
    command: Command,
}

impl Pgkeep {
    /// Further arguments.
    pub(crate) fn args<I, A>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: AsRef<OsStr>,
    {
        self.command.args(args);
        self
    }

    /// A variable for this command alone.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// A variable that this command lacks.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn spawn(mut self) -> Running {
        let words: Vec<_> = self.command.get_args().map(OsStr::to_string_lossy).collect();
        let line = words.join(" ");
        let mut child =
            self.command.spawn().unwrap_or_else(|error| panic!("`{line}` does not start: {error}"));
        let stdout = reader(child.stdout.take().expect("piped"));
        let stderr = reader(child.stderr.take().expect("piped"));
        Running { line, child, stdout, stderr }
    }
}

/// What a pipe has said so far.
struct Reader {
    said: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().expect("no reader panics")).into_owned()
    }

    fn whole(&mut self) -> String {
        self.thread.take().expect("read once").join().expect("the reader ends");
        self.text()
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> Reader {
    let said = Arc::<Mutex<Vec<u8>>>::default();
    let heard = Arc::clone(&said);
    let thread = std::thread::spawn(move || {
        let mut bytes = [0; 8192];
        loop {
            match pipe.read(&mut bytes).expect("a pipe can be read") {
                0 => return,
                count => heard.lock().expect("nobody panics").extend_from_slice(&bytes[..count]),
            }
        }
    });
    Reader { said, thread: Some(thread) }
}

/// A command at work; killed when the test drops it.
pub(crate) struct Running {
    line: String,
    child: Child,
    stdout: Reader,
    stderr: Reader,
}

impl Running {
    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// What it has said on stdout so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for its end; the most memory it was seen to hold, in MiB (`VmHWM`).
    #[track_caller]
    pub(crate) fn wait_and_weigh(mut self) -> (Output, u64) {
        let status = format!("/proc/{}/status", self.child.id());
        let mut peak_kib = 0;
        while !self.has_ended() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
            peak_kib = peak_kib.max(number.unwrap_or(0));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(peak_kib > 0, "{status} tells VmHWM");
        (self.wait(), peak_kib / 1024)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.expect("a process id"), signal)
            .expect("a signal can be sent to a child that was not waited for");
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Output {
        let start = Instant::now();
        while !self.has_ended() {
            if start.elapsed() > LIMIT {
                drop(self.child.kill());
                panic!("`{}` hangs: {}", self.line, self.stderr.text());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.child.wait().expect("it has ended");
        Output {
            line: std::mem::take(&mut self.line),
            // As a shell would say it.
            code: status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1),
            stdout: self.stdout.whole(),
            stderr: self.stderr.whole(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    line: String,
    /// Its exit code, 128 and the signal's number where a signal ended it.
    pub(crate) code: i32,
    /// What scripts read.
    pub(crate) stdout: String,
    /// What people read.
    pub(crate) stderr: String,
}

impl Output {
    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        let Self { line, code, stdout, stderr } = self;
        panic!("`{line}`: {why}; exit {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }

    /// It ended with that code.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        if self.code != code {
            self.fail(&format!("expected exit {code}"));
        }
        self
    }

    /// It failed with that code, said so in one line that holds all `words`, and gave a hint.
    #[track_caller]
    pub(crate) fn expect_failure(self, code: i32, words: &[&str]) -> Self {
        let output = self.expect_code(code);
        let said = if let Some(error) = output.error() {
            if error["hint"].as_str().is_none_or(str::is_empty) {
                output.fail("no hint");
            }
            if error["exit_code"] != code {
                output.fail("the document tells another exit code");
            }
            error["message"].as_str().unwrap_or_default().to_owned()
        } else {
            if !output.stderr.lines().any(|line| line.trim_start().starts_with("hint: ")) {
                output.fail("no hint");
            }
            output.stderr.clone()
        };
        for word in words {
            if !said.contains(word) {
                output.fail(&format!("`{word}` is not in the message"));
            }
        }
        if output.stderr.contains("panicked") {
            output.fail("it panicked");
        }
        output
    }

    /// The one document on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| self.fail(&format!("stdout is not one document ({error})")))
    }

    /// One document per line.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|_| self.fail("a line is no document"))
        };
        self.stdout.lines().map(parse).collect()
    }

    /// What a failure under `--json` says.
    pub(crate) fn error(&self) -> Option<Value> {
        let last = self.stdout.lines().last()?;
        serde_json::from_str::<Value>(last).ok()?.get("error").cloned()
    }
}
