//! What a machine boots by: its firmware, secure boot, a TPM.

use crate::host::firmware::Firmware;

use super::{
    decode::Draft,
    diagnostics::{Errors, MachinefileError, Spanned},
    tuning::Spans,
};

/// Returns the firmware that the Machinefile asks for. Only UEFI has secure boot.
pub(super) fn wanted(draft: &Draft) -> Option<Firmware> {
    let said = draft.firmware.as_ref().map(|firmware| firmware.value);
    said.or(is_set(&draft.secure_boot).then_some(Firmware::Uefi))
}

pub(super) fn is_set(value: &Option<Spanned<bool>>) -> bool {
    value.as_ref().is_some_and(|it| it.value)
}

/// Refuses secure boot without UEFI.
pub(super) fn check(machine: &str, draft: &Draft, errors: &mut Errors) {
    if wanted(draft) == Some(Firmware::Bios)
        && let Some(asked) = draft.secure_boot.as_ref().filter(|it| it.value)
    {
        errors.push(
            MachinefileError::new(
                &asked.span,
                format!("machine {machine:?} boots by a BIOS, which has no secure boot"),
                "only UEFI has it",
            )
            .help("write firmware \"uefi\", or remove `secure-boot`"),
        );
    }
}

/// Keeps the places of what only a host can check.
pub(super) fn note_spans(draft: &Draft, spans: &mut Spans) {
    if let Some(firmware) = &draft.firmware {
        spans.insert("firmware", firmware.span.clone());
    }
    for (node, value) in [("secure-boot", &draft.secure_boot), ("tpm", &draft.tpm)] {
        if let Some(set) = value.as_ref().filter(|it| it.value) {
            spans.insert(node, set.span.clone());
        }
    }
}
