//! What is in a store, and what a reference means.

use std::{
    fs, io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    host::{
        lock::{Lock, own_holder},
        open,
        paths::DataDir,
    },
    report::clean::Shown,
};

use super::{Content, Digest, FileEntry, MANIFEST_LIMIT, StoreError, Stored, is_sha256};

/// The fewest digits of a digest that are a reference.
const FEWEST_DIGITS: usize = 6;

/// A store of this host, in stead's data folder.
#[derive(Debug)]
pub struct Store<M> {
    data: DataDir,
    of: PhantomData<fn() -> M>,
}

impl<M> Clone for Store<M> {
    fn clone(&self) -> Self {
        Store {
            data: self.data.clone(),
            of: PhantomData,
        }
    }
}

impl<M: Content> Store<M> {
    pub fn open(data: &DataDir) -> Self {
        Store {
            data: data.clone(),
            of: PhantomData,
        }
    }

    pub fn data(&self) -> &DataDir {
        &self.data
    }

    /// The path of a file of an item.
    pub fn file(&self, entry: &FileEntry, role: M::Role) -> PathBuf {
        M::file(&self.data, entry, role)
    }

    pub(super) fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.manifest_of(digest.hex())
    }

    fn manifest_of(&self, hex: &str) -> PathBuf {
        M::folder(&self.data).join(format!("{hex}.json"))
    }

    /// Waits until nobody else adds anything to this store or removes anything from it.
    pub fn lock(&self) -> Result<Lock, M::Error> {
        Lock::acquire(&self.data.locks(), M::LOCK, &own_holder())
            .map_err(|error| M::io("lock the store in", &self.data.locks(), error))
    }

    /// Returns everything in the store: by name, and of one name the newest first.
    pub fn list(&self) -> Result<Vec<Stored<M>>, M::Error> {
        let folder = M::folder(&self.data);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(M::io("read", &folder, error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| M::io("read", &folder, error))?.path();
            if path.extension().is_some_and(|end| end == "json") {
                all.push(self.read(&path)?);
            }
        }
        all.sort_by(|a, b| {
            (a.manifest.name(), b.added, a.digest.hex()).cmp(&(
                b.manifest.name(),
                a.added,
                b.digest.hex(),
            ))
        });
        Ok(all)
    }

    /// Reads the manifest at a path, whose name has to be its digest.
    pub(super) fn read(&self, path: &Path) -> Result<Stored<M>, M::Error> {
        let (digest, bytes) = self.verified(path)?;
        let added = fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .map_err(|error| M::io("read", path, error))?;
        Ok(Stored {
            manifest: M::kept(&bytes, &path.shown())?,
            digest,
            added: Timestamp::try_from(added).unwrap_or(Timestamp::UNIX_EPOCH),
        })
    }

    fn verified(&self, path: &Path) -> Result<(Digest, Vec<u8>), M::Error> {
        let bytes =
            open::bytes(path, MANIFEST_LIMIT).map_err(|error| M::io("read", path, error))?;
        let digest = Digest::of(&bytes);
        if path.file_stem().is_none_or(|stem| stem != digest.hex()) {
            return Err(StoreError::ManifestAltered {
                what: M::NAME,
                path: path.to_path_buf(),
                found: digest.hex().to_string(),
            }
            .into());
        }
        Ok((digest, bytes))
    }

    /// Returns the manifest as it is stored: the bytes that its digest is computed from.
    pub fn manifest_bytes(&self, digest: &Digest) -> Result<Vec<u8>, M::Error> {
        Ok(self.verified(&self.manifest_path(digest))?.1)
    }

    /// Returns the item with this whole digest, if it is in the store. `sha256:` may precede the digest.
    pub fn get(&self, digest: &str) -> Result<Option<Stored<M>>, M::Error> {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let path = self.manifest_of(hex);
        match is_sha256(hex) && path.exists() {
            true => self.read(&path).map(Some),
            false => Ok(None),
        }
    }

    /// Returns the item whose digest starts with `reference`: at least 6 hex digits; `sha256:` may precede them.
    pub fn by_digits(
        &self,
        reference: &str,
        all: &[Stored<M>],
    ) -> Result<Option<Stored<M>>, M::Error>
    where
        M: Clone,
    {
        let hex = reference.strip_prefix("sha256:").unwrap_or(reference);
        if hex.len() < FEWEST_DIGITS || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let fitting = (all.iter()).filter(|stored| stored.digest.hex().starts_with(hex));
        self.only(reference, fitting.cloned().collect())
    }

    /// Returns the only item that fits a reference.
    ///
    /// # Errors
    /// If several fit.
    pub fn only(
        &self,
        reference: &str,
        mut fitting: Vec<Stored<M>>,
    ) -> Result<Option<Stored<M>>, M::Error> {
        if fitting.len() > 1 {
            let short: Vec<&str> = (fitting.iter())
                .map(|stored| stored.digest.short())
                .collect();
            return Err(StoreError::Ambiguous {
                reference: reference.to_string(),
                plural: M::PLURAL,
                candidates: short.join(", "),
                hint: M::DISTINCT,
            }
            .into());
        }
        Ok(fitting.pop())
    }
}
