//! Writes and reads what a domain has of its firmware and its TPM (libvirt.org/formatdomain.html, "BIOS bootloader" and
//! "TPM device"). libvirt chooses the files of the firmware by the descriptions that the host's packages install
//! (QEMU's docs/interop/firmware.json), and keeps the variables in a file of the domain's own.

use std::io;

use roxmltree::Node;

use crate::machine::FirmwareSpec;

use super::xml::{W, empty};

/// The alias of stead's own TPM.
const TPM_ALIAS: &str = "ua-stead-tpm";

/// Returns the attribute of `<os>` by which libvirt chooses the firmware.
pub(super) fn attribute(firmware: &FirmwareSpec) -> Option<(&'static str, &'static str)> {
    firmware.is_uefi().then_some(("firmware", "efi"))
}

/// Writes what the firmware must have.
pub(super) fn choice(w: &mut W, firmware: &FirmwareSpec) -> io::Result<()> {
    if !firmware.is_uefi() {
        return Ok(());
    }
    w.create_element("firmware").write_inner_content(|w| {
        let feature =
            |w: &mut W, enabled, name| empty(w, "feature", &[("enabled", enabled), ("name", name)]);
        if !firmware.secure_boot {
            return feature(w, "no", "secure-boot");
        }
        feature(w, "yes", "secure-boot")?;
        // Without keys it would run everything.
        feature(w, "yes", "enrolled-keys")
    })?;
    Ok(())
}

/// Writes what secure boot needs: a mode of the CPU in which only the firmware can write the variables.
pub(super) fn features(w: &mut W, firmware: &FirmwareSpec) -> io::Result<()> {
    match firmware.secure_boot {
        true => empty(w, "smm", &[("state", "on")]),
        false => Ok(()),
    }
}

pub(super) fn tpm(w: &mut W, firmware: &FirmwareSpec) -> io::Result<()> {
    if !firmware.tpm {
        return Ok(());
    }
    w.create_element("tpm")
        .with_attribute(("model", "tpm-crb"))
        .write_inner_content(|w| {
            empty(w, "backend", &[("type", "emulator"), ("version", "2.0")])?;
            empty(w, "alias", &[("name", TPM_ALIAS)])
        })?;
    Ok(())
}

/// Whether a `<tpm>` is stead's own.
pub(super) fn is_own_tpm(tpm: Node<'_, '_>) -> bool {
    (tpm.children()).any(|it| it.has_tag_name("alias") && it.attribute("name") == Some(TPM_ALIAS))
}

/// Whether an element of `<os>` names a file of the firmware that libvirt chose.
pub(super) fn is_file(element: Node<'_, '_>) -> bool {
    let os = element.parent_element();
    os.is_some_and(|os| os.attribute("firmware") == Some("efi"))
        && matches!(element.tag_name().name(), "loader" | "nvram")
}
