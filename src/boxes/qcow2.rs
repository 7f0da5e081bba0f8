//! What has to be known of a qcow2 file before QEMU may open it
//! (QEMU's docs/interop/qcow2.txt).

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

const MAGIC: &[u8; 4] = b"QFI\xfb";
/// Bit 2 of incompatible_features: the guest's data is in another file.
const EXTERNAL_DATA_FILE: u64 = 1 << 2;

/// Why a disk image must not be used: an image that names another file makes QEMU read that one,
/// a classic way to get at the host's files.
pub fn objection(path: &Path) -> io::Result<Option<String>> {
    let mut header = Vec::new();
    File::open(path)?.take(104).read_to_end(&mut header)?;
    let word = |at: usize| -> Option<u64> {
        let bytes: [u8; 8] = header.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    if header.get(..4) != Some(MAGIC.as_slice()) {
        return Ok(Some("its disk is no qcow2 image".into()));
    }
    let version = header
        .get(4..8)
        .map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    if !(2..=3).contains(&version) {
        return Ok(Some(format!("its disk is qcow2 version {version}")));
    }
    if word(8) != Some(0) {
        return Ok(Some("its disk names a backing file".into()));
    }
    if version == 3 && word(72).is_none_or(|features| features & EXTERNAL_DATA_FILE != 0) {
        return Ok(Some("its disk names an external data file".into()));
    }
    Ok(None)
}

/// The size that the guest sees, in bytes: a big-endian number at byte 24.
pub fn virtual_size(path: &Path) -> io::Result<u64> {
    let mut header = [0u8; 32];
    File::open(path)?.read_exact(&mut header)?;
    let mut size = [0u8; 8];
    size.copy_from_slice(&header[24..32]);
    Ok(u64::from_be_bytes(size))
}
