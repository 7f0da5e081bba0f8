//! Where boxes came from: what a reference resolved to when it was fetched, and which box that became.

use std::{fs, io, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    fetch::{Algorithm, Expected, kept},
    host::{digest::sha256_of, file},
    store::Digest,
};

use super::{
    error::BoxError,
    store::{Store, StoredBox},
};

/// A record of one fetch. Losing one only costs a download, so a record that cannot be read is ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The reference as the Machinefile has it.
    pub reference: String,
    pub arch: String,
    pub version: String,
    pub url: String,
    /// The digest of the file at `url`, before it is unpacked.
    pub sha256: String,
    /// The size of the same file, in bytes.
    pub size: u64,
    /// Other digests by which the same file was verified: `sha512:…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<String>,
    /// The digest of the resulting box.
    pub digest: String,
    /// Whether the box has its name from the reference, not from the file.
    #[serde(default)]
    pub titled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    pub fetched: Timestamp,
}

impl Origin {
    /// Whether the source was a file on this host.
    pub fn is_local(&self) -> bool {
        self.reference.starts_with('/')
    }
}

impl Store {
    fn origin_path(&self, reference: &str, arch: &str, sha256: &str) -> PathBuf {
        let name = sha256_of(format!("{reference}\0{arch}\0{sha256}"));
        self.data().origins().join(format!("{name}.json"))
    }

    /// Remembers where a box came from.
    pub fn remember(&self, origin: &Origin) -> Result<(), BoxError> {
        let folder = self.data().origins();
        let path = self.origin_path(&origin.reference, &origin.arch, &origin.sha256);
        let write = || -> io::Result<()> {
            fs::create_dir_all(&folder)?;
            file::replace(&path, &serde_json::to_vec(origin)?, file::PRIVATE)
        };
        write().map_err(BoxError::io("write", &path))
    }

    /// Returns a box that was made from a file of this digest, under any reference.
    pub fn by_source(&self, file: &Expected, arch: &str) -> Option<(Origin, StoredBox)> {
        let digest = file.digest();
        self.newest(|origin| {
            let same = match file.algorithm {
                Algorithm::Sha256 => origin.sha256 == file.hex,
                Algorithm::Sha512 => origin.verified.contains(&digest),
            };
            same && origin.arch == arch
        })
    }

    /// Returns the box that this reference resolved to when its file had this sha256.
    pub fn by_reference_and_source(
        &self,
        reference: &str,
        sha256: &str,
        arch: &str,
    ) -> Option<(Origin, StoredBox)> {
        self.newest(|origin| {
            origin.reference == reference && origin.sha256 == sha256 && origin.arch == arch
        })
    }

    /// Returns the fetch of this reference that became that box.
    pub fn by_reference_and_digest(
        &self,
        reference: &str,
        digest: &Digest,
    ) -> Option<(Origin, StoredBox)> {
        let digest = digest.to_string();
        self.newest(|origin| origin.reference == reference && origin.digest == digest)
    }

    /// Returns the box that this reference resolved to when it was fetched from one of these URLs.
    pub fn by_listing(
        &self,
        reference: &str,
        urls: &[reqwest::Url],
        arch: &str,
    ) -> Option<(Origin, StoredBox)> {
        self.newest(|origin| {
            origin.reference == reference
                && origin.arch == arch
                && (urls.iter()).any(|url| url.as_str() == origin.url || kept(url) == origin.url)
        })
    }

    /// Returns the box that this reference resolved to when it was last fetched.
    pub fn by_reference(&self, reference: &str, arch: &str) -> Option<(Origin, StoredBox)> {
        self.newest(|origin| origin.reference == reference && origin.arch == arch)
    }

    /// Returns every recorded fetch.
    pub(super) fn all_origins(&self) -> impl Iterator<Item = Origin> {
        fs::read_dir(self.data().origins())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| fs::read(entry.path()).ok())
            .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
    }

    /// Returns the latest fetch of a box.
    pub fn origin_of(&self, digest: &Digest) -> Option<Origin> {
        let digest = digest.to_string();
        (self.all_origins())
            .filter(|origin| origin.digest == digest)
            .max_by_key(|origin| origin.fetched)
    }

    /// Returns all boxes that this reference has ever resolved to.
    pub(super) fn boxes_from(&self, reference: &str) -> Vec<StoredBox> {
        let mut found: Vec<StoredBox> = Vec::new();
        for origin in self.all_origins() {
            if origin.reference == reference
                && let Ok(stored) = self.resolve_named(&origin.digest)
                && !found.iter().any(|it| it.digest == stored.digest)
            {
                found.push(stored);
            }
        }
        found
    }

    /// Returns the newest record that fits and whose box is still in the store.
    fn newest(&self, fits: impl Fn(&Origin) -> bool) -> Option<(Origin, StoredBox)> {
        let mut found: Vec<Origin> = self.all_origins().filter(fits).collect();
        found.sort_by_key(|origin| std::cmp::Reverse(origin.fetched));
        found.into_iter().find_map(|origin| {
            let stored = self.resolve_named(&origin.digest).ok()?;
            Some((origin, stored))
        })
    }
}
