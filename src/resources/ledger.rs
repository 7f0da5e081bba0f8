//! What machines reserve, from their records in libvirt.

use std::path::PathBuf;

use crate::{
    host::process::Process,
    hypervisor::tcg_cache,
    machine::{Identity, Observed, Spec},
    machinefile::{Accel, Bytes, CpuSet, Machine, Tuning},
};

/// What one machine reserves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub identity: Identity,
    pub project: String,
    pub machine: String,
    pub root: PathBuf,
    pub cpus: u32,
    /// The CPUs that it is pinned to, if it is.
    pub pin: Option<CpuSet>,
    /// Including what QEMU itself needs.
    pub memory: Bytes,
    /// Whether it runs, so that the host counts its memory as used. A machine that is about to start reserves
    /// it only by its claim.
    pub runs: bool,
}

/// Returns what machines on the connection reserve now.
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

/// Returns the CPUs and the memory that a machine of this spec reserves.
pub fn reserved(spec: &Spec) -> (u32, Bytes) {
    reserved_by(&spec.tuning, spec.cpus, spec.memory, spec.accel)
}

/// Returns the same for a machine that does not exist yet. Before its box is in the store, its accelerator is
/// not known, so TCG is assumed, which needs more.
pub fn reserved_by_wanted(machine: &Machine, spec: Option<&Spec>) -> (u32, Bytes) {
    let accel = spec.map_or(Accel::Tcg, |spec| spec.accel);
    reserved_by(&machine.tuning, machine.cpus, machine.memory, accel)
}

fn reserved_by(tuning: &Tuning, cpus: u32, memory: Bytes, accel: Accel) -> (u32, Bytes) {
    // Huge pages are reserved by configuration, and the kernel counts them.
    let whole = match (tuning.memory.reserve, tuning.memory.hugepages) {
        (true, None) => memory.0 + overhead(memory, accel).0,
        (true, Some(_)) => overhead(memory, accel).0,
        (false, _) => 0,
    };
    (if tuning.cpu.reserve { cpus } else { 0 }, Bytes(whole))
}

/// What QEMU has resident besides the guest's memory and translated code, if it is not locked. QEMU 7.2 has about 50 MiB.
pub(super) const QEMU_ITSELF: Bytes = Bytes(64 * Bytes::MIB);

/// Returns what QEMU locks besides the guest's memory: itself and, without KVM, the code that it translates.
/// QEMU 7.2 has 290 MiB when it is locked, because every page of its libraries, stacks and heap is then in memory,
/// used or not.
pub fn overhead(memory: Bytes, accel: Accel) -> Bytes {
    Bytes(320 * Bytes::MIB + translated(memory, true, accel).0)
}

/// Returns what QEMU has of translated code. `is_locked`: its memory is reserved.
pub(super) fn translated(memory: Bytes, is_locked: bool, accel: Accel) -> Bytes {
    match accel {
        Accel::Kvm => Bytes(0),
        Accel::Tcg => tcg_cache(memory, is_locked),
    }
}

/// Returns the most memory of the host that a machine may use in time, reserved or not.
pub fn most_used(machine: &Machine, spec: Option<&Spec>) -> Bytes {
    let (_, reserved) = reserved_by_wanted(machine, spec);
    let tuning = &machine.tuning.memory;
    let accel = spec.map_or(Accel::Tcg, |spec| spec.accel);
    let own = QEMU_ITSELF.0 + translated(machine.memory, tuning.reserve, accel).0;
    let all = match tuning.hugepages {
        // The kernel has set its memory aside already.
        Some(_) => own,
        None => tuning.max.unwrap_or(machine.memory).0 + own,
    };
    reserved.max(Bytes(all))
}
