//! `config show` and `config validate`.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::args::ConfigVerb;
use super::context::Context;
use super::output::write_stdout;
use super::run::Ended;
use super::text::{Align, Table, harmless};
use crate::config::{Loaded, SHIPPED, Settings};
use crate::domain::connection::ConnectionInfo;
use crate::domain::told::{Failed, failed};

pub(super) fn config(context: &Context, verb: &ConfigVerb) -> Result<(), Ended> {
    match verb {
        ConfigVerb::Show { defaults: true } => Ok(write_stdout(SHIPPED)?),
        ConfigVerb::Show { defaults: false } => {
            let loaded = context.load()?;
            Ok(context.output.result(|| show_text(&loaded), || show_json(&loaded))?)
        }
        ConfigVerb::Validate => {
            let loaded = context.load()?;
            let servers = validate(&loaded.settings)?;
            let document = || {
                json!({
                    "valid": true,
                    "file": loaded.settings.file,
                    "clusters": servers.iter().map(|(name, at)| json!({"name": name, "server": at}))
                        .collect::<Vec<_>>(),
                })
            };
            let text = || {
                let file = place(loaded.settings.file.as_deref());
                let lines = servers.iter().map(|(name, at)| format!("cluster {name}: {at}\n"));
                harmless_lines(&format!("{file} is valid\n{}", lines.collect::<String>()))
            };
            Ok(context.output.result(text, document)?)
        }
    }
}

/// Reads every key file and connection string that is configured; connects to nothing.
fn validate(settings: &Settings) -> Result<Vec<(String, String)>, Failed> {
    settings.location().map_err(failed)?;
    settings.encryption.all_recipients().map_err(failed)?;
    settings.encryption.read_writer_key().map_err(failed)?;
    settings.encryption.read_identity().map_err(failed)?;
    settings.daemon.read_token().map_err(failed)?;
    for webhook in settings.notify.webhooks.values() {
        webhook.read_url().map_err(failed)?;
    }
    let mut servers = Vec::new();
    for (name, cluster) in &settings.clusters {
        let text = settings.connection_text(name, cluster).map_err(failed)?;
        let sources = &settings.environment;
        let parsed = match text {
            Some(text) => ConnectionInfo::parse(text.expose(), sources),
            None => ConnectionInfo::from_environment(sources),
        };
        let connection = parsed.map_err(|error| {
            let told = failed(error);
            Failed { message: format!("cluster {name}: {}", told.message), ..told }
        })?;
        servers.push((name.to_string(), connection.describe()));
    }
    Ok(servers)
}

fn place(file: Option<&Path>) -> String {
    file.map_or_else(|| "the environment".to_owned(), |file| file.display().to_string())
}

fn harmless_lines(text: &str) -> String {
    text.lines().map(|line| harmless(line) + "\n").collect()
}

fn show_text(loaded: &Loaded) -> String {
    let mut table =
        Table::new(&[("KEY", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)]);
    for entry in &loaded.explained {
        let value = match &entry.value {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.row(vec![entry.key.clone(), value, entry.origin.clone()]);
    }
    let settings = &loaded.settings;
    let head = format!(
        "home  {}\nfile  {}\n",
        settings.home.display(),
        settings
            .file
            .as_deref()
            .map_or_else(|| "none".to_owned(), |file| file.display().to_string())
    );
    format!("{}\n{}", harmless_lines(&head), table.render())
}

fn show_json(loaded: &Loaded) -> Json {
    json!({
        "home": loaded.settings.home,
        "file": loaded.settings.file,
        "settings": loaded.explained,
    })
}
