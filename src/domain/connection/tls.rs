//! The `ssl…` settings of a connection.

use std::path::PathBuf;

/// How much of TLS is asked for; weakest first, as libpq orders them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Only if the server refuses without.
    Allow,
    /// If the server offers it.
    Prefer,
    /// Always, whoever the server is (with a root certificate: as `VerifyCa`).
    Require,
    /// Always, with a certificate that a trusted root vouches for.
    VerifyCa,
    /// Always, and the certificate names the host.
    VerifyFull,
}

impl TlsMode {
    pub(super) const ALL: [Self; 6] =
        [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// libpq's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// The versions of TLS that may be spoken; older ones never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    Any,
    /// 1.2.
    Only12,
    /// 1.3.
    Only13,
}

/// The `ssl…` settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// `sslmode`.
    pub mode: TlsMode,
    /// `sslnegotiation=direct`.
    pub direct: bool,
    /// `sslrootcert`; `system` means the operating system's roots.
    pub root_cert: Option<String>,
    /// `sslcrl`.
    pub revocation_list: Option<String>,
    /// `sslcert`.
    pub client_cert: Option<String>,
    /// `sslkey`.
    pub client_key: Option<String>,
    /// False with `sslcertmode=disable`.
    pub send_client_cert: bool,
    /// `sslsni`.
    pub server_name_indication: bool,
    /// `ssl_min_protocol_version` and `ssl_max_protocol_version`.
    pub versions: TlsVersions,
    /// `~/.postgresql`, where libpq looks for certificates that are not named.
    pub user_directory: Option<PathBuf>,
}

impl TlsSettings {
    /// For sockets, where there is none.
    pub(super) fn none() -> Self {
        Self {
            mode: TlsMode::Disable,
            direct: false,
            root_cert: None,
            revocation_list: None,
            client_cert: None,
            client_key: None,
            send_client_cert: false,
            server_name_indication: true,
            versions: TlsVersions::Any,
            user_directory: None,
        }
    }
}
