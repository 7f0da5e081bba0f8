//! Chunks: how a file is cut, and how its parts are compressed and uncompressed.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};

use crate::{
    host::digest::{hex, sha256_of, sha256_of_stream},
    report::counted,
};

use super::{
    error::OciError,
    layout::{Blob, CHUNK, Chunk},
};

/// zstd's level. Unpacking is quick at any level, and compressing at this one is faster than most networks.
const LEVEL: i32 = 3;
/// Largest accepted window (2^26 bytes): as long as the longest chunk. A larger one would only use memory.
const WINDOW_LOG: u32 = 26;

/// Returns offset and length of each chunk of a file of `size` bytes. The ranges depend only on the size, so
/// that unchanged parts keep their digests.
pub(super) fn cut(size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size.div_ceil(CHUNK)).map(move |n| (n * CHUNK, CHUNK.min(size - n * CHUNK)))
}

/// A compressed part of a file.
pub(super) struct Packed {
    pub chunk: Chunk,
    pub bytes: Vec<u8>,
}

/// Compresses a part of a file; `None` if it is all zeros, which are not stored. The same content makes the
/// same bytes, as long as zstd's version is the same.
pub(super) fn pack(file: &File, offset: u64, length: u64) -> io::Result<Option<Packed>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(length))?;
    let mut content = Sha256::new();
    let mut part = Part {
        file,
        at: offset,
        end: offset + length,
    };
    let mut buffer = vec![0u8; 1 << 18];
    let mut zeros = true;
    while part.at < part.end {
        let n = part.read(&mut buffer)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        zeros = zeros && buffer[..n].iter().all(|byte| *byte == 0);
        content.update(&buffer[..n]);
        encoder.write_all(&buffer[..n])?;
    }
    if zeros {
        return Ok(None);
    }
    let bytes = encoder.finish()?;
    Ok(Some(Packed {
        chunk: Chunk {
            blob: Blob {
                sha256: sha256_of(&bytes),
                size: bytes.len() as u64,
            },
            offset,
            length,
            content: hex(content.finalize()),
        },
        bytes,
    }))
}

/// A part of a file, read without moving the file's own position.
struct Part<F> {
    file: F,
    at: u64,
    end: u64,
}

impl<F: std::borrow::Borrow<File>> Read for Part<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let n = self.file.borrow().read_at(&mut buffer[..wanted], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Where the content of a chunk is on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChunkSource {
    /// Compressed, in its own file.
    Blob(PathBuf),
    /// Uncompressed, as part of a file of another box.
    File { path: PathBuf, offset: u64 },
}

impl ChunkSource {
    /// Opens the content as a stream, which yields at most `length` + 1 bytes of a blob.
    fn open(&self, length: u64) -> io::Result<Box<dyn Read>> {
        Ok(match self {
            ChunkSource::Blob(path) => {
                let mut decoder = zstd::Decoder::new(File::open(path)?)?;
                decoder.window_log_max(WINDOW_LOG)?;
                Box::new(decoder.take(length.saturating_add(1)))
            }
            ChunkSource::File { path, offset } => Box::new(Part {
                file: File::open(path)?,
                at: *offset,
                end: *offset + length,
            }),
        })
    }

    /// Whether the content there is that of the chunk.
    pub(super) fn holds(&self, chunk: &Chunk) -> bool {
        let hash = || sha256_of_stream(&mut self.open(chunk.length)?);
        hash().is_ok_and(|(found, _)| found == chunk.content)
    }
}

/// A file read from its chunks, from front to back. Ranges that no chunk covers are zeros.
pub(super) struct Assembled<'a> {
    size: u64,
    at: u64,
    /// Chunks that are still to be read, the next one last.
    chunks: Vec<(&'a Chunk, ChunkSource)>,
    open: Option<Open<'a>>,
}

struct Open<'a> {
    chunk: &'a Chunk,
    reader: Box<dyn Read>,
    read: u64,
}

impl<'a> Assembled<'a> {
    /// `chunks` are sorted, and lie within `size`.
    pub(super) fn new(size: u64, mut chunks: Vec<(&'a Chunk, ChunkSource)>) -> Self {
        chunks.reverse();
        Assembled {
            size,
            at: 0,
            chunks,
            open: None,
        }
    }
}

impl Open<'_> {
    fn bad(&self, message: String) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            OciError::Chunk {
                digest: self.chunk.blob.sha256.clone(),
                message,
            },
        )
    }

    /// Returns 0 at the chunk's end. An end anywhere else than the chunk's length is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.chunk.length - self.read;
        if left == 0 {
            // A decompression bomb would go on.
            return match self.reader.read(&mut [0]) {
                Ok(0) => Ok(0),
                Ok(_) => Err(self.bad(format!(
                    "it unpacks to more than its {}",
                    counted(self.chunk.length, "byte")
                ))),
                Err(error) => Err(self.bad(format!("it cannot be unpacked: {error}"))),
            };
        }
        let wanted = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        match self.reader.read(&mut buffer[..wanted]) {
            Ok(0) => Err(self.bad(format!(
                "it unpacks to {}, expected {}",
                counted(self.read, "byte"),
                self.chunk.length
            ))),
            Ok(n) => {
                self.read += n as u64;
                Ok(n)
            }
            Err(error) => Err(self.bad(format!("it cannot be unpacked: {error}"))),
        }
    }
}

