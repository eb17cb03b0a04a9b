//! Where a bucket is, how it is spoken to, and how long anyone waits.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// When requests and answers carry checksums of their own, beside the digest that the signature covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// Wherever the service's model allows one (CRC32): what Amazon's own service expects.
    WhenSupported,
    /// Only where it must be: what most other services are safe with.
    WhenRequired,
}

/// Credentials that were given outright, so that nothing has to be asked for them.
#[derive(Clone)]
pub struct GivenCredentials {
    /// The access key id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Of temporary credentials.
    pub session_token: Option<String>,
}

impl fmt::Debug for GivenCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GivenCredentials({})", self.access_key_id)
    }
}

/// A deadline doubles no more often than that.
const DOUBLINGS_MAX: u32 = 4;

/// How long to wait, and how often to try.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection.
    pub connect: Duration,
    /// For the next sign of life.
    pub idle: Duration,
    /// The slowest line that is still waited for, in bytes per second, all calls together: a call's total
    /// deadline follows from the sizes of those that share the line, and doubles with each failure.
    pub slowest: u64,
    /// From a call's first failure, or its last progress, for as long as it is tried again.
    pub retry_for: Duration,
    /// The pause before the second attempt; it doubles, with jitter, up to fifty times of it.
    pub pause: Duration,
    /// Calls at work at once.
    pub calls: usize,
    /// Connections that rest for longer are not used again. Services close theirs after about 20 s, and a
    /// request on a connection that is being closed gets no answer; a snapshot pauses for as long as a dump does.
    pub rest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            slowest: 256 << 10,
            retry_for: Duration::from_mins(2),
            pause: Duration::from_millis(200),
            calls: 32,
            rest: Duration::from_secs(15),
        }
    }
}

impl Limits {
    /// The total deadline of an attempt after so many failures, while so many bytes are on the line.
    pub(super) fn total(&self, bytes: u64, failures: u32) -> Duration {
        let millis = bytes.saturating_mul(1000) / self.slowest.max(1);
        let transfer = Duration::from_millis(millis) * 2_u32.pow(failures.min(DOUBLINGS_MAX));
        self.connect + self.idle * 2 + transfer
    }
}

/// A bucket, a prefix in it, and the way there. What is left out comes from the service's usual places:
/// its variables, profiles, web identity, the container's or the machine's role.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with; empty, or a path without a slash at either end.
    pub prefix: String,
    /// The URL of a service that is not Amazon's.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: Option<String>,
    /// Whether the bucket is in the path of the URL; left out: yes where an endpoint is given.
    pub path_style: Option<bool>,
    /// Left out: where required if an endpoint is given, else where supported.
    pub checksums: Option<Checksums>,
    /// Left out: the chain.
    pub credentials: Option<GivenCredentials>,
    /// The profile to use of the configuration files.
    pub profile: Option<String>,
    /// More certificate authorities to trust, in PEM.
    pub ca_bundle: Option<PathBuf>,
    /// Patience.
    pub limits: Limits,
}

impl S3Options {
    /// A bucket with everything else left out.
    pub fn new(bucket: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
            path_style: None,
            checksums: None,
            credentials: None,
            profile: None,
            ca_bundle: None,
            limits: Limits::default(),
        }
    }

    /// The address, without secrets.
    pub fn address(&self) -> String {
        let Self { bucket, prefix, .. } = self;
        if prefix.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") }
    }

    /// The checksums that requests bear, where it is known whether the service is another than Amazon's own.
    pub(super) fn checksums_for(&self, other_service: bool) -> Checksums {
        let usual = if other_service { Checksums::WhenRequired } else { Checksums::WhenSupported };
        self.checksums.unwrap_or(usual)
    }

    /// The name in the bucket of what is called `key` here.
    pub(super) fn full(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_grows_with_the_size() {
        let limits = Limits::default();
        assert!(limits.total(0, 9) < Duration::from_mins(2));
        assert!(limits.total(48 << 20, 0) > Duration::from_mins(4));
        assert!(limits.total(48 << 20, 1) > Duration::from_mins(7));
        assert_eq!(limits.total(1 << 20, 4), limits.total(1 << 20, 40));
    }

    #[test]
    fn amazon_s_own_service_gets_checksums_unless_they_are_turned_off() {
        let mut options = S3Options::new("b", "");
        assert_eq!(options.checksums_for(false), Checksums::WhenSupported);
        assert_eq!(options.checksums_for(true), Checksums::WhenRequired);
        for set in [Checksums::WhenSupported, Checksums::WhenRequired] {
            options.checksums = Some(set);
            assert_eq!((options.checksums_for(false), options.checksums_for(true)), (set, set));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = GivenCredentials {
            access_key_id: "AKID".into(),
            secret_access_key: "hush".into(),
            session_token: Some("hush".into()),
        };
        let mut options = S3Options::new("b", "");
        options.credentials = Some(credentials);
        assert!(!format!("{options:?}").contains("hush"));
        assert_eq!(options.address(), "s3://b");
        assert_eq!(S3Options::new("b", "p/q").full("a/b"), "p/q/a/b");
    }
}
