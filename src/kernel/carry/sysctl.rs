//! Which sysctls of a captured host a machine gets.

use super::{
    super::facts::{Facts, sysctl_name},
    setting::{
        CLAMPED, Carried, CarriedSetting, Decision, Guest, HUGE_SHARE, OF_HARDWARE, Subject, fits,
    },
};

/// What kind of value a sysctl is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SysctlKind {
    /// A setting like any other.
    Plain,
    /// The kernel derives it from memory and CPUs, unless somebody sets it.
    Sized,
    /// Not a setting, so there is nothing to compare.
    State,
    /// Not for a machine, with the reason.
    Dropped(&'static str),
}

const COUNTS: &str = "is a counter or a name of that host, not a setting";
const OF_INTERFACE: &str = "belongs to a network interface of that host";
pub(super) const SIZED: &str = "the kernel derives it from memory and CPUs";

/// Counters, names of a host, read-only values, and files that trigger an action.
const STATE: [&str; 39] = [
    "kernel/hostname",
    "kernel/domainname",
    "kernel/osrelease",
    "kernel/ostype",
    "kernel/version",
    "kernel/arch",
    "kernel/tainted",
    "kernel/random/*",
    "kernel/ns_last_pid",
    "kernel/cad_pid",
    "kernel/pty/nr",
    "kernel/msg_next_id",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
    "kernel/bootloader_*",
    "kernel/real-root-dev",
    "kernel/cap_last_cap",
    "kernel/usermodehelper/*",
    "kernel/acct",
    "kernel/perf_event_max_sample_rate",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/aio-nr",
    "fs/quota/*",
    "vm/drop_caches",
    "vm/compact_memory",
    "vm/stat_refresh",
    "net/ipv4/route/flush",
    "net/ipv6/route/flush",
    "net/core/netdev_rss_key",
    "net/netfilter/nf_conntrack_count",
    "net/ipv4/tcp_available_congestion_control",
    "net/ipv4/tcp_available_ulp",
    "net/ipv6/conf/all/stable_secret",
    "net/ipv6/conf/default/stable_secret",
    "net/ipv4/tcp_fastopen_key",
    "net/ipv4/tcp_child_ehash_entries",
];

const BY_SIZE: [&str; 34] = [
    "kernel/threads-max",
    "kernel/pid_max",
    "kernel/sched_latency_ns",
    "kernel/sched_min_granularity_ns",
    "kernel/sched_wakeup_granularity_ns",
    "kernel/sched_base_slice_ns",
    "kernel/msgmni",
    "fs/file-max",
    "fs/epoll/max_user_watches",
    "fs/inotify/max_user_watches",
    "fs/fanotify/max_user_marks",
    "user/max_*",
    "vm/min_free_kbytes",
    "vm/user_reserve_kbytes",
    "vm/admin_reserve_kbytes",
    "vm/percpu_pagelist_*",
    "net/core/bpf_jit_limit",
    "net/ipv4/tcp_mem",
    "net/ipv4/udp_mem",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_max_orphans",
    "net/ipv4/tcp_max_tw_buckets",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_ehash_entries",
    "net/ipv4/udp_hash_entries",
    "net/ipv4/inet_peer_threshold",
    "net/ipv4/route/gc_thresh",
    "net/ipv4/route/max_size",
    "net/ipv4/xfrm4_gc_thresh",
    "net/ipv6/xfrm6_gc_thresh",
    "net/sctp/sctp_*mem",
    "net/netfilter/nf_conntrack_*",
    "net/nf_conntrack_max",
];

const BY_HARDWARE: [&str; 12] = [
    "dev/*",
    "kernel/sched_domain/*",
    "kernel/sched_itmt_enabled",
    "kernel/sched_energy_aware",
    "kernel/watchdog",
    "kernel/nmi_watchdog",
    "kernel/watchdog_cpumask",
    "kernel/numa_balancing",
    "kernel/split_lock_mitigate",
    "kernel/ibt*",
    "net/core/flow_limit_cpu_bitmap",
    "net/core/rps_default_mask",
];

/// The other nf_conntrack_*, time-outs and switches, are plain settings.
const CONNTRACK_BY_SIZE: [&str; 3] = [
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_buckets",
    "net/netfilter/nf_conntrack_expect_max",
];

