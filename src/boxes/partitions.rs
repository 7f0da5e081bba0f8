//! The firmware that a disk needs, read from its partition table.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::host::firmware::Firmware;

use super::{
    error::BoxError,
    manifest::{Boot, DiskFormat, FileRole},
    qcow2::Content,
    store::{Store, StoredBox},
};

/// The size of a sector, as virtio disks and BIOSes have it, in bytes.
const SECTOR: u64 = 512;
/// How much of the first sector is code: a BIOS runs it, and so it is not zeros where one can boot from the disk.
const CODE: usize = 440;
/// The partitions in the first sector: where they begin, how many, and the size of each, in bytes.
const MBR_ENTRIES: usize = 446;
const MBR_COUNT: usize = 4;
const MBR_ENTRY: usize = 16;
const MBR_SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Types of partitions there (UEFI specification, 5.2).
const MBR_ESP: u8 = 0xef;
const MBR_PROTECTIVE: u8 = 0xee;
/// The type of an EFI system partition, c12a7328-f81f-11d2-ba4b-00a0c93ec93b, as a GPT has it.
const GPT_ESP: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
/// The most that is read of a GPT's entries, in bytes: 1024 of the usual size. The specification wants 16 KiB at least.
const LARGEST_TABLE: usize = 128 << 10;
const ENTRY_SIZES: std::ops::RangeInclusive<u32> = 128..=4096;

impl Store {
    /// Returns the firmware by which a box boots. Where QEMU loads its kernel, that is a BIOS, which only starts it.
    ///
    /// # Errors
    /// If its disk cannot be read.
    pub fn firmware_of(&self, stored: &StoredBox) -> Result<Firmware, BoxError> {
        match stored.manifest.boot {
            Boot::Direct { .. } => Ok(Firmware::Bios),
            Boot::Bootloader {
                firmware: Some(firmware),
            } => Ok(firmware),
            Boot::Bootloader { firmware: None } => self.needed_by_disk(stored),
        }
    }

    /// Returns the firmware that a box's disk needs, whatever its manifest says. A disk that is gone needs a BIOS: who
    /// starts a machine checks that it is there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn needed_by_disk(&self, stored: &StoredBox) -> Result<Firmware, BoxError> {
        let disk = &stored.manifest.disk;
        let path = self.file(&disk.file, FileRole::Disk(disk.format));
        match File::open(&path).and_then(|file| needed(&file, disk.format)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Firmware::Bios),
            other => other.map_err(BoxError::io("read", path)),
        }
    }
}

/// Returns the firmware that a disk needs: UEFI if it has an EFI system partition, and nothing that a BIOS could run. A
/// BIOS runs the first sector and nothing else, so a BIOS boot partition without code there does not count.
///
/// # Errors
/// If the file cannot be read. An image that is damaged or cannot be understood needs a BIOS, like every disk about which
/// nothing is known.
pub(super) fn needed(file: &File, format: DiskFormat) -> io::Result<Firmware> {
    let found = match format {
        DiskFormat::Raw => by_partitions(&|at, out| file.read_exact_at(out, at)),
        DiskFormat::Qcow2 => Content::open(file)
            .and_then(|content| by_partitions(&|at, out| content.read_at(at, out))),
    };
    match found {
        Err(error)
            if matches!(
                error.kind(),
                // The last is of a place that no file has.
                io::ErrorKind::InvalidData
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(Firmware::Bios)
        }
        other => other,
    }
}

/// The same, of a disk that `read` fills bytes from, by their place in bytes.
fn by_partitions(read: &dyn Fn(u64, &mut [u8]) -> io::Result<()>) -> io::Result<Firmware> {
    let mut first = [0; SECTOR as usize];
    read(0, &mut first)?;
    if first[510..] != MBR_SIGNATURE || first[..CODE].iter().any(|byte| *byte != 0) {
        return Ok(Firmware::Bios);
    }
    let types = (0..MBR_COUNT).map(|n| first[MBR_ENTRIES + n * MBR_ENTRY + 4]);
    let has = |wanted| types.clone().any(|it| it == wanted);
    Ok(
        match has(MBR_ESP) || (has(MBR_PROTECTIVE) && gpt_has_esp(read)?) {
            true => Firmware::Uefi,
            false => Firmware::Bios,
        },
    )
}

