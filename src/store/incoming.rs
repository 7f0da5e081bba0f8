//! Content on its way into a store.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use sha2::{Digest as _, Sha256};

use crate::host::{digest::hex, free_space};

/// Blocks of zeros of this size become holes.
const BLOCK: usize = 64 * 1024;
/// Largest file in bytes; one that unpacks to more is a decompression bomb.
pub const LARGEST_FILE: u64 = 1 << 40;

/// Without its zeros, an image may be this many times as large as its compressed file, plus [`ALWAYS`].
const MOST_TIMES: u64 = 1000;
/// In bytes, for small files.
const ALWAYS: u64 = 1 << 30;

/// How many bytes may still be written.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub size: u64,
    /// Without holes.
    pub written: u64,
}

impl Bounds {
    /// Bounds of a compressed file of `packed` bytes whose unpacked size is not known.
    pub fn of_packed(packed: u64) -> Self {
        Bounds {
            size: LARGEST_FILE,
            written: packed.saturating_mul(MOST_TIMES).saturating_add(ALWAYS),
        }
    }

    pub fn of_size(size: u64) -> Self {
        Bounds {
            size,
            written: u64::MAX,
        }
    }

    fn take(&mut self, size: u64, written: u64) -> io::Result<()> {
        match (
            self.size.checked_sub(size),
            self.written.checked_sub(written),
        ) {
            (Some(size), Some(written)) => {
                *self = Bounds { size, written };
                Ok(())
            }
            _ => Err(io::Error::other(
                "it unpacks to far more than an image of its size can contain",
            )),
        }
    }
}

/// Writes a stream as a sparse file; returns its sha256 and its size in bytes. Another thread hashes, since
/// unpacking keeps one busy.
///
/// # Errors
/// `StorageFull` before the reserve of free space is used up; `Other` if the stream exceeds `bounds`.
pub fn write_sparse(
    reader: &mut dyn Read,
    file: &mut File,
    bounds: &mut Bounds,
    progress: &mut dyn FnMut(u64),
) -> io::Result<(String, u64)> {
    let (to_hash, blocks) = std::sync::mpsc::sync_channel::<Vec<u8>>(8);
    let hasher = std::thread::spawn(move || {
        let mut hash = Sha256::new();
        for block in blocks {
            hash.update(&block);
        }
        hex(hash.finalize())
    });
    let mut size = 0u64;
    let mut room = free_space::Watch::default();
    let mut copy = || -> io::Result<()> {
        loop {
            let mut chunk = vec![0u8; 16 * BLOCK];
            let mut filled = 0;
            while filled < chunk.len() {
                match reader.read(&mut chunk[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if filled == 0 {
                return Ok(());
            }
            chunk.truncate(filled);
            let blocks: Vec<(usize, &[u8])> = (chunk.chunks(BLOCK).enumerate())
                .filter(|(_, block)| block.iter().any(|byte| *byte != 0))
                .collect();
            let written = blocks.iter().map(|(_, block)| block.len() as u64).sum();
            bounds.take(filled as u64, written)?;
            room.before(file, written)?;
            for (n, block) in blocks {
                file.write_all_at(block, size + (n * BLOCK) as u64)?;
            }
            size += filled as u64;
            progress(size);
            // This cannot fail: the hasher ends only after `to_hash` is dropped.
            let _ = to_hash.send(chunk);
        }
    };
    let copied = copy();
    drop(to_hash);
    let digest = hasher
        .join()
        .map_err(|_| io::Error::other("the hashing thread ended"))?;
    copied?;
    // A hole at the end was not written, so set the length.
    file.set_len(size)?;
    file.seek(SeekFrom::Start(size))?;
    file.flush()?;
    Ok((digest, size))
}

/// Makes holes of the zeros in a complete file, as [`write_sparse`] writes it. A download has none: they are sent.
pub fn dig_holes(file: &File) -> io::Result<()> {
    let size = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    // Where the zeros before `at` begin.
    let mut hole = 0;
    let mut at = 0;
    while at < size {
        let length = BLOCK.min(usize::try_from(size - at).unwrap_or(BLOCK));
        file.read_exact_at(&mut block[..length], at)?;
        let next = at + length as u64;
        if block[..length].iter().any(|byte| *byte != 0) {
            if !punch(file, hole, at)? {
                return Ok(());
            }
            hole = next;
        }
        at = next;
    }
    punch(file, hole, size).map(drop)
}

/// Makes a part of a file a hole. Returns whether its file system has holes.
fn punch(file: &File, from: u64, to: u64) -> io::Result<bool> {
    use nix::fcntl::{FallocateFlags, fallocate};
    if from == to {
        return Ok(true);
    }
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let number = |n: u64| i64::try_from(n).map_err(io::Error::other);
    match fallocate(file, flags, number(from)?, number(to - from)?) {
        Ok(()) => Ok(true),
        Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_zero_has_a_bound_by_the_packed_size() {
        let mut bounds = Bounds {
            written: 5 << 20,
            ..Bounds::of_packed(0)
        };
        let mut file = tempfile::tempfile().unwrap();
        let mut stream = io::repeat(0).take(100 << 20).chain(io::repeat(0xff));
        let error = write_sparse(&mut stream, &mut file, &mut bounds, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("far more"), "{error}");
        use std::os::unix::fs::MetadataExt;
        assert!(file.metadata().unwrap().blocks() * 512 <= 6 << 20);
    }

    #[test]
    fn zeros_of_a_complete_file_become_holes() {
        use std::os::unix::fs::MetadataExt;
        let mut file = tempfile::tempfile().unwrap();
        let mut content = vec![0; 8 << 20];
        content[..3].copy_from_slice(b"mbr");
        content[5 << 20] = 1;
        // The last block is not whole.
        content.extend([0; 100]);
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 >= 8 << 20);
        dig_holes(&file).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 <= 1 << 20);
        let mut kept = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut kept).unwrap();
        assert!(kept == content);
    }
}
