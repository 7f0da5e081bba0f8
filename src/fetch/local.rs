//! Files of this host in place of downloads.

use std::{fs::File, io, path::Path};

use crate::report::clean::Shown;

use super::{
    digest::{Algorithm, Hashes, wants_sha512},
    error::FetchError,
    request::Request,
    verify::verify,
};

/// Hashes and verifies a file of this host like a download. Errors name it `path`.
pub fn local(
    opened: io::Result<File>,
    path: &Path,
    request: &Request,
) -> Result<(String, u64), FetchError> {
    let mut file = opened.map_err(FetchError::io("open", path))?;
    let mut hashes = Hashes::new(wants_sha512(&request.expected));
    hashes
        .read_all(&mut file)
        .map_err(FetchError::io("read", path))?;
    let size = hashes.size();
    let hashes = hashes.finish();
    verify(&hashes, &request.expected, &path.shown())?;
    Ok((hashes.of(Algorithm::Sha256).to_string(), size))
}
