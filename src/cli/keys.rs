//! `key show`, `key rotate`, `key confirm`, `key trust`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::args::{KeyVerb, Rotate, Trust};
use super::context::Context;
use super::run::Ended;
use super::text::{Lines, harmless, time};
use super::verbs::Opened;
use crate::codec::sign::PublicKey;
use crate::config::{KeySource, Loaded, Settings};
use crate::domain::observer::{Observer as _, Severity};
use crate::domain::told::{Failed, failed};
use crate::ops::keys::{self, Confirmed, RotateOptions, RotateReport, TrustPlace, Trusted};
use crate::repo::documents::EpochDocument;
use crate::wiring;

pub(super) async fn run(context: &Context, verb: KeyVerb) -> Result<(), Ended> {
    match verb {
        KeyVerb::Show => show(context).await,
        KeyVerb::Rotate(args) => rotate(context, args).await,
        KeyVerb::Confirm => confirm(context).await,
        KeyVerb::Trust(args) => trust(context, &args),
    }
}

async fn rotate(context: &Context, args: Rotate) -> Result<(), Ended> {
    let progress = context.progress();
    let loaded = context.load()?;
    // A rotation that is only ended here may have been given recipients when it began.
    let config_file = match recipients_file(&loaded) {
        Ok(file) => Some(file),
        Err(_) if args.recipients.is_empty() => None,
        Err(refused) => return Err(refused.into()),
    };
    let mut settings = loaded.settings;
    let source = settings.encryption.writer_key.clone();
    let (Some(writer_key_file), Some(next)) = (source.path(), source.next()) else {
        let message = format!("the writer key comes from {}, not from a file", source.describe());
        let hint =
            "run it where PGKEEP_WRITER_KEY_FILE names the file, then put its line in that place";
        return Err(Failed::usage(message, hint).into());
    };
    let writer_key_file = writer_key_file.to_owned();
    if args.lost_writer_key {
        // One that is named and not there is lost.
        settings.encryption.writer_key = KeySource::AtHome(writer_key_file.clone());
    }
    let repository = wiring::open_repository(&settings).await.map_err(failed)?;
    let configured = wiring::keys(&settings).map_err(failed)?.recipients;
    if !args.recipients.is_empty() {
        settings.encryption.recipients = args.recipients;
    }
    let wanted = wiring::keys(&settings).map_err(failed)?;
    let kit_file = settings.encryption.identity.path().filter(|path| path.exists());
    let options = RotateOptions {
        writer_key_file,
        next_file: next.path().expect("it is a file").to_owned(),
        config_file,
        configured,
        kit_file: kit_file.map(ToOwned::to_owned),
        lost: args.lost_writer_key,
    };
    let report = keys::rotate(&repository, &wanted, &options).await.map_err(failed)?;
    progress.clear();
    let url = settings.location().map_err(failed)?.url();
    Ok(context.output.result(|| rotate_text(&report, &url), || rotate_json(&report, &url))?)
}

/// The configuration file, if the recipients are set there and nowhere else: what is given on the command line
/// must be configured afterwards, or no snapshot would be taken.
fn recipients_file(loaded: &Loaded) -> Result<PathBuf, Failed> {
    let set = loaded.explained.iter().find(|entry| {
        ["encryption.recipients", "encryption.recipients_file"].contains(&entry.key.as_str())
    });
    let file = loaded.settings.file.clone();
    let elsewhere = match (set, &file) {
        (None, Some(_)) => None,
        (Some(set), Some(file)) => {
            let own = format!("{}:", file.display());
            let here = set.key == "encryption.recipients" && set.origin.starts_with(&own);
            (!here).then(|| set.origin.clone())
        }
        (Some(set), None) => Some(set.origin.clone()),
        (None, None) => Some("the environment".to_owned()),
    };
    match (elsewhere, file) {
        (None, Some(file)) => Ok(file),
        (place, _) => {
            let place = place.unwrap_or_default();
            let message =
                format!("the recipients are configured in {place}, which is not changed from here");
            Err(Failed::usage(
                message,
                "set the new ones there, then run `pgkeep key rotate` without --recipient",
            ))
        }
    }
}

