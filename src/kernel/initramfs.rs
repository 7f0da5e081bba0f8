//! The initramfs for a kernel that does not come from the box: `provisioners/init` and the drivers that are
//! needed to find the root.
//!
//! An initramfs may be several concatenated archives (Documentation/driver-api/early-userspace/
//! buffer-format.rst): one with init, which belongs to this version of stead, and one per group of drivers,
//! which belongs to the kernel. They are not compressed: QEMU passes them on as they are, and a megabyte or
//! two of memory for some seconds costs the guest less than uncompressing.

/// provisioners/init, built by build.rs.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// Groups of drivers that are loaded together: `base` always, the others if the root needs them.
pub(super) const GROUPS: [(&str, &[&str]); 5] = [
    ("base", &["virtio_pci", "virtio_blk"]),
    ("ext4", &["ext4"]),
    ("xfs", &["xfs"]),
    ("btrfs", &["btrfs"]),
    (MODULES_FS, &["squashfs"]),
];

/// The file system of the disk with the modules, which is also its group of drivers.
pub(super) const MODULES_FS: &str = "squashfs";

/// Returns the archive with init and the folders that it needs.
pub(super) fn init_archive() -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder("dev");
    // For messages before /dev is mounted.
    archive.console("dev/console");
    archive.folder("drivers");
    archive.file("init", 0o755, INIT);
    archive.end()
}

/// Returns the archive of a group: its uncompressed drivers and their loading order.
pub(super) fn group_archive(group: &str, drivers: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder("drivers");
    let mut list = String::new();
    for (name, content) in drivers {
        archive.file(&format!("drivers/{name}"), 0o644, content);
        list.push_str(name);
        list.push('\n');
    }
    archive.file(&format!("drivers/{group}.list"), 0o644, list.as_bytes());
    archive.end()
}

/// Largest module tree that is put into a machine's memory, in bytes.
pub(super) const TREE_LIMIT: u64 = 128 << 20;

/// Returns the archive with a whole module tree, for a kernel that cannot read it from a disk.
pub(super) fn tree_archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder("tree");
    let mut folders = std::collections::BTreeSet::new();
    for (name, content) in files {
        for (at, _) in name.match_indices('/') {
            if folders.insert(&name[..at]) {
                archive.folder(&format!("tree/{}", &name[..at]));
            }
        }
        archive.file(&format!("tree/{name}"), 0o644, content);
    }
    archive.end()
}

/// Returns the archive with files for the guest's /run.
pub(super) fn carry_archive(files: &[(String, String)]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder("carry");
    let mut folders = std::collections::BTreeSet::new();
    for (name, content) in files {
        if let Some((folder, _)) = name.split_once('/')
            && folders.insert(folder)
        {
            archive.folder(&format!("carry/{folder}"));
        }
        archive.file(&format!("carry/{name}"), 0o644, content.as_bytes());
    }
    archive.end()
}

/// A cpio archive in the "newc" format (cpio(5)). All its files belong to root and have no date.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// Entries and the archive end at multiples of this many bytes.
const ALIGNMENT: usize = 4;

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER | 0o755, (0, 0), &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, FILE | mode, (0, 0), content);
    }

    /// Adds device 5, 1 (Documentation/admin-guide/devices.txt).
    fn console(&mut self, name: &str) {
        self.entry(name, CHARACTER_DEVICE | 0o600, (5, 1), &[]);
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = 1;
        let size = content.len();
        let name_size = name.len() + 1;
        let (major, minor) = device;
        let inode = self.entries;
        let header = format!(
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}{:08x}{:08x}{major:08x}{minor:08x}{name_size:08x}{:08x}",
            0, 0, 0, 0, 0, 0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(length, 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn init_is_a_static_program() {
        assert!(INIT.starts_with(b"\x7fELF"));
        // PT_INTERP (elf(5)) would need a loader, which the initramfs does not have.
        let count = usize::from(u16::from_le_bytes([INIT[56], INIT[57]]));
        for n in 0..count {
            let at = 64 + n * 56;
            assert_ne!(INIT[at..at + 4], 3u32.to_le_bytes());
        }
    }

    /// cpio(1) can read the archives; skipped if it is not installed.
    #[test]
    fn archives_are_what_cpio_reads() {
        let mut all = init_archive();
        all.extend(group_archive("base", &[("a.ko".into(), b"abc".to_vec())]));
        assert!(all.len().is_multiple_of(ALIGNMENT));
        assert!(all.starts_with(b"070701"));
        let Ok(mut child) = Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            return;
        };
        use std::io::Write;
        child
            .stdin
            .take()
            .unwrap()
            .write_all(&init_archive())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "dev\ndev/console\ndrivers\ninit\n"
        );
    }
}
