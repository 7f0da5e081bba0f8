use std::io;

use miette::Diagnostic;
use thiserror::Error;

use crate::boxes::{BoxError, fetch::FetchError};

#[derive(Debug, Error, Diagnostic)]
pub enum OciError {
    #[error("registry {host} has no {version} in {repository}")]
    #[diagnostic(help(
        "see whether host, repository and tag are right; it may need a login to be seen"
    ))]
    NoManifest {
        host: String,
        repository: String,
        version: String,
    },
    #[error(
        "registry {host} has no manifest sha256:{digest} in {repository} any more, which {by} asks for"
    )]
    #[diagnostic(help(
        "it was deleted there; push the same box again, or let `stead box update` move Machinefile.lock to what is there now"
    ))]
    PinnedGone {
        host: String,
        repository: String,
        digest: String,
        by: String,
    },
    #[error("{reference} asks for another manifest than {by}, which says sha256:{wanted}")]
    #[diagnostic(help("let both name the same one, or only one of them a digest"))]
    TwoDigests {
        reference: String,
        by: String,
        wanted: String,
    },
    #[error(
        "{reference}: what it has to be is said by a sha512, and manifests are named by their sha256"
    )]
    #[diagnostic(help("give the sha256 of the manifest, as `stead box push` printed it"))]
    NotSha256 { reference: String },
    #[error("registry {host} does not let {who} {doing} {repository}{detail}")]
    #[diagnostic(help(
        "log in with `docker login {host}` or `podman login {host}`: stead uses what they keep"
    ))]
    Denied {
        host: String,
        /// "anyone", or where the credentials are from.
        who: String,
        doing: &'static str,
        repository: String,
        detail: String,
    },
    #[error("registry {host} asks for a login in a way that is not known: {message}")]
    #[diagnostic(help("registries that take Basic or Bearer can be used"))]
    Challenge { host: String, message: String },
    #[error("the login for {host}: {message}")]
    #[diagnostic(help(
        "log in with `docker login {host}` or `podman login {host}`: stead uses what they keep"
    ))]
    Credentials { host: String, message: String },
    #[error("registry {host} says {status} to {doing}{detail}")]
    #[diagnostic(help("see whether the registry is up and takes OCI artifacts"))]
    Status {
        host: String,
        status: u16,
        doing: String,
        detail: String,
    },
    #[error("{reference} is {what}, and no box")]
    #[diagnostic(help(
        "`stead box push` puts boxes into registries; docs/reference/oci.md says what they are there"
    ))]
    NotABox { reference: String, what: String },
    #[error("{reference} is no box: {message}")]
    #[diagnostic(help("nothing of it was kept; let whoever made it push it again"))]
    Manifest { reference: String, message: String },
    #[error(
        "{what} of {reference} is not what it should be: its sha256 is {found}, and should be {wanted}"
    )]
    #[diagnostic(help(
        "nothing of it was kept, and what was good is not fetched again; it is damaged in the registry or was altered on the way"
    ))]
    Digest {
        reference: String,
        what: &'static str,
        found: String,
        wanted: String,
    },
    #[error(
        "registry {host} has no blob sha256:{digest} in {repository}, which its manifest names"
    )]
    #[diagnostic(help("what was good is kept; push the box again, then the same command goes on"))]
    NoBlob {
        host: String,
        repository: String,
        digest: String,
    },
    #[error("chunk sha256:{digest}: {message}")]
    #[diagnostic(help("nothing of it was kept; let whoever made it push it again"))]
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

    /// What was wrong with a chunk comes through readers as an I/O error.
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
