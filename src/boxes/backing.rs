//! Backing files of the images in the store, read from the images' own headers (QEMU's
//! docs/interop/qcow2.txt). A disk cannot be read without its backing file, so this must not depend on which
//! libvirt is asked, or on whether one answers.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::error::BoxError;

const MAGIC: &[u8; 4] = b"QFI\xfb";
/// In bytes; the format allows no longer name.
const LONGEST_NAME: u32 = 1023;

/// The backing files of all images in a folder.
#[derive(Debug, Default)]
pub struct Backing {
    /// By the name of each backing file, the image at the top of its chain.
    names: BTreeMap<String, String>,
    /// Images whose backing file is given by `json:` or a URL, with that text.
    others: Vec<(String, String)>,
}

impl Backing {
    /// Reads the header of every image in a folder, and of all their backing files.
    ///
    /// # Errors
    /// If an image cannot be read, because it could be backed by any file.
    pub fn survey(images: &Path) -> Result<Self, BoxError> {
        let mut found = Backing::default();
        let entries = match fs::read_dir(images) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(BoxError::io("read", images)(error)),
        };
        for entry in entries {
            let path = entry.map_err(BoxError::io("read", images))?.path();
            // Pipes and other special files are not disks.
            if fs::metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
                found.follow(&path)?;
            }
        }
        Ok(found)
    }

    fn follow(&mut self, image: &Path) -> Result<(), BoxError> {
        let top = file_name(image);
        let mut seen = HashSet::new();
        let mut at = image.to_path_buf();
        // A chain may be a circle; QEMU refuses it, and this loop must end.
        while seen.insert(at.clone()) {
            let name = match backing_file(&at) {
                Ok(Some(name)) => name,
                Ok(None) => return Ok(()),
                // It was deleted, before or during this survey.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(BoxError::io("read the header of", at)(error)),
            };
            if name.starts_with("json:") || name.contains("://") {
                self.others.push((top, name));
                return Ok(());
            }
            // Relative to the image; QEMU accepts a "file:" prefix.
            let name = name.strip_prefix("file:").unwrap_or(&name);
            let next = at.parent().unwrap_or(Path::new("/")).join(name);
            self.names
                .entry(file_name(&next))
                .or_insert_with(|| top.clone());
            at = next;
        }
        Ok(())
    }

    /// Returns an image that is backed by a file of this name. The name is enough, even after the store has
    /// been moved, because files in the store have their digest in their name.
    pub fn image_on(&self, file: &Path) -> Option<&str> {
        let name = file_name(file);
        self.names.get(&name).map(String::as_str).or_else(|| {
            (self.others.iter())
                .find(|(_, said)| said.contains(&name))
                .map(|(image, _)| image.as_str())
        })
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Returns the name of an image's backing file; `None` if it has none or is not qcow2.
fn backing_file(path: &PathBuf) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let mut header = [0u8; 20];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let word = |at: usize| {
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let (offset, size) = (word(8), word(12) as u32);
    if !header.starts_with(MAGIC) || offset == 0 {
        return Ok(None);
    }
    if size > LONGEST_NAME {
        return Err(io::Error::other("the name of its backing file is too long"));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut name = vec![0u8; size as usize];
    file.read_exact(&mut name)?;
    Ok(Some(String::from_utf8_lossy(&name).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow2(path: &Path, backing: Option<&str>) {
        let mut bytes = vec![0u8; 512];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
        if let Some(name) = backing {
            bytes[8..16].copy_from_slice(&200u64.to_be_bytes());
            bytes[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            bytes[200..200 + name.len()].copy_from_slice(name.as_bytes());
        }
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn whole_chains_are_followed_wherever_they_lead() {
        let folder = tempfile::tempdir().unwrap();
        let images = folder.path().join("images");
        fs::create_dir(&images).unwrap();
        let at = |name: &str| images.join(name);
        qcow2(&at("box-aa.qcow2"), None);
        qcow2(&at("box-bb.qcow2"), None);
        qcow2(&at("box-cc.qcow2"), None);
        fs::write(at("vmlinuz-dd"), "no image").unwrap();
        // A snapshot over an overlay that lies elsewhere over a box.
        let overlay = folder.path().join("overlay.qcow2");
        qcow2(&overlay, Some(&at("box-aa.qcow2").display().to_string()));
        qcow2(&at("snapshot.qcow2"), Some("../overlay.qcow2"));
        qcow2(
            &at("other.qcow2"),
            Some("json:{\"file\":{\"filename\":\"/old/images/box-bb.qcow2\"}}"),
        );
        qcow2(&at("gone.qcow2"), Some("/nowhere/box-ee.qcow2"));
        qcow2(&at("round.qcow2"), Some("round.qcow2"));
        let backing = Backing::survey(&images).unwrap();
        let on = |name: &str| backing.image_on(&at(name)).map(str::to_string);
        assert_eq!(on("box-aa.qcow2").unwrap(), "snapshot.qcow2");
        assert_eq!(on("box-bb.qcow2").unwrap(), "other.qcow2");
        assert_eq!(on("box-ee.qcow2").unwrap(), "gone.qcow2");
        assert_eq!(on("box-cc.qcow2"), None);
        assert_eq!(on("vmlinuz-dd"), None);
    }

    #[test]
    fn an_unreadable_image_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Backing::survey(&folder.path().join("none")).is_ok());
        let image = folder.path().join("x.qcow2");
        qcow2(&image, Some("y"));
        let mut bytes = fs::read(&image).unwrap();
        bytes[16..20].copy_from_slice(&5000u32.to_be_bytes());
        fs::write(&image, &bytes).unwrap();
        assert!(Backing::survey(folder.path()).is_err());
        fs::write(&image, &bytes[..10]).unwrap();
        assert!(Backing::survey(folder.path()).is_ok());
    }
}
