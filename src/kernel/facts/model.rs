//! The facts about a host's kernel.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::check::{self, InvalidFact};

/// Longest value, in bytes: more than any that a kernel has, except a CPU's flags.
pub(super) const TEXT_LIMIT: usize = 16 << 10;

/// The version of [`Facts`] in a bundle.
pub const FACTS_FORMAT: u32 = 1;

/// A kernel and its settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub format: u32,
    /// `uname -r`, `-v`, `-m`, `-n`.
    pub release: String,
    pub version: String,
    pub machine: String,
    pub host: String,
    /// Whether the script ran as root, who may read more.
    pub root: bool,
    pub os: Os,
    /// /proc/version.
    pub banner: String,
    pub cmdline: String,
    pub cpu: Cpu,
    pub memory_kib: u64,
    /// Loaded modules, each with the modules that use it.
    pub modules: BTreeMap<String, Vec<String>>,
    pub tainted: u64,
    /// The kernel's mitigations of the CPU's vulnerabilities, by vulnerability.
    pub mitigations: BTreeMap<String, String>,
    pub lsm: Vec<String>,
    /// Transparent huge pages: `enabled` and `defrag`, the chosen word of each.
    pub thp: BTreeMap<String, String>,
    /// v1, v2 or hybrid.
    pub cgroup: String,
    pub clocksource: String,
    pub clocksources: Vec<String>,
    /// The scheduler of each disk.
    pub schedulers: BTreeMap<String, String>,
    /// Live patches of the running kernel.
    pub livepatches: Vec<String>,
    /// By path below /proc/sys.
    pub sysctl: BTreeMap<String, String>,
    /// The sysctls that a file of sysctl.d(5) sets.
    pub sysctl_set: BTreeSet<String>,
    pub package: Option<KernelPackage>,
    /// Files of modprobe.d and modules-load.d: `modprobe.d/x.conf` to its text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Modules of the kernel that drive some device or CPU, loaded or not; from the module tree.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hardware: BTreeSet<String>,
    /// Loaded modules that the captured module tree lacks: built on that host, or pinned elsewhere.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub foreign: BTreeSet<String>,
}

/// Fields of os-release(5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Os {
    pub id: String,
    pub version_id: String,
    pub codename: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    pub vendor: String,
    pub model_name: String,
    pub family: String,
    pub model: String,
    pub stepping: String,
    pub microcode: String,
    pub count: u32,
    pub flags: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelPackage {
    pub kind: PackageKind,
    pub name: String,
    pub version: String,
    pub arch: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageKind {
    Dpkg,
    Rpm,
}

/// The files of a kernel that can be copied from its host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    pub images: Vec<OfferedFile>,
    pub configs: Vec<OfferedFile>,
    pub system_maps: Vec<OfferedFile>,
    pub tree: Option<OfferedTree>,
    /// Dangling links below the tree: `./weak-updates/x.ko`.
    pub dangling: Vec<String>,
    pub settings: Vec<OfferedFile>,
    pub tar: bool,
    pub gzip: bool,
    /// Whether sudo works there without a password; only checked if the image needs it.
    pub sudo: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedFile {
    pub readable: bool,
    /// In bytes.
    pub size: u64,
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedTree {
    pub readable: bool,
    pub kib: u64,
    pub files: u64,
    pub path: String,
}

impl Facts {
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(self)
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let facts: Facts = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if facts.format != FACTS_FORMAT {
            return Err(format!(
                "its format is {}, but this version of stead reads {FACTS_FORMAT}",
                facts.format
            ));
        }
        check::facts(&facts)
            .map_err(|InvalidFact { what, value }| format!("{value:?} is not a valid {what}"))?;
        Ok(facts)
    }
}

/// Returns a sysctl's path below /proc/sys. `net.ipv4.conf.eth0/5.mtu` and `net/ipv4/conf/eth0.5/mtu` are the
/// same key (sysctl(8)): the first separator decides.
pub fn sysctl_path(key: &str) -> String {
    match (key.find('.'), key.find('/')) {
        (Some(dot), slash) if slash.is_none_or(|slash| dot < slash) => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_string(),
    }
}

/// Returns a sysctl's name with dots, as people write it.
pub fn sysctl_name(path: &str) -> String {
    path.chars()
        .map(|c| match c {
            '/' => '.',
            '.' => '/',
            other => other,
        })
        .collect()
}
