//! What a machine boots by, and what libvirt keeps for it beside its disk because of that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::machinefile::{Firmware, is_default};

/// What a machine boots by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareSpec {
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: Firmware,
    /// Whether it runs only what is signed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub secure_boot: bool,
    /// Whether the machine has a TPM.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tpm: bool,
}

impl FirmwareSpec {
    pub fn is_uefi(&self) -> bool {
        self.kind == Firmware::Uefi
    }
}

/// What a machine has beside a BIOS: `, UEFI with secure boot, TPM`, or nothing.
impl fmt::Display for FirmwareSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.kind, self.secure_boot) {
            (Firmware::Bios, _) => "",
            (Firmware::Uefi, false) => ", UEFI",
            (Firmware::Uefi, true) => ", UEFI with secure boot",
        })?;
        f.write_str(if self.tpm { ", TPM" } else { "" })
    }
}

/// What libvirt keeps for a machine until it is undefined. It keeps it when the machine is defined without that, but then
/// it would leave it behind: for the next machine of that name or UUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareState {
    /// The variables of UEFI.
    #[serde(default, skip_serializing_if = "is_default")]
    pub variables: bool,
    /// Whether the next start begins with new variables: with those that the firmware comes with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fresh: bool,
    /// What the TPM has in it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tpm: bool,
}

impl FirmwareState {
    /// Returns the state after a machine that had `has` and this state is defined with `spec`.
    ///
    /// Other variables belong to secure boot than to none: they have the keys. libvirt would take a file that is there, so
    /// a machine that has none of its own begins with new ones.
    #[must_use]
    pub fn defined(self, has: &FirmwareSpec, spec: &FirmwareSpec) -> Self {
        let is_other = !self.variables || has.secure_boot != spec.secure_boot;
        FirmwareState {
            variables: self.variables || spec.is_uefi(),
            fresh: spec.is_uefi() && (self.fresh || is_other),
            tpm: self.tpm || spec.tpm,
        }
    }

    /// Whether libvirt would leave something behind if a machine that is defined with `spec` were undefined.
    pub fn outlasts(self, spec: &FirmwareSpec) -> bool {
        (self.variables && !spec.is_uefi()) || (self.tpm && !spec.tpm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIOS: FirmwareSpec = FirmwareSpec {
        kind: Firmware::Bios,
        secure_boot: false,
        tpm: false,
    };
    const UEFI: FirmwareSpec = FirmwareSpec {
        kind: Firmware::Uefi,
        ..BIOS
    };
    const SECURE: FirmwareSpec = FirmwareSpec {
        secure_boot: true,
        tpm: true,
        ..UEFI
    };

    #[test]
    fn variables_are_new_when_they_would_be_others() {
        // (specs one after another, which of their starts begin with new variables)
        for (specs, fresh) in [
            (&[BIOS, BIOS][..], &[false, false][..]),
            (&[UEFI, UEFI], &[true, false]),
            (&[UEFI, BIOS, UEFI], &[true, false, false]),
            (
                &[BIOS, UEFI, SECURE, SECURE, UEFI],
                &[false, true, true, false, true],
            ),
            (&[UEFI, BIOS, SECURE], &[true, false, true]),
        ] {
            let mut state = FirmwareState::default();
            let mut has = BIOS;
            for (spec, wanted) in specs.iter().zip(fresh) {
                state = state.defined(&has, spec);
                assert_eq!(state.fresh, *wanted, "{specs:?}");
                // Killed before it started: the next definition says the same.
                assert_eq!(state.defined(spec, spec), state);
                (state.fresh, has) = (false, *spec);
            }
        }
    }

    #[test]
    fn a_plan_says_what_is_not_plain() {
        let said = [BIOS, UEFI, SECURE].map(|it| it.to_string());
        assert_eq!(said, ["", ", UEFI", ", UEFI with secure boot, TPM"]);
    }

    #[test]
    fn what_a_definition_does_not_have_outlasts_it() {
        let state = FirmwareState::default().defined(&BIOS, &SECURE);
        assert!(!state.outlasts(&SECURE));
        assert!(state.outlasts(&UEFI));
        assert!(state.defined(&SECURE, &BIOS).outlasts(&BIOS));
        assert!(
            !FirmwareState::default()
                .defined(&BIOS, &BIOS)
                .outlasts(&BIOS)
        );
    }
}
