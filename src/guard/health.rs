//! Whether the application is well again: each of its addresses is asked until it answers with success, all of them
//! within one deadline.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::connection::Secret;
use crate::domain::verification::Check;
use crate::notify::{Health, NotifyError};

/// One request may take so long.
const TRY_MAX: Duration = Duration::from_secs(10);
/// The wait after the first answer that was no success; each one after it is twice as long, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is asked after a migration.
#[derive(Debug, Clone)]
pub struct HealthChecks {
    /// The addresses.
    pub urls: Vec<Secret>,
    /// How long they may take, all together.
    pub within: Duration,
}

impl HealthChecks {
    /// Asks them, one after the other; none where there is nothing to ask.
    pub(super) async fn look(&self) -> Result<Option<Check>, NotifyError> {
        if self.urls.is_empty() {
            return Ok(None);
        }
        let health = Health::new(TRY_MAX.min(self.within))?;
        let deadline = Instant::now() + self.within;
        for url in &self.urls {
            if let Err(why) = well(&health, url, deadline).await {
                let told = format!("{} within {} s: {why}", shown(url), self.within.as_secs());
                return Ok(Some(Check::failed("health", format!("no success from {told}"))));
            }
        }
        let all: Vec<&str> = self.urls.iter().map(shown).collect();
        Ok(Some(Check::passed("health", all.join(", "))))
    }
}

async fn well(health: &Health, url: &Secret, deadline: Instant) -> Result<(), String> {
    let mut pause = PAUSE;
    loop {
        // The last try is cut off at the deadline, whatever it is doing.
        let asked = tokio::time::timeout_at(deadline, health.ask(url)).await;
        let why = match asked {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => why,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        if Instant::now() + pause >= deadline {
            return Err(why);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Without what may be a secret: the query.
fn shown(url: &Secret) -> &str {
    let url = url.expose();
    url.split(['?', '#']).next().unwrap_or(url)
}
