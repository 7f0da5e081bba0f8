//! Decides which settings of a captured host a machine gets: its command line, sysctls and modules. Rules
//! keep, change or drop each one, and give a reason for a change and a drop. Pure.
//!
//! All except the command line reaches the guest in /run, which stead's init fills before the root's own init
//! starts (provisioners/init). systemd's sysctl.d(5), modules-load.d(5), tmpfiles.d(5) and kmod's
//! modprobe.d(5) read it there, after the box's own files. So the settings apply at every boot from the first
//! on, have no limit of length, write nothing to the machine's disk, and are gone once the machine boots
//! another kernel.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::facts::{Facts, sysctl_name};

/// The properties of a machine that settings depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    pub cpus: u32,
    /// In bytes.
    pub memory: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    Cmdline,
    Sysctl,
    Module,
    Kernel,
}

impl Subject {
    pub fn word(self) -> &'static str {
        match self {
            Subject::Cmdline => "cmdline",
            Subject::Sysctl => "sysctl",
            Subject::Module => "module",
            Subject::Kernel => "kernel",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Kept,
    Changed,
    Dropped,
}

impl Decision {
    pub fn word(self) -> &'static str {
        match self {
            Decision::Kept => "kept",
            Decision::Changed => "changed",
            Decision::Dropped => "dropped",
        }
    }
}

/// The decision on one setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CarriedSetting {
    pub subject: Subject,
    /// An option's, a sysctl's or a module's name.
    pub name: String,
    pub there: String,
    /// `None` if it is dropped, or depends on a machine that is not known yet.
    pub here: Option<String>,
    pub verdict: Decision,
    pub why: &'static str,
    /// Whether somebody set it on the host, as far as is known. False for the kernel's own choice.
    pub set: bool,
}

/// The settings that a machine gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Carried {
    pub cmdline: String,
    /// By path below /proc/sys, in the order in which they must be written.
    pub sysctl: Vec<(String, String)>,
    pub modules: Vec<String>,
    pub rows: Vec<CarriedSetting>,
    /// By path below /run.
    pub files: Vec<(String, String)>,
}

/// Applies the rules. Without a guest, settings that depend on its size stay open.
pub fn carry(facts: &Facts, guest: Option<Guest>) -> Carried {
    let mut carried = Carried::default();
    cmdline(facts, guest, &mut carried);
    sysctls(facts, guest, &mut carried);
    modules(facts, &mut carried);
    for patch in &facts.livepatches {
        carried.rows.push(CarriedSetting {
            subject: Subject::Kernel,
            name: "livepatch".into(),
            there: patch.clone(),
            here: None,
            verdict: Decision::Dropped,
            why: "a live patch: the host did not run the kernel of its image",
            set: true,
        });
    }
    carried.files = files(facts, &carried);
    carried
}

impl Carried {
    /// Returns why a difference in `name` is expected; `None` if it is not.
    pub fn announced(&self, subject: Subject, name: &str) -> Option<&'static str> {
        self.rows
            .iter()
            .find(|row| row.subject == subject && row.name == name)
            .filter(|row| row.verdict != Decision::Kept)
            .map(|row| row.why)
    }
}

// --- the command line ---

