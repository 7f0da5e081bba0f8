//! Imports files into the store: stead's boxes as they are, disk images as boxes that boot by their own
//! bootloader and are seeded by cloud-init, and Vagrant boxes.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{
    host::{digest::sha256_of_stream, file, firmware::Firmware},
    report::clean::Shown,
    store::{Bounds, FileEntry, LARGEST_FILE, dig_holes, write_sparse},
    unpack::Compression,
};

use super::{
    archive::first_name,
    error::BoxError,
    image::{self, Kind},
    manifest::{Boot, Disk, DiskFormat, FORMAT_VERSION, FileRole, MANIFEST, Manifest},
    opened::Opened,
    qemu_img,
    seed::SeedKind,
    store::{Store, StoredBox},
    vagrant::{self, Settings},
};

/// Login user of an image that names none: cloud-init creates this user.
pub const LOGIN_USER: &str = "stead";

/// Name and properties of a disk image, which has no manifest.
#[derive(Clone, Debug)]
pub struct Title {
    pub name: String,
    pub version: String,
    /// As in `uname -m`.
    pub arch: String,
    pub seed: SeedKind,
    pub login_user: String,
}

/// A file to import.
#[derive(Clone, Debug)]
pub struct Incoming<'a> {
    pub path: &'a Path,
    /// The digest of the file at `path`: 64 hex digits.
    pub sha256: &'a str,
    /// Whether stead owns the file and may move it into the store. Otherwise the file stays.
    pub ours: bool,
    pub title: Title,
}

/// An image in the store's folder, under a temporary name.
struct Image {
    file: tempfile::NamedTempFile,
    kind: Kind,
    sha256: String,
}

/// The result of an import.
#[derive(Clone, Debug)]
pub struct Imported {
    pub stored: StoredBox,
    /// Whether the file had no manifest, so that the box got the given [`Title`].
    pub titled: bool,
}

