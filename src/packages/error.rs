use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{fetch::FetchError, report::clean::Shown};

use super::{
    Wanted,
    repository::{Absent, listed},
};

/// Why a package is not there as files.
#[derive(Debug, Error, Diagnostic)]
pub enum PackageError {
    #[error("packages of {id} are not known")]
    #[diagnostic(help(
        "known are {known}; for another one, fetch the kernel yourself and name it by its path"
    ))]
    UnknownDistribution { id: String, known: String },
    #[error("packages of {id} for {arch} are not known")]
    #[diagnostic(help("the name of the architecture is what `uname -m` says, such as x86_64"))]
    UnknownArchitecture { id: String, arch: String },
    #[error("{text:?} names no repository of packages: {message}")]
    #[diagnostic(help("{form}"))]
    Source {
        text: String,
        message: String,
        form: &'static str,
    },
    #[error("{from} holds no key that can be used: {message}")]
    #[diagnostic(help("give a keyring of OpenPGP public keys, armoured or binary"))]
    Keys { from: String, message: String },
    #[error("there is no package {wanted} for {arch} in {looked}{nearest}")]
    NoSuchPackage {
        /// Its name, and its version where one was asked for.
        wanted: String,
        arch: String,
        /// The repositories, and those that have no such release.
        looked: String,
        /// What is there instead.
        nearest: String,
        #[help]
        hint: String,
    },
    #[error("package {package} {version} needs {missing}, which is not in {looked}")]
    #[diagnostic(help(
        "the repository is incomplete, or just being changed: try again later, or use another mirror"
    ))]
    Incomplete {
        package: String,
        version: String,
        missing: String,
        looked: String,
    },
    #[error("{repository}: the signature is not good: {message}")]
    #[diagnostic(help(
        "nothing of it was used; the repository was altered on its way, or is signed by a key that is not known: a repository of your own needs its key named with it"
    ))]
    Signature { repository: String, message: String },
    #[error("{repository} is old: {why}")]
    #[diagnostic(help(
        "nothing of it was used: someone may hold back what is new; use another mirror, see whether the clock here is right, or, where old is what you want (a snapshot), begin the source with [check-valid-until=no]"
    ))]
    Old { repository: String, why: String },
    #[error("{url} is of {found}, and {wanted} was asked for")]
    #[diagnostic(help(
        "nothing of it was used; the mirror serves another release under this name: use another mirror"
    ))]
    WrongRelease {
        url: String,
        found: String,
        wanted: String,
    },
    #[error("{url} cannot be read: {message}")]
    #[diagnostic(help("try again, or use another mirror"))]
    Metadata { url: String, message: String },
    #[error("none of {what} is there: {looked}")]
    #[diagnostic(help(
        "see whether the release is written right; one that its distribution no longer serves needs a mirror that does"
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
    #[diagnostic(help("nothing of it was kept; see whether it is the package that was meant"))]
    Refused {
        package: String,
        version: String,
        message: String,
    },
    #[error("package {package} {version} makes no kernel: {message}")]
    #[diagnostic(help("name the package that holds the kernel's image, such as linux-image-…"))]
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
            hint: (source.kind() == io::ErrorKind::StorageFull).then(|| {
                "free some space there (`stead box prune`), or set STEAD_DATA_DIR to a larger disk"
                    .to_string()
            }),
            source,
        }
    }

    pub(super) fn no_repository(wanted: &Wanted, absent: &[Absent]) -> Self {
        PackageError::NoRepository {
            what: format!(
                "the repositories of {} {}",
                wanted.distribution.id, wanted.distribution.release
            ),
            looked: listed(absent),
        }
    }

    /// `what` could not be fetched.
    pub(super) fn fetch(what: impl Into<String>) -> impl FnOnce(FetchError) -> Self {
        let what = what.into();
        move |error| {
            PackageError::Fetch {
            what,
            hint: match &error {
                FetchError::Digest { .. } | FetchError::Size { .. } => Some(
                    "nothing of it was kept; the mirror is altered or just being changed: try again later, or use another mirror".to_string(),
                ),
                error => error.help().map(|help| help.to_string()),
            },
            message: error.to_string(),
        }
        }
    }
}

/// Whether the server said that it does not have it (any more).
pub(super) fn is_gone(error: &FetchError) -> bool {
    matches!(
        error,
        FetchError::Status {
            status: 404 | 410,
            ..
        }
    )
}
