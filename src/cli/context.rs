//! What every verb is given.

use tokio_util::sync::CancellationToken;

use super::args::Global;
use super::output::Output;
use super::progress::Progress;
use crate::config::{self, Environment, Loaded, Selection};
use crate::domain::told::{Failed, failed};
use crate::guard::Relay;

/// What every verb is given.
pub(super) struct Context {
    pub(super) environment: Environment,
    pub(super) global: Global,
    pub(super) output: Output,
    pub(super) cancel: CancellationToken,
    /// Who has the signals while a guarded command runs.
    pub(super) relay: Relay,
}

impl Context {
    /// Configuration, read and merged.
    pub(super) fn load(&self) -> Result<Loaded, Failed> {
        let selection = Selection {
            config: self.global.config.clone(),
            env_file: self.global.env_file.clone(),
            cluster: self.global.cluster.clone(),
            database: self.global.database.clone(),
        };
        config::load(self.environment.clone(), &selection).map_err(failed)
    }

    /// What shows progress.
    pub(super) fn progress(&self) -> Progress {
        Progress::new(self.global.quiet, self.global.verbose > 0)
    }
}
