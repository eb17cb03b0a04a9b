//! Plain dumps: read once to know them, and once more into psql.

use std::io::{ErrorKind, Read as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::source::Source;
use super::{ImportError, Importing};
use crate::domain::connection::ConnectionInfo;
use crate::domain::dump::script::{Scanner, ScriptFacts};
use crate::postgres::child::{Child, ChildSpec};
use crate::postgres::programs::Programs;
use crate::scratch::account;

const BUFFER_BYTES: usize = 1 << 20;
/// How often the bytes that went in are told.
const TELL: Duration = Duration::from_millis(200);

/// Reads all of it: whether it is whole, and what it needs.
pub(super) async fn facts(
    source: &Source,
    cancel: &CancellationToken,
) -> Result<ScriptFacts, ImportError> {
    let (source, cancel) = (source.clone(), cancel.clone());
    let scanned = tokio::task::spawn_blocking(move || {
        let scan = Scan { source: &source, cancel: &cancel, done: &AtomicU64::new(0) };
        scan.run(Scanner::new(false), &mut std::io::sink())
    });
    scanned.await.expect("reading a dump does not panic")
}

/// Runs it in the database `target`, up to its first error.
///
/// Not in one transaction: scratch goes away whatever is in it, and so many locks would not fit.
pub(super) async fn load(
    importing: &Importing<'_>,
    source: &Source,
    facts: &ScriptFacts,
    programs: &Programs,
    target: &ConnectionInfo,
    work: &Path,
) -> Result<(), ImportError> {
    let account = account::for_server()?.map(|account| (account.uid, account.gid));
    let mut spec = ChildSpec::new(programs.program("psql")?)
        .args(["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"])
        .connection(target)
        .purpose("import")
        .isolated()
        .env("HOME", work)
        .current_dir(work)
        .run_as(account)
        .piped_stdin();
    if restricts(&programs.version("psql")?) {
        // The second fence: this psql takes no command of its own from what it reads.
        let key = importing.repository.ambient().random();
        spec = spec.arg(format!("--command=\\restrict pgkeep{key:08x}"));
    }
    let mut child = Child::spawn(spec.arg("--file=-"))?;
    let stdin = child.take_stdin().expect("stdin was asked for");
    let done = Arc::new(AtomicU64::new(0));
    let feeding = {
        let (source, cancel, done) = (source.clone(), importing.cancel.clone(), Arc::clone(&done));
        let from_connect = facts.connects.is_some();
        tokio::task::spawn_blocking(move || {
            let mut stdin = stdin;
            let scan = Scan { source: &source, cancel: &cancel, done: &done };
            // Dropping the pipe is the end of the file for psql.
            scan.run(Scanner::new(from_connect), &mut stdin)
        })
    };
    let exit = {
        let ended = child.exit();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                exit = &mut ended => break exit?,
                () = tokio::time::sleep(TELL) => {
                    importing.observer.bytes(done.load(Ordering::Relaxed), Some(facts.bytes));
                }
            }
        }
    };
    let fed = feeding.await.expect("reading a dump does not panic");
    // Its own word on why it stopped reading goes before ours.
    child.judge(&exit).map_err(|error| ImportError::of_psql(&source.name, error))?;
    fed.map(drop)
}

/// One pass over a plain dump.
struct Scan<'a> {
    source: &'a Source,
    cancel: &'a CancellationToken,
    done: &'a AtomicU64,
}

impl Scan<'_> {
    fn run(&self, mut scanner: Scanner, to: &mut impl Write) -> Result<ScriptFacts, ImportError> {
        let unreadable = |error| self.source.unreadable(error);
        let mut reader = self.source.reader().map_err(unreadable)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut out = Vec::new();
        let script = |source| ImportError::Script { name: self.source.name.clone(), source };
        loop {
            let count = match reader.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.map_err(unreadable)?,
            };
            if self.cancel.is_cancelled() {
                return Err(ImportError::Interrupted);
            }
            if count == 0 {
                break;
            }
            scanner.push(&buffer[..count], &mut out).map_err(script)?;
            self.done.fetch_add(count as u64, Ordering::Relaxed);
            self.hand_on(&mut out, to)?;
        }
        let facts = scanner.complete(&mut out).map_err(script)?;
        self.hand_on(&mut out, to)?;
        Ok(facts)
    }

    fn hand_on(&self, out: &mut Vec<u8>, to: &mut impl Write) -> Result<(), ImportError> {
        let written = to.write_all(out);
        out.clear();
        written.map_err(|source| ImportError::Read { name: self.source.name.clone(), source })
    }
}

/// Whether this psql knows `\restrict`: it came with minor releases of August 2025.
fn restricts(version: &str) -> bool {
    let Some((_, number)) = version.split_once("(PostgreSQL) ") else { return false };
    let mut numbers = number.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let (major, minor): (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let since = match major {
        13 => 22,
        14 => 19,
        15 => 14,
        16 => 10,
        17 => 6,
        _ => return major >= 18,
    };
    minor >= since
}

#[cfg(test)]
mod tests {
    use super::restricts;

    #[test]
    fn the_releases_that_know_restrict_are_told_apart() {
        for (version, knows) in [
            ("psql (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", true),
            ("psql (PostgreSQL) 15.13", false),
            ("psql (PostgreSQL) 17.6", true),
            ("psql (PostgreSQL) 18.0", true),
            ("psql (PostgreSQL) 12.22", false),
            ("psql", false),
        ] {
            assert_eq!(restricts(version), knows, "{version}");
        }
    }
}
