//! A machine's disk as a new box. The disk comes flattened and cleaned; here it gets its manifest
//! and goes where it is wanted.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::host::{file, room};

use super::{
    archive::write_archive,
    build::entry,
    error::BoxError,
    export::{ExportFormat, export},
    manifest::{Disk, DiskFormat, FORMAT_VERSION, FileEntry, MANIFEST, Manifest, check_word},
    names::Given,
    qcow2,
    store::{FileRole, Store, StoredBox},
};

/// The disk's name in a box that was packed.
const DISK: &str = "disk.qcow2";

/// What a packed box is called and says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    pub name: String,
    pub version: String,
    pub labels: BTreeMap<String, String>,
    pub to: Destination,
}

/// Where a packed box goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Store,
    /// A box archive.
    Archive(PathBuf),
    /// What others than stead take.
    Image(ExportFormat, PathBuf),
}

impl Packing {
    /// Whether the manifest could have these words.
    pub fn check(&self) -> Result<(), String> {
        check_word("name", &self.name)?;
        check_word("version", &self.version)?;
        for (key, value) in &self.labels {
            // They stand in tables, one line each.
            if key.is_empty() || key.chars().chain(value.chars()).any(char::is_control) {
                return Err(format!(
                    "the label {key:?} = {value:?} has to be one line of text"
                ));
            }
        }
        Ok(())
    }
}

/// What the box says of itself: what its parent says, but for the disk and what it is called.
fn manifest(parent: &StoredBox, packing: &Packing, disk: FileEntry, virtual_size: u64) -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        name: packing.name.clone(),
        version: packing.version.clone(),
        arch: parent.manifest.arch.clone(),
        disk: Disk {
            file: disk,
            format: DiskFormat::Qcow2,
            virtual_size,
        },
        more_disks: Vec::new(),
        boot: parent.manifest.boot.clone(),
        seed: parent.manifest.seed,
        login_user: parent.manifest.login_user.clone(),
        labels: packing.labels.clone(),
        parent: Some(parent.digest.to_string()),
    }
}

/// The command that makes one file in `folder` of a disk and all that backs it. Not compressed:
/// machines read it where it lies, and archives are compressed as a whole.
pub fn flatten(disk: &Path, folder: &Path) -> Command {
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-f", "qcow2", "-O", "qcow2", "-o", "compat=1.1"])
        .arg(disk)
        .arg(folder.join(DISK))
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Gives the disk that [`flatten`] left in `folder` its manifest and puts the box where it is
/// wanted. The disk is moved or used up.
pub fn keep_packed(
    store: &Store,
    parent: &StoredBox,
    packing: &Packing,
    folder: &Path,
) -> Result<(), BoxError> {
    let disk = folder.join(DISK);
    if let Destination::Image(format, out) = &packing.to {
        return export(&parent.manifest, &disk, DiskFormat::Qcow2, *format, out);
    }
    let virtual_size = qcow2::virtual_size(&disk).map_err(BoxError::io("read", &disk))?;
    let manifest = manifest(parent, packing, entry(folder, DISK)?, virtual_size);
    let bytes = manifest.to_bytes()?;
    // What will be read back has to be good before anything has its final name.
    Manifest::parse(&bytes, &packing.name)?;
    match &packing.to {
        Destination::Archive(out) => {
            store.lend(&manifest, folder)?;
            let path = folder.join(MANIFEST);
            file::replace(&path, &bytes, file::PRIVATE).map_err(BoxError::io("write", path))?;
            write_archive(folder, out)
        }
        _ => store.take_disk(&disk, &manifest, &bytes),
    }
}

impl Store {
    /// Copies the files of a box that are in the store, all but its disk, into a box's folder.
    fn lend(&self, manifest: &Manifest, folder: &Path) -> Result<(), BoxError> {
        for (entry, role) in manifest.files() {
            if !matches!(role, FileRole::Disk(_)) {
                let from = self.file(entry, role);
                fs::copy(&from, folder.join(&entry.name)).map_err(BoxError::io("copy", from))?;
            }
        }
        Ok(())
    }

    /// Takes in a box whose other files are here already, as its parent's.
    fn take_disk(&self, disk: &Path, manifest: &Manifest, bytes: &[u8]) -> Result<(), BoxError> {
        self.prepare_folders()?;
        let _held = self.lock()?;
        self.sweep();
        for (entry, role) in manifest.files() {
            let path = self.file(entry, role);
            if !matches!(role, FileRole::Disk(_)) && !path.exists() {
                return Err(BoxError::Missing {
                    name: manifest.name.clone(),
                    path,
                    sha256: entry.sha256.clone(),
                });
            }
        }
        let mut file = self.temporary()?;
        file::take(disk, &mut file).map_err(BoxError::io("move into the store", disk))?;
        self.place(file, &manifest.disk.file, FileRole::Disk(DiskFormat::Qcow2))?;
        let stored = self.keep_manifest(bytes)?;
        self.give_name(&stored, Given::Packed)?;
        Ok(())
    }
}

/// Fails unless the file system of `folder` has room for `needed` bytes.
pub fn ensure_room(folder: &Path, needed: u64) -> Result<(), BoxError> {
    match room::lacking(folder, needed) {
        Some(free) => Err(BoxError::NoRoom {
            folder: folder.to_path_buf(),
            needed,
            free,
        }),
        None => Ok(()),
    }
}
