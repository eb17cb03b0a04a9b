//! What the SDK reports, sorted: what it means for a person, and whether trying again may help.

use std::error::Error;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::client::{Connected, element};
use super::clock::ahead_of;
use super::retry::{Again, Contact, Trouble};
use crate::domain::failure::is_out_of_files;
use crate::store::service::ServiceFault;

/// One request, as judgement needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The action as policies name it.
    pub(super) action: &'static str,
    /// The bucket.
    pub(super) bucket: &'a str,
    /// What policies call the thing: `bucket/key`, or the bucket.
    pub(super) resource: &'a str,
}

/// An answer that is an error.
struct Said<'a> {
    status: u16,
    code: &'a str,
    message: &'a str,
    /// The region the service names instead.
    region: Option<String>,
    /// By how much this host is ahead of the answer's date.
    ahead_seconds: Option<i64>,
}

/// Judges a failed attempt.
pub(super) fn judge<E>(
    error: &SdkError<E, HttpResponse>,
    request: Request<'_>,
    connected: &Connected,
    contact: &Contact,
) -> Trouble
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let known = contact.is_made();
    if error.raw_response().is_some() {
        contact.made();
    }
    match error {
        SdkError::ServiceError(context) => {
            let (raw, meta) = (context.raw(), context.err());
            let document = raw.body().bytes().and_then(|body| std::str::from_utf8(body).ok());
            let header = raw.headers().get("x-amz-bucket-region").map(str::to_owned);
            let named = document.and_then(|text| element(text, "Region")).map(str::to_owned);
            let said = Said {
                status: raw.status().as_u16(),
                code: meta.code().unwrap_or_default(),
                message: meta.message().unwrap_or_default(),
                region: header.or(named),
                ahead_seconds: raw.headers().get("date").and_then(ahead_of),
            };
            match answer(&said, request, connected, known) {
                // The SDK finds error documents under the status of success: some services begin an
                // answer before they know its end, and the next attempt may end better.
                Trouble::Fault(fault, Again::Never) if raw.status().is_success() => {
                    Trouble::Fault(fault, Again::Doubtful)
                }
                judged => judged,
            }
        }
        SdkError::TimeoutError(_) => Trouble::Fault(lost(error), Again::Yes),
        SdkError::ResponseError(_) => {
            Trouble::Fault(ServiceFault::Answer(innermost(error)), Again::Doubtful)
        }
        _ => dispatch(error, connected),
    }
}

/// No answer came.
fn dispatch<E>(error: &SdkError<E, HttpResponse>, connected: &Connected) -> Trouble
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let reason = innermost(error);
    let whole =
        causes(error).map(|cause| cause.to_string().to_lowercase()).collect::<Vec<_>>().join("; ");
    tracing::debug!(causes = %whole, "no answer");
    let endpoint = connected.endpoint.clone();
    let SdkError::DispatchFailure(failure) = error else {
        return Trouble::Fault(ServiceFault::Settings(reason), Again::Never);
    };
    if is_out_of_files(&whole) {
        // Connections of other calls may come free; more there will not be.
        return Trouble::Fault(ServiceFault::NoFiles { endpoint, reason }, Again::Doubtful);
    }
    if whole.contains("credential") || whole.contains("identity") {
        return Trouble::Fault(ServiceFault::NoCredentials(reason), Again::Doubtful);
    }
    if whole.contains("certificate") || whole.contains("corrupt message") {
        return Trouble::Fault(ServiceFault::Tls { endpoint, reason }, Again::Never);
    }
    // The library tells a connection that was never made from one that broke by these words alone.
    let connecting = ["(connect)", "connect error", "dns error", "connect timeout"];
    if failure.is_user() {
        Trouble::Fault(ServiceFault::Settings(reason), Again::Never)
    } else if connecting.iter().any(|words| whole.contains(words)) {
        Trouble::Fault(ServiceFault::Unreachable { endpoint, reason }, Again::Yes)
    } else {
        Trouble::Fault(ServiceFault::Lost(reason), Again::Yes)
    }
}

