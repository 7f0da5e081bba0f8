//! Makes a disk whose space on the host is fully allocated from the start.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path};

use crate::{
    host::{
        free_space,
        process::{Command, Limits},
    },
    machinefile::Bytes,
    report::clean::Shown,
};

use super::error::ApplyError;

/// Makes a qcow2 overlay of `size` over `backing` with every cluster allocated. libvirt does not preallocate
/// images with a backing file, and qemu-img does so only with subclusters, which distinguish allocated from
/// written.
pub(super) fn create(
    overlay: &Path,
    size: Bytes,
    backing: &Path,
    backing_format: &str,
    machine: &str,
) -> Result<(), ApplyError> {
    let folder = overlay.parent().unwrap_or(Path::new("/"));
    if let Some(free) = free_space::lacking(folder, size.0) {
        return Err(ApplyError::NoRoom {
            machine: machine.to_string(),
            size,
            folder: folder.shown(),
            free: crate::report::bytes(free),
        });
    }
    let made = Command::new("qemu-img", "qemu-utils")
        // -u: do not open the box, since its size is not needed.
        .args(["create", "-q", "-u", "-f", "qcow2", "-o"])
        .arg("extended_l2=on,cluster_size=128k,preallocation=falloc")
        .arg("-b")
        .arg(backing)
        .args(["-F", backing_format])
        .arg(overlay)
        .arg(size.0.to_string())
        .limits(Limits::WORK)
        .run();
    let message = match made {
        // The mode that libvirt gives to other disks, whatever the umask.
        Ok(output) if output.status.success() => {
            return std::fs::set_permissions(overlay, Permissions::from_mode(0o600)).map_err(
                |source| ApplyError::Io {
                    doing: format!("set the mode of {}", overlay.shown()),
                    source,
                },
            );
        }
        Ok(output) => output.message(),
        Err(error) => error.to_string(),
    };
    // An unfinished file would be taken for a disk.
    let _ = std::fs::remove_file(overlay);
    Err(ApplyError::NotPreallocated {
        machine: machine.to_string(),
        message,
    })
}
