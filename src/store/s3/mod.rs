//! A store in a bucket of Amazon S3 or of a service that speaks its language.
//!
//! **What is asked of the service:** read after write and list after write, nothing else. No conditional
//! header is sent, since some services answer 200 to all of them; no multipart upload, no batch delete, no
//! `HEAD`. An object is one put of a body that lies in memory whole, so that it can be sent again, and at
//! most [`OBJECT_MAX`] bytes; sealed chunks are a few MiB.
//!
//! **A put whose answer was lost** is sent again: the name is used once and its content is the same, so the
//! second is the first. For the same reason a crash, or a caller that gives up, leaves the object whole or
//! not at all. That a name is taken by other content is not seen here (`contract::OtherContent::Unseen`).
//!
//! **A get** reads on where a connection broke, with a range that is bound to the same object by its tag,
//! and succeeds only when it has as many bytes as the service announced. **A listing** is complete or an
//! error: a page that repeats keys of the one before is cleared of them; one that goes back further, that
//! counts its keys wrongly, or that says there is more and not how to get it, ends it.
//!
//! **Time:** each attempt has a deadline for the next sign of life and a total one that follows from what is
//! on the line: the kernel takes a body at once and does not tell how far it has got, so a put is given the
//! time that all puts of the moment need on a slow line, and twice that when it is tried again. A body that comes more
//! slowly than that is read on from where it was, with twice the time, and counts as no progress. Each call is tried again with growing, scattered pauses for [`Limits::retry_for`] since its last
//! progress. Calls beyond [`Limits::calls`] wait for their turn.

mod client;
mod clock;
mod judge;
mod list;
mod options;
mod range;
mod retry;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio::time::Instant;

pub use self::options::{Checksums, GivenCredentials, Limits, S3Options};

use self::client::Connected;
use self::judge::{Request, innermost, judge};
use self::retry::{Again, Contact, Retry, Trouble};
use super::service::ServiceFault;
use super::{ObjectMeta, ObjectStore, StoreError};
use crate::domain::key::ObjectKey;

/// The largest object; the service's own limit for one put is 5 GiB, and a body is held in memory whole.
pub const OBJECT_MAX: u64 = 1 << 30;

/// A bucket, or a prefix in one, as a store.
#[derive(Debug)]
pub struct S3Store {
    options: Arc<S3Options>,
    connected: OnceCell<Connected>,
    contact: Contact,
    calls: Semaphore,
    /// Bytes of puts that are under way.
    line: Line,
}

/// The bytes that share the way to the service.
#[derive(Debug, Default)]
struct Line(AtomicU64);

/// Bytes that are on the line until this is dropped.
struct OnLine<'a>(&'a Line, u64);

impl Line {
    fn take(&self, bytes: u64) -> OnLine<'_> {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        OnLine(self, bytes)
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for OnLine<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl S3Store {
    /// The store at that address. Nothing is read or asked before the first call.
    pub fn new(options: S3Options) -> Self {
        let calls = Semaphore::new(options.limits.calls.max(1));
        let (connected, contact) = (OnceCell::new(), Contact::default());
        let line = Line::default();
        Self { options: Arc::new(options), connected, contact, calls, line }
    }

    async fn connected(&self) -> Result<&Connected, StoreError> {
        let connect = || client::connect(&self.options);
        self.connected.get_or_try_init(connect).await.map_err(|fault| StoreError::Service {
            action: "cannot open",
            key: self.options.address(),
            fault,
        })
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.calls.acquire().await.expect("this semaphore is never closed")
    }

    fn retry(&self) -> Retry<'_> {
        Retry::new(&self.options.limits, &self.contact)
    }

    /// One attempt within the total deadline that the line and the failures so far allow, judged.
    async fn attempt<T, E>(
        &self,
        connected: &Connected,
        request: Request<'_>,
        failures: u32,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Trouble>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let start = Instant::now();
        let mut call = std::pin::pin!(call);
        let result = loop {
            // What comes onto the line later slows this call too.
            let limit = self.options.limits.total(self.line.bytes(), failures);
            let left = limit.saturating_sub(start.elapsed());
            match tokio::time::timeout(left, call.as_mut()).await {
                Ok(result) => break result,
                Err(_)
                    if start.elapsed() < self.options.limits.total(self.line.bytes(), failures) => {
                }
                Err(_) => return Err(silent(start.elapsed())),
            }
        };
        match result {
            Ok(output) => {
                self.contact.made();
                Ok(output)
            }
            Err(error) => Err(judge(&error, request, connected, &self.contact)),
        }
    }

