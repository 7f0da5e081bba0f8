//! Unpacks a Vagrant box's archive: a tar, compressed or not, of `metadata.json`, disk images and perhaps a
//! Vagrantfile, in any order.

use std::io::Read;

use tar::EntryType;

use crate::{
    boxes::{archive::plain_name, error::BoxError, manifest::MANIFEST, opened::Opened},
    store::{Bounds, write_sparse},
    unpack::{Compression, each_entry},
};

/// Largest file that is read into memory, in bytes.
const SMALL: u64 = 1 << 20;
/// The most entries that an archive may have; a box has a few disks.
const MOST_FILES: usize = 16;

/// The content of an archive.
pub(crate) struct Unpacked {
    pub metadata: Vec<u8>,
    pub vagrantfile: Option<String>,
    /// Every other file: its name, the unpacked file, its sha256.
    pub files: Vec<(String, tempfile::NamedTempFile, String)>,
}

/// Unpacks a box. `temporary` creates the files for its disks, which together must be within `bounds`.
pub(crate) fn unpack(
    opened: &Opened,
    compression: Compression,
    temporary: &dyn Fn() -> Result<tempfile::NamedTempFile, BoxError>,
    bounds: &mut Bounds,
    progress: &mut dyn FnMut(u64),
) -> Result<Unpacked, BoxError> {
    let path = opened.path();
    let bad = BoxError::unpacking(path);
    let refused = |message: String| BoxError::Refused {
        path: path.to_path_buf(),
        message,
    };
    let reader = opened.unpacked(compression).map_err(bad)?;
    let mut metadata = None;
    let mut unpacked = Unpacked {
        metadata: Vec::new(),
        vagrantfile: None,
        files: Vec::new(),
    };
    let mut seen: Vec<String> = Vec::new();
    let mut done = 0;
    each_entry(reader, &bad, &mut |entry| {
        let name = plain_name(&entry.path_bytes()).ok_or_else(|| {
            refused(format!(
                "its entry {:?} is not a plain file name",
                String::from_utf8_lossy(&entry.path_bytes())
            ))
        })?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::GNUSparse => {}
            EntryType::Directory if name.is_empty() => return Ok(()),
            _ => return Err(refused(format!("its entry {name} is not a regular file"))),
        }
        if seen.contains(&name) {
            return Err(refused(format!("its entry {name} occurs twice")));
        }
        if seen.len() >= MOST_FILES {
            return Err(refused(format!("it has more than {MOST_FILES} entries")));
        }
        seen.push(name.clone());
        let small = |entry: &mut dyn Read| -> Result<Vec<u8>, BoxError> {
            let mut bytes = Vec::new();
            entry.take(SMALL + 1).read_to_end(&mut bytes).map_err(bad)?;
            if bytes.len() as u64 > SMALL {
                return Err(refused(format!("its {name} has more than {SMALL} bytes")));
            }
            Ok(bytes)
        };
        match name.as_str() {
            "metadata.json" => metadata = Some(small(entry)?),
            "Vagrantfile" => {
                let bytes = small(entry)?;
                unpacked.vagrantfile = Some(String::from_utf8_lossy(&bytes).into_owned());
            }
            // Vagrant shows this in its list.
            "info.json" => {}
            _ => {
                let mut file = temporary()?;
                let before = done;
                let (sha256, size) = write_sparse(entry, file.as_file_mut(), bounds, &mut |here| {
                    progress(before + here);
                })
                .map_err(bad)?;
                done += size;
                unpacked.files.push((name, file, sha256));
            }
        }
        Ok(())
    })?;
    unpacked.metadata = metadata.ok_or_else(|| BoxError::NotABox {
        path: path.to_path_buf(),
        message: if seen.iter().any(|name| name == MANIFEST) {
            format!("its first entry is {}, not {MANIFEST}", seen[0])
        } else {
            format!("it has neither a {MANIFEST}, as stead's boxes have, nor a metadata.json, as Vagrant's have")
        },
    })?;
    Ok(unpacked)
}
