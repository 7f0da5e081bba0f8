//! Unpacks the kernel's files of an .rpm, after checking its signature.

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
        tree::{Bounded, MOST_UNPACKED, Tree, UnpackError, unreadable},
    },
    cpio,
    header::{self, Front, Header, tag},
};

/// Unpacks the kernel's files of an .rpm into the tree.
///
/// # Errors
/// If none of `keys` signed it, or it is not the pinned package.
pub(crate) fn into_tree(
    rpm: &Path,
    pinned: &PinnedFile,
    keys: &[PublicKey],
    tree: &mut Tree,
) -> Result<(), UnpackError> {
    let disk = |error| UnpackError::Io(rpm.to_path_buf(), error);
    let mut reader = BufReader::new(File::open(rpm).map_err(disk)?);
    let front = header::read(&mut reader).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => UnpackError::bad(error.to_string()),
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
        return Err(UnpackError::bad("its payload has an unknown format"));
    }
    let unpacked = decompress(compression(&head), reader).map_err(|error| unreadable(&error))?;
    cpio::into_tree(&mut Bounded::new(unpacked, MOST_UNPACKED), tree)
}

/// Checks the signature of the header, which contains the digest of the payload.
fn signed(front: &Front, keys: &[PublicKey]) -> Result<(), UnpackError> {
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
    let mut why = "its header has no signature".to_string();
    for signature in &signatures {
        match verify_detached_by_any(keys, &front.header.bytes, signature) {
            Ok(()) => return Ok(()),
            Err(message) => why = message,
        }
    }
    Err(UnpackError::bad(format!(
        "it has no valid signature: {why}"
    )))
}

/// Checks that the signed package is the pinned one, because a server could send another one.
fn named(header: &Header, pinned: &PinnedFile) -> Result<(), UnpackError> {
    let text = |tag| header.text(tag).unwrap_or_default();
    let evr = super::version::Evr {
        epoch: header.number(tag::EPOCH).unwrap_or(0),
        version: text(tag::VERSION).to_string(),
        release: text(tag::RELEASE).to_string(),
    };
    if text(tag::NAME) != pinned.package || evr.text() != pinned.version {
        return Err(UnpackError::bad(format!(
            "its header is that of {} {}",
            text(tag::NAME),
            evr.text()
        )));
    }
    Ok(())
}

fn payload_is_whole(
    header: &Header,
    reader: &mut dyn Read,
    disk: &dyn Fn(io::Error) -> UnpackError,
) -> Result<(), UnpackError> {
    let wanted = header.text(tag::PAYLOAD_DIGEST).ok_or_else(|| {
        UnpackError::bad("its header has no digest of its payload, as in very old packages")
    })?;
    // The numbers of OpenPGP (RFC 9580 §9.5).
    let found = match header.number(tag::PAYLOAD_DIGEST_ALGORITHM).unwrap_or(8) {
        8 => digest::<Sha256>(reader),
        10 => digest::<Sha512>(reader),
        _ => {
            return Err(UnpackError::bad(
                "the digest of its payload has an unknown algorithm",
            ));
        }
    }
    .map_err(disk)?;
    match found.eq_ignore_ascii_case(wanted) {
        true => Ok(()),
        false => Err(UnpackError::bad(format!(
            "the digest of its payload is {found}, but its header has {wanted}"
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
