//! Digests of content, and names made of them.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// Returns bytes as lower-case hex digits, two per byte.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(bytes)
}

/// Returns the SHA-256 of `bytes`, as 64 lower-case hex digits.
pub fn sha256_of(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes))
}

/// Returns the SHA-256 of `bytes` as it is.
pub fn sha256_bytes(bytes: impl AsRef<[u8]>) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Reads a stream to its end. Returns its SHA-256, as [`sha256_of`] does, and its size in bytes.
pub fn sha256_of_stream(from: &mut dyn Read) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    let mut size = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((hex(hash.finalize()), size)),
            Ok(n) => {
                hash.update(&buffer[..n]);
                size += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the first `bytes` bytes of a text's SHA-256, as lower-case hex digits: a file name for what
/// belongs to a URL, a path or another text.
pub fn name_of(text: impl AsRef<[u8]>, bytes: usize) -> String {
    let digest = Sha256::digest(text);
    hex(&digest[..bytes.min(digest.len())])
}

/// Returns 128 random bits from the kernel, as 32 hex digits that nobody can guess.
///
/// # Errors
/// If the kernel has no random bytes (getrandom(2)).
pub fn nonce() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_start_of_the_digest() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_of("abc"), abc);
        assert_eq!(name_of("abc", 4), abc[..8]);
        assert_eq!(name_of("abc", 99), abc);
    }

    #[test]
    fn a_nonce_is_another_each_time() {
        let (one, other) = (nonce().unwrap(), nonce().unwrap());
        assert_eq!(one.len(), 32);
        assert_ne!(one, other);
    }
}
