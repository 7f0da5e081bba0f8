//! Why a domain that is there does not run (libvirt.org/html/libvirt-libvirt-domain.html#virDomainState).

use std::{
    ffi::{CStr, c_int},
    path::PathBuf,
};

use serde::Serialize;
use virt::{error::Error, sys};

use crate::report::clean::Shown;

use super::{
    definition::Layout,
    domain::{Domain, Power},
    error::HypervisorError,
};

/// Why its CPUs stand still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Pause {
    /// Somebody asked for it: `virsh suspend`, virt-manager.
    Asked,
    /// QEMU could not read or write a disk. Those that libvirt knows of, or all.
    DiskError { disks: Vec<DiskError> },
    /// The guest went to sleep by itself.
    Asleep,
    /// The guest's kernel crashed, and its memory is kept to be looked at.
    Crashed,
    /// The guest did not feed its watchdog.
    Watchdog,
    /// Something is at work on it, and it goes on when that is done.
    Busy { with: &'static str },
    /// libvirt does not say.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskError {
    /// As the guest may call it: `vda`.
    pub disk: String,
    pub file: Option<PathBuf>,
    /// Whether the host had no room for what was written.
    pub full: bool,
}

impl Pause {
    /// Whether it ends by itself.
    pub fn passes(&self) -> bool {
        matches!(self, Pause::Busy { .. })
    }

    /// Whether the guest can go on from here.
    pub fn can_go_on(&self) -> bool {
        *self != Pause::Crashed
    }

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
            sys::VIR_DOMAIN_PAUSED_STARTING_UP => busy("starting"),
            // It was like that when the snapshot was made.
            sys::VIR_DOMAIN_PAUSED_FROM_SNAPSHOT => Pause::Asked,
            _ => Pause::Unknown,
        }
    }
}

impl std::fmt::Display for Pause {
    /// What follows "is paused: ".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pause::Asked => {
                f.write_str("something other than stead paused it (such as `virsh suspend`)")
            }
            Pause::DiskError { disks } if disks.is_empty() => {
                f.write_str("QEMU could not write to its disk")
            }
            Pause::DiskError { disks } => {
                for (n, disk) in disks.iter().enumerate() {
                    f.write_str(if n == 0 { "" } else { "; " })?;
                    let what = match disk.full {
                        true => "there is no space left for its disk",
                        false => "QEMU met an I/O error on its disk",
                    };
                    write!(f, "{what} {}", disk.disk)?;
                    if let Some(file) = &disk.file {
                        write!(f, " ({})", file.shown())?;
                    }
                }
                Ok(())
            }
            Pause::Asleep => f.write_str("the guest suspended itself"),
            Pause::Crashed => f.write_str("the guest crashed"),
            Pause::Watchdog => f.write_str("the guest did not feed its watchdog"),
            Pause::Busy { with } => write!(f, "it is {with}"),
            Pause::Unknown => f.write_str("libvirt does not say why"),
        }
    }
}

impl Domain {
    /// How it is, and why it stands still where it does.
    pub fn state(&self) -> Result<(Power, Option<Pause>), HypervisorError> {
        let (state, reason) = self.raw_state()?;
        let pause = match state {
            sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => return Ok((Power::Running, None)),
            sys::VIR_DOMAIN_SHUTDOWN => return Ok((Power::Stopping, None)),
            sys::VIR_DOMAIN_PAUSED => Pause::of(reason),
            sys::VIR_DOMAIN_PMSUSPENDED => Pause::Asleep,
            // QEMU is there: one that is gone is "shut off", whatever ended it.
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

    fn raw_state(&self) -> Result<(u32, u32), HypervisorError> {
        let (mut state, mut reason): (c_int, c_int) = (0, 0);
        // SAFETY: the domain is valid as long as self, and libvirt writes to both integers only.
        let done =
            unsafe { sys::virDomainGetState(self.as_ptr(), &raw mut state, &raw mut reason, 0) };
        if done < 0 {
            return Err(HypervisorError::libvirt(
                format!("reading the state of domain {}", self.name()),
                &Error::last_error(),
            ));
        }
        Ok((state.unsigned_abs(), reason.unsigned_abs()))
    }

    /// Lets it go on. Returns at once; it may stand still again for the same reason.
    pub fn resume(&self, pause: &Pause) -> Result<(), HypervisorError> {
        let done = match pause {
            Pause::Asleep => self.virt().pm_wakeup(0),
            _ => self.virt().resume(),
        };
        match done {
            // Somebody else was first, or it went away: who looks again sees which.
            Err(_) if self.power()? != Power::Paused => Ok(()),
            Err(error) => Err(HypervisorError::libvirt(
                format!("resuming domain {}", self.name()),
                &error,
            )),
            Ok(()) => Ok(()),
        }
    }

    /// Disks that QEMU could not read or write; all of them where libvirt does not know which.
    fn disk_errors(&self) -> Result<Vec<DiskError>, HypervisorError> {
        const MOST: usize = 32;
        let xml = self.live_xml()?;
        let disks = Layout::parse(&xml).map(|it| it.disks).unwrap_or_default();
        let mut errors = [sys::virDomainDiskError {
            disk: std::ptr::null_mut(),
            error: 0,
        }; MOST];
        // SAFETY: the array has room for as many as are asked for.
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
            // SAFETY: libvirt made the string, it is whole, and it is ours to free, once.
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