/// What an error answer means.
fn answer(said: &Said<'_>, request: Request<'_>, connected: &Connected, known: bool) -> Trouble {
    let Said { status, code, message, region, ahead_seconds } = said;
    let told = || match (code.is_empty(), message.is_empty()) {
        (true, _) => format!("HTTP {status}"),
        (false, true) => (*code).to_owned(),
        (false, false) => format!("{code}: {message}"),
    };
    let fault = |fault, again| Trouble::Fault(fault, again);
    match (*code, *status) {
        ("NoSuchKey", _) => Trouble::NotFound,
        ("PreconditionFailed" | "InvalidRange", _) | (_, 412 | 416) => Trouble::Changed,
        ("NoSuchBucket", _) => {
            fault(ServiceFault::NoBucket(request.bucket.to_owned()), Again::Never)
        }
        ("RequestTimeTooSkewed" | "RequestExpired", _) => {
            // The client has learnt the service's time from this very answer.
            fault(ServiceFault::ClockSkew { ahead_seconds: *ahead_seconds }, Again::Doubtful)
        }
        (
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "Redirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException"
            | "IncorrectEndpoint",
            _,
        )
        | (_, 301 | 307 | 308) => {
            let configured = connected.region.clone();
            let right = region.clone().filter(|name| *name != configured);
            fault(ServiceFault::Region { configured, right }, Again::Never)
        }
        // Credentials that were good a moment ago are asked about again.
        ("SignatureDoesNotMatch", _) => {
            let again = if known { Again::Doubtful } else { Again::Never };
            fault(ServiceFault::Credentials(told()), again)
        }
        ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired", _) => {
            fault(ServiceFault::Credentials(told()), Again::Doubtful)
        }
        ("InvalidAccessKeyId" | "InvalidToken" | "InvalidSecurity" | "NotSignedUp", _) => {
            fault(ServiceFault::Credentials(told()), Again::Never)
        }
        (
            "SlowDown"
            | "ServiceUnavailable"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "TooManyRequests"
            | "BandwidthLimitExceeded",
            _,
        )
        | (_, 429 | 503) => fault(ServiceFault::Overloaded(told()), Again::Yes),
        (
            "InternalError"
            | "RequestTimeout"
            | "OperationAborted"
            | "ConditionalRequestConflict"
            | "BadDigest"
            | "IncompleteBody"
            | "InvalidDigest"
            | "XAmzContentSHA256Mismatch"
            | "XAmzContentChecksumMismatch",
            _,
        )
        | (_, 408 | 500 | 502 | 504) => fault(other(said), Again::Yes),
        (_, 401 | 403) => {
            let resource = request.resource.to_owned();
            fault(
                ServiceFault::Denied { action: request.action, resource, said: told() },
                Again::Never,
            )
        }
        ("", 404 | 405) | (_, 405) => fault(ServiceFault::Answer(told()), Again::Never),
        _ => fault(other(said), Again::Never),
    }
}

fn other(said: &Said<'_>) -> ServiceFault {
    ServiceFault::Other {
        status: said.status,
        code: if said.code.is_empty() { "an error".to_owned() } else { said.code.to_owned() },
        message: said.message.to_owned(),
    }
}

