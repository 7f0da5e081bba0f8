//! A box as one file: a tar, packed in any way, of its manifest and the files that it names.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path},
};

use tar::{Builder, EntryType, Header};

use crate::{
    host::file,
    report::clean::{Shown, is_unseen},
};

use super::{
    error::BoxError,
    manifest::{MANIFEST, MANIFEST_LIMIT, Manifest},
    opened::Opened,
    untar::each_entry,
};

/// A file of the box, as it is met: its name, its size as claimed, its bytes.
pub type Each<'a> =
    dyn FnMut(&Manifest, &[u8], &str, u64, &mut dyn Read) -> Result<(), BoxError> + 'a;

/// Reads an archive front to back. The manifest comes first, so that every later entry is known
/// before a byte of it is kept.
pub fn read_archive(opened: &Opened, each: &mut Each<'_>) -> Result<(), BoxError> {
    let path = opened.path();
    let (packing, _) = opened.probe()?;
    let reader = (opened.unpacked(packing)).map_err(BoxError::io("open", path))?;
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
                "its entry {:?} is no plain file name",
                String::from_utf8_lossy(&entry.path_bytes())
            ))
        })?;
        match entry.header().entry_type() {
            EntryType::Regular => {}
            EntryType::Directory if name.is_empty() => return Ok(()),
            kind => {
                return Err(refused(format!(
                    "its entry {name} is no file but {}",
                    match kind {
                        EntryType::Symlink | EntryType::Link => "a link",
                        EntryType::Directory => "a folder",
                        _ => "something special",
                    }
                )));
            }
        }
        if seen.contains(&name) {
            return Err(refused(format!("its entry {name} comes twice")));
        }
        seen.push(name.clone());
        let size = entry.size();
        match &manifest {
            None if name == MANIFEST => {
                if size > MANIFEST_LIMIT {
                    return Err(refused(format!("its {MANIFEST} has {size} bytes")));
                }
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(unreadable)?;
                manifest = Some((Manifest::parse(&bytes, &path.shown())?, bytes));
            }
            None => {
                return Err(BoxError::NotABox {
                    path: path.to_path_buf(),
                    message: format!("its first entry is {name} and not {MANIFEST}"),
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
                            "its entry {name} is not in its {MANIFEST}"
                        )));
                    }
                    Some((file, _)) if file.size != size => {
                        return Err(refused(format!(
                            "its entry {name} has {size} bytes, and {} by its {MANIFEST}",
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
            return Err(refused(format!("{} is missing in it", file.name)));
        }
    }
    Ok(())
}

fn not_a_box(path: &Path, error: &io::Error) -> BoxError {
    BoxError::NotABox {
        path: path.to_path_buf(),
        message: format!("it cannot be read as an archive: {error}"),
    }
}

/// The one normal component of a path, or empty for the folder itself.
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

/// Of a file of `size` bytes, with nothing in it of who wrote it or when.
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