    async fn put_once(
        &self,
        connected: &Connected,
        full: &str,
        resource: &str,
        (bytes, failures): (&Bytes, u32),
    ) -> Result<(), Trouble> {
        let _on_line = self.line.take(bytes.len() as u64);
        let request = Request { action: "s3:PutObject", bucket: &self.options.bucket, resource };
        let call = connected
            .client
            .put_object()
            .bucket(&self.options.bucket)
            .key(full)
            .body(ByteStream::from(bytes.clone()))
            .send();
        let output = self.attempt(connected, request, failures, Box::pin(call)).await?;
        // Every service tags what it has stored; an answer without a tag is of something else.
        if output.e_tag().is_none() {
            return Err(nonsense("a put was answered without an ETag"));
        }
        Ok(())
    }

    /// Reads on from what `partial` holds already.
    async fn get_once(
        &self,
        connected: &Connected,
        full: &str,
        resource: &str,
        (partial, failures): (&mut Partial, u32),
    ) -> Result<(), Trouble> {
        let request = Request { action: "s3:GetObject", bucket: &self.options.bucket, resource };
        let mut call = connected.client.get_object().bucket(&self.options.bucket).key(full);
        if let Some(tag) = partial.resumable() {
            call = call.range(format!("bytes={}-", partial.bytes.len())).if_match(tag);
        }
        let answered = self.attempt(connected, request, failures, call.send()).await;
        let output = answered.inspect_err(|trouble| {
            if matches!(trouble, Trouble::Changed) {
                partial.forget();
            }
        })?;
        let body = partial.begin(output)?;
        let Limits { calls, .. } = self.options.limits;
        // As many gets may share the line; what comes is seen to come, so this is a mere backstop.
        let left = (partial.total - partial.bytes.len() as u64).saturating_mul(calls as u64);
        self.read(self.options.limits.total(left, failures), body, partial).await
    }

    /// Takes the body, all of it within `limit`: one that drips keeps every shorter deadline.
    async fn read(
        &self,
        limit: Duration,
        body: ByteStream,
        partial: &mut Partial,
    ) -> Result<(), Trouble> {
        if let Ok(read) = tokio::time::timeout(limit, self.read_on(body, partial)).await {
            return read;
        }
        let (have, total) = (partial.bytes.len() as u64, partial.total);
        Err(Trouble::Fault(ServiceFault::Slow { have, total, within: limit }, Again::Yes))
    }

    /// Takes the body piece by piece, each within the idle deadline.
    async fn read_on(&self, mut body: ByteStream, partial: &mut Partial) -> Result<(), Trouble> {
        let again = |fault| Trouble::Fault(fault, Again::Yes);
        while let Some(piece) = within(self.options.limits.idle, body.next()).await? {
            let piece = piece.map_err(|error| again(ServiceFault::Lost(innermost(&error))))?;
            partial.bytes.extend_from_slice(&piece);
            if partial.bytes.len() as u64 > partial.total {
                partial.forget();
                return Err(nonsense("an object is longer than its announced length"));
            }
        }
        let (have, total) = (partial.bytes.len() as u64, partial.total);
        if have < total {
            return Err(again(ServiceFault::Lost(format!("{have} of {total} bytes came"))));
        }
        Ok(())
    }

    async fn delete_once(
        &self,
        connected: &Connected,
        full: &str,
        resource: &str,
    ) -> Result<(), Trouble> {
        let request = Request { action: "s3:DeleteObject", bucket: &self.options.bucket, resource };
        let call = connected.client.delete_object().bucket(&self.options.bucket).key(full).send();
        match self.attempt(connected, request, 0, call).await {
            // Most services call it success.
            Err(Trouble::NotFound) => Ok(()),
            other => other.map(drop),
        }
    }
}

/// What has come of an object so far.
#[derive(Debug, Default)]
struct Partial {
    bytes: BytesMut,
    tag: Option<String>,
    total: u64,
}

impl Partial {
    /// The tag to bind the next range to, where there is something to go on from.
    fn resumable(&self) -> Option<String> {
        if self.bytes.is_empty() { None } else { self.tag.clone() }
    }

    fn forget(&mut self) {
        *self = Self::default();
    }

    /// Takes the head of an answer; what came before is kept only if this goes on from it.
    fn begin(&mut self, output: GetObjectOutput) -> Result<ByteStream, Trouble> {
        let Some(tag) = output.e_tag().map(str::to_owned) else {
            return Err(nonsense("an object came without an ETag"));
        };
        let Some(length) = output.content_length().and_then(|length| u64::try_from(length).ok())
        else {
            return Err(nonsense("an object came without its length"));
        };
        let have = self.bytes.len() as u64;
        let goes_on = format!("bytes {have}-{}/{}", self.total.saturating_sub(1), self.total);
        let resumed = have > 0
            && output.content_range() == Some(goes_on.as_str())
            && self.tag.as_deref() == Some(tag.as_str())
            && length == self.total - have;
        if !resumed {
            self.forget();
            if output.content_range().is_some() {
                return Err(nonsense("another part of an object came than was asked for"));
            }
            if length > OBJECT_MAX {
                let fault = ServiceFault::TooLarge { bytes: length, max: OBJECT_MAX };
                return Err(Trouble::Fault(fault, Again::Never));
            }
            self.total = length;
            self.tag = Some(tag);
            self.bytes.reserve(usize::try_from(length).unwrap_or(0));
        }
        Ok(output.body)
    }
}

