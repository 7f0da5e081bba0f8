//! How items get into a store: their files first, then their manifest.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use tempfile::NamedTempFile;

use crate::host::file;

use super::{Content, Digest, FileEntry, MANIFEST_LIMIT, Store, StoreError, Stored, stamp::Stamp};

/// A folder that a process works in is younger.
const ABANDONED: Duration = Duration::from_secs(86_400);

impl<M: Content> Store<M> {
    /// Creates an unfinished file in one of the store's folders.
    pub fn incoming(&self, folder: &Path) -> Result<NamedTempFile, M::Error> {
        tempfile::Builder::new()
            .prefix(M::INCOMING)
            .tempfile_in(folder)
            .map_err(|error| M::io("write in", folder, error))
    }

    /// Gives a verified file its final name, and replaces one that was altered. The caller holds the lock.
    pub fn place(
        &self,
        file: NamedTempFile,
        entry: &FileEntry,
        role: M::Role,
    ) -> Result<(), M::Error> {
        let place = self.file(entry, role);
        if self.stamps().is_unchanged(&entry.sha256, &place) {
            return Ok(());
        }
        file::persist(file, &place, file::FIXED).map_err(|error| M::io("write", &place, error))?;
        let stamp = Stamp::of(&place).map_err(|error| M::io("read", &place, error))?;
        self.write_stamp(&entry.sha256, &stamp)
    }

    /// Writes the manifest, when all files are there. The caller holds the lock.
    pub fn keep_manifest(&self, manifest: &[u8]) -> Result<Stored<M>, M::Error> {
        if manifest.len() as u64 > MANIFEST_LIMIT {
            return Err(StoreError::ManifestTooLarge {
                what: M::NAME,
                size: manifest.len(),
            }
            .into());
        }
        let place = self.manifest_path(&Digest::of(manifest));
        if !place.exists() {
            M::parse(manifest, &format!("the new {}", M::NAME))?;
            file::replace(&place, manifest, file::FIXED)
                .map_err(|error| M::io("write", &place, error))?;
        }
        self.read(&place)
    }

    /// Removes what killed processes left. The caller holds the lock, so nobody else has an unfinished file.
    /// Folders may belong to a process that does not hold the lock yet: they are removed when they are a day old,
    /// except `own`.
    pub fn sweep(&self, own: Option<&Path>) {
        let manifests = M::folder(self.data());
        for folder in [self.data().images(), manifests.clone()] {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let name = name.to_string_lossy();
                // Another store may have such files in the folder of images.
                let is_manifest = folder == manifests && name.starts_with(file::INCOMING);
                if !(name.starts_with(M::INCOMING) || is_manifest) {
                    continue;
                }
                // What cannot be removed does no harm except that it takes space.
                let _ = match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => {
                        match own != Some(&path) && is_older(metadata.modified(), ABANDONED) {
                            true => fs::remove_dir_all(path),
                            false => Ok(()),
                        }
                    }
                    _ => fs::remove_file(path),
                };
            }
        }
    }
}

fn is_older(time: io::Result<SystemTime>, age: Duration) -> bool {
    time.is_ok_and(|time| time.elapsed().is_ok_and(|since| since > age))
}
