//! Where a machine's tuning differs from its Machinefile, and which of it can change while it runs.

use std::fmt::Display;

use crate::{
    machine::Spec,
    machinefile::{Bytes, Topology, Tuning},
};

use super::{
    drift::{Change, drift},
    wanted::WantedMachine,
};

/// A balloon takes and gives memory, below the most that the machine was booted with.
pub(super) fn memory_is_live(has: &Spec, want: &Spec) -> bool {
    has.tuning.memory.max.is_some_and(|max| want.memory <= max)
        && has.tuning.memory == want.tuning.memory
}

/// What differs: the Machinefile's word, what is, what is wanted, and what it takes.
pub(super) fn compare(has: &Spec, want: &Spec) -> Vec<(&'static str, String, String, Change)> {
    use Change::{Live, NextBoot, Replace};
    let (cpu, cpu_wanted) = (&has.tuning.cpu, &want.tuning.cpu);
    let (memory, memory_wanted) = (&has.tuning.memory, &want.tuning.memory);
    let (disk, disk_wanted) = (&has.tuning.disk, &want.tuning.disk);
    // A machine's group of processes is chosen when it starts, and weighs with the number of its
    // CPUs.
    let weight = if cpu.reserve == cpu_wanted.reserve && has.cpus == want.cpus {
        Live
    } else {
        NextBoot
    };
    let mut found = vec![
        (
            "cpus reserve",
            yes(cpu.reserve),
            yes(cpu_wanted.reserve),
            NextBoot,
        ),
        ("cpus pin", or(&cpu.pin), or(&cpu_wanted.pin), weight),
        (
            "cpus shares",
            or(&cpu.shares),
            or(&cpu_wanted.shares),
            weight,
        ),
        (
            "cpus quota",
            percent(cpu.quota),
            percent(cpu_wanted.quota),
            weight,
        ),
        (
            "cpus topology",
            topology(cpu.topology),
            topology(cpu_wanted.topology),
            NextBoot,
        ),
        (
            "cpus model",
            or(&cpu.model),
            or(&cpu_wanted.model),
            NextBoot,
        ),
        (
            "memory reserve",
            yes(memory.reserve),
            yes(memory_wanted.reserve),
            NextBoot,
        ),
        (
            "memory hugepages",
            or(&memory.hugepages),
            or(&memory_wanted.hugepages),
            NextBoot,
        ),
        (
            "memory max",
            or(&memory.max),
            or(&memory_wanted.max),
            NextBoot,
        ),
        (
            "disk preallocate",
            yes(disk.preallocate),
            yes(disk_wanted.preallocate),
            Replace,
        ),
        ("disk iops", or(&disk.iops), or(&disk_wanted.iops), Live),
        (
            "disk throughput",
            rate(disk.throughput),
            rate(disk_wanted.throughput),
            Live,
        ),
    ];
    found.retain(|(_, is, wanted, _)| is != wanted);
    found
}

/// `has` with all of the tuning that a boot can change as wanted.
pub(super) fn after_boot(has: &Spec, want: &Spec) -> Tuning {
    let mut tuning = want.tuning.clone();
    tuning.disk.preallocate = has.tuning.disk.preallocate;
    tuning
}

/// `has` with all that can be changed while it runs as wanted.
pub(super) fn after_live(has: &Spec, wanted: &WantedMachine) -> Spec {
    let mut spec = has.clone();
    for change in drift(wanted, has) {
        let Some(want) = wanted
            .spec
            .as_ref()
            .filter(|_| change.takes == Change::Live)
        else {
            continue;
        };
        let (cpu, disk) = (&mut spec.tuning.cpu, &mut spec.tuning.disk);
        match change.what {
            "memory" => spec.memory = want.memory,
            "cpus pin" => cpu.pin = want.tuning.cpu.pin.clone(),
            "cpus shares" => cpu.shares = want.tuning.cpu.shares,
            "cpus quota" => cpu.quota = want.tuning.cpu.quota,
            "disk iops" => disk.iops = want.tuning.disk.iops,
            "disk throughput" => disk.throughput = want.tuning.disk.throughput,
            _ => {}
        }
    }
    spec
}

/// In words, what changes while it runs.
pub(super) fn changes(wanted: &WantedMachine, has: &Spec) -> String {
    let changes: Vec<String> = drift(wanted, has)
        .into_iter()
        .filter(|drift| drift.takes == Change::Live)
        .map(|drift| format!("{} {} → {}", drift.what, drift.is, drift.wanted))
        .collect();
    changes.join(", ")
}

fn or<T: Display>(value: &Option<T>) -> String {
    value
        .as_ref()
        .map_or_else(|| "none".into(), ToString::to_string)
}

fn yes(value: bool) -> String {
    if value { "#true" } else { "#false" }.into()
}

fn percent(value: Option<u32>) -> String {
    value.map_or_else(|| "none".into(), |percent| format!("{percent}%"))
}

fn rate(value: Option<Bytes>) -> String {
    value.map_or_else(|| "none".into(), |rate| format!("{rate}/s"))
}

fn topology(value: Option<Topology>) -> String {
    value.map_or_else(
        || "none".into(),
        |of| format!("{}×{}×{}", of.sockets, of.cores, of.threads),
    )
}
