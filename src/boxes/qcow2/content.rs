//! Reads what a guest sees at a place of a qcow2 image without backing files (QEMU's docs/interop/qcow2.txt). This is for
//! a few sectors: nothing is kept between two reads.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use super::{COMPRESSION_TYPE, EXTENDED_L2, Header};

/// Bits 9 to 55 of an entry of a table: the place of a cluster in the file.
const PLACE: u64 = 0x00ff_ffff_ffff_fe00;
/// Of an entry of an L2 table: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// Of an entry of an L2 table without subclusters: the cluster reads as zeros.
const ZERO: u64 = 1;
/// The unit of the length of compressed data, in bytes.
const SECTOR: u64 = 512;
/// Subclusters of a cluster, where the image has such.
const SUBCLUSTERS: u64 = 32;
/// The header's field with the type of compression, where the header is long enough.
const COMPRESSION_FIELD: usize = 104;
/// The largest window of zstd data, as a power of two in bytes. QEMU compresses clusters of at most 2 MiB.
const LARGEST_WINDOW: u32 = 23;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Deflate,
    Zstd,
}

/// The content of an image.
pub(crate) struct Content<'a> {
    file: &'a File,
    cluster_bits: u32,
    /// In bytes.
    size: u64,
    l1: u64,
    l1_entries: u64,
    /// Whether entries of L2 tables are followed by the states of subclusters.
    has_subclusters: bool,
    packing: Packing,
}

impl<'a> Content<'a> {
    /// Reads the header of an image to which there is no [`super::objection`].
    ///
    /// # Errors
    /// `InvalidData` if there is one.
    pub(crate) fn open(file: &'a File) -> io::Result<Self> {
        let header = Header::read(file)?;
        if let Some(objection) = header.objection() {
            return Err(invalid(objection));
        }
        let cut = || invalid("its header is cut short".into());
        let is_new = header.word(4).ok_or_else(cut)? > 2;
        let features = match is_new {
            true => header.long(72).ok_or_else(cut)?,
            false => 0,
        };
        let packing = match features & COMPRESSION_TYPE {
            0 => Packing::Deflate,
            _ => match header.bytes.get(COMPRESSION_FIELD) {
                Some(0) => Packing::Deflate,
                Some(1) => Packing::Zstd,
                _ => return Err(invalid("its compression is unknown".into())),
            },
        };
        Ok(Content {
            file,
            cluster_bits: header.word(20).ok_or_else(cut)?,
            size: header.long(24).ok_or_else(cut)?,
            l1: header.long(40).ok_or_else(cut)?,
            l1_entries: u64::from(header.word(36).ok_or_else(cut)?),
            has_subclusters: features & EXTENDED_L2 != 0,
            packing,
        })
    }

    /// Fills `out` with what the guest sees from the byte `at` on.
    ///
    /// # Errors
    /// `UnexpectedEof` behind the end of the disk, `InvalidData` if the tables lead nowhere, or the file cannot be read.
    pub(crate) fn read_at(&self, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
        let unit = match self.has_subclusters {
            true => self.cluster_size() / SUBCLUSTERS,
            false => self.cluster_size(),
        };
        let end = at.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !out.is_empty() {
            let left = usize::try_from(unit - at % unit).unwrap_or(usize::MAX);
            let (now, rest) = out.split_at_mut(left.min(out.len()));
            self.within_cluster(at, now)?;
            at += now.len() as u64;
            out = rest;
        }
        Ok(())
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Reads from one cluster, and from one subcluster if there are such.
    fn within_cluster(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let cluster = self.cluster_size();
        let entry_size = if self.has_subclusters { 16 } else { 8 };
        let per_table = cluster / entry_size;
        let (table, index) = (
            at / cluster / per_table,
            at / cluster % per_table * entry_size,
        );
        if table >= self.l1_entries {
            return Err(invalid("its L1 table is too short".into()));
        }
        let l2 = self.long(self.l1 + table * 8)? & PLACE;
        if l2 == 0 {
            return Ok(());
        }
        let entry = self.long(l2 + index)?;
        let from = at % cluster;
        if entry & COMPRESSED != 0 {
            return self.unpack(entry, from, out);
        }
        let is_there = match self.has_subclusters {
            true => self.long(l2 + index + 8)? >> (from / (cluster / SUBCLUSTERS)) & 1 == 1,
            false => entry & ZERO == 0,
        };
        match entry & PLACE {
            0 => Ok(()),
            _ if !is_there => Ok(()),
            place => self.file.read_exact_at(out, place + from),
        }
    }

    /// Fills `out` from the byte `from` on of a compressed cluster.
    fn unpack(&self, entry: u64, from: u64, out: &mut [u8]) -> io::Result<()> {
        let place_bits = 62 - (self.cluster_bits - 8);
        let descriptor = entry & (COMPRESSED - 1);
        let place = descriptor & ((1 << place_bits) - 1);
        let sectors = (descriptor >> place_bits) + 1;
        let length = sectors * SECTOR - place % SECTOR;
        // The last sector of the file may be cut short.
        let mut packed = Vec::new();
        let mut at = OffsetReader {
            file: self.file,
            at: place,
        };
        (&mut at).take(length).read_to_end(&mut packed)?;
        let mut unpacked: Box<dyn Read> = match self.packing {
            Packing::Deflate => Box::new(flate2::read::DeflateDecoder::new(&*packed)),
            Packing::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(&*packed)?.single_frame();
                decoder.window_log_max(LARGEST_WINDOW)?;
                Box::new(decoder)
            }
        };
        let broken = |error| invalid(format!("a cluster of it cannot be unpacked: {error}"));
        io::copy(&mut (&mut unpacked).take(from), &mut io::sink()).map_err(broken)?;
        unpacked.read_exact(out).map_err(broken)
    }

