//! Digests of downloads, and the checksum files in which distributions publish them.

use crate::host::digest::hex;
use std::{
    fmt,
    io::{self, Read},
};

use sha2::{Digest as _, Sha256, Sha512};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    fn hex_digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        })
    }
}

/// A digest that a file must have, and its source for errors ("Machinefile.lock", a URL).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub algorithm: Algorithm,
    /// Lower case.
    pub hex: String,
    pub by: String,
}

impl Expected {
    /// Returns `sha256:…` or `sha512:…`.
    pub fn digest(&self) -> String {
        format!("{}:{}", self.algorithm, self.hex)
    }

    /// Parses `sha256:…`, `sha512:…`, or bare hex digits, whose number tells the algorithm.
    pub fn parse(text: &str, by: impl Into<String>) -> Option<Self> {
        let (algorithm, digits) = match text.split_once(':') {
            Some(("sha256", digits)) => (Algorithm::Sha256, digits),
            Some(("sha512", digits)) => (Algorithm::Sha512, digits),
            Some(_) => return None,
            None => (by_length(text)?, text),
        };
        let hex = digits.to_ascii_lowercase();
        (hex.len() == algorithm.hex_digits() && hex.chars().all(|c| c.is_ascii_hexdigit())).then(
            || Expected {
                algorithm,
                hex,
                by: by.into(),
            },
        )
    }
}

fn by_length(hex: &str) -> Option<Algorithm> {
    [Algorithm::Sha256, Algorithm::Sha512]
        .into_iter()
        .find(|algorithm| algorithm.hex_digits() == hex.len())
}

pub(super) fn wants_sha512(expected: &[Expected]) -> bool {
    expected
        .iter()
        .any(|expected| expected.algorithm == Algorithm::Sha512)
}

/// Digests of bytes while they arrive.
pub(super) struct Hashes {
    sha256: Sha256,
    sha512: Option<Sha512>,
    size: u64,
}

/// Digests of all bytes.
pub(super) struct Finished {
    sha256: String,
    sha512: Option<String>,
}

impl Hashes {
    /// Computes sha256, and sha512 too if requested, which doubles the cost.
    pub(super) fn new(sha512: bool) -> Self {
        Hashes {
            sha256: Sha256::new(),
            sha512: sha512.then(Sha512::new),
            size: 0,
        }
    }

    /// Returns digests of the same kind, without any bytes.
    pub(super) fn restarted(&self) -> Self {
        Self::new(self.sha512.is_some())
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
        self.size += bytes.len() as u64;
    }

    /// Adds all bytes of a reader.
    pub(super) fn read_all(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        let mut buffer = vec![0u8; 1 << 18];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.update(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the number of bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn finish(self) -> Finished {
        Finished {
            sha256: hex(self.sha256.finalize()),
            sha512: self.sha512.map(|sha512| hex(sha512.finalize())),
        }
    }
}

impl Finished {
    /// Returns the digest; empty if that algorithm was not requested, which equals no digest.
    pub(super) fn of(&self, algorithm: Algorithm) -> &str {
        match algorithm {
            Algorithm::Sha256 => &self.sha256,
            Algorithm::Sha512 => self.sha512.as_deref().unwrap_or_default(),
        }
    }
}

/// Finds a file's digest in a checksum file; the strongest if there are several. Forms:
///
/// - coreutils: `<hex>  name`, `<hex> *name`
/// - BSD: `SHA256 (name) = <hex>`, which Fedora, AlmaLinux and Rocky Linux use
/// - one digest without a name, which some publish beside each file
///
/// Other lines, such as those of a clearsigned file (RFC 9580 §7), are skipped. The caller has checked the signature.
pub fn find_in(checksums: &str, file: &str, by: &str) -> Option<Expected> {
    let mut found: Option<Expected> = None;
    let mut alone: Vec<Expected> = Vec::new();
    for line in checksums.lines() {
        // Dash-escaped (RFC 9580 §7.1).
        let line = line.strip_prefix("- ").unwrap_or(line).trim();
        let Some((digest, name)) = entry(line) else {
            continue;
        };
        let Some(expected) = Expected::parse(digest, by) else {
            continue;
        };
        match name {
            None => alone.push(expected),
            Some(name) => {
                let name = name.strip_prefix("./").unwrap_or(name);
                let stronger = found
                    .as_ref()
                    .is_none_or(|found| expected.algorithm > found.algorithm);
                if name == file && stronger {
                    found = Some(expected);
                }
            }
        }
    }
    match (found, alone.as_slice()) {
        (Some(found), _) => Some(found),
        (None, [one]) => Some(one.clone()),
        _ => None,
    }
}

/// Returns the digest and the name in a line.
fn entry(line: &str) -> Option<(&str, Option<&str>)> {
    let hex = |text: &str| by_length(text).is_some() && text.chars().all(|c| c.is_ascii_hexdigit());
    for algorithm in ["SHA256", "SHA512"] {
        if let Some(rest) = line.strip_prefix(algorithm)
            && let Some(rest) = rest.trim_start().strip_prefix('(')
            && let Some((name, digest)) = rest.rsplit_once(')')
            && let Some(digest) = digest.trim().strip_prefix('=')
        {
            return Some((digest.trim(), Some(name)));
        }
    }
    match line.split_once(char::is_whitespace) {
        Some((digest, name)) if hex(digest) => {
            let name = name.trim_start();
            Some((digest, Some(name.strip_prefix('*').unwrap_or(name))))
        }
        None if hex(line) => Some((line, None)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits(digit: char, algorithm: Algorithm) -> String {
        digit.to_string().repeat(algorithm.hex_digits())
    }

    #[test]
    fn the_forms_that_are_published() {
        let a = digits('a', Algorithm::Sha256);
        let b = digits('b', Algorithm::Sha512);
        let coreutils = format!("{a}  other.img\n{b} *disk one.qcow2\n");
        let found = find_in(&coreutils, "disk one.qcow2", "x").unwrap();
        assert_eq!((found.algorithm, found.hex), (Algorithm::Sha512, b.clone()));

        let fedora = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# Fedora.qcow2: 1 bytes\nSHA256 (Fedora.qcow2) = {a}\n-----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n"
        );
        assert_eq!(find_in(&fedora, "Fedora.qcow2", "x").unwrap().hex, a);
        assert!(find_in(&fedora, "Fedora.raw", "x").is_none());

        assert_eq!(find_in(&format!("{a}\n"), "any", "x").unwrap().hex, a);
        assert!(find_in(&format!("{a}\n{a}\n"), "any", "x").is_none());
    }

    #[test]
    fn the_stronger_of_two_is_taken_and_nonsense_passed_over() {
        let a = digits('a', Algorithm::Sha256);
        let b = digits('b', Algorithm::Sha512);
        let both =
            format!("SHA512 (x) = {b}\nSHA256 (x) = {a}\nMD5 (x) = 123\n\u{0}\n)(=\nSHA256 (\n");
        assert_eq!(find_in(&both, "x", "by").unwrap().hex, b);
        assert!(find_in("", "x", "by").is_none());
        assert!(Expected::parse("sha256:zz", "by").is_none());
        assert!(Expected::parse("md5:00", "by").is_none());
    }
}
