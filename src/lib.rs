//! pgkeep keeps a PostgreSQL cluster recoverable, and proves it.
//!
//! Modules are floors: imports go downward only (`docs/architecture.md`; `tests/floors.rs` enforces it).

pub mod cli;
pub mod codec;
pub mod config;
pub mod daemon;
pub mod domain;
pub mod failpoint;
pub mod guard;
pub mod notify;
pub mod ops;
pub mod postgres;
pub mod proof;
pub mod repo;
pub mod scratch;
pub mod store;
pub mod wiring;
