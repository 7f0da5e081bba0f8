//! A disk all of whose room on the host is taken when it is made.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path, process::Command};

use crate::{host::room, machinefile::Bytes, report::clean::Shown};

use super::error::ApplyError;

/// Makes a qcow2 overlay of `size` over `backing` with every cluster allocated. libvirt does not
/// preallocate what has a backing file, and qemu-img only with subclusters, by which it tells
/// allocated from written.
pub(super) fn create(
    overlay: &Path,
    size: Bytes,
    backing: &Path,
    backing_format: &str,
    machine: &str,
) -> Result<(), ApplyError> {
    let folder = overlay.parent().unwrap_or(Path::new("/"));
    if let Some(free) = room::lacking(folder, size.0) {
        return Err(ApplyError::NoRoom {
            machine: machine.to_string(),
            size,
            folder: folder.shown(),
            free: crate::report::bytes(free),
        });
    }
    let output = Command::new("qemu-img")
        // -u: the box is not opened, since its size is not asked for.
        .args(["create", "-q", "-u", "-f", "qcow2", "-o"])
        .arg("extended_l2=on,cluster_size=128k,preallocation=falloc")
        .arg("-b")
        .arg(backing)
        .args(["-F", backing_format])
        .arg(overlay)
        .arg(size.0.to_string())
        .output()
        .map_err(|source| ApplyError::Io {
            doing: "run qemu-img".into(),
            source,
        })?;
    if output.status.success() {
        // As libvirt makes those without preallocation, whatever the umask.
        return std::fs::set_permissions(overlay, Permissions::from_mode(0o600)).map_err(
            |source| ApplyError::Io {
                doing: format!("close {} to others", overlay.shown()),
                source,
            },
        );
    }
    // What was made of it would be taken for a disk.
    let _ = std::fs::remove_file(overlay);
    Err(ApplyError::NotPreallocated {
        machine: machine.to_string(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_string(),
    })
}
