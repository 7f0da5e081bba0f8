//! Checks whether a kernel can boot a machine on this host: what it must have, and what it should have.

use std::collections::BTreeMap;

use super::{
    config::{Config, Presence},
    modules::Index,
};

/// The result of one check of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub option: &'static str,
    pub what: &'static str,
    pub presence: Presence,
    pub need: Need,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it the machine does not boot.
    Required,
    /// Like `Required`, but a module would be loaded too late.
    BuiltIn,
    /// Without it something in the machine does not work.
    Useful,
}

impl Finding {
    /// Whether it keeps a machine from booting.
    pub fn is_fatal(&self) -> bool {
        match self.need {
            Need::Required => self.presence == Presence::Missing,
            Need::BuiltIn => matches!(self.presence, Presence::Missing | Presence::Loadable),
            Need::Useful => false,
        }
    }

    pub fn is_lack(&self) -> bool {
        self.is_fatal() || (self.need == Need::Useful && self.presence == Presence::Missing)
    }

    /// Returns the setting that fixes it.
    pub fn remedy(&self) -> String {
        match (self.need, self.presence) {
            (Need::BuiltIn, Presence::Loadable) => {
                format!(
                    "{option}=y: as a module it is loaded too late",
                    option = self.option
                )
            }
            (Need::BuiltIn, _) => format!("{}=y", self.option),
            _ => format!("{0}=y, or {0}=m with its modules", self.option),
        }
    }
}

struct Requirement {
    option: &'static str,
    /// The driver's module, if it can be a module.
    module: Option<&'static str>,
    what: &'static str,
    need: Need,
}

const fn need(
    option: &'static str,
    module: Option<&'static str>,
    what: &'static str,
    need: Need,
) -> Requirement {
    Requirement {
        option,
        module,
        what,
        need,
    }
}

/// systemd's list is in its README, "REQUIREMENTS".
const REQUIREMENTS: [Requirement; 31] = [
    need("CONFIG_BLK_DEV_INITRD", None, "an initramfs", Need::BuiltIn),
    need("CONFIG_DEVTMPFS", None, "/dev", Need::BuiltIn),
    need("CONFIG_PROC_FS", None, "/proc", Need::BuiltIn),
    need("CONFIG_SYSFS", None, "/sys", Need::BuiltIn),
    need("CONFIG_TMPFS", None, "/run", Need::BuiltIn),
    need("CONFIG_BINFMT_ELF", None, "programs", Need::BuiltIn),
    need("CONFIG_PCI", None, "the bus of all devices", Need::BuiltIn),
    need(
        "CONFIG_VIRTIO_PCI",
        Some("virtio_pci"),
        "virtio devices",
        Need::Required,
    ),
    need(
        "CONFIG_VIRTIO_BLK",
        Some("virtio_blk"),
        "disks",
        Need::Required,
    ),
    need(
        "CONFIG_VIRTIO_NET",
        Some("virtio_net"),
        "the network",
        Need::Required,
    ),
    need("CONFIG_INET", None, "the network", Need::BuiltIn),
    need("CONFIG_UNIX", None, "systemd", Need::BuiltIn),
    need("CONFIG_EPOLL", None, "systemd", Need::BuiltIn),
    need("CONFIG_SIGNALFD", None, "systemd", Need::BuiltIn),
    need("CONFIG_TIMERFD", None, "systemd", Need::BuiltIn),
    need("CONFIG_INOTIFY_USER", None, "systemd", Need::BuiltIn),
    need("CONFIG_FHANDLE", None, "systemd", Need::BuiltIn),
    need("CONFIG_CGROUPS", None, "systemd", Need::BuiltIn),
    need("CONFIG_BINFMT_SCRIPT", None, "scripts", Need::BuiltIn),
    need(
        "CONFIG_SERIAL_8250_CONSOLE",
        None,
        "the console log",
        Need::BuiltIn,
    ),
    need(
        "CONFIG_FW_CFG_SYSFS",
        Some("qemu_fw_cfg"),
        "the seed of boxes that take credentials",
        Need::Useful,
    ),
    need(
        "CONFIG_ISO9660_FS",
        Some("isofs"),
        "the seed of cloud-init boxes, in part",
        Need::Useful,
    ),
    need(
        "CONFIG_VFAT_FS",
        Some("vfat"),
        "the seed of cloud-init boxes",
        Need::Useful,
    ),
    need(
        "CONFIG_VIRTIO_CONSOLE",
        Some("virtio_console"),
        "the guest agent",
        Need::Useful,
    ),
    need(
        "CONFIG_HW_RANDOM_VIRTIO",
        Some("virtio_rng"),
        "random numbers from the host",
        Need::Useful,
    ),
    need(
        "CONFIG_VIRTIO_BALLOON",
        Some("virtio_balloon"),
        "returning free memory to the host",
        Need::Useful,
    ),
    need(
        "CONFIG_SQUASHFS",
        Some("squashfs"),
        "modules on a separate disk",
        Need::Useful,
    ),
    need(
        "CONFIG_AUTOFS_FS",
        Some("autofs4"),
        "systemd's automount units",
        Need::Useful,
    ),
    need("CONFIG_SECCOMP", None, "systemd's sandboxes", Need::Useful),
    need(
        "CONFIG_NAMESPACES",
        None,
        "systemd's sandboxes, containers",
        Need::Useful,
    ),
    need(
        "CONFIG_OVERLAY_FS",
        Some("overlay"),
        "containers",
        Need::Useful,
    ),
];

