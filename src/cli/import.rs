//! `import`: each dump is loaded into scratch, and the ordinary snapshot is taken there.

use std::collections::BTreeMap;
use std::path::Path;

use tracing::Instrument as _;

use super::args::Import;
use super::backup::snapshot_text;
use super::context::Context;
use super::run::Ended;
use super::verbs::{Gravest, Opened};
use crate::domain::connection::ConnectionInfo;
use crate::domain::manifest::{Manifest, Trigger};
use crate::domain::told::{Failed, failed};
use crate::ops::import::{self, Importing};
use crate::ops::run::Ending;
use crate::ops::snapshot::{self, Hooks, SnapshotOptions};
use crate::wiring;

pub(super) async fn import(context: &Context, args: Import) -> Result<(), Ended> {
    let Some(database) = context.global.database.clone() else {
        let hint = "say which database the dumps are of: --database NAME";
        return Err(Failed::usage("import needs the name of a database", hint).into());
    };
    import::check_name(&database).map_err(failed)?;
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let settings = &opened.settings;
    let (name, cluster) = settings.cluster().map_err(failed)?;
    let (bin_dir, scratch_dir) =
        (wiring::bin_dir(settings, cluster), wiring::scratch_dir(settings));
    let importing = Importing {
        repository: &opened.repository,
        bin_dir: bin_dir.as_deref(),
        scratch_dir: &scratch_dir,
        observer: &progress,
        cancel: &context.cancel,
    };
    import::sweep(&importing).await.map_err(failed)?;
    let mut gravest = Gravest::of(args.files.len());
    for file in &args.files {
        let one = One { context, importing: &importing, file, database: &database };
        let run = opened.begin("import", Some(name), Some(&database));
        let taken = Box::pin(one.run(|connection, labels| SnapshotOptions {
            cluster: name.clone(),
            connection,
            trigger: Trigger::Imported,
            labels: labels.into_iter().chain(args.labels.clone()).collect(),
            pinned: args.pin,
            // The cluster's own are about its live databases.
            exclude_table_data: Vec::new(),
            hooks: Hooks::default(),
            bin_dir: bin_dir.clone(),
            idle: cluster.idle_timeout,
            host: wiring::host_name(),
            run: Some(run.id().clone()),
        }));
        let taken = taken.instrument(run.span().clone()).await;
        let ending = Ending::of(&taken);
        let ending = match &taken {
            Ok(manifest) => ending.about(&manifest.id),
            Err(_) => ending,
        };
        run.end(&opened.repository, ending, &progress).await;
        match taken {
            Ok(manifest) => progress.aside(|| {
                let text = || format!("{}\n", snapshot_text(&manifest));
                context.output.result(text, || manifest.summary())
            })?,
            Err(error) => {
                let file = file.display().to_string();
                progress.aside(|| gravest.add(context, "file", &file, error))?;
            }
        }
        if context.cancel.is_cancelled() {
            break;
        }
    }
    gravest.end()
}

/// One dump on its way.
struct One<'a> {
    context: &'a Context,
    importing: &'a Importing<'a>,
    file: &'a Path,
    database: &'a str,
}

impl One<'_> {
    async fn run(
        &self,
        options: impl FnOnce(ConnectionInfo, BTreeMap<String, String>) -> SnapshotOptions,
    ) -> Result<Manifest, Failed> {
        let Importing { repository, observer, cancel, .. } = *self.importing;
        let mut loaded =
            import::load(self.importing, self.file, self.database).await.map_err(failed)?;
        let labels = std::mem::take(&mut loaded.labels);
        let options = options(loaded.connection().clone(), labels);
        let taken = snapshot::one(repository, &options, self.database, observer, cancel).await;
        let stopped = loaded.stop().await;
        let manifest = taken.map_err(failed)?;
        // The snapshot is there; what could not be removed, the next run removes.
        if let Err(error) = stopped {
            self.context.output.complaint(&failed(error));
        }
        Ok(manifest)
    }
}
