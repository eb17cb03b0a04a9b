//! A rehearsed command: in a process group of its own, without our terminal, so that nothing of it outlives the copy.
//!
//! What a SIGKILL of pgkeep leaves: the command, whose server the next run ends.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::environment::Changes;
use crate::domain::migration::CommandEnd;
use crate::guard::program::seen_to_end;

/// How long one that was asked to end may take.
const GRACE: Duration = Duration::from_secs(5);

/// A command at work. Dropped, it is killed with all that it started in its group.
pub(super) struct Apart {
    child: Child,
    group: Pid,
    begun: Instant,
    reaped: bool,
}

impl Apart {
    /// Starts it; both of its outputs are our stderr.
    pub(super) fn start(
        program: &Path,
        arguments: &[String],
        changes: &Changes,
        directory: &Path,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory).process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?));
        for (name, value) in changes {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let begun = Instant::now();
        let child = command.spawn()?;
        let group = Pid::from_child(&child);
        Ok(Self { child, group, begun, reaped: false })
    }

    /// Waits for its end, and then ends what it left in its group.
    pub(super) async fn ended(&mut self) -> io::Result<CommandEnd> {
        let pid = self.group;
        tokio::task::spawn_blocking(move || seen_to_end(pid)).await.map_err(io::Error::other)??;
        let took = self.begun.elapsed();
        // Before it is reaped: until then the group's number is its own.
        let _ = kill_process_group(self.group, Signal::KILL);
        let status = self.child.wait()?;
        self.reaped = true;
        let signal = status.signal();
        let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(1);
        Ok(CommandEnd {
            exit_code: u8::try_from(code).unwrap_or(u8::MAX),
            signal,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Asks it to end, and kills it where it does not.
    pub(super) async fn stop(&mut self) {
        if self.reaped {
            return;
        }
        let _ = kill_process_group(self.group, Signal::TERM);
        if tokio::time::timeout(GRACE, self.ended()).await.is_err() {
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.ended().await;
        }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> Apart {
        let arguments = ["-c".to_owned(), script.to_owned()];
        let changes = [("OWN".to_owned(), Some("7".to_owned())), ("HOME".to_owned(), None)];
        let root = Path::new("/");
        Apart::start(Path::new("/bin/sh"), &arguments, &changes.into(), root).expect("it starts")
    }

    #[tokio::test]
    async fn it_has_its_own_variables_and_ends_with_all_it_started() {
        let mut apart = start("test -z \"$HOME\" && exit $OWN");
        assert_eq!(apart.ended().await.expect("an end").exit_code, 7);
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("child");
        let mut apart = start(&format!("sleep 60 & echo $! >{}; exit 3", file.display()));
        assert_eq!(apart.ended().await.expect("an end").exit_code, 3);
        let child = std::fs::read_to_string(&file).expect("its number");
        let stat = format!("/proc/{}/stat", child.trim());
        let gone = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z"));
        let begun = Instant::now();
        while gone() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn one_that_is_stopped_is_asked_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let (ready, asked) = (directory.path().join("ready"), directory.path().join("asked"));
        let script = format!(
            "trap 'touch {}; exit 0' TERM; touch {}; while :; do sleep 0.05; done",
            asked.display(),
            ready.display()
        );
        let mut apart = start(&script);
        while !ready.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        apart.stop().await;
        assert!(asked.exists());
    }
}