fn kind(path: &str, value: &str) -> SysctlKind {
    let any = |rules: &[&str]| rules.iter().any(|rule| fits(rule, path));
    if any(&STATE) {
        return SysctlKind::State;
    }
    if path.starts_with("net/netfilter/nf_conntrack_") {
        return if CONNTRACK_BY_SIZE.contains(&path) {
            SysctlKind::Sized
        } else {
            SysctlKind::Plain
        };
    }
    if any(&BY_SIZE) {
        return SysctlKind::Sized;
    }
    if path == "dev/tty/ldisc_autoload" {
        return SysctlKind::Plain;
    }
    if any(&BY_HARDWARE) {
        return SysctlKind::Dropped(OF_HARDWARE);
    }
    if interface(path).is_some_and(|name| !["all", "default", "lo"].contains(&name)) {
        return SysctlKind::Dropped(OF_INTERFACE);
    }
    match path {
        "kernel/modules_disabled" => {
            return SysctlKind::Dropped("would keep the machine from loading its own drivers");
        }
        "kernel/core_pattern" if value.starts_with('|') => {
            return SysctlKind::Dropped("names a program of that host");
        }
        "kernel/modprobe" | "kernel/hotplug" | "kernel/poweroff_cmd" => {
            return SysctlKind::Dropped("names a program of that host");
        }
        _ => {}
    }
    SysctlKind::Plain
}

/// Returns the network interface of a path such as `net/FAMILY/conf/INTERFACE/…`.
fn interface(path: &str) -> Option<&str> {
    let mut parts = path.split('/');
    if parts.next() != Some("net") {
        return None;
    }
    parts.next()?;
    matches!(parts.next()?, "conf" | "neigh").then(|| parts.next())?
}

/// Written first, because they change others too.
const FIRST: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// Of each pair only one applies, and writing 0 to the other would clear it.
const ZERO_IS_OTHER: [&str; 5] = [
    "vm/dirty_bytes",
    "vm/dirty_ratio",
    "vm/dirty_background_bytes",
    "vm/dirty_background_ratio",
    "vm/overcommit_kbytes",
];

/// Decides on the host's sysctls.
pub(super) fn sysctls(facts: &Facts, guest: Option<Guest>, carried: &mut Carried) {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (path, value) in &facts.sysctl {
        let set = facts.sysctl_set.contains(path);
        let mut row = CarriedSetting {
            subject: Subject::Sysctl,
            name: sysctl_name(path),
            there: value.clone(),
            here: None,
            verdict: Decision::Kept,
            why: "",
            set,
        };
        let here = match kind(path, value) {
            SysctlKind::State => {
                (row.verdict, row.why) = (Decision::Dropped, COUNTS);
                row.set = false;
                None
            }
            SysctlKind::Dropped(why) => {
                (row.verdict, row.why) = (Decision::Dropped, why);
                None
            }
            SysctlKind::Sized if !set => {
                (row.verdict, row.why) = (Decision::Dropped, SIZED);
                None
            }
            SysctlKind::Sized | SysctlKind::Plain => Some(value.clone()),
        };
        let here = match (here, path.as_str(), guest) {
            (Some(value), "vm/nr_hugepages" | "vm/nr_hugepages_mempolicy", guest)
                if value != "0" =>
            {
                let fitting = guest.and_then(|guest| {
                    let asked: u64 = value.parse().ok()?;
                    Some(asked.min(guest.memory / HUGE_SHARE / (2 << 20)).to_string())
                });
                if fitting.as_deref() != Some(value.as_str()) {
                    (row.verdict, row.why) = (Decision::Changed, CLAMPED);
                }
                fitting
            }
            // The same share of memory as on the host, or the guest would never have free memory.
            (Some(value), "vm/min_free_kbytes", Some(guest)) => {
                let asked: u64 = value.parse().unwrap_or(0);
                let here_kib = guest.memory / 1024;
                if facts.memory_kib > here_kib && asked > here_kib / 64 {
                    let part = u128::from(asked) * u128::from(here_kib)
                        / u128::from(facts.memory_kib.max(1));
                    (row.verdict, row.why) =
                        (Decision::Changed, "scaled to the same share of memory");
                    Some(part.to_string())
                } else {
                    Some(value)
                }
            }
            (here, _, _) => here,
        };
        row.here.clone_from(&here);
        if let Some(value) = here
            && !value.is_empty()
            && !value.contains('\n')
            && !(value == "0" && ZERO_IS_OTHER.contains(&path.as_str()))
        {
            kept.push((path.clone(), value));
        }
        carried.rows.push(row);
    }
    kept.sort_by_key(|(path, _)| !FIRST.contains(&path.as_str()));
    carried.sysctl = kept;
}

/// Returns why a sysctl may differ, or exist only in the guest, without meaning anything; `None` if the
/// difference matters.
pub fn sysctl_difference(path: &str, value: &str) -> Option<&'static str> {
    match kind(path, value) {
        SysctlKind::Plain => None,
        SysctlKind::Sized => Some(SIZED),
        SysctlKind::State => Some(COUNTS),
        SysctlKind::Dropped(why) => Some(why),
    }
}

/// Whether a sysctl is not a setting, so that comparing it is of no use.
pub fn is_state(path: &str) -> bool {
    kind(path, "") == SysctlKind::State
}
