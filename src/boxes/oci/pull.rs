//! Pulls a box from a registry: fetches its manifest and the chunks that this host does not have, then adds
//! the result to the store, which checks it.

use std::{
    collections::HashMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::JoinSet;

use crate::{
    boxes::{BoxError, Store, StoredBox, manifest::Manifest},
    fetch::{Algorithm, Expected, FetchError, Fetcher, room},
    host::{
        digest::{sha256_of, sha256_of_stream},
        file,
        paths::DataDir,
        runtime::blocking,
    },
};

use super::{
    AT_ONCE,
    chunk::{Assembled, ChunkSource},
    chunk_index::{ChunkIndex, save_manifest},
    error::OciError,
    layout::{Blob, Chunk, Layout, Objection},
    push::Progress,
    reference::{Reference, Version},
    registry::{Access, Registry},
};

/// A pulled box in the store.
#[derive(Clone, Debug)]
pub struct Pulled {
    pub stored: StoredBox,
    /// The digest of the manifest in the registry.
    pub sha256: String,
    /// The size of manifest, config and chunks in the registry, in bytes.
    pub size: u64,
}

/// What a pull needs on this host.
pub struct Puller {
    pub fetcher: Arc<Fetcher>,
    pub store: Store,
    pub data: DataDir,
}

/// What is known before any chunk is fetched.
struct RemoteBox {
    reference: Reference,
    /// The digest of the OCI manifest.
    sha256: String,
    bytes: Vec<u8>,
    layout: Layout,
    /// The box's own manifest.
    config: Vec<u8>,
    manifest: Manifest,
}

impl RemoteBox {
    fn size(&self) -> u64 {
        let blobs: u64 = self.layout.blobs().iter().map(|it| it.blob.size).sum();
        self.bytes.len() as u64 + self.layout.config.size + blobs
    }
}

/// Where the chunks are, by their blob's sha256.
type ChunkSources = HashMap<String, ChunkSource>;

impl Puller {
    /// Pulls a box. The caller holds a lock on the folder `downloads/NAME`, where chunks stay until the box is
    /// complete.
    pub async fn pull(
        &self,
        reference: &Reference,
        expected: Option<&Expected>,
        name: &str,
        progress: Progress,
    ) -> Result<Pulled, OciError> {
        let registry = Arc::new(Registry::open(&self.fetcher, reference, Access::Pull).await?);
        let remote = Arc::new(look(&registry, reference, expected).await?);
        let box_digest = format!("sha256:{}", remote.layout.config.sha256);
        let (store, digest) = (self.store.clone(), box_digest.clone());
        let here = blocking(move || {
            let stored = store.resolve(&digest).ok()?;
            store.ensure_intact(&stored).ok().map(|()| stored)
        })
        .await
        .map_err(ended_early)?;
        let stored = match here {
            Some(stored) => stored,
            None => {
                let folder = self.data.downloads().join(name);
                let stored = self.fetch(&registry, &remote, &folder, progress).await?;
                // The chunks are not needed any more.
                let _ = fs::remove_dir_all(&folder);
                stored
            }
        };
        save_manifest(&self.data.oci(), &remote.sha256, &remote.bytes)?;
        Ok(Pulled {
            stored,
            sha256: remote.sha256.clone(),
            size: remote.size(),
        })
    }

    /// Fetches the chunks that this host does not have, and assembles the box.
    async fn fetch(
        &self,
        registry: &Arc<Registry>,
        remote: &Arc<RemoteBox>,
        folder: &Path,
        progress: Progress,
    ) -> Result<StoredBox, OciError> {
        fs::create_dir_all(folder).map_err(BoxError::io("create", folder))?;
        let (store, oci) = (self.store.clone(), self.data.oci());
        let (asked, place) = (Arc::clone(remote), folder.to_path_buf());
        let mut sources = blocking(move || find(&store, &oci, &asked, &place))
            .await
            .map_err(ended_early)?;
        let missing: Vec<Blob> = (remote.layout.blobs().into_iter())
            .map(|chunk| &chunk.blob)
            .filter(|blob| !sources.contains_key(&blob.sha256))
            .cloned()
            .collect();
        let packed: u64 = missing.iter().map(|blob| blob.size).sum();
        let unpacked: u64 = remote.layout.chunks().map(|chunk| chunk.length).sum();
        room(folder, packed + unpacked)?;

        let tally = Arc::new(Tally::new(remote, packed, progress));
        let mut blobs = missing.into_iter();
        let mut tasks = JoinSet::new();
        loop {
            while tasks.len() < AT_ONCE
                && let Some(blob) = blobs.next()
            {
                let (registry, tally) = (Arc::clone(registry), Arc::clone(&tally));
                let folder = folder.to_path_buf();
                tasks.spawn(async move {
                    let path = one(&registry, &blob, &folder, &tally).await?;
                    Ok::<_, OciError>((blob.sha256, ChunkSource::Blob(path)))
                });
            }
            // The first failure ends the others too; the next pull resumes them.
            match tasks.join_next().await {
                None => break,
                Some(ended) => {
                    let (sha256, source) = ended.map_err(ended_early)??;
                    sources.insert(sha256, source);
                }
            }
        }
        let (store, remote) = (self.store.clone(), Arc::clone(remote));
        let folder = folder.to_path_buf();
        blocking(move || assemble(&store, &remote, &sources, &folder))
            .await
            .map_err(ended_early)?
    }
}

fn ended_early(error: tokio::task::JoinError) -> OciError {
    OciError::io("pull")(std::io::Error::other(error))
}

/// Fetches both manifests and checks them against each other.
async fn look(
    registry: &Registry,
    reference: &Reference,
    expected: Option<&Expected>,
) -> Result<RemoteBox, OciError> {
    let version = match (expected, &reference.version) {
        (Some(expected), _) if expected.algorithm != Algorithm::Sha256 => {
            return Err(OciError::NotSha256 {
                reference: reference.to_string(),
            });
        }
        (Some(expected), Version::Digest(digest)) if expected.hex != *digest => {
            return Err(OciError::TwoDigests {
                reference: reference.to_string(),
                by: expected.by.clone(),
                wanted: expected.hex.clone(),
            });
        }
        // The digest counts, whatever the tag refers to by now.
        (Some(expected), _) => Version::Digest(expected.hex.clone()),
        (None, version) => version.clone(),
    };
    let Some(bytes) = registry.manifest(&version).await? else {
        let (host, repository) = (reference.host.clone(), reference.repository.clone());
        return Err(match expected {
            Some(expected) => OciError::PinnedGone {
                host,
                repository,
                digest: expected.hex.clone(),
                by: expected.by.clone(),
            },
            None => OciError::NoManifest {
                host,
                repository,
                version: version.to_string(),
            },
        });
    };
    let sha256 = sha256_of(&bytes);
    if let Version::Digest(digest) = &version
        && *digest != sha256
    {
        return Err(OciError::Digest {
            reference: reference.to_string(),
            what: "the manifest",
            found: sha256,
            wanted: digest.clone(),
        });
    }
    let bad = |message| OciError::Manifest {
        reference: reference.to_string(),
        message,
    };
    let layout = Layout::parse(&bytes).map_err(|objection| match objection {
        Objection::Bad(message) => bad(message),
        Objection::Other(what) => OciError::NotABox {
            reference: reference.to_string(),
            what,
        },
    })?;
    let config = registry.config(&layout.config).await?;
    let manifest = Manifest::parse(&config, &reference.to_string())?;
    layout.check(&manifest).map_err(bad)?;
    Ok(RemoteBox {
        reference: reference.at(Version::Digest(sha256.clone())),
        sha256,
        bytes,
        layout,
        config,
        manifest,
    })
}

/// Finds chunks on this host: those of an interrupted pull, and content of boxes in the store. All are read
/// and verified; bad ones are fetched again.
fn find(store: &Store, oci: &Path, remote: &RemoteBox, folder: &Path) -> ChunkSources {
    let mut index = ChunkIndex::load(oci, store);
    index.add_files(store, &remote.manifest, &remote.layout);
    let mut sources = ChunkSources::new();
    for chunk in remote.layout.blobs() {
        let path = folder.join(&chunk.blob.sha256);
        if holds(&path, chunk) {
            sources.insert(chunk.blob.sha256.clone(), ChunkSource::Blob(path));
        } else if let Some(source) = index.source(&chunk.content)
            && source.holds(chunk)
        {
            sources.insert(chunk.blob.sha256.clone(), source.clone());
        }
    }
    sources
}

fn holds(path: &Path, chunk: &Chunk) -> bool {
    let hash = || sha256_of_stream(&mut fs::File::open(path)?);
    hash().is_ok_and(|(found, _)| found == chunk.blob.sha256)
}

/// Fetches one chunk, and gives it its final name once it is verified.
async fn one(
    registry: &Registry,
    blob: &Blob,
    folder: &Path,
    tally: &Tally,
) -> Result<PathBuf, OciError> {
    let mine = AtomicU64::new(0);
    let part = registry
        .blob(blob, folder, &|done, _| {
            tally.at(mine.swap(done, Ordering::Relaxed), done);
        })
        .await?;
    let path = folder.join(&blob.sha256);
    file::rename(&part, &path).map_err(FetchError::io("rename", part))?;
    Ok(path)
}

/// Counts the bytes that were fetched for all chunks together.
struct Tally {
    done: AtomicU64,
    total: u64,
    progress: Progress,
}

impl Tally {
    fn new(remote: &RemoteBox, missing: u64, progress: Progress) -> Self {
        let total = remote.layout.blobs().iter().map(|it| it.blob.size).sum();
        let here = total - missing;
        progress(here, total);
        Tally {
            done: AtomicU64::new(here),
            total,
            progress,
        }
    }

    /// Records the progress of one chunk, which goes back if the chunk is fetched again.
    fn at(&self, before: u64, now: u64) {
        let done = if now >= before {
            self.done.fetch_add(now - before, Ordering::Relaxed) + (now - before)
        } else {
            self.done.fetch_sub(before - now, Ordering::Relaxed) - (before - now)
        };
        (self.progress)(done.min(self.total), self.total);
    }
}

/// Assembles the files while adding them to the store, which checks them as for any box.
fn assemble(
    store: &Store,
    remote: &RemoteBox,
    sources: &ChunkSources,
    folder: &Path,
) -> Result<StoredBox, OciError> {
    let name = PathBuf::from(remote.reference.to_string());
    let result = store.add_streams(
        &name,
        &remote.config,
        &mut |entry| -> Box<dyn Read + '_> {
            let chunks = (remote.layout.files.get(&entry.name).into_iter().flatten())
                .filter_map(|chunk| Some((chunk, sources.get(&chunk.blob.sha256)?.clone())))
                .collect();
            Box::new(Assembled::new(entry.size, chunks))
        },
        &mut |_, _| {},
    );
    result.map_err(OciError::unwrap).inspect_err(|error| {
        // The chunks are good but the box is not, so nothing will need them.
        if !matches!(
            error,
            OciError::Io { .. } | OciError::Box(BoxError::Io { .. })
        ) {
            let _ = fs::remove_dir_all(folder);
        }
    })
}
