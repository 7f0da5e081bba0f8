//! Checks a VMDK before a program may read it ("Virtual Disk Format 5.0"). The format is made to name other
//! files: a descriptor lists the disk's parts and its parent. Only a sparse image in one file with its own
//! descriptor is accepted.

use std::{fs::File, io, os::unix::fs::FileExt};

const SECTOR: u64 = 512;
const MAGIC: &[u8] = b"KDMV";
/// Where QEMU reads the parent from, in bytes, whatever the header says.
const USUAL_PLACE: u64 = 512;
const USUAL_SIZE: u64 = 20 * SECTOR;
/// Largest descriptor, in sectors; descriptors have some 500 bytes.
const MOST_SECTORS: u64 = 2048;
/// Value of gd_offset that means that the header at the end of the file counts.
const AT_END: u64 = u64::MAX;
const FOOTER: u32 = 3;
/// Largest accepted disk, in bytes.
const LARGEST: u64 = 1 << 46;

/// Limits of QEMU's (block/vmdk.c): of a grain, in sectors, of the entries of a grain table, and of a grain directory.
const LARGEST_GRAIN: u64 = 1 << 21;
const MOST_GRAINS: u32 = 512;
const LARGEST_DIRECTORY: u64 = 512 << 20;

/// The fields of a header that are checked.
struct Header {
    capacity: u64,
    /// In sectors.
    grain: u64,
    /// Entries of a grain table.
    grains: u32,
    descriptor: u64,
    descriptor_sectors: u64,
    directory: u64,
}

impl Header {
    fn parse(bytes: &[u8; 512]) -> Option<Self> {
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let long = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        Some(Header {
            capacity: long(12),
            grain: long(20),
            grains: u32::from_le_bytes([bytes[44], bytes[45], bytes[46], bytes[47]]),
            descriptor: long(28),
            descriptor_sectors: long(36),
            directory: long(56),
        })
    }
}

/// Returns why an image must not be used, or `None`.
pub(super) fn objection(file: &File) -> io::Result<Option<String>> {
    let size = file.metadata()?.len();
    let start = read(file, 0, SECTOR, size)?;
    if start.starts_with(b"# Disk DescriptorFile") {
        return Ok(Some(FLAT.into()));
    }
    let Some(head) = sector(file, 0, size)? else {
        return Ok(Some("it is cut short".into()));
    };
    if head.starts_with(b"COWD") {
        return Ok(Some(
            "it is part of an ESX server's disk, whose descriptor is in another file".into(),
        ));
    }
    let Some(header) = Header::parse(&head) else {
        return Ok(Some("it is not a VMDK".into()));
    };
    if header.capacity == 0 {
        return Ok(Some(
            "its data is in other files (the capacity in its header is 0)".into(),
        ));
    }
    if let Some(message) = misplaced(&header, size) {
        return Ok(Some(message));
    }
    let mut tables = bad_tables(&header, size);
    if header.directory == AT_END {
        // The file ends with a marker, a header and an end mark; programs read that header.
        let Some(at) = size.checked_sub(3 * SECTOR) else {
            return Ok(Some("it is cut short".into()));
        };
        let (Some(marker), Some(footer)) =
            (sector(file, at, size)?, sector(file, at + SECTOR, size)?)
        else {
            return Ok(Some("it is cut short".into()));
        };
        let footer = (marker[12..16] == FOOTER.to_le_bytes())
            .then(|| Header::parse(&footer))
            .flatten();
        let Some(footer) = footer else {
            return Ok(Some("it is cut short: its footer is missing".into()));
        };
        if footer.capacity != header.capacity {
            return Ok(Some("its two headers contradict each other".into()));
        }
        if footer.descriptor != 0 && footer.descriptor != header.descriptor {
            return Ok(Some("its two headers contradict each other".into()));
        }
        tables = tables.or_else(|| bad_tables(&footer, size));
    }
    let own = read(
        file,
        header.descriptor * SECTOR,
        header.descriptor_sectors * SECTOR,
        size,
    )?;
    if let Some(message) = descriptor(&own) {
        return Ok(Some(message));
    }
    let usual = read(file, USUAL_PLACE, USUAL_SIZE, size)?;
    Ok(match names_a_parent(&usual) {
        true => Some(PARENT.to_string()),
        false => tables,
    })
}

const PARENT: &str = "it names a parent file";
const FLAT: &str = "its data is in other files";