/// Whether a GPT has an EFI system partition (UEFI specification, 5.3).
fn gpt_has_esp(read: &dyn Fn(u64, &mut [u8]) -> io::Result<()>) -> io::Result<bool> {
    let mut header = [0; SECTOR as usize];
    read(SECTOR, &mut header)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(false);
    }
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&header[at..at + 4]);
        u32::from_le_bytes(bytes)
    };
    let entries = u64::from(word(72)) | u64::from(word(76)) << 32;
    let (count, size) = (word(80), word(84));
    if !ENTRY_SIZES.contains(&size) {
        return Ok(false);
    }
    let mut table = vec![0; LARGEST_TABLE.min(count as usize * size as usize)];
    let Some(at) = entries.checked_mul(SECTOR) else {
        return Ok(false);
    };
    read(at, &mut table)?;
    Ok((table.chunks_exact(size as usize)).any(|entry| entry.starts_with(&GPT_ESP)))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    /// A disk with partitions by sfdisk, after a change.
    fn disk(script: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        File::create(&file).unwrap().set_len(8 << 20).unwrap();
        let path = format!("/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap());
        let mut sfdisk = Command::new("sfdisk")
            .env("PATH", path)
            .arg("-q")
            .arg(&file)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = sfdisk.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        assert!(sfdisk.wait().unwrap().success(), "{script}");
        let mut bytes = fs::read(&file).unwrap();
        change(&mut bytes);
        bytes
    }

    fn found(bytes: &[u8]) -> Firmware {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        needed(&file, DiskFormat::Raw).unwrap()
    }

    const GPT: &str = "label: gpt\nsize=1MiB, type=linux\nsize=1MiB, type=uefi\n";
    const BIOS_BOOT: &str =
        "label: gpt\nsize=1MiB, type=21686148-6449-6E6F-744E-656564454649\nsize=1MiB, type=uefi\n";

    #[test]
    fn a_disk_that_no_bios_can_boot_needs_uefi() {
        let code = |bytes: &mut [u8]| bytes[0] = 0xeb;
        let none = |_: &mut [u8]| {};
        assert_eq!(found(&disk(GPT, none)), Firmware::Uefi);
        // The code is in the first sector, or nowhere.
        assert_eq!(found(&disk(BIOS_BOOT, none)), Firmware::Uefi);
        assert_eq!(
            found(&disk("label: dos\nsize=2MiB, type=ef\n", none)),
            Firmware::Uefi
        );
        for script in [GPT, BIOS_BOOT, "label: dos\nsize=2MiB, type=ef\n"] {
            assert_eq!(found(&disk(script, code)), Firmware::Bios, "{script}");
        }
        for script in [
            "label: gpt\nsize=1MiB, type=linux\n",
            "label: dos\nsize=2MiB, type=83\n",
        ] {
            assert_eq!(found(&disk(script, none)), Firmware::Bios, "{script}");
        }
        for bytes in [&[][..], &[0; 100], &[0; 512], &[0xff; 4096]] {
            assert_eq!(found(bytes), Firmware::Bios);
        }
    }

    #[test]
    fn a_table_that_leads_astray_is_nothing_to_boot_by() {
        let with = |at: usize, new: &[u8]| {
            let gpt = disk(GPT, |bytes| {
                bytes[512 + at..512 + at + new.len()].copy_from_slice(new);
            });
            found(&gpt)
        };
        assert_eq!(with(92, &[0; 4]), Firmware::Uefi);
        for (at, new) in [
            (0, &b"EFI PORT"[..]),
            (72, &[0xff; 8]),
            (72, &[0, 0, 0, 0, 0, 0, 0x40, 0]),
            (72, &[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]),
            (80, &[0; 4]),
            (84, &[0; 4]),
            (84, &[0xff; 4]),
        ] {
            assert_eq!(with(at, new), Firmware::Bios, "{at} {new:?}");
        }
        // However many entries it claims.
        assert_eq!(with(80, &[0xff; 4]), Firmware::Uefi);
        let short = disk(GPT, |_| {});
        for end in [511, 512, 600, 1024, 1024 + 130] {
            assert_eq!(found(&short[..end]), Firmware::Bios, "{end}");
        }
    }

    #[test]
    fn it_is_found_in_a_compressed_qcow2_too() {
        let folder = tempfile::tempdir().unwrap();
        let (raw, image) = (folder.path().join("raw"), folder.path().join("image"));
        fs::write(&raw, disk(GPT, |_| {})).unwrap();
        let converted = Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", "qcow2", "-c"])
            .args([&raw, &image])
            .status();
        assert!(converted.unwrap().success());
        let file = File::open(&image).unwrap();
        assert_eq!(needed(&file, DiskFormat::Qcow2).unwrap(), Firmware::Uefi);
        // As raw bytes it is no partition table.
        assert_eq!(needed(&file, DiskFormat::Raw).unwrap(), Firmware::Bios);
    }
}
