//! Makes a new box from a machine's disk that has been cleaned: flattens it, adds a manifest, and writes the
//! box to its destination.

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
        firmware::Firmware,
        free_space,
        names::{check_name, check_name_in_parts},
    },
    report::clean::Shown,
    store::{FileEntry, StoreError},
};

use super::{
    archive::write_archive,
    build::entry,
    error::BoxError,
    export::{ExportFormat, export},
    manifest::{Boot, Disk, DiskFormat, FORMAT_VERSION, FileRole, MANIFEST, Manifest},
    names::NameSource,
    qcow2, qemu_img,
    store::{Store, StoredBox},
};

/// The name of the disk in a packed box.
const DISK: &str = "disk.qcow2";

/// Name, labels and destination of a box to pack.
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
    /// A format of other software.
    Image(ExportFormat, PathBuf),
}

impl Packing {
    /// Checks that a manifest may contain the name, version and labels.
    pub fn check(&self) -> Result<(), String> {
        check_name_in_parts("name", &self.name)?;
        check_name("version", &self.version)?;
        for (key, value) in &self.labels {
            // They are printed in tables, one line each.
            if key.is_empty() || key.chars().chain(value.chars()).any(char::is_control) {
                return Err(format!(
                    "the label {key:?} = {value:?} must be one line of text"
                ));
            }
        }
        Ok(())
    }
}

/// Returns the new box's manifest: its parent's, except for the disk, its firmware, name, version and labels.
fn manifest(
    parent: &StoredBox,
    packing: &Packing,
    firmware: Option<Firmware>,
    disk: FileEntry,
    virtual_size: u64,
) -> Manifest {
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
        boot: match &parent.manifest.boot {
            Boot::Bootloader { firmware: said } => Boot::Bootloader {
                firmware: match firmware {
                    // A box that says nothing and boots by a BIOS goes on to say nothing.
                    Some(Firmware::Bios) => said.and(firmware),
                    other => other.or(*said),
                },
            },
            direct => direct.clone(),
        },
        seed: parent.manifest.seed,
        login_user: parent.manifest.login_user.clone(),
        labels: packing.labels.clone(),
        parent: Some(parent.digest.to_string()),
    }
}

/// The most backing files that a machine's disk may have. It has its box and, if it is a copy, the disk that was
/// copied.
const MOST_BACKING: usize = 4;

/// Returns the command that merges a disk and its backing files into one file in `folder`. The file is not
/// compressed, because machines read it in place and archives are compressed as a whole.
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
        .map_err(BoxError::qemu_img(disk))
}

/// Opens the backing files of a disk, the nearest first. An attacker who broke out of a guest into its QEMU
/// may have written other names into the header, so only files beside the disk are accepted.
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
                "its backing file {} is not one of stead's",
                path.shown()
            )));
        }
        let format = match format.as_deref() {
            Some("qcow2") => DiskFormat::Qcow2,
            Some("raw") => DiskFormat::Raw,
            other => {
                return Err(refused(format!(
                    "the format of its backing file is {:?}, expected qcow2 or raw",
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

/// Adds a manifest to the disk that [`flatten`] left in `folder`, and writes the box to its destination. The
/// disk is moved, or not needed afterwards. `firmware` is what started the bootloader on that disk, if anything did.
pub fn keep_packed(
    store: &Store,
    parent: &StoredBox,
    packing: &Packing,
    firmware: Option<Firmware>,
    folder: &Path,
) -> Result<(), BoxError> {
    let disk = folder.join(DISK);
    if let Destination::Image(format, out) = &packing.to {
        return export(&parent.manifest, &disk, DiskFormat::Qcow2, *format, out);
    }
    let virtual_size = File::open(&disk)
        .and_then(|file| qcow2::virtual_size(&file))
        .map_err(BoxError::io("read", &disk))?;
    let manifest = manifest(
        parent,
        packing,
        firmware,
        entry(folder, DISK)?,
        virtual_size,
    );
    let bytes = manifest.to_bytes()?;
    // Check that the manifest can be read back before any file gets its final name.
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
    /// Copies the files of a box from the store into a box folder, except its disk.
    #[expect(
        clippy::disallowed_methods,
        reason = "in a temporary folder, whose files are moved into place later"
    )]
    fn lend(&self, manifest: &Manifest, folder: &Path) -> Result<(), BoxError> {
        for (entry, role) in manifest.files() {
            if !matches!(role, FileRole::Disk(_)) {
                let from = self.file(entry, role);
                fs::copy(&from, folder.join(&entry.name)).map_err(BoxError::io("copy", from))?;
            }
        }
        Ok(())
    }

    /// Stores a box of which the store has all files but the disk, from its parent.
    fn take_disk(&self, disk: &Path, manifest: &Manifest, bytes: &[u8]) -> Result<(), BoxError> {
        let _held = self.begin()?;
        for (entry, role) in manifest.files() {
            let path = self.file(entry, role);
            if !matches!(role, FileRole::Disk(_)) && !path.exists() {
                let name = &manifest.name;
                return Err(StoreError::missing::<Manifest>(name, entry, path).into());
            }
        }
        let mut file = self.temporary()?;
        file::take(disk, &mut file).map_err(BoxError::io("move into the store", disk))?;
        self.place(file, &manifest.disk.file, FileRole::Disk(DiskFormat::Qcow2))?;
        let stored = self.keep_manifest(bytes)?;
        self.give_name(&stored, NameSource::Packed)?;
        Ok(())
    }
}

/// Fails unless the file system of `folder` has room for `needed` bytes.
pub fn ensure_room(folder: &Path, needed: u64) -> Result<(), BoxError> {
    match free_space::lacking(folder, needed) {
        Some(free) => Err(BoxError::NoRoom {
            folder: folder.to_path_buf(),
            needed,
            free,
        }),
        None => Ok(()),
    }
}