impl Read for Assembled<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(open) = &mut self.open {
                match open.read(buffer)? {
                    0 => self.open = None,
                    n => {
                        self.at += n as u64;
                        return Ok(n);
                    }
                }
            }
            let next = self
                .chunks
                .last()
                .map_or(self.size, |(chunk, _)| chunk.offset);
            if self.at < next {
                let gap = usize::try_from(next - self.at).unwrap_or(usize::MAX);
                let n = gap.min(buffer.len());
                buffer[..n].fill(0);
                self.at += n as u64;
                return Ok(n);
            }
            let Some((chunk, source)) = self.chunks.pop() else {
                return Ok(0);
            };
            self.open = Some(Open {
                chunk,
                reader: source.open(chunk.length)?,
                read: 0,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_depend_only_on_the_size() {
        let all = |size| cut(size).collect::<Vec<_>>();
        assert_eq!(all(0), []);
        assert_eq!(all(1), [(0, 1)]);
        assert_eq!(all(CHUNK), [(0, CHUNK)]);
        assert_eq!(all(CHUNK + 5), [(0, CHUNK), (CHUNK, 5)]);
    }

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn blob(&self, bytes: &[u8]) -> ChunkSource {
            let path = self.0.path().join(sha256_of(bytes));
            std::fs::write(&path, bytes).unwrap();
            ChunkSource::Blob(path)
        }

        fn file(&self, bytes: &[u8]) -> File {
            let path = self.0.path().join("file");
            std::fs::write(&path, bytes).unwrap();
            File::open(path).unwrap()
        }
    }

    fn folder() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length)
            .map(|n| u8::try_from(n * 31 % 251).unwrap())
            .collect()
    }

    #[test]
    fn packed_the_same_each_time_and_put_together_again() {
        let folder = folder();
        let mut whole = content(300_000);
        whole[100_000..200_000].fill(0);
        let file = folder.file(&whole);
        assert!(pack(&file, 100_000, 100_000).unwrap().is_none());
        let first = pack(&file, 0, 100_000).unwrap().unwrap();
        let again = pack(&file, 0, 100_000).unwrap().unwrap();
        assert_eq!(first.chunk, again.chunk);
        assert_eq!(first.bytes, again.bytes);
        let last = pack(&file, 200_000, 100_000).unwrap().unwrap();
        let (a, b) = (folder.blob(&first.bytes), folder.blob(&last.bytes));
        assert!(a.holds(&first.chunk) && !a.holds(&last.chunk));
        let elsewhere = ChunkSource::File {
            path: folder.0.path().join("file"),
            offset: 200_000,
        };
        assert!(elsewhere.holds(&last.chunk) && !elsewhere.holds(&first.chunk));
        for b in [b, elsewhere] {
            let mut back = Vec::new();
            Assembled::new(300_000, vec![(&first.chunk, a.clone()), (&last.chunk, b)])
                .read_to_end(&mut back)
                .unwrap();
            assert!(back == whole);
        }
        // Past the file's end there is nothing to pack.
        assert!(pack(&file, 250_000, 100_000).is_err());
    }

    #[test]
    fn holes_at_both_ends() {
        let folder = folder();
        let file = folder.file(&content(10));
        let packed = pack(&file, 0, 10).unwrap().unwrap();
        let source = folder.blob(&packed.bytes);
        let chunk = Chunk {
            offset: 7,
            ..packed.chunk
        };
        let mut back = Vec::new();
        Assembled::new(20, vec![(&chunk, source)])
            .read_to_end(&mut back)
            .unwrap();
        assert_eq!(back[..7], [0; 7]);
        assert_eq!(back[7..17], content(10));
        assert_eq!(back[17..], [0; 3]);
    }

    #[test]
    fn a_chunk_is_as_long_as_it_says() {
        let folder = folder();
        let read = |packed: &[u8], length: u64| {
            let chunk = Chunk {
                blob: Blob {
                    sha256: "a".repeat(64),
                    size: packed.len() as u64,
                },
                offset: 0,
                length,
                content: "b".repeat(64),
            };
            let source = folder.blob(packed);
            let mut all = Vec::new();
            let result = Assembled::new(length, vec![(&chunk, source)]).read_to_end(&mut all);
            // Never more than was asked for, whatever it unpacks to.
            assert!(all.len() as u64 <= length);
            result.unwrap_err().to_string()
        };
        // 64 MiB of zeros in some KiB.
        let bomb = zstd::encode_all(io::repeat(0).take(64 << 20), 3).unwrap();
        assert!(bomb.len() < 1 << 14);
        assert!(read(&bomb, 1000).contains("more than its 1000 bytes"));
        assert!(read(&bomb, 65 << 20).contains("expected 68157440"));
        assert!(read(&bomb[..bomb.len() / 2], 64 << 20).contains("chunk sha256:aaaa"));
        assert!(read(b"no zstd", 10).contains("cannot be unpacked"));
        // A window that would take 1 GiB of memory.
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(30).unwrap();
        encoder.write_all(&content(1000)).unwrap();
        let wide = encoder.finish().unwrap();
        assert!(read(&wide, 1000).contains("cannot be unpacked"));
    }
}
