//! Folders of the host as devices of a machine (libvirt.org/formatdomain.html#filesystems).

use std::{io, path::PathBuf};

use crate::machine::ShareKind;

use super::{
    connection::Connection,
    xml::{W, empty},
};

/// A folder of the host, and how QEMU reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    pub kind: ShareKind,
    /// For virtiofs, the socket of a running virtiofsd; for 9p, the folder itself.
    pub source: PathBuf,
    pub tag: String,
    pub readonly: bool,
}

/// Whether QEMU must share the guest's memory: virtiofsd reads and writes it directly.
pub(super) fn needs_shared_memory(filesystems: &[Filesystem]) -> bool {
    (filesystems.iter()).any(|filesystem| filesystem.kind == ShareKind::Virtiofs)
}

pub(super) fn filesystem(w: &mut W, filesystem: &Filesystem) -> io::Result<()> {
    let source = filesystem.source.to_string_lossy();
    let element = w
        .create_element("filesystem")
        .with_attribute(("type", "mount"));
    let element = match filesystem.kind {
        ShareKind::Virtiofs => element,
        // QEMU can only create files of its own user. "squash" ignores that, where "passthrough" would fail (QEMU
        // calls this model "none"). "mapped" would hide modes and symlinks from the host.
        ShareKind::NineP => element
            .with_attribute(("accessmode", "squash"))
            // The folder may contain several file systems: this keeps their inodes apart.
            .with_attribute(("multidevs", "remap")),
    };
    element.write_inner_content(|w| {
        match filesystem.kind {
            // virtiofsd itself got its options, such as read-only, when it was started.
            ShareKind::Virtiofs => {
                empty(w, "driver", &[("type", "virtiofs")])?;
                empty(w, "source", &[("socket", &*source)])?;
            }
            ShareKind::NineP => empty(w, "source", &[("dir", &*source)])?,
        }
        empty(w, "target", &[("dir", filesystem.tag.as_str())])?;
        if filesystem.readonly && filesystem.kind == ShareKind::NineP {
            empty(w, "readonly", &[])?;
        }
        Ok(())
    })?;
    Ok(())
}

impl Connection {
    /// Returns the user that libvirt runs QEMU as (uid, gid), if it is not libvirt's own: the base label of the
    /// security model "dac" (libvirt.org/formatcaps.html).
    pub fn qemu_ids(&self) -> Option<(u32, u32)> {
        ids_of(&self.connect.capabilities().ok()?)
    }

    /// Whether libvirt confines every QEMU by an AppArmor profile.
    pub fn has_apparmor(&self) -> bool {
        (self.connect.capabilities()).is_ok_and(|xml| xml.contains("<model>apparmor</model>"))
    }
}

/// Reads the ids of `<baselabel type='kvm'>+64055:+64055</baselabel>`.
fn ids_of(capabilities: &str) -> Option<(u32, u32)> {
    let (_, dac) = capabilities.split_once("<model>dac</model>")?;
    let (_, label) = dac.split_once("<baselabel")?;
    let (label, _) = label.split_once('>')?.1.split_once('<')?;
    let (uid, gid) = label.split_once(':')?;
    let number = |text: &str| text.trim_start_matches('+').parse().ok();
    number(uid).zip(number(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_qemu_runs_as() {
        let xml = "<secmodel><model>apparmor</model></secmodel><secmodel>\n<model>dac</model><doi>0</doi>\n\
            <baselabel type='kvm'>+64055:+107</baselabel><baselabel type='qemu'>+1:+2</baselabel></secmodel>";
        assert_eq!(ids_of(xml), Some((64055, 107)));
        assert_eq!(ids_of("<secmodel><model>none</model></secmodel>"), None);
    }
}
