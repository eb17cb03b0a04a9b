//! The process environment as a value, so that reading configuration is a function of its arguments.
//!
//! Only `main` asks the operating system ([`Environment::of_process`]); every test makes its own.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{ConfigError, dotenv};
use crate::domain::connection::{ConnectionSources, SourceFile};

/// Environment variables, and the few facts of the process that decide where files are looked for.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, Variable>,
    is_root: bool,
    system_dir: PathBuf,
    /// The operating system's user: name and home directory.
    user: Option<(String, PathBuf)>,
}

#[derive(Clone)]
struct Variable {
    value: String,
    /// The `--env-file` it was read from.
    file: Option<PathBuf>,
}

impl Environment {
    /// The real one. Variables that are not UTF-8 are passed over: no name of ours needs them.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let is_root = rustix::process::geteuid().is_root();
        let this = Self::from_pairs(std::env::vars_os().filter_map(text));
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = find_user(&users, rustix::process::geteuid().as_raw());
        Self { user, ..this }.with_system_dir("/etc/pgkeep", is_root)
    }

    /// An environment of these variables only, of a user who is not root, on a host without `/etc/pgkeep`.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variable =
            |(name, value): (N, V)| (name.into(), Variable { value: value.into(), file: None });
        Self { variables: pairs.into_iter().map(variable).collect(), ..Self::default() }
    }

    /// The same for root, with this in place of `/etc/pgkeep`.
    #[must_use]
    pub fn with_system_dir(mut self, dir: impl Into<PathBuf>, is_root: bool) -> Self {
        self.system_dir = dir.into();
        self.is_root = is_root;
        self
    }

    /// Puts the variables of an `--env-file` beneath: what is set already wins.
    pub fn with_env_file(mut self, path: &Path) -> Result<Self, ConfigError> {
        let text = super::files::read_text(path)?;
        let pairs = dotenv::parse(&text)
            .map_err(|error| ConfigError::EnvFile { path: path.to_owned(), line: error.0 })?;
        // From the last to the first, so that the last of one name wins within the file.
        for (name, value) in pairs.into_iter().rev() {
            let file = Some(path.to_owned());
            self.variables.entry(name).or_insert(Variable { value, file });
        }
        Ok(self)
    }

    /// The variable's value; an empty one counts as unset, as container files write `X=${X:-}`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_raw(name).filter(|value| !value.is_empty())
    }

    /// The variable's value, also an empty one: libpq tells empty from unset.
    pub fn get_raw(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|variable| variable.value.as_str())
    }

    /// Where a variable's value was set, for people.
    pub(super) fn origin(&self, name: &str) -> String {
        match self.variables.get(name).and_then(|variable| variable.file.as_ref()) {
            Some(file) => format!("{name} in {}", file.display()),
            None => name.to_owned(),
        }
    }

    /// The names and values whose name begins with `prefix`, empty ones left out.
    pub(super) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.variables
            .iter()
            .filter(move |(name, variable)| name.starts_with(prefix) && !variable.value.is_empty())
            .map(|(name, variable)| (name.as_str(), variable.value.as_str()))
    }

    /// Where configuration, identity and writer key are written and looked for.
    ///
    /// `$PGKEEP_HOME`; else `/etc/pgkeep` for root, and for a service, which systemd tells by
    /// `CONFIGURATION_DIRECTORY`; else the user's configuration directory, unless the user has nothing
    /// there and can read the host's configuration.
    pub fn config_home(&self) -> PathBuf {
        if let Some(home) = self.get("PGKEEP_HOME") {
            return PathBuf::from(home);
        }
        if self.is_root {
            return self.system_dir.clone();
        }
        let service = self.get("CONFIGURATION_DIRECTORY").into_iter().flat_map(|d| d.split(':'));
        if let Some(dir) = service.map(Path::new).find(|dir| dir.ends_with("pgkeep")) {
            return dir.to_owned();
        }
        let user = self
            .get("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .or_else(|| self.get("HOME").map(|home| Path::new(home).join(".config")))
            .map(|dir| dir.join("pgkeep"));
        let readable = |dir: &Path| std::fs::File::open(dir.join(super::FILE_NAME)).is_ok();
        match user {
            Some(user) if readable(&user) || !readable(&self.system_dir) => user,
            _ => self.system_dir.clone(),
        }
    }
}

