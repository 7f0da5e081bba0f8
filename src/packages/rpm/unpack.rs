//! An .rpm's files, once its signature has been seen to be good.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use base64::Engine;
use sha2::{Digest, Sha256, Sha512};

use crate::{
    fetch::{PublicKey, verify_detached_by_any},
    host::digest::hex,
    unpack::{compression, decompress},
};

use super::{
    super::{
        PinnedFile,
        tree::{Bounded, MOST_UNPACKED, Refusal, Tree, unreadable},
    },
    cpio,
    header::{self, Front, Header, tag},
};

/// Takes what makes up a kernel out of an .rpm that one of `keys` signed and that is the package
/// that was pinned.
pub fn into_tree(
    rpm: &Path,
    pinned: &PinnedFile,
    keys: &[PublicKey],
    tree: &mut Tree,
) -> Result<(), Refusal> {
    let disk = |error| Refusal::Disk(rpm.to_path_buf(), error);
    let mut reader = BufReader::new(File::open(rpm).map_err(disk)?);
    let front = header::read(&mut reader).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Refusal::bad(error.to_string()),
        _ => disk(error),
    })?;
    signed(&front, keys)?;
    named(&front.header, pinned)?;
    let start = reader.stream_position().map_err(disk)?;
    payload_is_whole(&front.header, &mut reader, &disk)?;
    reader.seek(SeekFrom::Start(start)).map_err(disk)?;
    let mut head = Vec::new();
    (&mut reader).take(8).read_to_end(&mut head).map_err(disk)?;
    reader.seek(SeekFrom::Start(start)).map_err(disk)?;
    if front.header.text(tag::PAYLOAD_FORMAT).unwrap_or("cpio") != "cpio" {
        return Err(Refusal::bad("its payload is of no kind that is known"));
    }
    let unpacked = decompress(compression(&head), reader).map_err(|error| unreadable(&error))?;
    cpio::into_tree(&mut Bounded::new(unpacked, MOST_UNPACKED), tree)
}

/// The header is signed, and holds the digest of what follows.
fn signed(front: &Front, keys: &[PublicKey]) -> Result<(), Refusal> {
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut signatures: Vec<Vec<u8>> = [tag::SIGNATURE_RSA, tag::SIGNATURE_DSA]
        .iter()
        .filter_map(|tag| front.signature.binary(*tag).map(<[u8]>::to_vec))
        .collect();
    for text in front
        .signature
        .texts(tag::SIGNATURE_OPENPGP)
        .unwrap_or_default()
    {
        signatures.extend(base64.decode(text));
    }
    let mut why = "it has no signature of its header".to_string();
    for signature in &signatures {
        match verify_detached_by_any(keys, &front.header.bytes, signature) {
            Ok(()) => return Ok(()),
            Err(message) => why = message,
        }
    }
    Err(Refusal::bad(format!("its signature is not good: {why}")))
}

/// A signed package is good only as what it is, not as another one.
fn named(header: &Header, pinned: &PinnedFile) -> Result<(), Refusal> {
    let text = |tag| header.text(tag).unwrap_or_default();
    let evr = super::version::Evr {
        epoch: header.number(tag::EPOCH).unwrap_or(0),
        version: text(tag::VERSION).to_string(),
        release: text(tag::RELEASE).to_string(),
    };
    if text(tag::NAME) != pinned.package || evr.text() != pinned.version {
        return Err(Refusal::bad(format!(
            "it is {} {}",
            text(tag::NAME),
            evr.text()
        )));
    }
    Ok(())
}

fn payload_is_whole(
    header: &Header,
    reader: &mut dyn Read,
    disk: &dyn Fn(io::Error) -> Refusal,
) -> Result<(), Refusal> {
    let wanted = header
        .text(tag::PAYLOAD_DIGEST)
        .ok_or_else(|| Refusal::bad("its header has no digest of its files: it is too old"))?;
    // As OpenPGP numbers them (RFC 9580 §9.5).
    let found = match header.number(tag::PAYLOAD_DIGEST_ALGORITHM).unwrap_or(8) {
        8 => digest::<Sha256>(reader),
        10 => digest::<Sha512>(reader),
        _ => {
            return Err(Refusal::bad(
                "the digest of its files is of no kind that is known",
            ));
        }
    }
    .map_err(disk)?;
    match found.eq_ignore_ascii_case(wanted) {
        true => Ok(()),
        false => Err(Refusal::bad(format!(
            "the digest of its files is {found}, and its header says {wanted}"
        ))),
    }
}

fn digest<D: Digest>(reader: &mut dyn Read) -> io::Result<String> {
    let mut hash = D::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hex(hash.finalize())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
