//! The layer that comes from environment variables.

use super::layer::{Layer, from_variable, known};
use super::schema::{HOOK_PREFIX, Place, Shape, VARIABLES, nearest_variable};
use super::{ConfigError, Environment, files};

/// Refuses `PGKEEP_…` variables that mean nothing: a typing error must not go unseen.
pub(super) fn refuse_unknown(environment: &Environment) -> Result<(), ConfigError> {
    for (name, _) in environment.with_prefix("PGKEEP") {
        let ours = name.starts_with("PGKEEP_");
        let understood = name.starts_with("PGKEEP__")
            || name.starts_with(HOOK_PREFIX)
            || VARIABLES.contains(&name);
        if ours && !understood {
            let nearest = nearest_variable(name);
            return Err(ConfigError::UnknownVariable { name: environment.origin(name), nearest });
        }
    }
    Ok(())
}

/// `PGKEEP__SECTION__KEY`.
pub(super) fn sectioned(environment: &Environment) -> Result<Layer, ConfigError> {
    let mut layer = Layer::default();
    for (name, text) in environment.with_prefix("PGKEEP__") {
        let origin = environment.origin(name);
        let path = name["PGKEEP__".len()..].to_ascii_lowercase().replace("__", ".");
        let segments: Vec<&str> = path.split('.').collect();
        let unknown = || ConfigError::UnknownVariable {
            name: origin.clone(),
            nearest: nearest_variable(name),
        };
        let Ok(Place::Key(key)) = known(&origin, &segments) else { return Err(unknown()) };
        files::refuse_chosen(&origin, &segments)?;
        let value = from_variable(&origin, &path, key.shape, text)?;
        layer.leaves.insert(path, value);
    }
    Ok(layer)
}

/// The names that stand alone, and the key each sets; `*` is the cluster that is meant.
const NAMED: &[(&str, &str, Shape)] = &[
    ("PGKEEP_BIN_DIR", "bin_dir", Shape::Path),
    ("PGKEEP_SCRATCH_DIR", "scratch_dir", Shape::Path),
    ("PGKEEP_REPOSITORY", "repository.url", Shape::Text),
    ("PGKEEP_RECIPIENTS", "encryption.recipients", Shape::List),
    ("PGKEEP_RECIPIENTS_FILE", "encryption.recipients_file", Shape::Path),
    ("PGKEEP_WRITER_KEY", "encryption.writer_key", Shape::Text),
    ("PGKEEP_WRITER_KEY_FILE", "encryption.writer_key_file", Shape::Path),
    ("PGKEEP_TRUSTED_SIGNERS", "encryption.trusted_signers", Shape::List),
    ("PGKEEP_IDENTITY", "encryption.identity", Shape::Text),
    ("PGKEEP_IDENTITY_FILE", "encryption.identity_file", Shape::Path),
    ("PGKEEP_DATABASE_URL", "clusters.*.url", Shape::Text),
    ("PGKEEP_DATABASE_URL_FILE", "clusters.*.url_file", Shape::Path),
];

/// `PGKEEP_REPOSITORY` and its like; the URL is of `cluster`.
pub(super) fn named(environment: &Environment, cluster: &str) -> Result<Layer, ConfigError> {
    let mut layer = Layer::default();
    for (name, path, shape) in NAMED {
        let Some(text) = environment.get(name) else { continue };
        let twin = format!("{name}_FILE");
        if environment.get(&twin).is_some() && *name != "PGKEEP_RECIPIENTS" {
            return Err(ConfigError::Rivals {
                origin: "the environment".to_owned(),
                first: (*name).to_owned(),
                second: twin,
            });
        }
        let path = path.replace('*', cluster);
        let value = from_variable(&environment.origin(name), &path, *shape, text)?;
        layer.leaves.insert(path, value);
    }
    Ok(layer)
}

/// Where a URL is looked for when none is configured, in this order.
pub(super) const OTHERS_URLS: &[&str] = &["DIRECT_URL", "DATABASE_URL"];