/// File systems of which the root has one.
const ROOTS: [(&str, &str); 3] = [
    ("CONFIG_EXT4_FS", "ext4"),
    ("CONFIG_XFS_FS", "xfs"),
    ("CONFIG_BTRFS_FS", "btrfs"),
];

/// File systems of synced folders; checked if the machine has one.
const SHARES: [(&str, &str); 3] = [
    ("CONFIG_VIRTIO_FS", "virtiofs"),
    ("CONFIG_9P_FS", "9p"),
    ("CONFIG_NET_9P_VIRTIO", "9pnet_virtio"),
];

/// What a machine needs from its kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guest<'a> {
    /// The file system of the root, if it is known.
    pub root: Option<&'a str>,
    /// Whether its seed is credentials, which the guest reads from QEMU's firmware configuration device.
    pub credentials: bool,
}

/// Finds the options of a kernel in its configuration and its modules. Either may be unknown.
pub fn look(config: Option<&Config>, index: Option<&Index>) -> BTreeMap<String, Presence> {
    let presence = |option: &str, module: Option<&str>| {
        let by_modules = module
            .zip(index)
            .map_or(Presence::Missing, |(module, index)| index.presence(module));
        match (by_modules, config.map(|config| config.presence(option))) {
            // The modules show what really exists.
            (Presence::BuiltIn | Presence::Loadable, _) => by_modules,
            (_, Some(Presence::BuiltIn)) => Presence::BuiltIn,
            // The driver was built as a module, but that module is missing. For an option that is
            // not a driver, the configuration counts.
            (_, Some(Presence::Loadable)) if module.is_none() => Presence::Loadable,
            (_, Some(_)) => Presence::Missing,
            // modules.builtin names drivers, not options.
            (_, None) if module.is_some() && index.is_some() => Presence::Missing,
            (_, None) => Presence::Unknown,
        }
    };
    let required = REQUIREMENTS.iter().map(|it| (it.option, it.module));
    let roots = (ROOTS.iter())
        .chain(&SHARES)
        .map(|(option, module)| (*option, Some(*module)));
    required
        .chain(roots)
        .map(|(option, module)| (option.to_string(), presence(option, module)))
        .collect()
}

/// Compares a kernel's options with what a machine needs.
pub fn judge(options: &BTreeMap<String, Presence>, guest: Guest<'_>) -> Vec<Finding> {
    let presence = |option: &str| *options.get(option).unwrap_or(&Presence::Unknown);
    let mut findings: Vec<Finding> = REQUIREMENTS
        .iter()
        .map(|required| Finding {
            option: required.option,
            what: required.what,
            presence: presence(required.option),
            need: match required.option {
                CREDENTIALS if guest.credentials => Need::Required,
                _ => required.need,
            },
        })
        .collect();
    // If the root's file system is not known, one of them must be present.
    let any = ROOTS
        .iter()
        .any(|(option, _)| presence(option) != Presence::Missing);
    findings.extend(
        ROOTS
            .iter()
            .filter(|(_, module)| guest.root.is_none_or(|root| root == *module))
            .map(|(option, _)| Finding {
                option,
                what: "the root file system",
                presence: presence(option),
                need: if any && guest.root.is_none() {
                    Need::Useful
                } else {
                    Need::Required
                },
            }),
    );
    findings
}

const CREDENTIALS: &str = "CONFIG_FW_CFG_SYSFS";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(findings: &[Finding]) -> Vec<&'static str> {
        findings
            .iter()
            .filter(|finding| finding.is_fatal())
            .map(|finding| finding.option)
            .collect()
    }

    fn examine(config: Option<&Config>, index: Option<&Index>, root: Option<&str>) -> Vec<Finding> {
        judge(
            &look(config, index),
            Guest {
                root,
                credentials: false,
            },
        )
    }

    fn config(without: &[&str], loadable: &[&str]) -> Config {
        let mut text = String::new();
        let all = REQUIREMENTS.iter().map(|required| required.option);
        for option in all.chain(ROOTS.iter().map(|(option, _)| *option)) {
            if loadable.contains(&option) {
                text.push_str(&format!("{option}=m\n"));
            } else if !without.contains(&option) {
                text.push_str(&format!("{option}=y\n"));
            }
        }
        Config::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_module_does_only_where_it_comes_in_time() {
        assert!(names(&examine(Some(&config(&[], &[])), None, None)).is_empty());
        let lacking = config(
            &["CONFIG_VIRTIO_BLK", "CONFIG_SECCOMP"],
            &["CONFIG_UNIX", "CONFIG_VIRTIO_NET"],
        );
        // Without the modules, a loadable driver is missing.
        assert_eq!(
            names(&examine(Some(&lacking), None, None)),
            ["CONFIG_VIRTIO_BLK", "CONFIG_VIRTIO_NET", "CONFIG_UNIX"]
        );
        let index = Index::parse("kernel/virtio_net.ko:\nkernel/virtio_blk.ko:\n", "", "", "");
        assert_eq!(
            names(&examine(Some(&lacking), Some(&index), None)),
            ["CONFIG_UNIX"]
        );
    }

    #[test]
    fn one_root_file_system_is_enough_unless_it_is_known_which() {
        let config = config(&["CONFIG_EXT4_FS", "CONFIG_BTRFS_FS"], &[]);
        assert!(names(&examine(Some(&config), None, None)).is_empty());
        assert_eq!(
            names(&examine(Some(&config), None, Some("ext4"))),
            ["CONFIG_EXT4_FS"]
        );
    }

    #[test]
    fn nothing_known_is_no_lack() {
        let findings = examine(None, None, None);
        assert!(findings.iter().all(|it| it.presence == Presence::Unknown));
        assert!(names(&findings).is_empty());
    }
}
