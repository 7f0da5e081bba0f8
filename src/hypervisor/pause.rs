//! Why a domain is paused (libvirt.org/html/libvirt-libvirt-domain.html#virDomainState).

use std::ffi::{CStr, c_int};

use virt::{error::Error, sys};

use crate::machine::{DiskError, Layout, Pause, Power};

use super::{domain::Domain, error::HypervisorError};

impl Pause {
    fn of(reason: u32) -> Self {
        let busy = |with| Pause::Busy { with };
        match reason {
            sys::VIR_DOMAIN_PAUSED_USER => Pause::Asked,
            sys::VIR_DOMAIN_PAUSED_IOERROR => Pause::DiskError { disks: Vec::new() },
            sys::VIR_DOMAIN_PAUSED_WATCHDOG => Pause::Watchdog,
            sys::VIR_DOMAIN_PAUSED_CRASHED => Pause::Crashed,
            sys::VIR_DOMAIN_PAUSED_MIGRATION | sys::VIR_DOMAIN_PAUSED_POSTCOPY => {
                busy("being migrated")
            }
            sys::VIR_DOMAIN_PAUSED_SAVE => busy("being saved"),
            sys::VIR_DOMAIN_PAUSED_DUMP => busy("being dumped"),
            sys::VIR_DOMAIN_PAUSED_SNAPSHOT => busy("being put into a snapshot"),
            sys::VIR_DOMAIN_PAUSED_SHUTTING_DOWN => busy("shutting down"),
            // It was paused when the snapshot was made.
            sys::VIR_DOMAIN_PAUSED_FROM_SNAPSHOT => Pause::Asked,
            _ => Pause::Unknown,
        }
    }
}

impl Domain {
    /// Returns its state, and why it is paused if it is.
    ///
    /// # Errors
    /// If libvirt does not answer.
    pub fn state(&self) -> Result<(Power, Option<Pause>), HypervisorError> {
        let (state, reason) = self.raw_state()?;
        let pause = match state {
            sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => return Ok((Power::Running, None)),
            sys::VIR_DOMAIN_SHUTDOWN => return Ok((Power::Stopping, None)),
            // QEMU stands still for a moment while libvirt starts it: that is part of the boot.
            sys::VIR_DOMAIN_PAUSED if reason == sys::VIR_DOMAIN_PAUSED_STARTING_UP => {
                return Ok((Power::Running, None));
            }
            sys::VIR_DOMAIN_PAUSED => Pause::of(reason),
            sys::VIR_DOMAIN_PMSUSPENDED => Pause::Asleep,
            // QEMU still runs here: without QEMU, the state would be "shut off", whatever ended it.
            sys::VIR_DOMAIN_CRASHED => Pause::Crashed,
            _ => return Ok((Power::Off, None)),
        };
        let pause = match pause {
            Pause::DiskError { .. } => Pause::DiskError {
                disks: self.disk_errors()?,
            },
            other => other,
        };
        Ok((Power::Paused, Some(pause)))
    }

    /// Whether it is off because QEMU ended without being told to.
    pub(super) fn has_failed(&self) -> Result<bool, HypervisorError> {
        let (state, reason) = self.raw_state()?;
        Ok(state == sys::VIR_DOMAIN_SHUTOFF && reason == sys::VIR_DOMAIN_SHUTOFF_CRASHED)
    }

    /// Whether it runs and was paused, asleep or saved since it booted.
    ///
    /// # Errors
    /// If libvirt does not answer.
    pub(super) fn was_paused(&self) -> Result<bool, HypervisorError> {
        let (state, reason) = self.raw_state()?;
        Ok(state == sys::VIR_DOMAIN_RUNNING
            && matches!(
                reason,
                sys::VIR_DOMAIN_RUNNING_UNPAUSED
                    | sys::VIR_DOMAIN_RUNNING_RESTORED
                    | sys::VIR_DOMAIN_RUNNING_FROM_SNAPSHOT
                    | sys::VIR_DOMAIN_RUNNING_SAVE_CANCELED
                    | sys::VIR_DOMAIN_RUNNING_WAKEUP
                    | sys::VIR_DOMAIN_RUNNING_CRASHED
                    | sys::VIR_DOMAIN_RUNNING_MIGRATED
                    | sys::VIR_DOMAIN_RUNNING_MIGRATION_CANCELED
                    | sys::VIR_DOMAIN_RUNNING_POSTCOPY
            ))
    }