fn rotate_json(report: &RotateReport, url: &str) -> Json {
    json!({
        "repository": url,
        "epoch": report.epoch,
        "replaces": report.replaces,
        "recipients": report.recipients,
        "signer": report.signer,
        "signer_key_id": report.signer_key_id,
        "signer_is_new": report.signer_is_new,
        "writer_key_file": report.writer_key_file,
        "kept_aside": report.kept_aside,
        "config_file": report.config_file,
        "finished": report.finished,
    })
}

fn rotate_text(report: &RotateReport, url: &str) -> String {
    let mut text = Lines::default();
    let verb = if report.finished { "finished opening" } else { "opened" };
    let old: Vec<_> = report.replaces.iter().map(ToString::to_string).collect();
    let old = old.join(", ");
    text.line(&format!("{verb} epoch {} in place of {old}", report.epoch));
    for recipient in &report.recipients {
        text.line(&format!("readable by {recipient}"));
    }
    text.line(&format!("signed by {} (key id {})", report.signer, report.signer_key_id));
    text.line(&format!("wrote {}", report.writer_key_file.display()));
    if let Some(aside) = &report.kept_aside {
        text.line(&format!("kept the old one as {}", aside.display()));
    }
    if let Some(config) = &report.config_file {
        text.line(&format!("set encryption.recipients in {}", config.display()));
    }
    text.block("\nWhat is to be done now:\n");
    text.line("- Restart a daemon that runs here: until then it holds the old key, and its runs are refused.");
    text.line("- Take a snapshot. It stores everything anew.");
    text.line(&format!(
        "- Other hosts that write here are refused (exit 7) until they have {} and these recipients.",
        report.writer_key_file.display()
    ));
    if report.signer_is_new {
        text.line(&format!(
            "- The signer is new. On every host that reads or verifies: pgkeep key trust {}",
            report.signer
        ));
    }
    if !report.recipients.is_empty() {
        if report.signer_is_new {
            text.line("- Add this line to every recovery kit, beside the signers that are there:");
        } else {
            text.line("- The file of each identity, kept away from this host, is a recovery kit with these lines:");
            text.line(&format!("# repository: {}", harmless(url)));
        }
        text.line(&format!("# signer: {}", report.signer));
        text.line("- Prove that a kit is kept there: run `pgkeep key confirm` on that host.");
        text.line(&format!(
            "- Keep the identities of {old} as long as its backups matter: only they open them."
        ));
    }
    text.into_text()
}

async fn confirm(context: &Context) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let host = wiring::host_name();
    let confirmed = keys::confirm(&opened.repository, &host).await.map_err(failed)?;
    progress.clear();
    Ok(context.output.result(|| confirm_text(&confirmed), || confirm_json(&confirmed))?)
}

fn confirm_json(confirmed: &[Confirmed]) -> Json {
    let one = |one: &Confirmed| {
        json!({
            "epoch": one.epoch,
            "backup": one.backup,
            "host": one.host,
            "confirmed_at": one.confirmed_at,
        })
    };
    confirmed.iter().map(one).collect()
}

fn confirm_text(confirmed: &[Confirmed]) -> String {
    let mut text = Lines::default();
    for one in confirmed {
        let backup = match &one.backup {
            Some(id) => format!("and backup {id}"),
            None => "; there is no backup of it yet".to_owned(),
        };
        let host = harmless(&one.host);
        text.line(&format!("the identity on {host} opens epoch {} {backup}", one.epoch));
    }
    text.into_text()
}

/// What is no public key, and may be a secret that was taken for one.
fn parse_signer(text: &str) -> Result<PublicKey, Failed> {
    let looks_public = text.trim().starts_with("RW") && text.trim().len() == 56;
    match PublicKey::parse(text) {
        Ok(signer) => Ok(signer),
        Err(error) if looks_public => Err(failed(error)),
        // Not repeated: it may be the other half.
        Err(_) => Err(Failed::usage(
            "one of these is not a minisign public key",
            "a public key is `RW` and 54 more characters; `pgkeep key show` on the host that signs prints it",
        )),
    }
}

