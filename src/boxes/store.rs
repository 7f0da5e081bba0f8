//! The store of boxes on this host: finds, adds and removes them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{
    host::{
        file::INCOMING,
        lock::{Lock, LockName},
        paths::DataDir,
    },
    store::{self, Content, FileEntry, Stored},
};

use super::{
    error::BoxError,
    manifest::{DiskFormat, FileRole, Manifest},
    recipe,
};

pub type Store = store::Store<Manifest>;
pub type StoredBox = Stored<Manifest>;

impl Content for Manifest {
    type Role = FileRole;
    type Error = BoxError;

    const NAME: &'static str = "box";
    const PLURAL: &'static str = "boxes";
    const LOCK: LockName<'static> = LockName::Boxes;
    const INCOMING: &'static str = INCOMING;
    const DISTINCT: &'static str = "type more digits of the digest, or NAME:VERSION";

    fn restore(_: &str) -> String {
        "run `stead box add` with the same box to restore the file".into()
    }

    fn parse(bytes: &[u8], source: &str) -> Result<Self, BoxError> {
        Manifest::parse(bytes, source)
    }

    fn kept(bytes: &[u8], source: &str) -> Result<Self, BoxError> {
        Manifest::kept(bytes, source)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn files(&self) -> Vec<(&FileEntry, FileRole)> {
        Manifest::files(self)
    }

    fn folder(data: &DataDir) -> PathBuf {
        data.boxes()
    }

    fn file(data: &DataDir, entry: &FileEntry, role: FileRole) -> PathBuf {
        let sha256 = &entry.sha256;
        data.images().join(match role {
            FileRole::Disk(DiskFormat::Qcow2) => format!("box-{sha256}.qcow2"),
            FileRole::Disk(DiskFormat::Raw) => format!("box-{sha256}.raw"),
            FileRole::Kernel => format!("kernel-{sha256}"),
            FileRole::Initrd => format!("initrd-{sha256}"),
        })
    }

    fn io(doing: &'static str, path: &Path, error: io::Error) -> BoxError {
        BoxError::io(doing, path)(error)
    }
}

impl Store {
    /// Returns the box that a Machinefile means by `NAME`, `NAME:VERSION`, or at least 6 digits of a digest. A name
    /// alone means the newest box that the user has given that name.
    pub fn resolve_named(&self, reference: &str) -> Result<StoredBox, BoxError> {
        // A whole digest is one file: no need to read them all.
        if reference.starts_with("sha256:")
            && let Some(found) = self.get(reference)?
        {
            return Ok(found);
        }
        let (name, version) = name_and_version(reference);
        if let Some(found) = self.by_name(name, version)? {
            return Ok(found);
        }
        let boxes = self.list()?;
        if let Some(found) = self.by_digits(reference, &boxes)? {
            return Ok(found);
        }
        Err(self.not_found(reference, &boxes))
    }

    /// Returns the box that a command means. It is looked up as [`Self::resolve_named`] does, then by its source,
    /// then by the name in its manifest. The last two count only if one box fits.
    pub fn resolve(&self, reference: &str) -> Result<StoredBox, BoxError> {
        let error = match self.resolve_named(reference) {
            Err(error @ BoxError::NotFound { .. }) => error,
            other => return other,
        };
        if let Some(found) = self.only(reference, self.boxes_from(reference))? {
            return Ok(found);
        }
        let (name, version) = name_and_version(reference);
        let fitting = self.list()?.into_iter().filter(|stored| {
            stored.manifest.name == name
                && version.is_none_or(|version| stored.manifest.version == version)
        });
        self.only(reference, fitting.collect())?.ok_or(error)
    }

    /// Fails if the box has been removed meanwhile.
    pub fn ensure_present(&self, stored: &StoredBox) -> Result<(), BoxError> {
        match self.get(stored.digest.hex())? {
            Some(_) => Ok(()),
            None => Err(BoxError::Removed {
                digest: stored.digest.to_string(),
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
            format!("; the store has {}", here.join(", "))
        };
        let fetched = boxes.iter().find(|stored| {
            stored.manifest.name == name
                && version.is_none_or(|version| stored.manifest.version == version)
        });
        let hint = if let Some(stored) = fetched {
            let from = self.known_as(stored, &named);
            format!(
                "a fetched box calls itself {name}, but a fetched box is known by its source: write box \"{from}\", or run `stead box add {from} --name {name}` to give it that name"
            )
        } else if recipe::embedded_names().contains(&name) {
            format!("run `stead box build {name}` to build it from Debian's packages")
        } else {
            "run `stead box list --available` to see the catalogue, `stead box add` to add a box, or `stead box build` to build one".to_string()
        };
        BoxError::NotFound {
            reference: reference.to_string(),
            nearest,
            hint,
        }
    }

    /// Prepares the store for a new box: creates its folders, locks it, and removes unfinished files.
    pub(super) fn begin(&self) -> Result<Lock, BoxError> {
        let data = self.data();
        for folder in [data.images(), data.boxes(), data.verified()] {
            fs::create_dir_all(&folder).map_err(BoxError::io("create", &folder))?;
        }
        // The names are recorded before another box comes.
        self.named()?;
        let held = self.lock()?;
        self.sweep(None);
        Ok(held)
    }

    /// Creates a temporary file in the folder that has the files of boxes.
    pub(super) fn temporary(&self) -> Result<NamedTempFile, BoxError> {
        self.incoming(&self.data().images())
    }

    /// Removes a box, and each of its files that no other box has. The caller has made sure that no image is backed
    /// by the box, and holds the lock under which machines are defined. Returns the bytes freed.
    pub fn remove(&self, stored: &StoredBox) -> Result<u64, BoxError> {
        let _held = self.lock()?;
        self.remove_manifest(stored)?;
        // If the box is added again later, it has no name until it is given one.
        let _ = fs::remove_file(self.data().named().join(stored.digest.hex()));
        self.remove_files(stored)
    }
}

fn name_and_version(reference: &str) -> (&str, Option<&str>) {
    match reference.split_once(':') {
        Some((name, version)) if name != "sha256" => (name, Some(version)),
        _ => (reference, None),
    }
}
