//! A machine that a command acts on.

use crate::{
    boxes::StoredBox,
    failure::Failure,
    plan::{Existing, WantedMachine},
};

/// A machine of the project, as described and as found.
pub struct Target {
    pub wanted: WantedMachine,
    pub existing: Existing,
    pub stored_box: Option<StoredBox>,
    /// Why it has no box; matters only if it will be made or booted.
    pub no_box: Option<Failure>,
    /// The box that `up` fetches first, because it is not in the store yet.
    pub fetches: Option<String>,
    /// Why its kernel cannot be booted; matters only if it will be booted.
    pub no_kernel: Option<Failure>,
    /// Why a folder cannot be shared with it; matters only if it will be booted.
    pub no_share: Option<Failure>,
    /// How each folder of type auto is shared, and why.
    pub share_notes: Vec<String>,
    /// Whether it is in libvirt, but no longer in the Machinefile.
    pub leftover: bool,
}

impl Target {
    /// A machine that will not be booted: no box, kernel or folder is looked up for it.
    pub fn without_boot(wanted: WantedMachine, existing: Existing, leftover: bool) -> Self {
        Target {
            wanted,
            existing,
            stored_box: None,
            no_box: None,
            fetches: None,
            no_kernel: None,
            no_share: None,
            share_notes: Vec::new(),
            leftover,
        }
    }
}
