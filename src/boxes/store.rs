//! The boxes on this host, by content.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{
    host::{
        digest::{hex, sha256_of},
        file::{self, INCOMING},
        lock::{Lock, LockName, holder},
        open,
        paths::DataDir,
        stamp::{Stamp, Stamps},
    },
    report::clean::Shown,
};

use super::{
    archive::read_archive,
    error::BoxError,
    image::{Bounds, write_sparse},
    manifest::{DiskFormat, FileEntry, MANIFEST, MANIFEST_LIMIT, Manifest},
    opened::Opened,
    qcow2, recipe,
};

/// `sha256:` and the hash of a manifest's bytes, which name the hashes of all its files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    pub(crate) fn of(manifest: &[u8]) -> Self {
        Digest(format!("sha256:{}", sha256_of(manifest)))
    }

    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }

    /// The first 12 hex digits.
    pub fn short(&self) -> &str {
        let hex = self.hex();
        hex.get(..12).unwrap_or(hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A box that is here, whole and verified when it was added.
#[derive(Clone, Debug)]
pub struct StoredBox {
    pub digest: Digest,
    pub manifest: Manifest,
    pub added: Timestamp,
}

/// What a file is to its box; part of its name in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole {
    Disk(DiskFormat),
    Kernel,
    Initrd,
}

#[derive(Clone, Debug)]
pub struct Store {
    data: DataDir,
}

impl Store {
    pub fn open(data: &DataDir) -> Self {
        Store { data: data.clone() }
    }

    /// Where a file of a box is.
    pub fn file(&self, entry: &FileEntry, role: FileRole) -> PathBuf {
        let sha256 = &entry.sha256;
        self.data.images().join(match role {
            FileRole::Disk(DiskFormat::Qcow2) => format!("box-{sha256}.qcow2"),
            FileRole::Disk(DiskFormat::Raw) => format!("box-{sha256}.raw"),
            FileRole::Kernel => format!("kernel-{sha256}"),
            FileRole::Initrd => format!("initrd-{sha256}"),
        })
    }

    fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.data.boxes().join(format!("{}.json", digest.hex()))
    }

    pub(super) fn lock(&self) -> Result<Lock, BoxError> {
        Lock::acquire(&self.data.locks(), LockName::Boxes, &holder("stead box"))
            .map_err(BoxError::io("lock the boxes in", self.data.locks()))
    }

    /// All boxes by name, the newest of a name first.
    pub fn list(&self) -> Result<Vec<StoredBox>, BoxError> {
        let folder = self.data.boxes();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(BoxError::io("read", folder)(error)),
        };
        let mut boxes = Vec::new();
        for entry in entries {
            let path = entry.map_err(BoxError::io("read", &folder))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                boxes.push(self.read(&path)?);
            }
        }
        boxes.sort_by(|a: &StoredBox, b| {
            (&a.manifest.name, b.added, &b.manifest.version).cmp(&(
                &b.manifest.name,
                a.added,
                &a.manifest.version,
            ))
        });
        Ok(boxes)
    }

    fn read(&self, path: &Path) -> Result<StoredBox, BoxError> {
        let bytes = fs::read(path).map_err(BoxError::io("read", path))?;
        let digest = Digest::of(&bytes);
        if path.file_stem().is_none_or(|stem| stem != digest.hex()) {
            return Err(BoxError::WrongDigest {
                what: path.shown(),
                found: digest.hex().to_string(),
                wanted: path
                    .file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned())
                    .unwrap_or_default(),
            });
        }
        let added = fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .map_err(BoxError::io("read", path))?;
        Ok(StoredBox {
            manifest: Manifest::kept(&bytes, &path.shown())?,
            digest,
            added: Timestamp::try_from(added).unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }

    /// The box that a Machinefile means by `NAME`, `NAME:VERSION`, or at least 6 digits of a
    /// digest. A name alone means the one added last, of those that the user has given that name.
    pub fn resolve_named(&self, reference: &str) -> Result<StoredBox, BoxError> {
        // A whole digest is one file: no need to read them all.
        if let Some(hex) = reference.strip_prefix("sha256:")
            && hex.len() == 64
        {
            let path = self.data.boxes().join(format!("{hex}.json"));
            if !hex.contains('/') && path.exists() {
                return self.read(&path);
            }
        }
        let (name, version) = name_and_version(reference);
        if let Some(found) = self.by_name(name, version)? {
            return Ok(found);
        }
        let boxes = self.list()?;
        let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
        if hex.len() >= 6 && hex.chars().all(|c| c.is_ascii_hexdigit()) {
            let fitting = (boxes.iter()).filter(|stored| stored.digest.hex().starts_with(hex));
            if let Some(found) = only(reference, fitting.cloned().collect())? {
                return Ok(found);
            }
        }
        Err(self.not_found(reference, &boxes))
    }

    /// The box that a command means: as [`Self::resolve_named`], or where it came from, or the
    /// name that it says itself, where only one box can be meant.
    pub fn resolve(&self, reference: &str) -> Result<StoredBox, BoxError> {
        let error = match self.resolve_named(reference) {
            Err(error @ BoxError::NotFound { .. }) => error,
            other => return other,
        };
        if let Some(found) = only(reference, self.boxes_from(reference))? {
            return Ok(found);
        }
        let (name, version) = name_and_version(reference);
        let fitting = self.list()?.into_iter().filter(|stored| {
            stored.manifest.name == name
                && version.is_none_or(|version| stored.manifest.version == version)
        });
        only(reference, fitting.collect())?.ok_or(error)
    }

    /// The box of this digest.
    pub fn get(&self, digest: &Digest) -> Result<StoredBox, BoxError> {
        let path = self.manifest_path(digest);
        match path.exists() {
            true => self.read(&path),
            false => Err(BoxError::Removed {
                digest: digest.to_string(),
            }),
        }
    }

    fn not_found(&self, reference: &str, boxes: &[StoredBox]) -> BoxError {
        let (name, version) = name_and_version(reference);
        let named = self.named().unwrap_or_default();
        let here: Vec<String> = (boxes.iter())
            .filter(|stored| named.contains_key(stored.digest.hex()))
            .map(|stored| format!("{}:{}", stored.manifest.name, stored.manifest.version))
            .collect();
        let nearest = if here.is_empty() {
            String::new()
        } else {
            format!("; there are: {}", here.join(", "))
        };
        let fetched = boxes.iter().find(|stored| {
            stored.manifest.name == name
                && version.is_none_or(|version| stored.manifest.version == version)
        });
        let hint = if let Some(stored) = fetched {
            let from = self.known_as(stored, &named);
            format!(
                "a box that says so of itself came from {from}, and what comes from elsewhere is known by that: write box \"{from}\", or give it the name by `stead box add {from} --name {name}`"
            )
        } else if recipe::embedded_names().contains(&name) {
            format!("`stead box build {name}` builds it from Debian's packages")
        } else {
            "`stead box list --available` lists the catalogue; `stead box add` takes a box in, `stead box build` builds one".to_string()
        };
        BoxError::NotFound {
            reference: reference.to_string(),
            nearest,
            hint,
        }
    }

    /// Takes a box folder or archive in. Every file is hashed on its way and visible only when
    /// all of them are what the manifest says. A box that is here already is returned as it is.
    ///
    /// `progress` gets the bytes done and the bytes in all.
    pub fn add(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<StoredBox, BoxError> {
        self.prepare_folders()?;
        let _held = self.lock()?;
        self.sweep();
        let metadata = fs::metadata(path).map_err(BoxError::io("open", path))?;
        let manifest = if metadata.is_dir() {
            self.add_folder(path, progress)?
        } else {
            self.add_archive(&Opened::open(path, None)?, progress)?
        };
        self.keep_manifest(&manifest)
    }

    /// The same for an archive that is open.
    pub(super) fn add_opened(
        &self,
        opened: &Opened,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<StoredBox, BoxError> {
        self.prepare_folders()?;
        let _held = self.lock()?;
        self.sweep();
        let manifest = self.add_archive(opened, progress)?;
        self.keep_manifest(&manifest)
    }

    /// Takes a box in whose files `open` gives as streams, under the same checks. Errors call it
    /// `source`.
    pub(super) fn add_streams<'a>(
        &self,
        source: &Path,
        manifest_bytes: &[u8],
        open: &mut dyn FnMut(&FileEntry) -> Box<dyn Read + 'a>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<StoredBox, BoxError> {
        let manifest = Manifest::parse(manifest_bytes, &source.shown())?;
        self.prepare_folders()?;
        let _held = self.lock()?;
        self.sweep();
        let mut incoming = Incoming::new(self, source, &manifest, progress);
        for (entry, _) in manifest.files() {
            incoming.take(&entry.name, &mut open(entry))?;
        }
        incoming.keep()?;
        self.keep_manifest(manifest_bytes)
    }

    /// The manifest as it is: the bytes that its digest is taken of.
    pub(super) fn manifest_bytes(&self, digest: &Digest) -> Result<Vec<u8>, BoxError> {
        let path = self.manifest_path(digest);
        let bytes = fs::read(&path).map_err(BoxError::io("read", &path))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(BoxError::WrongDigest {
                what: path.shown(),
                found: found.hex().to_string(),
                wanted: digest.hex().to_string(),
            });
        }
        Ok(bytes)
    }

    pub(super) fn prepare_folders(&self) -> Result<(), BoxError> {
        for folder in [self.data.images(), self.data.boxes(), self.data.verified()] {
            fs::create_dir_all(&folder).map_err(BoxError::io("create", &folder))?;
        }
        // Who has a name is known before anything else comes.
        self.named().map(drop)
    }

    pub(super) fn names(&self) -> PathBuf {
        self.data.named()
    }

    pub(super) fn boxes_folder(&self) -> PathBuf {
        self.data.boxes()
    }

    pub(super) fn images(&self) -> PathBuf {
        self.data.images()
    }

    pub(super) fn origins(&self) -> PathBuf {
        self.data.origins()
    }

    pub(super) fn downloads(&self) -> PathBuf {
        self.data.downloads()
    }

    pub(super) fn used(&self) -> PathBuf {
        self.data.used()
    }

    /// A file on its way in.
    pub(super) fn temporary(&self) -> Result<tempfile::NamedTempFile, BoxError> {
        let folder = self.data.images();
        file::temporary(&folder).map_err(BoxError::io("write in", &folder))
    }

    /// Gives a verified file its final name, also over one that is there: that one may be altered.
    pub(super) fn place(
        &self,
        file: tempfile::NamedTempFile,
        entry: &FileEntry,
        role: FileRole,
    ) -> Result<(), BoxError> {
        let place = self.file(entry, role);
        if Stamps::open(&self.data).is_unchanged(&entry.sha256, &place) {
            return Ok(());
        }
        file::persist(file, &place, file::FIXED).map_err(BoxError::io("write", &place))?;
        let stamp = Stamp::of(&place).map_err(BoxError::io("read", &place))?;
        self.write_stamp(&entry.sha256, &stamp)
    }

    /// Writes the manifest, which comes last: a box is there when its manifest is. The caller
    /// holds the lock.
    pub(super) fn keep_manifest(&self, manifest: &[u8]) -> Result<StoredBox, BoxError> {
        let digest = Digest::of(manifest);
        let place = self.manifest_path(&digest);
        if !place.exists() {
            Manifest::parse(manifest, "the new box")?;
            file::replace(&place, manifest, file::PRIVATE)
                .map_err(BoxError::io("write", &place))?;
        }
        self.read(&place)
    }

    fn add_folder(
        &self,
        folder: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<u8>, BoxError> {
        let path = folder.join(MANIFEST);
        let bytes = open::bytes(&path, MANIFEST_LIMIT).map_err(|error| BoxError::NotABox {
            path: folder.to_path_buf(),
            message: format!("{MANIFEST}: {error}"),
        })?;
        let manifest = Manifest::parse(&bytes, &path.shown())?;
        let mut incoming = Incoming::new(self, folder, &manifest, progress);
        for (entry, _) in manifest.files() {
            let path = folder.join(&entry.name);
            let metadata = fs::symlink_metadata(&path).map_err(BoxError::io("open", &path))?;
            if !metadata.is_file() {
                return Err(BoxError::Refused {
                    path: folder.to_path_buf(),
                    message: format!("{} in it is no file", entry.name),
                });
            }
            let mut file = File::open(&path).map_err(BoxError::io("open", &path))?;
            incoming.take(&entry.name, &mut file)?;
        }
        incoming.keep()?;
        Ok(bytes)
    }

    fn add_archive(
        &self,
        opened: &Opened,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<u8>, BoxError> {
        let path = opened.path();
        let mut bytes = Vec::new();
        let mut files = Vec::new();
        let mut done = 0;
        read_archive(opened, &mut |manifest, manifest_bytes, name, _, reader| {
            if bytes.is_empty() {
                bytes = manifest_bytes.to_vec();
            }
            let total: u64 = manifest.files().iter().map(|(file, _)| file.size).sum();
            let before = done;
            let mut step = |here: u64, _: u64| progress(before + here, total);
            let mut incoming = Incoming::new(self, path, manifest, &mut step);
            incoming.take(name, reader)?;
            done += incoming.done;
            files.append(&mut incoming.files);
            Ok(())
        })?;
        opened.finish()?;
        let manifest = Manifest::parse(&bytes, &path.shown())?;
        let mut nothing = |_, _| {};
        let mut incoming = Incoming::new(self, path, &manifest, &mut nothing);
        incoming.files = files;
        incoming.keep()?;
        Ok(bytes)
    }

    /// Removes what processes that were killed left. The caller holds the lock, so nobody else
    /// has anything on its way.
    pub(super) fn sweep(&self) {
        for folder in [self.data.images(), self.data.boxes()] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(INCOMING) {
                    // One that cannot be removed does no harm but to take space.
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
    }

    /// Looks whether the box's files are what was verified: by size, inode and time of change
    /// where those are as they were when last hashed, else by hashing them.
    pub fn ensure_intact(&self, stored: &StoredBox) -> Result<(), BoxError> {
        for (entry, role) in stored.manifest.files() {
            let path = self.file(entry, role);
            if !Stamps::open(&self.data).is_unchanged(&entry.sha256, &path) {
                self.rehash(stored, entry, &path)?;
            }
        }
        Ok(())
    }

    /// Hashes every file of the box.
    pub fn verify(&self, stored: &StoredBox) -> Result<(), BoxError> {
        for (entry, role) in stored.manifest.files() {
            self.rehash(stored, entry, &self.file(entry, role))?;
        }
        Ok(())
    }

    fn rehash(&self, stored: &StoredBox, entry: &FileEntry, path: &Path) -> Result<(), BoxError> {
        let name = stored.manifest.name.clone();
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BoxError::Missing {
                    name,
                    path: path.to_path_buf(),
                    sha256: entry.sha256.clone(),
                });
            }
            Err(error) => return Err(BoxError::io("open", path)(error)),
        };
        let before = Stamp::of(path).map_err(BoxError::io("read", path))?;
        if before.size != entry.size {
            return Err(BoxError::Resized {
                name,
                path: path.to_path_buf(),
                found: before.size,
                wanted: entry.size,
                sha256: entry.sha256.clone(),
            });
        }
        let mut hash = Sha256::new();
        copy(&mut file, &mut io::sink(), &mut hash, &mut |_| {})
            .map_err(BoxError::io("read", path))?;
        let found = hex(hash.finalize());
        if found != entry.sha256 {
            return Err(BoxError::Altered {
                name,
                path: path.to_path_buf(),
                found,
                wanted: entry.sha256.clone(),
            });
        }
        self.write_stamp(&entry.sha256, &before)
    }

    fn write_stamp(&self, sha256: &str, stamp: &Stamp) -> Result<(), BoxError> {
        let folder = self.data.verified();
        Stamps::open(&self.data)
            .write(sha256, stamp)
            .map_err(BoxError::io("write in", folder))
    }

    /// The files of a box that no other box has.
    pub fn sole_files(&self, stored: &StoredBox) -> Result<Vec<PathBuf>, BoxError> {
        Ok((self.sole(stored)?.iter())
            .map(|(entry, role)| self.file(entry, *role))
            .collect())
    }

    fn sole<'a>(&self, stored: &'a StoredBox) -> Result<Vec<(&'a FileEntry, FileRole)>, BoxError> {
        let boxes = self.list()?;
        let others = boxes.iter().filter(|other| other.digest != stored.digest);
        Ok(sole(
            stored.manifest.files(),
            others.flat_map(|other| other.manifest.files()),
        ))
    }

    /// Removes a box and those of its files that no other box has. The caller has made sure that
    /// nothing is backed by it, and holds the lock under which machines are defined. Returns the
    /// bytes freed.
    pub fn remove(&self, stored: &StoredBox) -> Result<u64, BoxError> {
        let _held = self.lock()?;
        // The manifest first: what is left of a removal that was killed is files that no box has.
        let place = self.manifest_path(&stored.digest);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BoxError::io("remove", place)(error));
            }
            _ => {}
        }
        // One that comes again has to be given its name again.
        let _ = fs::remove_file(self.data.named().join(stored.digest.hex()));
        let mut freed = 0;
        for (entry, role) in self.sole(stored)? {
            let path = self.file(entry, role);
            freed += fs::metadata(&path).map_or(0, |metadata| metadata.blocks() * 512);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(BoxError::io("remove", path)(error));
                }
                _ => {}
            }
            Stamps::open(&self.data).forget(&entry.sha256);
        }
        Ok(freed)
    }

    /// Bytes that the box takes up on the disk.
    pub fn disk_use(&self, stored: &StoredBox) -> u64 {
        stored
            .manifest
            .files()
            .into_iter()
            .filter_map(|(entry, role)| fs::metadata(self.file(entry, role)).ok())
            .map(|metadata| metadata.blocks() * 512)
            .sum()
    }
}

