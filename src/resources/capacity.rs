//! CPUs and memory that a process like this one may use.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::machinefile::{Bytes, CpuSet};

use super::cgroup::{Hierarchy, folders, hierarchies, hierarchy_of, path_in};

/// The part of the host that this process, and others started like it, may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// CPUs that it may run on: cpuset and affinity.
    pub cpus: CpuSet,
    /// CPU time as a number of CPUs, if a control group has a quota.
    pub quota: Option<f64>,
    /// The host's memory, or a control group's limit.
    pub memory: Bytes,
    /// Memory that can be used without swapping.
    pub available: Bytes,
}

impl Capacity {
    pub fn observe() -> io::Result<Self> {
        Self::observe_at(Path::new("/"))
    }

    /// As [`Self::observe`], but reads below `root` in place of `/`.
    fn observe_at(root: &Path) -> io::Result<Self> {
        let read = |path: &str| {
            fs::read_to_string(root.join(path))
                .map_err(|error| io::Error::new(error.kind(), format!("/{path}: {error}")))
        };
        let invalid = |path: &str, what: &str| {
            io::Error::new(io::ErrorKind::InvalidData, format!("/{path} has no {what}"))
        };
        let status = read("proc/self/status")?;
        let cpus = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
            .and_then(|list| list.trim().parse().ok())
            .ok_or_else(|| invalid("proc/self/status", "list of allowed CPUs"))?;
        let meminfo = read("proc/meminfo")?;
        let field = |name: &str| {
            kibibytes(&meminfo, name)
                .ok_or_else(|| invalid("proc/meminfo", name.trim_end_matches(':')))
        };
        let mut host = Capacity {
            cpus,
            quota: None,
            memory: field("MemTotal:")?,
            available: field("MemAvailable:")?,
        };
        // Without control groups there are no such limits.
        let mounts = read("proc/self/mounts").unwrap_or_default();
        let own = read("proc/self/cgroup").unwrap_or_default();
        let mut all = hierarchies(&mounts);
        for hierarchy in &mut all {
            let inside = hierarchy.folder.strip_prefix("/").map(PathBuf::from);
            hierarchy.folder = root.join(inside.unwrap_or_default());
        }
        host.limit_cpus(&all, &own);
        host.limit_memory(&all, &own);
        Ok(host)
    }

    fn limit_cpus(&mut self, all: &[Hierarchy], own: &str) {
        for folder in groups(all, own, "cpu") {
            let quota = match number_pair(&folder.join("cpu.max")) {
                Some(pair) => Some(pair),
                None => number(&folder.join("cpu.cfs_quota_us"))
                    .zip(number(&folder.join("cpu.cfs_period_us"))),
            };
            if let Some((quota, period)) = quota
                && period > 0
            {
                let cpus = quota as f64 / period as f64;
                self.quota = Some(self.quota.map_or(cpus, |least| least.min(cpus)));
            }
        }
    }

    fn limit_memory(&mut self, all: &[Hierarchy], own: &str) {
        for folder in groups(all, own, "memory") {
            let first = |names: [&str; 2]| names.iter().find_map(|name| number(&folder.join(name)));
            let Some(limit) = first(["memory.max", "memory.limit_in_bytes"]) else {
                continue;
            };
            // Version 1 writes "no limit" as a number beyond any host's memory.
            if limit >= self.memory.0 {
                continue;
            }
            self.memory = Bytes(limit);
            let usage = first(["memory.current", "memory.usage_in_bytes"]).unwrap_or(0);
            // Inactive file pages, which the kernel reclaims first.
            let cache = fs::read_to_string(folder.join("memory.stat"))
                .ok()
                .and_then(|stat| {
                    let of = |name: &str| {
                        stat.lines()
                            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
                    };
                    of("total_inactive_file ").or_else(|| of("inactive_file "))
                })
                .unwrap_or(0);
            let left = limit.saturating_sub(usage.saturating_sub(cache));
            self.available = Bytes(self.available.0.min(left));
        }
    }

    /// Returns how many whole CPUs can be reserved.
    pub fn whole_cpus(&self) -> u32 {
        let allowed = u32::try_from(self.cpus.len()).unwrap_or(u32::MAX);
        match self.quota {
            // Rounds down. A quota is never negative.
            Some(quota) => allowed.min(quota as u32),
            None => allowed,
        }
    }
}

fn groups(all: &[Hierarchy], own: &str, controller: &str) -> Vec<PathBuf> {
    hierarchy_of(all, controller)
        .and_then(|hierarchy| {
            let path = path_in(own, hierarchy, controller)?;
            Some(folders(hierarchy, &path))
        })
        .unwrap_or_default()
}

fn kibibytes(meminfo: &str, name: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(Bytes(number * 1024))
}

/// `None` also for "max" and for -1, which mean no limit.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// cpu.max: quota and period.
fn number_pair(file: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(file).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    Some((quota.parse().ok()?, period.parse().ok()?))
}

/// Returns every online CPU of the host, whoever may use it.
pub fn online_cpus() -> CpuSet {
    fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|list| list.trim().parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> Capacity {
        let root = tempfile::tempdir().unwrap();
        let plain = [
            ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-7\n"),
            (
                "proc/meminfo",
                "MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n",
            ),
        ];
        for (path, text) in plain.iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Capacity::observe_at(root.path()).unwrap()
    }

    #[test]
    fn a_host_without_limits() {
        let host = host(&[]);
        assert_eq!(host.whole_cpus(), 8);
        assert_eq!(host.memory, Bytes(16 * Bytes::GIB));
        assert_eq!(host.available, Bytes(8 * Bytes::GIB));
    }

    #[test]
    fn limits_of_version_1_hold_on_every_level() {
        let host = host(&[
            (
                "proc/self/mounts",
                "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
            ),
            ("proc/self/cgroup", "2:cpu:/a/b\n1:memory:/a\n"),
            ("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "250000\n"),
            ("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            (
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "4294967296\n",
            ),
            (
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes",
                "2147483648\n",
            ),
            (
                "sys/fs/cgroup/memory/a/memory.stat",
                "cache 5\ninactive_file 1\ntotal_inactive_file 1073741824\n",
            ),
        ]);
        assert_eq!(host.whole_cpus(), 2);
        assert_eq!(host.memory, Bytes(4 * Bytes::GIB));
        assert_eq!(host.available, Bytes(3 * Bytes::GIB));
    }

    #[test]
    fn limits_of_version_2() {
        let host = host(&[
            (
                "proc/self/mounts",
                "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
            ),
            ("proc/self/cgroup", "0::/user.slice/x\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
            ("sys/fs/cgroup/user.slice/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/user.slice/x/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/user.slice/memory.current", "1073741824\n"),
            ("sys/fs/cgroup/user.slice/x/memory.max", "max\n"),
        ]);
        assert_eq!(host.whole_cpus(), 1);
        assert_eq!(host.memory, Bytes(2 * Bytes::GIB));
        assert_eq!(host.available, Bytes(Bytes::GIB));
    }
}
