//! Checks a qcow2 file before QEMU may open it
//! (QEMU's docs/interop/qcow2.txt).

mod content;

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::report::{bytes, counted};

pub(super) use content::Content;

const MAGIC: &[u8; 4] = b"QFI\xfb";

/// Bits of incompatible_features. Accepted are those that QEMU 7.2 knows and that name no other file.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
/// The guest's data is in another file.
const EXTERNAL_DATA_FILE: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Header extensions.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTERNAL_DATA_FILE_NAME: u32 = 0x4441_5441;
const ENCRYPTION: u32 = 0x0537_be77;

/// Longest name of a backing file that QEMU reads, in bytes.
const LONGEST_NAME: u32 = 1023;
/// Largest accepted virtual size, in bytes.
const LARGEST: u64 = 1 << 46;
/// Limits of QEMU's (block/qcow2.h): of the L1 table and the refcount table in bytes, and of snapshots.
const LARGEST_L1: u64 = 32 << 20;
const LARGEST_REFCOUNT_TABLE: u64 = 8 << 20;
const MOST_SNAPSHOTS: u32 = 65_536;
/// The fixed part of a snapshot in the table of snapshots, in bytes.
const SNAPSHOT: u64 = 40;
/// Refcounts have 2 to the power of this many bits at most.
const LARGEST_REFCOUNT_ORDER: u32 = 6;

/// The fixed part of the header and what follows it, to the end of the first cluster at most.
struct Header {
    bytes: Vec<u8>,
    /// Of the whole file, in bytes.
    file_size: u64,
}

impl Header {
    fn read(file: &File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut file = file;
        file.rewind()?;
        // QEMU's default cluster size; extensions are in the first cluster.
        file.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(Header {
            bytes,
            file_size: file.metadata()?.len(),
        })
    }

