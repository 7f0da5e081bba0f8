//! A machine as it is wanted, and what exists of it.

use crate::{
    machine::{Identity, Observed, Owner, Spec},
    machinefile::{Machine, RunPolicy},
};

/// A machine as the Machinefile wants it, with what the file alone does not have: the digests of the box and of
/// scripts, and the acceleration.
#[derive(Clone, Debug)]
pub struct WantedMachine {
    pub owner: Owner,
    pub identity: Identity,
    pub machine: Machine,
    /// `None` if the box is not in the store. Only a new machine needs it.
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
    /// Whether its guest needs another certificate while it runs on.
    pub needs_certificate: bool,
}
