//! The initramfs of a kernel that is not its box's: `provisioners/init` and the drivers that are
//! needed to find the root.
//!
//! An initramfs may be several archives one after the other (Documentation/driver-api/early-userspace/
//! buffer-format.rst): one with init, which belongs to this stead, and one per group of drivers,
//! which belongs to the kernel. Nothing is packed: QEMU hands it over as it is, and unpacking costs
//! the guest more than a megabyte or two of memory for some seconds.

/// provisioners/init, built by build.rs.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));

/// Drivers that are loaded together. `base` always, the others as the root needs them.
pub const GROUPS: [(&str, &[&str]); 5] = [
    ("base", &["virtio_pci", "virtio_blk"]),
    ("ext4", &["ext4"]),
    ("xfs", &["xfs"]),
    ("btrfs", &["btrfs"]),
    (MODULES_FS, &["squashfs"]),
];

/// The group, and file system, of the disk that holds the modules.
pub const MODULES_FS: &str = "squashfs";

/// The archive with init and the folders that it works in.
pub fn init_archive() -> Vec<u8> {
    let mut archive = Archive::default();
    archive.folder("dev");
    // For messages before /dev is there.
    archive.console("dev/console");
    archive.folder("drivers");
    archive.file("init", 0o755, INIT);
    archive.end()
}

/// The archive of a group: its drivers, unpacked, with their loading order.
pub fn group_archive(group: &str, drivers: &[(String, Vec<u8>)]) -> Vec<u8> {
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

/// Bytes of modules that are kept in a machine's memory, at most.
pub const TREE_LIMIT: u64 = 128 << 20;

/// The archive with a whole module tree, for a kernel that cannot read one from a disk.
pub fn tree_archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
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

/// The archive with files that belong below /run of the guest.
pub fn carry_archive(files: &[(String, String)]) -> Vec<u8> {
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

/// cpio in the "newc" form (cpio(5)); all that is in it is root's, of no date.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
/// Entries, and the archive, end at multiples of it.
const ALIGNMENT: usize = 4;

impl Archive {
    fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER | 0o755, (0, 0), &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, FILE | mode, (0, 0), content);
    }

    /// Device 5, 1 (Documentation/admin-guide/devices.txt).
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
        // PT_INTERP (elf(5)) would ask for a loader that is not there.
        let count = usize::from(u16::from_le_bytes([INIT[56], INIT[57]]));
        for n in 0..count {
            let at = 64 + n * 56;
            assert_ne!(INIT[at..at + 4], 3u32.to_le_bytes());
        }
    }

    /// What cpio(1) reads out of it, where that is installed.
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
