//! Adds boxes that have a manifest to the store: folders, archives and streams.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use crate::{
    host::open,
    report::{clean::Shown, counted},
    store::{Bounds, FileEntry, MANIFEST_LIMIT, write_sparse},
};

use super::{
    archive::read_archive,
    error::BoxError,
    manifest::{DiskFormat, FileRole, MANIFEST, Manifest},
    opened::Opened,
    qcow2,
    store::{Store, StoredBox},
};

impl Store {
    /// Adds a box folder or archive. Each file is hashed while it is copied. None is visible before all match the
    /// manifest. A box that is in the store already is returned as it is.
    ///
    /// `progress` gets the bytes done and the total.
    pub fn add(
        &self,
        path: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<StoredBox, BoxError> {
        let _held = self.begin()?;
        let metadata = fs::metadata(path).map_err(BoxError::io("open", path))?;
        let manifest = if metadata.is_dir() {
            self.add_folder(path, progress)?
        } else {
            self.add_archive(&Opened::open(path, None)?, progress)?
        };
        self.keep_manifest(&manifest)
    }

    /// Like [`Self::add`], for an archive that is open.
    pub(super) fn add_opened(
        &self,
        opened: &Opened,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<StoredBox, BoxError> {
        let _held = self.begin()?;
        let manifest = self.add_archive(opened, progress)?;
        self.keep_manifest(&manifest)
    }

    /// Adds a box whose files `open` gives as streams, with the same checks. Errors name it `source`.
    pub(super) fn add_streams<'a>(
        &self,
        source: &Path,
        manifest_bytes: &[u8],
        open: &mut dyn FnMut(&FileEntry) -> Box<dyn Read + 'a>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<StoredBox, BoxError> {
        let manifest = Manifest::parse(manifest_bytes, &source.shown())?;
        let _held = self.begin()?;
        let mut incoming = Incoming::new(self, source, &manifest, progress);
        for (entry, _) in manifest.files() {
            incoming.take(&entry.name, &mut open(entry))?;
        }
        incoming.keep()?;
        self.keep_manifest(manifest_bytes)
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
                    message: format!("{} in it is not a regular file", entry.name),
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
}

/// A box on its way into the store.
struct Incoming<'a> {
    store: &'a Store,
    source: &'a Path,
    manifest: &'a Manifest,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    /// Verified files with their roles.
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

    /// Copies one file into the store, and hashes it. Blocks of zeros become holes.
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
        // One byte more than the manifest lists is enough to detect a wrong size.
        let mut limited = reader.take(entry.size.saturating_add(1));
        let mut bounds = Bounds::of_size(u64::MAX);
        let (found, copied) =
            write_sparse(&mut limited, file.as_file_mut(), &mut bounds, &mut |here| {
                progress(start + here, total);
            })
            .map_err(BoxError::io("copy into the store", self.source))?;
        if copied != entry.size {
            return Err(BoxError::Incomplete {
                path: self.source.to_path_buf(),
                message: format!(
                    "{name} in it has {}, but its {MANIFEST} lists {}",
                    if copied > entry.size {
                        "more bytes".to_string()
                    } else {
                        counted(copied, "byte")
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