/// A box on its way into the store.
struct Incoming<'a> {
    store: &'a Store,
    source: &'a Path,
    manifest: &'a Manifest,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    /// Verified files and what they are.
    files: Vec<(tempfile::NamedTempFile, FileEntry, FileRole)>,
}

impl<'a> Incoming<'a> {
    fn new(
        store: &'a Store,
        source: &'a Path,
        manifest: &'a Manifest,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        Incoming {
            store,
            source,
            manifest,
            progress,
            done: 0,
            files: Vec::new(),
        }
    }

    /// Copies one file in, hashing what is written. Blocks of zeros become holes.
    fn take(&mut self, name: &str, reader: &mut dyn Read) -> Result<(), BoxError> {
        let files = self.manifest.files();
        let Some((entry, role)) = files.into_iter().find(|(entry, _)| entry.name == name) else {
            return Ok(());
        };
        let total: u64 = self
            .manifest
            .files()
            .iter()
            .map(|(file, _)| file.size)
            .sum();
        let mut file = self.store.temporary()?;
        let start = self.done;
        let progress = &mut self.progress;
        // One byte more than claimed is enough to see that it lies, and all that it gets.
        let mut limited = reader.take(entry.size.saturating_add(1));
        let mut bounds = Bounds::of_size(u64::MAX);
        let (found, copied) =
            write_sparse(&mut limited, file.as_file_mut(), &mut bounds, &mut |here| {
                progress(start + here, total);
            })
            .map_err(BoxError::io("copy into the store", self.source))?;
        if copied != entry.size {
            return Err(BoxError::Refused {
                path: self.source.to_path_buf(),
                message: format!(
                    "{name} in it has {} bytes, and {} by its {MANIFEST}",
                    if copied > entry.size {
                        "more".to_string()
                    } else {
                        copied.to_string()
                    },
                    entry.size
                ),
            });
        }
        if found != entry.sha256 {
            return Err(BoxError::WrongDigest {
                what: format!("{name} in {}", self.source.shown()),
                found,
                wanted: entry.sha256.clone(),
            });
        }
        if role == FileRole::Disk(DiskFormat::Qcow2)
            && let Some(message) =
                qcow2::objection(file.as_file()).map_err(BoxError::io("read", file.path()))?
        {
            return Err(BoxError::Refused {
                path: self.source.to_path_buf(),
                message,
            });
        }
        self.done += copied;
        self.files.push((file, entry.clone(), role));
        Ok(())
    }

    /// Gives every file its final name.
    fn keep(self) -> Result<(), BoxError> {
        for (file, entry, role) in self.files {
            self.store.place(file, &entry, role)?;
        }
        Ok(())
    }
}

