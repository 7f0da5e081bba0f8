//! Compares wanted machines with observed ones, and returns the steps between them. Pure.

mod drift;
mod hooks;
mod machine_plan;
mod order;
mod pack;
mod project;
mod provision;
mod provisioners;
mod step;
mod stop;
mod tuning;
mod up;
mod wanted;

pub use drift::{Change, Drift, drift};
pub use machine_plan::{MachinePlan, Plan};
pub use order::most_needed_first;
pub use pack::{copy_name, copy_of, original, pack};
pub use project::{ProjectRun, WantedRun, asked_runs, pending_runs, record_name, stale_runs};
pub use provision::provision;
pub use provisioners::{Request, Stale};
pub use step::{PhaseKept, ProvisionReason, Step};
pub use stop::{destroy, halt, halt_to_boot};
pub use up::{install_kernel, sync_steps, up, up_again};
pub use wanted::{Existing, WantedMachine, WantedProvisioner};

#[cfg(test)]
mod tests;
