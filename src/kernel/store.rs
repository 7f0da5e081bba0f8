//! The kernels of this host.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use crate::{
    host::{
        digest::sha256_of,
        file,
        lock::{Lock, LockName},
        names::nearest,
        paths::DataDir,
        scratch::Temporary,
    },
    report::clean::Shown,
    store::{Bounds, Content, FileEntry, Store, Stored, write_sparse},
};

use super::{
    config::Config,
    error::KernelError,
    initramfs::{MODULES_FS, carry_archive, init_archive},
    manifest::{Drivers, KernelFileRole, KernelManifest, ModuleTree, Provenance},
};

pub type KernelStore = Store<KernelManifest>;
pub type StoredKernel = Stored<KernelManifest>;

impl Content for KernelManifest {
    type Role = KernelFileRole;
    type Error = KernelError;

    const NAME: &'static str = "kernel";
    const PLURAL: &'static str = "kernels";
    const LOCK: LockName<'static> = LockName::Kernels;
    // Not the prefix of boxes, whose store has a lock of its own, but whose files are in the same folder.
    const INCOMING: &'static str = ".kernel-incoming-";
    const DISTINCT: &'static str = "type more digits of the digest";

    fn restore(name: &str) -> String {
        format!("run `stead kernel remove {name}`, then get the kernel again")
    }

    fn parse(bytes: &[u8], source: &str) -> Result<Self, KernelError> {
        KernelManifest::parse(bytes, source)
    }

    fn kept(bytes: &[u8], source: &str) -> Result<Self, KernelError> {
        KernelManifest::kept(bytes, source)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn files(&self) -> Vec<(&FileEntry, KernelFileRole)> {
        KernelManifest::files(self)
    }

    fn folder(data: &DataDir) -> PathBuf {
        data.kernels()
    }

    /// What QEMU reads is beside the disks, where QEMU may read.
    fn file(data: &DataDir, entry: &FileEntry, part: KernelFileRole) -> PathBuf {
        let sha256 = &entry.sha256;
        match part {
            KernelFileRole::Image => data.images().join(format!("vmlinuz-{sha256}")),
            KernelFileRole::ModulesDisk => data.images().join(format!("modules-{sha256}.squashfs")),
            KernelFileRole::Other => data.kernels().join("files").join(sha256),
        }
    }

    fn io(doing: &'static str, path: &Path, error: io::Error) -> KernelError {
        KernelError::io(doing, path)(error)
    }
}

impl KernelStore {
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
        if let Some(found) = self.by_digits(reference, &kernels)? {
            return Ok(found);
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

    /// Prepares the store for a new kernel: its folders are there, it is locked, and nothing unfinished is in it,
    /// except the caller's `work` folder.
    pub(super) fn begin(&self, work: Option<&Path>) -> Result<Lock, KernelError> {
        let kernels = self.data().kernels();
        let folders = [
            kernels.join("files"),
            kernels.join("sources"),
            self.data().images(),
        ];
        for folder in folders {
            fs::create_dir_all(&folder).map_err(KernelError::io("create", &folder))?;
        }
        let held = self.lock()?;
        self.sweep(work);
        Ok(held)
    }

    /// Makes a temporary folder on the store's file system, which is removed when it is dropped.
    pub fn work_folder(&self) -> Result<Temporary, KernelError> {
        let folder = self.data().kernels();
        fs::create_dir_all(&folder).map_err(KernelError::io("create", &folder))?;
        tempfile::Builder::new()
            .prefix(KernelManifest::INCOMING)
            .tempdir_in(&folder)
            .map(Temporary::of)
            .map_err(KernelError::io("write in", folder))
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

    /// Copies a stream into the store. `claimed`: the expected size and digest, if they are known. Errors name the
    /// stream `source`.
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
            KernelFileRole::Other => self.data().kernels(),
            KernelFileRole::Image | KernelFileRole::ModulesDisk => self.data().images(),
        };
        let mut file = self.incoming(&folder)?;
        let limit = claimed.map_or(u64::MAX, |claimed| claimed.size.saturating_add(1));
        let mut bounds = Bounds::of_size(limit);
        let (sha256, size) = write_sparse(
            &mut from.take(limit),
            file.as_file_mut(),
            &mut bounds,
            &mut |_| {},
        )
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
        self.place(file, &entry, part)?;
        Ok(entry)
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
            .data()
            .images()
            .join(format!("{}{short}", initramfs_prefix(stored)));
        let is_there =
            || fs::metadata(&place).is_ok_and(|metadata| metadata.len() == bytes.len() as u64);
        if !is_there() {
            let _held = self.begin(None)?;
            // Another command may have written it meanwhile.
            if !is_there() {
                let mut file = self.incoming(&self.data().images())?;
                (file.write_all(&bytes))
                    .and_then(|()| file::persist(file, &place, file::FIXED))
                    .map_err(KernelError::io("write", &place))?;
            }
        }
        Ok(place)
    }

    /// Removes a kernel and those of its files that no other kernel has. The caller has made sure that no machine
    /// boots it, and holds the lock under which machines are defined. Returns the bytes freed.
    pub fn remove(&self, stored: &StoredKernel) -> Result<u64, KernelError> {
        let _held = self.lock()?;
        self.remove_manifest(stored)?;
        let mut freed = self.remove_files(stored)?;
        let prefix = initramfs_prefix(stored);
        let images = fs::read_dir(self.data().images());
        for entry in images.into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                freed += self.remove_file(&entry.path())?;
            }
        }
        Ok(freed)
    }
}

/// The start of the names of a kernel's initramfs: one per set of files that it carries.
fn initramfs_prefix(stored: &StoredKernel) -> String {
    format!("initramfs-{}-", stored.digest.hex())
}
