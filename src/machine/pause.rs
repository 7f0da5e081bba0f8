//! Why a machine's CPUs stand still.

use std::path::PathBuf;

use serde::Serialize;

use crate::report::clean::Shown;

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
