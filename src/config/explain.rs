//! What is set, with every secret masked and the place each value came from.

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use serde::Serialize;
use serde_json::Value as Json;

use super::schema::{KEYS, Place, Secrecy, chosen, place};
use super::secret::{MASK, mask_connection};
use super::settings::{ConnectionSource, KeySource, Settings};

/// One key as `config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The dotted path.
    pub key: String,
    /// The value, masked where it is a secret.
    pub value: Json,
    /// File and line, variable, or `shipped default`.
    pub origin: String,
}

/// In the order of the shipped file, clusters and webhooks by name.
pub(super) fn explain(leaves: &BTreeMap<String, Value>) -> Vec<Explained> {
    let mut entries: Vec<(usize, Explained)> = Vec::new();
    for (key, value) in leaves {
        let Place::Key(known) = place(&key.split('.').collect::<Vec<_>>()) else { continue };
        let order = KEYS.iter().position(|other| other.path == known.path).unwrap_or(KEYS.len());
        let shown = match (known.secrecy, &value.kind) {
            (Secrecy::Secret, _) => Json::from(MASK),
            (Secrecy::Connection, ValueKind::String(text)) => Json::from(mask_connection(text)),
            (_, kind) => json(kind),
        };
        let origin = value.origin().unwrap_or("shipped default").to_owned();
        entries.push((order, Explained { key: key.clone(), value: shown, origin }));
    }
    let group = |entry: &Explained| {
        let path: Vec<&str> = entry.key.split('.').collect();
        let section = KEYS.iter().position(|key| key.path.split('.').next() == Some(path[0]));
        (section, chosen(&path).map(str::to_owned))
    };
    entries.sort_by_key(|(order, entry)| (group(entry), *order));
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// What was taken because nothing was configured: a URL of another tool's variable, keys at home.
pub(super) fn add_fallbacks(explained: &mut Vec<Explained>, settings: &Settings) {
    for (name, cluster) in &settings.clusters {
        let key = format!("clusters.{name}.url");
        if let ConnectionSource::Text(text, origin) = &cluster.connection
            && !explained.iter().any(|entry| entry.key == key)
        {
            let value = Json::from(mask_connection(text.expose()));
            explained.push(Explained { key, value, origin: origin.clone() });
        }
    }
    let keys = [
        ("encryption.writer_key_file", &settings.encryption.writer_key),
        ("encryption.identity_file", &settings.encryption.identity),
    ];
    for (key, source) in keys {
        if let KeySource::AtHome(path) = source
            && path.exists()
        {
            let value = Json::from(path.display().to_string());
            explained.push(Explained {
                key: key.to_owned(),
                value,
                origin: "found there".to_owned(),
            });
        }
    }
}

fn json(kind: &ValueKind) -> Json {
    match kind {
        ValueKind::Boolean(flag) => (*flag).into(),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::String(text) => text.as_str().into(),
        ValueKind::Array(items) => items.iter().map(|item| json(&item.kind)).collect(),
        ValueKind::Table(table) => {
            Json::Object(table.iter().map(|(k, v)| (k.clone(), json(&v.kind))).collect())
        }
        other => other.to_string().into(),
    }
}
