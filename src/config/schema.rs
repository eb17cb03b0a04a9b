//! Every key there is: its path, the shape of its value, and whether it must be masked.
//!
//! The one source for reading files, reading `PGKEEP__…` variables, naming the nearest key, and showing the
//! result. `*` stands for the name of a cluster or a
//! webhook.

/// The shape of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Text.
    Text,
    /// A path; in a file, relative to that file.
    Path,
    /// A list of texts.
    List,
    /// A list of texts that is one command with its arguments, so it is never split at commas.
    Command,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Flag,
    /// Tables of `name` and `sql`.
    Assertions,
}

impl Key {
    /// What a file that sets it holds.
    pub(super) fn what(&self) -> &'static str {
        match self.path.rsplit('.').next() {
            Some("token") => "a token",
            Some("url" | "ping") => "a secret URL",
            _ => "a key",
        }
    }
}

impl Shape {
    /// What the value must be, for messages.
    pub(super) const fn expected(self) -> &'static str {
        match self {
            Self::Text | Self::Path => "a text in quotes",
            Self::List | Self::Command => "a list of texts",
            Self::Integer => "a whole number",
            Self::Flag => "true or false",
            Self::Assertions => "a list of tables with the keys `name` and `sql`",
        }
    }
}

/// Whether a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// It may.
    Open,
    /// Only its presence.
    Secret,
    /// A connection string: all but passwords.
    Connection,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) path: &'static str,
    pub(super) shape: Shape,
    pub(super) secrecy: Secrecy,
    /// Sisters in the same section that say the same thing in another way: a higher layer's word
    /// replaces all of them.
    pub(super) rivals: &'static [&'static str],
}

const fn key(path: &'static str, shape: Shape) -> Key {
    Key { path, shape, secrecy: Secrecy::Open, rivals: &[] }
}

