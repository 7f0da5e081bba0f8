//! Writes and reads the manifest of a box in a registry, and checks it against the box's own manifest. No
//! I/O.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::{boxes::manifest::Manifest, store::MANIFEST_LIMIT};

use super::reference::sha256;

pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Types that requests accept: more than stead understands, so that a registry returns what it has and not
/// an error.
pub(super) const ACCEPTED_TYPES: [&str; 4] = [
    MANIFEST_TYPE,
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const ARTIFACT_TYPE: &str = "application/vnd.stead.box.v1";
const CONFIG_TYPE: &str = "application/vnd.stead.box.config.v1+json";
const CHUNK_TYPE: &str = "application/vnd.stead.box.chunk.v1+zstd";

const FILE: &str = "vnd.stead.box.file";
const OFFSET: &str = "vnd.stead.box.offset";
const LENGTH: &str = "vnd.stead.box.length";
const CONTENT: &str = "vnd.stead.box.sha256";
const TITLE: &str = "org.opencontainers.image.title";
const VERSION: &str = "org.opencontainers.image.version";

/// Largest manifest that registries accept, in bytes: enough for some 9,000 chunks.
pub(super) const OCI_MANIFEST_LIMIT: u64 = 4 << 20;
/// Length of chunks, in bytes of the file. A change costs one chunk, four chunks fit into memory, and a
/// manifest of 4 MiB can list 280 GiB.
pub(super) const CHUNK: u64 = 32 << 20;
/// Longest accepted chunk, in bytes: another version of stead may use another length.
const LONGEST_CHUNK: u64 = 64 << 20;

/// A blob as manifests describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub media_type: String,
    /// `sha256:…`
    pub digest: String,
    /// In bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciManifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// A blob, identified by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blob {
    /// 64 lower-case hex digits.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

/// A part of a file, compressed as a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub blob: Blob,
    /// Where the content starts in the file, in bytes.
    pub offset: u64,
    /// Length of the uncompressed content, in bytes.
    pub length: u64,
    /// sha256 of the uncompressed content.
    pub content: String,
}

/// A box in a registry: its manifest, and the chunks of each file by their offset. Ranges that no chunk
/// covers are zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub config: Blob,
    pub files: BTreeMap<String, Vec<Chunk>>,
}

/// Why a manifest is not that of a box.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Objection {
    /// It is a valid manifest of something else.
    Other(String),
    Bad(String),
}

