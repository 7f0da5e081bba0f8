//! Compares the facts of a machine with those of a captured host, and finds which differences were announced.
//! Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{
    carry::{
        Carried, Guest, Subject, carry, is_state, module_difference, option_name, options,
        sysctl_difference,
    },
    facts::{Facts, sysctl_name},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Same,
    /// It differs as announced.
    Announced,
    Different,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Same => "same",
            Verdict::Announced => "announced",
            Verdict::Different => "different",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub name: String,
    /// `None` if it does not exist there.
    pub there: Option<String>,
    pub here: Option<String>,
    /// Why the difference is expected.
    pub announced: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Compared {
    pub subject: &'static str,
    /// How many values were compared.
    pub looked_at: usize,
    pub differences: Vec<Difference>,
}

impl Compared {
    pub fn verdict(&self) -> Verdict {
        match self.differences.as_slice() {
            [] => Verdict::Same,
            all if all.iter().all(|it| it.announced.is_some()) => Verdict::Announced,
            _ => Verdict::Different,
        }
    }
}

/// What is known about the machine besides its facts.
#[derive(Clone, Copy)]
pub struct MachineContext<'a> {
    pub guest: Guest,
    /// The command line that stead gave the machine, if it boots this capture.
    pub cmdline: Option<&'a str>,
    /// Why its CPU may differ; `None` if it must be the same.
    pub other_cpu: Option<&'a str>,
    /// Why a flag of the CPU may differ; `None` if it must be the same.
    pub flag: &'a dyn Fn(&str) -> Option<String>,
}

const BY_STEAD: &str = "is how stead boots the box";
const BY_MACHINEFILE: &str = "is set in the Machinefile";
const OF_THE_CPU: &str = "follows from the other CPU";

/// Compares a captured host (`there`) with a machine (`here`).
pub fn compare(there: &Facts, here: &Facts, machine: &MachineContext<'_>) -> Vec<Compared> {
    let carried = carry(there, Some(machine.guest));
    let cpu = cpu(there, here, machine);
    let other_cpu = machine.other_cpu.filter(|_| !cpu.differences.is_empty());
    vec![
        release(there, here, &carried),
        one("version", "uname -v", &there.version, &here.version, None),
        cmdline(there, here, machine, &carried),
        modules(there, here, &carried),
        sysctls(there, here, &carried),
        cpu,
        mitigations(there, here, other_cpu),
        clocksource(there, here),
        map("huge pages", &there.thp, &here.thp, &|_| None),
        one(
            "LSMs",
            "lsm",
            &there.lsm.join(","),
            &here.lsm.join(","),
            None,
        ),
        one("cgroup", "version", &there.cgroup, &here.cgroup, None),
    ]
}

fn one(
    subject: &'static str,
    name: &str,
    there: &str,
    here: &str,
    announced: Option<String>,
) -> Compared {
    let differences = if there == here {
        Vec::new()
    } else {
        vec![difference(name, there, here, announced)]
    };
    Compared {
        subject,
        looked_at: 1,
        differences,
    }
}

fn difference(name: &str, there: &str, here: &str, announced: Option<String>) -> Difference {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_string());
    Difference {
        name: name.to_string(),
        there: some(there),
        here: some(here),
        announced,
    }
}

fn release(there: &Facts, here: &Facts, carried: &Carried) -> Compared {
    let mut compared = one("release", "uname -r", &there.release, &here.release, None);
    if let Some(why) = carried.announced(Subject::Kernel, "livepatch")
        && there.livepatches != here.livepatches
    {
        compared.differences.push(difference(
            "livepatch",
            &there.livepatches.join(", "),
            &here.livepatches.join(", "),
            Some(why.to_string()),
        ));
    }
    compared
}

fn cmdline(
    there: &Facts,
    here: &Facts,
    machine: &MachineContext<'_>,
    carried: &Carried,
) -> Compared {
    let (there, here) = (options(&there.cmdline), options(&here.cmdline));
    let told = machine.cmdline.map(options);
    let mut differences = Vec::new();
    let row = |option: &String| {
        (carried.rows.iter())
            .find(|row| row.subject == Subject::Cmdline && &row.there == option)
            .filter(|row| row.here.as_ref() != Some(&row.there))
    };
    for option in there.iter().filter(|option| !here.contains(option)) {
        let announced = match (row(option), &told) {
            (Some(row), _) => Some(row.why.to_string()),
            // Carried, but not on the command line that stead gave: `cmdline replace=#true`.
            (None, Some(told)) if !told.contains(option) => Some(BY_MACHINEFILE.to_string()),
            (None, _) => None,
        };
        let instead = row(option).and_then(|row| row.here.clone());
        differences.push(Difference {
            name: option_name(option),
            there: Some(option.clone()),
            here: instead.filter(|option| here.contains(option)),
            announced,
        });
    }
    for option in here.iter().filter(|option| !there.contains(option)) {
        let name = option_name(option);
        let by_carry = (carried.rows.iter())
            .find(|row| row.subject == Subject::Cmdline && row.here.as_ref() == Some(option));
        if by_carry.is_some_and(|row| !row.there.is_empty()) {
            // Reported above, with the option that it replaces.
            continue;
        }
        let by_stead = ["root", "rootfstype", "rootflags", "ro", "rw", "console"];
        let announced = if let Some(row) = by_carry {
            Some(row.why.to_string())
        } else if by_stead.contains(&name.as_str()) {
            Some(BY_STEAD.to_string())
        } else {
            told.as_ref()
                .is_some_and(|told| told.contains(option))
                .then(|| BY_MACHINEFILE.to_string())
        };
        differences.push(Difference {
            name,
            there: None,
            here: Some(option.clone()),
            announced,
        });
    }
    Compared {
        subject: "cmdline",
        looked_at: there.len(),
        differences,
    }
}

