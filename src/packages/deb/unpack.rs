//! Unpacks the kernel's files of a .deb: deb(5).

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use tar::{Archive, EntryType};

use crate::{
    report::clean::Shown,
    unpack::{compression, decompress},
};

use super::{
    super::tree::{Bounded, MOST_UNPACKED, Tree, UnpackError, unreadable},
    ar,
};

/// Longest name, in bytes. tar's own limit is much larger.
const LONGEST_NAME: u64 = 1 << 13;

/// Unpacks the kernel's files of a .deb into the tree.
pub(crate) fn into_tree(deb: &Path, tree: &mut Tree) -> Result<(), UnpackError> {
    let disk = |error| UnpackError::Io(deb.to_path_buf(), error);
    let mut file = File::open(deb).map_err(disk)?;
    let members = ar::members(&mut file).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => UnpackError::bad(error.to_string()),
        _ => disk(error),
    })?;
    if members
        .first()
        .is_none_or(|first| first.name != "debian-binary")
    {
        return Err(UnpackError::bad("it is an archive, but not a .deb"));
    }
    let mut data = members
        .iter()
        .filter(|member| member.name == "data.tar" || member.name.starts_with("data.tar."));
    let (Some(data), None) = (data.next(), data.next()) else {
        return Err(UnpackError::bad(
            "it does not have exactly one archive of files",
        ));
    };
    let mut head = [0; 8];
    file.seek(SeekFrom::Start(data.offset)).map_err(disk)?;
    let n = (&file).take(data.size).read(&mut head).map_err(disk)?;
    file.seek(SeekFrom::Start(data.offset)).map_err(disk)?;
    let reader = decompress(compression(&head[..n]), file.take(data.size))
        .map_err(|error| unreadable(&error))?;
    entries(Bounded::new(reader, MOST_UNPACKED), tree)
}

pub(super) fn entries(reader: impl Read, tree: &mut Tree) -> Result<(), UnpackError> {
    let mut archive = Archive::new(reader);
    // Long names of the next entry.
    let (mut long_name, mut long_target) = (None, None);
    // Raw, because tar would read names of any length into memory.
    let entries = archive
        .entries()
        .map_err(|error| unreadable(&error))?
        .raw(true);
    for entry in entries {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::GNULongName | EntryType::GNULongLink) {
            let name = long(&mut entry)?;
            match kind {
                EntryType::GNULongName => long_name = Some(name),
                _ => long_target = Some(name),
            }
            continue;
        }
        let path = long_name
            .take()
            .unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let target = long_target
            .take()
            .or_else(|| entry.header().link_name_bytes().map(|it| it.into_owned()))
            .unwrap_or_default();
        let Some(place) = tree.place(&path)? else {
            continue;
        };
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                let size = entry.size();
                tree.file(&place, size, &mut entry)?;
            }
            EntryType::Directory => tree.folder(&place)?,
            EntryType::Symlink => tree.link(&place, &target)?,
            EntryType::Link => tree.hard_link(&place, &target)?,
            kind => {
                // deb(5) has no other types.
                return Err(UnpackError::bad(format!(
                    "its entry {} is not a file, folder or link ({kind:?})",
                    place.shown()
                )));
            }
        }
    }
    Ok(())
}

/// Reads the name that an entry contains for the next one.
fn long(entry: &mut impl Read) -> Result<Vec<u8>, UnpackError> {
    let mut name = Vec::new();
    entry
        .take(LONGEST_NAME + 1)
        .read_to_end(&mut name)
        .map_err(|error| unreadable(&error))?;
    if name.len() as u64 > LONGEST_NAME {
        return Err(UnpackError::bad("it has a name that is too long"));
    }
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}
