//! `key rotate`, `key confirm`, `key trust`: who may read, who may write, and whose word counts.

mod confirm;
mod error;
mod rotate;
mod trust;

pub use confirm::{Confirmed, confirm};
pub use error::KeysError;
pub use rotate::{RotateOptions, RotateReport, rotate};
pub use trust::{TrustPlace, Trusted, trust};
