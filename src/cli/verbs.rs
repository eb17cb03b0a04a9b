//! The verbs over a repository: settings become live parts, a conductor runs, its report is shown.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value as Json, json};
use tracing::Instrument as _;

use super::args::{Adopt, Init, List, Snapshot, TriggerArg, Verb};
use super::backup::{Listed, list_json, list_text, snapshot_text};
use super::context::Context;
use super::reports::{init_json, init_text};
use super::run::Ended;
use super::text::harmless;
use super::{keys, recovery};
use crate::config::{ClusterSettings, Settings, Starter};
use crate::domain::audit::Origin;
use crate::domain::connection::ConnectionInfo;
use crate::domain::failure::FailureKind;
use crate::domain::id::ClusterName;
use crate::domain::manifest::Trigger;
use crate::domain::observer::{Observer, Severity};
use crate::domain::told::{Failed, failed};
use crate::ops::adopt::{self, AdoptReport};
use crate::ops::init::{self, Amended, InitOptions};
use crate::ops::inspect;
use crate::ops::run::{Ending, Run};
use crate::ops::snapshot::{self, SnapshotOptions};
use crate::repo::Repository;
use crate::repo::catalog::{Entry, Filter};
use crate::repo::workers::Workers;
use crate::wiring;

/// Settings and the repository they name.
pub(super) struct Opened {
    pub(super) settings: Settings,
    pub(super) repository: Repository,
    /// What `--cluster` and `--database` narrow to.
    pub(super) filter: Filter,
}

impl Opened {
    pub(super) async fn open(context: &Context, observer: &dyn Observer) -> Result<Self, Failed> {
        let settings = context.load()?.settings;
        let repository = wiring::open_repository(&settings).await.map_err(failed)?;
        if repository.is_plaintext() {
            let told = "this repository is not encrypted: whoever reads it reads the data";
            observer.finding(Severity::Warning, told);
        }
        let filter =
            Filter { cluster: settings.selected.clone(), database: settings.database.clone() };
        Ok(Self { settings, repository, filter })
    }

    /// Begins a run of somebody on the command line.
    pub(super) fn begin(
        &self,
        verb: &'static str,
        cluster: Option<&ClusterName>,
        database: Option<&str>,
    ) -> Run {
        let by = wiring::actor(Origin::Command);
        Run::begin(&self.repository, verb, cluster, database, &by)
    }
}

pub(super) async fn run(context: &Context, verb: Verb) -> Result<(), Ended> {
    match verb {
        Verb::Snapshot(args) => snapshot(context, args).await,
        Verb::Import(args) => Box::pin(super::import::import(context, args)).await,
        Verb::Verify(args) => recovery::verify(context, args).await,
        Verb::Restore(args) => Box::pin(recovery::restore(context, args)).await,
        Verb::Migrate(args) => Box::pin(super::migrate::migrate(context, *args)).await,
        Verb::Rehearse(args) => Box::pin(super::rehearse::rehearse(context, args)).await,
        Verb::Rollback(args) => Box::pin(super::rollback::rollback(context, args)).await,
        // The rest has nothing to clean up, so a signal may simply drop it.
        verb => tokio::select! {
            result = looks(context, verb) => result,
            () = context.cancel.cancelled() => Err(Failed::interrupted().into()),
        },
    }
}

async fn looks(context: &Context, verb: Verb) -> Result<(), Ended> {
    match verb {
        Verb::Init(args) => initialise(context, args).await,
        Verb::List(args) => list(context, &args).await,
        Verb::Show(args) => super::show::show(context, &args).await,
        Verb::Pin(args) => mark(context, &args.id, true).await,
        Verb::Unpin(args) => mark(context, &args.id, false).await,
        Verb::Adopt(args) => adopt(context, &args).await,
        Verb::Prune(args) => Box::pin(super::prune::prune(context, &args)).await,
        Verb::Status(args) => super::status::status(context, &args).await,
        Verb::Log(args) => super::log::log(context, &args).await,
        Verb::Check(_) => super::check::check(context).await,
        Verb::Key(verb) => keys::run(context, verb).await,
        // The others have places of their own.
        _ => Ok(()),
    }
}