/// Splits a command line into options as the kernel does: quotes may enclose a value or a whole option.
pub fn options(cmdline: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in cmdline.trim().chars() {
        if c == '"' {
            quoted = !quoted;
        }
        if c.is_ascii_whitespace() && !quoted {
            if !word.is_empty() {
                all.push(std::mem::take(&mut word));
            }
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        all.push(word);
    }
    all
}

/// Returns the name of an option. To the kernel, `-` and `_` in it are the same.
pub fn option_name(option: &str) -> String {
    option
        .trim_matches('"')
        .split('=')
        .next()
        .unwrap_or_default()
        .replace('-', "_")
}

const BY_STEAD: &str = "stead loads the kernel and finds the root itself";
const OF_DISKS: &str = "names disks of that host";
const OF_CONSOLES: &str = "names consoles of that host; stead adds its own";
const OF_NETWORK: &str = "sets up that host's network; the box has its own";
const OF_HARDWARE: &str = "is for that host's hardware";
const OF_INSTALLERS: &str = "is for installers and seeds of that host";
const IDENTITY: &str = "is that host's identity";
const CLAMPED: &str = "reduced to the machine's CPUs and memory";

/// Options that are dropped, by name; a star at the end matches all names that begin so. The first match
/// counts.
const DROPPED: [(&str, &str); 56] = [
    ("BOOT_IMAGE", BY_STEAD),
    ("initrd", BY_STEAD),
    ("init", BY_STEAD),
    ("rdinit", BY_STEAD),
    ("boot", OF_DISKS),
    ("ro", BY_STEAD),
    ("rw", BY_STEAD),
    ("root*", OF_DISKS),
    ("rd.*", BY_STEAD),
    ("rd_*", BY_STEAD),
    ("resume*", OF_DISKS),
    ("noresume", OF_DISKS),
    ("cryptdevice", OF_DISKS),
    ("cryptroot", OF_DISKS),
    ("luks*", OF_DISKS),
    ("usrhash", OF_DISKS),
    ("mount.usr*", OF_DISKS),
    ("systemd.verity*", OF_DISKS),
    ("systemd.volatile", OF_DISKS),
    ("systemd.gpt_auto", OF_DISKS),
    ("systemd.swap", OF_DISKS),
    ("zfs*", OF_DISKS),
    ("ostree", OF_DISKS),
    ("crashkernel", "reserves memory for that host's crash dumps"),
    ("console", OF_CONSOLES),
    ("earlycon", OF_CONSOLES),
    ("earlyprintk", OF_CONSOLES),
    ("netconsole", OF_CONSOLES),
    ("fbcon", OF_CONSOLES),
    ("vga", OF_CONSOLES),
    ("video", OF_CONSOLES),
    ("ip", OF_NETWORK),
    ("BOOTIF", OF_NETWORK),
    ("nameserver", OF_NETWORK),
    ("ifname", OF_NETWORK),
    ("bond", OF_NETWORK),
    ("bridge", OF_NETWORK),
    ("team", OF_NETWORK),
    ("vlan", OF_NETWORK),
    ("nfs*", OF_NETWORK),
    ("netroot", OF_NETWORK),
    ("iscsi*", OF_NETWORK),
    ("net.ifnames", OF_NETWORK),
    ("biosdevname", OF_NETWORK),
    ("systemd.machine_id", IDENTITY),
    ("systemd.hostname", IDENTITY),
    ("ds", OF_INSTALLERS),
    ("cloud_init", OF_INSTALLERS),
    ("network_config", OF_INSTALLERS),
    ("inst.*", OF_INSTALLERS),
    ("ks", OF_INSTALLERS),
    ("preseed*", OF_INSTALLERS),
    ("memmap", OF_HARDWARE),
    ("pci", OF_HARDWARE),
    ("acpi*", OF_HARDWARE),
    ("efi", OF_HARDWARE),
];

/// Options whose value is a list of CPUs, maybe after flags.
const CPU_LISTS: [&str; 5] = [
    "isolcpus",
    "nohz_full",
    "rcu_nocbs",
    "irqaffinity",
    "kthread_cpus",
];
/// Options whose value is a number of CPUs.
const CPU_COUNTS: [&str; 2] = ["maxcpus", "nr_cpus"];
/// Options whose value is an amount of memory.
const MEMORY: [&str; 3] = ["mem", "cma", "hugetlb_cma"];

/// At most the machine's memory divided by this becomes huge pages.
const HUGE_SHARE: u64 = 2;

fn cmdline(facts: &Facts, guest: Option<Guest>, carried: &mut Carried) {
    let mut kept = Vec::new();
    // Size in bytes of the pages that the next `hugepages=` counts.
    let mut page = 2 << 20;
    let mut huge_left = guest.map(|guest| guest.memory / HUGE_SHARE);
    let mut for_init = false;
    for option in options(&facts.cmdline) {
        let name = option_name(&option);
        let value = option.split_once('=').map_or("", |(_, value)| value);
        let (verdict, here, why) = if for_init || option == "--" {
            for_init = true;
            (Decision::Dropped, None, "is for that host's init")
        } else if let Some((_, why)) = DROPPED.iter().find(|(rule, _)| fits(rule, &name)) {
            (Decision::Dropped, None, *why)
        } else if names_a_disk(value) {
            (Decision::Dropped, None, OF_DISKS)
        } else if CPU_LISTS.contains(&name.as_str()) {
            sized(guest, &option, |guest| clamp_list(value, guest.cpus))
        } else if CPU_COUNTS.contains(&name.as_str()) {
            sized(guest, &option, |guest| {
                let count: u32 = value.parse().ok()?;
                (count < guest.cpus).then(|| value.to_string())
            })
        } else if name == "hugepages" {
            sized(guest, &option, |_| {
                let asked: u64 = value.parse().ok()?;
                let left = huge_left.as_mut()?;
                let count = asked.min(*left / page);
                *left -= count * page;
                (count > 0).then(|| count.to_string())
            })
        } else if MEMORY.contains(&name.as_str()) {
            sized(guest, &option, |guest| {
                let asked = amount(value)?;
                let limit = if name == "mem" {
                    guest.memory
                } else {
                    guest.memory / HUGE_SHARE
                };
                (asked < limit).then(|| value.to_string())
            })
        } else {
            if (name == "hugepagesz" || name == "default_hugepagesz")
                && let Some(size) = amount(value).filter(|size| *size > 0)
            {
                page = size;
            }
            (Decision::Kept, Some(option.clone()), "")
        };
        kept.extend(here.clone());
        carried.rows.push(CarriedSetting {
            subject: Subject::Cmdline,
            name,
            there: option,
            here,
            verdict,
            why,
            set: true,
        });
    }
    let has = |name: &str| (carried.rows.iter()).any(|row| row.name == name);
    if !facts.clocksource.is_empty() && !has("clocksource") {
        // The kernel chooses the best clock source; a machine may have a better one than the host.
        let option = format!("clocksource={}", facts.clocksource);
        carried.rows.push(CarriedSetting {
            subject: Subject::Cmdline,
            name: "clocksource".into(),
            there: String::new(),
            here: Some(option.clone()),
            verdict: Decision::Changed,
            why: "added, so that the machine uses the same clock if it has it",
            set: true,
        });
        kept.push(option);
    }
    carried.cmdline = kept.join(" ");
}

fn fits(rule: &str, name: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => rule == name,
    }
}