    fn raw_state(&self) -> Result<(u32, u32), HypervisorError> {
        tracing::debug!("libvirt: reading the state of domain {}", self.name());
        let (mut state, mut reason): (c_int, c_int) = (0, 0);
        // SAFETY: the domain is valid as long as self, and libvirt writes to both integers only.
        let done =
            unsafe { sys::virDomainGetState(self.as_ptr(), &raw mut state, &raw mut reason, 0) };
        if done < 0 {
            let error = Error::last_error();
            // A domain without a stored definition is gone when it stops.
            if error.code().to_raw() == sys::VIR_ERR_NO_DOMAIN {
                return Ok((sys::VIR_DOMAIN_SHUTOFF, 0));
            }
            return Err(HypervisorError::libvirt(
                format!("reading the state of domain {}", self.name()),
                &error,
            ));
        }
        Ok((state.unsigned_abs(), reason.unsigned_abs()))
    }

    /// Resumes it. Returns at once; it may soon be paused again for the same reason.
    ///
    /// # Errors
    /// If libvirt cannot resume it.
    pub fn resume(&self, pause: &Pause) -> Result<(), HypervisorError> {
        tracing::debug!("libvirt: resuming domain {}", self.name());
        let done = match pause {
            Pause::Asleep => self.virt().pm_wakeup(0),
            _ => self.virt().resume(),
        };
        match done {
            // Somebody else has resumed it, or it has stopped; the caller checks which.
            Err(_) if self.power()? != Power::Paused => Ok(()),
            Err(error) => Err(HypervisorError::libvirt(
                format!("resuming domain {}", self.name()),
                &error,
            )),
            Ok(()) => Ok(()),
        }
    }

    /// Returns the disks that QEMU could not read or write, or all if libvirt does not know which.
    fn disk_errors(&self) -> Result<Vec<DiskError>, HypervisorError> {
        const MOST: usize = 32;
        let xml = self.live_xml()?;
        let disks = Layout::parse(&xml).map(|it| it.disks).unwrap_or_default();
        let mut errors = [sys::virDomainDiskError {
            disk: std::ptr::null_mut(),
            error: 0,
        }; MOST];
        tracing::debug!("libvirt: reading the disk errors of domain {}", self.name());
        // SAFETY: the array has space for as many entries as are asked for.
        let count = unsafe {
            sys::virDomainGetDiskErrors(self.as_ptr(), errors.as_mut_ptr(), MOST as u32, 0)
        };
        let mut found = Vec::new();
        for error in errors
            .iter()
            .take(usize::try_from(count).unwrap_or_default())
        {
            if error.disk.is_null() {
                continue;
            }
            // SAFETY: libvirt made this C string, and the caller must free it once.
            let disk = unsafe {
                let disk = CStr::from_ptr(error.disk).to_string_lossy().into_owned();
                nix::libc::free(error.disk.cast());
                disk
            };
            let file = (disks.iter().find(|it| it.target == disk)).and_then(|it| it.source.clone());
            found.push(DiskError {
                file,
                full: error.error.unsigned_abs() == sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE,
                disk,
            });
        }
        if found.is_empty() {
            found.extend(
                (disks.into_iter().filter(|disk| !disk.readonly)).map(|disk| DiskError {
                    disk: disk.target,
                    file: disk.source,
                    full: false,
                }),
            );
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        for reason in [
            sys::VIR_DOMAIN_PAUSED_SAVE,
            sys::VIR_DOMAIN_PAUSED_MIGRATION,
            sys::VIR_DOMAIN_PAUSED_SNAPSHOT,
        ] {
            assert!(Pause::of(reason).passes());
        }
        for reason in [
            sys::VIR_DOMAIN_PAUSED_USER,
            sys::VIR_DOMAIN_PAUSED_IOERROR,
            sys::VIR_DOMAIN_PAUSED_UNKNOWN,
            sys::VIR_DOMAIN_PAUSED_CRASHED,
        ] {
            assert!(!Pause::of(reason).passes());
        }
        assert!(!Pause::of(sys::VIR_DOMAIN_PAUSED_CRASHED).can_go_on());
    }

    #[test]
    fn a_full_disk_is_told_with_its_file() {
        let pause = Pause::DiskError {
            disks: vec![DiskError {
                disk: "vda".into(),
                file: Some("/data/images/a.qcow2".into()),
                full: true,
            }],
        };
        assert_eq!(
            pause.to_string(),
            "there is no space left for its disk vda (/data/images/a.qcow2)"
        );
        let json = serde_json::to_string(&pause).unwrap();
        assert_eq!(
            json,
            r#"{"reason":"disk-error","disks":[{"disk":"vda","file":"/data/images/a.qcow2","full":true}]}"#
        );
    }
}
