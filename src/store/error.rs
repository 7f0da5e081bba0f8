//! Why something is not in a store, or is damaged there.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::report::{bytes, clean::Shown, counted};

use super::{Content, FileEntry, MANIFEST_LIMIT};

/// An error that all stores have. `what` is what the store holds: "box", "kernel". Texts are boxed, so that results that
/// may be such an error stay small.
#[derive(Debug, Error, Diagnostic)]
pub enum StoreError {
    #[error("{reference} matches several {plural}: {candidates}")]
    Ambiguous {
        reference: String,
        plural: &'static str,
        candidates: String,
        #[help]
        hint: &'static str,
    },
    #[error("{what} {name}: {path} is missing (sha256 {sha256})", path = path.shown())]
    Missing {
        what: &'static str,
        name: Box<str>,
        path: Box<Path>,
        sha256: Box<str>,
        #[help]
        hint: Box<str>,
    },
    #[error("{what} {name}: {path} has {found}, expected {wanted} (sha256 {sha256})", path = path.shown(), found = counted(*.found, "byte"))]
    Resized {
        what: &'static str,
        name: Box<str>,
        path: Box<Path>,
        found: u64,
        wanted: u64,
        sha256: Box<str>,
        #[help]
        hint: Box<str>,
    },
    #[error("{what} {name}: {path} has changed since the {what} was added: its sha256 is {found}, expected {wanted}", path = path.shown())]
    Altered {
        what: &'static str,
        name: Box<str>,
        path: Box<Path>,
        found: Box<str>,
        wanted: Box<str>,
        #[help]
        hint: Box<str>,
    },
    #[error("the manifest {path} has changed since its {what} was added: its sha256 is {found}", path = path.shown())]
    #[diagnostic(help("delete that file, then add the {what} again"))]
    ManifestAltered {
        what: &'static str,
        path: PathBuf,
        found: String,
    },
    #[error("the manifest of the {what} has {size} bytes; the limit is {limit}", limit = bytes(MANIFEST_LIMIT))]
    #[diagnostic(help(
        "nothing was stored; a manifest lists the files, and does not contain them"
    ))]
    ManifestTooLarge { what: &'static str, size: usize },
}

impl StoreError {
    /// A file of an item of this name is missing.
    pub fn missing<M: Content>(name: &str, entry: &FileEntry, path: PathBuf) -> Self {
        StoreError::Missing {
            what: M::NAME,
            name: name.into(),
            path: path.into(),
            sha256: entry.sha256.as_str().into(),
            hint: M::restore(name).into(),
        }
    }
}
