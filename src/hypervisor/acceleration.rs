//! Chooses between KVM and emulation for a machine's CPUs.

use std::fs::OpenOptions;

use crate::machinefile::Accel;

use super::{connection::Connection, error::HypervisorError};

/// How a machine's CPUs run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceleration {
    pub accel: Accel,
    /// Why KVM cannot be used; `None` if it is used, or if TCG was asked for.
    pub why_not_kvm: Option<String>,
}

/// The facts that the choice depends on.
#[derive(Clone, Debug)]
pub struct HostFacts {
    pub arch: String,
    /// Whether /proc/cpuinfo has the flag `vmx` or `svm`.
    pub virtualisation_flag: bool,
    /// Whether /dev/kvm can be opened for reading and writing; else the error.
    pub kvm_device: Result<(), String>,
    /// Whether libvirt's domain capabilities list the domain type kvm.
    pub kvm_listed: bool,
}

impl HostFacts {
    /// Reads the facts from this host and its libvirt.
    pub fn observe(connection: &Connection) -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flag = cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .flat_map(str::split_whitespace)
            .any(|flag| flag == "vmx" || flag == "svm");
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .map(|_| ())
            .map_err(|error| error.to_string());
        // libvirt is only asked if the answer can still matter, since that takes a round trip.
        let kvm_listed = device.is_ok()
            && connection
                .connect
                .domain_capabilities(None, None, None, Some("kvm"), 0)
                .is_ok();
        HostFacts {
            arch: std::env::consts::ARCH.to_string(),
            virtualisation_flag: flag,
            kvm_device: device,
            kvm_listed,
        }
    }
}

impl HostFacts {
    /// Whether KVM needs the flag. Only x86 shows in its CPU flags whether it can virtualise. On other architectures,
    /// /dev/kvm and libvirt's capabilities decide.
    pub fn needs_virtualisation_flag(&self) -> bool {
        matches!(self.arch.as_str(), "x86_64" | "x86")
    }
}

/// Chooses KVM only where it works. That /dev/kvm can be opened is not enough: under nested software
/// virtualisation it opens, boots firmware, and then hangs a stock kernel. With `accel "kvm"` the CPU flags are
/// not checked, but the device must exist.
///
/// # Errors
/// If the Machinefile asks for KVM, and it cannot be used.
pub fn choose(
    machine: &str,
    wanted: Option<Accel>,
    facts: &HostFacts,
) -> Result<Acceleration, HypervisorError> {
    let trusted = HostFacts {
        virtualisation_flag: facts.virtualisation_flag || wanted == Some(Accel::Kvm),
        ..facts.clone()
    };
    match (wanted, why_not_kvm(&trusted)) {
        (Some(Accel::Tcg), _) => Ok(Acceleration {
            accel: Accel::Tcg,
            why_not_kvm: None,
        }),
        (Some(Accel::Kvm), Some(why)) => Err(HypervisorError::NoKvm {
            machine: machine.to_string(),
            why,
        }),
        (None, Some(why)) => Ok(Acceleration {
            accel: Accel::Tcg,
            why_not_kvm: Some(why),
        }),
        (_, None) => Ok(Acceleration {
            accel: Accel::Kvm,
            why_not_kvm: None,
        }),
    }
}

fn why_not_kvm(facts: &HostFacts) -> Option<String> {
    if facts.needs_virtualisation_flag() && !facts.virtualisation_flag {
        return Some("the host CPU shows neither vmx nor svm".into());
    }
    if let Err(error) = &facts.kvm_device {
        return Some(format!("/dev/kvm cannot be opened ({error})"));
    }
    if !facts.kvm_listed {
        return Some("libvirt's domain capabilities do not list KVM".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> HostFacts {
        HostFacts {
            arch: "x86_64".into(),
            virtualisation_flag: true,
            kvm_device: Ok(()),
            kvm_listed: true,
        }
    }

    #[test]
    fn kvm_where_all_three_agree() {
        let choice = choose("web", None, &facts()).unwrap();
        assert_eq!(choice.accel, Accel::Kvm);
        assert_eq!(choice.why_not_kvm, None);
    }

    #[test]
    fn a_device_that_opens_without_the_flag_is_not_trusted() {
        let facts = HostFacts {
            virtualisation_flag: false,
            ..facts()
        };
        let choice = choose("web", None, &facts).unwrap();
        assert_eq!(choice.accel, Accel::Tcg);
        assert!(choice.why_not_kvm.unwrap().contains("vmx"));
    }

    #[test]
    fn asking_for_kvm_where_it_cannot_work_is_an_error() {
        let facts = HostFacts {
            kvm_device: Err("Permission denied".into()),
            ..facts()
        };
        let error = choose("web", Some(Accel::Kvm), &facts).unwrap_err();
        assert!(error.to_string().contains("Permission denied"));
    }

    #[test]
    fn other_architectures_are_not_asked_for_x86_flags() {
        let facts = HostFacts {
            arch: "aarch64".into(),
            virtualisation_flag: false,
            ..facts()
        };
        assert_eq!(choose("web", None, &facts).unwrap().accel, Accel::Kvm);
    }
}
