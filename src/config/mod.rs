//! Floor 1: reads and merges configuration; knows no vendor.
//!
//! Layers, lowest first: the defaults shipped in `config/pgkeep.toml`, one file (`--config`, else
//! `PGKEEP_CONFIG`, else `pgkeep.toml` at [`Environment::config_home`]), `PGKEEP__SECTION__KEY`, the variables that
//! stand alone (`PGKEEP_REPOSITORY`, …), and what flags select. Everything is a function of the
//! [`Environment`] passed in and of the files it points to.
//!
//! Invariants: an unknown key or variable is an error, never passed over; no message repeats a value or a line
//! of a file, since either may be a secret; a file that holds a secret and is open to others is refused.
//! Nothing but [`edit`] writes, so a crash leaves nothing.

use std::path::{Path, PathBuf};

mod build;
mod credentials;
mod daemon;
mod dotenv;
pub mod edit;
mod environment;
mod error;
mod explain;
mod files;
mod health;
mod jobs;
mod layer;
mod retention;
mod schema;
mod secret;
mod section;
pub mod settings;
mod starter;
mod variables;

pub use dotenv::pairs_of as dotenv_pairs;
pub use environment::Environment;
pub use error::ConfigError;
pub use explain::Explained;
pub use files::read_secret;
pub use secret::{MASK, connection_has_password, mask_connection};
pub use section::duration;
pub use settings::{
    AlarmSettings, Assertion, ChecksumPolicy, ClusterSettings, ConnectionSource, DaemonSettings,
    Databases, EncryptionSettings, HealthSettings, Hooks, IDENTITY_FILE_NAME, JobSettings,
    KeySource, News, NotifySettings, RepositoryLocation, RepositorySettings, ScratchChoice,
    ServiceSettings, Settings, WRITER_KEY_FILE_NAME, WebhookSettings, WebhookTemplate,
};
pub use starter::Starter;

/// The configuration file's name at home.
pub const FILE_NAME: &str = "pgkeep.toml";
/// The cluster's name where none is given.
pub const DEFAULT_CLUSTER: &str = "main";
/// The shipped defaults, every key explained.
pub const SHIPPED: &str = include_str!("../../config/pgkeep.toml");

/// What flags say about configuration.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--env-file`.
    pub env_file: Option<PathBuf>,
    /// `--cluster`.
    pub cluster: Option<String>,
    /// `--database`.
    pub database: Option<String>,
}

/// Settings, and where each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The typed result.
    pub settings: Settings,
    /// Every key that is set, with its value as it may be shown and its origin.
    pub explained: Vec<Explained>,
}

/// Reads, merges and checks everything.
pub fn load(environment: Environment, selection: &Selection) -> Result<Loaded, ConfigError> {
    let environment = match &selection.env_file {
        Some(path) => environment.with_env_file(path)?,
        None => environment,
    };
    variables::refuse_unknown(&environment)?;
    let shipped = files::parse(SHIPPED, Path::new("the shipped defaults"), &|_| {
        "shipped default".to_owned()
    })?;
    let file = files::choose(&environment, selection.config.as_deref());
    let mut layers = vec![shipped];
    if let Some(path) = &file {
        layers.push(files::read_layer(path)?);
    }
    layers.push(variables::sectioned(&environment)?);
    let cluster = meant_cluster(&layers, &environment, selection)?;
    let named = variables::named(&environment, &cluster)?;
    if named.leaves.keys().any(|key| key.starts_with("clusters.")) {
        // With a URL from the environment, only that URL's own database is meant.
        let databases = format!("clusters.{cluster}.databases");
        for layer in &mut layers {
            layer.leaves.remove(&databases);
        }
    }
    layers.push(named);
    let merged = layer::merge(layers)?;
    let mut explained = explain::explain(&layer::leaves(&merged)?);
    let mut settings = build::settings(merged, &explained, environment, file, selection)?;
    credentials::take(&mut settings);
    explain::add_fallbacks(&mut explained, &settings);
    Ok(Loaded { settings, explained })
}

