//! The store: the kernels on this host, by the digest of their content.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    boxes::{Digest, FileEntry, sole},
    host::{
        digest::{hex, sha256_of},
        file,
        lock::{Lock, LockName, holder},
        names::nearest,
        paths::DataDir,
        room,
        stamp::{Stamp, Stamps},
    },
    report::clean::Shown,
};

use super::{
    config::Config,
    error::KernelError,
    initramfs::{MODULES_FS, carry_archive, init_archive},
    manifest::{Drivers, KernelFileRole, KernelManifest, MANIFEST_LIMIT, ModuleTree, Provenance},
};

/// A complete kernel in the store.
#[derive(Clone, Debug)]
pub struct StoredKernel {
    pub digest: Digest,
    pub manifest: KernelManifest,
    pub added: Timestamp,
}

/// Incomplete files have this prefix, so that those of killed processes can be recognised and removed.
const INCOMING: &str = ".kernel-incoming-";

#[derive(Clone, Debug)]
pub struct KernelStore {
    data: DataDir,
}

impl KernelStore {
    pub fn open(data: &DataDir) -> Self {
        KernelStore { data: data.clone() }
    }

    /// Returns the path of a kernel's file. Files for QEMU are beside the disks, where QEMU may read them.
    pub fn file(&self, entry: &FileEntry, part: KernelFileRole) -> PathBuf {
        let sha256 = &entry.sha256;
        match part {
            KernelFileRole::Image => self.data.images().join(format!("vmlinuz-{sha256}")),
            KernelFileRole::ModulesDisk => self
                .data
                .images()
                .join(format!("modules-{sha256}.squashfs")),
            KernelFileRole::Other => self.data.kernels().join("files").join(sha256),
        }
    }

    fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.data.kernels().join(format!("{}.json", digest.hex()))
    }

    pub(super) fn lock(&self) -> Result<Lock, KernelError> {
        Lock::acquire(&self.data.locks(), LockName::Kernels, &holder("stead"))
            .map_err(KernelError::io("lock the kernels in", self.data.locks()))
    }

    /// Returns all kernels, by name and then newest first.
    pub fn list(&self) -> Result<Vec<StoredKernel>, KernelError> {
        let folder = self.data.kernels();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(KernelError::io("read", folder)(error)),
        };
        let mut kernels = Vec::new();
        for entry in entries {
            let path = entry.map_err(KernelError::io("read", &folder))?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                kernels.push(self.read(&path)?);
            }
        }
        kernels.sort_by(|a, b| {
            (&a.manifest.name, b.added, a.digest.hex()).cmp(&(
                &b.manifest.name,
                a.added,
                b.digest.hex(),
            ))
        });
        Ok(kernels)
    }

    fn read(&self, path: &Path) -> Result<StoredKernel, KernelError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MANIFEST_LIMIT).read_to_end(&mut bytes))
            .map_err(KernelError::io("read", path))?;
        let digest = Digest::of(&bytes);
        let wanted = path.file_stem().unwrap_or_default().to_string_lossy();
        if wanted != digest.hex() {
            return Err(KernelError::Altered {
                name: "?".into(),
                path: path.to_path_buf(),
                found: digest.hex().to_string(),
                wanted: wanted.into_owned(),
            });
        }
        let added = fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .map_err(KernelError::io("read", path))?;
        Ok(StoredKernel {
            manifest: KernelManifest::kept(&bytes, &path.shown())?,
            digest,
            added: Timestamp::try_from(added).unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }

    /// Returns the kernel with this full digest, if the store has it.
    pub fn get(&self, digest: &str) -> Result<Option<StoredKernel>, KernelError> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let path = self.data.kernels().join(format!("{hex}.json"));
        if hex.len() != 64 || hex.contains('/') || !path.exists() {
            return Ok(None);
        }
        self.read(&path).map(Some)
    }

    /// Returns the kernel with this name, release, or digest of at least 6 digits. If several have the name, the one
    /// that was added last counts.
    pub fn resolve(&self, reference: &str) -> Result<StoredKernel, KernelError> {
        if let Some(found) = self.get(reference)? {
            return Ok(found);
        }
        let kernels = self.list()?;
        let by = |get: &dyn Fn(&StoredKernel) -> bool| kernels.iter().find(|it| get(it)).cloned();
        if let Some(found) = by(&|it| it.manifest.name == reference)
            .or_else(|| by(&|it| it.manifest.release == reference))
        {
            return Ok(found);
        }
        let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
        if hex.len() >= 6 && hex.chars().all(|c| c.is_ascii_hexdigit()) {
            let fitting: Vec<&StoredKernel> = kernels
                .iter()
                .filter(|it| it.digest.hex().starts_with(hex))
                .collect();
            match fitting.as_slice() {
                [] => {}
                [one] => return Ok((*one).clone()),
                several => {
                    let candidates: Vec<&str> =
                        several.iter().map(|it| it.digest.short()).collect();
                    return Err(KernelError::Ambiguous {
                        reference: reference.to_string(),
                        candidates: candidates.join(", "),
                    });
                }
            }
        }
        let names = kernels.iter().map(|it| it.manifest.name.as_str());
        Err(KernelError::NotFound {
            reference: reference.to_string(),
            nearest: nearest(reference, names)
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default(),
        })
    }

    /// Returns the kernel that a Machinefile names by its capture's name, or by at least 6 digits of its digest. The
    /// names of kernels from packages and paths do not count here.
    pub fn resolve_captured(&self, reference: &str) -> Result<StoredKernel, KernelError> {
        let captured = |it: &StoredKernel| matches!(it.manifest.from, Provenance::Capture { .. });
        let of_name =
            (self.list()?.into_iter()).find(|it| it.manifest.name == reference && captured(it));
        match of_name {
            Some(found) => Ok(found),
            None => match self.resolve(reference) {
                Ok(found)
                    if found.manifest.name != reference && found.manifest.release != reference =>
                {
                    Ok(found)
                }
                Ok(_) => Err(KernelError::NotFound {
                    reference: reference.to_string(),
                    nearest: "; there is a kernel of that name, but it is not a capture".into(),
                }),
                Err(error) => Err(error),
            },
        }
    }

    /// Returns the bytes of the manifest, from which its digest is computed.
    pub fn manifest_bytes(&self, stored: &StoredKernel) -> Result<Vec<u8>, KernelError> {
        let path = self.manifest_path(&stored.digest);
        fs::read(&path).map_err(KernelError::io("read", path))
    }

    pub(super) fn prepare_folders(&self) -> Result<(), KernelError> {
        let kernels = self.data.kernels();
        for folder in [
            self.data.images(),
            kernels.join("files"),
            kernels.join("sources"),
        ] {
            fs::create_dir_all(&folder).map_err(KernelError::io("create", &folder))?;
        }
        Ok(())
    }

    /// Makes a temporary folder on the store's file system, which is removed when it is dropped.
    pub fn work_folder(&self) -> Result<tempfile::TempDir, KernelError> {
        let folder = self.data.kernels();
        fs::create_dir_all(&folder).map_err(KernelError::io("create", &folder))?;
        tempfile::Builder::new()
            .prefix(INCOMING)
            .tempdir_in(&folder)
            .map_err(KernelError::io("write in", folder))
    }

    /// Removes incomplete files of killed processes. The caller holds the lock.
    pub(super) fn sweep(&self, keep: &Path) {
        for folder in [self.data.images(), self.data.kernels()] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name();
                let name = name.to_string_lossy();
                // In the folder of images, files with this prefix belong to boxes.
                let manifest =
                    name.starts_with(file::INCOMING) && path.starts_with(self.data.kernels());
                if !(name.starts_with(INCOMING) || manifest) || path == keep {
                    continue;
                }
                // A younger one may be in use by another process.
                let old = entry
                    .metadata()
                    .and_then(|metadata| metadata.modified())
                    .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() > 86_400));
                if path.is_dir() {
                    if old {
                        let _ = fs::remove_dir_all(path);
                    }
                } else {
                    let _ = fs::remove_file(path);
                }
            }
        }
    }

    /// Copies a file into the store, named by its sha256. The caller holds the lock, and chooses how the file is opened:
    /// [`crate::host::open::file_in_place`] if it is not stead's own.
    pub(super) fn keep_file(
        &self,
        name: &str,
        from: &Path,
        open: fn(&Path) -> io::Result<File>,
        part: KernelFileRole,
    ) -> Result<FileEntry, KernelError> {
        let mut source = open(from).map_err(KernelError::io("read", from))?;
        self.keep_stream(name, &mut source, part, from, None)
    }

    pub(super) fn keep_bytes(
        &self,
        name: &str,
        bytes: &[u8],
        part: KernelFileRole,
    ) -> Result<FileEntry, KernelError> {
        self.keep_stream(name, &mut &*bytes, part, Path::new(name), None)
    }

    /// Copies a stream into the store. `claimed`: the expected size and digest, if they are known.
    ///
    /// # Errors
    /// If the stream does not match `claimed`. Then nothing is stored.
    pub(super) fn keep_stream(
        &self,
        name: &str,
        from: &mut dyn Read,
        part: KernelFileRole,
        source: &Path,
        claimed: Option<&FileEntry>,
    ) -> Result<FileEntry, KernelError> {
        let folder = match part {
            KernelFileRole::Other => self.data.kernels(),
            KernelFileRole::Image | KernelFileRole::ModulesDisk => self.data.images(),
        };
        let mut file = tempfile::Builder::new()
            .prefix(INCOMING)
            .tempfile_in(&folder)
            .map_err(KernelError::io("write in", &folder))?;
        let limit = claimed.map_or(u64::MAX, |claimed| claimed.size.saturating_add(1));
        let (sha256, size) = hash_into(&mut from.take(limit), Some(file.as_file_mut()))
            .map_err(KernelError::io("copy", source))?;
        if let Some(claimed) = claimed
            && (claimed.size != size || claimed.sha256 != sha256)
        {
            return Err(KernelError::WrongDigest {
                what: format!("{name} in {}", source.shown()),
                found: sha256,
                wanted: claimed.sha256.clone(),
            });
        }
        let entry = FileEntry {
            name: name.to_string(),
            size,
            sha256,
        };
        let place = self.file(&entry, part);
        let finish = || -> io::Result<()> {
            file::persist(file, &place, file::FIXED)?;
            Stamps::open(&self.data).write(&entry.sha256, &Stamp::of(&place)?)
        };
        finish().map_err(KernelError::io("write", &place))?;
        Ok(entry)
    }

    /// Writes the manifest. It is written last, because a kernel is in the store as soon as its manifest is. The caller
    /// holds the lock.
    pub(super) fn keep_manifest(&self, bytes: &[u8]) -> Result<StoredKernel, KernelError> {
        let place = self.manifest_path(&Digest::of(bytes));
        if !place.exists() {
            KernelManifest::parse(bytes, "the new kernel")?;
            write_atomically(&place, bytes)?;
        }
        self.read(&place)
    }

    /// Returns the kernel that was last made from a source. `key` identifies the source (see [`super::found_key`]).
    pub fn of_source(&self, key: &str) -> Result<Option<StoredKernel>, KernelError> {
        let Ok(bytes) = fs::read(self.source_path(key)) else {
            return Ok(None);
        };
        // If the record cannot be read, the source is imported again.
        match serde_json::from_slice::<SourceRecord>(&bytes) {
            Ok(record) if record.key == key => self.get(&record.digest),
            _ => Ok(None),
        }
    }

    /// Like [`Self::of_source`], but only if the kernel was made within `age`.
    pub fn of_recent_source(
        &self,
        key: &str,
        age: Duration,
    ) -> Result<Option<StoredKernel>, KernelError> {
        let recent = fs::metadata(self.source_path(key))
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|since| since < age));
        if recent {
            self.of_source(key)
        } else {
            Ok(None)
        }
    }

    pub fn remember_source(&self, key: &str, stored: &StoredKernel) -> Result<(), KernelError> {
        let path = self.source_path(key);
        let record = SourceRecord {
            key: key.to_string(),
            digest: stored.digest.to_string(),
        };
        let bytes = serde_json::to_vec(&record).map_err(|error| KernelError::Manifest {
            source_name: key.to_string(),
            message: error.to_string(),
        })?;
        write_atomically(&path, &bytes)
    }

    fn source_path(&self, key: &str) -> PathBuf {
        let hash = sha256_of(key.as_bytes());
        self.data.kernels().join("sources").join(hash)
    }

    pub fn config(&self, stored: &StoredKernel) -> Option<Config> {
        let entry = stored.manifest.config.as_ref()?;
        Config::read(&fs::read(self.file(entry, KernelFileRole::Other)).ok()?)
    }

    /// Returns the path of the kernel's initramfs, which is written if it does not exist yet. `root` is the type of the
    /// root file system; `None` adds the drivers of all known types. `carried` are files for the guest's /run.
    pub fn initramfs(
        &self,
        stored: &StoredKernel,
        root: Option<&str>,
        carried: &[(String, String)],
    ) -> Result<PathBuf, KernelError> {
        let mut bytes = init_archive();
        let part = |entry: &FileEntry| {
            let path = self.file(entry, KernelFileRole::Other);
            fs::read(&path).map_err(KernelError::io("read", path))
        };
        for (group, drivers) in &stored.manifest.drivers {
            let wanted = match group.as_str() {
                "base" => true,
                MODULES_FS => matches!(stored.manifest.modules, Some(ModuleTree::Disk(_))),
                other => root.is_none_or(|root| root == other),
            };
            if let Drivers {
                archive: Some(entry),
                ..
            } = drivers
                && wanted
            {
                bytes.extend(part(entry)?);
            }
        }
        if let Some(ModuleTree::Memory(entry)) = &stored.manifest.modules {
            bytes.extend(part(entry)?);
        }
        if !carried.is_empty() {
            bytes.extend(carry_archive(carried));
        }
        let hash = sha256_of(&bytes);
        let short = hash.get(..16).unwrap_or(&hash);
        let place = self
            .data
            .images()
            .join(format!("initramfs-{}-{short}", stored.digest.hex()));
        if fs::metadata(&place).map(|it| it.len()).ok() != Some(bytes.len() as u64) {
            write_atomically(&place, &bytes)?;
        }
        Ok(place)
    }

    /// Checks that the kernel's files are unchanged. Only files whose stamp differs are hashed.
    pub fn ensure_intact(&self, stored: &StoredKernel) -> Result<(), KernelError> {
        let stamps = Stamps::open(&self.data);
        for (entry, part) in stored.manifest.files() {
            if !stamps.is_unchanged(&entry.sha256, &self.file(entry, part)) {
                self.rehash(stored, entry, part)?;
            }
        }
        Ok(())
    }

    /// Hashes and checks every file of the kernel.
    pub fn verify(&self, stored: &StoredKernel) -> Result<(), KernelError> {
        for (entry, part) in stored.manifest.files() {
            self.rehash(stored, entry, part)?;
        }
        Ok(())
    }

    fn rehash(
        &self,
        stored: &StoredKernel,
        entry: &FileEntry,
        part: KernelFileRole,
    ) -> Result<(), KernelError> {
        let path = self.file(entry, part);
        let stamp = Stamp::of(&path).map_err(KernelError::io("read", &path))?;
        let mut file = File::open(&path).map_err(KernelError::io("read", &path))?;
        let (found, _) = hash_into(&mut file, None).map_err(KernelError::io("read", &path))?;
        if found != entry.sha256 {
            return Err(KernelError::Altered {
                name: stored.manifest.name.clone(),
                path,
                found,
                wanted: entry.sha256.clone(),
            });
        }
        Stamps::open(&self.data)
            .write(&entry.sha256, &stamp)
            .map_err(KernelError::io("write in", self.data.verified()))
    }

    /// Returns the files of a kernel that no other kernel has.
    pub fn sole_files(&self, stored: &StoredKernel) -> Result<Vec<PathBuf>, KernelError> {
        Ok((self.sole(stored)?.iter())
            .map(|(entry, part)| self.file(entry, *part))
            .collect())
    }

    fn sole<'a>(
        &self,
        stored: &'a StoredKernel,
    ) -> Result<Vec<(&'a FileEntry, KernelFileRole)>, KernelError> {
        let kernels = self.list()?;
        let others = kernels.iter().filter(|other| other.digest != stored.digest);
        Ok(sole(
            stored.manifest.files(),
            others.flat_map(|other| other.manifest.files()),
        ))
    }

    /// Removes a kernel and its files, except those that another kernel has too. Returns the bytes freed. The caller has
    /// checked that no machine boots it, and holds the lock under which machines are defined.
    pub fn remove(&self, stored: &StoredKernel) -> Result<u64, KernelError> {
        let _held = self.lock()?;
        let place = self.manifest_path(&stored.digest);
        gone(fs::remove_file(&place)).map_err(KernelError::io("remove", &place))?;
        let mut freed = 0;
        for (entry, part) in self.sole(stored)? {
            let path = self.file(entry, part);
            freed += fs::metadata(&path).map_or(0, |metadata| metadata.blocks() * 512);
            gone(fs::remove_file(&path)).map_err(KernelError::io("remove", &path))?;
            Stamps::open(&self.data).forget(&entry.sha256);
        }
        let prefix = format!("initramfs-{}-", stored.digest.hex());
        for entry in fs::read_dir(self.data.images())
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                freed += entry.metadata().map_or(0, |it| it.blocks() * 512);
                gone(fs::remove_file(entry.path()))
                    .map_err(KernelError::io("remove", entry.path()))?;
            }
        }
        Ok(freed)
    }

    /// Returns the bytes that the kernel takes up on the disk.
    pub fn disk_use(&self, stored: &StoredKernel) -> u64 {
        stored
            .manifest
            .files()
            .into_iter()
            .filter_map(|(entry, part)| fs::metadata(self.file(entry, part)).ok())
            .map(|metadata| metadata.blocks() * 512)
            .sum()
    }
}

/// The kernel that a source became, so that it is not imported twice.
#[derive(Serialize, Deserialize)]
struct SourceRecord {
    key: String,
    digest: String,
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_atomically(place: &Path, bytes: &[u8]) -> Result<(), KernelError> {
    file::replace(place, bytes, file::FIXED).map_err(KernelError::io("write", place))
}

fn hash_into(from: &mut dyn Read, mut to: Option<&mut File>) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut room = room::Watch::default();
    let mut buffer = vec![0u8; 1 << 20];
    let mut size = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((hex(hash.finalize()), size)),
            Ok(n) => {
                hash.update(&buffer[..n]);
                if let Some(to) = &mut to {
                    room.before(to, n as u64)?;
                    to.write_all(&buffer[..n])?;
                }
                size += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
