//! The networks of a project, and the process that connects its machines.

mod check;
mod link_changes;
mod process;
mod same_address;
mod start;
mod wiring;

pub(crate) use check::check;
pub(crate) use link_changes::link_changes;
pub use process::lead_again;
pub(crate) use process::revive;
pub(super) use process::{addresses_changed, ask, files_of, keep, look_at_led};
pub(super) use same_address::{named, shared, shares_address};
pub(super) use start::{give_up_ports, start, start_runs, start_saved, take_back_ports};
pub(super) use wiring::is_other;

/// The program that is a project's network.
pub const PROGRAM: &str = "stead-net";