fn misplaced(header: &Header, size: u64) -> Option<String> {
    let (at, length) = (header.descriptor, header.descriptor_sectors);
    if at == 0 || length == 0 {
        return Some("it has no descriptor, so it is part of a disk of several files".into());
    }
    let end = at
        .checked_add(length)
        .and_then(|end| end.checked_mul(SECTOR));
    if length > MOST_SECTORS || end.is_none_or(|end| end > size) {
        return Some("its descriptor is not where its header says".into());
    }
    if header.capacity > LARGEST / SECTOR {
        return Some(format!(
            "its disk size is invalid ({} sectors)",
            header.capacity
        ));
    }
    None
}

/// Checks that the grain directory is within QEMU's limits and within the file.
fn bad_tables(header: &Header, size: u64) -> Option<String> {
    let (grain, grains) = (header.grain, header.grains);
    if grain == 0 || grain > LARGEST_GRAIN || grains == 0 || grains > MOST_GRAINS {
        return Some(format!(
            "its tables are invalid ({grains} grains of {grain} sectors each)"
        ));
    }
    let bytes = header.capacity.div_ceil(grain * u64::from(grains)) * 4;
    let end = header
        .directory
        .checked_mul(SECTOR)
        .and_then(|at| at.checked_add(bytes));
    let is_there = header.directory == AT_END || end.is_some_and(|end| end <= size);
    (bytes > LARGEST_DIRECTORY || !is_there)
        .then(|| "its grain directory is not where its header says".to_string())
}

/// Returns what is wrong with a descriptor: it must have one extent, which is this file, and no parent.
fn descriptor(bytes: &[u8]) -> Option<String> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    // There must be no parent behind the end of the text either, because not all readers stop there.
    if names_a_parent(bytes) {
        return Some(PARENT.into());
    }
    let Ok(text) = std::str::from_utf8(&bytes[..end]) else {
        // Comments and names of extents in another encoding do not matter here.
        return descriptor_text(&String::from_utf8_lossy(&bytes[..end]));
    };
    descriptor_text(text)
}

fn descriptor_text(text: &str) -> Option<String> {
    let mut extents = 0;
    let mut kind = None;
    if !text.trim_start().starts_with("# Disk DescriptorFile") {
        return Some("its descriptor is damaged".into());
    }
    for line in text.split(['\n', '\r']).map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"');
            match key.trim() {
                "createType" => kind = Some(value.to_string()),
                "parentCID" if !value.eq_ignore_ascii_case("ffffffff") => {
                    return Some(PARENT.into());
                }
                _ => {}
            }
            continue;
        }
        // RW 8192 SPARSE "name.vmdk"
        let mut words = line.split_whitespace();
        let (access, sectors, extent) = (words.next(), words.next(), words.next());
        let whole = matches!(access, Some("RW" | "RDONLY"))
            && sectors.is_some_and(|sectors| sectors.parse::<u64>().is_ok())
            && extent == Some("SPARSE");
        if !whole {
            return Some(FLAT.into());
        }
        extents += 1;
    }
    if extents != 1 {
        return Some(format!("its disk has {extents} parts, expected 1"));
    }
    match kind.as_deref() {
        Some("monolithicSparse" | "streamOptimized") => None,
        Some(other) => Some(format!(
            "its type is {other:?}, expected monolithicSparse or streamOptimized"
        )),
        None => Some("its descriptor has no createType".into()),
    }
}

fn names_a_parent(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"parentFileNameHint").is_some()
}

fn sector(file: &File, at: u64, size: u64) -> io::Result<Option<[u8; 512]>> {
    if at.checked_add(SECTOR).is_none_or(|end| end > size) {
        return Ok(None);
    }
    let mut bytes = [0; 512];
    file.read_exact_at(&mut bytes, at)?;
    Ok(Some(bytes))
}