/// Whether a value names a disk: `UUID=…`, `PARTLABEL=…`, `/dev/mapper/…`, or a bare UUID.
fn names_a_disk(value: &str) -> bool {
    let value = value.trim_matches('"');
    let is_uuid = |text: &str| {
        text.len() == 36
            && text.char_indices().all(|(at, c)| {
                if matches!(at, 8 | 13 | 18 | 23) {
                    c == '-'
                } else {
                    c.is_ascii_hexdigit()
                }
            })
    };
    value.contains("UUID=")
        || value.contains("LABEL=")
        || value.starts_with("/dev/disk/")
        || value.starts_with("/dev/mapper/")
        || value.split([':', ',', '/', '=']).any(is_uuid)
}

/// Decides on an option whose value depends on the machine.
fn sized(
    guest: Option<Guest>,
    option: &str,
    mut fit: impl FnMut(Guest) -> Option<String>,
) -> (Decision, Option<String>, &'static str) {
    let Some(guest) = guest else {
        return (Decision::Changed, None, CLAMPED);
    };
    let name = option.split('=').next().unwrap_or(option);
    match fit(guest) {
        None => (
            Decision::Dropped,
            None,
            "does not fit the machine's CPUs and memory",
        ),
        Some(value) => {
            let here = format!("{name}={value}");
            if here == option {
                (Decision::Kept, Some(here), "")
            } else {
                (Decision::Changed, Some(here), CLAMPED)
            }
        }
    }
}

/// Reduces a list such as `domain,managed_irq,2-5,7` to the CPUs that the machine has. At least one CPU stays
/// free for the rest of the system, or the kernel would not accept the list.
fn clamp_list(value: &str, cpus: u32) -> Option<String> {
    let mut flags = Vec::new();
    let mut chosen = BTreeSet::new();
    for part in value.split(',') {
        let mut ends = part.splitn(2, '-');
        let first = ends.next().unwrap_or_default();
        let Ok(first) = first.parse::<u32>() else {
            // "all", steps (0-7:1/2) and similar forms are not interpreted.
            if part.contains(|c: char| c.is_ascii_digit()) || part == "all" {
                return None;
            }
            flags.push(part.to_string());
            continue;
        };
        let last = match ends.next() {
            None => first,
            Some("N") => cpus.saturating_sub(1),
            Some(last) => last.parse().ok()?,
        };
        chosen.extend((first..=last.min(cpus.saturating_sub(1))).filter(|cpu| *cpu < cpus));
    }
    if chosen.len() >= cpus as usize {
        chosen.remove(&0);
    }
    if chosen.is_empty() {
        return None;
    }
    flags.push(ranges(&chosen));
    Some(flags.join(","))
}

fn ranges(cpus: &BTreeSet<u32>) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => parts.push((*cpu, *cpu)),
        }
    }
    let parts: Vec<String> = parts
        .iter()
        .map(|(first, last)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        })
        .collect();
    parts.join(",")
}

