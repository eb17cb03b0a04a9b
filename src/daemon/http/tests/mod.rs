//! The HTTP side over real TCP, with made-up states and a scheduler that only takes note.

mod hook;
mod limits;
mod metrics;
mod page;
mod routes;
mod script;
mod support;