/// Modules that a box needs to boot, whatever the captured host needed: for its own file system, and for that
/// of the disk with the kernel's modules.
const OF_THE_BOX: [&str; 5] = ["squashfs", "ext4", "xfs", "btrfs", "crc32c_generic"];

fn modules(there: &Facts, here: &Facts, carried: &Carried) -> Compared {
    let mut differences = Vec::new();
    for name in there.modules.keys() {
        if !here.modules.contains_key(name) {
            let announced = carried.announced(Subject::Module, name);
            differences.push(difference(
                name,
                "loaded",
                "",
                announced.map(str::to_string),
            ));
        }
    }
    for name in here.modules.keys() {
        if !there.modules.contains_key(name) {
            let announced = of_the_box(name, here, 0)
                .then_some(BY_STEAD)
                .or_else(|| module_difference(name, &here.modules, there));
            differences.push(difference(
                name,
                "",
                "loaded",
                announced.map(str::to_string),
            ));
        }
    }
    Compared {
        subject: "modules",
        looked_at: there.modules.len(),
        differences,
    }
}

fn of_the_box(name: &str, here: &Facts, depth: u32) -> bool {
    if OF_THE_BOX.contains(&name) {
        return true;
    }
    let users = here.modules.get(name).map_or(&[][..], Vec::as_slice);
    depth < 20 && !users.is_empty() && users.iter().all(|user| of_the_box(user, here, depth + 1))
}

fn sysctls(there: &Facts, here: &Facts, carried: &Carried) -> Compared {
    let mut differences = Vec::new();
    let mut looked_at = 0;
    let paths: BTreeSet<&String> = there.sysctl.keys().chain(here.sysctl.keys()).collect();
    for path in paths {
        if is_state(path) {
            continue;
        }
        looked_at += 1;
        let (has, gets) = (there.sysctl.get(path), here.sysctl.get(path));
        if has == gets {
            continue;
        }
        let name = sysctl_name(path);
        let any = has.or(gets).map_or("", String::as_str);
        let announced = carried
            .announced(Subject::Sysctl, &name)
            // A sysctl that somebody set on the host was carried, so its difference matters.
            .or_else(|| match has {
                Some(_) if there.sysctl_set.contains(path) => None,
                _ => sysctl_difference(path, any),
            });
        differences.push(Difference {
            name,
            there: has.cloned(),
            here: gets.cloned(),
            announced: announced.map(str::to_string),
        });
    }
    Compared {
        subject: "sysctl",
        looked_at,
        differences,
    }
}

fn cpu(there: &Facts, here: &Facts, machine: &MachineContext<'_>) -> Compared {
    let mut differences = Vec::new();
    let why = machine.other_cpu.map(str::to_string);
    let (a, b) = (&there.cpu, &here.cpu);
    for (name, there, here) in [
        ("model", &a.model_name, &b.model_name),
        ("microcode", &a.microcode, &b.microcode),
    ] {
        if there != here {
            // No setting changes a machine's microcode, or gives it a model name that QEMU does not have.
            let why = if name == "microcode" {
                Some("is the host's".into())
            } else {
                why.clone().or_else(|| Some("is QEMU's name for it".into()))
            };
            differences.push(difference(name, there, here, why));
        }
    }
    if a.count != b.count {
        differences.push(difference(
            "CPUs",
            &a.count.to_string(),
            &b.count.to_string(),
            Some(BY_MACHINEFILE.into()),
        ));
    }
    for flag in a.flags.symmetric_difference(&b.flags) {
        let is_there = a.flags.contains(flag);
        // Every virtual machine has this flag.
        let announced = if flag == "hypervisor" {
            Some("every virtual machine has it".to_string())
        } else {
            (machine.flag)(flag)
        };
        differences.push(difference(
            flag,
            if is_there { "yes" } else { "" },
            if is_there { "" } else { "yes" },
            announced,
        ));
    }
    Compared {
        subject: "CPU",
        looked_at: a.flags.len(),
        differences,
    }
}

