//! Archives: what `pg_restore` says of them, and what it loads.

use std::io::{PipeReader, Read as _};
use std::path::Path;

use super::ImportError;
use super::source::Source;
use crate::domain::connection::ConnectionInfo;
use crate::domain::dump::script::{Scanner, ScriptError, ScriptFacts};
use crate::postgres::child::{Child, ChildSpec, capture};
use crate::postgres::programs::Programs;
use crate::scratch::ScratchError;

const BUFFER_BYTES: usize = 256 << 10;
/// What fills materialized views, in the words of `pg_restore --list`.
const REFRESH: &str = "MATERIALIZED VIEW DATA";

/// Reads its schema as the script that `pg_restore` makes of it.
pub(super) async fn facts(
    source: &Source,
    programs: &Programs,
) -> Result<ScriptFacts, ImportError> {
    let spec = ChildSpec::new(programs.program("pg_restore")?)
        .args(["--schema-only", "--create", "--file=-"])
        .arg(&source.path)
        .purpose("pg_restore")
        .piped_stdout();
    let mut child = Child::spawn(spec)?;
    let stdout = child.take_stdout().expect("stdout was asked for");
    let scanning = tokio::task::spawn_blocking(move || scan(stdout));
    let scanned = scanning.await.expect("reading a script does not panic");
    let name = || source.name.clone();
    let ended = child.wait().await;
    match scanned.map_err(|source| ImportError::Read { name: name(), source })? {
        Ok(facts) => {
            ended.map_err(|error| ImportError::of_pg_restore(&source.name, error))?;
            Ok(facts)
        }
        // A script that just ends is the consequence of what the program has to say.
        Err(error @ ScriptError::Incomplete { .. }) => {
            ended.map_err(|error| ImportError::of_pg_restore(&source.name, error))?;
            Err(ImportError::Script { name: name(), source: error })
        }
        Err(source) => Err(ImportError::Script { name: name(), source }),
    }
}

type Scanned = Result<ScriptFacts, ScriptError>;

fn scan(mut stdout: PipeReader) -> std::io::Result<Scanned> {
    let mut scanner = Scanner::new(false);
    let (mut buffer, mut out) = (vec![0; BUFFER_BYTES], Vec::new());
    loop {
        let count = stdout.read(&mut buffer)?;
        if count == 0 {
            return Ok(scanner.complete(&mut out));
        }
        if let Err(error) = scanner.push(&buffer[..count], &mut out) {
            return Ok(Err(error));
        }
        out.clear();
    }
}

/// Loads it into the database `target`, up to its first error. Materialized views stay empty.
pub(super) async fn load(
    source: &Source,
    programs: &Programs,
    target: &ConnectionInfo,
    work: &Path,
) -> Result<(), ImportError> {
    let failed = |error| ImportError::of_pg_restore(&source.name, error);
    let pg_restore = programs.program("pg_restore")?;
    let spec = ChildSpec::new(&pg_restore).arg("--list").arg(&source.path).purpose("pg_restore");
    let list = capture(spec).await.map_err(failed)?;
    let list = String::from_utf8_lossy(&list);
    let kept: Vec<&str> = list.lines().filter(|line| !refreshes(line)).collect();
    let path = work.join("list");
    std::fs::write(&path, kept.join("\n")).map_err(ScratchError::io("cannot write", &path))?;
    let name = target.database().replace('\\', "\\\\").replace('\'', "\\'");
    let mut use_list = std::ffi::OsString::from("--use-list=");
    use_list.push(&path);
    let spec = ChildSpec::new(&pg_restore)
        // One session: jobs of `pg_restore` run into deadlocks over keys of partitioned tables (see `proof`).
        .args(["--exit-on-error", "--no-password", "--no-tablespaces"])
        .arg(use_list)
        .arg(format!("--dbname=dbname='{name}'"))
        .arg(&source.path)
        .connection(target)
        .purpose("import");
    Child::spawn(spec)?.wait().await.map_err(failed)
}

/// Whether a line of `pg_restore --list` is such an entry: `215; 0 16450 MATERIALIZED VIEW DATA …`.
fn refreshes(line: &str) -> bool {
    line.splitn(4, ' ').nth(3).is_some_and(|rest| rest.starts_with(REFRESH))
}

#[cfg(test)]
mod tests {
    use super::refreshes;

    #[test]
    fn entries_that_fill_materialized_views_are_known_by_their_place() {
        assert!(refreshes("3431; 0 16450 MATERIALIZED VIEW DATA public totals keeper"));
        for line in [
            ";     dbname: MATERIALIZED VIEW DATA",
            "215; 1259 16450 TABLE public MATERIALIZED VIEW DATA keeper",
            "",
        ] {
            assert!(!refreshes(line), "{line}");
        }
    }
}