/// Parses an amount such as `512M` into bytes, as memparse (lib/cmdline.c) does.
fn amount(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let shift = match &text[digits.len()..] {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

// --- sysctls ---

/// What kind of value a sysctl is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
const SIZED: &str = "the kernel derives it from memory and CPUs";

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

fn kind(path: &str, value: &str) -> Kind {
    let any = |rules: &[&str]| rules.iter().any(|rule| fits(rule, path));
    if any(&STATE) {
        return Kind::State;
    }
    if path.starts_with("net/netfilter/nf_conntrack_") {
        return if CONNTRACK_BY_SIZE.contains(&path) {
            Kind::Sized
        } else {
            Kind::Plain
        };
    }
    if any(&BY_SIZE) {
        return Kind::Sized;
    }
    if path == "dev/tty/ldisc_autoload" {
        return Kind::Plain;
    }
    if any(&BY_HARDWARE) {
        return Kind::Dropped(OF_HARDWARE);
    }
    if interface(path).is_some_and(|name| !["all", "default", "lo"].contains(&name)) {
        return Kind::Dropped(OF_INTERFACE);
    }
    match path {
        "kernel/modules_disabled" => {
            return Kind::Dropped("would keep the machine from loading its own drivers");
        }
        "kernel/core_pattern" if value.starts_with('|') => {
            return Kind::Dropped("names a program of that host");
        }
        "kernel/modprobe" | "kernel/hotplug" | "kernel/poweroff_cmd" => {
            return Kind::Dropped("names a program of that host");
        }
        _ => {}
    }
    Kind::Plain
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

fn sysctls(facts: &Facts, guest: Option<Guest>, carried: &mut Carried) {
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
            Kind::State => {
                (row.verdict, row.why) = (Decision::Dropped, COUNTS);
                row.set = false;
                None
            }
            Kind::Dropped(why) => {
                (row.verdict, row.why) = (Decision::Dropped, why);
                None
            }
            Kind::Sized if !set => {
                (row.verdict, row.why) = (Decision::Dropped, SIZED);
                None
            }
            Kind::Sized | Kind::Plain => Some(value.clone()),
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
        Kind::Plain => None,
        Kind::Sized => Some(SIZED),
        Kind::State => Some(COUNTS),
        Kind::Dropped(why) => Some(why),
    }
}

/// Whether a sysctl is not a setting, so that comparing it is of no use.
pub fn is_state(path: &str) -> bool {
    kind(path, "") == Kind::State
}

// --- modules ---

const DRIVER: &str = "drives hardware that a machine may not have";
const ONLY_FOR_DRIVERS: &str = "is used only by hardware drivers";
const FOREIGN: &str =
    "is not among the kernel's modules: it was built there, or comes from another package";
const FIRMWARE: &str = "is for firmware that a machine does not have";

/// Modules that no device requests, but that need firmware.
const NEEDS_FIRMWARE: [&str; 6] = [
    "efivarfs",
    "efi_pstore",
    "efivars",
    "ipmi_devintf",
    "ipmi_msghandler",
    "nvram",
];

/// Returns why a module may be loaded on one side only without meaning anything; `None` if the difference
/// matters.
pub fn module_difference(
    name: &str,
    loaded: &BTreeMap<String, Vec<String>>,
    facts: &Facts,
) -> Option<&'static str> {
    fn of(
        name: &str,
        loaded: &BTreeMap<String, Vec<String>>,
        facts: &Facts,
        depth: u32,
    ) -> Option<&'static str> {
        if facts.foreign.contains(name) {
            return Some(FOREIGN);
        }
        if NEEDS_FIRMWARE.contains(&name) {
            return Some(FIRMWARE);
        }
        if facts.hardware.contains(name) {
            return Some(DRIVER);
        }
        let users = loaded.get(name)?;
        // Chains of users are short; the limit only stops made-up ones.
        let for_drivers = depth < 20
            && !users.is_empty()
            && users
                .iter()
                .all(|user| of(user, loaded, facts, depth + 1).is_some());
        for_drivers.then_some(ONLY_FOR_DRIVERS)
    }
    of(name, loaded, facts, 0)
}

