//! Checks Microsoft's images, VHD and VHDX, before a program may read them: they must not have a parent file
//! ("Virtual Hard Disk Image Format Specification", \[MS-VHDX\]).

use std::{fs::File, io, os::unix::fs::FileExt};

const COOKIE: &[u8] = b"conectix";
const FOOTER: u64 = 512;

/// Returns why a VHD must not be used, or `None`.
pub(super) fn objection(file: &File) -> io::Result<Option<String>> {
    let size = file.metadata()?.len();
    let Some(end) = size.checked_sub(FOOTER) else {
        return Ok(Some("it is cut short".into()));
    };
    // A dynamic VHD has its footer at its start too, and programs differ in which one they read.
    let mut found = false;
    for at in [0, end] {
        let mut footer = [0; 512];
        file.read_exact_at(&mut footer, at)?;
        if !footer.starts_with(COOKIE) {
            continue;
        }
        found = true;
        match u32::from_be_bytes([footer[60], footer[61], footer[62], footer[63]]) {
            2 => {}
            3 => {
                let mut place = [0; 8];
                place.copy_from_slice(&footer[16..24]);
                if let Some(message) = dynamic(file, u64::from_be_bytes(place), size)? {
                    return Ok(Some(message));
                }
            }
            4 => return Ok(Some("it names a parent file".into())),
            kind => return Ok(Some(format!("it is a VHD of the unknown type {kind}"))),
        }
    }
    Ok((!found).then(|| "it is not a VHD".to_string()))
}

/// Checks the second header, which only a dynamic VHD has.
fn dynamic(file: &File, at: u64, size: u64) -> io::Result<Option<String>> {
    if at.checked_add(1024).is_none_or(|end| end > size) {
        return Ok(Some("it is cut short".into()));
    }
    let mut header = [0; 1024];
    file.read_exact_at(&mut header, at)?;
    if !header.starts_with(b"cxsparse") {
        return Ok(Some("its header is damaged".into()));
    }
    let long = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(word)
    };
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (table, entries, block) = (long(16), word(28), word(32));
    if entries != 0 && !block.is_power_of_two() {
        return Ok(Some(format!("its block size is invalid ({block} bytes)")));
    }
    let end = table.checked_add(u64::from(entries) * 4);
    if end.is_none_or(|end| end > size) {
        return Ok(Some(format!(
            "its table of blocks ({entries} entries) is not within the file"
        )));
    }
    // The parent's identity, name and location: all zero if there is no parent.
    let parent = header[40..56]
        .iter()
        .chain(&header[64..576])
        .chain(&header[576..768]);
    Ok(parent
        .copied()
        .any(|byte| byte != 0)
        .then(|| "it names a parent file".to_string()))
}

pub(super) mod vhdx {
    use super::*;

    /// Offsets of both copies of the region table, in bytes.
    const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
    const TABLE: usize = 64 << 10;
    /// GUIDs as they are in a file: the first three fields are little-endian.
    const METADATA: [u8; 16] = guid(0x8b7c_a206, 0x4790, 0x4b9a, 0xb8fe_575f_050f_886e);
    const FILE_PARAMETERS: [u8; 16] = guid(0xcaa1_6737, 0xfa36, 0x4d43, 0xb3b6_33f0_aa44_e76b);
    const PARENT_LOCATOR: [u8; 16] = guid(0xa8d3_5f2d, 0xb30b, 0x454d, 0xabf7_d3d8_4834_ab0c);
    const HAS_PARENT: u32 = 1 << 1;
    /// Sizes of blocks, in bytes (\[MS-VHDX\] 2.6.2.1).
    const BLOCKS: std::ops::RangeInclusive<u32> = 1 << 20..=256 << 20;

