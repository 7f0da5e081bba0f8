//! What a store holds.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{digest::sha256_of, lock::LockName, paths::DataDir};

use super::StoreError;

/// Largest manifest, in bytes. Manifests are small; anything larger is not one.
pub const MANIFEST_LIMIT: u64 = 1 << 20;

/// The description of an item in a store: a manifest of boxes or of kernels.
pub trait Content: Sized {
    /// What a file is to the item; a part of the file's name in the store.
    type Role: Copy;
    type Error: From<StoreError>;

    /// "box" or "kernel".
    const NAME: &'static str;
    /// "boxes" or "kernels".
    const PLURAL: &'static str;
    /// The store's lock.
    const LOCK: LockName<'static>;
    /// The prefix of the names of unfinished files.
    const INCOMING: &'static str;
    /// What to type if a reference matches several items.
    const DISTINCT: &'static str;

    /// Returns what to do about an item of this name whose files are damaged.
    fn restore(name: &str) -> String;

    /// Reads and checks the manifest of a new item. Errors name it `source`.
    fn parse(bytes: &[u8], source: &str) -> Result<Self, Self::Error>;

    /// Like [`Self::parse`], for a manifest in the store: older versions of stead accepted more names, and such
    /// an item must still be listed and removed.
    fn kept(bytes: &[u8], source: &str) -> Result<Self, Self::Error>;

    fn name(&self) -> &str;

    /// Returns every file of the item with its role.
    fn files(&self) -> Vec<(&FileEntry, Self::Role)>;

    /// The folder of the manifests.
    fn folder(data: &DataDir) -> PathBuf;

    /// The path of a file.
    fn file(data: &DataDir, entry: &FileEntry, role: Self::Role) -> PathBuf;

    /// Wraps an I/O error: "cannot {doing} {path}".
    fn io(doing: &'static str, path: &Path, error: io::Error) -> Self::Error;
}

/// A file of an item, as its manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// 64 lower-case hex digits.
    pub sha256: String,
}

impl FileEntry {
    /// Checks that the digest is one, because paths are made of it.
    pub fn check_digest(&self) -> Result<(), String> {
        match is_sha256(&self.sha256) {
            true => Ok(()),
            false => Err(format!(
                "the sha256 of {} is not 64 lower-case hex digits",
                self.name
            )),
        }
    }
}

/// Whether a text is 64 lower-case hex digits.
pub fn is_sha256(text: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.len() == 64 && text.chars().all(hex)
}

/// `sha256:` and the digest of a manifest's bytes, which contain the digests of all files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    pub fn of(manifest: &[u8]) -> Self {
        Digest(format!("sha256:{}", sha256_of(manifest)))
    }

    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }

    /// The first 12 hex digits.
    pub fn short(&self) -> &str {
        let hex = self.hex();
        hex.get(..12).unwrap_or(hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An item in a store. Its files were verified when it was added.
#[derive(Clone, Debug)]
pub struct Stored<M> {
    pub digest: Digest,
    pub manifest: M,
    pub added: Timestamp,
}
