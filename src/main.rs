//! The `pgkeep` program: the process environment in, an exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgkeep::cli::run(pgkeep::config::Environment::of_process(), std::env::args_os())
}