/// An answer that the protocol does not know; it is asked for again a few times.
fn nonsense(what: &str) -> Trouble {
    Trouble::Fault(ServiceFault::Answer(what.to_owned()), Again::Doubtful)
}

/// The future's output, or the trouble that it took too long.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, Trouble> {
    tokio::time::timeout(limit, future).await.map_err(|_| silent(limit))
}

fn silent(after: Duration) -> Trouble {
    Trouble::Fault(ServiceFault::Silent(after), Again::Yes)
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<(), StoreError> {
        let failed = |fault| failed("cannot write", key, fault);
        if bytes.len() as u64 > OBJECT_MAX {
            let bytes = bytes.len() as u64;
            return Err(failed(ServiceFault::TooLarge { bytes, max: OBJECT_MAX }));
        }
        let connected = self.connected().await?;
        let (full, resource) = self.names(key);
        let _turn = self.turn().await;
        let mut retry = self.retry();
        loop {
            match self.put_once(connected, &full, &resource, (&bytes, retry.failures())).await {
                Ok(()) => return Ok(()),
                Err(trouble) => {
                    let (fault, again) = unexpected(trouble);
                    retry.pause(fault, again).await.map_err(failed)?;
                }
            }
        }
    }

    async fn get(&self, key: &ObjectKey) -> Result<Bytes, StoreError> {
        let connected = self.connected().await?;
        let (full, resource) = self.names(key);
        let _turn = self.turn().await;
        let mut retry = self.retry();
        let mut partial = Partial::default();
        loop {
            let before = partial.bytes.len();
            match self.get_once(connected, &full, &resource, (&mut partial, retry.failures())).await
            {
                Ok(()) => return Ok(partial.bytes.freeze()),
                Err(Trouble::NotFound) => return Err(StoreError::NotFound(key.clone())),
                Err(trouble) => {
                    // What comes too slowly for the total deadline is not to renew patience for ever.
                    let slow = matches!(trouble, Trouble::Fault(ServiceFault::Slow { .. }, _));
                    if partial.bytes.len() > before && !slow {
                        retry.progressed();
                    }
                    let (fault, again) = unexpected(trouble);
                    let failed = |fault| failed("cannot read", key, fault);
                    retry.pause(fault, again).await.map_err(failed)?;
                }
            }
        }
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        range::get(self, key, range).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<ObjectMeta, StoreError>> {
        list::list(self, prefix)
    }

    async fn directories(&self, prefix: &str) -> Result<Option<Vec<String>>, StoreError> {
        Ok(Some(list::directories(self, prefix).await?))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let connected = self.connected().await?;
        let (full, resource) = self.names(key);
        let _turn = self.turn().await;
        let mut retry = self.retry();
        loop {
            match self.delete_once(connected, &full, &resource).await {
                Ok(()) => return Ok(()),
                Err(trouble) => {
                    let (fault, again) = unexpected(trouble);
                    let failed = |fault| failed("cannot delete", key, fault);
                    retry.pause(fault, again).await.map_err(failed)?;
                }
            }
        }
    }

    fn concurrency(&self) -> usize {
        self.options.limits.calls
    }

    fn address(&self) -> String {
        self.options.address()
    }

    fn ahead_seconds(&self) -> Option<i64> {
        self.connected.get()?.clock.ahead_seconds()
    }
}

impl S3Store {
    /// The name in the bucket, and with the bucket as policies and people write it.
    fn names(&self, key: &ObjectKey) -> (String, String) {
        let full = self.options.full(key.as_str());
        let resource = format!("{}/{full}", self.options.bucket);
        (full, resource)
    }
}

fn failed(action: &'static str, key: &ObjectKey, fault: ServiceFault) -> StoreError {
    StoreError::Service { action, key: key.to_string(), fault }
}

/// Trouble as a fault, where the caller has no use for the other kinds.
fn unexpected(trouble: Trouble) -> (ServiceFault, Again) {
    match trouble {
        Trouble::Fault(fault, again) => (fault, again),
        Trouble::NotFound => (ServiceFault::Answer("NoSuchKey".to_owned()), Again::Never),
        Trouble::Changed => (
            ServiceFault::Answer("the object changed while it was read".to_owned()),
            Again::Doubtful,
        ),
    }
}
