//! Files as others publish them, taken into the store: boxes of stead's as they are, disk images as
//! boxes that boot by their own bootloader and are seeded by cloud-init.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::MetadataExt,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use crate::{host::file, report::clean::Shown};

use super::{
    error::BoxError,
    image::{self, Bounds, Kind, LARGEST, Packing},
    manifest::{Boot, Disk, DiskFormat, FORMAT_VERSION, FileEntry, MANIFEST, Manifest, SeedKind},
    opened::Opened,
    qemu_img,
    store::{FileRole, Store, StoredBox, copy, hex},
    vagrant::{self, Settings},
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

/// An image in the store's folder, under a name that is not final.
struct Image {
    file: tempfile::NamedTempFile,
    kind: Kind,
    sha256: String,
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
        // What is stead's own was hashed on its way here, and nobody else writes to it.
        let wanted = (!incoming.ours).then_some(incoming.sha256);
        let opened = Opened::open(incoming.path, wanted)?;
        let (packing, kind) = opened.probe()?;
        if packing == Packing::Plain && kind.is_none() {
            return Err(unknown(incoming.path));
        }
        let tar = first_entry(&opened, packing)?;
        if tar.as_deref() == Some(MANIFEST) {
            let stored = self.add_opened(&opened, &mut |done, _| progress(done))?;
            return Ok(Imported {
                stored,
                titled: false,
            });
        }
        self.prepare_folders()?;
        let _held = self.lock()?;
        self.sweep();
        let (images, seed, login_user) = match tar {
            Some(_) => self.vagrant_disks(&opened, packing, progress)?,
            None => (
                vec![self.image_disk(incoming, &opened, packing, kind, progress)?],
                incoming.title.seed,
                incoming.title.login_user.clone(),
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
            boot: Boot::Bootloader {},
            seed,
            login_user,
            labels: Default::default(),
            parent: None,
        };
        let bytes = manifest.to_bytes()?;
        // What will be read back has to be good before anything has its final name.
        Manifest::parse(&bytes, &incoming.path.shown())?;
        for (file, disk) in files.into_iter().zip(manifest.disks()) {
            self.place(file, &disk.file, FileRole::Disk(disk.format))?;
        }
        Ok(Imported {
            stored: self.keep_manifest(&bytes)?,
            titled: true,
        })
    }

    /// A file that is an image, unpacked.
    fn image_disk(
        &self,
        incoming: &Incoming<'_>,
        opened: &Opened,
        packing: Packing,
        kind: Option<Kind>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Image, BoxError> {
        let mut file = self.temporary()?;
        // Copied below where the images are on a disk of their own.
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
            let sha256 = incoming.sha256.to_string();
            return Ok(Image { file, kind, sha256 });
        }
        let mut bounds = match kind {
            Some(_) => Bounds::of_size(LARGEST),
            None => Bounds::of_packed(opened.size()),
        };
        let mut write = || -> io::Result<String> {
            let mut reader = opened.unpacked(packing)?;
            let out = file.as_file_mut();
            image::write_sparse(&mut *reader, out, &mut bounds, progress).map(|(sha256, _)| sha256)
        };
        let sha256 = write().map_err(BoxError::unpacking(incoming.path))?;
        opened.finish()?;
        // What was written, which may be another file than was looked at.
        let kind = known(file.as_file(), incoming.path)?;
        Ok(Image { file, kind, sha256 })
    }

    /// The disks of a Vagrant box, and how it is reached.
    fn vagrant_disks(
        &self,
        opened: &Opened,
        packing: Packing,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Vec<Image>, SeedKind, String), BoxError> {
        let path = opened.path();
        let refused = |message: String| BoxError::Refused {
            path: path.to_path_buf(),
            message,
        };
        let mut bounds = Bounds::of_packed(opened.size());
        let mut unpacked =
            vagrant::unpack(opened, packing, &|| self.temporary(), &mut bounds, progress)?;
        opened.finish()?;
        let names = vagrant::disks(&unpacked.metadata).map_err(refused)?;
        let mut images = Vec::new();
        for name in names {
            let at = (unpacked.files.iter())
                .position(|(file, ..)| *file == name)
                .ok_or_else(|| refused(format!("{name} is missing in it")))?;
            let (_, file, sha256) = unpacked.files.swap_remove(at);
            images.push((file, sha256));
        }
        let settings =
            (unpacked.vagrantfile.as_deref()).map_or_else(Settings::default, Settings::parse);
        if let Some(loader) = settings.loader {
            return Err(refused(format!(
                "its Vagrantfile says that it boots by the firmware {loader}, and machines here boot by a BIOS"
            )));
        }
        let login_user = settings
            .login_user
            .unwrap_or_else(|| vagrant::LOGIN_USER.into());
        let mut disks = Vec::new();
        for (n, (file, sha256)) in images.into_iter().enumerate() {
            let kind = match known(file.as_file(), path) {
                Ok(kind) => kind,
                // An empty disk for data has no mark to be known by.
                Err(_) if n > 0 => Kind::Raw,
                Err(error) => return Err(error),
            };
            disks.push(Image { file, kind, sha256 });
        }
        Ok((disks, SeedKind::Vagrant, login_user))
    }

    /// Makes sure that QEMU may be given the image, and gives it a form that QEMU uses as it is.
    /// It is the `n`th of its box, the first being 0. Errors call it `name`.
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

    /// The same box under another name.
    pub fn rename(&self, stored: &StoredBox, name: &str) -> Result<StoredBox, BoxError> {
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

    /// The same files as a box of another name.
    pub fn retitle(&self, stored: &StoredBox, title: &Title) -> Result<StoredBox, BoxError> {
        let manifest = Manifest {
            name: title.name.clone(),
            version: title.version.clone(),
            ..stored.manifest.clone()
        };
        // A Vagrant box says these itself.
        let manifest = match manifest.seed {
            SeedKind::Vagrant => manifest,
            _ => Manifest {
                seed: title.seed,
                login_user: title.login_user.clone(),
                ..manifest
            },
        };
        let bytes = manifest.to_bytes()?;
        Manifest::parse(&bytes, &title.name)?;
        let _held = self.lock()?;
        // It may have been removed meanwhile.
        self.ensure_intact(stored)?;
        self.keep_manifest(&bytes)
    }
}

/// The name of the first entry of the tar that is in it, if one is.
fn first_entry(opened: &Opened, packing: Packing) -> Result<Option<String>, BoxError> {
    let look = || -> io::Result<Option<String>> {
        // More than this is not needed to know a tar, and unpacking takes time.
        let reader = opened.unpacked(packing)?.take(512);
        let (head, _) = image::peek(reader)?;
        if image::kind(&head, &[]) != Some(Kind::Tar) {
            return Ok(None);
        }
        let name = tar::Header::from_byte_slice(&head)
            .path_bytes()
            .into_owned();
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(Some(name.trim_start_matches("./").to_string()))
    };
    look().map_err(|error| BoxError::BadImage {
        path: opened.path().to_path_buf(),
        message: format!("it cannot be unpacked: {error}"),
    })
}

/// What an unpacked image is. Errors call it `name`.
fn known(file: &File, name: &Path) -> Result<Kind, BoxError> {
    match image::probe(file).map_err(BoxError::io("read", name))? {
        (Packing::Plain, Some(kind)) if kind != Kind::Tar => Ok(kind),
        _ => Err(unknown(name)),
    }
}

fn hash(mut file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    file.rewind()?;
    copy(&mut file, &mut io::sink(), &mut hash, &mut |_| {})?;
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
