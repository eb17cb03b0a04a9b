//! The HTTP client of a build without it (the cargo feature `http`): it sends nothing, and says so. `wiring` refuses what
//! would need one before anything begins.

use std::time::Duration;

use bytes::Bytes;

use super::{Limits, NotifyError};
use crate::domain::connection::Secret;

/// Where something would be told.
#[derive(Clone)]
pub(super) struct Place;

impl Place {
    #[expect(clippy::unnecessary_wraps, reason = "its twin reads the URL")]
    pub(super) fn parse(_url: &Secret) -> Result<Self, &'static str> {
        Ok(Self)
    }

    #[expect(clippy::unused_self, reason = "its twin looks there")]
    pub(super) fn host(&self) -> &'static str {
        "nowhere"
    }

    pub(super) fn with(self, _segment: Option<&str>) -> Self {
        self
    }
}

/// What would be sent along.
#[derive(Clone)]
#[expect(dead_code, reason = "nothing is sent")]
pub(super) enum Content {
    None,
    Json(Bytes),
    Text(Bytes),
}

/// Why a try failed.
#[expect(dead_code, reason = "another try would not succeed either")]
pub(super) enum Refused {
    ForNow(String, Option<Duration>),
    ForGood(String),
}

/// Sends nothing.
pub(super) struct Client;

impl Client {
    #[expect(clippy::unnecessary_wraps, reason = "its twin sets up TLS")]
    pub(super) fn new(_limits: &Limits) -> Result<Self, NotifyError> {
        Ok(Self)
    }

    #[expect(clippy::unused_async, reason = "its twin waits for an answer")]
    pub(super) async fn send(&self, _place: &Place, _content: &Content) -> Result<(), Refused> {
        Err(Refused::ForGood("this pgkeep was built without HTTP".to_owned()))
    }
}
