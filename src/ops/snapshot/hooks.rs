//! The operator's own commands around a run: argument lists, the run told in `PGKEEP_…` variables.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::postgres::PostgresError;
use crate::postgres::child::{Child, ChildSpec};

/// A hook that runs longer than this is ended: it must not keep a backup from being taken for ever.
const HOOK_MAX: Duration = Duration::from_mins(10);

/// Commands around a run; an empty list is none.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Before the run; its failure stops it.
    pub before: Vec<String>,
    /// After success.
    pub after: Vec<String>,
    /// After failure.
    pub failed: Vec<String>,
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Not there, or not to be run.
    #[error("cannot run `{program}`")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: PostgresError,
    },
    /// It ended with another code than 0.
    #[error("`{program}` ended with {how}")]
    Status {
        /// The program.
        program: String,
        /// Its exit code or signal.
        how: String,
    },
    /// It did not end.
    #[error("`{program}` did not end within {} minutes", HOOK_MAX.as_secs() / 60)]
    Stalled {
        /// The program.
        program: String,
    },
    /// The run was cancelled meanwhile.
    #[error("interrupted")]
    Interrupted,
}

/// Runs one hook, with its output on our stderr: stdout belongs to the verb.
///
/// It has a process group of its own, which ends as a whole: when `cancel` says so, and when its time is over.
pub(super) async fn run(
    words: &[String],
    variables: &[(&str, String)],
    cancel: &CancellationToken,
) -> Result<(), HookError> {
    run_within(HOOK_MAX, words, variables, cancel).await
}

async fn run_within(
    limit: Duration,
    words: &[String],
    variables: &[(&str, String)],
    cancel: &CancellationToken,
) -> Result<(), HookError> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let failed = |source| HookError::Start { program: program.clone(), source };
    let mut spec = ChildSpec::new(program).args(arguments).outspoken();
    for (name, value) in variables {
        spec = spec.env(name, value);
    }
    let mut child = Child::spawn(spec).map_err(failed)?;
    let over = tokio::select! {
        exit = child.exit() => {
            let exit = exit.map_err(failed)?;
            let how = match (exit.code, exit.signal) {
                (Some(0), _) => return Ok(()),
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("signal {}", signal.unwrap_or_default()),
            };
            return Err(HookError::Status { program: program.clone(), how });
        }
        () = tokio::time::sleep(limit) => HookError::Stalled { program: program.clone() },
        () = cancel.cancelled() => HookError::Interrupted,
    };
    child.stop().await.map_err(failed)?;
    Err(over)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell whose own child would outlive it; where that one tells its id.
    fn patient(directory: &std::path::Path) -> (Vec<String>, std::path::PathBuf) {
        let told = directory.join("told");
        let script = format!("sleep 600 & echo $! >{0}.new; mv {0}.new {0}; wait", told.display());
        (["sh".to_owned(), "-c".to_owned(), script].into(), told)
    }

    /// Whether that process is there, and not just waiting to be reaped.
    fn lives(told: &std::path::Path) -> bool {
        let id = std::fs::read_to_string(told).expect("it told its id");
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    async fn gone(told: &std::path::Path) {
        for _ in 0..500 {
            if !lives(told) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("what the hook began goes on");
    }

    #[tokio::test]
    async fn a_hook_ends_with_all_it_began_when_its_time_is_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let (words, told) = patient(directory.path());
        let never = CancellationToken::new();
        let ended = run_within(Duration::from_secs(1), &words, &[], &never).await;
        assert!(matches!(ended, Err(HookError::Stalled { .. })), "{ended:?}");
        gone(&told).await;
    }

    #[tokio::test]
    async fn a_hook_ends_with_all_it_began_when_the_run_is_cancelled() {
        let directory = tempfile::tempdir().expect("a directory");
        let (words, told) = patient(directory.path());
        let cancel = CancellationToken::new();
        let stop = async {
            while !told.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(lives(&told));
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(run(&words, &[], &cancel), stop);
        assert!(matches!(ended, Err(HookError::Interrupted)), "{ended:?}");
        gone(&told).await;
    }

    #[tokio::test]
    async fn a_hook_is_told_the_run_and_its_end_is_told_in_turn() {
        let never = CancellationToken::new();
        let words = |script: &str| ["sh", "-c", script].map(str::to_owned);
        let variables = [("PGKEEP_HOOK_ID", "some".to_owned())];
        let good = words("test \"$PGKEEP_HOOK_ID\" = some && test -n \"$PATH\"");
        run(&good, &variables, &never).await.expect("it was told");
        let bad = run(&words("exit 7"), &[], &never).await.expect_err("it failed");
        assert_eq!(bad.to_string(), "`sh` ended with exit code 7");
        let absent = run(&["/no/such/hook".to_owned()], &[], &never).await;
        assert!(matches!(absent, Err(HookError::Start { .. })), "{absent:?}");
        run(&[], &[], &never).await.expect("none is none");
    }
}
