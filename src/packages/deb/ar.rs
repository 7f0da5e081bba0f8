//! The outer archive of a .deb: deb(5), ar(5). This is too little for a crate.

use std::io::{self, Read, Seek, SeekFrom};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;
/// Most members. A .deb has three; some have a few more with signatures.
const MOST: usize = 32;

/// The position of a member's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub name: String,
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// Returns all members, in order.
///
/// # Errors
/// If the file is not such an archive. The error says what is wrong.
pub(super) fn members(file: &mut (impl Read + Seek)) -> io::Result<Vec<Member>> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut magic = [0; MAGIC.len()];
    if end < magic.len() as u64 {
        return Err(bad("it is not a .deb"));
    }
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(bad("it is not a .deb"));
    }
    let mut members = Vec::new();
    let mut at = MAGIC.len() as u64;
    while at < end {
        if members.len() == MOST {
            return Err(bad("it has too many members"));
        }
        if end - at < HEADER as u64 {
            return Err(bad("it is truncated"));
        }
        let mut header = [0; HEADER];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut header)?;
        let text =
            std::str::from_utf8(&header).map_err(|_| bad("one of its headers is not text"))?;
        let (Some(name), Some(size), Some("`\n")) =
            (text.get(..16), text.get(48..58), text.get(58..))
        else {
            return Err(bad("one of its headers is damaged"));
        };
        let size: u64 = size
            .trim_end()
            .parse()
            .map_err(|_| bad("one of its headers is damaged"))?;
        let offset = at + HEADER as u64;
        if size > end - offset {
            return Err(bad("it is truncated"));
        }
        members.push(Member {
            // GNU's ar ends names with a slash.
            name: name.trim_end().trim_end_matches('/').to_string(),
            offset,
            size,
        });
        // Members begin at even offsets.
        at = offset + size + size % 2;
    }
    Ok(members)
}

fn bad(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, content) in members {
            bytes.extend(
                format!(
                    "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                    0,
                    0,
                    0,
                    100644,
                    content.len()
                )
                .bytes(),
            );
            bytes.extend(*content);
            if content.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    #[test]
    fn members_are_found_at_even_offsets() {
        let bytes = archive(&[
            ("debian-binary", b"2.0\n"),
            ("odd/", b"abc"),
            ("data.tar", b"xy"),
        ]);
        let found = members(&mut Cursor::new(&bytes)).unwrap();
        let names: Vec<&str> = found.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["debian-binary", "odd", "data.tar"]);
        let last = &found[2];
        let at = last.offset as usize;
        assert_eq!(&bytes[at..at + last.size as usize], b"xy");
    }

    #[test]
    fn damaged_ones_are_refused() {
        let good = archive(&[("debian-binary", b"2.0\n"), ("data.tar", b"xyz")]);
        for end in 0..good.len() - 1 {
            // At a member's end it is just a shorter archive.
            let cut = members(&mut Cursor::new(&good[..end]));
            assert!(cut.is_err() || end == 8 || end == 72, "{end}");
        }
        let mut size = good.clone();
        size[8 + 48..8 + 58].copy_from_slice(b"9999999999");
        assert!(members(&mut Cursor::new(&size)).is_err());
        let many: Vec<(&str, &[u8])> = vec![("x", b""); MOST + 1];
        assert!(members(&mut Cursor::new(&archive(&many))).is_err());
    }
}
