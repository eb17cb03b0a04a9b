//! Where a server is and how to reach it, parsed once and rendered for two readers.
//!
//! A connection string is taken as libpq and Prisma users write it: URI or `key=value`, completed from a
//! service file, the `PG*` variables, and a passfile, in libpq's order of precedence. The value is then
//! rendered for the session (by the accessors) and for client programs ([`ConnectionInfo::child_environment`]
//! and [`ConnectionInfo::private_passfile`]), so that both always mean the same server and the same trust.
//!
//! Invariants: every field is valid (hosts counted against ports, words checked), and no secret appears in
//! `Debug`, `Display`, [`ConnectionInfo::describe`] or an error. Pure: files and variables come in through
//! [`ConnectionSources`].

mod build;
mod elsewhere;
mod error;
mod files;
mod keyword;
mod parameters;
mod tls;
mod uri;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub use elsewhere::Elsewhere;
pub use error::ConnectionError;
use files::PassfileEntry;
pub use tls::{TlsMode, TlsSettings, TlsVersions};

/// What a parser of connection strings may ask of the world.
pub trait ConnectionSources {
    /// An environment variable; an unset one is none.
    fn variable(&self, name: &str) -> Option<String>;
    /// A text file; none when it is missing or cannot be read.
    fn file(&self, path: &Path) -> Option<SourceFile>;
    /// Whether something, a socket too, lies at `path`.
    fn exists(&self, path: &Path) -> bool;
    /// The user's home directory.
    fn home(&self) -> Option<PathBuf>;
    /// The name of the operating system's user, libpq's default for the role.
    fn user_name(&self) -> Option<String>;
}

/// A file as [`ConnectionSources`] gives it.
#[derive(Clone)]
pub struct SourceFile {
    /// The content.
    pub text: String,
    /// Permission bits, such as `0o600`.
    pub mode: u32,
}

/// A text that no one prints: its `Debug` is dots, and its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Hides `text`.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one who must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// How a host is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// A name or an address on the network; certificates are checked against it.
    Network(String),
    /// The directory of a socket.
    Socket(PathBuf),
}

/// One server to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub host: HostName,
    /// `hostaddr`: connect here instead of looking the name up.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
}

impl Endpoint {
    fn host_text(&self) -> String {
        match &self.host {
            HostName::Network(name) => name.clone(),
            HostName::Socket(directory) => directory.display().to_string(),
        }
    }

    /// What a passfile calls this host: the default socket directories are `localhost`.
    fn passfile_host(&self) -> String {
        match &self.host {
            HostName::Socket(directory) if values::is_default_socket_directory(directory) => {
                "localhost".to_owned()
            }
            _ => self.host_text(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostName::Network(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host_text(), self.port),
        }
    }
}

/// `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it.
    Prefer,
    /// Or not at all.
    Require,
}

/// `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// The first that answers.
    Any,
    /// One that takes writes.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is.
    Standby,
    /// One in recovery, else any.
    PreferStandby,
}

/// How dead peers are noticed. Unlike libpq's, the defaults end within a minute: nothing waits for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlives {
    /// `keepalives`.
    pub enabled: bool,
    /// `keepalives_idle`.
    pub idle_seconds: u32,
    /// `keepalives_interval`.
    pub interval_seconds: u32,
    /// `keepalives_count`.
    pub count: u32,
    /// `tcp_user_timeout`.
    pub tcp_user_timeout_ms: Option<u32>,
}

impl Default for KeepAlives {
    fn default() -> Self {
        Self {
            enabled: true,
            idle_seconds: 30,
            interval_seconds: 10,
            count: 3,
            tcp_user_timeout_ms: None,
        }
    }
}

/// A parsed connection string.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    endpoints: Vec<Endpoint>,
    user: String,
    database: String,
    /// One for all hosts; it goes before the passfile.
    password: Option<Secret>,
    passfile: Vec<PassfileEntry>,
    tls: TlsSettings,
    channel_binding: ChannelBinding,
    target_session: TargetSession,
    keep_alives: KeepAlives,
    connect_timeout_seconds: u32,
    options: Option<String>,
    shuffled: bool,
    /// What else client programs are told, by variable.
    handed_on: BTreeMap<&'static str, String>,
    schema: Option<String>,
    pooled: bool,
    notices: Vec<String>,
}

impl ConnectionInfo {
    /// Reads a URI or a `key=value` string, completed from `sources` as libpq does.
    pub fn parse(
        text: &str,
        sources: &dyn ConnectionSources,
    ) -> Result<ConnectionInfo, ConnectionError> {
        build::parse(text, sources)
    }

    /// What the `PG*` variables, the service file and the passfile say by themselves.
    pub fn from_environment(
        sources: &dyn ConnectionSources,
    ) -> Result<ConnectionInfo, ConnectionError> {
        build::from_environment(sources)
    }

    /// A server of our own that is reached by its socket alone.
    pub fn socket(directory: &Path, port: u16, user: &str, database: &str) -> Self {
        let host = HostName::Socket(directory.to_path_buf());
        Self {
            endpoints: vec![Endpoint { host, address: None, port }],
            user: user.to_owned(),
            database: database.to_owned(),
            password: None,
            passfile: Vec::new(),
            tls: TlsSettings::none(),
            channel_binding: ChannelBinding::Prefer,
            target_session: TargetSession::Any,
            keep_alives: KeepAlives::default(),
            connect_timeout_seconds: values::CONNECT_TIMEOUT_SECONDS,
            options: None,
            shuffled: false,
            handed_on: BTreeMap::new(),
            schema: None,
            pooled: false,
            notices: Vec::new(),
        }
    }

