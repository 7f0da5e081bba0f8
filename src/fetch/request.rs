//! What to fetch, and what was fetched.

use std::path::PathBuf;

use reqwest::Url;

use super::digest::Expected;

/// A file to fetch.
#[derive(Clone, Debug)]
pub struct Request {
    /// URLs of the same file, in the order in which they are tried.
    pub urls: Vec<Url>,
    /// The digests that it must have. Several may be known (a lock file's and a checksum file's).
    pub expected: Vec<Expected>,
    /// In bytes, if it is known.
    pub size: Option<u64>,
}

/// A complete and verified file.
#[derive(Debug)]
pub struct Fetched {
    pub path: PathBuf,
    pub sha256: String,
    pub size: u64,
    /// The URL that had it.
    pub url: Url,
    pub etag: Option<String>,
}
