//! Floor 3: one verb, one conductor. Nothing here prints, and conductors never call each other.

pub mod adopt;
pub mod check;
pub mod claim;
mod copy;
pub mod import;
pub mod init;
pub mod inspect;
pub mod keys;
pub mod prune;
pub mod restore;
pub mod run;
pub mod snapshot;
pub mod status;
pub mod verify;

#[cfg(test)]
mod tests;
