//! Which options of a captured host's command line a machine gets.

use std::collections::BTreeSet;

use super::{
    super::facts::Facts,
    setting::{
        CLAMPED, Carried, CarriedSetting, Decision, Guest, HUGE_SHARE, OF_HARDWARE, Subject, fits,
    },
};

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
pub(super) const OF_DISKS: &str = "names disks of that host";
const OF_CONSOLES: &str = "names consoles of that host; stead adds its own";
const OF_NETWORK: &str = "sets up that host's network; the box has its own";
const OF_INSTALLERS: &str = "is for installers and seeds of that host";
const IDENTITY: &str = "is that host's identity";

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

/// Decides on the options of the host's command line.
pub(super) fn cmdline(facts: &Facts, guest: Option<Guest>, carried: &mut Carried) {
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
