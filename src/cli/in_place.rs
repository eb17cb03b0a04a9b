//! `restore --in-place`: the conductors that it takes, one after the other.

use tracing::Instrument as _;

use super::context::Context;
use super::progress::Progress;
use super::recovery::{ask, cluster_of, may_ask};
use super::reports::{in_place_json, in_place_text, restore_json, restore_text};
use super::run::Ended;
use super::verbs::Opened;
use crate::domain::audit::RunId;
use crate::domain::id::BackupId;
use crate::domain::manifest::{BEFORE_RESTORE_OF, Trigger};
use crate::domain::observer::Severity;
use crate::domain::told::{Failed, failed};
use crate::domain::verification::Outcome;
use crate::ops::restore::in_place::{self, Held};
use crate::ops::restore::{RestoreError, RestoreOptions, RestoreReport, Restoring};
use crate::ops::run::Ending;
use crate::ops::snapshot::{self, SnapshotOptions};
use crate::ops::verify::{self, Verifying};
use crate::repo::catalog::Entry;
use crate::wiring;

/// What all steps work with.
pub(super) struct Work<'a> {
    pub(super) context: &'a Context,
    pub(super) progress: &'a Progress,
    pub(super) opened: &'a Opened,
    pub(super) entry: &'a Entry,
}

/// Plan, consent, proof, writers out, safety snapshot, and the one transaction.
pub(super) async fn restore(
    work: &Work<'_>,
    restoring: &Restoring<'_>,
    mut options: RestoreOptions,
    dry_run: bool,
) -> Result<(), Ended> {
    let Work { context, progress, entry, .. } = *work;
    let plan = tokio::select! {
        plan = in_place::plan(restoring, entry, &options) => plan.map_err(failed)?,
        () = context.cancel.cancelled() => return Err(Failed::interrupted().into()),
    };
    if dry_run {
        progress.clear();
        return Ok(context.output.result(|| in_place_text(&plan), || in_place_json(&plan))?);
    }
    if !options.consent.yes && may_ask(context) {
        progress.clear();
        options.consent.yes = ask(&in_place_text(&plan))?;
    }
    if !options.consent.yes {
        return Err(failed(RestoreError::NeedsYesInPlace { database: plan.database }).into());
    }
    let run =
        work.opened.begin("restore", Some(&entry.manifest.cluster), Some(&entry.manifest.database));
    let replaced = Box::pin(work.replace(restoring, &options, run.id()));
    let replaced = replaced.instrument(run.span().clone()).await;
    let told = format!("in place of what `{}` held", plan.database);
    let ending = Ending::of(&replaced).about(&entry.manifest.id);
    let ending = if replaced.is_ok() { ending.saying(told) } else { ending };
    run.end(restoring.repository, ending, progress).await;
    let report = replaced?;
    progress.clear();
    Ok(context.output.result(|| restore_text(&report), || restore_json(&report))?)
}

impl Work<'_> {
    async fn replace(
        &self,
        restoring: &Restoring<'_>,
        options: &RestoreOptions,
        run: &RunId,
    ) -> Result<RestoreReport, Failed> {
        self.prove(restoring, options).await?;
        let held = in_place::hold(restoring, self.entry, options).await.map_err(failed)?;
        let safety = self.safety_snapshot(restoring, &held, run).await?;
        held.replace(restoring, safety).await.map_err(failed)
    }

    /// In scratch, never on the target: the role may not make databases there.
    async fn prove(
        &self,
        restoring: &Restoring<'_>,
        options: &RestoreOptions,
    ) -> Result<(), Failed> {
        let settings = &self.opened.settings;
        let (_, cluster) = cluster_of(settings, self.entry)?;
        let scratch = wiring::scratch_choice(settings, cluster).map_err(failed)?;
        let host = wiring::host_name();
        let verifying = Verifying {
            repository: restoring.repository,
            server: None,
            bin_dir: restoring.bin_dir,
            scratch_dir: restoring.scratch_dir,
            scratch: &scratch,
            assertions: restoring.assertions,
            depth: options.depth,
            idle: cluster.idle_timeout,
            signer: restoring.repository.keys().writer.as_ref().map(|writer| &writer.signing),
            host: &host,
            observer: restoring.observer,
            cancel: restoring.cancel,
        };
        let entries = std::slice::from_ref(self.entry);
        let verified = verify::run(&verifying, entries, |_| {}).await.map_err(failed)?;
        for (_, result) in verified {
            let report = result.map_err(failed)?;
            if report.result != Outcome::Passed {
                return Err(failed(RestoreError::Checks { checks: report.checks }));
            }
        }
        Ok(())
    }

    /// The ordinary snapshot, but whole: rows that the nightly one leaves out would be lost here.
    async fn safety_snapshot(
        &self,
        restoring: &Restoring<'_>,
        held: &Held<'_>,
        run: &RunId,
    ) -> Result<BackupId, Failed> {
        let settings = &self.opened.settings;
        let (name, cluster) = cluster_of(settings, self.entry)?;
        let options = SnapshotOptions {
            cluster: name.clone(),
            connection: restoring.server.clone(),
            trigger: Trigger::Manual,
            labels: [(BEFORE_RESTORE_OF.to_owned(), self.entry.manifest.id.to_string())].into(),
            pinned: true,
            exclude_table_data: Vec::new(),
            hooks: wiring::hooks(cluster),
            bin_dir: wiring::bin_dir(settings, cluster),
            idle: cluster.idle_timeout,
            host: wiring::host_name(),
            run: Some(run.clone()),
        };
        let (database, observer) = (held.database(), restoring.observer);
        let taken =
            snapshot::one(restoring.repository, &options, database, observer, restoring.cancel);
        let manifest = taken.await.map_err(|error| {
            let told = failed(error);
            Failed {
                message: format!(
                    "the safety snapshot failed, and nothing was changed: {}",
                    told.message
                ),
                ..told
            }
        })?;
        let told = format!(
            "safety snapshot {} of `{database}`: never `latest`, named by its id alone",
            manifest.id
        );
        observer.finding(Severity::Notice, &told);
        Ok(manifest.id)
    }
}