    fn long(&self, at: usize) -> Option<u64> {
        Some(u64::from_be_bytes(
            self.bytes.get(at..at + 8)?.try_into().ok()?,
        ))
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(
            self.bytes.get(at..at + 4)?.try_into().ok()?,
        ))
    }

    fn is_qcow2(&self) -> bool {
        self.bytes.starts_with(MAGIC)
    }

    fn objection(&self) -> Option<String> {
        if !self.is_qcow2() {
            return Some("its disk is not a qcow2 image".into());
        }
        let cut = || Some("its header is cut short".to_string());
        let (Some(version), Some(backing), Some(cluster_bits), Some(size), Some(encryption)) = (
            self.word(4),
            self.long(8),
            self.word(20),
            self.long(24),
            self.word(32),
        ) else {
            return cut();
        };
        if !(2..=3).contains(&version) {
            return Some(format!(
                "its disk is qcow2 version {version}, expected 2 or 3"
            ));
        }
        if backing != 0 || self.word(16) != Some(0) {
            return Some("its disk names a backing file".into());
        }
        if !(9..=21).contains(&cluster_bits) {
            return Some(format!(
                "its cluster size is invalid (2^{cluster_bits} bytes)"
            ));
        }
        if size == 0 || size > LARGEST {
            return Some(format!("its disk size is invalid ({size} bytes)"));
        }
        if encryption != 0 {
            return Some("its disk is encrypted".into());
        }
        if version == 2 {
            return (self.tables(cluster_bits, size, 8))
                .or_else(|| self.extensions(72, cluster_bits));
        }
        let (Some(features), Some(length)) = (self.long(72), self.word(100)) else {
            return cut();
        };
        if features & EXTERNAL_DATA_FILE != 0 {
            return Some("its disk names an external data file".into());
        }
        if features & CORRUPT != 0 {
            return Some("its disk is marked as corrupt".into());
        }
        if features & !(DIRTY | COMPRESSION_TYPE | EXTENDED_L2) != 0 {
            return Some(format!(
                "its disk needs unknown qcow2 features ({features:#x})"
            ));
        }
        if length < 104 || length % 8 != 0 || u64::from(length) > 1 << cluster_bits {
            return Some(format!(
                "its header length is invalid ({})",
                counted(length, "byte")
            ));
        }
        if let Some(order) = self
            .word(96)
            .filter(|order| *order > LARGEST_REFCOUNT_ORDER)
        {
            return Some(format!(
                "its refcounts have 2^{order} bits, expected 2^6 at most"
            ));
        }
        let entry = match features & EXTENDED_L2 {
            0 => 8,
            _ => 16,
        };
        (self.tables(cluster_bits, size, entry))
            .or_else(|| self.extensions(length as usize, cluster_bits))
    }

    /// Checks that the tables that the header leads to are within QEMU's limits and within the file. `entry` is the size
    /// of an entry of an L2 table, in bytes.
    fn tables(&self, cluster_bits: u32, size: u64, entry: u64) -> Option<String> {
        let cluster = 1u64 << cluster_bits;
        let (Some(l1_entries), Some(l1), Some(refcounts), Some(refcount_clusters)) =
            (self.word(36), self.long(40), self.long(48), self.word(56))
        else {
            return Some("its header is cut short".into());
        };
        let (Some(snapshots), Some(snapshot_table)) = (self.word(60), self.long(64)) else {
            return Some("its header is cut short".into());
        };
        let needed = size.div_ceil(cluster * (cluster / entry));
        let too_small = l1_entries != 0 && u64::from(l1_entries) < needed;
        let l1_bytes = u64::from(l1_entries) * 8;
        if too_small || l1_bytes > LARGEST_L1 {
            return Some(format!(
                "its L1 table has {}, but its disk size needs {needed}",
                match l1_entries {
                    1 => "1 entry".to_string(),
                    _ => format!("{l1_entries} entries"),
                }
            ));
        }
        let refcount_bytes = u64::from(refcount_clusters) * cluster;
        if refcount_bytes > LARGEST_REFCOUNT_TABLE.max(cluster) {
            return Some(format!(
                "its refcount table is too large ({})",
                bytes(refcount_bytes)
            ));
        }
        if snapshots > MOST_SNAPSHOTS {
            return Some(format!(
                "it has too many snapshots ({snapshots}, expected {MOST_SNAPSHOTS} at most)"
            ));
        }
        [
            ("L1 table", l1, l1_bytes, cluster),
            ("refcount table", refcounts, refcount_bytes, cluster),
            (
                "table of snapshots",
                snapshot_table,
                u64::from(snapshots) * SNAPSHOT,
                8,
            ),
        ]
        .into_iter()
        .find_map(|(name, at, length, aligned)| {
            // Programs may leave the end of the last cluster out.
            let end = self.file_size.checked_next_multiple_of(cluster)?;
            let fits = at % aligned == 0
                && at >= cluster
                && at < self.file_size
                && at.checked_add(length).is_some_and(|it| it <= end);
            (length != 0 && !fits).then(|| {
                format!(
                    "its {name} ({}) cannot be where its header says (byte {at} of {})",
                    counted(length, "byte"),
                    self.file_size
                )
            })
        })
    }

    fn extensions(&self, start: usize, cluster_bits: u32) -> Option<String> {
        // Those of real images have some hundred bytes.
        let end = self.bytes.len().min(1 << cluster_bits);
        let mut at = start;
        while let (Some(kind), Some(length)) = (self.word(at), self.word(at + 4)) {
            if kind != END && length as usize > end.saturating_sub(at + 8) {
                return Some(format!(
                    "a part of its header is too long ({})",
                    counted(length, "byte")
                ));
            }
            match kind {
                END => return None,
                BACKING_FORMAT => return Some("its disk names a backing file".into()),
                EXTERNAL_DATA_FILE_NAME => {
                    return Some("its disk names an external data file".into());
                }
                ENCRYPTION => return Some("its disk is encrypted".into()),
                _ => {}
            }
            at = at
                .saturating_add(8)
                .saturating_add((length as usize).next_multiple_of(8));
        }
        // The end of a cluster of 512 bytes or of a small file.
        None
    }
}