/// Reads a part of the file, or less if the file ends before.
fn read(file: &File, at: u64, length: u64, size: u64) -> io::Result<Vec<u8>> {
    let length = length
        .min(MOST_SECTORS * SECTOR)
        .min(size.saturating_sub(at));
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const GOOD: &str = "# Disk DescriptorFile\nversion=1\nCID=ffc65c2f\nparentCID=ffffffff\n\
        createType=\"monolithicSparse\"\n\n# Extent description\nRW 8192 SPARSE \"disk.vmdk\"\n\n\
        ddb.adapterType = \"ide\"\n";

    /// An image with its descriptor at this sector.
    fn image(capacity: u64, at: u64, text: &str) -> Vec<u8> {
        let mut bytes = vec![0; 256 << 10];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = 1;
        let sectors = (text.len() as u64).div_ceil(SECTOR);
        for (place, number) in [
            (12, capacity),
            (20, 128),
            (28, at),
            (36, sectors),
            (56, 100),
        ] {
            bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[44..48].copy_from_slice(&512u32.to_le_bytes());
        let start = usize::try_from(at * SECTOR).unwrap();
        bytes[start..start + text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    fn said(bytes: &[u8]) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        objection(&file).unwrap().unwrap_or_default()
    }

    #[test]
    fn one_sparse_extent_and_nothing_else() {
        for at in [1, 21, 300] {
            assert_eq!(said(&image(8192, at, GOOD)), "", "{at}");
            let with = |text: &str| said(&image(8192, at, text));
            let flat = GOOD.replace("SPARSE \"disk.vmdk\"", "FLAT \"/etc/passwd\" 0");
            assert!(with(&flat).contains("other files"), "{at}");
            let two = GOOD.replace("ddb.", "RW 1 SPARSE \"other\"\nddb.");
            assert!(with(&two).contains("2 parts"), "{at}");
            let zero = GOOD.replace("SPARSE", "ZERO");
            assert!(with(&zero).contains("other files"));
            let parent = format!("{GOOD}parentFileNameHint=\"/etc/passwd\"\n");
            assert!(with(&parent).contains("parent"), "{at}");
            let behind = format!("{GOOD}\0\0\0parentFileNameHint=\"/etc/passwd\"\n");
            assert!(with(&behind).contains("parent"), "{at}");
            let child = GOOD.replace("parentCID=ffffffff", "parentCID=12345678");
            assert!(with(&child).contains("parent"));
            let other = GOOD.replace("monolithicSparse", "monolithicFlat");
            assert!(with(&other).contains("monolithicFlat"));
            assert!(with("nothing of it").contains("damaged"));
        }
    }

    #[test]
    fn headers_that_lead_elsewhere() {
        assert!(said(&image(0, 1, GOOD)).contains("capacity in its header is 0"));
        assert!(said(&image(8192, 0, "")).contains("no descriptor"));
        let mut far = image(8192, 1, GOOD);
        far[28..36].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(said(&far).contains("not where"));
        for (place, word) in [
            (20, 0),
            (20, u64::MAX),
            (20, LARGEST_GRAIN + 1),
            (44, 0),
            (44, 513),
        ] {
            let mut tables = image(8192, 1, GOOD);
            // The field of 4 bytes is followed by another one that nothing reads here.
            tables[place..place + 8].copy_from_slice(&word.to_le_bytes());
            assert!(
                said(&tables).contains("its tables are invalid"),
                "{place} {word}"
            );
        }
        for word in [u64::MAX - 1, 1 << 55, 1 << 20] {
            let mut directory = image(8192, 1, GOOD);
            directory[56..64].copy_from_slice(&word.to_le_bytes());
            assert!(
                said(&directory).contains("grain directory is not where"),
                "{word}"
            );
        }
        let mut fine = image(LARGEST / SECTOR, 1, GOOD);
        fine[20..28].copy_from_slice(&1u64.to_le_bytes());
        fine[44..48].copy_from_slice(&1u32.to_le_bytes());
        assert!(said(&fine).contains("grain directory is not where"));
        assert!(said(b"# Disk DescriptorFile\n").contains("other files"));
        assert!(said(b"KDMV").contains("cut short"));
        let mut cowd = vec![0; 512];
        cowd[..4].copy_from_slice(b"COWD");
        assert!(said(&cowd).contains("ESX"));
        // A parent where QEMU reads it from, while the header names another place.
        let mut hidden = image(8192, 300, GOOD);
        let hint = b"parentFileNameHint=\"/etc/passwd\"";
        hidden[512..512 + hint.len()].copy_from_slice(hint);
        assert!(said(&hidden).contains("parent"));
    }

    #[test]
    fn a_footer_may_not_say_another_thing() {
        let at_end = |capacity: u64, kind: u32| {
            let mut bytes = image(8192, 1, GOOD);
            bytes[56..64].copy_from_slice(&AT_END.to_le_bytes());
            let header = bytes[..512].to_vec();
            let end = bytes.len();
            bytes[end - 1536 + 12..end - 1536 + 16].copy_from_slice(&kind.to_le_bytes());
            bytes[end - 1024..end - 512].copy_from_slice(&header);
            bytes[end - 1024 + 12..end - 1024 + 20].copy_from_slice(&capacity.to_le_bytes());
            said(&bytes)
        };
        assert_eq!(at_end(8192, FOOTER), "");
        assert!(at_end(0, FOOTER).contains("contradict"));
        assert!(at_end(8192, 0).contains("footer"));
    }
}