/// The cluster whose URL `PGKEEP_DATABASE_URL` is.
fn meant_cluster(
    layers: &[layer::Layer],
    environment: &Environment,
    selection: &Selection,
) -> Result<String, ConfigError> {
    if let Some(name) = selection.cluster.as_deref().or(environment.get("PGKEEP_CLUSTER")) {
        files::refuse_cluster_name("--cluster or PGKEEP_CLUSTER", "cluster", name)?;
        return Ok(name.to_owned());
    }
    let keys = layers.iter().flat_map(|layer| layer.leaves.keys());
    let mut names: Vec<&str> =
        keys.filter_map(|key| key.strip_prefix("clusters.")?.split('.').next()).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    Ok(match names[..] {
        [only] => only.to_owned(),
        _ => DEFAULT_CLUSTER.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::domain::failure::{Failure, FailureKind};

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a directory"))
        }
        fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
            path
        }
        fn load(&self, text: &str, pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
            self.file(FILE_NAME, text, 0o600);
            let home = self.0.path().to_str().expect("utf-8");
            let pairs = pairs.iter().copied().chain([("PGKEEP_HOME", home)]);
            load(Environment::from_pairs(pairs), &Selection::default())
        }
        /// One line, without the directory, which differs by run; and the hint.
        fn refusal(&self, text: &str, pairs: &[(&str, &str)]) -> (String, String) {
            let error = self.load(text, pairs).expect_err("must be refused");
            assert_eq!(error.kind(), FailureKind::Usage);
            let dir = format!("{}/", self.0.path().display());
            let hint = error.hint().expect("a hint").replace(&dir, "");
            (error.to_string().replace(&dir, ""), hint)
        }
    }

    fn from(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        load(Environment::from_pairs(pairs.iter().copied()), &Selection::default())
    }

    fn url(loaded: &Loaded) -> (String, String) {
        let (name, cluster) = loaded.settings.cluster().expect("a cluster");
        let text = loaded.settings.connection_text(name, cluster).expect("reads");
        let text = text.map_or_else(|| "PG*".to_owned(), |text| text.expose().to_owned());
        (name.to_string(), text)
    }

    #[test]
    fn the_shipped_file_explains_every_key_and_all_its_examples_are_accepted() {
        let mut whole = String::new();
        for line in SHIPPED.lines() {
            let example = line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '\n']));
            whole.push_str(example.unwrap_or(line));
            whole.push('\n');
        }
        let layer = files::parse(&whole, Path::new("x"), &|line| line.to_string());
        let layer = layer.expect("every example is accepted");
        for key in schema::KEYS {
            let named = schema::example(key.path);
            assert!(layer.leaves.contains_key(&named), "{named} is not explained");
        }
    }

    #[test]
    fn without_anything_the_environment_is_libpqs() {
        let loaded = from(&[]).expect("loads");
        assert_eq!(url(&loaded), ("main".to_owned(), "PG*".to_owned()));
        let (_, cluster) = loaded.settings.cluster().expect("a cluster");
        assert_eq!(cluster.databases, Databases::OfConnection);
        assert!(matches!(loaded.settings.location(), Err(ConfigError::NoRepository)));
    }

    #[test]
    fn urls_are_looked_for_in_the_documented_order() {
        let all = [
            ("PGKEEP_DATABASE_URL", "postgres://own/d"),
            ("DIRECT_URL", "postgres://direct/d"),
            ("DATABASE_URL", "postgres://database/d"),
        ];
        for (from_here, expected) in ["own", "direct", "database"].iter().enumerate() {
            let loaded = from(&all[from_here..]).expect("loads");
            assert_eq!(url(&loaded).1, format!("postgres://{expected}/d"));
            let (_, cluster) = loaded.settings.cluster().expect("a cluster");
            assert_eq!(cluster.databases, Databases::OfConnection);
        }
    }

    #[test]
    fn later_layers_win_and_each_value_tells_its_place() {
        let place = Place::new();
        let text = "[repository]\nurl = \"file:///a\"\ngrace = \"1h\"\n[compression]\nlevel = 5\n";
        let pairs = [
            ("PGKEEP__REPOSITORY__URL", "file:///b"),
            ("PGKEEP__COMPRESSION__LEVEL", "007"),
            ("PGKEEP_REPOSITORY", "/c d"),
        ];
        let loaded = place.load(text, &pairs).expect("loads");
        assert_eq!(loaded.settings.location().expect("set").url(), "file:///c%20d");
        assert_eq!(loaded.settings.repository.grace.as_secs(), 3600);
        assert_eq!(loaded.settings.compression_level, 7);
        let origin = |key: &str| {
            let entry = loaded.explained.iter().find(|entry| entry.key == key).expect("explained");
            entry.origin.clone()
        };
        assert_eq!(origin("repository.url"), "PGKEEP_REPOSITORY");
        assert!(origin("repository.grace").ends_with("pgkeep.toml:3"));
        assert_eq!(origin("encryption.insecure_plaintext"), "shipped default");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let place = Place::new();
        let (line, hint) = place.refusal("[repository]\n\nulr = \"file:///a\"\n", &[]);
        assert_eq!(line, "pgkeep.toml:3: unknown key `repository.ulr`");
        assert!(hint.starts_with("the nearest known key is `repository.url`"), "{hint}");
        let (line, hint) = place.refusal("[clusters.main]\nretention = { keep_lst = 1 }\n", &[]);
        assert_eq!(line, "pgkeep.toml:2: unknown key `clusters.main.retention.keep_lst`");
        assert!(hint.contains("`clusters.main.retention.keep_last`"), "{hint}");
        let (line, _) = place.refusal("[clusters.main]\nwal = { mode = \"off\" }\n", &[]);
        assert_eq!(line, "pgkeep.toml:2: unknown key `clusters.main.wal`");
    }

    #[test]
    fn an_unknown_variable_is_named_with_the_nearest_known_one() {
        let place = Place::new();
        let (line, hint) = place.refusal("", &[("PGKEEP_DATABASEURL", "x")]);
        assert_eq!(line, "unknown environment variable PGKEEP_DATABASEURL");
        assert!(hint.starts_with("the nearest known one is PGKEEP_DATABASE_URL;"), "{hint}");
        let (line, hint) = place.refusal("", &[("PGKEEP__CLUSTERS__MAIN__PASWORD", "x")]);
        assert!(line.contains("PGKEEP__CLUSTERS__MAIN__PASWORD"), "{line}");
        assert!(hint.contains("PGKEEP__CLUSTERS__MAIN__"), "{hint}");
    }

    #[test]
    fn a_wrong_shape_names_the_line_and_repeats_no_value() {
        let place = Place::new();
        for (text, expected) in [
            ("[repository]\nurl = 5\n", "pgkeep.toml:2: `repository.url` must be a text in quotes"),
            (
                "[encryption]\nrecipients = \"hunter2\"\n",
                "pgkeep.toml:2: `encryption.recipients` must be a list of texts",
            ),
            ("repository = 1\n", "pgkeep.toml:1: `repository` must be a table"),
            (
                "[clusters.Main]\n",
                "pgkeep.toml:1: `clusters.Main` must be named with lower-case letters, digits, `-` and `_`",
            ),
            (
                "[repository]\ngrace = \"soon\"\n",
                "pgkeep.toml:2: `repository.grace` must be a duration such as 24h or 90m",
            ),
            (
                "[compression]\nlevel = 99\n",
                "pgkeep.toml:2: `compression.level` must be a whole number from -7 to 19",
            ),
            (
                "[repository]\nurl = \"s3://b/p\"\n",
                "pgkeep.toml:2: `repository.url` must be file:///absolute/path, an absolute path, or s3://bucket/prefix",
            ),
        ] {
            assert_eq!(place.refusal(text, &[]).0, expected);
        }
        let (line, _) = place.refusal("[repository]\nurl = \"hunter2\n", &[]);
        assert!(line.starts_with("pgkeep.toml:2:"), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }

    #[test]
    fn a_file_with_a_secret_that_others_can_read_is_refused() {
        let place = Place::new();
        let secret = "[clusters.main]\nurl = \"postgres://u:hunter2@h/d\"\n";
        place.load(secret, &[]).expect("a private file may hold it");
        for mode in [0o640, 0o604] {
            let path = place.file("open.toml", secret, mode);
            let env = [("PGKEEP_CONFIG", path.to_str().expect("utf-8"))];
            let error = from(&env).expect_err("must be refused");
            assert_eq!(error.kind().exit_code(), 2);
            assert_eq!(error.hint(), Some(format!("run `chmod 600 {}`", path.display())));
            assert!(!error.to_string().contains("hunter2"));
        }
        let path = place.file("open.toml", "[clusters.main]\nurl = \"postgres://u@h/d\"\n", 0o644);
        from(&[("PGKEEP_CONFIG", path.to_str().expect("utf-8"))]).expect("no secret in it");
    }

    #[test]
    fn key_files_that_others_can_read_are_refused_and_absent_ones_at_home_are_none() {
        let place = Place::new();
        let loaded = place.load("", &[]).expect("loads");
        assert!(loaded.settings.encryption.read_writer_key().expect("absent").is_none());
        place.file(WRITER_KEY_FILE_NAME, "key", 0o600);
        let key = loaded.settings.encryption.read_writer_key().expect("reads").expect("is there");
        assert_eq!(key.expose(), "key");
        place.file(WRITER_KEY_FILE_NAME, "key", 0o644);
        let error = loaded.settings.encryption.read_writer_key().expect_err("must be refused");
        assert!(matches!(error, ConfigError::Exposed { .. }));
        let named = place.load("[encryption]\nidentity_file = \"id.txt\"\n", &[]).expect("loads");
        let error = named.settings.encryption.read_identity().expect_err("named, but absent");
        assert!(error.to_string().ends_with("/id.txt"), "{error}");
    }

    #[test]
    fn an_environment_url_overrides_the_files_and_means_its_own_database() {
        let place = Place::new();
        let text = "[clusters.prod]\nurl_env = \"SOME\"\ndatabases = [\"a\"]\n";
        let loaded =
            place.load(text, &[("PGKEEP_DATABASE_URL", "postgres://h/own")]).expect("loads");
        assert_eq!(url(&loaded), ("prod".to_owned(), "postgres://h/own".to_owned()));
        let (_, cluster) = loaded.settings.cluster().expect("a cluster");
        assert_eq!(cluster.databases, Databases::OfConnection);
        let loaded = place.load(text, &[]).expect("loads");
        let (name, cluster) = loaded.settings.cluster().expect("a cluster");
        assert_eq!(cluster.databases, Databases::Named(vec!["a".to_owned()]));
        let error = loaded.settings.connection_text(name, cluster).expect_err("unset");
        assert!(error.to_string().contains("SOME"), "{error}");
    }

    #[test]
    fn two_ways_to_say_one_thing_are_refused_in_one_layer_only() {
        let place = Place::new();
        let (line, _) = place.refusal("[clusters.a]\nurl = \"x\"\nurl_env = \"Y\"\n", &[]);
        assert_eq!(line, "`clusters.a.url` and `clusters.a.url_env` are both set in pgkeep.toml");
        let pairs = [("PGKEEP_IDENTITY", "a"), ("PGKEEP_IDENTITY_FILE", "b")];
        let (line, _) = place.refusal("", &pairs);
        assert_eq!(
            line,
            "`PGKEEP_IDENTITY` and `PGKEEP_IDENTITY_FILE` are both set in the environment"
        );
    }

    #[test]
    fn values_from_variables_are_not_mangled() {
        let place = Place::new();
        let pairs = [
            ("PGKEEP_WRITER_KEY", "00123"),
            ("PGKEEP_RECIPIENTS", "age1a, age1b\nage1c"),
            ("PGKEEP__CLUSTERS__MAIN__DATABASES", "[\"a b\", \"C\"]"),
            ("PGKEEP__CLUSTERS__MAIN__URL", "TRUE"),
        ];
        let settings = place.load("", &pairs).expect("loads").settings;
        let key = settings.encryption.read_writer_key().expect("reads").expect("is set");
        assert_eq!(key.expose(), "00123");
        assert_eq!(settings.encryption.recipients, ["age1a", "age1b", "age1c"]);
        let (_, cluster) = settings.cluster().expect("a cluster");
        assert_eq!(cluster.databases, Databases::Named(vec!["a b".to_owned(), "C".to_owned()]));
    }

    #[test]
    fn no_secret_is_shown() {
        let place = Place::new();
        let text = "[encryption]\nidentity = \"hunter2\"\n[clusters.main]\n\
                    url = \"postgres://u:hunter2@h/d\"\nverify.scratch = \"postgres://u:hunter2@s/d\"\n";
        let loaded = place.load(text, &[("PGKEEP_WRITER_KEY", "hunter2")]).expect("loads");
        let shown = serde_json::to_string(&loaded.explained).expect("json");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(!format!("{loaded:?}").contains("hunter2"));
        assert!(shown.contains("postgres://u:***@h/d"));
    }

    #[test]
    fn the_cluster_that_is_meant_is_named_only_or_main() {
        let place = Place::new();
        let two = "[clusters.a]\nurl = \"x\"\n[clusters.b]\nurl = \"y\"\n";
        let loaded = place.load(two, &[]).expect("loads");
        let error = loaded.settings.cluster().expect_err("which?");
        assert_eq!(error.hint().as_deref(), Some("pass --cluster with one of: a, b"));
        let loaded = place.load(two, &[("PGKEEP_CLUSTER", "b")]).expect("loads");
        assert_eq!(url(&loaded), ("b".to_owned(), "y".to_owned()));
        let loaded = place.load(two, &[("PGKEEP_CLUSTER", "c")]).expect("loads");
        assert_eq!(
            loaded.settings.cluster().expect_err("unknown").to_string(),
            "no cluster `c` is configured"
        );
    }

    #[test]
    fn a_starter_configuration_is_accepted_as_written() {
        let starter = Starter {
            repository: "file:///r \"q\"".to_owned(),
            recipients: vec!["age1x".to_owned()],
            trusted_signers: vec!["RWx".to_owned()],
            insecure_plaintext: false,
            cluster: "main".to_owned(),
            service: None,
        };
        let loaded = Place::new().load(&starter.render(), &[]).expect("loads");
        assert_eq!(loaded.settings.encryption.recipients, ["age1x"]);
        assert_eq!(
            loaded.settings.location().expect("set"),
            &RepositoryLocation::Directory("/r \"q\"".into())
        );
    }

    #[test]
    fn a_bucket_and_its_service_are_read_from_every_layer() {
        let text = "[repository]\nurl = \"s3://backups/pgkeep/main/\"\nendpoint = \"http://127.0.0.1:3900/\"\n\
                    region = \"garage\"\nchecksums = \"when_supported\"\nidle_timeout = \"5s\"\n";
        let loaded = Place::new().load(text, &[("PGKEEP__REPOSITORY__PATH_STYLE", "false")]);
        let settings = loaded.expect("loads").settings;
        let location = settings.location().expect("set");
        assert_eq!(location.url(), "s3://backups/pgkeep/main");
        let service = &settings.repository.service;
        assert_eq!(service.endpoint.as_deref(), Some("http://127.0.0.1:3900"));
        assert_eq!(service.region.as_deref(), Some("garage"));
        assert_eq!(service.path_style, Some(false));
        assert_eq!(service.checksums, Some(ChecksumPolicy::WhenSupported));
        assert_eq!(service.idle_timeout, std::time::Duration::from_secs(5));
        assert_eq!(service.retry_for, std::time::Duration::from_mins(2));

        // What `init` writes of it reads the same.
        let starter = Starter {
            repository: location.url(),
            service: Some(service.clone()),
            recipients: Vec::new(),
            trusted_signers: Vec::new(),
            insecure_plaintext: false,
            cluster: "main".to_owned(),
        };
        let again = Place::new().load(&starter.render(), &[]).expect("loads").settings;
        assert_eq!(again.repository.service.endpoint, service.endpoint);
        assert_eq!(again.repository.service.path_style, service.path_style);
        assert_eq!(again.repository.service.checksums, service.checksums);
        assert_eq!(again.location().expect("set"), location);
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for url in [
            "s3://",
            "s3://ab",
            "s3://bucket//a",
            "s3://key:word@bucket/a",
            "s3://bucket/../a",
            "s3:/bucket",
        ] {
            let loaded = Place::new().load("", &[("PGKEEP_REPOSITORY", url)]);
            let error = loaded.expect_err(url);
            assert!(!error.to_string().contains("word"), "{error}");
        }
        for (key, value) in [
            ("ENDPOINT", "s3.example.com"),
            ("ENDPOINT", "https://key:word@s3.example.com"),
            ("ENDPOINT", "https://s3.example.com/bucket"),
            ("CHECKSUMS", "always"),
            ("IDLE_TIMEOUT", "0s"),
            ("RETRY_FOR", "soon"),
            ("PATH_STYLE", "yes"),
        ] {
            let loaded = Place::new().load("", &[(&format!("PGKEEP__REPOSITORY__{key}"), value)]);
            assert!(!loaded.expect_err(value).to_string().contains("word"));
        }
    }
}
