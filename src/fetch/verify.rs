//! Compares the digests of a file with those that it must have.

use super::{
    digest::{Expected, Finished},
    error::FetchError,
};

/// Errors name the file `shown`.
pub(super) fn verify(
    hashes: &Finished,
    expected: &[Expected],
    shown: &str,
) -> Result<(), FetchError> {
    for expected in expected {
        let found = hashes.of(expected.algorithm);
        if found != expected.hex {
            return Err(FetchError::Digest {
                url: shown.to_string(),
                algorithm: expected.algorithm,
                found: found.to_string(),
                wanted: expected.hex.clone(),
                by: expected.by.clone(),
            });
        }
    }
    Ok(())
}
