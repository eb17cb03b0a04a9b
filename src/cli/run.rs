//! From the command line to an exit code.
//!
//! The first SIGINT, SIGTERM or SIGHUP cancels what runs and lets it clean up; the second ends the process at
//! once. A SIGHUP that is ignored from the start (`nohup`) stays ignored.
//! What a verb leaves when it is cancelled or killed is told by the module of that verb.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{Cli, Verb};
use super::context::Context;
use super::output::{Output, write_stdout};
use super::{configuration, daemon, demo, verbs};
use crate::config::Environment;
use crate::domain::failure::FailureKind;
use crate::domain::told::Failed;
use crate::guard::{Relay, is_ignored};
use crate::postgres::child;

/// How long client programs that were asked to end get for it: longer than who asked them waits before he kills.
pub(super) const CHILDREN_MAX: Duration = Duration::from_secs(6);
/// What a shell sees after SIGINT.
const INTERRUPTED: i32 = 130;

/// Runs the command line; all that is printed has been printed when this returns.
pub fn run(environment: Environment, words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.into_iter().collect();
    // The words for a panic are those of the default hook; only the code is ours.
    let code = catch_unwind(AssertUnwindSafe(|| run_words(environment, &words)));
    ExitCode::from(code.unwrap_or(FailureKind::Unexpected.exit_code()))
}

fn run_words(environment: Environment, words: &[OsString]) -> u8 {
    let no_colour = environment.get("NO_COLOR").is_some();
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => return refuse_words(&error, words),
    };
    let output = Output::new(cli.global.json, cli.global.quiet, no_colour);
    match dispatch(environment, cli, output) {
        Ok(()) => 0,
        Err(Ended::Failed(failed)) => {
            output.failure(&failed);
            failed.kind.exit_code()
        }
        Err(Ended::Told(kind)) => kind.exit_code(),
        Err(Ended::Passed(code)) => code,
    }
}

/// A verb that did not succeed.
#[derive(Debug)]
pub(super) enum Ended {
    /// To be shown.
    Failed(Failed),
    /// Shown already, as with several databases: the gravest.
    Told(FailureKind),
    /// The exit code of a guarded run, all of which is told.
    Passed(u8),
}

impl From<Failed> for Ended {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Help and version are answers; the rest is wrong use, told in our own form.
fn refuse_words(error: &clap::Error, words: &[OsString]) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return write_stdout(&error.render().to_string()).map_or(1, |()| 0);
    }
    let json = words.iter().any(|word| word == "--json");
    let failed = usage(error, words);
    Output::new(json, false, true).failure(&failed);
    failed.kind.exit_code()
}

/// clap's message as one line, its tip as the hint.
fn usage(error: &clap::Error, words: &[OsString]) -> Failed {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failed::usage("no verb given", "run `pgkeep --help`");
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = || text.lines().map(str::trim);
    let message: Vec<&str> =
        lines().take_while(|line| !line.is_empty() && !line.starts_with("Usage:")).collect();
    let tip = lines().find_map(|line| line.strip_prefix("tip: "));
    let command = Cli::command();
    let verb = words.iter().skip(1).filter_map(|word| word.to_str());
    let verb = verb.into_iter().find(|word| command.find_subcommand(word).is_some());
    let help = match verb {
        Some(verb @ ("migrate" | "rehearse")) if error.kind() == ErrorKind::UnknownArgument => {
            format!("the command stands behind `--`: `pgkeep {verb} -- npx prisma migrate deploy`")
        }
        Some(verb) => format!("run `pgkeep {verb} --help`"),
        None => "run `pgkeep --help`".to_owned(),
    };
    let hint = tip.map_or(help.clone(), |tip| format!("{tip}; {help}"));
    Failed::usage(message.join(" "), hint)
}

