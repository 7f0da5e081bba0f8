//! Disk images as others publish them: recognises them by their content and makes them the disk of a box.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::FileExt,
    path::Path,
};

use crate::unpack::{Compression, compression};

use super::{error::BoxError, manifest::DiskFormat, qcow2, qemu_img, vhd, vmdk};

/// What an uncompressed file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Qcow2,
    /// A raw disk, recognised by its partition table or file system.
    Raw,
    Vmdk,
    /// Also called VPC.
    Vhd,
    Vhdx,
    Tar,
}

impl Kind {
    /// As qemu-img calls it.
    fn qemu_format(self) -> Option<&'static str> {
        match self {
            Kind::Qcow2 => Some("qcow2"),
            Kind::Raw => Some("raw"),
            Kind::Vmdk => Some("vmdk"),
            Kind::Vhd => Some("vpc"),
            Kind::Vhdx => Some("vhdx"),
            Kind::Tar => None,
        }
    }
}

/// Bytes at the start of a file that are enough to recognise it: up to the label of an ISO 9660 or btrfs
/// file system.
const HEAD: usize = 70 * 1024;

/// Recognises an uncompressed file by its first 70 KiB and its last 512 bytes.
pub(super) fn kind(head: &[u8], tail: &[u8]) -> Option<Kind> {
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..offset + magic.len())
            .is_some_and(|found| found == magic)
    };
    if at(0, b"QFI\xfb") {
        return Some(Kind::Qcow2);
    }
    if at(0, b"KDMV") || at(0, b"COWD") || at(0, b"# Disk DescriptorFile") {
        return Some(Kind::Vmdk);
    }
    if at(0, b"vhdxfile") {
        return Some(Kind::Vhdx);
    }
    // A dynamic VHD begins with a copy of its footer, a fixed one only ends with it.
    if at(0, b"conectix") || tail.starts_with(b"conectix") {
        return Some(Kind::Vhd);
    }
    if at(257, b"ustar") {
        return Some(Kind::Tar);
    }
    let raw = at(510, b"\x55\xaa")          // a master boot record
        || at(512, b"EFI PART")             // a GPT
        || at(1080, b"\x53\xef")            // ext2 to ext4
        || at(0, b"XFSB")
        || at(65600, b"_BHRfS_M")           // btrfs
        || at(32769, b"CD001"); // ISO 9660
    raw.then_some(Kind::Raw)
}

/// Returns the start of a stream, and a reader that yields the whole stream.
pub(super) fn peek<R: Read>(mut reader: R) -> io::Result<(Vec<u8>, impl Read)> {
    let mut head = Vec::with_capacity(HEAD);
    (&mut reader).take(HEAD as u64).read_to_end(&mut head)?;
    Ok((head.clone(), io::Cursor::new(head).chain(reader)))
}

fn tail(file: &File, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0u8; 512.min(usize::try_from(size).unwrap_or(512))];
    let start = size - bytes.len() as u64;
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

/// Returns how a file is compressed and, if it is not, what it contains.
pub(super) fn probe(file: &File) -> io::Result<(Compression, Option<Kind>)> {
    let size = file.metadata()?.len();
    let mut from = file;
    from.rewind()?;
    let (head, _) = peek(from)?;
    let compression = compression(&head);
    let kind = match compression {
        Compression::Plain => kind(&head, &tail(file, size)?),
        _ => None,
    };
    Ok((compression, kind))
}

/// Returns why QEMU must not open an image, or `None`. Only the image's headers are read, and no other file.
pub(super) fn objection(file: &File, kind: Kind) -> io::Result<Option<String>> {
    match kind {
        Kind::Raw | Kind::Tar => Ok(None),
        Kind::Qcow2 => qcow2::objection(file),
        Kind::Vmdk => vmdk::objection(file),
        Kind::Vhd => vhd::objection(file),
        Kind::Vhdx => vhd::vhdx::objection(file),
    }
}

/// Returns the format of an image that QEMU can use as it is; `None` if it must be converted first.
pub(super) fn usable(kind: Kind) -> Option<DiskFormat> {
    match kind {
        Kind::Qcow2 => Some(DiskFormat::Qcow2),
        Kind::Raw => Some(DiskFormat::Raw),
        _ => None,
    }
}

/// Converts an image to qcow2. The caller has checked that there is no [`objection`]. Errors name it `name`.
pub(super) fn convert(from: &File, kind: Kind, to: &File, name: &Path) -> Result<(), BoxError> {
    let image = qemu_img::Image {
        file: from,
        format: kind.qemu_format().unwrap_or("raw"),
        backing: &[],
    };
    qemu_img::convert(&image, &["-O", "qcow2", "-o", "compat=1.1"], to)
        .map_err(BoxError::qemu_img(name))?
        .map_err(|message| BoxError::BadImage {
            path: name.to_path_buf(),
            message,
        })
}

