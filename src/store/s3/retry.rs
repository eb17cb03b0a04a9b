//! The one place where a call is tried again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::options::Limits;
use crate::store::service::ServiceFault;

/// No pause is longer than so many times the first.
const PAUSES_MAX: u32 = 50;
/// Before the service has answered once, a failure to connect is tried again only for so many first
/// pauses: then the address is wrong more often than the service is down.
const FIRST_CONTACT: u32 = 15;
/// What is probably final is tried this often.
const DOUBTFUL_MAX: u32 = 4;

/// What to do about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Trying again cannot help.
    Never,
    /// It helps rarely: a few times.
    Doubtful,
    /// It may well help.
    Yes,
}

/// Why an attempt failed, and whether to try again.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The object is not there.
    NotFound,
    /// The object is another one than that of the attempt before.
    Changed,
    /// Anything else.
    Fault(ServiceFault, Again),
}

/// Whether the service has ever answered this process.
#[derive(Debug, Default)]
pub(super) struct Contact(AtomicBool);

impl Contact {
    pub(super) fn made(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The patience of one call.
#[derive(Debug)]
pub(super) struct Retry<'a> {
    limits: &'a Limits,
    contact: &'a Contact,
    failures: u32,
    doubtful: u32,
    since: Option<Instant>,
}

impl<'a> Retry<'a> {
    pub(super) fn new(limits: &'a Limits, contact: &'a Contact) -> Self {
        Self { limits, contact, failures: 0, doubtful: 0, since: None }
    }

    /// How often in a row it has failed.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Part of the work is done: what failed before no longer counts.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
        self.doubtful = 0;
        self.since = None;
    }

    /// Sleeps before the next attempt, or gives the fault back where there is to be none.
    pub(super) async fn pause(
        &mut self,
        fault: ServiceFault,
        again: Again,
    ) -> Result<(), ServiceFault> {
        self.failures += 1;
        self.doubtful += u32::from(again == Again::Doubtful);
        let since = *self.since.get_or_insert_with(Instant::now);
        let stranger = !self.contact.is_made()
            && matches!(fault, ServiceFault::Unreachable { .. } | ServiceFault::Tls { .. });
        let patience = if stranger {
            self.limits.retry_for.min(self.limits.pause * FIRST_CONTACT)
        } else {
            self.limits.retry_for
        };
        let over = since.elapsed() >= patience;
        let tired = match again {
            Again::Never => true,
            Again::Doubtful => self.doubtful >= DOUBTFUL_MAX,
            Again::Yes => false,
        };
        if over || tired {
            return Err(fault);
        }
        let pause = self.next_pause();
        tracing::debug!(%fault, failures = self.failures, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Doubles, and is drawn between half of itself and all of it, so that calls that failed together do
    /// not come back together.
    fn next_pause(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures.min(16) - 1).unwrap_or(PAUSES_MAX);
        let whole = self.limits.pause * doubled.min(PAUSES_MAX);
        whole.mul_f64(0.5 + 0.5 * chance())
    }
}

/// A number from 0 to 1. Scattering pauses needs no better chance than the standard library's hasher keys.
fn chance() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    f64::from(u16::try_from(RandomState::new().hash_one(0) >> 48).unwrap_or(0))
        / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> ServiceFault {
        ServiceFault::Lost("reset".to_owned())
    }

    fn unreachable() -> ServiceFault {
        ServiceFault::Unreachable { endpoint: "e".to_owned(), reason: "refused".to_owned() }
    }

    /// How often a call is tried that always fails so, and for how long.
    async fn attempts(fault: ServiceFault, again: Again, known: bool) -> (u32, Duration) {
        let (limits, contact) = (Limits::default(), Contact::default());
        if known {
            contact.made();
        }
        let mut retry = Retry::new(&limits, &contact);
        let start = Instant::now();
        let mut tried = 1;
        while retry.pause(fault.clone(), again).await.is_ok() {
            tried += 1;
        }
        (tried, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_bounded_and_outlasts_an_outage_of_a_minute() {
        let (tried, time) = attempts(lost(), Again::Yes, true).await;
        assert!((15..60).contains(&tried), "{tried}");
        assert!(time >= Duration::from_secs(119) && time < Duration::from_secs(135), "{time:?}");
        assert_eq!(attempts(lost(), Again::Never, true).await.0, 1);
        assert_eq!(attempts(lost(), Again::Doubtful, true).await.0, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_never_answered_is_given_up_soon() {
        let (tried, time) = attempts(unreachable(), Again::Yes, false).await;
        assert!(tried >= 3 && time < Duration::from_secs(10), "{tried} in {time:?}");
        assert!(attempts(unreachable(), Again::Yes, true).await.1 > Duration::from_secs(100));
    }

    #[tokio::test(start_paused = true)]
    async fn progress_renews_patience() {
        let (limits, contact) = (Limits::default(), Contact::default());
        let mut retry = Retry::new(&limits, &contact);
        for _ in 0..200 {
            retry.pause(lost(), Again::Yes).await.expect("there was progress");
            tokio::time::advance(Duration::from_secs(10)).await;
            retry.progressed();
        }
    }

    #[test]
    fn pauses_are_scattered() {
        let some: std::collections::BTreeSet<_> = (0..50).map(|_| chance().to_bits()).collect();
        assert!(some.len() > 40);
        assert!((0..1000).map(|_| chance()).all(|c| (0.0..=1.0).contains(&c)));
    }
}
