//! Floor 4: what stands around a migration. The only callers of `ops` below the daemon and the command line.
//!
//! [`migrate`], [`rehearse`] and [`rollback`] are the conductors. Nothing here prints: what is told while it runs goes to the observer, the rest is in its
//! report.

mod aftermath;
mod git;
mod health;
mod history;
mod masking;
pub mod migrate;
mod program;
mod project;
pub mod rehearse;
pub mod rollback;
mod target;

pub use health::HealthChecks;
pub use program::{Relay, is_ignored};
