//! `daemon`: signals and the configuration for floor 6.

use std::io::Write as _;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::args::Global;
use super::run::{CHILDREN_MAX, Ended, stop_now};
use crate::config::{self, Environment, Selection, Settings};
use crate::daemon::{self, Signals};
use crate::domain::told::{Failed, failed};
use crate::postgres::child;

pub(super) async fn daemon(environment: Environment, global: Global) -> Result<(), Ended> {
    if global.cluster.is_some() || global.database.is_some() {
        let message =
            "the daemon works for all that is configured, and takes no --cluster and no --database";
        return Err(Failed::usage(message, NARROWER).into());
    }
    let signals = watch_signals()?;
    let selection = Selection {
        config: global.config,
        env_file: global.env_file,
        cluster: global.cluster,
        database: global.database,
    };
    let load = move || -> Result<Settings, Failed> {
        let settings = config::load(environment.clone(), &selection).map_err(failed)?.settings;
        refuse_selection(&settings)?;
        Ok(settings)
    };
    let listening = |address| {
        // For people and scripts; the log has it too.
        let _ = writeln!(std::io::stdout(), "listening on http://{address}/");
    };
    let result = daemon::run(Arc::new(load), signals, listening).await;
    // While signals are still heard.
    drop(tokio::task::spawn_blocking(|| child::end_all(CHILDREN_MAX)).await);
    Ok(result.map_err(failed)?)
}

/// What else there is for who wants less.
const NARROWER: &str = "`clusters.….databases` names the databases that are meant; for some clusters alone, give \
                        the daemon a configuration of its own with --config";

/// `PGKEEP_CLUSTER` may name the one cluster there is. Were there others, they would be backed up and not watched.
fn refuse_selection(settings: &Settings) -> Result<(), Failed> {
    let Some(selected) = &settings.selected else { return Ok(()) };
    let Some(other) = settings.clusters.keys().find(|name| *name != selected) else {
        return Ok(());
    };
    let message = format!(
        "PGKEEP_CLUSTER means `{selected}`, and the daemon works for all that is configured, `{other}` too"
    );
    Err(Failed::usage(message, format!("unset it; {NARROWER}")))
}

/// The first SIGTERM or SIGINT drains, the second cancels, the third ends the process; SIGHUP reloads.
fn watch_signals() -> Result<Signals, Failed> {
    let failed = |error| Failed::unexpected("cannot watch for signals", &error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let (again, reload) = mpsc::channel(1);
    let (drain, now) = (CancellationToken::new(), CancellationToken::new());
    let signals = Signals { drain: drain.clone(), now: now.clone(), reload };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {
                    // One that waits already will read what is there now.
                    let _ = again.try_send(());
                    continue;
                }
            }
            match (drain.is_cancelled(), now.is_cancelled()) {
                (false, _) => drain.cancel(),
                (true, false) => now.cancel(),
                (true, true) => stop_now(),
            }
        }
    });
    Ok(signals)
}