/// Returns why a disk image must not be used, or `None`. An image that names another file makes QEMU read
/// that file, a classic way to get at the host's files.
pub(super) fn objection(file: &File) -> io::Result<Option<String>> {
    Ok(Header::read(file)?.objection())
}

/// The size that the guest sees, in bytes: a big-endian number at byte 24.
pub(super) fn virtual_size(file: &File) -> io::Result<u64> {
    let mut size = [0u8; 8];
    file.read_exact_at(&mut size, 24)?;
    Ok(u64::from_be_bytes(size))
}

/// Returns the backing file of one of stead's own images, and its format if the image names it.
///
/// # Errors
/// `InvalidData` if the image is not a complete qcow2 file.
pub(super) fn backing(file: &File) -> io::Result<Option<(PathBuf, Option<String>)>> {
    let header = Header::read(file)?;
    let damaged = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not a complete qcow2 image",
        )
    };
    if !header.is_qcow2() {
        return Err(damaged());
    }
    let (at, length) = (
        header.long(8).ok_or_else(damaged)?,
        header.word(16).ok_or_else(damaged)?,
    );
    if at == 0 {
        return Ok(None);
    }
    if length == 0 || length > LONGEST_NAME {
        return Err(damaged());
    }
    let mut name = vec![0; length as usize];
    file.read_exact_at(&mut name, at)?;
    let name = String::from_utf8(name).map_err(|_| damaged())?;
    Ok(Some((
        Path::new(&name).to_path_buf(),
        header.backing_format(),
    )))
}

impl Header {
    fn backing_format(&self) -> Option<String> {
        let mut at = match self.word(4)? {
            2 => 72,
            _ => self.word(100)? as usize,
        };
        loop {
            let (kind, length) = (self.word(at)?, self.word(at + 4)? as usize);
            let content = at.checked_add(8)?;
            if kind == END {
                return None;
            }
            if kind == BACKING_FORMAT {
                let bytes = self.bytes.get(content..content.checked_add(length)?)?;
                return Some(String::from_utf8_lossy(bytes).into_owned());
            }
            at = content.checked_add(length.next_multiple_of(8))?;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// An image of 1 MiB, version 3, in 4 KiB.
    pub(crate) fn image() -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[7] = 3;
        bytes[23] = 16;
        bytes[24..32].copy_from_slice(&(1u64 << 20).to_be_bytes());
        bytes[103] = 104;
        bytes
    }

    fn said(bytes: &[u8]) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        objection(&file).unwrap().unwrap_or_default()
    }

    fn with(at: usize, bytes: &[u8]) -> String {
        let mut image = image();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        said(&image)
    }

    #[test]
    fn only_images_without_other_files_are_accepted() {
        assert_eq!(said(&image()), "");
        for bit in [1u8, 1 << 3, 1 << 4] {
            assert_eq!(with(79, &[bit]), "", "{bit}");
        }
        assert!(with(15, &[200]).contains("backing file"));
        assert!(with(19, &[4]).contains("backing file"));
        assert!(with(79, &[1 << 2]).contains("external data file"));
        assert!(with(79, &[1 << 1]).contains("corrupt"));
        assert!(with(79, &[1 << 5]).contains("unknown"));
        assert!(with(72, &[1]).contains("unknown"));
        assert!(with(7, &[1]).contains("version 1"));
        assert!(with(35, &[2]).contains("encrypted"));
        assert!(with(23, &[40]).contains("2^40"));
        assert!(with(24, &[0xff; 8]).contains("bytes"));
        assert!(with(103, &[103]).contains("header length is invalid"));
        for kind in [BACKING_FORMAT, EXTERNAL_DATA_FILE_NAME, ENCRYPTION] {
            // Behind a harmless extension.
            let mut extensions = 0x2385_2875u32.to_be_bytes().to_vec();
            extensions.extend(3u32.to_be_bytes());
            extensions.extend([0; 8]);
            extensions.extend(kind.to_be_bytes());
            extensions.extend(5u32.to_be_bytes());
            assert_ne!(with(104, &extensions), "", "{kind:x}");
        }
        for end in 0..104 {
            assert_ne!(said(&image()[..end]), "", "{end}");
        }
    }

