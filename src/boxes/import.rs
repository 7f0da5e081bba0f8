//! Files as others publish them, taken into the store: boxes of stead's as they are, disk images as
//! boxes that boot by their own bootloader and are seeded by cloud-init.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{
    error::BoxError,
    image::{self, Kind, Packing},
    manifest::{Boot, Disk, DiskFormat, FORMAT_VERSION, FileEntry, Manifest, SeedKind},
    store::{FileRole, INCOMING, Store, StoredBox, copy, hex},
};

/// Whom to log in as on an image that says nothing: cloud-init makes this user.
pub const LOGIN_USER: &str = "stead";

/// What a disk image is to be called, since it says nothing itself.
#[derive(Clone, Debug)]
pub struct Title {
    pub name: String,
    pub version: String,
    /// As in `uname -m`.
    pub arch: String,
    pub seed: SeedKind,
    pub login_user: String,
}

/// A file to be taken in.
#[derive(Clone, Debug)]
pub struct Incoming<'a> {
    pub path: &'a Path,
    /// Of the file.
    pub sha256: &'a str,
    /// It may be moved into the store; else it stays where it is.
    pub ours: bool,
    pub title: Title,
}

/// What a file became.
#[derive(Clone, Debug)]
pub struct Imported {
    pub stored: StoredBox,
    /// It said no name itself, and has the one that was given.
    pub titled: bool,
}

impl Store {
    /// Takes a verified file in. Its content says what it is. `progress` gets the bytes unpacked.
    pub fn import(
        &self,
        incoming: &Incoming<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Imported, BoxError> {
        let (packing, kind) = image::probe(incoming.path)?;
        if packing == Packing::Plain && kind.is_none() {
            return Err(unknown(incoming.path));
        }
        if is_tar(incoming.path, packing)? {
            let stored = self.add(incoming.path, &mut |done, _| progress(done))?;
            return Ok(Imported {
                stored,
                titled: false,
            });
        }
        self.prepare_folders()?;
        let _held = self.lock()?;
        self.sweep();
        let folder = self.images();
        let temporary = || {
            tempfile::Builder::new()
                .prefix(INCOMING)
                .tempfile_in(&folder)
                .map_err(BoxError::io("write in", &folder))
        };

        // What QEMU or qemu-img can read, with its sha256 where that is known.
        let (file, kind, mut sha256) = match (packing, kind) {
            (Packing::Plain, Some(kind)) => {
                let mut file = temporary()?;
                if incoming.ours {
                    // On the same file system, so nothing is copied.
                    fs::rename(incoming.path, file.path())
                        .map_err(BoxError::io("move into the store", incoming.path))?;
                    *file.as_file_mut() = File::options()
                        .read(true)
                        .write(true)
                        .open(file.path())
                        .map_err(BoxError::io("open", file.path()))?;
                } else {
                    let mut from =
                        File::open(incoming.path).map_err(BoxError::io("open", incoming.path))?;
                    io::copy(&mut from, file.as_file_mut())
                        .map_err(BoxError::io("copy into the store", incoming.path))?;
                }
                (file, kind, Some(incoming.sha256.to_string()))
            }
            _ => {
                let mut file = temporary()?;
                let sha256 = unpack(incoming.path, packing, file.as_file_mut(), progress)?;
                let (again, kind) = image::probe(file.path())?;
                match (again, kind) {
                    (Packing::Plain, Some(kind)) if kind != Kind::Tar => (file, kind, Some(sha256)),
                    _ => return Err(unknown(incoming.path)),
                }
            }
        };
        if let Some(message) = image::objection(file.path(), kind)? {
            return Err(BoxError::Refused {
                path: incoming.path.to_path_buf(),
                message,
            });
        }
        let (file, format) = match image::usable(kind) {
            Some(format) => {
                image::check(file.path(), kind, incoming.path)?;
                (file, format)
            }
            None => {
                let converted = temporary()?;
                image::convert(file.path(), kind, converted.path())?;
                sha256 = None;
                (converted, DiskFormat::Qcow2)
            }
        };
        let sha256 = match sha256 {
            Some(sha256) => sha256,
            None => hash(file.path())?,
        };
        let size = fs::metadata(file.path())
            .map_err(BoxError::io("read", file.path()))?
            .len();
        let virtual_size = image::virtual_size(file.path(), format)?;
        let entry = FileEntry {
            name: match format {
                DiskFormat::Qcow2 => "disk.qcow2".into(),
                DiskFormat::Raw => "disk.raw".into(),
            },
            size,
            sha256,
        };
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            name: incoming.title.name.clone(),
            version: incoming.title.version.clone(),
            arch: incoming.title.arch.clone(),
            disk: Disk {
                file: entry.clone(),
                format,
                virtual_size,
            },
            boot: Boot::Bootloader {},
            seed: incoming.title.seed,
            login_user: incoming.title.login_user.clone(),
            labels: Default::default(),
        };
        let bytes = manifest.to_bytes()?;
        // What will be read back has to be good before anything has its final name.
        Manifest::parse(&bytes, &incoming.path.display().to_string())?;
        let finish = || -> io::Result<()> {
            let file = File::open(file.path())?;
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()
        };
        finish().map_err(BoxError::io("write", file.path()))?;
        self.place(file, &entry, FileRole::Disk(format))?;
        Ok(Imported {
            stored: self.keep_manifest(&bytes)?,
            titled: true,
        })
    }

