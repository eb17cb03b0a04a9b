//! Stories: the built `pgkeep` against real PostgreSQL, each ending in a restore and a comparison.
//!
//! Run them with `make test`, or `tests/run cargo test --test it NAME`.

mod support;

mod adopt;
mod bad_input;
mod check;
mod clocks;
mod concurrency;
mod credentials;
mod cron;
mod daemon;
mod damage;
mod disks;
mod durable;
mod failpoints;
mod format;
mod golden;
mod guard;
mod harness;
mod hindered;
mod import;
mod in_place;
mod keys;
mod limits;
mod lost_servers;
mod names;
mod page;
mod procedures;
mod programs;
mod progress;
mod proof;
mod prune;
mod replace;
mod rollback;
mod s3;
mod settings;
mod status;
mod stock_tools;
mod stored;
mod story_roundtrip;
mod units;
mod ways_back;
