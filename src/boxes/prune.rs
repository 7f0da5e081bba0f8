//! When boxes were last used, and leftover files that no box needs.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::Timestamp;

use crate::host::scratch;

use super::{
    build::leftovers,
    error::BoxError,
    store::{Store, StoredBox},
};

/// A leftover file that belongs to no box, or the folder of a killed build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Litter {
    pub path: PathBuf,
    /// Bytes that it takes up on the disk.
    pub size: u64,
}

impl Store {
    fn used_path(&self, stored: &StoredBox) -> PathBuf {
        self.data().used().join(stored.digest.hex())
    }

    /// Records that a machine was just made from the box or started on it.
    pub fn mark_used(&self, stored: &StoredBox) -> Result<(), BoxError> {
        let path = self.used_path(stored);
        let mark = || -> io::Result<()> {
            fs::create_dir_all(self.data().used())?;
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?
                .set_modified(SystemTime::now())
        };
        mark().map_err(BoxError::io("write", &path))
    }

    /// Returns when a box was last used or, if it never was, added.
    pub fn last_used(&self, stored: &StoredBox) -> Timestamp {
        fs::metadata(self.used_path(stored))
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|time| Timestamp::try_from(time).ok())
            .map_or(stored.added, |used| used.max(stored.added))
    }

    /// Returns what interrupted removals and downloads have left: files that belong to no box, and partial
    /// downloads that were last written before `before`.
    pub fn litter(&self, before: Timestamp) -> Result<Vec<Litter>, BoxError> {
        let boxes = self.list()?;
        let wanted: HashSet<PathBuf> = (boxes.iter())
            .flat_map(|stored| stored.manifest.files())
            .map(|(entry, role)| self.file(entry, role))
            .collect();
        let is_box_file = |name: &str| {
            ["box-", "kernel-", "initrd-"]
                .iter()
                .filter_map(|prefix| name.strip_prefix(prefix))
                .any(|rest| {
                    let digest = rest.split('.').next().unwrap_or_default();
                    digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit())
                })
        };
        let mut litter = Vec::new();
        for (folder, downloads) in [
            (self.data().images(), false),
            (self.data().downloads(), true),
        ] {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                let old = (metadata.modified().ok())
                    .and_then(|time| Timestamp::try_from(time).ok())
                    .is_some_and(|time| time < before);
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = entry.path();
                let unwanted = if downloads {
                    old
                } else {
                    is_box_file(&name) && !wanted.contains(&path)
                };
                if metadata.is_file() && unwanted {
                    litter.push(Litter {
                        path,
                        size: metadata.blocks() * 512,
                    });
                }
            }
        }
        litter.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(litter)
    }

    /// Removes leftover files, except those that a box has got in the meantime and those that are `needed`.
    /// Returns the bytes freed.
    pub fn remove_litter(
        &self,
        before: Timestamp,
        needed: &dyn Fn(&Path) -> bool,
    ) -> Result<u64, BoxError> {
        let _held = self.lock()?;
        let mut freed = 0;
        for litter in self.litter(before)? {
            if needed(&litter.path) {
                continue;
            }
            match fs::remove_file(&litter.path) {
                Ok(()) => freed += litter.size,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(BoxError::io("remove", litter.path)(error)),
            }
        }
        Ok(freed)
    }
}

/// Returns the folders of builds that were killed.
pub fn build_litter() -> Vec<Litter> {
    (leftovers().into_iter())
        .map(|path| Litter {
            size: blocks_in(&path),
            path,
        })
        .collect()
}

/// Removes the folders of builds that were killed; returns the bytes freed.
pub fn remove_build_litter() -> Result<u64, BoxError> {
    let mut freed = 0;
    for litter in build_litter() {
        scratch::remove_abandoned(&litter.path).map_err(BoxError::io("remove", &litter.path))?;
        freed += litter.size;
    }
    Ok(freed)
}

/// Returns the bytes that a folder takes up on the disk, as far as this user can read it.
fn blocks_in(folder: &Path) -> u64 {
    (fs::read_dir(folder).into_iter().flatten().flatten())
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| match metadata.is_dir() {
            true => blocks_in(&path),
            false => metadata.blocks() * 512,
        })
        .sum()
}
