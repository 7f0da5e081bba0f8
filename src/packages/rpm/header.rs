//! The beginning of an .rpm: lead, signature, header
//! (<https://rpm-software-management.github.io/rpm/manual/format_v4.html>).
//!
//! This is too little for a crate. The existing ones read the whole payload into memory, and contain much code for making
//! packages.

use std::io::{self, Read};

const LEAD: usize = 96;
const LEAD_MAGIC: &[u8] = b"\xed\xab\xee\xdb";
const MAGIC: &[u8] = b"\x8e\xad\xe8\x01";
const ENTRY: usize = 16;
/// rpm's own limit.
const MOST_ENTRIES: usize = 1 << 16;
/// In bytes; less than rpm's own limit, but far more than a kernel's list of files needs.
const LARGEST_STORE: usize = 64 << 20;

/// Tags of headers and of signatures (rpmtag.h).
pub(super) mod tag {
    pub(crate) const NAME: u32 = 1000;
    pub(crate) const VERSION: u32 = 1001;
    pub(crate) const RELEASE: u32 = 1002;
    pub(crate) const EPOCH: u32 = 1003;
    pub(crate) const PAYLOAD_FORMAT: u32 = 1124;
    /// The digest of the compressed payload.
    pub(crate) const PAYLOAD_DIGEST: u32 = 5092;
    pub(crate) const PAYLOAD_DIGEST_ALGORITHM: u32 = 5093;
    /// Signatures of the header: DSA and EdDSA; RSA; and since rpm 6 all kinds, in base64.
    pub(crate) const SIGNATURE_DSA: u32 = 267;
    pub(crate) const SIGNATURE_RSA: u32 = 268;
    pub(crate) const SIGNATURE_OPENPGP: u32 = 278;
}

const INT32: u32 = 4;
const STRING: u32 = 6;
const BINARY: u32 = 7;
const STRING_ARRAY: u32 = 8;
const I18N_STRING: u32 = 9;

/// Tags with their values. The signature and the header have the same format.
#[derive(Debug)]
pub(super) struct Header {
    /// The bytes in the file, which are signed.
    pub bytes: Vec<u8>,
    entries: usize,
}

/// The signature and the header.
pub(super) struct Front {
    pub signature: Header,
    pub header: Header,
}

/// Reads up to where the payload begins.
pub(super) fn read(reader: &mut dyn Read) -> io::Result<Front> {
    let mut lead = [0; LEAD];
    exact(reader, &mut lead)?;
    if !lead.starts_with(LEAD_MAGIC) {
        return Err(bad("it is not an .rpm"));
    }
    let signature = Header::read(reader)?;
    // The signature is padded so that the header begins at a multiple of 8.
    let padding = (8 - signature.bytes.len() % 8) % 8;
    exact(reader, &mut [0; 8][..padding])?;
    let header = Header::read(reader)?;
    Ok(Front { signature, header })
}

impl Header {
    fn read(reader: &mut dyn Read) -> io::Result<Self> {
        let mut intro = [0; 16];
        exact(reader, &mut intro)?;
        if !intro.starts_with(MAGIC) {
            return Err(bad("one of its headers is damaged"));
        }
        let entries = number(&intro, 8) as usize;
        let store = number(&intro, 12) as usize;
        if entries > MOST_ENTRIES || store > LARGEST_STORE {
            return Err(bad("one of its headers is too large"));
        }
        let size = entries * ENTRY + store;
        let mut bytes = intro.to_vec();
        // Memory is only used for bytes that exist, whatever size the header claims.
        reader.take(size as u64).read_to_end(&mut bytes)?;
        if bytes.len() < 16 + size {
            return Err(bad("it is truncated"));
        }
        Ok(Header { bytes, entries })
    }

    /// Returns a tag's kind and count, and the store from its value on.
    fn find(&self, tag: u32) -> Option<(u32, usize, &[u8])> {
        let store = 16 + self.entries * ENTRY;
        (0..self.entries)
            .map(|n| 16 + n * ENTRY)
            .find(|at| number(&self.bytes, *at) == tag)
            .and_then(|at| {
                let offset = number(&self.bytes, at + 8) as usize;
                let value = self.bytes.get(store.checked_add(offset)?..)?;
                Some((
                    number(&self.bytes, at + 4),
                    number(&self.bytes, at + 12) as usize,
                    value,
                ))
            })
    }

