//! The file format of recorded frames: pcap with nanoseconds, which tcpdump and Wireshark read
//! (draft-ietf-opsawg-pcap).

use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: u32 = 0xa1b2_3c4d;
/// LINKTYPE_ETHERNET
const ETHERNET: u32 = 1;
/// Longer than any frame, in bytes.
const LONGEST: u32 = 1 << 16;

/// What begins the file.
pub fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    for number in [2_u16, 4] {
        bytes.extend(number.to_le_bytes());
    }
    // Two fields that are unused.
    for number in [0, 0, LONGEST, ETHERNET] {
        bytes.extend(number.to_le_bytes());
    }
    bytes
}

/// A frame in the file.
pub fn packet(at: SystemTime, frame: &[u8]) -> Vec<u8> {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(16 + frame.len());
    for number in [seconds, at.subsec_nanos(), length, length] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(frame);
    bytes
}
