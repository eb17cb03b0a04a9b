//! A part of an object, for `check` to see that ranges are answered as they should be.

use std::ops::Range;

use bytes::Bytes;

use super::client::Connected;
use super::judge::Request;
use super::retry::{Again, Trouble};
use super::{Partial, S3Store, failed, unexpected};
use crate::domain::key::ObjectKey;
use crate::store::StoreError;
use crate::store::service::ServiceFault;

pub(super) async fn get(
    store: &S3Store,
    key: &ObjectKey,
    range: Range<u64>,
) -> Result<Bytes, StoreError> {
    let failed = |fault| failed("cannot read", key, fault);
    if range.is_empty() {
        return Err(failed(ServiceFault::Range("nothing, as it was asked for")));
    }
    let connected = store.connected().await?;
    let _turn = store.turn().await;
    let mut retry = store.retry();
    loop {
        match once(store, connected, key, &range, retry.failures()).await {
            Ok(bytes) => return Ok(bytes),
            Err(Trouble::NotFound) => return Err(StoreError::NotFound(key.clone())),
            Err(trouble) => {
                let (fault, again) = unexpected(trouble);
                retry.pause(fault, again).await.map_err(failed)?;
            }
        }
    }
}

async fn once(
    store: &S3Store,
    connected: &Connected,
    key: &ObjectKey,
    range: &Range<u64>,
    failures: u32,
) -> Result<Bytes, Trouble> {
    let (full, resource) = store.names(key);
    let bucket = &store.options.bucket;
    let request = Request { action: "s3:GetObject", bucket, resource: &resource };
    let (first, last) = (range.start, range.end - 1);
    let call = connected.client.get_object().bucket(bucket).key(full);
    let call = call.range(format!("bytes={first}-{last}")).send();
    let other = |what| Trouble::Fault(ServiceFault::Range(what), Again::Never);
    let answered = store.attempt(connected, request, failures, call).await;
    let output = answered.map_err(|trouble| match trouble {
        // It lies outside of the object, says the service.
        Trouble::Changed => other("none at all"),
        trouble => trouble,
    })?;
    match output.content_range() {
        None => return Err(other("the whole of it")),
        Some(told) if !told.starts_with(&format!("bytes {first}-{last}/")) => {
            return Err(other("another one"));
        }
        Some(_) => {}
    }
    let total = range.end - range.start;
    if output.content_length().and_then(|length| u64::try_from(length).ok()) != Some(total) {
        return Err(other("another one"));
    }
    let mut partial = Partial { total, ..Partial::default() };
    store.read(store.options.limits.total(total, failures), output.body, &mut partial).await?;
    Ok(partial.bytes.freeze())
}
