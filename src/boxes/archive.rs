//! Box archives: a tar file, compressed or not, with a box's manifest and the files that it lists.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path},
};

use tar::{Builder, EntryType, Header};

use crate::{
    host::file,
    report::{
        clean::{Shown, is_unseen},
        counted,
    },
    store::MANIFEST_LIMIT,
    unpack::each_entry,
};

use super::{
    error::BoxError,
    manifest::{MANIFEST, Manifest},
    opened::Opened,
};

/// Called for each file of the box, in the archive's order: with the manifest, the manifest's bytes, the
/// file's name, its claimed size in bytes, and its content.
pub(super) type Each<'a> =
    dyn FnMut(&Manifest, &[u8], &str, u64, &mut dyn Read) -> Result<(), BoxError> + 'a;

/// Reads an archive from front to back. The manifest must come first, so that each later entry is checked
/// against it before any of its bytes are stored.
pub(super) fn read_archive(opened: &Opened, each: &mut Each<'_>) -> Result<(), BoxError> {
    let path = opened.path();
    let (compression, _) = opened.probe()?;
    let reader = (opened.unpacked(compression)).map_err(BoxError::io("open", path))?;
    let refused = |message: String| BoxError::Refused {
        path: path.to_path_buf(),
        message,
    };
    let mut manifest: Option<(Manifest, Vec<u8>)> = None;
    let mut seen: Vec<String> = Vec::new();
    let unreadable = |error| not_a_box(path, &error);
    each_entry(reader, &unreadable, &mut |entry| {
        let name = plain_name(&entry.path_bytes()).ok_or_else(|| {
            refused(format!(
                "its entry {:?} is not a plain file name",
                String::from_utf8_lossy(&entry.path_bytes())
            ))
        })?;
        match entry.header().entry_type() {
            EntryType::Regular => {}
            EntryType::Directory if name.is_empty() => return Ok(()),
            kind => {
                return Err(refused(format!(
                    "its entry {name} is {}, not a regular file",
                    match kind {
                        EntryType::Symlink | EntryType::Link => "a link",
                        EntryType::Directory => "a folder",
                        _ => "a special file",
                    }
                )));
            }
        }
        if seen.contains(&name) {
            return Err(refused(format!("its entry {name} occurs twice")));
        }
        seen.push(name.clone());
        let size = entry.size();
        match &manifest {
            None if name == MANIFEST => {
                if size > MANIFEST_LIMIT {
                    return Err(refused(format!(
                        "its {MANIFEST} has {size} bytes; the limit is {MANIFEST_LIMIT}"
                    )));
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(unreadable)?;
                manifest = Some((Manifest::parse(&bytes, &path.shown())?, bytes));
            }
            None => {
                return Err(BoxError::NotABox {
                    path: path.to_path_buf(),
                    message: format!("its first entry is {name}, not {MANIFEST}"),
                });
            }
            Some((manifest, bytes)) => {
                let known = manifest
                    .files()
                    .into_iter()
                    .find(|(file, _)| file.name == name);
                match known {
                    None => {
                        return Err(refused(format!(
                            "its entry {name} is not listed in its {MANIFEST}"
                        )));
                    }
                    Some((file, _)) if file.size != size => {
                        return Err(refused(format!(
                            "its entry {name} has {}, but its {MANIFEST} lists {}",
                            counted(size, "byte"),
                            file.size
                        )));
                    }
                    Some(_) => each(manifest, bytes, &name, size, entry)?,
                }
            }
        }
        Ok(())
    })?;
    let Some((manifest, _)) = manifest else {
        return Err(BoxError::NotABox {
            path: path.to_path_buf(),
            message: format!("it has no {MANIFEST}"),
        });
    };
    for (file, _) in manifest.files() {
        if !seen.contains(&file.name) {
            return Err(BoxError::Incomplete {
                path: path.to_path_buf(),
                message: format!("its file {} is missing", file.name),
            });
        }
    }
    Ok(())
}

/// Returns the name of the first entry after the folder itself, whatever headers precede it. The name is empty if there
/// is no entry, or it is not plain.
pub(super) fn first_name(reader: impl Read) -> io::Result<String> {
    let mut first = None;
    // `Err(None)`: it is found, so nothing more is read.
    let ended = each_entry(reader, &Some, &mut |entry| {
        let name = plain_name(&entry.path_bytes());
        if entry.header().entry_type() == EntryType::Directory && name.as_deref() == Some("") {
            return Ok(());
        }
        first = name;
        Err(None)
    });
    match ended {
        Err(Some(error)) => Err(error),
        Ok(()) | Err(None) => Ok(first.unwrap_or_default()),
    }
}

fn not_a_box(path: &Path, error: &io::Error) -> BoxError {
    BoxError::NotABox {
        path: path.to_path_buf(),
        message: format!("it cannot be read as an archive: {error}"),
    }
}

/// Returns the only component of a path, or an empty name for the folder itself. `None` for all other
/// paths, and for names that are not text or have unseen characters.
pub(super) fn plain_name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.contains(is_unseen) {
        return None;
    }
    let mut name = String::new();
    for component in Path::new(text).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) if name.is_empty() => name = part.to_str()?.to_string(),
            _ => return None,
        }
    }
    Some(name)
}

/// Returns the header of a file of `size` bytes without its owner and time, so that the same content makes
/// the same archive.
pub(super) fn plain_header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Writes the archive of a box folder: the same bytes for the same files.
pub fn write_archive(folder: &Path, out: &Path) -> Result<(), BoxError> {
    let path = folder.join(MANIFEST);
    let bytes = std::fs::read(&path).map_err(BoxError::io("read", &path))?;
    let manifest = Manifest::parse(&bytes, &path.shown())?;
    let parent = out
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let temporary = file::temporary(parent).map_err(BoxError::io("write in", parent))?;
    let write = || -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(temporary.as_file(), 3)?;
        encoder.include_checksum(true)?;
        let mut tar = Builder::new(encoder);
        let mut add = |name: &str, size: u64, reader: &mut dyn Read| {
            tar.append_data(&mut plain_header(size), name, reader)
        };
        add(MANIFEST, bytes.len() as u64, &mut bytes.as_slice())?;
        for (entry, _) in manifest.files() {
            let mut content = File::open(folder.join(&entry.name))?;
            add(&entry.name, entry.size, &mut content)?;
        }
        tar.into_inner()?.finish()?;
        Ok(())
    };
    write().map_err(BoxError::io("write", out))?;
    file::persist(temporary, out, file::PRIVATE).map_err(BoxError::io("write", out))
}