fn dispatch(environment: Environment, cli: Cli, output: Output) -> Result<(), Ended> {
    match &cli.verb {
        Verb::Completions(args) => return Ok(completions(args.shell)?),
        Verb::Man(_) => return Ok(manual()?),
        _ => {}
    }
    let serves = matches!(cli.verb, Verb::Daemon(_));
    start_logging(&environment, cli.global.verbose, serves);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::unexpected("cannot start", &error))?;
    let result = runtime.block_on(async {
        if serves {
            return daemon::daemon(environment, cli.global).await;
        }
        let relay = Relay::default();
        let cancel = watch_signals(relay.clone())?;
        let (global, token) = (cli.global, cancel.clone());
        let context = Context { environment, global, output, cancel: token, relay };
        let result = verb(&context, cli.verb).await;
        // While signals are still heard.
        drop(tokio::task::spawn_blocking(|| child::end_all(CHILDREN_MAX)).await);
        match result {
            // What a guarded command came to is told already.
            Err(Ended::Passed(code)) => Err(Ended::Passed(code)),
            // Whatever a cancelled verb stumbled over, the signal is the reason.
            Err(_) if cancel.is_cancelled() => Err(Failed::interrupted().into()),
            result => result,
        }
    });
    // Blocking threads that wait on a pipe must not hold the process back.
    runtime.shutdown_background();
    result
}

async fn verb(context: &Context, verb: Verb) -> Result<(), Ended> {
    match verb {
        Verb::Config(args) => configuration::config(context, &args),
        Verb::Demo(_) => demo::demo(context).await,
        Verb::Completions(_) | Verb::Man(_) => Ok(()),
        other => Box::pin(verbs::run(context, other)).await,
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pgkeep", &mut script);
    write_stdout(&String::from_utf8_lossy(&script))
}

fn manual() -> Result<(), Failed> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| Failed::unexpected("cannot render the manual page", &error))?;
    write_stdout(&String::from_utf8_lossy(&page))
}

/// Logs on stderr: with `-v` what is done, with `-vv` how; `PGKEEP_LOG` takes a filter of its own. The daemon always
/// tells what it does, as JSON where a journal takes it.
fn start_logging(environment: &Environment, verbose: u8, serves: bool) {
    let filter = match (environment.get("PGKEEP_LOG"), verbose) {
        (Some(filter), _) => filter.to_owned(),
        (None, 0) if !serves => return,
        (None, 0 | 1) => "pgkeep=info".to_owned(),
        (None, _) => "pgkeep=debug".to_owned(),
    };
    let logs = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter));
    // Another subscriber is there only in tests, and then it may stay.
    drop(match environment.get("JOURNAL_STREAM") {
        Some(_) if serves => logs.json().flatten_event(true).try_init(),
        _ => logs.try_init(),
    });
}

/// A token that the first SIGINT, SIGTERM or SIGHUP cancels; the second ends the process. Those that come while a
/// guarded command runs are the command's.
fn watch_signals(relay: Relay) -> Result<CancellationToken, Failed> {
    let failed = |error| Failed::unexpected("cannot watch for signals", &error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    // A lost terminal would else end us with a scratch server and half a copy left behind.
    let mut hangup = if is_ignored(SignalKind::hangup()) {
        None
    } else {
        Some(signal(SignalKind::hangup()).map_err(failed)?)
    };
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                Some(()) = async { hangup.as_mut()?.recv().await } => {}
            }
            if relay.is_passing() {
                continue;
            }
            if token.is_cancelled() {
                stop_now();
            }
            token.cancel();
        }
    });
    Ok(cancel)
}

#[expect(clippy::exit, reason = "a second signal asks for just this")]
pub(super) fn stop_now() -> ! {
    child::end_all(Duration::ZERO);
    std::process::exit(INTERRUPTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: &str) -> Failed {
        let words = std::iter::once("pgkeep").chain(line.split_whitespace());
        let words: Vec<OsString> = words.map(OsString::from).collect();
        usage(&Cli::try_parse_from(&words).expect_err("must be refused"), &words)
    }

    #[test]
    fn wrong_use_is_one_line_and_a_hint() {
        let failed = refused("restore --relpace");
        assert_eq!(failed.message, "unexpected argument '--relpace' found");
        assert_eq!(
            failed.hint.as_deref(),
            Some("a similar argument exists: '--replace'; run `pgkeep restore --help`")
        );
        let failed = refused("snapsot");
        assert_eq!(failed.message, "unrecognized subcommand 'snapsot'");
        assert!(
            failed.hint.expect("a hint").starts_with("a similar subcommand exists: 'snapshot'")
        );
        let failed = refused("show");
        assert_eq!(failed.message, "the following required arguments were not provided: <ID>");
        assert_eq!(failed.hint.as_deref(), Some("run `pgkeep show --help`"));
        assert_eq!(refused("").message, "no verb given");
    }
}
