//! Floor 0: pure values. No I/O, no clock, no chance: what changes with time or luck is an argument.

pub mod adoption;
pub mod ambient;
pub mod archive;
pub mod audit;
pub mod chunk;
pub mod connection;
pub mod dump;
pub mod failure;
pub mod globals;
pub mod id;
pub mod inventory;
pub mod key;
pub mod manifest;
pub mod migration;
pub mod observer;
pub mod retention;
pub mod schedule;
pub mod selector;
pub mod status;
pub mod suspect;
pub mod told;
pub mod verification;
pub mod words;
#[cfg(test)]
mod year;
