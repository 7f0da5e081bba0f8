//! Where boxes came from: what a reference meant when it was fetched, and which box it became.

use std::{fs, io, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::host::file;

use super::{
    error::BoxError,
    fetch::{Algorithm, Expected, kept},
    store::{Store, StoredBox, hex},
};

/// A record of one fetch. Losing one costs a download, so one that cannot be read is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// As in the Machinefile.
    pub reference: String,
    pub arch: String,
    pub version: String,
    pub url: String,
    /// Of the file at `url`, as it comes.
    pub sha256: String,
    /// Of the same, in bytes.
    pub size: u64,
    /// Digests of other kinds that the same file was held against: `sha512:…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<String>,
    /// Of the box that it became.
    pub digest: String,
    /// The box has its name from the reference, not from the file.
    #[serde(default)]
    pub titled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    pub fetched: Timestamp,
}

impl Origin {
    /// It was a file of this host.
    pub fn is_local(&self) -> bool {
        self.reference.starts_with('/')
    }
}

impl Store {
    fn origin_path(&self, reference: &str, arch: &str, sha256: &str) -> PathBuf {
        let name = hex(&Sha256::digest(format!("{reference}\0{arch}\0{sha256}")));
        self.origins().join(format!("{name}.json"))
    }

    /// Remembers where a box came from.
    pub fn remember(&self, origin: &Origin) -> Result<(), BoxError> {
        let folder = self.origins();
        let path = self.origin_path(&origin.reference, &origin.arch, &origin.sha256);
        let write = || -> io::Result<()> {
            fs::create_dir_all(&folder)?;
            file::replace(&path, &serde_json::to_vec(origin)?, file::PRIVATE)
        };
        write().map_err(BoxError::io("write", &path))
    }

    /// A box that a file of this digest became, whatever it was called then.
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

    /// The box that this reference meant when it was such a file.
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

    /// What this reference was when it became that box.
    pub fn by_reference_and_digest(
        &self,
        reference: &str,
        digest: &super::Digest,
    ) -> Option<(Origin, StoredBox)> {
        let digest = digest.to_string();
        self.newest(|origin| origin.reference == reference && origin.digest == digest)
    }

    /// The box that this reference meant when it was fetched from one of these places.
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

    /// The box that this reference meant when it was last fetched.
    pub fn by_reference(&self, reference: &str, arch: &str) -> Option<(Origin, StoredBox)> {
        self.newest(|origin| origin.reference == reference && origin.arch == arch)
    }

    /// Every fetch that is remembered.
    pub(super) fn all_origins(&self) -> impl Iterator<Item = Origin> {
        fs::read_dir(self.origins())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| fs::read(entry.path()).ok())
            .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
    }

    /// Where a box came from last.
    pub fn origin_of(&self, digest: &super::Digest) -> Option<Origin> {
        let digest = digest.to_string();
        (self.all_origins())
            .filter(|origin| origin.digest == digest)
            .max_by_key(|origin| origin.fetched)
    }

    /// The boxes that came from there, whatever each was then.
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

    /// The newest record that fits and whose box is still here.
    fn newest(&self, fits: impl Fn(&Origin) -> bool) -> Option<(Origin, StoredBox)> {
        let mut found: Vec<Origin> = self.all_origins().filter(fits).collect();
        found.sort_by_key(|origin| std::cmp::Reverse(origin.fetched));
        found.into_iter().find_map(|origin| {
            let stored = self.resolve_named(&origin.digest).ok()?;
            Some((origin, stored))
        })
    }
}