/// Those of `own` files that no other has, by what is in them: a store keeps each content once.
pub(crate) fn sole<'a, 'b, Role>(
    own: Vec<(&'a FileEntry, Role)>,
    others: impl Iterator<Item = (&'b FileEntry, Role)>,
) -> Vec<(&'a FileEntry, Role)> {
    let taken: HashSet<&str> = others.map(|(entry, _)| entry.sha256.as_str()).collect();
    own.into_iter()
        .filter(|(entry, _)| !taken.contains(entry.sha256.as_str()))
        .collect()
}

/// Copies and hashes; calls `each` with the bytes so far.
pub(super) fn copy(
    from: &mut dyn Read,
    to: &mut dyn Write,
    hash: &mut Sha256,
    each: &mut dyn FnMut(u64),
) -> io::Result<u64> {
    let mut buffer = vec![0u8; 1 << 20];
    let mut done = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(n) => {
                hash.update(&buffer[..n]);
                to.write_all(&buffer[..n])?;
                done += n as u64;
                each(done);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn name_and_version(reference: &str) -> (&str, Option<&str>) {
    match reference.split_once(':') {
        Some((name, version)) if name != "sha256" => (name, Some(version)),
        _ => (reference, None),
    }
}

fn only(reference: &str, mut boxes: Vec<StoredBox>) -> Result<Option<StoredBox>, BoxError> {
    if boxes.len() > 1 {
        return Err(BoxError::Ambiguous {
            reference: reference.to_string(),
            candidates: boxes
                .iter()
                .map(|stored| stored.digest.short())
                .collect::<Vec<_>>()
                .join(", "),
        });
    }
    Ok(boxes.pop())
}
