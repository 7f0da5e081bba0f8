//! Reads lists of packages (deb822(5)) as a stream, because Debian's have 50 MB, of which a few stanzas are needed.

use std::io::{self, Read};

use super::relation::{self, Relation};

/// Longest stanza, in bytes. A file with a longer one is not a list of packages.
const LONGEST: usize = 4 << 20;
/// Bytes per read.
const PIECE: usize = 1 << 18;

/// A package in a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stanza {
    pub package: String,
    pub version: String,
    pub arch: String,
    /// The alternatives in Pre-Depends and Depends.
    pub depends: Vec<Vec<Relation>>,
    /// The path below the repository's address.
    pub filename: String,
    /// In bytes.
    pub size: u64,
    pub sha256: String,
}

impl Stanza {
    /// Parses a stanza; `None` if a field is missing that is needed to fetch the package.
    fn parse(text: &str) -> Option<Self> {
        let mut stanza = Stanza::default();
        for line in text.lines() {
            // Continuation lines only belong to fields that are not needed.
            let Some((field, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            match field {
                "Package" => stanza.package = value.to_string(),
                "Version" => stanza.version = value.to_string(),
                "Architecture" => stanza.arch = value.to_string(),
                "Depends" | "Pre-Depends" => stanza.depends.extend(relation::parse(value)),
                "Filename" => stanza.filename = value.to_string(),
                "Size" => stanza.size = value.parse().ok()?,
                "SHA256" => stanza.sha256 = value.to_ascii_lowercase(),
                _ => {}
            }
        }
        let whole = !stanza.package.is_empty()
            && !stanza.version.is_empty()
            && !stanza.filename.is_empty()
            && stanza.sha256.len() == 64
            && stanza.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        whole.then_some(stanza)
    }
}

/// Returns the stanzas of packages whose name is `wanted`, in the order of the list.
pub(super) fn read(
    reader: &mut dyn Read,
    wanted: &dyn Fn(&str) -> bool,
) -> io::Result<Vec<Stanza>> {
    let mut found = Vec::new();
    let mut buffer = Vec::with_capacity(2 * PIECE);
    // No stanza ends before this position.
    let mut searched = 0;
    loop {
        let start = buffer.len();
        buffer.resize(start + PIECE, 0);
        let n = loop {
            match reader.read(&mut buffer[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        buffer.truncate(start + n);
        let mut begin = 0;
        while let Some(end) = blank_line(&buffer, searched) {
            take(&buffer[begin..end], wanted, &mut found);
            begin = end + 2;
            searched = begin;
        }
        if n == 0 {
            take(&buffer[begin..], wanted, &mut found);
            return Ok(found);
        }
        buffer.drain(..begin);
        // The last byte may be the first of the two line ends.
        searched = buffer.len().saturating_sub(1);
        if buffer.len() > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("one of its entries has more than {LONGEST} bytes"),
            ));
        }
    }
}

/// Returns the position of the first empty line, from `from` on.
fn blank_line(buffer: &[u8], from: usize) -> Option<usize> {
    memchr::memmem::find(buffer.get(from..)?, b"\n\n").map(|at| from + at)
}

fn take(stanza: &[u8], wanted: &dyn Fn(&str) -> bool, found: &mut Vec<Stanza>) {
    let Some(name) = name(stanza) else {
        return;
    };
    if wanted(name)
        && let Ok(text) = std::str::from_utf8(stanza)
        && let Some(stanza) = Stanza::parse(text)
    {
        found.push(stanza);
    }
}

/// Returns the package's name. Package is the first field in all known lists, but it may be any.
fn name(stanza: &[u8]) -> Option<&str> {
    const FIELD: &[u8] = b"Package:";
    let rest = match stanza.strip_prefix(FIELD) {
        Some(rest) => rest,
        None => {
            let at = memchr::memmem::find(stanza, b"\nPackage:")?;
            &stanza[at + 1 + FIELD.len()..]
        }
    };
    let line = rest.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> String {
        names
            .iter()
            .map(|name| {
                format!(
                    "Package: {name}\nVersion: 1\nArchitecture: amd64\nDescription: x\n more: y\nDepends: a | b, c (= 1)\nFilename: pool/{name}.deb\nSize: 5\nSHA256: {}\n\n",
                    "A".repeat(64)
                )
            })
            .collect()
    }

    /// Gives at most this many bytes per read.
    struct Dribble<'a>(&'a [u8], usize);
    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn packages_are_found_in_pieces_of_any_size() {
        let text = list(&["one", "two", "three", "two"]);
        for text in [text.as_str(), text.trim_end(), &format!("\n\n\n{text}")] {
            for piece in [1, 2, 7, 1 << 20] {
                let found = read(&mut Dribble(text.as_bytes(), piece), &|name| {
                    name.starts_with('t')
                })
                .unwrap();
                let names: Vec<&str> = found.iter().map(|it| it.package.as_str()).collect();
                assert_eq!(names, ["two", "three", "two"], "{piece}");
                assert_eq!(found[0].size, 5);
                assert_eq!(found[0].sha256, "a".repeat(64));
                assert_eq!(found[0].depends.len(), 2);
            }
        }
    }

    #[test]
    fn incomplete_stanzas_are_skipped() {
        let text = "Version: 1\nPackage: a\n\nPackage: a\nVersion: 1\nFilename: x\nSize: many\nSHA256: 0\n\n\u{0}\n\n";
        assert!(read(&mut text.as_bytes(), &|_| true).unwrap().is_empty());
        let endless = io::repeat(b'x');
        assert!(read(&mut endless.take(1 << 30), &|_| true).is_err());
    }
}