fn modules(facts: &Facts, carried: &mut Carried) {
    for (name, users) in &facts.modules {
        let why = module_difference(name, &facts.modules, facts);
        carried.rows.push(CarriedSetting {
            subject: Subject::Module,
            name: name.clone(),
            there: "loaded".into(),
            here: why.is_none().then(|| "loaded".into()),
            verdict: if why.is_none() {
                Decision::Kept
            } else {
                Decision::Dropped
            },
            why: why.unwrap_or(""),
            set: false,
        });
        // Modules with users are loaded along with them.
        if why.is_none() && users.is_empty() {
            carried.modules.push(name.clone());
        }
    }
}

// --- below /run ---

fn files(facts: &Facts, carried: &Carried) -> Vec<(String, String)> {
    let head = format!("# As on {}, by stead.\n", facts.host);
    let mut files = Vec::new();
    if !carried.sysctl.is_empty() {
        let mut text = head.clone();
        for (path, value) in &carried.sysctl {
            // "-": a key that does not exist, or not yet, is not an error.
            text.push_str(&format!("-{path} = {value}\n"));
        }
        // Sorts after all files of the box, of which 99-sysctl.conf is the last.
        files.push(("sysctl.d/zz-stead-capture.conf".to_string(), text));
    }
    if !carried.modules.is_empty() {
        let mut text = head.clone();
        for name in &carried.modules {
            text.push_str(&format!("{name}\n"));
        }
        files.push(("modules-load.d/stead-capture.conf".to_string(), text));
    }
    if !facts.thp.is_empty() {
        let mut text = head.clone();
        for (name, value) in &facts.thp {
            let place = "/sys/kernel/mm/transparent_hugepage";
            text.push_str(&format!("w {place}/{name} - - - - {value}\n"));
        }
        files.push(("tmpfiles.d/stead-capture.conf".to_string(), text));
    }
    for (name, text) in &facts.settings {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._+@".contains(c);
        if let Some((folder @ ("modprobe.d" | "modules-load.d"), file)) = name.split_once('/')
            && file.chars().all(plain)
            && !file.starts_with('.')
        {
            files.push((format!("{folder}/{file}"), text.clone()));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Guest = Guest {
        cpus: 2,
        memory: 1 << 30,
    };

    fn of_cmdline(cmdline: &str) -> Carried {
        let facts = Facts {
            cmdline: cmdline.into(),
            ..Facts::default()
        };
        carry(&facts, Some(SMALL))
    }

    #[test]
    fn what_belongs_to_that_host_is_dropped() {
        let carried = of_cmdline(
            "BOOT_IMAGE=/vmlinuz-6.1 root=UUID=0a1b2c3d-0000-1111-2222-333344445555 ro rootdelay=5 \
             rd.lvm.lv=vg/root resume=/dev/sda2 crashkernel=256M console=tty0 console=ttyS1,115200 \
             ip=dhcp quiet mitigations=off transparent_hugepage=never cgroup_enable=memory \
             lsm=apparmor systemd.unified_cgroup_hierarchy=0 systemd.machine_id=abc \
             cryptkey=UUID=1:2 foo=0a1b2c3d-0000-1111-2222-333344445555 -- single",
        );
        assert_eq!(
            carried.cmdline,
            "quiet mitigations=off transparent_hugepage=never cgroup_enable=memory lsm=apparmor \
             systemd.unified_cgroup_hierarchy=0"
        );
        let row = |name: &str| carried.rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("crashkernel").verdict, Decision::Dropped);
        assert_eq!(row("foo").why, OF_DISKS);
        assert_eq!(row("single").why, "is for that host's init");
        assert_eq!(row("mitigations").verdict, Decision::Kept);
    }

    #[test]
    fn what_counts_cpus_and_memory_is_cut_down() {
        for (there, here) in [
            (
                "isolcpus=domain,managed_irq,1-7",
                "isolcpus=domain,managed_irq,1",
            ),
            ("isolcpus=2-7", ""),
            ("isolcpus=0-7", "isolcpus=1"),
            ("nohz_full=1,4-N", "nohz_full=1"),
            ("rcu_nocbs=0-7:1/2", ""),
            ("maxcpus=1", "maxcpus=1"),
            ("maxcpus=8", ""),
            ("mem=512M", "mem=512M"),
            ("mem=64G", ""),
            ("hugepages=64", "hugepages=64"),
            ("hugepages=4096", "hugepages=256"),
            ("hugepagesz=1G hugepages=16", "hugepagesz=1G"),
            ("isolcpus=18446744073709551616", ""),
            ("mem=99999999999999T", ""),
        ] {
            assert_eq!(of_cmdline(there).cmdline, here, "{there}");
        }
        let facts = Facts {
            cmdline: "isolcpus=1-7".into(),
            ..Facts::default()
        };
        let row = &carry(&facts, None).rows[0];
        assert_eq!((row.verdict, &row.here), (Decision::Changed, &None));
    }

    #[test]
    fn options_with_quotes_stay_whole() {
        assert_eq!(
            options(" a=\"b c\" \"d=e f\"  g "),
            ["a=\"b c\"", "\"d=e f\"", "g"]
        );
        assert_eq!(option_name("\"dyndbg=file x +p\""), "dyndbg");
        assert_eq!(
            of_cmdline("dyndbg=\"file x +p\" quiet").cmdline,
            "dyndbg=\"file x +p\" quiet"
        );
    }

    fn of_sysctl(set: &[(&str, &str)], in_files: &[&str]) -> Carried {
        let facts = Facts {
            memory_kib: 64 << 20,
            sysctl: set
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            sysctl_set: in_files.iter().map(|key| key.to_string()).collect(),
            ..Facts::default()
        };
        carry(&facts, Some(SMALL))
    }

    #[test]
    fn settings_are_kept_and_what_a_host_is_is_not() {
        let carried = of_sysctl(
            &[
                ("vm/swappiness", "1"),
                ("net/ipv4/conf/all/rp_filter", "2"),
                ("net/ipv4/conf/eth0/rp_filter", "2"),
                ("net/ipv4/ip_forward", "1"),
                ("kernel/hostname", "db1"),
                ("kernel/modules_disabled", "1"),
                ("kernel/core_pattern", "|/usr/bin/apport"),
                ("net/ipv4/tcp_mem", "1 2 3"),
                ("fs/file-max", "999"),
                ("vm/dirty_bytes", "0"),
                ("vm/nr_hugepages", "9999"),
                ("vm/min_free_kbytes", "2097152"),
                ("net/netfilter/nf_conntrack_tcp_loose", "0"),
                ("dev/cdrom/info", "a\nb"),
            ],
            &["fs/file-max", "vm/min_free_kbytes", "vm/swappiness"],
        );
        let kept: Vec<String> = carried
            .sysctl
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            kept,
            [
                "net/ipv4/ip_forward=1",
                "fs/file-max=999",
                "net/ipv4/conf/all/rp_filter=2",
                "net/netfilter/nf_conntrack_tcp_loose=0",
                "vm/min_free_kbytes=32768",
                "vm/nr_hugepages=256",
                "vm/swappiness=1",
            ]
        );
        let why = |key: &str| carried.announced(Subject::Sysctl, key);
        assert_eq!(why("net.ipv4.tcp_mem"), Some(SIZED));
        assert_eq!(why("vm.swappiness"), None);
        assert!(why("kernel.modules_disabled").is_some());
        let file = &carried.files[0];
        assert_eq!(file.0, "sysctl.d/zz-stead-capture.conf");
        assert!(file.1.contains("-vm/swappiness = 1\n"));
    }

    #[test]
    fn modules_that_no_hardware_asks_for_are_loaded() {
        let loaded = |name: &str, users: &[&str]| {
            let users = users.iter().map(|user| user.to_string()).collect();
            (name.to_string(), users)
        };
        let names = |all: &[&str]| all.iter().map(|name| name.to_string()).collect();
        let facts = Facts {
            modules: [
                loaded("e1000e", &[]),
                loaded("libata", &["ahci"]),
                loaded("ahci", &[]),
                loaded("br_netfilter", &[]),
                loaded("bridge", &["br_netfilter"]),
                loaded("wireguard_dkms", &[]),
                loaded("efivarfs", &[]),
            ]
            .into(),
            hardware: names(&["e1000e", "ahci"]),
            foreign: names(&["wireguard_dkms"]),
            settings: [
                ("modprobe.d/a.conf".to_string(), "blacklist x\n".to_string()),
                ("modprobe.d/../x".to_string(), "no\n".to_string()),
                ("sysctl.d/x.conf".to_string(), "no\n".to_string()),
            ]
            .into(),
            ..Facts::default()
        };
        let carried = carry(&facts, Some(SMALL));
        assert_eq!(carried.modules, ["br_netfilter"]);
        assert_eq!(
            carried.announced(Subject::Module, "libata"),
            Some(ONLY_FOR_DRIVERS)
        );
        assert_eq!(carried.announced(Subject::Module, "bridge"), None);
        let names: Vec<&str> = carried
            .files
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            names,
            ["modules-load.d/stead-capture.conf", "modprobe.d/a.conf"]
        );
    }
}
