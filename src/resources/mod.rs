//! What the host has, what machines reserve of it, and whether more can be reserved.
//!
//! The ledger is libvirt's own state: every machine's record lists what it reserves. A reservation counts while
//! the machine runs, or while the `stead` that is about to start it lives. Nothing else is stored, so no
//! reservation can be left over.

mod abilities;
mod admission;
mod capacity;
mod cgroup;
mod ledger;
mod partition;
mod turns;
mod usage;

pub use abilities::{Abilities, check};
pub use admission::{HostShare, Refusal, StartRequest, Unreserved, admit};
pub use capacity::{Capacity, online_cpus};
pub use cgroup::weight_scale;
pub use ledger::{Holding, ledger, most_used, overhead, reserved, reserved_by_wanted};
pub use partition::{PartitionError, prepare as prepare_partition, verify as verify_partition};
pub use turns::{Applicant, Load, Room, Turns};
pub use usage::{Meter, Rates, Sample};
