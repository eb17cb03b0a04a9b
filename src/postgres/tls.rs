//! TLS as libpq means it, over rustls. With its submodule the only file that names rustls.
//!
//! `require` encrypts without asking who answers, unless a root certificate is at hand (then it is
//! `verify-ca`, as in libpq); `verify-ca` checks the chain and not the name; `verify-full` both. The
//! handshake's own signature is always checked: channel binding rests on it. The crypto provider is passed
//! explicitly, so nothing depends on a default of the process.
//!
//! Stricter than libpq in one point: a root certificate, client certificate or revocation list that was
//! named and is missing is an error, never skipped.

mod legacy;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::domain::connection::{TlsMode, TlsSettings, TlsVersions};

/// Certificates and keys on this side that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A verifying mode without anything to verify against.
    #[error("sslmode={mode} needs a root certificate, and {} does not exist", path.display())]
    RootMissing {
        /// The mode asked for.
        mode: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file that was named cannot be read, or holds nothing of its kind.
    #[error("cannot read a {what} from {}: {reason}", path.display())]
    Unreadable {
        /// Root certificate, client certificate, private key, revocation list.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A private key behind a passphrase.
    #[error("the private key {} is protected by a passphrase, which pgkeep cannot use", .0.display())]
    KeyEncrypted(PathBuf),
    /// libpq refuses such a key too.
    #[error("the private key {} can be read by others", .0.display())]
    KeyOpen(PathBuf),
    /// A private key of another certificate.
    #[error("the private key {} does not belong to the certificate {}", key.display(), cert.display())]
    KeyMismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// `sslrootcert=system` on a system without roots.
    #[error("the system has no trusted root certificates: {0}")]
    NoSystemRoots(String),
    /// What rustls itself refuses.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    /// What to do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::RootMissing { .. } => {
                "name it as sslrootcert=/path, or sslrootcert=system for the system's roots"
            }
            Self::Unreadable { .. } => {
                "the file must be PEM and readable by the user pgkeep runs as"
            }
            Self::KeyEncrypted(_) => {
                "write an unprotected copy with mode 0600: openssl pkey -in KEY -out KEY2"
            }
            Self::KeyOpen(_) => "chmod 600 (or 640, owned by root)",
            Self::NoSystemRoots(_) => "install ca-certificates",
            Self::KeyMismatch { .. } => "check sslcert and sslkey",
            Self::Setup(_) => "check sslcert, sslkey, sslrootcert and sslcrl",
        }
    }
}

/// Reads the files that `settings` name and makes a connector of them.
pub(super) fn connector(settings: &TlsSettings) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions: &[&'static rustls::SupportedProtocolVersion] = match settings.versions {
        TlsVersions::Only13 => &[&rustls::version::TLS13],
        TlsVersions::Only12 => &[&rustls::version::TLS12],
        TlsVersions::Any => rustls::ALL_VERSIONS,
    };
    let verifier = verifier(settings, &provider)?;
    let own = client_certificate(settings, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = settings.server_name_indication;
    if settings.direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(MakeRustlsConnect::new(config))
}

/// Where the trusted roots come from, if there are any.
fn roots(settings: &TlsSettings) -> Result<Option<Vec<CertificateDer<'static>>>, TlsError> {
    match settings.root_cert.as_deref() {
        Some("system") => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                return Err(TlsError::NoSystemRoots(reasons.join(", ")));
            }
            Ok(Some(found.certs))
        }
        Some(path) => certificates("root certificate", Path::new(path)).map(Some),
        None => {
            let usual = usual_file(settings, "root.crt");
            if let Some(path) = usual.as_ref().filter(|path| path.exists()) {
                return certificates("root certificate", path).map(Some);
            }
            if settings.mode >= TlsMode::VerifyCa {
                let path = usual.unwrap_or_else(|| PathBuf::from("~/.postgresql/root.crt"));
                return Err(TlsError::RootMissing { mode: settings.mode.as_str(), path });
            }
            Ok(None)
        }
    }
}