    /// Returns the first of a tag's texts.
    pub(super) fn text(&self, tag: u32) -> Option<&str> {
        self.texts(tag)?.into_iter().next()
    }

    pub(super) fn texts(&self, tag: u32) -> Option<Vec<&str>> {
        let (kind, count, value) = self.find(tag)?;
        if !matches!(kind, STRING | STRING_ARRAY | I18N_STRING) || count > value.len() {
            return None;
        }
        let mut parts = value.split(|byte| *byte == 0);
        (0..count)
            .map(|_| std::str::from_utf8(parts.next()?).ok())
            .collect()
    }

    pub(super) fn number(&self, tag: u32) -> Option<u32> {
        let (kind, count, value) = self.find(tag)?;
        (kind == INT32 && count >= 1 && value.len() >= 4).then(|| number(value, 0))
    }

    pub(super) fn binary(&self, tag: u32) -> Option<&[u8]> {
        let (kind, count, value) = self.find(tag)?;
        (kind == BINARY).then(|| value.get(..count)).flatten()
    }
}

/// Reads a big-endian number; 0 beyond the end.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|it| it.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

fn exact(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<()> {
    reader
        .read_exact(buffer)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => bad("it is truncated"),
            _ => error,
        })
}

fn bad(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(entries: &[(u32, u32, u32, u32)], store: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0; 4]);
        bytes.extend((entries.len() as u32).to_be_bytes());
        bytes.extend((store.len() as u32).to_be_bytes());
        for (tag, kind, offset, count) in entries {
            for it in [tag, kind, offset, count] {
                bytes.extend(it.to_be_bytes());
            }
        }
        bytes.extend(store);
        bytes
    }

    fn rpm(signature: &[u8], header: &[u8]) -> Vec<u8> {
        let mut bytes = LEAD_MAGIC.to_vec();
        bytes.resize(LEAD, 0);
        bytes.extend(signature);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(header);
        bytes
    }

    #[test]
    fn values_are_found() {
        let signature = header(&[(tag::SIGNATURE_RSA, BINARY, 0, 3)], b"abc");
        let main = header(
            &[
                (tag::NAME, STRING, 0, 1),
                (tag::EPOCH, INT32, 8, 1),
                (tag::PAYLOAD_DIGEST, STRING_ARRAY, 12, 2),
            ],
            b"kernel\0\0\0\0\0\x07one\0two\0",
        );
        let bytes = rpm(&signature, &main);
        let mut reader = bytes.as_slice();
        let front = read(&mut reader).unwrap();
        assert!(reader.is_empty());
        assert_eq!(
            front.signature.binary(tag::SIGNATURE_RSA),
            Some(&b"abc"[..])
        );
        assert_eq!(front.header.text(tag::NAME), Some("kernel"));
        assert_eq!(front.header.number(tag::EPOCH), Some(7));
        assert_eq!(
            front.header.texts(tag::PAYLOAD_DIGEST),
            Some(vec!["one", "two"])
        );
        assert_eq!(front.header.bytes, main);
        // Not as what it is.
        assert_eq!(front.header.binary(tag::NAME), None);
        assert_eq!(front.header.number(tag::NAME), None);
        assert_eq!(front.header.text(tag::VERSION), None);
        for end in 0..bytes.len() {
            assert!(read(&mut &bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn values_that_lead_out_of_it() {
        let main = header(
            &[
                (tag::NAME, STRING, u32::MAX, 1),
                (tag::EPOCH, INT32, 3, 1),
                (tag::PAYLOAD_DIGEST, STRING_ARRAY, 0, u32::MAX),
                (tag::SIGNATURE_RSA, BINARY, 0, u32::MAX),
            ],
            b"abcd",
        );
        let front = read(&mut rpm(&header(&[], b""), &main).as_slice()).unwrap();
        assert_eq!(front.header.text(tag::NAME), None);
        assert_eq!(front.header.number(tag::EPOCH), None);
        assert_eq!(front.header.texts(tag::PAYLOAD_DIGEST), None);
        assert_eq!(front.header.binary(tag::SIGNATURE_RSA), None);
        let mut large = header(&[], b"");
        large[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(read(&mut rpm(&large, &main).as_slice()).is_err());
    }
}
