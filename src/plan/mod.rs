//! Compares wanted machines with observed ones, and returns the steps between them. Pure.

mod drift;
mod hooks;
mod pack;
mod project;
mod provision;
mod steps;
mod tuning;
mod wanted;

pub use drift::{Change, Drift, drift};
pub use pack::{copy_name, copy_of, original, pack};
pub use project::{ProjectRun, WantedRun, asked_runs, pending_runs, record_name, stale_runs};
pub use provision::{Request, Stale, provision};
pub use steps::{
    MachinePlan, PhaseKept, Plan, ProvisionReason, Step, destroy, halt, halt_to_boot,
    install_kernel, sync_steps, up, up_again,
};
pub use wanted::{Existing, WantedMachine, WantedProvisioner};

#[cfg(test)]
mod tests;
