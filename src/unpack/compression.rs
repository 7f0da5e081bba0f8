//! Recognises compressed files by their first bytes, and decompresses them with bounded memory.

use std::io::{self, BufReader, Read};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Plain,
    Xz,
    Gzip,
    Zstd,
    Bzip2,
}

/// Recognises how a file that begins with `head` is compressed.
pub fn compression(head: &[u8]) -> Compression {
    // xz-file-format §2.1.1.1, RFC 1952 §2.3.1, RFC 8878 §3.1.1, bzip2's header.
    if head.starts_with(b"\xfd7zXZ\0") {
        Compression::Xz
    } else if head.starts_with(b"\x1f\x8b") {
        Compression::Gzip
    } else if head.starts_with(b"\x28\xb5\x2f\xfd") {
        Compression::Zstd
    } else if head.starts_with(b"BZh") {
        Compression::Bzip2
    } else {
        Compression::Plain
    }
}

/// Memory in bytes that unpacking xz may use at most. `xz -9` needs 65 MiB.
const MOST_MEMORY: u64 = 256 << 20;

/// Unpacks xz with bounded memory: the file itself says how much it needs, up to 4 GiB.
pub fn decompress_xz<R: Read>(reader: R) -> io::Result<liblzma::read::XzDecoder<R>> {
    let stream =
        liblzma::stream::Stream::new_stream_decoder(MOST_MEMORY, liblzma::stream::CONCATENATED)?;
    Ok(liblzma::read::XzDecoder::new_stream(reader, stream))
}

/// Decompresses a stream.
pub fn decompress(
    compression: Compression,
    reader: impl Read + 'static,
) -> io::Result<Box<dyn Read>> {
    Ok(match compression {
        Compression::Plain => Box::new(reader),
        // Concatenated streams are one file (xz(1), gzip(1), bzip2(1)).
        Compression::Xz => Box::new(decompress_xz(reader)?),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(
            1 << 18,
            reader,
        ))),
        Compression::Zstd => Box::new(zstd::Decoder::new(reader)?),
        Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(reader)),
    })
}