async fn initialise(context: &Context, args: Init) -> Result<(), Ended> {
    let mut settings = context.load()?.settings;
    let encryption = &settings.encryption;
    let nobody = encryption.recipients.is_empty() && encryption.recipients_file.is_none();
    let amended = settings
        .file
        .clone()
        .filter(|_| nobody)
        .map(|path| Amended { path, trusted_signers: encryption.trusted_signers.clone() });
    if !args.recipients.is_empty() {
        settings.encryption.recipients = args.recipients;
        settings.encryption.recipients_file = None;
    }
    settings.encryption.insecure_plaintext |= args.insecure_plaintext;
    let url = settings.location().map_err(failed)?.url();
    let keys = wiring::keys(&settings).map_err(failed)?;
    let store = wiring::create_store(&settings).map_err(failed)?;
    let cluster = settings.cluster().ok().map(|(name, _)| name.to_string());
    let starter = Starter {
        repository: url.clone(),
        service: wiring::starter_service(&settings),
        recipients: Vec::new(),
        trusted_signers: Vec::new(),
        insecure_plaintext: settings.encryption.insecure_plaintext,
        cluster: cluster.unwrap_or_else(|| crate::config::DEFAULT_CLUSTER.to_owned()),
    };
    let options = InitOptions {
        home: settings.home.clone(),
        repository_url: url.clone(),
        starter_configuration: settings.file.is_none().then_some(starter),
        amended_configuration: amended,
        level: settings.compression_level,
    };
    let ambient = std::sync::Arc::new(wiring::SystemAmbient::default());
    let report =
        init::run(store, keys, options, Workers::threads(), ambient).await.map_err(failed)?;
    let plaintext = settings.encryption.insecure_plaintext;
    let text = || init_text(&report, &url, plaintext);
    Ok(context.output.result(text, || init_json(&report, &url))?)
}

async fn snapshot(context: &Context, args: Snapshot) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let settings = &opened.settings;
    let (name, cluster) = settings.cluster().map_err(failed)?;
    let connection = wiring::connection(settings, name, cluster).map_err(failed)?;
    let databases = databases_meant(settings, cluster, &connection, args.databases).await?;
    let options = SnapshotOptions {
        cluster: name.clone(),
        connection,
        trigger: match args.trigger {
            TriggerArg::Manual => Trigger::Manual,
            TriggerArg::Scheduled => Trigger::Scheduled,
            TriggerArg::PreMigration => Trigger::PreMigration,
        },
        labels: args.labels.into_iter().collect::<BTreeMap<_, _>>(),
        pinned: args.pin,
        exclude_table_data: cluster.exclude_table_data.clone(),
        hooks: wiring::hooks(cluster),
        bin_dir: wiring::bin_dir(settings, cluster),
        host: wiring::host_name(),
        idle: cluster.idle_timeout,
        run: None,
    };
    let mut gravest = Gravest::of(databases.len());
    for database in &databases {
        // Those that are still to be taken would be missing without a word.
        if context.cancel.is_cancelled() {
            return Err(Failed::interrupted().into());
        }
        let run = opened.begin("snapshot", Some(name), Some(database));
        let options = SnapshotOptions { run: Some(run.id().clone()), ..options.clone() };
        let taken =
            snapshot::one(&opened.repository, &options, database, &progress, &context.cancel);
        let taken = taken.instrument(run.span().clone()).await.map_err(failed);
        let ending = Ending::of(&taken);
        let ending = match &taken {
            Ok(manifest) => ending.about(&manifest.id),
            Err(_) => ending,
        };
        run.end(&opened.repository, ending, &progress).await;
        match taken {
            Ok(manifest) => progress.aside(|| {
                let text = || format!("{}\n", snapshot_text(&manifest));
                context.output.success(text, || manifest.summary())
            })?,
            Err(error) => {
                progress.aside(|| gravest.add(context, "database", database, error))?;
            }
        }
    }
    gravest.end()
}

/// The databases that a snapshot without further words would take; each once.
pub(super) async fn databases_meant(
    settings: &Settings,
    cluster: &ClusterSettings,
    connection: &ConnectionInfo,
    mut databases: Vec<String>,
) -> Result<Vec<String>, Failed> {
    databases.extend(settings.database.clone());
    if databases.is_empty() {
        databases = wiring::databases(settings, cluster, connection).await.map_err(failed)?;
    }
    let mut seen = BTreeSet::new();
    databases.retain(|database| seen.insert(database.clone()));
    Ok(databases)
}

/// Failures of a verb over several things: each is told where it happens, the gravest is the exit code.
pub(super) struct Gravest {
    several: bool,
    kind: Option<FailureKind>,
}

impl Gravest {
    /// For a verb over that many things.
    pub(super) fn of(things: usize) -> Self {
        Self { several: things > 1, kind: None }
    }

