//! Decides which firmware a machine boots by.

use crate::{
    boxes::{Boot, Store, StoredBox},
    failure::Failure,
    machine::{FirmwareSpec, KernelSpec, Observed},
    machinefile::{Firmware, Machine},
};

/// Returns what a machine boots by: what the Machinefile says, else what the disk of its box needs. `stored` is the box
/// that it is made from, if that is still in the store.
///
/// A kernel that QEMU loads needs nothing of the disk, so nothing but a BIOS to start it.
///
/// # Errors
/// If the disk of the box of a new machine cannot be read.
pub fn wanted_firmware(
    store: &Store,
    machine: &Machine,
    stored: Option<&StoredBox>,
    kernel: Option<&KernelSpec>,
    observed: Option<&Observed>,
) -> Result<FirmwareSpec, Failure> {
    let recorded = observed.map(|it| it.record.spec.firmware.kind);
    let by_box = |stored: &StoredBox| match (store.firmware_of(stored), recorded) {
        (Ok(firmware), _) => Ok(firmware),
        (Err(_), Some(recorded)) => Ok(recorded),
        (Err(error), None) => Err(Failure::from(error)),
    };
    let kind = match (machine.firmware, stored) {
        (Some(said), _) => said,
        (None, Some(stored)) if is_loaded_by_qemu(stored, kernel) => Firmware::Bios,
        (None, Some(stored)) => by_box(stored)?,
        (None, None) => recorded.unwrap_or_default(),
    };
    Ok(FirmwareSpec {
        kind,
        secure_boot: machine.secure_boot,
        tpm: machine.tpm,
    })
}

/// Whether QEMU loads the kernel, and not the disk's own bootloader.
pub fn is_loaded_by_qemu(stored: &StoredBox, kernel: Option<&KernelSpec>) -> bool {
    matches!(stored.manifest.boot, Boot::Direct { .. })
        || kernel.is_some_and(KernelSpec::replaces_the_boxs)
}
