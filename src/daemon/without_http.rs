//! The HTTP side of a build without it (the cargo feature `http`): there is none, which is said at the start. What else
//! would need it `wiring` has refused before.

use std::net::SocketAddr;

use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::domain::connection::Secret;
use crate::domain::failure::{Failure, FailureKind};

/// What `[daemon]` says of the HTTP side.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where the page would be.
    pub listen: SocketAddr,
    /// Whether an address beyond this host is agreed to.
    pub allow_remote: bool,
    /// What the snapshot hook would ask for.
    pub token: Option<Secret>,
}

/// Why nothing is served: here nothing ever is.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {}

impl Failure for HttpError {
    fn kind(&self) -> FailureKind {
        match *self {}
    }
    fn hint(&self) -> Option<String> {
        match *self {}
    }
}

/// No address.
#[derive(Debug)]
pub struct Bound(());

impl Bound {
    /// None.
    pub const fn address(&self) -> Option<SocketAddr> {
        None
    }

    /// Ends at once.
    #[expect(clippy::unused_async, reason = "its twin serves")]
    pub async fn run(self) {}
}

/// Says that there is no page.
#[expect(clippy::unused_async, reason = "its twin listens")]
pub async fn serve(
    options: HttpOptions,
    _shared: Shared,
    _stop: CancellationToken,
) -> Result<Bound, HttpError> {
    let listen = options.listen;
    tracing::warn!(
        "this pgkeep was built without HTTP: there is no page on {listen}, no metrics and no API"
    );
    Ok(Bound(()))
}
