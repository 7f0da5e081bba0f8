//! What to do: wanted machines × observed machines → steps. Pure.

mod drift;
mod pack;
mod steps;
mod tuning;
mod wanted;

pub use drift::{Change, Drift, drift};
pub use pack::{copy_name, copy_of, original, pack};
pub use steps::{
    MachinePlan, PhaseKept, Plan, ProvisionReason, Step, destroy, halt, install_kernel, sync_steps,
    up,
};
pub use wanted::{Existing, Wanted, WantedProvisioner};

#[cfg(test)]
mod tests;
