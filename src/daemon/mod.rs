//! Floor 6: the daemon: schedules, runs, and the HTTP side.

pub mod http;
pub mod news;
pub mod runs;
pub mod shared;
