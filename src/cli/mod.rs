//! Floor 7: arguments, rendering, exit codes.
//!
//! The only floor that prints. `main` hands over the process environment and takes back an exit code.

mod args;
mod backup;
mod check;
mod configuration;
mod context;
mod daemon;
mod demo;
mod import;
mod in_place;
mod keys;
mod log;
mod migrate;
mod migrate_text;
mod output;
mod progress;
mod prune;
mod recovery;
mod rehearse;
mod reports;
mod rollback;
mod run;
mod show;
mod status;
mod stored;
mod text;
mod verbs;

pub use run::run;
