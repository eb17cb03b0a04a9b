//! The service's clock, as the `Date` of its answers tells it.
//!
//! Resolution: a second, and as long as the answer was under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

const UNKNOWN: i64 = i64::MIN;

/// By how many seconds this host was ahead of the last answer's date.
#[derive(Debug, Clone)]
pub(super) struct Clock(Arc<AtomicI64>);

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(UNKNOWN)))
    }
}

impl Clock {
    /// None before an answer told it.
    pub(super) fn ahead_seconds(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|ahead| *ahead != UNKNOWN)
    }
}

impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "pgkeep clock"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(ahead) = context.response().headers().get("date").and_then(ahead_of) {
            self.0.store(ahead, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// By how many seconds this host is ahead of an HTTP date.
pub(super) fn ahead_of(date: &str) -> Option<i64> {
    let there = DateTime::from_str(date, DateTimeFormat::HttpDate).ok()?.secs();
    let here = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(i64::try_from(here).ok()? - there)
}