    /// An image with tables: clusters of 64 KiB, and the L1 table in the second one.
    fn with_tables(change: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut bytes = image();
        bytes.resize(4 << 16, 0);
        bytes[36..40].copy_from_slice(&1u32.to_be_bytes());
        bytes[40..48].copy_from_slice(&(1u64 << 16).to_be_bytes());
        bytes[48..56].copy_from_slice(&(2u64 << 16).to_be_bytes());
        bytes[56..60].copy_from_slice(&1u32.to_be_bytes());
        change(&mut bytes);
        said(&bytes)
    }

    #[test]
    fn tables_are_within_the_file_and_qemu_s_limits() {
        fn put<const N: usize>(at: usize, new: [u8; N]) -> impl FnOnce(&mut Vec<u8>) {
            move |image| image[at..at + N].copy_from_slice(&new)
        }
        assert_eq!(with_tables(|_| {}), "");
        // The last table is cut short within its cluster, as qemu-img writes it.
        assert_eq!(with_tables(|image| image.truncate((2 << 16) + 8)), "");
        for entries in [u32::MAX, (4 << 20) + 1] {
            let said = with_tables(put(36, entries.to_be_bytes()));
            assert_eq!(
                said,
                format!("its L1 table has {entries} entries, but its disk size needs 1")
            );
        }
        let said = with_tables(put(24, (1u64 << 40).to_be_bytes()));
        assert_eq!(
            said,
            "its L1 table has 1 entry, but its disk size needs 2048"
        );
        // Within the limits, but not within the file.
        let said = with_tables(put(36, (1u32 << 20).to_be_bytes()));
        assert!(
            said.contains("its L1 table (8388608 bytes) cannot be"),
            "{said}"
        );
        for at in [
            0u64,
            8,
            (1 << 16) + 8,
            4 << 16,
            1 << 62,
            u64::MAX,
            u64::MAX << 16,
        ] {
            let said = with_tables(put(40, at.to_be_bytes()));
            assert!(
                said.contains("its L1 table (8 bytes) cannot be"),
                "{at}: {said}"
            );
            let said = with_tables(put(48, at.to_be_bytes()));
            assert!(
                said.contains("its refcount table (65536 bytes) cannot be"),
                "{at}: {said}"
            );
        }
        let said = with_tables(put(56, u32::MAX.to_be_bytes()));
        assert!(said.contains("refcount table is too large"), "{said}");
        let said = with_tables(put(60, [1, 0, 0, 0]));
        assert!(said.contains("too many snapshots"), "{said}");
        let said = with_tables(put(60, [0, 0, 0, 1]));
        assert!(
            said.contains("its table of snapshots (40 bytes) cannot be"),
            "{said}"
        );
        let said = with_tables(put(96, 7u32.to_be_bytes()));
        assert!(said.contains("2^7 bits"), "{said}");
        // A header extension, behind which another one could hide.
        let mut long = 0x2385_2875u32.to_be_bytes().to_vec();
        long.extend(u32::MAX.to_be_bytes());
        let said = with_tables(|image| image[104..112].copy_from_slice(&long));
        assert!(said.contains("part of its header is too long"), "{said}");
        // Version 2 has the same tables.
        let said = with_tables(|image| {
            image[7] = 2;
            image[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
        });
        assert!(said.contains("L1 table"), "{said}");
    }
}
