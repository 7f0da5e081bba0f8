//! Runs a plan: machines in parallel, each after those it depends on, every step reported.

mod context;
mod define;
mod error;
mod fault;
mod install;
mod machine;
mod pack;
mod preallocate;
mod run;
mod share;
mod steps;
mod sync;
mod tune;

pub use context::{Context, Job};
pub use error::ApplyError;
pub use run::{Summary, apply, interrupts};
pub use tune::claim;
