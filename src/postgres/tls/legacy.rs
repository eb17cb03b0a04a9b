//! Certificates that OpenSSL takes and webpki does not read.
//!
//! PostgreSQL's own guide makes server certificates of X.509 version 1 with the host in the common name,
//! and self-signed ones that are their own root; `pg_dump` accepts them, so the session must. Nothing is
//! loosened for certificates that webpki reads.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{CertificateError, DigitallySignedStruct};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use x509_cert::certificate::{Certificate, Version};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, NameConstraints, SubjectAltName};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Passes a `leaf` that is self-signed and trusted, or is of version 1 and signed by a trusted authority; both in time.
pub(super) fn check_chain(
    leaf: &CertificateDer<'_>,
    trusted: &[CertificateDer<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Result<(), CertificateError> {
    let certificate = Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
    if !is_in_time(&certificate, now) {
        return Err(CertificateError::Expired);
    }
    let own_issuer = certificate.tbs_certificate.subject == certificate.tbs_certificate.issuer;
    if own_issuer && trusted.iter().any(|root| root.as_ref() == leaf.as_ref()) {
        return Ok(());
    }
    let vouched = certificate.tbs_certificate.version == Version::V1
        && trusted.iter().filter_map(|root| Certificate::from_der(root).ok()).any(|root| {
            root.tbs_certificate.subject == certificate.tbs_certificate.issuer
                && is_authority(&root)
                && is_in_time(&root, now)
                && is_signed_by(&certificate, &root, algorithms).unwrap_or(false)
        });
    if vouched { Ok(()) } else { Err(CertificateError::UnknownIssuer) }
}

/// Whether it may sign others, and any others: limits that we do not check are not passed over.
fn is_authority(root: &Certificate) -> bool {
    let limits = root.tbs_certificate.get::<NameConstraints>();
    let basic = root.tbs_certificate.get::<BasicConstraints>();
    matches!(limits, Ok(None))
        && match basic {
            Ok(Some((_, basic))) => basic.ca,
            // Version 1 has no such word; in a root that was named it is not needed.
            Ok(None) => root.tbs_certificate.version == Version::V1,
            Err(_) => false,
        }
}

fn is_in_time(certificate: &Certificate, now: UnixTime) -> bool {
    let validity = &certificate.tbs_certificate.validity;
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
    (seconds(validity.not_before)..=seconds(validity.not_after)).contains(&now.as_secs())
}

fn is_signed_by(
    leaf: &Certificate,
    root: &Certificate,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Option<bool> {
    let key = &root.tbs_certificate.subject_public_key_info;
    let signed = leaf.tbs_certificate.to_der().ok()?;
    let (signature, public_key) = (leaf.signature.as_bytes()?, key.subject_public_key.as_bytes()?);
    let signature_algorithm = leaf.signature_algorithm.to_der().ok()?;
    let key_algorithm = key.algorithm.to_der().ok()?;
    // An id is the content of the DER sequence, without its two bytes of tag and length.
    let (signature_id, key_id) = (signature_algorithm.get(2..)?, key_algorithm.get(2..)?);
    Some(algorithms.all.iter().any(|known| {
        known.signature_alg_id().as_ref() == signature_id
            && known.public_key_alg_id().as_ref() == key_id
            && known.verify_signature(public_key, &signed, signature).is_ok()
    }))
}

/// Whether the common name is the host, for a certificate that names hosts in no other way.
pub(super) fn name_is_good(leaf: &CertificateDer<'_>, server: &ServerName<'_>) -> bool {
    let Ok(certificate) = Certificate::from_der(leaf) else {
        return false;
    };
    if names_hosts(&certificate) {
        // A version 3 certificate that is its own root was not measured by webpki.
        return webpki_name_is_good(leaf, server);
    }
    let wanted = match server {
        ServerName::DnsName(name) => name.as_ref().to_ascii_lowercase(),
        ServerName::IpAddress(address) => std::net::IpAddr::from(*address).to_string(),
        _ => return false,
    };
    common_names(&certificate).iter().any(|name| name_fits(&name.to_ascii_lowercase(), &wanted))
}

fn names_hosts(certificate: &Certificate) -> bool {
    match certificate.tbs_certificate.get::<SubjectAltName>() {
        Ok(Some((_, names))) => names
            .0
            .iter()
            .any(|name| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_))),
        Ok(None) => false,
        // What cannot be read is not passed over.
        Err(_) => true,
    }
}

fn webpki_name_is_good(leaf: &CertificateDer<'_>, server: &ServerName<'_>) -> bool {
    rustls::server::ParsedCertificate::try_from(leaf)
        .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, server).is_ok())
}

fn common_names(certificate: &Certificate) -> Vec<String> {
    let attributes = certificate.tbs_certificate.subject.0.iter().flat_map(|one| one.0.iter());
    attributes
        .filter(|attribute| attribute.oid == COMMON_NAME)
        .filter_map(|attribute| String::from_utf8(attribute.value.value().to_vec()).ok())
        .collect()
}

/// As libpq: equal, or a `*` for the first label and for nothing beyond it.
fn name_fits(pattern: &str, wanted: &str) -> bool {
    if pattern.is_empty() || pattern.contains('\0') {
        return false;
    }
    if pattern == wanted {
        return true;
    }
    let is_address = wanted.parse::<std::net::IpAddr>().is_ok();
    match (pattern.strip_prefix("*."), wanted.split_once('.')) {
        (Some(suffix), Some((label, rest))) if !is_address => {
            !label.is_empty() && suffix == rest && suffix.contains('.')
        }
        _ => false,
    }
}

/// Whether the handshake is signed by the certificate's key, in TLS 1.2.
pub(super) fn signature_is_good(
    certificate: &CertificateDer<'_>,
    message: &[u8],
    signed: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let checked = || {
        let parsed = Certificate::from_der(certificate).ok()?;
        let key = parsed.tbs_certificate.subject_public_key_info;
        let public_key = key.subject_public_key.as_bytes()?;
        let key_algorithm = key.algorithm.to_der().ok()?;
        let key_id = key_algorithm.get(2..)?;
        let (_, known) = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme)?;
        Some(known.iter().any(|known| {
            known.public_key_alg_id().as_ref() == key_id
                && known.verify_signature(public_key, message, signed.signature()).is_ok()
        }))
    };
    checked().unwrap_or(false)
}

/// The public key of a certificate that webpki does not read.
pub(super) fn public_key(
    certificate: &CertificateDer<'_>,
) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let key = parsed.tbs_certificate.subject_public_key_info.to_der().ok()?;
    Some(SubjectPublicKeyInfoDer::from(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(name_fits("db.example.org", "db.example.org"));
        assert!(name_fits("*.example.org", "db.example.org"));
        for (pattern, wanted) in [
            ("*.example.org", "a.db.example.org"),
            ("*.example.org", "example.org"),
            ("*.org", "example.org"),
            ("*.0.0.1", "127.0.0.1"),
            ("", ""),
            ("d*.example.org", "db.example.org"),
        ] {
            assert!(!name_fits(pattern, wanted), "{pattern} {wanted}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_never_good() {
        let rubbish = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        let algorithms =
            rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        let trusted = [rubbish.clone()];
        assert!(check_chain(&rubbish, &trusted, &algorithms, now).is_err());
        assert!(!name_is_good(&rubbish, &ServerName::try_from("h").unwrap()));
        assert!(public_key(&rubbish).is_none());
    }
}