fn usual_file(settings: &TlsSettings, name: &str) -> Option<PathBuf> {
    settings.user_directory.as_ref().map(|directory| directory.join(name))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable =
        |reason: String| TlsError::Unreadable { what, path: path.to_path_buf(), reason };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(error.to_string()))?;
    if found.is_empty() {
        return Err(unreadable("no certificate in it".to_owned()));
    }
    Ok(found)
}

fn client_certificate(
    settings: &TlsSettings,
    provider: &CryptoProvider,
) -> Result<Option<CertifiedKey>, TlsError> {
    if !settings.send_client_cert {
        return Ok(None);
    }
    let usual = |name| usual_file(settings, name);
    let named = settings.client_cert.as_ref().map(PathBuf::from);
    let Some(cert) = named.or_else(|| usual("postgresql.crt").filter(|path| path.exists())) else {
        return Ok(None);
    };
    let key = settings.client_key.as_ref().map(PathBuf::from).or_else(|| usual("postgresql.key"));
    let key = key.unwrap_or_else(|| PathBuf::from("~/.postgresql/postgresql.key"));
    let chain = certificates("client certificate", &cert)?;
    let signing = provider.key_provider.load_private_key(private_key(&key)?)?;
    // Compared here, and not by rustls, which reads no certificate of version 1.
    let (of_key, of_chain) = (signing.public_key(), legacy::public_key(&chain[0]));
    if of_key.zip(of_chain).is_some_and(|(ours, named)| ours != named) {
        return Err(TlsError::KeyMismatch { cert, key });
    }
    Ok(Some(CertifiedKey::new(chain, signing)))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let unreadable = |reason: String| TlsError::Unreadable {
        what: "private key",
        path: path.to_path_buf(),
        reason,
    };
    let metadata = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    // The rule of libpq: nobody else, but root may let a group read it.
    let forbidden = if metadata.uid() == 0 { 0o027 } else { 0o077 };
    if metadata.permissions().mode() & forbidden != 0 {
        return Err(TlsError::KeyOpen(path.to_path_buf()));
    }
    let pem = zeroize::Zeroizing::new(fs::read(path).map_err(|e| unreadable(e.to_string()))?);
    if memchr::memmem::find(&pem, b"ENCRYPTED").is_some() {
        return Err(TlsError::KeyEncrypted(path.to_path_buf()));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unreadable(error.to_string()))
}

fn revocation_lists(
    settings: &TlsSettings,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let named = settings.revocation_list.as_ref().map(PathBuf::from);
    let Some(path) = named.or_else(|| usual_file(settings, "root.crl").filter(|p| p.exists()))
    else {
        return Ok(Vec::new());
    };
    let unreadable = |reason: String| TlsError::Unreadable {
        what: "revocation list",
        path: path.clone(),
        reason,
    };
    let found = CertificateRevocationListDer::pem_file_iter(&path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(error.to_string()))?;
    if found.is_empty() { Err(unreadable("no list in it".to_owned())) } else { Ok(found) }
}