    fn long(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_be_bytes(bytes))
    }
}

struct OffsetReader<'a> {
    file: &'a File,
    at: u64,
}

impl Read for OffsetReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
        process::Command,
    };

    use super::*;

    /// Runs qemu-img; `false` if this one cannot write such an image.
    fn qemu_img(words: &[&str], files: &[&Path]) -> bool {
        let run = Command::new("qemu-img").args(words).args(files).output();
        run.unwrap().status.success()
    }

    /// Words all over 3 MiB, with a hole.
    fn raw(folder: &Path) -> (PathBuf, Vec<u8>) {
        let mut bytes: Vec<u8> = (0..3u32 << 18)
            .flat_map(|n| (n / 7).wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        bytes[1 << 20..2 << 20].fill(0);
        let file = folder.join("raw");
        fs::write(&file, &bytes).unwrap();
        (file, bytes)
    }

    #[test]
    fn every_kind_of_image_reads_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let (raw, bytes) = raw(folder.path());
        let mut tried = 0;
        for options in [
            "compat=0.10",
            "compat=1.1",
            "compat=1.1,cluster_size=512",
            "compat=1.1,cluster_size=2M",
            "compat=1.1,extended_l2=on,cluster_size=128k",
            "compat=1.1,compression_type=zstd",
        ] {
            for packed in [false, true] {
                let image = folder.path().join("image.qcow2");
                let mut words = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
                if packed {
                    words.push("-c");
                }
                if !qemu_img(&words, &[&raw, &image]) {
                    continue;
                }
                tried += 1;
                let file = File::open(&image).unwrap();
                let content = Content::open(&file).unwrap();
                for (at, length) in [
                    (0, 512),
                    (512, 16 << 10),
                    (65_536 - 100, 70_000),
                    (1 << 20, 512),
                    ((1 << 20) - 300, 600),
                    ((3 << 20) - 9, 9),
                ] {
                    let mut out = vec![1; length];
                    content.read_at(at, &mut out).unwrap();
                    let at = usize::try_from(at).unwrap();
                    assert!(
                        out == bytes[at..at + length],
                        "{options} {packed} {at} {length}"
                    );
                }
                let past = content.read_at((3 << 20) - 9, &mut [0; 10]).unwrap_err();
                assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof, "{options}");
            }
        }
        assert!(tried >= 8, "{tried}");
    }

    #[test]
    fn tables_may_lead_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let (raw, _) = raw(folder.path());
        let image = folder.path().join("image.qcow2");
        assert!(qemu_img(
            &["convert", "-f", "raw", "-O", "qcow2", "-c"],
            &[&raw, &image]
        ));
        let good = fs::read(&image).unwrap();
        let l1 = usize::try_from(u64::from_be_bytes(good[40..48].try_into().unwrap())).unwrap();
        let place = u64::from_be_bytes(good[l1..l1 + 8].try_into().unwrap()) & PLACE;
        let l2 = usize::try_from(place).unwrap();
        for at in [l1, l2] {
            for entry in [
                u64::MAX,
                PLACE,
                COMPRESSED,
                COMPRESSED | 0x3fff_ffff_ffff_ffff,
                1 << 30,
                200,
            ] {
                let mut bad = good.clone();
                bad[at..at + 8].copy_from_slice(&entry.to_be_bytes());
                fs::write(&image, &bad).unwrap();
                let file = File::open(&image).unwrap();
                // It may read anything of the file, or fail.
                let _ = Content::open(&file).unwrap().read_at(0, &mut [0; 600]);
            }
        }
        for end in [0, 50, 104, l1 + 4, l2 + 4] {
            fs::write(&image, &good[..end]).unwrap();
            let file = File::open(&image).unwrap();
            let read = Content::open(&file).and_then(|it| it.read_at(0, &mut [0; 600]));
            assert!(read.is_err(), "{end}");
        }
    }
}
