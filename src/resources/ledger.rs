//! Who holds what, by what libvirt says.

use std::path::PathBuf;

use crate::{
    host::process::Process,
    hypervisor::TCG_CACHE,
    machine::{Identity, Observed, Spec},
    machinefile::{Accel, Bytes, CpuSet, Machine, Tuning},
};

/// What one machine keeps from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub identity: Identity,
    pub project: String,
    pub machine: String,
    pub root: PathBuf,
    pub cpus: u32,
    /// Where it holds them, if it says.
    pub pin: Option<CpuSet>,
    /// With what QEMU itself needs.
    pub memory: Bytes,
    /// It runs, so that the host counts its memory as taken; one that is about to start holds it
    /// by its claim alone.
    pub runs: bool,
}

/// What machines on the connection hold now.
pub fn ledger(machines: &[Observed]) -> Vec<Holding> {
    machines
        .iter()
        .filter(|machine| {
            machine.is_up()
                || machine
                    .record
                    .claim
                    .as_ref()
                    .is_some_and(Process::may_be_alive)
        })
        .filter_map(|machine| {
            let record = &machine.record;
            let (cpus, memory) = reserved(&record.spec);
            (cpus > 0 || memory.0 > 0).then(|| Holding {
                identity: machine.identity.clone(),
                project: record.project.clone(),
                machine: record.machine.clone(),
                root: record.root.clone(),
                cpus,
                pin: record.spec.tuning.cpu.pin.clone(),
                memory,
                runs: machine.is_up(),
            })
        })
        .collect()
}

/// CPUs and memory that a machine made from this keeps from others.
pub fn reserved(spec: &Spec) -> (u32, Bytes) {
    reserved_by(&spec.tuning, spec.cpus, spec.memory, spec.accel)
}

/// The same, of one that is not made yet. Until its box is here, nobody knows what it will run on.
pub fn reserved_by_wanted(machine: &Machine, spec: Option<&Spec>) -> (u32, Bytes) {
    let accel = spec.map_or(Accel::Tcg, |spec| spec.accel);
    reserved_by(&machine.tuning, machine.cpus, machine.memory, accel)
}

fn reserved_by(tuning: &Tuning, cpus: u32, memory: Bytes, accel: Accel) -> (u32, Bytes) {
    // Huge pages are set aside by whoever configured them, and counted by the kernel.
    let whole = match (tuning.memory.reserve, tuning.memory.hugepages) {
        (true, None) => memory.0 + overhead(accel).0,
        (true, Some(_)) => overhead(accel).0,
        (false, _) => 0,
    };
    (if tuning.cpu.reserve { cpus } else { 0 }, Bytes(whole))
}

/// What QEMU locks beside the guest's memory: itself, and the code that it translates without KVM.
/// QEMU 7.2 has about 50 MiB resident beside the guest's memory, and 290 MiB when it is locked:
/// every page of its libraries, stacks and heap is then in memory, used or not.
pub fn overhead(accel: Accel) -> Bytes {
    let itself = 320 * Bytes::MIB;
    match accel {
        Accel::Kvm => Bytes(itself),
        Accel::Tcg => Bytes(itself + TCG_CACHE.0),
    }
}