impl Layout {
    /// Writes the manifest. The same box and chunks make the same bytes, without time or address.
    pub(super) fn render(&self, manifest: &Manifest) -> Result<Vec<u8>, String> {
        let descriptor =
            |blob: &Blob, media_type: &str, annotations: &[(&str, String)]| Descriptor {
                media_type: media_type.into(),
                digest: format!("sha256:{}", blob.sha256),
                size: blob.size,
                annotations: annotations
                    .iter()
                    .map(|(key, value)| ((*key).to_string(), value.clone()))
                    .collect(),
            };
        let mut layers = Vec::new();
        for (name, chunks) in &self.files {
            for chunk in chunks {
                layers.push(descriptor(
                    &chunk.blob,
                    CHUNK_TYPE,
                    &[
                        (FILE, name.clone()),
                        (OFFSET, chunk.offset.to_string()),
                        (LENGTH, chunk.length.to_string()),
                        (CONTENT, chunk.content.clone()),
                    ],
                ));
            }
        }
        let document = OciManifest {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.into()),
            artifact_type: Some(ARTIFACT_TYPE.into()),
            config: descriptor(&self.config, CONFIG_TYPE, &[]),
            layers,
            annotations: BTreeMap::from([
                (TITLE.into(), manifest.name.clone()),
                (VERSION.into(), manifest.version.clone()),
            ]),
        };
        let bytes = serde_json::to_vec(&document).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > OCI_MANIFEST_LIMIT {
            return Err(format!(
                "its manifest would have {} bytes, but registries accept at most {OCI_MANIFEST_LIMIT}",
                bytes.len()
            ));
        }
        Ok(bytes)
    }

    /// Reads a manifest and checks what can be checked without the box's own manifest.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Objection> {
        let bad = |message: String| Objection::Bad(message);
        // An index has no config, so the kind of document must be known first.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            #[serde(default)]
            media_type: Option<String>,
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
        }
        let kind: Kind = serde_json::from_slice(bytes)
            .map_err(|error| bad(format!("its manifest cannot be read: {error}")))?;
        if kind.manifests.is_some() {
            return Err(Objection::Other(
                "an index of several manifests, as container images of several architectures have"
                    .into(),
            ));
        }
        let document: OciManifest = serde_json::from_slice(bytes)
            .map_err(|error| bad(format!("its manifest cannot be read: {error}")))?;
        let config_type = document.config.media_type.as_str();
        if matches!(
            config_type,
            "application/vnd.oci.image.config.v1+json"
                | "application/vnd.docker.container.image.v1+json"
        ) && document.artifact_type.is_none()
        {
            return Err(Objection::Other("a container image".into()));
        }
        match document.artifact_type.as_deref() {
            Some(ARTIFACT_TYPE) => {}
            Some(other) => {
                return Err(Objection::Other(format!("an artifact of type {other:?}")));
            }
            None => {
                return Err(Objection::Other(format!(
                    "an artifact with a config of type {config_type:?}"
                )));
            }
        }
        if document.schema_version != 2
            || kind.media_type.is_some_and(|found| found != MANIFEST_TYPE)
        {
            return Err(bad("it is not an OCI image manifest".into()));
        }
        if config_type != CONFIG_TYPE {
            return Err(bad(format!(
                "its config is of the unknown type {config_type:?}"
            )));
        }
        let config = blob(&document.config).map_err(bad)?;
        if config.size > MANIFEST_LIMIT {
            return Err(bad(format!(
                "its config has {} bytes; the limit is {MANIFEST_LIMIT}",
                config.size
            )));
        }
        let mut files: BTreeMap<String, Vec<Chunk>> = BTreeMap::new();
        let mut known: HashMap<String, Chunk> = HashMap::new();
        for layer in &document.layers {
            let (file, chunk) = chunk(layer).map_err(bad)?;
            // A blob is fetched and unpacked once, wherever it is used.
            let first = known
                .entry(chunk.blob.sha256.clone())
                .or_insert_with(|| chunk.clone());
            if (first.blob.size, first.length, &first.content)
                != (chunk.blob.size, chunk.length, &chunk.content)
            {
                return Err(bad(format!(
                    "it describes the chunk sha256:{} in two ways",
                    chunk.blob.sha256
                )));
            }
            files.entry(file).or_default().push(chunk);
        }
        for chunks in files.values_mut() {
            chunks.sort_by_key(|chunk| chunk.offset);
        }
        Ok(Layout { config, files })
    }

    /// Checks the chunks against the files of the box: each must be within a file, and none may overlap.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), String> {
        let sizes: HashMap<&str, u64> = manifest
            .files()
            .into_iter()
            .map(|(entry, _)| (entry.name.as_str(), entry.size))
            .collect();
        for (name, chunks) in &self.files {
            let Some(size) = sizes.get(name.as_str()) else {
                return Err(format!(
                    "it has a chunk of {name:?}, which is not one of its files"
                ));
            };
            let mut end = 0;
            for chunk in chunks {
                if chunk.offset < end {
                    return Err(format!(
                        "two chunks of {name} overlap at byte {}",
                        chunk.offset
                    ));
                }
                end = match chunk.offset.checked_add(chunk.length) {
                    Some(end) if end <= *size => end,
                    _ => {
                        return Err(format!(
                            "the chunk of {name} at byte {} goes past its end at {size}",
                            chunk.offset
                        ));
                    }
                };
            }
        }
        Ok(())
    }

    pub(super) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.files.values().flatten()
    }

    /// Returns one chunk for each distinct blob.
    pub(super) fn blobs(&self) -> Vec<&Chunk> {
        let mut seen = std::collections::HashSet::new();
        self.chunks()
            .filter(|chunk| seen.insert(chunk.blob.sha256.as_str()))
            .collect()
    }
}

fn blob(descriptor: &Descriptor) -> Result<Blob, String> {
    let hex = sha256(&descriptor.digest)
        .ok_or_else(|| format!("{:?} is not a sha256 digest", descriptor.digest))?;
    Ok(Blob {
        sha256: hex.to_string(),
        size: descriptor.size,
    })
}

fn chunk(layer: &Descriptor) -> Result<(String, Chunk), String> {
    if layer.media_type != CHUNK_TYPE {
        return Err(format!(
            "it has a layer of the unknown type {:?}",
            layer.media_type
        ));
    }
    let blob = blob(layer)?;
    let text = |key: &str| {
        layer
            .annotations
            .get(key)
            .ok_or_else(|| format!("the chunk {} has no annotation {key}", layer.digest))
    };
    let number = |key: &str| -> Result<u64, String> {
        let text = text(key)?;
        text.parse().map_err(|_| {
            format!(
                "{key} of the chunk {} is {text:?}, expected a number",
                layer.digest
            )
        })
    };
    let (offset, length) = (number(OFFSET)?, number(LENGTH)?);
    if length == 0 || length > LONGEST_CHUNK {
        return Err(format!(
            "the chunk {} has {length} bytes, expected 1 to {LONGEST_CHUNK}",
            layer.digest
        ));
    }
    // The most that zstd makes of incompressible content (ZSTD_COMPRESSBOUND), and some more.
    if blob.size == 0 || blob.size > length + (length >> 8) + (1 << 16) {
        return Err(format!(
            "the chunk {} has an invalid compressed size ({} bytes for {length})",
            layer.digest, blob.size
        ));
    }
    let content = text(CONTENT)?;
    if sha256(&format!("sha256:{content}")).is_none() {
        return Err(format!(
            "{CONTENT} of the chunk {} is not a sha256",
            layer.digest
        ));
    }
    Ok((
        text(FILE)?.clone(),
        Chunk {
            blob,
            offset,
            length,
            content: content.clone(),
        },
    ))
}

#[cfg(test)]
mod tests;
