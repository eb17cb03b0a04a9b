//! Who may ask what: the name that a browser used, and the token of the hook.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use super::answer::Problem;
use super::routes::Here;
use crate::domain::connection::Secret;
use crate::domain::failure::FailureKind;

/// Refuses what a foreign page makes a browser ask: a name of the attacker's that resolves to this host (DNS
/// rebinding). Whoever agreed to be reached from elsewhere is reached by names that pgkeep does not know.
pub(super) async fn own_names_only(
    State(context): State<Here>,
    request: Request,
    next: Next,
) -> Response {
    let own =
        |host: &HeaderValue| host.to_str().is_ok_and(|host| is_own_name(host, context.listen.ip()));
    if !context.allow_remote && !request.headers().get_all(header::HOST).iter().all(own) {
        let problem = Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            FailureKind::Usage,
            "this host is not known by that name",
            "ask for 127.0.0.1 or localhost; a proxy in front sends `Host: localhost`, or daemon.allow_remote is set",
        );
        return problem.into();
    }
    next.run(request).await
}

/// Whether a `Host` means this host itself.
fn is_own_name(host: &str, listen: IpAddr) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = name.parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback() || address == listen)
}

/// Whether a request carries the token.
pub(super) fn is_allowed(headers: &HeaderMap, token: &Secret) -> Result<(), Problem> {
    let refused = |message: &str| {
        let hint = "send `Authorization: Bearer TOKEN` with the token of daemon.token_file";
        Problem::new(StatusCode::UNAUTHORIZED, FailureKind::Usage, message, hint)
            .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pgkeep\""))
    };
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        return Err(refused("the snapshot hook asks for a token"));
    };
    let given = given.as_bytes();
    let (scheme, given) = given.split_at_checked(7).unwrap_or((given, &[]));
    if scheme.eq_ignore_ascii_case(b"bearer ") && is_same(given.trim_ascii(), token) {
        return Ok(());
    }
    // Not the token, of course.
    tracing::warn!("the snapshot hook was asked with a wrong token");
    Err(refused("that is not the token of the snapshot hook"))
}

/// Compares in a time that tells nothing of the token, whatever the length of what was given.
fn is_same(given: &[u8], token: &Secret) -> bool {
    let token = token.expose().trim().as_bytes();
    let mut padded = vec![0; token.len()];
    let common = given.len().min(token.len());
    padded[..common].copy_from_slice(&given[..common]);
    let same_length = (given.len() as u64).ct_eq(&(token.len() as u64));
    (padded.as_slice().ct_eq(token) & same_length).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_its_own() {
        let listen = "192.0.2.7".parse().expect("an address");
        for own in [
            "localhost",
            "LOCALHOST:7878",
            "127.0.0.1:7878",
            "127.9.9.9",
            "[::1]:7878",
            "192.0.2.7:1",
        ] {
            assert!(is_own_name(own, listen), "{own}");
        }
        for foreign in ["", "evil.example", "localhost.evil.example", "192.0.2.8", "a b", "[::2]"] {
            assert!(!is_own_name(foreign, listen), "{foreign}");
        }
    }

    #[test]
    fn a_token_is_the_same_only_as_a_whole() {
        let token = Secret::new("abcdef\n".to_owned());
        assert!(is_same(b"abcdef", &token));
        for wrong in [&b"abcde"[..], b"abcdeg", b"abcdef0", b"", b"abcdef\0"] {
            assert!(!is_same(wrong, &token), "{wrong:?}");
        }
    }
}
