//! The page, the metrics and the API.
//!
//! What is told here is no secret: anyone who reaches the address may read it. What starts work (the snapshot hook)
//! asks for a token, and is not there at all without one. The scheduler is told through [`Shared`] and never waited
//! for without a limit; a client that goes away takes nothing with it, since runs belong to the scheduler.
//!
//! A crash leaves nothing: nothing is stored here.

mod access;
mod answer;
mod connection;
mod hook;
mod metrics;
mod page;
mod routes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::domain::connection::Secret;
use crate::domain::failure::{Failure, FailureKind, system_hint};
use connection::Limits;

/// What `[daemon]` says of the HTTP side.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether an address beyond this host is agreed to, and with it any name that clients know this host by.
    pub allow_remote: bool,
    /// What the snapshot hook asks for, until [`Shared::set_token`] changes it; without one there is no hook.
    pub token: Option<Secret>,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is taken, or not this host's.
    #[error("cannot listen on {listen}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Others could reach it, and nobody agreed to that.
    #[error("{0} can be reached from other hosts, and daemon.allow_remote is not set")]
    Remote(SocketAddr),
    /// Anyone has nothing.
    #[error("the token of the snapshot hook is empty")]
    EmptyToken,
}

impl Failure for HttpError {
    fn kind(&self) -> FailureKind {
        match self {
            // The address may be free again when systemd starts the daemon the next time, which it does not after a mistake.
            Self::Listen { .. } => FailureKind::Unexpected,
            Self::Remote(_) | Self::EmptyToken => FailureKind::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Listen { source, .. } => system_hint(source).map_or_else(
                || {
                    "is another daemon at work on this host? `ss -ltnp` tells who listens; daemon.listen takes another address".to_owned()
                },
                str::to_owned,
            ),
            Self::Remote(_) => {
                "listen on 127.0.0.1 behind a proxy that encrypts and asks who comes, or set daemon.allow_remote = true".to_owned()
            }
            Self::EmptyToken => {
                "fill it (`openssl rand -hex 32`), or leave daemon.token_file out: then there is no hook".to_owned()
            }
        })
    }
}

/// What every answer may need.
struct Context {
    shared: Shared,
    listen: SocketAddr,
    allow_remote: bool,
    started: Instant,
    /// Cancelled once the answers that wait for a run must end.
    stop: CancellationToken,
    limits: Limits,
}

/// An address that is listened on; connections wait there until it runs.
pub struct Bound {
    address: SocketAddr,
    listener: TcpListener,
    context: Arc<Context>,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Bound {
    /// Where it listens, with the real port; a build without HTTP has none.
    pub const fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    /// Serves until the token is cancelled, and then until the answers under way are out, for a while.
    pub async fn run(self) {
        connection::accept(self.listener, self.context).await;
    }
}

/// Listens, so that the caller knows the port; [`Bound::run`] serves.
pub async fn serve(
    options: HttpOptions,
    shared: Shared,
    stop: CancellationToken,
) -> Result<Bound, HttpError> {
    bind(options, shared, stop, Limits::default()).await
}

async fn bind(
    options: HttpOptions,
    shared: Shared,
    stop: CancellationToken,
    limits: Limits,
) -> Result<Bound, HttpError> {
    let HttpOptions { listen, allow_remote, token } = options;
    if !allow_remote && !listen.ip().to_canonical().is_loopback() {
        return Err(HttpError::Remote(listen));
    }
    if token.as_ref().is_some_and(|token| token.expose().trim().is_empty()) {
        return Err(HttpError::EmptyToken);
    }
    let failed = |source| HttpError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let started = Instant::now();
    shared.set_token(token);
    let context = Context { shared, listen: address, allow_remote, started, stop, limits };
    Ok(Bound { address, listener, context: Arc::new(context) })
}