impl Store {
    /// Imports a verified file; its content decides what it is. `progress` gets the bytes unpacked so far.
    pub fn import(
        &self,
        incoming: &Incoming<'_>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Imported, BoxError> {
        // stead hashed its own downloads as they arrived, and nobody else writes to them.
        let wanted = (!incoming.ours).then_some(incoming.sha256);
        let opened = Opened::open(incoming.path, wanted)?;
        let (compression, kind) = opened.probe()?;
        if compression == Compression::Plain && kind.is_none() {
            return Err(unknown(incoming.path));
        }
        let tar = first_entry(&opened, compression)?;
        if tar.as_deref() == Some(MANIFEST) {
            let stored = self.add_opened(&opened, &mut |done, _| progress(done))?;
            return Ok(Imported {
                stored,
                titled: false,
            });
        }
        let _held = self.begin()?;
        let (images, seed, login_user, firmware) = match tar {
            Some(_) => self.vagrant_disks(&opened, compression, progress)?,
            None => (
                vec![self.image_disk(incoming, &opened, compression, kind, progress)?],
                incoming.title.seed,
                incoming.title.login_user.clone(),
                None,
            ),
        };
        let mut files = Vec::new();
        let mut disks = Vec::new();
        for (n, image) in images.into_iter().enumerate() {
            let (file, disk) = self.settle(image, n, incoming.path)?;
            files.push(file);
            disks.push(disk);
        }
        let mut disks = disks.into_iter();
        let disk = (disks.next()).ok_or_else(|| unknown(incoming.path))?;
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            name: incoming.title.name.clone(),
            version: incoming.title.version.clone(),
            arch: incoming.title.arch.clone(),
            disk,
            more_disks: disks.collect(),
            boot: Boot::Bootloader { firmware },
            seed,
            login_user,
            labels: Default::default(),
            parent: None,
        };
        let bytes = manifest.to_bytes()?;
        // Check that the manifest can be read back before any file gets its final name.
        Manifest::parse(&bytes, &incoming.path.shown())?;
        for (file, disk) in files.into_iter().zip(manifest.disks()) {
            self.place(file, &disk.file, FileRole::Disk(disk.format))?;
        }
        Ok(Imported {
            stored: self.keep_manifest(&bytes)?,
            titled: true,
        })
    }

    /// Unpacks, copies or moves a file that is a disk image into the store's folder.
    fn image_disk(
        &self,
        incoming: &Incoming<'_>,
        opened: &Opened,
        compression: Compression,
        kind: Option<Kind>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Image, BoxError> {
        let mut file = self.temporary()?;
        // On another file system than the images, the file is copied below.
        let beside = || -> io::Result<bool> {
            let device = |file: &File| Ok::<_, io::Error>(file.metadata()?.dev());
            Ok(device(opened.file())? == device(file.as_file())?)
        };
        if let Some(kind) = kind
            && incoming.ours
            && beside().map_err(BoxError::io("read", incoming.path))?
        {
            file::take(incoming.path, &mut file)
                .map_err(BoxError::io("move into the store", incoming.path))?;
            if kind == Kind::Raw {
                dig_holes(file.as_file()).map_err(BoxError::io("dig holes into", incoming.path))?;
            }
            let sha256 = incoming.sha256.to_string();
            return Ok(Image { file, kind, sha256 });
        }
        let mut bounds = match kind {
            Some(_) => Bounds::of_size(LARGEST_FILE),
            None => Bounds::of_packed(opened.size()),
        };
        let mut write = || -> io::Result<String> {
            let mut reader = opened.unpacked(compression)?;
            let out = file.as_file_mut();
            write_sparse(&mut *reader, out, &mut bounds, progress).map(|(sha256, _)| sha256)
        };
        let sha256 = write().map_err(BoxError::unpacking(incoming.path))?;
        opened.finish()?;
        // Check what was written: the file may have changed since it was probed.
        let kind = known(file.as_file(), incoming.path)?;
        Ok(Image { file, kind, sha256 })
    }

    /// Unpacks a Vagrant box; returns its disks, its seed, its login user, and its firmware if it names one.
    fn vagrant_disks(
        &self,
        opened: &Opened,
        compression: Compression,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Vec<Image>, SeedKind, String, Option<Firmware>), BoxError> {
        let path = opened.path();
        let refused = |message: String| BoxError::Refused {
            path: path.to_path_buf(),
            message,
        };
        let mut bounds = Bounds::of_packed(opened.size());
        let mut unpacked = vagrant::unpack(
            opened,
            compression,
            &|| self.temporary(),
            &mut bounds,
            progress,
        )?;
        opened.finish()?;
        let names = vagrant::disks(&unpacked.metadata).map_err(refused)?;
        let mut images = Vec::new();
        for name in names {
            let at = (unpacked.files.iter())
                .position(|(file, ..)| *file == name)
                .ok_or_else(|| BoxError::Incomplete {
                    path: path.to_path_buf(),
                    message: format!("its file {name} is missing"),
                })?;
            let (_, file, sha256) = unpacked.files.swap_remove(at);
            images.push((file, sha256));
        }
        let settings =
            (unpacked.vagrantfile.as_deref()).map_or_else(Settings::default, Settings::parse);
        // vagrant-libvirt takes firmware for UEFI only. Whose it is, libvirt chooses.
        let firmware = settings.loader.map(|_| Firmware::Uefi);
        let login_user = settings
            .login_user
            .unwrap_or_else(|| vagrant::LOGIN_USER.into());
        let mut disks = Vec::new();
        for (n, (file, sha256)) in images.into_iter().enumerate() {
            let kind = match known(file.as_file(), path) {
                Ok(kind) => kind,
                // An empty data disk has nothing to recognise it by.
                Err(_) if n > 0 => Kind::Raw,
                Err(error) => return Err(error),
            };
            disks.push(Image { file, kind, sha256 });
        }
        Ok((disks, SeedKind::Vagrant, login_user, firmware))
    }

    /// Checks that QEMU may open an image, and converts it if QEMU cannot use it as it is. `n` is the disk's
    /// index in its box, from 0. Errors name it `name`.
    fn settle(
        &self,
        image: Image,
        n: usize,
        name: &Path,
    ) -> Result<(tempfile::NamedTempFile, Disk), BoxError> {
        let Image { file, kind, sha256 } = image;
        let objection = image::objection(file.as_file(), kind);
        if let Some(message) = objection.map_err(BoxError::io("read", file.path()))? {
            return Err(BoxError::Refused {
                path: name.to_path_buf(),
                message,
            });
        }
        let (file, format, sha256) = match image::usable(kind) {
            Some(format) => {
                if format == DiskFormat::Qcow2 {
                    qemu_img::check(file.as_file(), name)?;
                }
                (file, format, sha256)
            }
            None => {
                let converted = self.temporary()?;
                image::convert(file.as_file(), kind, converted.as_file(), name)?;
                let sha256 =
                    hash(converted.as_file()).map_err(BoxError::io("read", converted.path()))?;
                (converted, DiskFormat::Qcow2, sha256)
            }
        };
        let look = || -> io::Result<(u64, u64)> {
            let size = file.as_file().metadata()?.len();
            Ok((size, image::virtual_size(file.as_file(), format)?))
        };
        let (size, virtual_size) = look().map_err(BoxError::io("read", file.path()))?;
        let entry = FileEntry {
            name: format!(
                "disk{}.{}",
                if n == 0 {
                    String::new()
                } else {
                    (n + 1).to_string()
                },
                format.name()
            ),
            size,
            sha256,
        };
        Ok((
            file,
            Disk {
                file: entry,
                format,
                virtual_size,
            },
        ))
    }

    /// Stores the same box under another name.
    pub fn add_under_name(&self, stored: &StoredBox, name: &str) -> Result<StoredBox, BoxError> {
        let manifest = Manifest {
            name: name.to_string(),
            ..stored.manifest.clone()
        };
        let bytes = manifest.to_bytes()?;
        Manifest::parse(&bytes, name)?;
        let _held = self.lock()?;
        self.ensure_intact(stored)?;
        self.keep_manifest(&bytes)
    }

    /// Stores the same files as a box with another title.
    pub fn retitle(&self, stored: &StoredBox, title: &Title) -> Result<StoredBox, BoxError> {
        let manifest = Manifest {
            name: title.name.clone(),
            version: title.version.clone(),
            ..stored.manifest.clone()
        };
        // A Vagrant box sets these itself.
        let manifest = match manifest.seed {
            SeedKind::Vagrant => manifest,
            SeedKind::Credentials | SeedKind::CloudInit => Manifest {
                seed: title.seed,
                login_user: title.login_user.clone(),
                ..manifest
            },
        };
        let bytes = manifest.to_bytes()?;
        Manifest::parse(&bytes, &title.name)?;
        let _held = self.lock()?;
        // It may have been removed in the meantime.
        self.ensure_intact(stored)?;
        self.keep_manifest(&bytes)
    }
}