fn trust(context: &Context, args: &Trust) -> Result<(), Ended> {
    let signers = args.signers.iter().map(|text| parse_signer(text));
    let signers = signers.collect::<Result<Vec<_>, _>>()?;
    let place = trust_place(&context.load()?)?;
    let trusted = keys::trust(&place, &signers).map_err(failed)?;
    Ok(context.output.result(|| trust_text(&place, &trusted), || trust_json(&place, &trusted))?)
}

/// The configuration file where there is one, else the recovery kit.
fn trust_place(loaded: &Loaded) -> Result<TrustPlace, Failed> {
    let settings = &loaded.settings;
    let set = loaded.explained.iter().find(|entry| entry.key == "encryption.trusted_signers");
    let from_file = |file: &PathBuf| {
        let own = format!("{}:", file.display());
        set.is_none_or(|set| set.origin.starts_with(&own))
    };
    let identity = settings.encryption.identity.path().filter(|path| path.exists());
    match (&settings.file, identity, set) {
        (Some(file), _, _) if from_file(file) => {
            let present = settings.encryption.trusted_signers.clone();
            Ok(TrustPlace::Configuration(file.clone(), present))
        }
        (None, Some(kit), None) => Ok(TrustPlace::Kit(kit.to_owned())),
        (_, _, Some(set)) => Err(Failed::usage(
            format!(
                "the trusted signers are set in {}, which is not changed from here",
                set.origin
            ),
            "add the public key there",
        )),
        _ => Err(Failed::usage(
            "there is no configuration file and no recovery kit to add it to",
            "set PGKEEP_IDENTITY_FILE to the kit, or add the public key to PGKEEP_TRUSTED_SIGNERS",
        )),
    }
}

fn trust_json(place: &TrustPlace, trusted: &[Trusted]) -> Json {
    let one = |one: &Trusted| json!({"signer": one.signer, "key_id": one.signer.key_id(), "added": !one.before});
    json!({ "file": place.path(), "signers": trusted.iter().map(one).collect::<Vec<_>>() })
}

fn trust_text(place: &TrustPlace, trusted: &[Trusted]) -> String {
    let mut text = Lines::default();
    let file = place.path().display();
    for one in trusted {
        let (signer, id) = (one.signer, one.signer.key_id());
        let verb = if one.before { "already trusted" } else { "trusted now" };
        text.line(&format!("{signer} (key id {id}) is {verb}, in {file}"));
    }
    if matches!(place, TrustPlace::Configuration(..)) {
        text.line("put this into the recovery kits that are kept elsewhere:");
        for one in trusted {
            text.line(&format!("# signer: {}", one.signer));
        }
    }
    text.into_text()
}

/// Which keys are in use, and which of them this host holds.
async fn show(context: &Context) -> Result<(), Ended> {
    let progress = context.progress();
    let opened = Opened::open(context, &progress).await?;
    let repository = &opened.repository;
    let keys = repository.keys();
    let encryption = &opened.settings.encryption;
    let epoch = match &keys.writer {
        Some(writer) => Some(repository.epoch(&writer.epoch).await.map_err(failed)?),
        None => None,
    };
    let in_force = repository.epochs_in_force().await.map_err(failed)?;
    let confirmations = match &epoch {
        Some(epoch) => repository.confirmations(&epoch.epoch).await.map_err(failed)?,
        None => Vec::new(),
    };
    let shown = ShownKeys {
        repository: opened.settings.location().map_err(failed)?.url(),
        repository_id: repository.document.id.clone(),
        encrypted: !repository.is_plaintext(),
        replaced_by: replaced_by(epoch.as_ref(), &in_force),
        epoch: epoch.as_ref().map(|document| document.epoch.to_string()),
        recipients: epoch.map_or_else(|| keys.recipients.clone(), |document| document.recipients),
        signer: keys.writer.as_ref().map(|writer| writer.signing.public().to_string()),
        signer_key_id: keys.writer.as_ref().map(|writer| writer.signing.key_id()),
        // The writer key's own signer is trusted, and the kit names it again.
        trusted_signers: keys.trusted().iter().map(ToString::to_string).collect(),
        writer_key: keys.writer.is_some().then(|| encryption.writer_key.describe()),
        identity: (keys.opener.is_some() && !repository.is_plaintext())
            .then(|| encryption.identity.describe()),
        confirmations: confirmations
            .into_iter()
            .map(|one| ShownConfirmation { host: one.host, confirmed_at: one.confirmed_at })
            .collect(),
    };
    if unfinished(&opened.settings) {
        let told =
            "a rotation of this host's writer key was cut short: run `pgkeep key rotate` again";
        progress.finding(Severity::Warning, told);
    }
    progress.clear();
    Ok(context.output.result(|| shown.text(), || json!(shown))?)
}

