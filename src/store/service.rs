//! What a storage service can answer other than yes, told so that a person knows what to do.
//!
//! It knows no vendor: the client of a service sorts what it hears into these.

use std::time::Duration;

use crate::domain::failure::FILES_HINT;

/// Why a service did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceFault {
    /// Nobody gave this host credentials.
    #[error("no credentials for the store: {0}")]
    NoCredentials(String),
    /// The service does not know the key, or the secret is not the key's.
    #[error("the store refuses the credentials ({0})")]
    Credentials(String),
    /// The credentials are good, and may not do this.
    #[error("the store forbids {action} on {resource} ({said})")]
    Denied {
        /// The action as policies name it, such as `s3:PutObject`.
        action: &'static str,
        /// What it was to be done to.
        resource: String,
        /// The service's own words.
        said: String,
    },
    /// The bucket is not there.
    #[error("no bucket `{0}`")]
    NoBucket(String),
    /// The bucket, or the whole service, is in another region.
    #[error("`{configured}` is not the region of the bucket{}", named(right.as_deref()))]
    Region {
        /// What was used.
        configured: String,
        /// What the service named instead.
        right: Option<String>,
    },
    /// The clocks are too far apart for signatures.
    #[error("this host's clock and the store's differ{}", apart(*ahead_seconds))]
    ClockSkew {
        /// By how much this host is ahead of the service; negative: behind.
        ahead_seconds: Option<i64>,
    },
    /// No connection.
    #[error("cannot reach {endpoint}: {reason}")]
    Unreachable {
        /// Where it was looked for.
        endpoint: String,
        /// What the operating system or the library said.
        reason: String,
    },
    /// This process has no file descriptor left for a connection.
    #[error("no connection to {endpoint} can be made: {reason}")]
    NoFiles {
        /// Where to.
        endpoint: String,
        /// What the operating system said.
        reason: String,
    },
    /// The connection is there and cannot be trusted.
    #[error("cannot speak TLS with {endpoint}: {reason}")]
    Tls {
        /// With whom.
        endpoint: String,
        /// What the library said.
        reason: String,
    },
    /// The connection was lost before the answer was whole.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// Nothing came for too long.
    #[error("no answer within {}", seconds(*.0))]
    Silent(Duration),
    /// The answer began, and went on too slowly for too long.
    #[error("only {have} of {total} bytes came within {}", seconds(*within))]
    Slow {
        /// Bytes that came, of all attempts together.
        have: u64,
        /// Bytes that were to come.
        total: u64,
        /// How long the last attempt took.
        within: Duration,
    },
    /// It asks for patience, and had its share of it.
    #[error("the store is overloaded ({0})")]
    Overloaded(String),
    /// An answer that is not what the protocol says.
    #[error("the store's answer makes no sense: {0}")]
    Answer(String),
    /// A part was asked for, and something else came.
    #[error("the store answers a range of an object with {0}")]
    Range(&'static str),
    /// Larger than an object of a repository can be.
    #[error("{bytes} bytes are more than an object may have ({max})")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The settings of the connection contradict themselves.
    #[error("the connection to the store cannot be set up: {0}")]
    Settings(String),
    /// Anything else it said.
    #[error("the store answers {code} (HTTP {status}){}", colon(message))]
    Other {
        /// Of HTTP.
        status: u16,
        /// The service's own.
        code: String,
        /// Its words.
        message: String,
    },
}

impl ServiceFault {
    /// What to check.
    pub fn hint(&self) -> String {
        match self {
            Self::NoCredentials(_) => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role gives them"
                    .to_owned()
            }
            Self::Credentials(_) => {
                "check the access key and its secret, and that they belong to this endpoint".to_owned()
            }
            Self::Denied { action, resource, .. } => {
                format!("allow {action} on {resource} in the policy of these credentials; docs/operations.md has a whole one")
            }
            Self::NoBucket(_) => {
                "create the bucket, or check its name, the endpoint and repository.path_style; pgkeep makes no buckets"
                    .to_owned()
            }
            Self::Region { right: Some(region), .. } => {
                format!("set repository.region (or AWS_REGION) to `{region}`")
            }
            Self::Region { right: None, .. } => {
                "set repository.region (or AWS_REGION) to the region of the bucket".to_owned()
            }
            Self::ClockSkew { .. } => {
                "set this host's clock right (`timedatectl` shows it); requests are signed with the time".to_owned()
            }
            Self::Unreachable { .. } => {
                "check repository.endpoint (or AWS_ENDPOINT_URL), name resolution, the firewall and HTTPS_PROXY".to_owned()
            }
            Self::NoFiles { .. } => FILES_HINT.to_owned(),
            Self::Tls { .. } => {
                "check http or https in repository.endpoint; a private authority's certificate goes into AWS_CA_BUNDLE"
                    .to_owned()
            }
            Self::Lost(_) | Self::Silent(_) | Self::Slow { .. } | Self::Overloaded(_) => {
                "tried again until repository.retry_for was over; look after the store or the way to it, then run it again"
                    .to_owned()
            }
            Self::Answer(_) => {
                "check that repository.endpoint is an S3 service and that no proxy changes its answers".to_owned()
            }
            Self::Range(_) => {
                "see that the store, and every proxy before it, answers HTTP ranges: without them each download that \
                 breaks off begins anew"
                    .to_owned()
            }
            Self::TooLarge { .. } => {
                "something else than pgkeep put it there; move it out of the repository".to_owned()
            }
            Self::Settings(_) => "check the AWS configuration files and AWS_CA_BUNDLE".to_owned(),
            Self::Other { .. } => "see the documentation of the store for this answer".to_owned(),
        }
    }
}

fn named(region: Option<&str>) -> String {
    region.map(|name| format!(", which is `{name}`")).unwrap_or_default()
}

fn apart(ahead: Option<i64>) -> String {
    match ahead {
        None => " too much".to_owned(),
        Some(seconds) => {
            let way = if seconds < 0 { "behind" } else { "ahead" };
            let span = Duration::from_secs(seconds.unsigned_abs());
            format!(": this host's is {} {way}", self::seconds(span))
        }
    }
}

fn seconds(span: Duration) -> String {
    match span.as_secs() {
        0 => format!("{} ms", span.as_millis()),
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

fn colon(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_what_a_person_needs() {
        let skew = |ahead_seconds| ServiceFault::ClockSkew { ahead_seconds }.to_string();
        assert_eq!(
            skew(Some(-7300)),
            "this host's clock and the store's differ: this host's is 2 h behind"
        );
        assert_eq!(
            skew(Some(90)),
            "this host's clock and the store's differ: this host's is 90 s ahead"
        );
        assert_eq!(skew(None), "this host's clock and the store's differ too much");
        let region = ServiceFault::Region { configured: "a".into(), right: Some("b".into()) };
        assert_eq!(region.to_string(), "`a` is not the region of the bucket, which is `b`");
        assert_eq!(region.hint(), "set repository.region (or AWS_REGION) to `b`");
        let other = |message: &str| ServiceFault::Other {
            status: 507,
            code: "Full".to_owned(),
            message: message.to_owned(),
        };
        assert_eq!(other("").to_string(), "the store answers Full (HTTP 507)");
        assert_eq!(other("no room").to_string(), "the store answers Full (HTTP 507): no room");
    }
}