/// Bytes that the guest sees.
pub(super) fn virtual_size(file: &File, format: DiskFormat) -> io::Result<u64> {
    match format {
        DiskFormat::Qcow2 => qcow2::virtual_size(file),
        DiskFormat::Raw => file.metadata().map(|metadata| metadata.len()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{
        host::digest::sha256_of,
        store::{Bounds, write_sparse},
        unpack::decompress,
    };

    #[test]
    fn kinds_by_content() {
        let with = |offset: usize, magic: &[u8]| {
            let mut head = vec![0u8; HEAD];
            head[offset..offset + magic.len()].copy_from_slice(magic);
            kind(&head, &[])
        };
        assert_eq!(with(0, b"QFI\xfb"), Some(Kind::Qcow2));
        assert_eq!(with(0, b"KDMV"), Some(Kind::Vmdk));
        assert_eq!(with(0, b"conectix"), Some(Kind::Vhd));
        assert_eq!(with(510, b"\x55\xaa"), Some(Kind::Raw));
        assert_eq!(with(1080, b"\x53\xef"), Some(Kind::Raw));
        assert_eq!(with(257, b"ustar"), Some(Kind::Tar));
        assert_eq!(with(0, b"<!doctype html>"), None);
        assert_eq!(kind(b"", b""), None);
        assert_eq!(kind(b"x", b"conectix and so on"), Some(Kind::Vhd));
    }

    #[test]
    fn a_bomb_is_let_go_of() {
        let zeros = io::repeat(0).take(100 << 20);
        let packed = zstd::encode_all(zeros, 1).unwrap();
        assert!(packed.len() < 100_000);
        let mut reader = decompress(Compression::Zstd, io::Cursor::new(packed)).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        let mut bounds = Bounds::of_size(10 << 20);
        let error = write_sparse(&mut *reader, &mut file, &mut bounds, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("far more"), "{error}");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(file.metadata().unwrap().blocks(), 0);
    }

    #[test]
    fn xz_may_not_ask_for_all_memory() {
        use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
        let packed = |dictionary: u32| {
            let mut options = LzmaOptions::new_preset(0).unwrap();
            options.dict_size(dictionary);
            let mut filters = Filters::new();
            filters.lzma2(&options);
            let stream = Stream::new_stream_encoder(&filters, Check::Crc32).unwrap();
            let mut packer = liblzma::read::XzEncoder::new_stream(&b"hello"[..], stream);
            let mut bytes = Vec::new();
            packer.read_to_end(&mut bytes).unwrap();
            bytes
        };
        let unpacked = |bytes: Vec<u8>| {
            let mut text = String::new();
            decompress(Compression::Xz, io::Cursor::new(bytes))
                .unwrap()
                .read_to_string(&mut text)
                .map(|_| text)
        };
        assert_eq!(unpacked(packed(64 << 20)).unwrap(), "hello");
        assert!(unpacked(packed(512 << 20)).is_err());
    }

    #[test]
    fn every_packing_unpacks_to_a_sparse_file() {
        let mut plain = vec![0u8; 3 << 20];
        plain[2_000_000] = 7;
        let digest = sha256_of(&plain);
        let gzip = {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            writer.write_all(&plain).unwrap();
            writer.finish().unwrap()
        };
        let bzip2 = {
            let mut writer = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
            writer.write_all(&plain).unwrap();
            writer.finish().unwrap()
        };
        let xz = liblzma::encode_all(plain.as_slice(), 1).unwrap();
        let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
        for packed in [plain.clone(), gzip, bzip2, xz, zstd] {
            let (head, stream) = peek(io::Cursor::new(packed)).unwrap();
            let mut unpacked = decompress(compression(&head), stream).unwrap();
            let mut file = tempfile::tempfile().unwrap();
            let mut bounds = Bounds::of_packed(1);
            let (found, size) =
                write_sparse(&mut unpacked, &mut file, &mut bounds, &mut |_| {}).unwrap();
            assert_eq!((found, size), (digest.clone(), 3 << 20));
            use std::os::unix::fs::MetadataExt;
            let metadata = file.metadata().unwrap();
            assert_eq!(metadata.len(), 3 << 20);
            assert!(metadata.blocks() * 512 <= 1 << 20, "{}", metadata.blocks());
        }
    }
}
