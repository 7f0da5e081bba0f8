//! Checks a qcow2 file before QEMU may open it
//! (QEMU's docs/interop/qcow2.txt).

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::report::counted;

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

/// The fixed part of the header and what follows it, to the end of the first cluster at most.
struct Header {
    bytes: Vec<u8>,
}

impl Header {
    fn read(file: &File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let mut file = file;
        file.rewind()?;
        // QEMU's default cluster size; extensions are in the first cluster.
        file.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(Header { bytes })
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
            return self.extensions(72);
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
        self.extensions(length as usize)
    }

    fn extensions(&self, start: usize) -> Option<String> {
        let mut at = start;
        while let (Some(kind), Some(length)) = (self.word(at), self.word(at + 4)) {
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
}
