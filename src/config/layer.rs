//! One layer of configuration: leaves by their dotted path, each with where it was set.
//!
//! Reading into a layer checks every path and shape against the schema, so that what is merged later is
//! known to be sound and every complaint names the line or the variable that caused it.

use std::collections::BTreeMap;

use config::{Map, Value, ValueKind};
use toml::de::DeValue;

use super::ConfigError;
use super::schema::{Place, Shape, nearest, place};

/// Leaves by dotted path.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    pub(super) leaves: BTreeMap<String, Value>,
}

/// A value that came as text from a variable, in the shape the key wants.
///
/// A list is split at commas and white space, unless it is written as a TOML array.
pub(super) fn from_variable(
    origin: &str,
    path: &str,
    shape: Shape,
    text: &str,
) -> Result<Value, ConfigError> {
    let refused = |expected: &str| ConfigError::Shape {
        origin: origin.to_owned(),
        key: path.to_owned(),
        expected: expected.to_owned(),
    };
    let kind = match shape {
        Shape::Text | Shape::Path => ValueKind::String(text.to_owned()),
        Shape::Integer => text.trim().parse::<i64>().map_err(|_| refused(shape.expected()))?.into(),
        Shape::Flag => match text.trim() {
            "true" => true.into(),
            "false" => false.into(),
            _ => return Err(refused(shape.expected())),
        },
        Shape::List | Shape::Command if text.trim_start().starts_with('[') => {
            let spanned = DeValue::parse(text.trim());
            let spanned = spanned.map_err(|_| refused("a list of texts as in TOML"))?;
            return from_toml(origin, path, shape, spanned.get_ref());
        }
        Shape::List => {
            let words = text.split(|c: char| c == ',' || c.is_whitespace());
            let words = words.filter(|word| !word.is_empty());
            words.map(|word| Value::new(Some(&origin.to_owned()), word)).collect::<Vec<_>>().into()
        }
        Shape::Command => {
            return Err(refused("a list of texts as in TOML: [\"program\", \"argument\"]"));
        }
        Shape::Assertions => return Err(refused("written in a configuration file")),
    };
    Ok(Value::new(Some(&origin.to_owned()), kind))
}

/// A value from a file, checked.
pub(super) fn from_toml(
    origin: &str,
    path: &str,
    shape: Shape,
    value: &DeValue<'_>,
) -> Result<Value, ConfigError> {
    let refused = || ConfigError::Shape {
        origin: origin.to_owned(),
        key: path.to_owned(),
        expected: shape.expected().to_owned(),
    };
    let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned).ok_or_else(refused);
    let kind: ValueKind = match shape {
        Shape::Text | Shape::Path => text(value)?.into(),
        Shape::Integer => {
            let number = value.as_integer().ok_or_else(refused)?;
            i64::from_str_radix(number.as_str(), number.radix()).map_err(|_| refused())?.into()
        }
        Shape::Flag => value.as_bool().ok_or_else(refused)?.into(),
        Shape::List | Shape::Command => {
            let items = value.as_array().ok_or_else(refused)?;
            items.iter().map(|item| text(item.get_ref())).collect::<Result<Vec<_>, _>>()?.into()
        }
        Shape::Assertions => {
            let items = value.as_array().ok_or_else(refused)?;
            let mut tables = Vec::new();
            for item in items {
                let table = item.get_ref().as_table().ok_or_else(refused)?;
                let mut kept = Map::new();
                for (name, value) in table {
                    if !matches!(name.get_ref().as_ref(), "name" | "sql") {
                        return Err(refused());
                    }
                    kept.insert(name.get_ref().to_string(), text(value.get_ref())?);
                }
                if kept.len() != 2 {
                    return Err(refused());
                }
                tables.push(kept);
            }
            tables.into()
        }
    };
    Ok(Value::new(Some(&origin.to_owned()), kind))
}

/// The key at a path, or the complaint that there is none.
pub(super) fn known(origin: &str, path: &[&str]) -> Result<Place, ConfigError> {
    match place(path) {
        Place::Unknown => Err(ConfigError::UnknownKey {
            origin: origin.to_owned(),
            key: path.join("."),
            nearest: nearest(path),
        }),
        found => Ok(found),
    }
}

/// Puts the layers on one another, lowest first, with the `config` crate.
///
/// A key that says the same thing as one of a lower layer in another way (`url` and `url_file`) takes its
/// place; two in one layer are refused, but for recipients, which add up.
pub(super) fn merge(mut layers: Vec<Layer>) -> Result<config::Config, ConfigError> {
    for upper in 0..layers.len() {
        let paths: Vec<String> = layers[upper].leaves.keys().cloned().collect();
        for path in paths {
            let Place::Key(key) = place(&path.split('.').collect::<Vec<_>>()) else { continue };
            let section = path.rsplit_once('.').map_or("", |(section, _)| section);
            for rival in key.rivals {
                let rival = format!("{section}.{rival}");
                let both = layers[upper].leaves.contains_key(&rival);
                if both && !path.ends_with("recipients") && !path.ends_with("recipients_file") {
                    let origin = layers[upper].leaves[&path].origin().unwrap_or_default();
                    let origin =
                        origin.rsplit_once(':').map_or(origin, |(file, _)| file).to_owned();
                    return Err(ConfigError::Rivals { origin, first: path, second: rival });
                }
                for lower in &mut layers[..upper] {
                    lower.leaves.remove(&rival);
                }
            }
        }
    }
    let mut builder = config::Config::builder();
    for layer in layers {
        builder = builder.add_source(Nested(nested(layer)));
    }
    Ok(builder.build()?)
}

/// A layer as the `config` crate takes it.
#[derive(Debug, Clone)]
struct Nested(Map<String, Value>);

impl config::Source for Nested {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn nested(layer: Layer) -> Map<String, Value> {
    let mut root = Value::new(None, Map::<String, Value>::new());
    for (path, value) in layer.leaves {
        let mut at = &mut root;
        for part in path.split('.') {
            if !matches!(at.kind, ValueKind::Table(_)) {
                at.kind = ValueKind::Table(Map::new());
            }
            let ValueKind::Table(table) = &mut at.kind else { unreachable!("made a table above") };
            at = table.entry(part.to_owned()).or_insert_with(|| Value::new(None, ValueKind::Nil));
        }
        *at = value;
    }
    match root.kind {
        ValueKind::Table(table) => table,
        _ => Map::new(),
    }
}

/// The leaves of what was merged, by dotted path.
pub(super) fn leaves(config: &config::Config) -> Result<BTreeMap<String, Value>, ConfigError> {
    fn walk(prefix: &str, table: &Map<String, Value>, out: &mut BTreeMap<String, Value>) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match &value.kind {
                ValueKind::Table(table) => walk(&path, table, out),
                _ => {
                    out.insert(path, value.clone());
                }
            }
        }
    }
    let mut out = BTreeMap::new();
    walk("", &config::Source::collect(config)?, &mut out);
    Ok(out)
}
