//! TLS for the HTTP client: the system's roots (or `SSL_CERT_FILE`), and the crypto provider passed explicitly, so
//! that nothing depends on a default of the process.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// What connections are made with. Without any root nothing over `https` can be told, which is said once.
pub(super) fn config() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        tracing::warn!(
            "the system has no trusted root certificates: nobody can be told over https (install ca-certificates)"
        );
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