    /// The same server and role, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// With `-c name=value` settings added for every session, after those of the connection string.
    #[must_use]
    pub fn with_options(&self, added: &str) -> Self {
        let options = match &self.options {
            Some(own) => format!("{own} {added}"),
            None => added.to_owned(),
        };
        Self { options: Some(options), ..self.clone() }
    }

    /// The servers to try, in order.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The password for the first host.
    pub fn password(&self) -> Option<&str> {
        self.endpoints.first().and_then(|first| self.password_for(first))
    }

    /// The password for one host: the connection string's, else the passfile's for this database.
    pub fn password_for(&self, endpoint: &Endpoint) -> Option<&str> {
        let from_passfile = || {
            let (host, port) = (endpoint.passfile_host(), endpoint.port.to_string());
            let wanted = [host.as_str(), port.as_str(), &self.database, &self.user];
            self.passfile.iter().find_map(|entry| entry.matching(wanted))
        };
        self.password.as_ref().or_else(from_passfile).map(Secret::expose)
    }

    /// The `ssl…` settings.
    pub fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    /// `channel_binding`.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// `target_session_attrs`.
    pub fn target_session(&self) -> TargetSession {
        self.target_session
    }

    /// How dead peers are noticed.
    pub fn keep_alives(&self) -> KeepAlives {
        self.keep_alives
    }

    /// How long one host may take to let us in; never unlimited.
    pub fn connect_timeout_seconds(&self) -> u32 {
        self.connect_timeout_seconds
    }

    /// `options`: settings for the session, as `-c name=value`.
    pub fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// `load_balance_hosts=random`.
    pub fn is_shuffled(&self) -> bool {
        self.shuffled
    }

    /// `gssencmode=require`, which only client programs can do.
    pub fn requires_gss(&self) -> bool {
        self.handed_on.get("PGGSSENCMODE").is_some_and(|mode| mode == "require")
    }

    /// Prisma's `schema` parameter; pgkeep backs up whole databases, but tools look for their table there.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Prisma's `pgbouncer=true`: this address is a pooler, where held snapshots and session settings break.
    pub fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// What was understood but left out, and files that were passed over; one line each.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// `user@host:port/database`, and never a secret.
    pub fn describe(&self) -> String {
        format!("{}@{}/{}", self.user, self.servers(), self.database)
    }

    /// `host:port` of each server to try; a socket's directory in the host's place.
    pub fn servers(&self) -> String {
        self.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// The `PG*` variables that make libpq reach the same server; the password is not among them.
    ///
    /// The child must inherit no other `PG*` variable.
    pub fn child_environment(&self) -> Vec<(String, String)> {
        let join = |text: &dyn Fn(&Endpoint) -> String| {
            self.endpoints.iter().map(text).collect::<Vec<_>>().join(",")
        };
        let mut variables = vec![
            ("PGHOST".to_owned(), join(&Endpoint::host_text)),
            ("PGPORT".to_owned(), join(&|endpoint| endpoint.port.to_string())),
            ("PGUSER".to_owned(), self.user.clone()),
            ("PGDATABASE".to_owned(), self.database.clone()),
            ("PGSSLMODE".to_owned(), self.tls.mode.as_str().to_owned()),
            ("PGCONNECT_TIMEOUT".to_owned(), self.connect_timeout_seconds.to_string()),
        ];
        if self.endpoints.iter().any(|endpoint| endpoint.address.is_some()) {
            let text = |endpoint: &Endpoint| {
                endpoint.address.map(|address| address.to_string()).unwrap_or_default()
            };
            variables.push(("PGHOSTADDR".to_owned(), join(&text)));
        }
        if let Some(options) = &self.options {
            variables.push(("PGOPTIONS".to_owned(), options.clone()));
        }
        let handed_on = self.handed_on.iter();
        variables.extend(handed_on.map(|(name, value)| ((*name).to_owned(), value.clone())));
        variables
    }

    /// The passfile for a child program, or none when there is no password to tell.
    pub fn private_passfile(&self) -> Option<Secret> {
        let passwords: Vec<_> = self.endpoints.iter().map(|e| self.password_for(e)).collect();
        let first = passwords.first().copied().flatten();
        let mut text = String::new();
        if let Some(password) = first.filter(|_| passwords.iter().all(|other| *other == first)) {
            // One for all: whatever name libpq looks it up by.
            text = files::passfile_line("*", "*", password);
        } else {
            for (endpoint, password) in self.endpoints.iter().zip(passwords) {
                if let Some(password) = password {
                    let port = endpoint.port.to_string();
                    text += &files::passfile_line(&endpoint.passfile_host(), &port, password);
                    text += &files::passfile_line(&endpoint.host_text(), &port, password);
                }
            }
        }
        (!text.is_empty()).then(|| Secret::new(text))
    }

    /// The settings that libpq has no variable for, to be told in a service file; none for sockets.
    pub fn private_service(&self) -> Vec<(&'static str, u32)> {
        let networked = |endpoint: &Endpoint| matches!(endpoint.host, HostName::Network(_));
        if !self.endpoints.iter().any(networked) {
            return Vec::new();
        }
        let KeepAlives { enabled, idle_seconds, interval_seconds, count, tcp_user_timeout_ms } =
            self.keep_alives;
        let mut settings = vec![
            ("keepalives", u32::from(enabled)),
            ("keepalives_idle", idle_seconds),
            ("keepalives_interval", interval_seconds),
            ("keepalives_count", count),
        ];
        settings.extend(tcp_user_timeout_ms.map(|value| ("tcp_user_timeout", value)));
        settings
    }
}

impl fmt::Debug for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionInfo").field(&self.describe()).finish()
    }
}

impl fmt::Display for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

#[cfg(test)]
mod tests;
