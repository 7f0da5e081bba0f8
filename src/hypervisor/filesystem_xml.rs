//! Folders of the host as devices of a machine (libvirt.org/formatdomain.html#filesystems).

use std::{io, path::PathBuf};

use crate::machine::ShareKind;

use super::{
    connection::Connection,
    domain_xml::{W, empty},
};

/// A folder of the host, and how QEMU comes to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    pub kind: ShareKind,
    /// Of virtiofs, the socket of a virtiofsd that has been started; of 9p, the folder itself.
    pub source: PathBuf,
    pub tag: String,
    pub readonly: bool,
}

/// virtiofsd reads and writes the guest's memory itself.
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
        // QEMU cannot give files to others than its own user, and is not to fail for it ("none" in
        // QEMU's words). "mapped" would hide modes and symlinks from the host.
        ShareKind::NineP => element
            .with_attribute(("accessmode", "squash"))
            // Folders of several file systems in one: their inodes are told apart.
            .with_attribute(("multidevs", "remap")),
    };
    element.write_inner_content(|w| {
        match filesystem.kind {
            // What only virtiofsd can do, such as read-only, it was told when it was started.
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
    /// Whom libvirt runs QEMU as (uid, gid), where it runs it as another user than its own: the
    /// base label of the security model "dac" (libvirt.org/formatcaps.html).
    pub fn qemu_ids(&self) -> Option<(u32, u32)> {
        ids_of(&self.connect.capabilities().ok()?)
    }

    /// Whether libvirt shuts every QEMU into a profile of AppArmor.
    pub fn has_apparmor(&self) -> bool {
        (self.connect.capabilities()).is_ok_and(|xml| xml.contains("<model>apparmor</model>"))
    }
}

/// `<baselabel type='kvm'>+64055:+64055</baselabel>`
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