fn lost<E>(error: &SdkError<E, HttpResponse>) -> ServiceFault
where
    E: Error + 'static,
{
    ServiceFault::Lost(innermost(error))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// What the last of the causes says: the SDK's own layers say that something failed, this one what.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::error::ConnectorError;
    use aws_sdk_s3::operation::put_object::PutObjectError;

    fn connected() -> Connected {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
            .build();
        Connected {
            client: aws_sdk_s3::Client::from_conf(config),
            clock: crate::store::s3::clock::Clock::default(),
            region: "here".to_owned(),
            endpoint: "there".to_owned(),
        }
    }

    fn judged(status: u16, code: &str, region: Option<&str>, known: bool) -> Trouble {
        let region = region.map(str::to_owned);
        let said = Said { status, code, message: "words", region, ahead_seconds: Some(5000) };
        let request = Request { action: "s3:PutObject", bucket: "b", resource: "b/k" };
        answer(&said, request, &connected(), known)
    }

    #[test]
    fn a_process_without_files_is_told_from_a_service_that_is_away() {
        for (number, doubtful) in [(24, true), (23, true), (104, false)] {
            let cause = std::io::Error::from_raw_os_error(number);
            let error: SdkError<PutObjectError, HttpResponse> =
                SdkError::dispatch_failure(ConnectorError::io(cause.into()));
            let judged = dispatch(&error, &connected());
            let no_files =
                matches!(judged, Trouble::Fault(ServiceFault::NoFiles { .. }, Again::Doubtful));
            assert_eq!(no_files, doubtful, "{judged:?}");
        }
    }

    #[test]
    fn answers_are_sorted() {
        use Again::{Doubtful, Never, Yes};
        for (status, code, again, words) in [
            (404, "NoSuchBucket", Never, "no bucket `b`"),
            (
                403,
                "InvalidAccessKeyId",
                Never,
                "the store refuses the credentials (InvalidAccessKeyId: words)",
            ),
            (
                403,
                "AccessDenied",
                Never,
                "the store forbids s3:PutObject on b/k (AccessDenied: words)",
            ),
            (403, "", Never, "the store forbids s3:PutObject on b/k (HTTP 403)"),
            (
                403,
                "RequestTimeTooSkewed",
                Doubtful,
                "this host's clock and the store's differ: this host's is 83 min ahead",
            ),
            (503, "SlowDown", Yes, "the store is overloaded (SlowDown: words)"),
            (503, "", Yes, "the store is overloaded (HTTP 503)"),
            (500, "InternalError", Yes, "the store answers InternalError (HTTP 500): words"),
            (502, "", Yes, "the store answers an error (HTTP 502): words"),
            (400, "BadDigest", Yes, "the store answers BadDigest (HTTP 400): words"),
            (
                400,
                "ExpiredToken",
                Doubtful,
                "the store refuses the credentials (ExpiredToken: words)",
            ),
            (404, "", Never, "the store's answer makes no sense: HTTP 404"),
            (501, "NotImplemented", Never, "the store answers NotImplemented (HTTP 501): words"),
        ] {
            let Trouble::Fault(fault, what) = judged(status, code, None, true) else {
                panic!("{code}: no fault");
            };
            assert_eq!((fault.to_string(), what), (words.to_owned(), again), "{code}");
            assert!(!fault.hint().is_empty());
        }
        assert!(matches!(judged(404, "NoSuchKey", None, true), Trouble::NotFound));
        assert!(matches!(judged(412, "PreconditionFailed", None, true), Trouble::Changed));
    }

    #[test]
    fn a_signature_is_doubted_only_where_one_was_good_before() {
        for (known, again) in [(false, Again::Never), (true, Again::Doubtful)] {
            let judged = judged(403, "SignatureDoesNotMatch", None, known);
            assert!(
                matches!(judged, Trouble::Fault(ServiceFault::Credentials(_), a) if a == again)
            );
        }
    }

    #[test]
    fn the_right_region_is_named_where_the_service_names_it() {
        for (status, code) in
            [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed"), (307, "")]
        {
            for (named, right) in
                [(Some("there"), Some("there")), (Some("here"), None), (None, None)]
            {
                let Trouble::Fault(ServiceFault::Region { right: found, .. }, Again::Never) =
                    judged(status, code, named, true)
                else {
                    panic!("{code}");
                };
                assert_eq!(found.as_deref(), right);
            }
        }
    }
}