fn mitigations(there: &Facts, here: &Facts, other_cpu: Option<&str>) -> Compared {
    map(
        "mitigations",
        &there.mitigations,
        &here.mitigations,
        &|_| other_cpu.map(|_| OF_THE_CPU.to_string()),
    )
}

fn clocksource(there: &Facts, here: &Facts) -> Compared {
    let announced = (!here.clocksources.contains(&there.clocksource)).then(|| {
        format!(
            "the machine has no such clock, only {}",
            here.clocksources.join(", ")
        )
    });
    one(
        "clocksource",
        "clocksource",
        &there.clocksource,
        &here.clocksource,
        announced,
    )
}

fn map(
    subject: &'static str,
    there: &std::collections::BTreeMap<String, String>,
    here: &std::collections::BTreeMap<String, String>,
    announced: &dyn Fn(&str) -> Option<String>,
) -> Compared {
    let names: BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let differences = names
        .iter()
        .filter(|name| there.get(**name) != here.get(**name))
        .map(|name| Difference {
            name: (*name).clone(),
            there: there.get(*name).cloned(),
            here: here.get(*name).cloned(),
            announced: announced(name),
        })
        .collect();
    Compared {
        subject,
        looked_at: names.len(),
        differences,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(cmdline: &str, swappiness: &str, modules: &[&str]) -> Facts {
        Facts {
            release: "6.1".into(),
            version: "#1".into(),
            cmdline: cmdline.into(),
            sysctl: [
                ("vm/swappiness".to_string(), swappiness.to_string()),
                ("kernel/hostname".to_string(), swappiness.to_string()),
                ("fs/file-max".to_string(), swappiness.to_string()),
            ]
            .into(),
            modules: modules
                .iter()
                .map(|name| (name.to_string(), Vec::new()))
                .collect(),
            hardware: ["nvme".to_string(), "virtio_net".to_string()].into(),
            clocksource: "tsc".into(),
            clocksources: vec!["tsc".into()],
            ..Facts::default()
        }
    }

    const CONTEXT: MachineContext<'static> = MachineContext {
        guest: Guest {
            cpus: 1,
            memory: 1 << 30,
        },
        cmdline: Some("root=/dev/vda rw quiet mitigations=off my=own"),
        other_cpu: None,
        flag: &|_| None,
    };

    fn verdicts(there: &Facts, here: &Facts) -> Vec<(&'static str, Verdict)> {
        compare(there, here, &CONTEXT)
            .into_iter()
            .map(|it| (it.subject, it.verdict()))
            .filter(|(_, verdict)| *verdict != Verdict::Same)
            .collect()
    }

    #[test]
    fn what_was_announced_is_told_from_what_was_not() {
        let there = facts(
            "root=UUID=1 ro quiet mitigations=off",
            "1",
            &["nvme", "tls"],
        );
        assert_eq!(verdicts(&there, &there), []);
        let here = facts(
            "root=/dev/vda rw quiet mitigations=off my=own console=ttyS0",
            "1",
            &["virtio_net", "tls", "squashfs"],
        );
        assert_eq!(
            verdicts(&there, &here),
            [
                ("cmdline", Verdict::Announced),
                ("modules", Verdict::Announced),
            ]
        );
        let here = facts("root=/dev/vda rw quiet", "60", &["virtio_net"]);
        assert_eq!(
            verdicts(&there, &here),
            [
                ("cmdline", Verdict::Different),
                ("modules", Verdict::Different),
                ("sysctl", Verdict::Different),
            ]
        );
        let sysctl = compare(&there, &here, &CONTEXT).remove(4);
        let open: Vec<&str> = sysctl
            .differences
            .iter()
            .filter(|it| it.announced.is_none())
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(open, ["vm.swappiness"]);
    }

    #[test]
    fn the_cpu_explains_only_what_it_can() {
        let mut there = facts("quiet", "1", &[]);
        there.cpu.flags = ["avx".to_string()].into();
        there.mitigations = [("meltdown".to_string(), "PTI".to_string())].into();
        let here = Facts {
            mitigations: [("meltdown".to_string(), "Not affected".to_string())].into(),
            cpu: Default::default(),
            ..there.clone()
        };
        assert_eq!(
            verdicts(&there, &here),
            [
                ("CPU", Verdict::Different),
                ("mitigations", Verdict::Different)
            ]
        );
        let machine = MachineContext {
            other_cpu: Some("is the host's"),
            flag: &|_| Some("is the host's".into()),
            ..CONTEXT
        };
        let all = compare(&there, &here, &machine);
        assert!(all.iter().all(|it| it.verdict() != Verdict::Different));
    }
}
