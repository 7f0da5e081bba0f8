//! Leftovers: machines of the project that its Machinefile no longer describes.

use std::collections::BTreeMap;

use crate::{
    machine::{Observed, Owner, Record},
    machinefile::{Machine, Ready},
    plan::{Existing, WantedMachine},
};

use super::{selection::Selection, target::Target};

/// Which leftovers a command includes: those that its arguments name, and all of them if
/// `--leftovers` asks for that.
#[derive(Clone, Copy)]
pub struct Leftovers<'a> {
    pub selection: &'a Selection,
    /// Whether `--leftovers` was given.
    pub asked: bool,
}

impl Leftovers<'_> {
    pub fn fits(&self, record: &Record) -> bool {
        self.asked || self.selection.names.contains(&record.machine) || self.is_in_passing(record)
    }

    /// Whether it is a throwaway machine of a `stead run`. Those are always included. A run in progress
    /// holds its machine's lock.
    pub fn is_in_passing(&self, record: &Record) -> bool {
        record.run_of.is_some()
            && self.selection.is_all()
            && !self.selection.names.contains(&record.machine)
    }
}

/// Returns a Machinefile's description of the machine as it is. Hooks, folders and provisioners are
/// not recorded.
pub fn machine_of(record: &Record) -> Machine {
    Machine {
        name: record.machine.clone(),
        one_of: None,
        hostname: record.spec.hostname.clone(),
        box_ref: record.spec.box_digest.clone(),
        box_key: record.spec.box_digest.clone(),
        box_file: None,
        box_sha256: None,
        cpus: record.spec.cpus,
        memory: record.spec.memory,
        disk: Some(record.spec.disk),
        kernel: None,
        firmware: None,
        secure_boot: record.spec.firmware.secure_boot,
        tpm: record.spec.firmware.tpm,
        tuning: record.spec.tuning.clone(),
        spans: Default::default(),
        labels: BTreeMap::new(),
        vars: Default::default(),
        depends_on: Vec::new(),
        networks: Vec::new(),
        bridges: Vec::new(),
        forwards: record.spec.forwards.clone(),
        syncs: Vec::new(),
        provisioners: Vec::new(),
        hooks: Vec::new(),
        ready: Ready::default(),
        user: record.spec.user.clone(),
        user_data: None,
        accel: None,
        internet: record.spec.internet,
        egress: record.spec.egress.clone(),
        auto_forward: false,
        cpu: None,
    }
}

/// Returns a target with enough of a `WantedMachine` to halt or destroy the machine.
pub fn leftover(observed: Observed) -> Target {
    let record = &observed.record;
    let wanted = WantedMachine {
        owner: Owner::of_record(record),
        identity: observed.identity.clone(),
        spec: Some(record.spec.clone()),
        machine: machine_of(record),
        provisioners: Vec::new(),
        copy_of: record.copy_of.clone(),
        run_of: record.run_of.clone(),
    };
    let existing = Existing {
        observed: Some(observed),
        disk: true,
        needs_certificate: false,
    };
    Target::without_boot(wanted, existing, true)
}
