//! Chunks of boxes in the store: content that they share with another box need not be fetched.

use std::{collections::HashMap, fs, io, path::Path};

use crate::{
    boxes::{BoxError, Store, manifest::Manifest},
    host::file,
};

use super::{chunk::ChunkSource, layout::Layout};

/// Where the content of chunks is on this host, by its sha256.
#[derive(Default)]
pub(super) struct ChunkIndex {
    sources: HashMap<String, ChunkSource>,
}

impl ChunkIndex {
    /// Reads the manifests in `folder`, and removes those whose box is gone.
    pub(super) fn load(folder: &Path, store: &Store) -> Self {
        let mut index = ChunkIndex::default();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // Skip temporary files of another stead.
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let layout = fs::read(&path)
                .ok()
                .and_then(|bytes| Layout::parse(&bytes).ok());
            let found = layout.and_then(|layout| {
                let reference = format!("sha256:{}", layout.config.sha256);
                Some((store.resolve(&reference).ok()?, layout))
            });
            match found {
                Some((stored, layout)) => index.add_files(store, &stored.manifest, &layout),
                // Losing a manifest only costs a download.
                None => drop(fs::remove_file(&path)),
            }
        }
        index
    }

    /// Adds the files of a box that are on this host.
    pub(super) fn add_files(&mut self, store: &Store, manifest: &Manifest, layout: &Layout) {
        for (entry, role) in manifest.files() {
            let path = store.file(entry, role);
            if !path.exists() {
                continue;
            }
            for chunk in layout.files.get(&entry.name).into_iter().flatten() {
                self.sources.insert(
                    chunk.content.clone(),
                    ChunkSource::File {
                        path: path.clone(),
                        offset: chunk.offset,
                    },
                );
            }
        }
    }

    /// Returns where this content should be. The caller must verify it.
    pub(super) fn source(&self, content: &str) -> Option<&ChunkSource> {
        self.sources.get(content)
    }
}

/// Saves a manifest for the next pull.
pub(super) fn save_manifest(folder: &Path, sha256: &str, bytes: &[u8]) -> Result<(), BoxError> {
    let path = folder.join(format!("{sha256}.json"));
    let write = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        file::replace(&path, bytes, file::PRIVATE)
    };
    write().map_err(BoxError::io("write", &path))
}
