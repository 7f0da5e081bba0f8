//! Runs a plan: machines in parallel, each after those that it depends on. Every step is reported.

mod ansible;
mod certificate;
mod context;
mod define;
mod disk;
mod error;
pub mod fault;
mod install;
mod machine;
mod pack;
mod pause;
mod ports;
mod preallocate;
mod project;
mod provision;
mod reach;
mod ready;
mod run;
mod seed;
mod share;
mod start;
mod steps;
mod stop;
mod sync;
mod tune;

pub use ansible::reachable_inventory;
pub use context::{Context, Job};
pub use define::{additions, foreign_disk};
pub use error::ApplyError;
pub use pause::{remedy, until_lost};
pub use provision::HOOK_OF_VARIABLE;
pub use run::{Summary, apply};
pub use tune::claim;
