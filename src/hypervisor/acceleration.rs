use std::fs::OpenOptions;

use crate::machinefile::Accel;

use super::{connection::Connection, error::HypervisorError};

/// How a machine's CPUs run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceleration {
    pub accel: Accel,
    /// Why not KVM; `None` where KVM is used or TCG was asked for.
    pub why_not_kvm: Option<String>,
}

/// What the rule looks at.
#[derive(Clone, Debug)]
pub struct HostFacts {
    pub arch: String,
    /// `vmx` or `svm` in /proc/cpuinfo.
    pub virtualisation_flag: bool,
    /// /dev/kvm opens for reading and writing.
    pub kvm_device: Result<(), String>,
    /// libvirt's domain capabilities list the kvm type.
    pub kvm_listed: bool,
}

impl HostFacts {
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
        // Asking libvirt costs a round trip: only when the answer can still matter.
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

/// Only x86 says in its CPU flags whether it can virtualise; elsewhere /dev/kvm that opens and
/// libvirt's word are the test.
fn needs_cpu_flag(arch: &str) -> bool {
    matches!(arch, "x86_64" | "x86")
}

/// KVM only where it works. A /dev/kvm that opens proves nothing: under nested software
/// virtualisation it opens, boots firmware, and then hangs a stock kernel. `accel "kvm"` takes the
/// CPU flags on trust, but not a device that is missing.
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
    if needs_cpu_flag(&facts.arch) && !facts.virtualisation_flag {
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
