//! Why a box cannot be pulled from a registry, or pushed to it.

use std::io;

use miette::Diagnostic;
use thiserror::Error;

use crate::{boxes::BoxError, fetch::FetchError};

#[derive(Debug, Error, Diagnostic)]
pub enum OciError {
    #[error("registry {host} has no {version} in {repository}")]
    #[diagnostic(help(
        "check host, repository and tag; the repository may be visible only after a login"
    ))]
    NoManifest {
        host: String,
        repository: String,
        version: String,
    },
    #[error(
        "registry {host} has no manifest sha256:{digest} in {repository} any more, but {by} requires it"
    )]
    #[diagnostic(help(
        "it was deleted in the registry; push the same box again, or run `stead box update` to pin what the registry has now"
    ))]
    PinnedGone {
        host: String,
        repository: String,
        digest: String,
        by: String,
    },
    #[error("{reference} names another manifest than {by}, which expects sha256:{wanted}")]
    #[diagnostic(help("give the same digest in both, or a digest in only one of them"))]
    TwoDigests {
        reference: String,
        by: String,
        wanted: String,
    },
    #[error(
        "{reference} cannot be verified by a sha512: registries identify manifests by their sha256"
    )]
    #[diagnostic(help("give the sha256 of the manifest, as `stead box push` printed it"))]
    NotSha256 { reference: String },
    #[error("registry {host} denied {who} permission to {doing} {repository}{detail}")]
    #[diagnostic(help(
        "log in with `docker login {host}` or `podman login {host}`: stead uses their logins"
    ))]
    Denied {
        host: String,
        /// An anonymous user, or the login with its source.
        who: String,
        doing: &'static str,
        repository: String,
        detail: String,
    },
    #[error("registry {host} asks for an unsupported kind of login: {message}")]
    #[diagnostic(help("use a registry that supports Basic or Bearer authentication"))]
    Challenge { host: String, message: String },
    #[error("cannot use the login for {host}: {message}")]
    #[diagnostic(help(
        "log in with `docker login {host}` or `podman login {host}`: stead uses their logins"
    ))]
    Credentials { host: String, message: String },
    #[error("registry {host} answered {doing} with status {status}{detail}")]
    #[diagnostic(help("check that the registry is up and accepts OCI artifacts"))]
    Status {
        host: String,
        status: u16,
        doing: String,
        detail: String,
    },
    #[error("{reference} is {what}, not a box")]
    #[diagnostic(help(
        "use a box that was pushed by `stead box push`; docs/reference/oci.md describes the format"
    ))]
    NotABox { reference: String, what: String },
    #[error("{reference} is not a box: {message}")]
    #[diagnostic(help("nothing was stored; ask its publisher to push it again"))]
    Manifest { reference: String, message: String },
    #[error(
        "checksum mismatch for {what} of {reference}: its sha256 is {found}, expected {wanted}"
    )]
    #[diagnostic(help(
        "it is damaged in the registry or was altered in transit; it was not stored, and good chunks will not be fetched again"
    ))]
    Digest {
        reference: String,
        what: &'static str,
        found: String,
        wanted: String,
    },
    #[error(
        "registry {host} has no blob sha256:{digest} in {repository}, but its manifest lists it"
    )]
    #[diagnostic(help(
        "push the box again, then re-run the command; good chunks will not be fetched again"
    ))]
    NoBlob {
        host: String,
        repository: String,
        digest: String,
    },
    #[error("chunk sha256:{digest}: {message}")]
    #[diagnostic(help("nothing was stored; ask its publisher to push it again"))]
    Chunk { digest: String, message: String },
    #[error("cannot {doing}: {source}")]
    Io { doing: String, source: io::Error },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Box(#[from] BoxError),
}

impl OciError {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| OciError::Io { doing, source }
    }

    /// Returns the error of a chunk, which readers pass on inside an I/O error.
    pub(super) fn unwrap(error: BoxError) -> Self {
        let BoxError::Io {
            doing,
            path,
            source,
            hint,
        } = error
        else {
            return OciError::Box(error);
        };
        match source.downcast::<OciError>() {
            Ok(chunk) => chunk,
            Err(source) => OciError::Box(BoxError::Io {
                doing,
                path,
                source,
                hint,
            }),
        }
    }
}
