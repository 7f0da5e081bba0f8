//! Reservations and limits of a machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::ports::HostPort;

use super::{cpu_set::CpuSet, diagnostics::Span, units::Bytes};

/// The settings of `cpus`, `memory` and `disk`, except their amounts.
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
    /// Whether as many CPUs of the host are reserved as the machine has.
    #[serde(skip_serializing_if = "is_default")]
    pub reserve: bool,
    /// The CPUs of the host that it may run on.
    #[serde(skip_serializing_if = "is_default")]
    pub pin: Option<CpuSet>,
    /// Its weight against others, on the scale of cgroup v1's `cpu.shares`.
    #[serde(skip_serializing_if = "is_default")]
    pub shares: Option<u64>,
    /// The most CPU time of the whole machine, in percent of one CPU of the host.
    #[serde(skip_serializing_if = "is_default")]
    pub quota: Option<u32>,
    #[serde(skip_serializing_if = "is_default")]
    pub topology: Option<Topology>,
    /// A CPU model of QEMU.
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
    /// Whether it is preallocated, and locked so that it cannot be swapped out.
    #[serde(skip_serializing_if = "is_default")]
    pub reserve: bool,
    /// The size of its huge pages.
    #[serde(skip_serializing_if = "is_default")]
    pub hugepages: Option<Bytes>,
    /// How much it can grow to while the machine runs.
    #[serde(skip_serializing_if = "is_default")]
    pub max: Option<Bytes>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskTuning {
    /// Whether all its space on the host's disk is allocated from the start.
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
    /// Whether it reduces what others can reserve.
    pub fn reserves(&self) -> bool {
        self.cpu.reserve || self.memory.reserve || self.memory.hugepages.is_some()
    }

    /// Returns its weight, if it needs one. Machines with reserved CPUs divide the CPU time among them by their numbers
    /// of CPUs.
    pub fn shares(&self, cpus: u32) -> Option<u64> {
        match (self.cpu.shares, self.cpu.reserve) {
            (Some(shares), _) => Some(shares),
            (None, true) => Some(DEFAULT_SHARES * u64::from(cpus)),
            (None, false) => None,
        }
    }
}

/// What is reserved for the host itself. `None`: by the rule (docs/concepts/resources.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostReserve {
    pub cpus: Option<u32>,
    pub memory: Option<Bytes>,
}

/// The spans of settings that only a host can check. They do not change the machine, so any two are equal.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    settings: BTreeMap<&'static str, Span>,
    /// Those of forwards, by the ports of the host.
    ports: BTreeMap<HostPort, Span>,
    /// Those of `bridge=`, by the names of networks.
    bridges: BTreeMap<String, Span>,
}

impl PartialEq for Spans {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Spans {
    pub fn insert(&mut self, what: &'static str, span: Span) {
        self.settings.insert(what, span);
    }

    pub fn get(&self, what: &str) -> Option<&Span> {
        self.settings.get(what)
    }

    pub fn extend(&mut self, other: Spans) {
        self.settings.extend(other.settings);
        self.ports.extend(other.ports);
        self.bridges.extend(other.bridges);
    }

    pub fn insert_port(&mut self, port: HostPort, span: Span) {
        self.ports.insert(port, span);
    }

    pub fn port(&self, port: HostPort) -> Option<&Span> {
        self.ports.get(&port)
    }

    pub fn insert_bridge(&mut self, network: &str, span: Span) {
        self.bridges.insert(network.to_string(), span);
    }

    pub fn bridge(&self, network: &str) -> Option<&Span> {
        self.bridges.get(network)
    }
}

pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
