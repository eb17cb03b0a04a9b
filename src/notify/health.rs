//! Asking an application whether it is well: one GET, answered with success or not.

use std::time::Duration;

use super::http::{Client, Content, Place, Refused};
use super::{Limits, NotifyError};
use crate::domain::connection::Secret;

/// Asks.
pub struct Health(Client);

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    /// Each request may take that long.
    pub fn new(timeout: Duration) -> Result<Self, NotifyError> {
        Client::new(&Limits { timeout, ..Limits::default() }).map(Self)
    }

    /// Whether what is there answers with success; why not, otherwise.
    pub async fn ask(&self, url: &Secret) -> Result<(), String> {
        let place = Place::parse(url).map_err(str::to_owned)?;
        self.0.send(&place, &Content::None).await.map_err(|refused| match refused {
            Refused::ForNow(why, _) | Refused::ForGood(why) => why,
        })
    }
}
