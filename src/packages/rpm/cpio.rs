//! The payload of an .rpm: cpio's newc format (cpio(5)). Crates read it only into memory, or without its hard links.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::PathBuf,
};

use crate::report::clean::Shown;

use super::super::tree::{Tree, UnpackError, unreadable};

const HEADER: usize = 110;
const END: &[u8] = b"TRAILER!!!";
/// As PATH_MAX, in bytes.
const LONGEST_NAME: u32 = 4096;

const KIND: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// Unpacks the kernel's files of an archive into the tree.
pub(in crate::packages) fn into_tree(
    reader: &mut dyn Read,
    tree: &mut Tree,
) -> Result<(), UnpackError> {
    // Hard links, by device and inode. Only the last name of a file comes with its content.
    let mut waiting: HashMap<(u32, u32, u32), Vec<PathBuf>> = HashMap::new();
    loop {
        let mut header = [0; HEADER];
        exact(reader, &mut header)?;
        if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
            return Err(UnpackError::bad("its payload has an unknown format"));
        }
        let field = |n: usize| -> Result<u32, UnpackError> {
            let at = 6 + n * 8;
            std::str::from_utf8(&header[at..at + 8])
                .ok()
                .and_then(|text| u32::from_str_radix(text, 16).ok())
                .ok_or_else(|| UnpackError::bad("its payload is damaged"))
        };
        let (number, mode, names, size) = (field(0)?, field(1)?, field(4)?, field(6)?);
        let (major, minor, name_size) = (field(7)?, field(8)?, field(11)?);
        if name_size == 0 || name_size > LONGEST_NAME {
            return Err(UnpackError::bad("it has a name that is too long"));
        }
        let mut name = vec![0; name_size as usize];
        exact(reader, &mut name)?;
        name.pop();
        skip(reader, padding(HEADER as u64 + u64::from(name_size)))?;
        if name == END {
            break;
        }
        let rest = padding(u64::from(size));
        let Some(place) = tree.place(&name)? else {
            skip(reader, u64::from(size) + rest)?;
            continue;
        };
        match mode & KIND {
            FOLDER => {
                tree.folder(&place)?;
                skip(reader, u64::from(size) + rest)?;
            }
            FILE => {
                let id = (major, minor, number);
                if names > 1 && size == 0 {
                    tree.announced()?;
                    waiting.entry(id).or_default().push(place);
                    continue;
                }
                tree.file(&place, u64::from(size), reader)?;
                skip(reader, rest)?;
                if names > 1 {
                    for other in waiting.remove(&id).unwrap_or_default() {
                        tree.hard_link(&other, place.to_string_lossy().as_bytes())?;
                    }
                }
            }
            LINK => {
                if size > LONGEST_NAME {
                    return Err(UnpackError::bad("it has a name that is too long"));
                }
                let mut target = vec![0; size as usize];
                exact(reader, &mut target)?;
                skip(reader, rest)?;
                tree.link(&place, &target)?;
            }
            kind => {
                return Err(UnpackError::bad(format!(
                    "its entry {} is not a file, folder or link ({kind:o})",
                    place.shown()
                )));
            }
        }
    }
    // The rest are empty files, which have no content.
    for place in waiting.into_values().flatten() {
        tree.file(&place, 0, &mut io::empty())?;
    }
    Ok(())
}

/// Returns the padding after names and contents, which end at multiples of 4.
fn padding(size: u64) -> u64 {
    size.next_multiple_of(4) - size
}

fn exact(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<(), UnpackError> {
    reader
        .read_exact(buffer)
        .map_err(|error| unreadable(&error))
}

fn skip(reader: &mut dyn Read, bytes: u64) -> Result<(), UnpackError> {
    let skipped =
        io::copy(&mut reader.take(bytes), &mut io::sink()).map_err(|error| unreadable(&error))?;
    match skipped == bytes {
        true => Ok(()),
        false => Err(UnpackError::bad("it is truncated")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, mode: u32, names: u32, number: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = format!(
            "070701{number:08x}{mode:08x}{:08x}{:08x}{names:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{name}\0",
            0, 0, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0
        )
        .into_bytes();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn taken(entries: &[Vec<u8>]) -> (tempfile::TempDir, Result<(), UnpackError>) {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::new(folder.path()).unwrap();
        let mut bytes = entries.concat();
        bytes.extend(entry("TRAILER!!!", 0, 1, 0, b""));
        let result = into_tree(&mut bytes.as_slice(), &mut tree)
            .and_then(|()| tree.finish(folder.path()).map(|_| ()));
        (folder, result)
    }

    #[test]
    fn a_kernel_with_hard_links() {
        let (folder, result) = taken(&[
            entry("./lib/modules/1", FOLDER | 0o755, 2, 1, b""),
            entry("./lib/modules/1/a", FILE | 0o644, 2, 7, b""),
            entry("./lib/modules/1/vmlinuz", FILE | 0o600, 1, 2, b"image"),
            entry("./etc/other", FILE | 0o644, 1, 3, b"other"),
            entry("./lib/modules/1/b", FILE | 0o644, 2, 7, b"both"),
            entry(
                "./lib/modules/1/build",
                LINK | 0o777,
                1,
                4,
                b"/usr/src/kernels/1",
            ),
            entry("./lib/modules/1/empty", FILE | 0o644, 2, 8, b""),
        ]);
        result.unwrap();
        let modules = folder.path().join("lib/modules/1");
        let read = |name: &str| std::fs::read(modules.join(name)).unwrap();
        assert_eq!((read("a"), read("b")), (b"both".to_vec(), b"both".to_vec()));
        assert_eq!(
            (read("vmlinuz"), read("empty")),
            (b"image".to_vec(), Vec::new())
        );
        assert!(!modules.join("build").exists() && !folder.path().join("etc").exists());
    }

    #[test]
    fn hostile_ones_are_refused() {
        for (name, mode, content) in [
            ("../x", FILE, &b""[..]),
            ("/etc/x", FILE, b""),
            ("./lib/modules/1/x", LINK, b"/etc"),
            ("./lib/modules/1/x", 0o020_000, b""),
            (&"a/".repeat(4000), FILE, b""),
        ] {
            assert!(
                taken(&[entry(name, mode, 1, 1, content)]).1.is_err(),
                "{name:.20}"
            );
        }
        let good = entry("./lib/modules/1/vmlinuz", FILE, 1, 1, b"image");
        for end in 0..good.len() {
            let folder = tempfile::tempdir().unwrap();
            let mut tree = Tree::new(folder.path()).unwrap();
            assert!(into_tree(&mut &good[..end], &mut tree).is_err(), "{end}");
        }
    }
}
