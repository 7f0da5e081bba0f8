//! What a machine is to be, and what exists of it.

use crate::{
    machine::{Identity, Observed, Owner, Spec},
    machinefile::{Machine, RunPolicy},
};

/// A machine as the Machinefile wants it, with everything looked up that a file alone does not
/// say: the box's digest, script digests, the acceleration.
#[derive(Clone, Debug)]
pub struct WantedMachine {
    pub owner: Owner,
    pub identity: Identity,
    pub machine: Machine,
    /// `None` when the box is not in the store, which matters only to a machine yet to be made.
    pub spec: Option<Spec>,
    pub provisioners: Vec<WantedProvisioner>,
    /// The original machine, if this is a copy that is made to pack it.
    pub copy_of: Option<String>,
    /// The machine of the Machinefile, if this one is made for a `stead run`.
    pub run_of: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedProvisioner {
    pub name: String,
    pub run: RunPolicy,
    /// The sha256 of all its inputs.
    pub digest: String,
}

/// What exists of a machine.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    pub observed: Option<Observed>,
    /// A disk of the machine's name in stead's pool.
    pub disk: bool,
}
