//! How items leave a store: their manifest first, then the files that nothing else has.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{Content, FileEntry, Store, Stored};

impl<M: Content> Store<M> {
    /// Removes the manifest of an item, which is then no longer in the store. The caller holds the lock.
    pub fn remove_manifest(&self, stored: &Stored<M>) -> Result<(), M::Error> {
        self.remove_file(&self.manifest_path(&stored.digest))
            .map(drop)
    }

    /// Removes the files of an item that nothing else has; returns the bytes freed. The caller holds the lock, and
    /// has removed the manifest.
    pub fn remove_files(&self, stored: &Stored<M>) -> Result<u64, M::Error> {
        let mut freed = 0;
        for (entry, role) in self.sole(stored)? {
            freed += self.remove_file(&self.file(entry, role))?;
            self.stamps().forget(&entry.sha256);
        }
        Ok(freed)
    }

    /// Removes a file, if it is there; returns the bytes freed.
    pub fn remove_file(&self, path: &Path) -> Result<u64, M::Error> {
        let freed = blocks(path);
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(M::io("remove", path, error))
            }
            _ => Ok(freed),
        }
    }

    /// Returns the files of an item that nothing else in the store has.
    pub fn sole_files(&self, stored: &Stored<M>) -> Result<Vec<PathBuf>, M::Error> {
        Ok((self.sole(stored)?.into_iter())
            .map(|(entry, role)| self.file(entry, role))
            .collect())
    }

    fn sole<'a>(&self, stored: &'a Stored<M>) -> Result<Vec<(&'a FileEntry, M::Role)>, M::Error> {
        let all = self.list()?;
        let others: HashSet<&str> = (all.iter())
            .filter(|other| other.digest != stored.digest)
            .flat_map(|other| other.manifest.files())
            .map(|(entry, _)| entry.sha256.as_str())
            .collect();
        Ok((stored.manifest.files().into_iter())
            .filter(|(entry, _)| !others.contains(entry.sha256.as_str()))
            .collect())
    }

    /// Returns the bytes that an item takes up on the disk.
    pub fn disk_use(&self, stored: &Stored<M>) -> u64 {
        (stored.manifest.files().into_iter())
            .map(|(entry, role)| blocks(&self.file(entry, role)))
            .sum()
    }
}

/// The bytes that a file takes up on the disk; 0 if it is not there.
fn blocks(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}