impl Environment {
    /// Where this host notes what it may forget: `state` at `$PGKEEP_HOME`; else what systemd gives a service;
    /// else `/var/lib/pgkeep` for root, and the user's state directory.
    pub fn state_home(&self) -> PathBuf {
        if let Some(home) = self.get("PGKEEP_HOME") {
            return Path::new(home).join("state");
        }
        if let Some(dir) = self.get("STATE_DIRECTORY").and_then(|dirs| dirs.split(':').next()) {
            return dir.into();
        }
        let user = self
            .get("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .or_else(|| self.get("HOME").map(|home| Path::new(home).join(".local/state")));
        match user {
            Some(user) if !self.is_root => user.join("pgkeep"),
            _ => PathBuf::from("/var/lib/pgkeep"),
        }
    }
}

/// What a connection string is completed from is this environment, so an `--env-file` counts there too.
impl ConnectionSources for Environment {
    fn variable(&self, name: &str) -> Option<String> {
        self.get_raw(name).map(str::to_owned)
    }

    fn file(&self, path: &Path) -> Option<SourceFile> {
        let (text, mode) = super::files::read_with_mode(path).ok()?;
        Some(SourceFile { text, mode })
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn home(&self) -> Option<PathBuf> {
        let own = self.user.as_ref().map(|(_, home)| home.clone());
        self.get("HOME").map(PathBuf::from).or(own)
    }

    fn user_name(&self) -> Option<String> {
        let own = self.user.as_ref().map(|(name, _)| name.clone());
        own.or_else(|| self.get("USER").map(str::to_owned))
    }
}

/// Name and home of a user, out of a passwd file.
fn find_user(users: &str, id: u32) -> Option<(String, PathBuf)> {
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, own, _, _, home, ..] = fields[..] else { return None };
        (own.parse() == Ok(id)).then(|| (name.to_owned(), PathBuf::from(home)))
    })
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_is_what_the_contract_says() {
        let home = |pairs: &[(&str, &str)], root| {
            let env = Environment::from_pairs(pairs.iter().copied());
            env.with_system_dir("/nowhere/pgkeep", root).config_home()
        };
        let at = |text: &str| PathBuf::from(text);
        assert_eq!(home(&[("PGKEEP_HOME", "/h"), ("HOME", "/u")], true), at("/h"));
        assert_eq!(home(&[("HOME", "/root")], true), at("/nowhere/pgkeep"));
        assert_eq!(home(&[("HOME", "/u")], false), at("/u/.config/pgkeep"));
        assert_eq!(home(&[("HOME", "/u"), ("XDG_CONFIG_HOME", "/x")], false), at("/x/pgkeep"));
        assert_eq!(home(&[("CONFIGURATION_DIRECTORY", "/etc/pgkeep")], false), at("/etc/pgkeep"));
        assert_eq!(home(&[], false), at("/nowhere/pgkeep"));
    }

    #[test]
    fn a_user_is_found_by_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(find_user(users, 1000), Some(("ann".to_owned(), PathBuf::from("/home/ann"))));
        assert_eq!(find_user(users, 5), None);
    }

    #[test]
    fn a_user_with_no_file_of_their_own_uses_the_hosts_if_it_can_be_read() {
        let system = tempfile::tempdir().expect("a directory");
        let user = tempfile::tempdir().expect("a directory");
        std::fs::write(system.path().join("pgkeep.toml"), "").expect("a file");
        let env =
            Environment::from_pairs([("XDG_CONFIG_HOME", user.path().to_str().expect("utf"))])
                .with_system_dir(system.path(), false);
        assert_eq!(env.config_home(), system.path());
        std::fs::create_dir(user.path().join("pgkeep")).expect("a directory");
        std::fs::write(user.path().join("pgkeep/pgkeep.toml"), "").expect("a file");
        assert_eq!(env.config_home(), user.path().join("pgkeep"));
    }

    #[test]
    fn the_real_environment_wins_over_the_file_beneath() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("env");
        std::fs::write(&path, "A=file\nB=first\nB=second\n").expect("a file");
        let env = Environment::from_pairs([("A", "real")]).with_env_file(&path).expect("reads");
        assert_eq!(env.get("A"), Some("real"));
        assert_eq!(env.get("B"), Some("second"));
        assert_eq!(env.origin("B"), format!("B in {}", path.display()));
        assert!(!format!("{env:?}").contains("second"));
    }
}