    /// The same files as a box of another name.
    pub fn retitle(&self, stored: &StoredBox, title: &Title) -> Result<StoredBox, BoxError> {
        let manifest = Manifest {
            name: title.name.clone(),
            version: title.version.clone(),
            seed: title.seed,
            login_user: title.login_user.clone(),
            ..stored.manifest.clone()
        };
        let bytes = manifest.to_bytes()?;
        Manifest::parse(&bytes, &title.name)?;
        let _held = self.lock()?;
        // It may have been removed meanwhile.
        self.ensure_intact(stored)?;
        self.keep_manifest(&bytes)
    }
}

fn unpack(
    path: &Path,
    packing: Packing,
    file: &mut File,
    progress: &mut dyn FnMut(u64),
) -> Result<String, BoxError> {
    let open = || -> io::Result<_> { image::unpack(packing, File::open(path)?) };
    let mut reader = open().map_err(BoxError::io("read", path))?;
    image::write_sparse(&mut *reader, file, progress)
        .map(|(sha256, _)| sha256)
        .map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull => BoxError::io("unpack into the store", path)(error),
            _ => BoxError::BadImage {
                path: path.to_path_buf(),
                message: format!("it cannot be unpacked: {error}"),
            },
        })
}

/// Whether there is a tar in it.
fn is_tar(path: &Path, packing: Packing) -> Result<bool, BoxError> {
    let look = || -> io::Result<bool> {
        let reader = image::unpack(packing, File::open(path)?)?;
        // More than this is not needed to know a tar, and unpacking takes time.
        let (head, _) = image::peek(reader.take(512))?;
        Ok(image::kind(&head, &[]) == Some(Kind::Tar))
    };
    look().map_err(|error| BoxError::BadImage {
        path: path.to_path_buf(),
        message: format!("it cannot be unpacked: {error}"),
    })
}

fn hash(path: &Path) -> Result<String, BoxError> {
    let mut hash = Sha256::new();
    File::open(path)
        .and_then(|mut file| copy(&mut file, &mut io::sink(), &mut hash, &mut |_| {}))
        .map_err(BoxError::io("read", path))?;
    Ok(hex(&hash.finalize()))
}

fn unknown(path: &Path) -> BoxError {
    let mut head = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    let text = String::from_utf8_lossy(&head).trim_start().to_lowercase();
    BoxError::BadImage {
        path: path.to_path_buf(),
        message: if text.starts_with("<!doctype") || text.starts_with("<html") {
            "it is a web page and no disk image".into()
        } else {
            "its content is no box and no disk image that is known (qcow2, raw, vmdk, vhd, vhdx; plain, xz, gz, zst or bz2)".into()
        },
    }
}