const fn rival(path: &'static str, shape: Shape, rivals: &'static [&'static str]) -> Key {
    Key { path, shape, secrecy: Secrecy::Open, rivals }
}

const fn secret(path: &'static str, rivals: &'static [&'static str]) -> Key {
    Key { path, shape: Shape::Text, secrecy: Secrecy::Secret, rivals }
}

const fn connection(path: &'static str, rivals: &'static [&'static str]) -> Key {
    Key { path, shape: Shape::Text, secrecy: Secrecy::Connection, rivals }
}

/// All of them, in the order of the shipped file.
pub(super) const KEYS: &[Key] = &[
    key("bin_dir", Shape::Path),
    key("scratch_dir", Shape::Path),
    connection("repository.url", &[]),
    key("repository.endpoint", Shape::Text),
    key("repository.region", Shape::Text),
    key("repository.path_style", Shape::Flag),
    key("repository.checksums", Shape::Text),
    key("repository.idle_timeout", Shape::Text),
    key("repository.retry_for", Shape::Text),
    key("repository.grace", Shape::Text),
    rival("encryption.recipients", Shape::List, &["recipients_file"]),
    rival("encryption.recipients_file", Shape::Path, &["recipients"]),
    rival("encryption.writer_key_file", Shape::Path, &["writer_key"]),
    secret("encryption.writer_key", &["writer_key_file"]),
    key("encryption.trusted_signers", Shape::List),
    rival("encryption.identity_file", Shape::Path, &["identity"]),
    secret("encryption.identity", &["identity_file"]),
    key("encryption.insecure_plaintext", Shape::Flag),
    key("compression.level", Shape::Integer),
    key("daemon.listen", Shape::Text),
    key("daemon.allow_remote", Shape::Flag),
    rival("daemon.token_file", Shape::Path, &["token"]),
    secret("daemon.token", &["token_file"]),
    key("daemon.concurrency", Shape::Integer),
    key("daemon.retry_for", Shape::Text),
    secret("notify.webhooks.*.url", &["url_file"]),
    rival("notify.webhooks.*.url_file", Shape::Path, &["url"]),
    key("notify.webhooks.*.template", Shape::Text),
    key("notify.webhooks.*.on", Shape::List),
    connection("clusters.*.url", &["url_file", "url_env"]),
    rival("clusters.*.url_file", Shape::Path, &["url", "url_env"]),
    rival("clusters.*.url_env", Shape::Text, &["url", "url_file"]),
    key("clusters.*.databases", Shape::List),
    key("clusters.*.exclude_table_data", Shape::List),
    key("clusters.*.idle_timeout", Shape::Text),
    key("clusters.*.bin_dir", Shape::Path),
    key("clusters.*.hooks.before", Shape::Command),
    key("clusters.*.hooks.after", Shape::Command),
    key("clusters.*.hooks.failed", Shape::Command),
    key("clusters.*.timezone", Shape::Text),
    key("clusters.*.snapshot.schedule", Shape::Text),
    key("clusters.*.snapshot.timezone", Shape::Text),
    key("clusters.*.snapshot.jitter", Shape::Text),
    secret("clusters.*.snapshot.ping", &[]),
    connection("clusters.*.verify.scratch", &[]),
    key("clusters.*.verify.check", Shape::Text),
    key("clusters.*.verify.schedule", Shape::Text),
    key("clusters.*.verify.timezone", Shape::Text),
    key("clusters.*.verify.jitter", Shape::Text),
    secret("clusters.*.verify.ping", &[]),
    key("clusters.*.prune.schedule", Shape::Text),
    key("clusters.*.prune.timezone", Shape::Text),
    key("clusters.*.prune.jitter", Shape::Text),
    secret("clusters.*.prune.ping", &[]),
    key("clusters.*.alarm.intervals", Shape::Integer),
    key("clusters.*.alarm.verified_within", Shape::Text),
    key("clusters.*.retention.keep_last", Shape::Integer),
    key("clusters.*.retention.keep_hourly", Shape::Integer),
    key("clusters.*.retention.keep_daily", Shape::Integer),
    key("clusters.*.retention.keep_weekly", Shape::Integer),
    key("clusters.*.retention.keep_monthly", Shape::Integer),
    key("clusters.*.retention.keep_yearly", Shape::Integer),
    key("clusters.*.retention.keep_within", Shape::Text),
    key("clusters.*.retention.pre_migration", Shape::Text),
    key("clusters.*.retention.timezone", Shape::Text),
    key("clusters.*.assertions", Shape::Assertions),
    key("clusters.*.health.urls", Shape::List),
    key("clusters.*.health.within", Shape::Text),
];

/// Variables that stand alone, besides `PGKEEP__SECTION__KEY`.
pub(super) const VARIABLES: &[&str] = &[
    "PGKEEP_BIN_DIR",
    "PGKEEP_CLUSTER",
    "PGKEEP_CONFIG",
    "PGKEEP_DATABASE_URL",
    "PGKEEP_DATABASE_URL_FILE",
    "PGKEEP_FAILPOINT",
    "PGKEEP_HOME",
    "PGKEEP_IDENTITY",
    "PGKEEP_IDENTITY_FILE",
    "PGKEEP_LOG",
    "PGKEEP_RECIPIENTS",
    "PGKEEP_RECIPIENTS_FILE",
    "PGKEEP_REPOSITORY",
    "PGKEEP_SCRATCH_DIR",
    "PGKEEP_TRUSTED_SIGNERS",
    "PGKEEP_WRITER_KEY",
    "PGKEEP_WRITER_KEY_FILE",
];

/// What pgkeep sets for hooks; a hook that calls pgkeep hands them back, and they say nothing here.
pub(super) const HOOK_PREFIX: &str = "PGKEEP_HOOK_";

/// What a path of segments means.
pub(super) enum Place {
    /// A key.
    Key(&'static Key),
    /// A table that holds keys.
    Section,
    /// Neither.
    Unknown,
}

/// Looks a path up.
pub(super) fn place(path: &[&str]) -> Place {
    let fits = |key: &Key| {
        let mut segments = key.path.split('.');
        path.iter().all(|part| segments.next().is_some_and(|own| own == "*" || own == *part))
    };
    let of_length = |key: &&Key| key.path.split('.').count() == path.len();
    match KEYS.iter().filter(|key| fits(key)).find(of_length) {
        Some(key) => Place::Key(key),
        None if KEYS.iter().any(fits) => Place::Section,
        None => Place::Unknown,
    }
}

/// The name in a path that its owner chose: a cluster's, a webhook's.
pub(super) fn chosen<'p>(path: &[&'p str]) -> Option<&'p str> {
    match path {
        ["clusters", name, ..] | ["notify", "webhooks", name, ..] => Some(name),
        _ => None,
    }
}

/// A key's path with a name in it, as the shipped file has it.
pub(super) fn example(path: &str) -> String {
    path.replace("clusters.*", "clusters.main").replace("webhooks.*", "webhooks.team")
}

/// The known key nearest to an unknown one, with the chosen name as it was written.
pub(super) fn nearest(path: &[&str]) -> String {
    let written = path.join(".");
    let last = path.last().copied().unwrap_or_default();
    let score = |known: &str| {
        let leaf = known.rsplit('.').next().unwrap_or(known);
        let whole = strsim::normalized_damerau_levenshtein(&written, known);
        whole + strsim::normalized_damerau_levenshtein(last, leaf)
    };
    let named = |key: &Key| match chosen(path) {
        Some(name) if key.path.starts_with(path[0]) => key.path.replace('*', name),
        _ => example(key.path),
    };
    let best = KEYS.iter().map(named).max_by(|a, b| score(a).total_cmp(&score(b)));
    best.unwrap_or_default()
}

/// The known variable nearest to an unknown one.
pub(super) fn nearest_variable(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("PGKEEP__") {
        let lower = rest.to_ascii_lowercase();
        let path: Vec<&str> = lower.split("__").collect();
        return variable_of(&nearest(&path));
    }
    let sections = KEYS.iter().map(|key| variable_of(&example(key.path)));
    let all = VARIABLES.iter().map(|name| (*name).to_owned()).chain(sections);
    let score = |known: &String| strsim::normalized_damerau_levenshtein(name, known);
    all.max_by(|a, b| score(a).total_cmp(&score(b))).unwrap_or_default()
}

fn variable_of(path: &str) -> String {
    format!("PGKEEP__{}", path.to_ascii_uppercase().replace('.', "__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_meant() {
        for (written, meant) in [
            ("repository.ulr", "repository.url"),
            ("respository.url", "repository.url"),
            ("clusters.prod.database", "clusters.prod.databases"),
            ("clusters.prod.hooks.befor", "clusters.prod.hooks.before"),
            ("compression.levl", "compression.level"),
            ("grace", "repository.grace"),
            ("clusters.prod.snapshot.shedule", "clusters.prod.snapshot.schedule"),
            ("notify.webhooks.ops.ulr", "notify.webhooks.ops.url"),
            ("notify.webhook.ops.template", "notify.webhooks.team.template"),
            ("daemon.tokenfile", "daemon.token_file"),
        ] {
            assert_eq!(nearest(&written.split('.').collect::<Vec<_>>()), meant);
        }
        assert_eq!(nearest_variable("PGKEEP_REPO"), "PGKEEP_REPOSITORY");
        assert_eq!(nearest_variable("PGKEEP_DATABSE_URL"), "PGKEEP_DATABASE_URL");
        assert_eq!(nearest_variable("PGKEEP__REPOSITORY__ULR"), "PGKEEP__REPOSITORY__URL");
    }

    #[test]
    fn keys_sections_and_strangers_are_told_apart() {
        assert!(matches!(place(&["clusters", "x", "hooks"]), Place::Section));
        assert!(matches!(place(&["clusters", "x", "url"]), Place::Key(_)));
        assert!(matches!(place(&["notify", "webhooks", "x"]), Place::Section));
        assert!(matches!(place(&["notify", "webhooks", "x", "on"]), Place::Key(_)));
        assert!(matches!(place(&["notify", "webhooks", "x", "off"]), Place::Unknown));
        assert!(matches!(place(&["clusters", "x", "wal"]), Place::Unknown));
        assert!(matches!(place(&["repository", "url", "x"]), Place::Unknown));
    }
}
