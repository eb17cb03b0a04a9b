//! The real PgBouncer in front of a test server.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::eventually;
use super::server::{Server, account};

/// A running pooler; ended when the test drops it.
#[derive(Debug)]
pub(crate) struct Pooler {
    /// The server as it is reached through the pooler.
    pub(crate) server: Server,
    process: Child,
    _dir: TempDir,
}

impl Pooler {
    /// Starts one with that `pool_mode` and further lines of configuration.
    #[track_caller]
    pub(crate) fn start(server: &Server, mode: &str, more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("pooler-").tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::File::create(&path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .expect("a file");
            path
        };
        let users = write("users", format!("\"postgres\" \"{}\"\n", server.password));
        let configuration = write(
            "pgbouncer.ini",
            format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
                 auth_file = {}\npool_mode = {mode}\n{more}\n",
                server.port,
                users.display()
            ),
        );
        let (user, group) = account();
        for path in [dir.path(), &users, &configuration] {
            chown(path, user, group).expect("the servers' user can own it");
        }
        let passable = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), passable).expect("a mode");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
        // PgBouncer refuses root.
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
        let program = program.iter().find(|path| std::path::Path::new(path).exists());
        let mut command = Command::new(program.expect("pgbouncer is installed by tests/setup"));
        command.arg(&configuration).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        if let (Some(user), Some(group)) = (user, group) {
            command.uid(user).gid(group);
        }
        drop(listener);
        let process = command.spawn().expect("pgbouncer starts");
        let pooled = Server { port, ..server.clone() };
        eventually("the pooler answers", Duration::from_secs(20), || {
            pooled.try_psql("postgres", "SELECT 1").is_ok()
        });
        Self { server: pooled, process, _dir: dir }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
