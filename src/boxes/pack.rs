//! A machine's disk as a new box. The disk comes flattened and cleaned; here it gets its manifest
//! and goes where it is wanted.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    host::{
        file,
        names::{check_name, check_name_in_parts},
        room,
    },
    report::clean::Shown,
};

use super::{
    archive::write_archive,
    build::entry,
    error::BoxError,
    export::{ExportFormat, export},
    manifest::{Disk, DiskFormat, FORMAT_VERSION, FileEntry, MANIFEST, Manifest},
    names::Given,
    qcow2, qemu_img,
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
        check_name_in_parts("name", &self.name)?;
        check_name("version", &self.version)?;
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

/// A machine's disk has few: its box, and of a copy the disk that it is a copy of.
const MOST_BACKING: usize = 4;

/// The command that makes one file in `folder` of a disk and all that backs it. Not compressed:
/// machines read it where it lies, and archives are compressed as a whole.
pub fn flatten(disk: &Path, folder: &Path) -> Result<Command, BoxError> {
    let out = folder.join(DISK);
    let to = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&out)
        .map_err(BoxError::io("write", &out))?;
    let file = File::open(disk).map_err(BoxError::io("open", disk))?;
    let backing = chain(disk, &file)?;
    let image = qemu_img::Image {
        file: &file,
        format: "qcow2",
        backing: &backing,
    };
    qemu_img::convert_command(&image, &["-O", "qcow2", "-o", "compat=1.1"], &to)
        .map_err(BoxError::io("run qemu-img on", disk))
}

/// What backs a disk, the nearest first. Whoever broke out of a guest into its QEMU may have written other
/// names there, so only files beside it are taken.
fn chain(disk: &Path, file: &File) -> Result<Vec<(File, DiskFormat)>, BoxError> {
    let refused = |message: String| BoxError::Refused {
        path: disk.to_path_buf(),
        message,
    };
    let mut chain: Vec<(File, DiskFormat)> = Vec::new();
    loop {
        let last = chain.last().map_or(file, |(file, _)| file);
        if chain
            .last()
            .is_some_and(|(_, format)| *format != DiskFormat::Qcow2)
        {
            return Ok(chain);
        }
        let named = qcow2::backing(last).map_err(BoxError::io("read", disk))?;
        let Some((path, format)) = named else {
            return Ok(chain);
        };
        let beside = path.parent().is_some_and(|folder| {
            let canonical = |folder: &Path| folder.canonicalize().ok();
            canonical(folder).is_some_and(|it| disk.parent().and_then(canonical) == Some(it))
        });
        if !path.is_absolute() || !beside || chain.len() == MOST_BACKING {
            return Err(refused(format!(
                "it is backed by {}, which is not a file of stead's",
                path.shown()
            )));
        }
        let format = match format.as_deref() {
            Some("qcow2") => DiskFormat::Qcow2,
            Some("raw") => DiskFormat::Raw,
            other => {
                return Err(refused(format!(
                    "it is backed by a file of the format {:?}",
                    other.unwrap_or("unknown")
                )));
            }
        };
        let next = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&path)
            .map_err(BoxError::io("open", &path))?;
        chain.push((next, format));
    }
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
    let virtual_size = File::open(&disk)
        .and_then(|file| qcow2::virtual_size(&file))
        .map_err(BoxError::io("read", &disk))?;
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
