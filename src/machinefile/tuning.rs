//! What a machine is promised and held to, beside how much of everything it has.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{cpu_set::CpuSet, diagnostics::Place, model::Bytes};

/// Everything of `cpus`, `memory` and `disk` that is no amount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tuning {
    #[serde(skip_serializing_if = "is_default")]
    pub cpu: CpuTuning,
    #[serde(skip_serializing_if = "is_default")]
    pub memory: MemoryTuning,
    #[serde(skip_serializing_if = "is_default")]
    pub disk: DiskTuning,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuTuning {
    /// As many CPUs of the host as the machine has are kept for it.
    #[serde(skip_serializing_if = "is_default")]
    pub reserve: bool,
    /// Host CPUs that it may run on.
    #[serde(skip_serializing_if = "is_default")]
    pub pin: Option<CpuSet>,
    /// Its weight against others, on the scale of cgroup v1's `cpu.shares`.
    #[serde(skip_serializing_if = "is_default")]
    pub shares: Option<u64>,
    /// What the whole machine may use at most, in percent of one host CPU.
    #[serde(skip_serializing_if = "is_default")]
    pub quota: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    pub topology: Option<Topology>,
    /// A CPU model of QEMU's.
    #[serde(skip_serializing_if = "is_default")]
    pub model: Option<String>,
}

/// How the guest sees its CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    pub sockets: u32,
    pub cores: u32,
    pub threads: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryTuning {
    /// Preallocated, and locked so that it cannot be swapped out.
    #[serde(skip_serializing_if = "is_default")]
    pub reserve: bool,
    /// The size of huge pages that it is made of.
    #[serde(skip_serializing_if = "is_default")]
    pub hugepages: Option<Bytes>,
    /// How far it can grow while it runs.
    #[serde(skip_serializing_if = "is_default")]
    pub max: Option<Bytes>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskTuning {
    /// All of it takes its room on the host's disk from the start.
    #[serde(skip_serializing_if = "is_default")]
    pub preallocate: bool,
    /// Requests per second, reads and writes together.
    #[serde(skip_serializing_if = "is_default")]
    pub iops: Option<u64>,
    /// Bytes per second, reads and writes together.
    #[serde(skip_serializing_if = "is_default")]
    pub throughput: Option<Bytes>,
}

/// The usual weight on that scale (kernel, Documentation/scheduler/sched-design-CFS.rst).
pub const DEFAULT_SHARES: u64 = 1024;

impl Tuning {
    /// Whether it takes something away from what others may reserve.
    pub fn reserves(&self) -> bool {
        self.cpu.reserve || self.memory.reserve || self.memory.hugepages.is_some()
    }

    /// The weight that it is to have, if it matters: machines with reserved CPUs share what all of
    /// them have by how many each has.
    pub fn shares(&self, cpus: u32) -> Option<u64> {
        match (self.cpu.shares, self.cpu.reserve) {
            (Some(shares), _) => Some(shares),
            (None, true) => Some(DEFAULT_SHARES * u64::from(cpus)),
            (None, false) => None,
        }
    }
}

/// What is kept for the host itself; what is not said is by the rule (docs/concepts/resources.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostReserve {
    pub cpus: Option<u32>,
    pub memory: Option<Bytes>,
}

/// Where that stands which only a host can judge. It says nothing about the machine, so any two are
/// equal.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<&'static str, Place>);

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Places {
    pub fn insert(&mut self, what: &'static str, place: Place) {
        self.0.insert(what, place);
    }

    pub fn get(&self, what: &str) -> Option<&Place> {
        self.0.get(what)
    }

    pub fn extend(&mut self, other: Places) {
        self.0.extend(other.0);
    }
}

pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
