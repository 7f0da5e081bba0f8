//! Why a kernel cannot be taken from a package.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    fetch::{FetchError, if_full},
    report::clean::Shown,
};

/// Why a package could not be found, fetched or unpacked.
#[derive(Debug, Error, Diagnostic)]
pub enum PackageError {
    #[error("stead does not support packages of {id}")]
    #[diagnostic(help(
        "supported are {known}; for another distribution, fetch the kernel yourself and give its path"
    ))]
    UnknownDistribution { id: String, known: String },
    #[error("stead does not support packages of {id} for {arch}")]
    #[diagnostic(help("give the architecture as `uname -m` prints it, such as x86_64"))]
    UnknownArchitecture { id: String, arch: String },
    #[error("{text:?} is not a package repository: {message}")]
    #[diagnostic(help("{form}"))]
    Source {
        text: String,
        message: String,
        form: &'static str,
    },
    #[error("{from} contains no usable key: {message}")]
    #[diagnostic(help("give a keyring of OpenPGP public keys, armoured or binary"))]
    Keys { from: String, message: String },
    #[error("there is no package {wanted} for {arch} in {looked}{nearest}")]
    NoSuchPackage {
        /// Its name, and its version if one was requested.
        wanted: String,
        arch: String,
        /// The repositories that were searched, and those that could not be.
        looked: String,
        /// Other versions, or similar names.
        nearest: String,
        #[help]
        hint: String,
    },
    #[error("package {package} {version} needs {missing}, which is not in {looked}")]
    #[diagnostic(help(
        "the repository is incomplete, or is being updated: try again later, or use another mirror"
    ))]
    Incomplete {
        package: String,
        version: String,
        missing: String,
        looked: String,
    },
    #[error("{repository} has no valid signature: {message}")]
    #[diagnostic(help(
        "nothing of it was used; it was altered on its way, or an unknown key signed it: for a repository of your own, set `key`"
    ))]
    Signature { repository: String, message: String },
    #[error("{repository} is out of date: {why}")]
    #[diagnostic(help(
        "nothing of it was used, because someone may be holding back updates; use another mirror, check this host's clock, or, if you want an old state (a snapshot), begin the source with [check-valid-until=no]"
    ))]
    Old { repository: String, why: String },
    #[error("{url} is for {found}, expected {wanted}")]
    #[diagnostic(help(
        "nothing of it was used, because the mirror serves another release under this name; use another mirror"
    ))]
    WrongRelease {
        url: String,
        found: String,
        wanted: String,
    },
    #[error("cannot read {url}: {message}")]
    #[diagnostic(help("try again, or use another mirror"))]
    Metadata { url: String, message: String },
    #[error("cannot find any of {what}: {looked}")]
    #[diagnostic(help(
        "check the name of the release; if its distribution does not serve it any more, use a mirror that does"
    ))]
    NoRepository { what: String, looked: String },
    #[error("cannot get {what}: {message}")]
    Fetch {
        what: String,
        message: String,
        #[help]
        hint: Option<String>,
    },
    #[error("package {package} {version} is no longer on {servers}")]
    Gone {
        package: String,
        version: String,
        servers: String,
        #[help]
        hint: String,
    },
    #[error("package {package} {version} is refused: {message}")]
    #[diagnostic(help("nothing of it was kept; check that it is the package that you want"))]
    Refused {
        package: String,
        version: String,
        message: String,
    },
    #[error("package {package} {version} has no kernel: {message}")]
    #[diagnostic(help("name the package that contains the kernel's image, such as linux-image-…"))]
    NoKernel {
        package: String,
        version: String,
        message: String,
    },
    #[error("cannot {doing} {path}: {source}", path = path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
        #[help]
        hint: Option<String>,
    },
}

impl PackageError {
    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| PackageError::Io {
            doing,
            path,
            hint: if_full(&source),
            source,
        }
    }

    /// Returns the error for `what`, which could not be fetched.
    pub(super) fn fetch(what: impl Into<String>) -> impl FnOnce(FetchError) -> Self {
        let what = what.into();
        move |error| {
            PackageError::Fetch {
            what,
            hint: match &error {
                FetchError::Digest { .. } | FetchError::Size { .. } => Some(
                    "nothing of it was kept; the mirror was altered or is being updated: try again later, or use another mirror".to_string(),
                ),
                error => error.help().map(|help| help.to_string()),
            },
            message: error.to_string(),
        }
        }
    }
}

/// Whether the server answered that it does not have the file, or no longer has it.
pub(super) fn is_gone(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Status {
            status: 404 | 410,
            ..
        }
    )
}
