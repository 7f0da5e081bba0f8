//! Why a machine is paused.

use std::path::PathBuf;

use serde::Serialize;

use crate::report::clean::Shown;

/// Why a machine is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Pause {
    /// Somebody asked for it: `virsh suspend`, virt-manager.
    Asked,
    /// QEMU could not read or write a disk. These are the disks that libvirt reports, or all if it reports none.
    DiskError { disks: Vec<DiskError> },
    /// The guest went to sleep by itself.
    Asleep,
    /// The guest's kernel crashed, and its memory is kept for debugging.
    Crashed,
    /// The guest did not reset its watchdog in time.
    Watchdog,
    /// Another operation works on it, and it continues when that is done.
    Busy { with: &'static str },
    /// libvirt gives no reason.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskError {
    /// The disk's name, which the guest may use too: `vda`.
    pub disk: String,
    pub file: Option<PathBuf>,
    /// Whether the host had no space left for the data.
    pub full: bool,
}

impl Pause {
    /// Whether the pause ends by itself.
    pub fn passes(&self) -> bool {
        matches!(self, Pause::Busy { .. })
    }

    /// Whether the guest can be resumed.
    pub fn can_go_on(&self) -> bool {
        *self != Pause::Crashed
    }
}

impl std::fmt::Display for Pause {
    /// Writes the reason, to follow "is paused: ".
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
                        false => "QEMU got an I/O error on its disk",
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
            Pause::Watchdog => f.write_str("the guest did not reset its watchdog in time"),
            Pause::Busy { with } => write!(f, "it is {with}"),
            Pause::Unknown => f.write_str("libvirt gives no reason"),
        }
    }
}
