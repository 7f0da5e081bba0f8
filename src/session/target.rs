//! A machine that a command is about.

use crate::{
    boxes::StoredBox,
    failure::Failure,
    plan::{Existing, WantedMachine},
};

/// A machine of the project, wanted and found.
pub struct Target {
    pub wanted: WantedMachine,
    pub existing: Existing,
    pub stored_box: Option<StoredBox>,
    /// Why there is no box for it; matters only when one is to be made or booted.
    pub no_box: Option<Failure>,
    /// Why its kernel cannot be booted; matters only when it is to be booted.
    pub no_kernel: Option<Failure>,
    /// Why it cannot have a folder that is to be shared; matters only when it is to be booted.
    pub no_share: Option<Failure>,
    /// What folders of type auto come to.
    pub shares_said: Vec<String>,
    /// It is in libvirt, but no longer in the Machinefile.
    pub leftover: bool,
}