    const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
        let (a, b, c, d) = (
            a.to_le_bytes(),
            b.to_le_bytes(),
            c.to_le_bytes(),
            d.to_be_bytes(),
        );
        [
            a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5],
            d[6], d[7],
        ]
    }

    /// Returns why a VHDX must not be used, or `None`.
    pub(crate) fn objection(file: &File) -> io::Result<Option<String>> {
        let mut known = false;
        for at in REGIONS {
            let Some(table) = table(file, at, b"regi")? else {
                continue;
            };
            let count = word(&table, 8).unwrap_or(0).min(2047);
            for n in 0..count as usize {
                let entry = 16 + n * 32;
                if table.get(entry..entry + 16) != Some(METADATA.as_slice()) {
                    continue;
                }
                let Some(place) = long(&table, entry + 16) else {
                    continue;
                };
                known = true;
                if let Some(message) = metadata(file, place)? {
                    return Ok(Some(message));
                }
            }
        }
        Ok((!known).then(|| "it is damaged: it has no metadata".to_string()))
    }

    fn metadata(file: &File, at: u64) -> io::Result<Option<String>> {
        let Some(table) = table(file, at, b"metadata")? else {
            return Ok(Some("it is damaged: it has no metadata".into()));
        };
        let count = word(&table, 8).unwrap_or(0) >> 16;
        let mut parameters = false;
        for n in 0..count.min(2047) as usize {
            let entry = 32 + n * 32;
            let id = table.get(entry..entry + 16);
            if id == Some(PARENT_LOCATOR.as_slice()) {
                return Ok(Some("it names a parent file".into()));
            }
            if id == Some(FILE_PARAMETERS.as_slice()) {
                parameters = true;
                let place = u64::from(word(&table, entry + 16).unwrap_or(0));
                let mut item = [0; 8];
                let read = at
                    .checked_add(place)
                    .map(|place| file.read_exact_at(&mut item, place));
                if !matches!(read, Some(Ok(()))) {
                    return Ok(Some("it is cut short".into()));
                }
                if word(&item, 4).is_some_and(|flags| flags & HAS_PARENT != 0) {
                    return Ok(Some("it names a parent file".into()));
                }
                let block = word(&item, 0).unwrap_or(0);
                if !BLOCKS.contains(&block) || !block.is_power_of_two() {
                    return Ok(Some(format!("its block size is invalid ({block} bytes)")));
                }
            }
        }
        Ok((!parameters).then(|| "it is damaged: its metadata has no file parameters".to_string()))
    }

    /// Reads a table that begins with this signature; it is shorter if the file ends before.
    fn table(file: &File, at: u64, signature: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; TABLE];
        let mut filled = 0;
        while filled < bytes.len() {
            let Some(place) = at.checked_add(filled as u64).filter(|at| *at < 1 << 62) else {
                return Ok(None);
            };
            match file.read_at(&mut bytes[filled..], place)? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(bytes.starts_with(signature).then_some(bytes))
    }

    fn word(bytes: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn long(bytes: &[u8], at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    }

    #[cfg(test)]
    mod tests {
        use std::io::Write;

        use super::*;

        /// Checks an image with its metadata at 2 MiB and these items in it.
        fn said(copy: usize, flags: u32, more: &[[u8; 16]]) -> String {
            said_of(copy, 8 << 20, flags, more)
        }

        fn said_of(copy: usize, block: u32, flags: u32, more: &[[u8; 16]]) -> String {
            let mut bytes = vec![0; (2 << 20) + (1 << 17)];
            bytes[..8].copy_from_slice(b"vhdxfile");
            let region = REGIONS[copy] as usize;
            bytes[region..region + 4].copy_from_slice(b"regi");
            bytes[region + 8] = 1;
            bytes[region + 16..region + 32].copy_from_slice(&METADATA);
            bytes[region + 32..region + 40].copy_from_slice(&(2u64 << 20).to_le_bytes());
            let at = 2 << 20;
            bytes[at..at + 8].copy_from_slice(b"metadata");
            bytes[at + 10] = u8::try_from(1 + more.len()).unwrap();
            for (n, id) in [FILE_PARAMETERS].iter().chain(more).enumerate() {
                let entry = at + 32 + n * 32;
                bytes[entry..entry + 16].copy_from_slice(id);
                bytes[entry + 16..entry + 20].copy_from_slice(&(1u32 << 16).to_le_bytes());
            }
            let item = at + (1 << 16);
            bytes[item..item + 4].copy_from_slice(&block.to_le_bytes());
            bytes[item + 4..item + 8].copy_from_slice(&flags.to_le_bytes());
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            objection(&file).unwrap().unwrap_or_default()
        }

        #[test]
        fn parents_are_seen_in_both_tables() {
            for copy in [0, 1] {
                assert_eq!(said(copy, 0, &[]), "");
                assert!(said(copy, HAS_PARENT, &[]).contains("parent"));
                assert!(said(copy, 0, &[PARENT_LOCATOR]).contains("parent"));
            }
            for block in [0, 1 << 19, 3 << 20, 512 << 20, u32::MAX] {
                assert!(said_of(0, block, 0, &[]).contains("block size"), "{block}");
            }
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"vhdxfile").unwrap();
            assert!(objection(&file).unwrap().unwrap().contains("damaged"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn said(kind: u8, parent: bool) -> String {
        let mut bytes = vec![0; 4096];
        let mut footer = vec![0; 512];
        footer[..8].copy_from_slice(COOKIE);
        footer[22] = 2;
        footer[63] = kind;
        bytes[..512].copy_from_slice(&footer);
        bytes[512..520].copy_from_slice(b"cxsparse");
        if parent {
            bytes[512 + 64] = b'x';
        }
        bytes[4096 - 512..].copy_from_slice(&footer);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        objection(&file).unwrap().unwrap_or_default()
    }

    #[test]
    fn the_table_of_blocks_is_within_the_file() {
        let said = |table: u64, entries: u32, block: u32| {
            let mut header = vec![0; 4096];
            header[..8].copy_from_slice(b"cxsparse");
            header[16..24].copy_from_slice(&table.to_be_bytes());
            header[28..32].copy_from_slice(&entries.to_be_bytes());
            header[32..36].copy_from_slice(&block.to_be_bytes());
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&header).unwrap();
            dynamic(&file, 0, 4096).unwrap().unwrap_or_default()
        };
        assert_eq!(said(1536, 640, 2 << 20), "");
        for (table, entries) in [(1536, 641), (u64::MAX, 1), (0, u32::MAX), (4096, 1)] {
            assert!(
                said(table, entries, 2 << 20).contains("not within the file"),
                "{table}"
            );
        }
        assert!(said(1536, 1, 3).contains("block size"));
        assert!(said(1536, 1, 0).contains("block size"));
    }

    #[test]
    fn parents_are_seen() {
        assert_eq!(
            (said(2, false), said(3, false)),
            (String::new(), String::new())
        );
        assert!(said(4, false).contains("parent"));
        assert!(said(3, true).contains("parent"));
        assert!(said(9, false).contains("type 9"));
        let file = tempfile::tempfile().unwrap();
        assert!(objection(&file).unwrap().unwrap().contains("cut short"));
    }
}