/// Returns the name of the first entry, if the file is a tar, compressed or not.
fn first_entry(opened: &Opened, compression: Compression) -> Result<Option<String>, BoxError> {
    let look = || -> io::Result<Option<String>> {
        // 512 bytes are enough to recognise a tar, and unpacking takes time.
        let (head, _) = image::peek(opened.unpacked(compression)?.take(512))?;
        if image::kind(&head, &[]) != Some(Kind::Tar) {
            return Ok(None);
        }
        first_name(opened.unpacked(compression)?).map(Some)
    };
    look().map_err(|error| BoxError::BadImage {
        path: opened.path().to_path_buf(),
        message: format!("it cannot be unpacked: {error}"),
    })
}

/// Recognises an unpacked image. Errors name it `name`.
fn known(file: &File, name: &Path) -> Result<Kind, BoxError> {
    match image::probe(file).map_err(BoxError::io("read", name))? {
        (Compression::Plain, Some(kind)) if kind != Kind::Tar => Ok(kind),
        _ => Err(unknown(name)),
    }
}

fn hash(mut file: &File) -> io::Result<String> {
    file.rewind()?;
    Ok(sha256_of_stream(&mut file)?.0)
}

fn unknown(path: &Path) -> BoxError {
    let mut head = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
    let text = String::from_utf8_lossy(&head).trim_start().to_lowercase();
    BoxError::BadImage {
        path: path.to_path_buf(),
        message: if text.starts_with("<!doctype") || text.starts_with("<html") {
            "it is a web page, not a disk image".into()
        } else {
            "its content is neither a box nor a known disk image (qcow2, raw, vmdk, vhd, vhdx; plain, xz, gz, zst or bz2)".into()
        },
    }
}
