//! Pushes a box to a registry: its config, its chunks, and last the manifest that lists them.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::JoinSet;

use crate::{
    boxes::{BoxError, Store, StoredBox},
    fetch::Fetcher,
    host::{digest::sha256_of, runtime::blocking},
};

use super::{
    AT_ONCE,
    chunk::{Packed, cut, pack},
    chunk_index::save_manifest,
    error::OciError,
    layout::{Blob, Chunk, Layout},
    reference::Reference,
    registry::{Access, Registry},
};

/// A box that was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The digest of the manifest, which pins the box.
    pub sha256: String,
    pub chunks: u64,
    /// Chunks that the registry did not have.
    pub uploaded_chunks: u64,
    /// Their compressed size, in bytes.
    pub uploaded_bytes: u64,
}

/// Is called with the bytes of files that are done, and the total.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Shared by all chunks of a push.
struct Shared {
    registry: Registry,
    progress: Progress,
    total: u64,
    done: AtomicU64,
    uploaded_chunks: AtomicU64,
    uploaded_bytes: AtomicU64,
    /// Blobs that a task is uploading or has uploaded: the same content may occur several times.
    claimed: Mutex<HashSet<String>>,
}

/// Pushes a box under a tag. `manifests` is the folder where manifests are saved.
pub async fn push(
    fetcher: &Arc<Fetcher>,
    store: &Store,
    manifests: &Path,
    stored: &StoredBox,
    reference: &Reference,
    tag: &str,
    progress: Progress,
) -> Result<Pushed, OciError> {
    let files = open_files(store, stored).await?;
    let config_bytes = store.manifest_bytes(&stored.digest)?;
    let shared = Arc::new(Shared {
        registry: Registry::open(fetcher, reference, Access::Push).await?,
        progress,
        total: files.iter().map(|(_, _, size)| size).sum(),
        done: AtomicU64::new(0),
        uploaded_chunks: AtomicU64::new(0),
        uploaded_bytes: AtomicU64::new(0),
        claimed: Mutex::default(),
    });
    // A user who may not push learns it before anything is compressed.
    let config = Blob {
        sha256: stored.digest.hex().to_string(),
        size: config_bytes.len() as u64,
    };
    shared.bring(&config, config_bytes.into(), 0).await?;

    let mut parts = files.iter().flat_map(|(name, file, size)| {
        cut(*size).map(move |(offset, length)| (name.clone(), Arc::clone(file), offset, length))
    });
    let mut chunks: BTreeMap<String, Vec<Chunk>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < AT_ONCE
            && let Some((name, file, offset, length)) = parts.next()
        {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                let chunk = shared.chunk(&name, file, offset, length).await?;
                Ok::<_, OciError>((name, chunk))
            });
        }
        // The first failure ends the others too, because they are dropped with their set.
        match tasks.join_next().await {
            None => break,
            Some(ended) => {
                let (name, chunk) = ended.map_err(ended_early)??;
                chunks.entry(name).or_default().extend(chunk);
            }
        }
    }
    for chunks in chunks.values_mut() {
        chunks.sort_by_key(|chunk| chunk.offset);
    }
    let layout = Layout {
        config,
        files: chunks,
    };
    let bytes = layout
        .render(&stored.manifest)
        .map_err(|message| OciError::Manifest {
            reference: reference.to_string(),
            message,
        })?;
    shared.registry.put_manifest(tag, &bytes).await?;
    let sha256 = sha256_of(&bytes);
    save_manifest(manifests, &sha256, &bytes)?;
    Ok(Pushed {
        sha256,
        chunks: layout.chunks().count() as u64,
        uploaded_chunks: shared.uploaded_chunks.load(Ordering::Relaxed),
        uploaded_bytes: shared.uploaded_bytes.load(Ordering::Relaxed),
    })
}

/// Verifies and opens the box's files. Open files can be read to the end even if the box is removed in the
/// meantime.
async fn open_files(
    store: &Store,
    stored: &StoredBox,
) -> Result<Vec<(String, Arc<File>, u64)>, OciError> {
    let (store, stored) = (store.clone(), stored.clone());
    blocking(move || {
        store.ensure_intact(&stored)?;
        let mut files = Vec::new();
        for (entry, role) in stored.manifest.files() {
            let path = store.file(entry, role);
            let file = File::open(&path).map_err(BoxError::io("open", path))?;
            files.push((entry.name.clone(), Arc::new(file), entry.size));
        }
        Ok(files)
    })
    .await
    .map_err(ended_early)?
}

fn ended_early(error: tokio::task::JoinError) -> OciError {
    OciError::io("push")(std::io::Error::other(error))
}

impl Shared {
    /// Compresses one chunk and uploads it; `None` if it is all zeros.
    async fn chunk(
        &self,
        name: &str,
        file: Arc<File>,
        offset: u64,
        length: u64,
    ) -> Result<Option<Chunk>, OciError> {
        let packed = blocking(move || pack(&file, offset, length))
            .await
            .map_err(ended_early)?
            .map_err(OciError::io(format!("read {name} at byte {offset}")))?;
        let chunk = match packed {
            None => None,
            Some(Packed { chunk, bytes }) => {
                if self.bring(&chunk.blob, bytes.into(), length).await? {
                    self.uploaded_chunks.fetch_add(1, Ordering::Relaxed);
                    self.uploaded_bytes
                        .fetch_add(chunk.blob.size, Ordering::Relaxed);
                }
                Some(chunk)
            }
        };
        let done = self.done.fetch_add(length, Ordering::Relaxed) + length;
        (self.progress)(done, self.total);
        Ok(chunk)
    }

    /// Uploads a blob if the registry does not have it; returns whether it did.
    async fn bring(&self, blob: &Blob, bytes: bytes::Bytes, length: u64) -> Result<bool, OciError> {
        let first =
            (self.claimed.lock()).map_or(true, |mut claimed| claimed.insert(blob.sha256.clone()));
        if !first || self.registry.has_blob(blob).await? {
            return Ok(false);
        }
        let size = blob.size.max(1);
        self.registry
            .upload(blob, bytes, &|sent| {
                // The chunk counts in proportion to the bytes sent.
                let share = length.saturating_mul(sent) / size;
                let before = self.done.load(Ordering::Relaxed);
                (self.progress)((before + share).min(self.total), self.total);
            })
            .await?;
        Ok(true)
    }
}