fn verifier(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Verifier, TlsError> {
    let algorithms = provider.signature_verification_algorithms;
    let check_name = settings.mode == TlsMode::VerifyFull;
    let Some(trusted) = roots(settings)? else {
        return Ok(Verifier { chain: None, check_name, algorithms });
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(trusted.iter().cloned());
    if added == 0 {
        return Err(TlsError::Setup(CertificateError::BadEncoding.into()));
    }
    let lists = revocation_lists(settings)?;
    let revocable = !lists.is_empty();
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .with_crls(lists)
        .build()
        .map_err(|error| TlsError::Setup(rustls::Error::General(error.to_string())))?;
    let chain = Chain { webpki, trusted, revocable };
    Ok(Verifier { chain: Some(chain), check_name, algorithms })
}

/// What a server's certificate is measured by.
#[derive(Debug)]
struct Verifier {
    /// None: whoever answers.
    chain: Option<Chain>,
    check_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Chain {
    webpki: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    revocable: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        let verdict = chain.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let Err(error) = verdict else {
            return Ok(ServerCertVerified::assertion());
        };
        match &error {
            // webpki looks at the name last: the chain was good.
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => {}
            // Certificates that OpenSSL takes and webpki does not read: version 1, or its own root.
            rustls::Error::InvalidCertificate(CertificateError::Other(_)) if !chain.revocable => {
                legacy::check_chain(end_entity, &chain.trusted, &self.algorithms, now)?;
            }
            _ => return Err(error),
        }
        if !self.check_name || legacy::name_is_good(end_entity, server_name) {
            Ok(ServerCertVerified::assertion())
        } else if matches!(error, rustls::Error::InvalidCertificate(CertificateError::Other(_))) {
            Err(CertificateError::NotValidForName.into())
        } else {
            Err(error)
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdict =
            rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms);
        if is_unread(&verdict) && legacy::signature_is_good(cert, message, signed, &self.algorithms)
        {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verdict
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdict =
            rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms);
        match legacy::public_key(cert).filter(|_| is_unread(&verdict)) {
            Some(key) => rustls::crypto::verify_tls13_signature_with_raw_key(
                message,
                &key,
                signed,
                &self.algorithms,
            ),
            None => verdict,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether webpki could not even read the certificate.
fn is_unread(verdict: &Result<HandshakeSignatureValid, rustls::Error>) -> bool {
    matches!(verdict, Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))))
}

/// What a failed handshake was about, and what to do.
pub(super) fn explain(error: &(dyn std::error::Error + 'static)) -> (String, &'static str) {
    const OTHER: &str = "check the server's ssl settings and its log";
    let mut cause = Some(error);
    while let Some(inner) = cause {
        let wrapped = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = wrapped.and_then(|e| e.downcast_ref::<rustls::Error>());
        if let Some(tls) = tls.or_else(|| inner.downcast_ref::<rustls::Error>()) {
            return explain_tls(tls);
        }
        cause = inner.source();
    }
    (super::error::chain(error), OTHER)
}

fn explain_tls(error: &rustls::Error) -> (String, &'static str) {
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => (
            "no trusted root certificate vouches for the server's certificate".to_owned(),
            "name the authority's certificate as sslrootcert, or find out who answers at that address",
        ),
        rustls::Error::InvalidCertificate(Bad::NotValidForName) => (
            "the server's certificate is for another host".to_owned(),
            "connect by a name that is in the certificate, or use sslmode=verify-ca",
        ),
        rustls::Error::InvalidCertificate(Bad::NotValidForNameContext { presented, .. }) => (
            format!("the server's certificate is for another host ({})", plain_names(presented)),
            "connect by a name that is in the certificate, or use sslmode=verify-ca",
        ),
        rustls::Error::InvalidCertificate(
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. },
        ) => (
            "the server's certificate is not valid at this time".to_owned(),
            "renew it, and check this host's clock",
        ),
        rustls::Error::InvalidCertificate(Bad::Revoked) => {
            ("the server's certificate is revoked".to_owned(), "ask who runs the server")
        }
        rustls::Error::AlertReceived(alert) => (
            format!("the server ended the handshake ({alert:?})"),
            "it may want a client certificate (sslcert, sslkey) or another TLS version",
        ),
        other => (
            super::error::one_line(&other.to_string()),
            "check the server's ssl settings and its log",
        ),
    }
}

/// `DnsName("localhost")` is `localhost`.
fn plain_names(presented: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, inner)| inner);
        inner.trim_end_matches(')').trim_matches('"').to_owned()
    };
    let names: Vec<String> = presented.iter().map(plain).collect();
    if names.is_empty() { "it names none".to_owned() } else { names.join(", ") }
}

/// Whether an I/O error is of TLS: with TLS 1.3 a server refuses our certificate after the handshake.
pub(super) fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}
