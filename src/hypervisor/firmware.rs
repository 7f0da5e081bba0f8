//! Firmware and TPMs: what this host has for machines, and what libvirt keeps for a machine because of them.

use roxmltree::{Document, Node};

use crate::{
    machine::{FirmwareSpec, Identity, Record},
    machinefile::{Accel, Firmware},
};

use super::{
    connection::Connection,
    domain_xml::bare_xml,
    error::{Doing, HypervisorError, PACKAGES_OF_TPM, PACKAGES_OF_UEFI},
};

/// What this host has for machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirmwareAbilities {
    pub uefi: bool,
    /// Whether its firmware for UEFI can have secure boot.
    pub secure_boot: bool,
    pub tpm: bool,
}

impl FirmwareAbilities {
    /// Reads libvirt's domain capabilities (libvirt.org/formatdomaincaps.html).
    fn of(xml: &str) -> Result<Self, String> {
        let document = Document::parse(xml).map_err(|error| error.to_string())?;
        let root = document.root_element();
        let child = |node: Node<'_, '_>, name: &str| {
            (node.children().find(|it| it.has_tag_name(name))).map(|it| it.id())
        };
        let at = |path: &[&str]| {
            path.iter().try_fold(root, |node, name| {
                child(node, name).and_then(|id| document.get_node(id))
            })
        };
        let has = |path: &[&str], name: &str, value: &str| {
            let lists = at(path).into_iter().flat_map(|it| it.children());
            (lists.filter(|it| it.has_tag_name("enum") && it.attribute("name") == Some(name)))
                .flat_map(|it| it.children())
                .any(|it| it.has_tag_name("value") && it.text() == Some(value))
        };
        Ok(FirmwareAbilities {
            uefi: has(&["os"], "firmware", "efi"),
            secure_boot: has(&["os", "loader"], "secure", "yes"),
            tpm: has(&["devices", "tpm"], "backendModel", "emulator")
                && has(&["devices", "tpm"], "model", "tpm-crb"),
        })
    }

    /// Returns what a machine needs and this host lacks, the node of the Machinefile that asks for it, and how to get it.
    pub fn lack(self, wanted: &FirmwareSpec) -> Option<(&'static str, &'static str, &'static str)> {
        let is_uefi = wanted.kind == Firmware::Uefi;
        if is_uefi && !self.uefi {
            return Some((
                "firmware",
                "libvirt finds no firmware for UEFI on this computer",
                PACKAGES_OF_UEFI,
            ));
        }
        if wanted.secure_boot && !self.secure_boot {
            return Some((
                "secure-boot",
                "libvirt finds no firmware with secure boot on this computer",
                PACKAGES_OF_UEFI,
            ));
        }
        (wanted.tpm && !self.tpm).then_some((
            "tpm",
            "libvirt finds no swtpm on this computer, which gives machines a TPM",
            PACKAGES_OF_TPM,
        ))
    }
}

impl Connection {
    /// Returns what this host has for machines that run like this.
    ///
    /// # Errors
    /// If libvirt does not answer.
    pub fn firmware_abilities(&self, accel: Accel) -> Result<FirmwareAbilities, HypervisorError> {
        let kind = match accel {
            Accel::Kvm => "kvm",
            Accel::Tcg => "qemu",
        };
        let doing = "asking libvirt for firmware";
        let arch = Some(std::env::consts::ARCH);
        let xml = self
            .connect
            .domain_capabilities(None, arch, Some("q35"), Some(kind), 0)
            .doing(|| doing.into())?;
        FirmwareAbilities::of(&xml).map_err(|message| HypervisorError::Libvirt {
            doing: doing.into(),
            message,
            code: 0,
            hint: None,
        })
    }

    /// Removes a machine's domain and all that libvirt keeps for it. If it does not exist, there is nothing to do.
    ///
    /// libvirt removes only what the definition has. For a machine that had more before, it is defined with all of it
    /// first.
    ///
    /// # Errors
    /// If libvirt refuses.
    pub fn undefine(&self, identity: &Identity) -> Result<(), HypervisorError> {
        let Some(domain) = self.lookup(identity)? else {
            return Ok(());
        };
        let Some(record) = domain
            .record()?
            .filter(|it| it.firmware.outlasts(&it.spec.firmware))
        else {
            return domain.undefine();
        };
        let all = Record {
            spec: crate::machine::Spec {
                firmware: FirmwareSpec {
                    kind: match record.firmware.variables {
                        true => Firmware::Uefi,
                        false => Firmware::Bios,
                    },
                    secure_boot: false,
                    tpm: record.firmware.tpm,
                },
                ..record.spec.clone()
            },
            ..record
        };
        let xml = bare_xml(identity, &all).map_err(|message| HypervisorError::Record {
            domain: identity.domain.clone(),
            uri: crate::machine::MACHINE_URI,
            message,
        })?;
        self.define(identity, &xml)?.undefine()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libvirt 9.0 says, cut down.
    fn capabilities(firmware: &str, secure: &str, backend: &str) -> String {
        format!(
            "<domainCapabilities><os supported='yes'><enum name='firmware'>{firmware}</enum>\
             <loader supported='yes'><value>/usr/share/OVMF/OVMF_CODE_4M.fd</value><enum name='type'><value>rom</value></enum>\
             <enum name='secure'>{secure}<value>no</value></enum></loader></os><devices><tpm supported='yes'>\
             <enum name='model'><value>tpm-tis</value><value>tpm-crb</value></enum>\
             <enum name='backendModel'><value>passthrough</value>{backend}</enum></tpm></devices></domainCapabilities>"
        )
    }

    fn wanted(kind: Firmware, secure_boot: bool, tpm: bool) -> FirmwareSpec {
        FirmwareSpec {
            kind,
            secure_boot,
            tpm,
        }
    }

    #[test]
    fn what_the_host_lacks_is_named() {
        use Firmware::{Bios, Uefi};
        let (efi, yes, emulator) = (
            "<value>efi</value>",
            "<value>yes</value>",
            "<value>emulator</value>",
        );
        let lack = |xml: &str, wanted: &FirmwareSpec| {
            FirmwareAbilities::of(xml)
                .unwrap()
                .lack(wanted)
                .map(|it| it.0)
        };
        let all = capabilities(efi, yes, emulator);
        let none = capabilities("", "", "");
        assert_eq!(lack(&all, &wanted(Uefi, true, true)), None);
        assert_eq!(lack(&none, &wanted(Bios, false, false)), None);
        assert_eq!(lack(&none, &wanted(Uefi, false, true)), Some("firmware"));
        assert_eq!(lack(&none, &wanted(Bios, false, true)), Some("tpm"));
        let plain = capabilities(efi, "", emulator);
        assert_eq!(lack(&plain, &wanted(Uefi, false, true)), None);
        assert_eq!(lack(&plain, &wanted(Uefi, true, true)), Some("secure-boot"));
        assert_eq!(
            lack("<domainCapabilities/>", &wanted(Uefi, false, false)),
            Some("firmware")
        );
        assert!(FirmwareAbilities::of("<").is_err());
    }
}
