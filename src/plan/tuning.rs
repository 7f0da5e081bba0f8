//! Where a machine's tuning differs from its Machinefile, and which of it can change while it runs.

use std::fmt::Display;

use crate::{
    machine::Spec,
    machinefile::{Bytes, Topology, Tuning},
};

use super::{
    drift::{Takes, differences},
    wanted::WantedMachine,
};

/// Whether memory can change while the machine runs: a balloon takes and gives it, up to the maximum of the last boot.
pub(super) fn memory_is_live(has: &Spec, want: &Spec) -> bool {
    has.tuning.memory.max.is_some_and(|max| want.memory <= max)
        && has.tuning.memory == want.tuning.memory
}

/// A setting that can change while a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LiveSetting {
    Memory,
    CpuPin,
    CpuShares,
    CpuQuota,
    DiskIops,
    DiskThroughput,
    /// `internet`, `egress` and `host-access`, where what leaves the machine passes a network.
    Egress,
    /// The ports that the project's network opens.
    Forwards,
}

impl LiveSetting {
    /// Sets it in `spec` as it is in `want`.
    fn set(self, spec: &mut Spec, want: &Spec) {
        let (tuning, wanted) = (&mut spec.tuning, &want.tuning);
        match self {
            LiveSetting::Memory => spec.memory = want.memory,
            LiveSetting::CpuPin => tuning.cpu.pin.clone_from(&wanted.cpu.pin),
            LiveSetting::CpuShares => tuning.cpu.shares = wanted.cpu.shares,
            LiveSetting::CpuQuota => tuning.cpu.quota = wanted.cpu.quota,
            LiveSetting::DiskIops => tuning.disk.iops = wanted.disk.iops,
            LiveSetting::DiskThroughput => tuning.disk.throughput = wanted.disk.throughput,
            LiveSetting::Forwards => spec.forwards.clone_from(&want.forwards),
            LiveSetting::Egress => {
                spec.internet = want.internet;
                spec.egress.clone_from(&want.egress);
            }
        }
    }
}

