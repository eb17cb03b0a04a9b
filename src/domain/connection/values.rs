//! What single values may be, and the defaults of hosts.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{ChannelBinding, ConnectionError, ConnectionSources, HostName, TargetSession, TlsMode};

/// How long one host may take, where the connection string does not say.
pub(super) const CONNECT_TIMEOUT_SECONDS: u32 = 10;
const DEFAULT_PORT: u16 = 5432;
/// Debian's and Red Hat's builds, then PostgreSQL's own default.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
pub(super) fn is_default_socket_directory(directory: &Path) -> bool {
    SOCKET_DIRECTORIES.iter().any(|known| Path::new(known) == directory)
}

pub(super) const CHANNEL_BINDINGS: &[(&str, ChannelBinding)] = &[
    ("prefer", ChannelBinding::Prefer),
    ("disable", ChannelBinding::Disable),
    ("require", ChannelBinding::Require),
];
pub(super) const TARGET_SESSIONS: &[(&str, TargetSession)] = &[
    ("any", TargetSession::Any),
    ("read-write", TargetSession::ReadWrite),
    ("read-only", TargetSession::ReadOnly),
    ("primary", TargetSession::Primary),
    ("standby", TargetSession::Standby),
    ("prefer-standby", TargetSession::PreferStandby),
];
pub(super) const TLS_VERSIONS_FROM: &[(&str, u8)] =
    &[("TLSv1.2", 2), ("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.3", 3)];
pub(super) const TLS_VERSIONS_TO: &[(&str, u8)] =
    &[("TLSv1.3", 3), ("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.2", 2)];

pub(super) fn expected_of(keyword: &str) -> &'static str {
    match keyword {
        "channel_binding" => "disable, prefer or require",
        "target_session_attrs" => "any, read-write, read-only, primary, standby or prefer-standby",
        "load_balance_hosts" => "disable or random",
        "sslnegotiation" => "postgres or direct",
        "sslcertmode" => "disable, allow or require",
        "sslsni" => "0 or 1",
        _ => "TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3",
    }
}

pub(super) fn tls_mode(word: &str) -> Option<TlsMode> {
    TlsMode::ALL.into_iter().find(|mode| mode.as_str() == word)
}

pub(super) fn port(text: &str) -> Result<u16, ConnectionError> {
    if text.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| ConnectionError::BadValue {
        parameter: "port",
        value: text.to_owned(),
        expected: "a number from 1 to 65535",
    })
}

pub(super) fn address(text: &str) -> Result<IpAddr, ConnectionError> {
    text.parse().map_err(|_| ConnectionError::BadValue {
        parameter: "hostaddr",
        value: text.to_owned(),
        expected: "a numeric IPv4 or IPv6 address",
    })
}

pub(super) fn host_name(text: String) -> Result<HostName, ConnectionError> {
    if text.starts_with('@') {
        return Err(ConnectionError::Refused {
            parameter: "host",
            why: "sockets in the abstract namespace are not supported; give the directory of the socket, or a host name",
        });
    }
    Ok(if text.starts_with('/') {
        HostName::Socket(PathBuf::from(text))
    } else {
        HostName::Network(text)
    })
}

/// The first directory that holds the server's socket; without one, the network.
pub(super) fn default_host(port: u16, sources: &dyn ConnectionSources) -> HostName {
    let name = format!(".s.PGSQL.{port}");
    let found = SOCKET_DIRECTORIES.iter().find(|at| sources.exists(&Path::new(at).join(&name)));
    match found {
        Some(directory) => HostName::Socket(PathBuf::from(directory)),
        None => HostName::Network("localhost".to_owned()),
    }
}