/// The epoch that is written in instead, if this host's is in force no more.
fn replaced_by(own: Option<&EpochDocument>, in_force: &[EpochDocument]) -> Option<String> {
    let own = own?;
    let later = in_force.iter().rev().find(|other| other.replaces.contains(&own.epoch))?;
    Some(later.epoch.to_string())
}

fn unfinished(settings: &Settings) -> bool {
    let next = settings.encryption.writer_key.next();
    next.as_ref().and_then(KeySource::path).is_some_and(std::path::Path::exists)
}

#[derive(Serialize)]
struct ShownConfirmation {
    host: String,
    confirmed_at: jiff::Timestamp,
}

#[derive(Serialize)]
struct ShownKeys {
    repository: String,
    repository_id: String,
    encrypted: bool,
    epoch: Option<String>,
    /// The epoch that took its place: nothing can be written from here.
    replaced_by: Option<String>,
    recipients: Vec<String>,
    signer: Option<String>,
    signer_key_id: Option<String>,
    trusted_signers: BTreeSet<String>,
    /// Where the writer key is, if this host holds one; never the key.
    writer_key: Option<String>,
    /// Where the identity is, if this host holds one.
    identity: Option<String>,
    /// The hosts without a writer key that proved to hold an identity of this epoch.
    confirmations: Vec<ShownConfirmation>,
}

impl ShownKeys {
    fn text(&self) -> String {
        let held = |place: &Option<String>, without: &str| {
            place.clone().unwrap_or_else(|| format!("none here: this host cannot {without}"))
        };
        let mut facts = vec![
            ("repository", self.repository.clone()),
            ("epoch", self.epoch.clone().unwrap_or_else(|| "unknown without a writer key".into())),
        ];
        facts.extend(self.replaced_by.iter().map(|by| ("replaced by", by.clone())));
        if !self.encrypted {
            facts.push(("encryption", "none".to_owned()));
        }
        facts.extend(self.recipients.iter().map(|recipient| ("recipient", recipient.clone())));
        facts.extend(self.signer.iter().map(|signer| ("signs as", signer.clone())));
        facts.extend(self.signer_key_id.iter().map(|id| ("key id", id.clone())));
        facts.extend(self.trusted_signers.iter().map(|signer| ("trusts", signer.clone())));
        facts.push(("writer key", held(&self.writer_key, "write")));
        if self.encrypted {
            facts.push(("identity", held(&self.identity, "read what it wrote")));
        }
        if self.encrypted && self.writer_key.is_some() {
            facts.extend(self.confirmed());
        }
        let line = |(name, value): (&str, String)| format!("{name:<12}{}\n", harmless(&value));
        facts.into_iter().map(line).collect()
    }

    /// Where recovery kits are known to be kept.
    fn confirmed(&self) -> Vec<(&'static str, String)> {
        let told = |one: &ShownConfirmation| {
            ("kit", format!("kept on {}, confirmed {}", one.host, time(one.confirmed_at)))
        };
        if !self.confirmations.is_empty() {
            return self.confirmations.iter().map(told).collect();
        }
        let place = match self.identity {
            Some(_) => "identity kept only here",
            None => "confirmed on no other host",
        };
        vec![("kit", format!("{place}: run `pgkeep key confirm` where the recovery kit is kept"))]
    }
}
