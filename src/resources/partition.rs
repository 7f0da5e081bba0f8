//! The control group of machines with reserved CPUs.
//!
//! A weight counts among siblings. libvirt puts every machine into one group, `/machine`, so a machine's weight
//! counts against other machines, but not against programs of the host, which compete with `/machine` as a
//! whole. So machines with reserved CPUs get their own group at the top, with the largest possible weight. It
//! is created if it is missing, and a machine that turns out not to get this weight is an error.

use std::{fs, io, path::Path};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    host::process::Command,
    hypervisor::{PARTITION, WeightScale},
    report::clean::Shown,
};

use super::cgroup::{Hierarchy, hierarchies, hierarchy_of, path_in};

/// A weight of less than this many times the usual weight is not a guarantee.
const LEAST_FACTOR: u64 = 50;

#[derive(Debug, Error, Diagnostic)]
pub enum PartitionError {
    #[error("cannot reserve the CPUs of {machine}: {why}")]
    #[diagnostic(help(
        "reserved CPUs need the cpu controller of control groups, writable by root; without it, remove reserve=#true, or use `pin` to keep machines apart"
    ))]
    Unusable { machine: String, why: String },
}

/// Returns the group's name in a hierarchy. With systemd it is a slice; without, libvirt appends a suffix to
/// the names of partitions.
fn group(systemd: bool) -> String {
    let name = PARTITION.trim_start_matches('/');
    if systemd {
        format!("{name}.slice")
    } else {
        format!("{name}.partition")
    }
}

fn is_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Creates the group and sets its weight. May be repeated.
pub fn prepare(machine: &str) -> Result<(), PartitionError> {
    let done = if is_systemd() {
        by_systemd()
    } else {
        fs::read_to_string("/proc/self/mounts")
            .map_err(|error| format!("/proc/self/mounts: {error}"))
            .and_then(|mounts| by_hand(&hierarchies(&mounts)))
    };
    done.map_err(|why| PartitionError::Unusable {
        machine: machine.to_string(),
        why,
    })
}

/// systemd creates the slice when libvirt requests it, with the weight that is set here. CPUWeight always has
/// the scale of version 2, whatever version the host has (systemd.resource-control(5)).
fn by_systemd() -> Result<(), String> {
    let weight = format!("CPUWeight={}", WeightScale::Weight.most());
    Command::new("systemctl", "systemd")
        .args(["set-property", "--runtime", &group(true), &weight])
        .succeed()
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// libvirt creates only its own default partition, and needs this one to exist in every hierarchy.
fn by_hand(all: &[Hierarchy]) -> Result<(), String> {
    let cpu = hierarchy_of(all, "cpu").ok_or("there is no cpu controller")?;
    for hierarchy in all {
        let folder = hierarchy.folder.join(group(false));
        make(&folder).map_err(|error| format!("cannot create {}: {error}", folder.shown()))?;
        if hierarchy.version == 1 && hierarchy.has("cpuset") {
            // A new group of version 1 has no CPUs and no memory, so it accepts no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                inherit(&hierarchy.folder, &folder, file)?;
            }
        }
    }
    if cpu.version == 2 {
        write(&cpu.folder.join("cgroup.subtree_control"), "+cpu")?;
    }
    let folder = cpu.folder.join(group(false));
    let scale = cpu.weight_scale();
    write(&folder.join(file_of(scale)), &scale.most().to_string())
}

fn file_of(scale: WeightScale) -> &'static str {
    match scale {
        WeightScale::Shares => "cpu.shares",
        WeightScale::Weight => "cpu.weight",
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn inherit(from: &Path, to: &Path, file: &str) -> Result<(), String> {
    let read = |folder: &Path| {
        let path = folder.join(file);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.shown()))
    };
    if read(to)?.trim().is_empty() {
        write(&to.join(file), read(from)?.trim())?;
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<(), String> {
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel's")]
    fs::write(path, value).map_err(|error| format!("cannot write {}: {error}", path.shown()))
}

/// Checks that a process is in a group whose weight counts against everything else on the host.
pub fn verify(machine: &str, pid: u32) -> Result<(), PartitionError> {
    let read = |path: String| {
        fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))
    };
    let looked = read("/proc/self/mounts".into()).and_then(|mounts| {
        let own = read(format!("/proc/{pid}/cgroup"))?;
        weight_of(&hierarchies(&mounts), &own)
    });
    looked.map_err(|why| PartitionError::Unusable {
        machine: machine.to_string(),
        why,
    })
}

fn weight_of(all: &[Hierarchy], own: &str) -> Result<(), String> {
    let cpu = hierarchy_of(all, "cpu").ok_or("there is no cpu controller")?;
    let path = path_in(own, cpu, "cpu").ok_or("QEMU is in no group of the cpu controller")?;
    let top = path
        .split('/')
        .find(|part| !part.is_empty())
        .ok_or("QEMU is in the root group")?;
    let scale = cpu.weight_scale();
    let (file, usual) = (cpu.folder.join(top).join(file_of(scale)), scale.usual());
    let weight: u64 = fs::read_to_string(&file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| format!("{} contains no weight", file.shown()))?;
    if weight < usual * LEAST_FACTOR {
        return Err(format!(
            "QEMU runs in {path}, where {} is {weight}, but everything else has {usual}",
            file.shown()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(folder: &Path, version: u8) -> Vec<Hierarchy> {
        vec![Hierarchy {
            folder: folder.to_path_buf(),
            controllers: match version {
                1 => vec!["cpu".into(), "cpuset".into()],
                _ => Vec::new(),
            },
            version,
        }]
    }

    #[test]
    fn a_group_of_version_1_gets_weight_and_cpus() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("stead.partition");
        fs::create_dir(&group).unwrap();
        for (file, text) in [
            ("cpuset.cpus", "0-3\n"),
            ("cpuset.mems", "0\n"),
            ("stead.partition/cpuset.cpus", "\n"),
            ("stead.partition/cpuset.mems", "0\n"),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let all = hierarchy(folder.path(), 1);
        by_hand(&all).unwrap();
        by_hand(&all).unwrap();
        let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
        assert_eq!(read("cpuset.cpus"), "0-3");
        assert_eq!(read("cpu.shares"), "262144");
        weight_of(&all, "1:cpu,cpuset:/stead.partition/qemu-1-x/emulator\n").unwrap();
    }

    #[test]
    fn a_group_of_version_2_gets_weight() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        let all = hierarchy(folder.path(), 2);
        by_hand(&all).unwrap();
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(read("cgroup.subtree_control"), "+cpu");
        assert_eq!(read("stead.partition/cpu.weight"), "10000");
        weight_of(&all, "0::/stead.partition/qemu-1-x/emulator\n").unwrap();
    }

    #[test]
    fn a_machine_elsewhere_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("machine")).unwrap();
        fs::write(folder.path().join("machine/cpu.shares"), "1024\n").unwrap();
        let all = hierarchy(folder.path(), 1);
        let error = weight_of(&all, "1:cpu,cpuset:/machine/qemu-1-x\n").unwrap_err();
        assert!(error.contains("cpu.shares is 1024"), "{error}");
        assert!(weight_of(&all, "1:cpu,cpuset:/\n").is_err());
        assert!(weight_of(&[], "0::/\n").is_err());
    }
}
