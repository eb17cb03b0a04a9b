//! The operator's own commands around a run: argument lists, the run told in `PGKEEP_…` variables.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

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
        source: std::io::Error,
    },
    /// It ended with another code than 0.
    #[error("`{program}` ended with {status}")]
    Status {
        /// The program.
        program: String,
        /// Its exit code or signal.
        status: std::process::ExitStatus,
    },
    /// It did not end.
    #[error("`{program}` did not end within {} minutes", HOOK_MAX.as_secs() / 60)]
    Stalled {
        /// The program.
        program: String,
    },
}

/// Runs one hook, with its output on our stderr: stdout belongs to the verb.
pub(super) async fn run(words: &[String], variables: &[(&str, String)]) -> Result<(), HookError> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let failed = |source| HookError::Start { program: program.clone(), source };
    let stderr = std::io::stderr();
    let stdout = rustix::io::dup(&stderr).map_err(|error| failed(error.into()))?;
    let child = Command::new(program)
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .kill_on_drop(true)
        .status();
    match tokio::time::timeout(HOOK_MAX, child).await {
        Err(_) => Err(HookError::Stalled { program: program.clone() }),
        Ok(Err(error)) => Err(failed(error)),
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(HookError::Status { program: program.clone(), status }),
    }
}