/// Returns the differences in tuning: the Machinefile's name, what is, what is wanted, and what the change takes.
pub(super) fn compare(has: &Spec, want: &Spec) -> Vec<(&'static str, String, String, Takes)> {
    use Takes::{Live, NextBoot, Replace};
    let (cpu, cpu_wanted) = (&has.tuning.cpu, &want.tuning.cpu);
    let (memory, memory_wanted) = (&has.tuning.memory, &want.tuning.memory);
    let (disk, disk_wanted) = (&has.tuning.disk, &want.tuning.disk);
    // libvirt picks the control group at start, and its weight follows the number of CPUs, so these change live
    // only if both stay the same.
    let same_group = cpu.reserve == cpu_wanted.reserve && has.cpus == want.cpus;
    let in_group = |setting| match same_group {
        true => Live(setting),
        false => NextBoot,
    };
    let mut found = vec![
        (
            "cpus reserve",
            yes(cpu.reserve),
            yes(cpu_wanted.reserve),
            NextBoot,
        ),
        (
            "cpus pin",
            or(&cpu.pin),
            or(&cpu_wanted.pin),
            in_group(LiveSetting::CpuPin),
        ),
        (
            "cpus shares",
            or(&cpu.shares),
            or(&cpu_wanted.shares),
            in_group(LiveSetting::CpuShares),
        ),
        (
            "cpus quota",
            percent(cpu.quota),
            percent(cpu_wanted.quota),
            in_group(LiveSetting::CpuQuota),
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
        (
            "disk iops",
            or(&disk.iops),
            or(&disk_wanted.iops),
            Live(LiveSetting::DiskIops),
        ),
        (
            "disk throughput",
            rate(disk.throughput),
            rate(disk_wanted.throughput),
            Live(LiveSetting::DiskThroughput),
        ),
    ];
    found.retain(|(_, is, wanted, _)| is != wanted);
    found
}

/// Returns the tuning after the next boot: as wanted, except `preallocate`.
pub(super) fn after_boot(has: &Spec, want: &Spec) -> Tuning {
    let mut tuning = want.tuning.clone();
    tuning.disk.preallocate = has.tuning.disk.preallocate;
    tuning
}

/// Returns `has`, with everything that can change while it runs as wanted.
pub(super) fn after_live(has: &Spec, wanted: &WantedMachine) -> Spec {
    let mut spec = has.clone();
    if let Some(want) = &wanted.spec {
        for difference in differences(wanted, has) {
            if let Takes::Live(setting) = difference.takes {
                setting.set(&mut spec, want);
            }
        }
    }
    spec
}

/// Describes what changes while it runs.
pub(super) fn changes(wanted: &WantedMachine, has: &Spec) -> String {
    let changes: Vec<String> = differences(wanted, has)
        .into_iter()
        .filter(|it| matches!(it.takes, Takes::Live(_)))
        .map(|it| format!("{} {} → {}", it.what, it.is, it.wanted))
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

#[cfg(test)]
mod tests {
    use crate::{
        machine::{Phase, Power},
        machinefile::Bytes,
        plan::{
            Change, Step,
            tests::{existing, wanted},
            up,
        },
    };

    #[test]
    fn what_can_change_while_it_runs_does() {
        let mut machine = wanted("web", &[]);
        let mut running = existing("web", Phase::Created, Power::Running, true);
        if let Some(observed) = &mut running.observed {
            observed.record.spec.tuning.memory.max = Some(Bytes(4 * Bytes::GIB));
        }
        if let Some(spec) = &mut machine.spec {
            spec.memory = Bytes(2 * Bytes::GIB);
            spec.tuning.memory.max = Some(Bytes(4 * Bytes::GIB));
            spec.tuning.cpu.shares = Some(512);
            spec.tuning.cpu.pin = Some("0-1".parse().unwrap());
            spec.tuning.disk.iops = Some(100);
            // These wait.
            spec.tuning.memory.reserve = false;
            spec.tuning.cpu.model = Some("Skylake-Client".into());
            spec.tuning.disk.preallocate = true;
        }
        let pairs = [(machine, running)];
        let plan = up(&pairs);
        let Step::Tune { spec, changes } = &plan.machines[0].steps[0] else {
            panic!("{:?}", plan.machines[0].steps);
        };
        assert_eq!(
            changes,
            "memory 1GiB → 2GiB, cpus pin none → 0-1, cpus shares none → 512, disk iops none → 100"
        );
        assert_eq!(spec.memory, Bytes(2 * Bytes::GIB));
        assert_eq!(spec.tuning.disk.iops, Some(100));
        assert!(!spec.tuning.disk.preallocate && spec.tuning.cpu.model.is_none());
        let left: Vec<_> = plan.machines[0]
            .drift
            .iter()
            .map(|drift| (drift.what, drift.takes))
            .collect();
        assert_eq!(
            left,
            [
                ("cpus model", Change::NextBoot),
                ("disk preallocate", Change::Replace)
            ]
        );
        // One that is off takes it all from its definition.
        let (machine, _) = &pairs[0];
        let off = existing("web", Phase::Created, Power::Off, false);
        let plan = up(&[(machine.clone(), off)]);
        assert!(
            !plan.machines[0]
                .steps
                .iter()
                .any(|step| matches!(step, Step::Tune { .. }))
        );
        assert_eq!(plan.machines[0].drift.len(), 1);
    }

    #[test]
    fn memory_grows_no_further_than_it_was_booted_for() {
        let mut machine = wanted("web", &[]);
        let running = existing("web", Phase::Created, Power::Running, true);
        if let Some(spec) = &mut machine.spec {
            spec.memory = Bytes(2 * Bytes::GIB);
            spec.tuning.memory.max = Some(Bytes(4 * Bytes::GIB));
        }
        let plan = up(&[(machine, running)]);
        assert!(plan.machines[0].drift.len() == 2, "{:?}", plan.machines[0]);
        assert!(
            plan.machines[0]
                .drift
                .iter()
                .all(|drift| drift.takes == Change::NextBoot)
        );
    }
}
