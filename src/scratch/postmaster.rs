//! Ends a scratch server, known by its data directory and by nothing else.
//!
//! A pid alone proves nothing: the number may belong to another process by now. A process is the server's
//! when it works in that data directory, or was started with it as an argument (every PostgreSQL process
//! changes into its data directory; where the kernel hides that from us, the command line still tells the
//! postmaster).

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long an immediate shutdown may take: the postmaster itself kills what lingers after five seconds.
const QUIT_WAIT: Duration = Duration::from_secs(8);
const KILL_WAIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Ends the server of `data_dir` with all its processes: an immediate shutdown, then SIGKILL.
///
/// True when none is left. A directory without a server is success.
pub(super) fn end(data_dir: &Path) -> bool {
    let Ok(data_dir) = data_dir.canonicalize() else { return true };
    // Asked to quit, the postmaster clears its shared memory away; a killed one would leak it.
    if let Some(pid) = postmaster(&data_dir) {
        let _ = kill_process(pid, Signal::QUIT);
        if gone_within(&data_dir, QUIT_WAIT) {
            return true;
        }
    }
    for pid in processes(&data_dir) {
        let _ = kill_process(pid, Signal::KILL);
    }
    gone_within(&data_dir, KILL_WAIT)
}

fn gone_within(data_dir: &Path, wait: Duration) -> bool {
    let deadline = Instant::now() + wait;
    while !processes(data_dir).is_empty() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// The pid in `postmaster.pid`, when that file names this directory and that process is its server.
fn postmaster(data_dir: &Path) -> Option<Pid> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok().and_then(Pid::from_raw)?;
    let same = Path::new(lines.next()?).canonicalize().is_ok_and(|named| named == data_dir);
    (same && belongs(pid, data_dir)).then_some(pid)
}

/// All processes of the server; without `/proc` only the postmaster can be told.
fn processes(data_dir: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return postmaster(data_dir).into_iter().collect();
    };
    let pid = |entry: fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
    entries.flatten().filter_map(pid).filter(|pid| belongs(*pid, data_dir)).collect()
}

fn belongs(pid: Pid, data_dir: &Path) -> bool {
    let number = pid.as_raw_nonzero();
    if !Path::new("/proc/self").exists() {
        return shown_by_ps(pid, data_dir);
    }
    if fs::read_link(format!("/proc/{number}/cwd")).is_ok_and(|cwd| cwd == data_dir) {
        return true;
    }
    let wanted = data_dir.as_os_str().as_encoded_bytes();
    let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0);
    let server = words.next().is_some_and(|program| program.ends_with(b"postgres"));
    server && words.any(|word| word == wanted)
}

fn shown_by_ps(pid: Pid, data_dir: &Path) -> bool {
    let number = pid.as_raw_nonzero().to_string();
    let output = std::process::Command::new("ps").args(["-o", "command=", "-p", &number]).output();
    let Some(wanted) = data_dir.to_str() else { return false };
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(wanted))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_elsewhere_is_never_ended_whatever_the_pid_file_says() {
        let root = tempfile::tempdir().expect("a directory");
        let data = root.path().join("data");
        fs::create_dir(&data).expect("a directory");
        let mut stranger =
            Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("a process");
        fs::write(data.join("postmaster.pid"), format!("{}\n{}\n", stranger.id(), data.display()))
            .expect("a file");
        assert!(end(&data));
        assert!(stranger.try_wait().expect("a state").is_none(), "it was killed");
        stranger.kill().expect("killed");
        stranger.wait().expect("reaped");
    }

    #[test]
    fn a_process_that_works_in_the_directory_is_ended() {
        let root = tempfile::tempdir().expect("a directory");
        let mut server = Command::new("sleep")
            .arg("60")
            .current_dir(root.path())
            .stdin(Stdio::null())
            .spawn()
            .expect("a process");
        let pid = Pid::from_child(&server);
        assert!(belongs(pid, &root.path().canonicalize().expect("a path")));
        assert!(end(root.path()));
        server.wait().expect("reaped");
    }
}