    /// Tells a failure of one of several; of the only one, it is the failure of the verb.
    pub(super) fn add(
        &mut self,
        context: &Context,
        what: &str,
        name: &str,
        failed: Failed,
    ) -> Result<(), Ended> {
        // The end of an interrupted run is told once, by the one who knows of the signal.
        if !self.several || context.cancel.is_cancelled() {
            return Err(failed.into());
        }
        self.tell(context, what, name, failed);
        Ok(())
    }

    /// Tells a failure of one of several, or one beside the result of the only one.
    pub(super) fn tell(&mut self, context: &Context, what: &str, name: &str, failed: Failed) {
        self.note(failed.kind);
        let mut document = failed.json();
        document[what] = Json::from(name);
        let message = format!("{name}: {}", failed.message);
        context.output.failure_of(&Failed { message, ..failed }, &document);
    }

    /// A failure that a report already tells.
    pub(super) fn note(&mut self, kind: FailureKind) {
        self.kind = Some(self.kind.map_or(kind, |gravest| gravest.min(kind)));
    }

    /// The outcome of the verb.
    pub(super) fn end(self) -> Result<(), Ended> {
        self.kind.map_or(Ok(()), |kind| Err(Ended::Told(kind)))
    }
}

pub(super) fn listed(entry: &Entry) -> Listed<'_> {
    Listed {
        manifest: &entry.manifest,
        pinned: entry.pinned,
        verification: entry.verification.as_ref(),
        suspect: entry.suspect.as_ref(),
        foreign: entry.foreign,
    }
}

async fn list(context: &Context, args: &List) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let catalog = inspect::list(&opened.repository, &opened.filter).await.map_err(failed)?;
    let shown = catalog.entries.iter().take(args.limit.unwrap_or(usize::MAX)).map(listed);
    let shown: Vec<Listed<'_>> = shown.collect();
    progress.clear();
    let text = || {
        if shown.is_empty() { "no backups\n".to_owned() } else { list_text(&shown) }
    };
    context.output.result(text, || shown.iter().map(|listed| list_json(*listed)).collect())?;
    let mut gravest = Gravest::of(2);
    for fault in catalog.faults {
        // Not on stdout, where the one document has been written.
        let told = failed(fault.error);
        gravest.note(told.kind);
        context.output.complaint(&told);
    }
    gravest.end()
}

async fn mark(context: &Context, id: &str, pinned: bool) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let (repository, filter) = (&opened.repository, &opened.filter);
    let mut run = opened.begin(if pinned { "pin" } else { "unpin" }, None, None);
    let entry = if pinned {
        inspect::pin(repository, filter, id, &progress).await
    } else {
        inspect::unpin(repository, filter, id, &progress).await
    };
    let entry = entry.map_err(failed)?;
    run.concerns(&entry.manifest.cluster);
    run.of_database(&entry.manifest.database);
    run.end(repository, Ending::succeeded().about(&entry.manifest.id), &progress).await;
    progress.clear();
    let word = if pinned { "pinned" } else { "unpinned" };
    let text = || format!("{word} {}\n", entry.manifest.id);
    Ok(context.output.result(text, || list_json(listed(&entry)))?)
}

async fn adopt(context: &Context, args: &Adopt) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let (repository, filter) = (&opened.repository, &opened.filter);
    let host = wiring::host_name();
    let mut run = opened.begin("adopt", None, None);
    let report = adopt::run(repository, filter, args.id.as_deref(), &host).await.map_err(failed)?;
    if let Some(AdoptReport { entry, doubts }) =
        report.as_ref().filter(|one| !one.doubts.is_empty())
    {
        run.concerns(&entry.manifest.cluster);
        run.of_database(&entry.manifest.database);
        let ending = Ending::succeeded().about(&entry.manifest.id);
        run.end(repository, ending.saying(format!("was {}", doubts.join("; "))), &progress).await;
    }
    progress.clear();
    let document = |report: &AdoptReport| {
        let mut document = list_json(listed(&report.entry));
        document["adopted"] = json!(report.doubts);
        document
    };
    let text = || match &report {
        Some(report) if !report.doubts.is_empty() => {
            let lines = report.doubts.iter().map(|doubt| format!("  was {}\n", harmless(doubt)));
            format!("adopted {}\n{}", report.entry.manifest.id, lines.collect::<String>())
        }
        Some(report) => format!("nothing to adopt: {} is in no doubt\n", report.entry.manifest.id),
        None => "nothing to adopt\n".to_owned(),
    };
    Ok(context.output.result(text, || report.as_ref().map_or(json!({"adopted": []}), document))?)
}
