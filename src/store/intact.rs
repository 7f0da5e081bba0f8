//! Whether the files in a store are what was verified when they came.

use std::{fs::File, io, path::PathBuf};

use crate::host::digest::sha256_of_stream;

use super::{
    Content, FileEntry, Store, StoreError, Stored,
    stamp::{Stamp, Stamps},
};

impl<M: Content> Store<M> {
    /// Checks the files of an item. A file is hashed only if its size, inode or time of change differ from those
    /// when it was last hashed.
    pub fn ensure_intact(&self, stored: &Stored<M>) -> Result<(), M::Error> {
        let stamps = self.stamps();
        for (entry, role) in stored.manifest.files() {
            let path = self.file(entry, role);
            if !stamps.is_unchanged(&entry.sha256, &path) {
                self.rehash(stored, entry, path)?;
            }
        }
        Ok(())
    }

    /// Hashes every file of an item.
    pub fn verify(&self, stored: &Stored<M>) -> Result<(), M::Error> {
        for (entry, role) in stored.manifest.files() {
            self.rehash(stored, entry, self.file(entry, role))?;
        }
        Ok(())
    }

    fn rehash(&self, stored: &Stored<M>, entry: &FileEntry, path: PathBuf) -> Result<(), M::Error> {
        let name = stored.manifest.name();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::missing::<M>(name, entry, path).into());
            }
            Err(error) => return Err(M::io("open", &path, error)),
        };
        let unreadable = |error| M::io("read", &path, error);
        // Taken before the file is read: a later write makes another stamp.
        let stamp = Stamp::of_file(&file).map_err(unreadable)?;
        let (found, size) = match stamp.size == entry.size {
            true => sha256_of_stream(&mut file).map_err(unreadable)?,
            false => (String::new(), stamp.size),
        };
        if size == entry.size && found == entry.sha256 {
            return self.write_stamp(&entry.sha256, &stamp);
        }
        // Otherwise the same file would not be replaced when it is added again.
        self.stamps().forget(&entry.sha256);
        let hint = format!("nothing was booted from it; {}", M::restore(name)).into();
        let (what, name, path) = (M::NAME, name.into(), path.into());
        Err(match size == entry.size {
            true => StoreError::Altered {
                what,
                name,
                path,
                found: found.into(),
                wanted: entry.sha256.as_str().into(),
                hint,
            },
            false => StoreError::Resized {
                what,
                name,
                path,
                found: size,
                wanted: entry.size,
                sha256: entry.sha256.as_str().into(),
                hint,
            },
        }
        .into())
    }

    pub(super) fn stamps(&self) -> Stamps {
        Stamps::open(self.data())
    }

    pub(super) fn write_stamp(&self, sha256: &str, stamp: &Stamp) -> Result<(), M::Error> {
        self.stamps()
            .write(sha256, stamp)
            .map_err(|error| M::io("write in", &self.data().verified(), error))
    }
}
