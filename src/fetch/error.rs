//! Why a file cannot be fetched or verified.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    host::remedy::FREE_SPACE,
    report::{bytes, clean::Shown, counted},
};

use super::digest::Algorithm;

/// Why a file could not be fetched.
#[derive(Debug, Error, Diagnostic)]
pub enum FetchError {
    #[error("cannot set up HTTP: {message}")]
    Client { message: String },
    #[error("{url}: {message}")]
    #[diagnostic(help(
        "the part that was fetched is kept, and the same command continues from there; behind a proxy, set HTTPS_PROXY"
    ))]
    Network { url: String, message: String },
    #[error("{url}: cannot find the address of {host}: {message}")]
    #[diagnostic(help(
        "check that the name of the host is right, and that this computer is online and can look names up (`getent hosts {host}`); behind a proxy, set HTTPS_PROXY"
    ))]
    NoAddress {
        url: String,
        host: String,
        message: String,
    },
    #[error("{url}: the server's certificate is not trusted: {message}")]
    #[diagnostic(help(
        "if an authority of your own signed it, set SSL_CERT_FILE to that authority's certificate"
    ))]
    Certificate { url: String, message: String },
    #[error("{url}: no data came for {seconds} s")]
    #[diagnostic(help(
        "the part that was fetched is kept, and the same command continues from there"
    ))]
    Stalled { url: String, seconds: f64 },
    #[error("{url}: the server answered {status} {reason}")]
    #[diagnostic(help("check that the URL is right, and that the file still exists"))]
    Status {
        url: String,
        status: u16,
        reason: String,
    },
    #[error("{url}: the answer is not {wanted}: {message}")]
    #[diagnostic(help(
        "check that the URL's host and port are those of a web server; if HTTPS_PROXY or HTTP_PROXY is set, the proxy may have answered"
    ))]
    NotHttp {
        url: String,
        /// HTTP or TLS.
        wanted: &'static str,
        message: String,
    },
    #[error(
        "{url}: the server redirects to {to:?}, which is not an https or http URL; not followed"
    )]
    #[diagnostic(help(
        "nothing was fetched; use another URL, or report this to the people who run the server"
    ))]
    Redirect { url: String, to: String },
    #[error("{url}: redirected from https to an unprotected connection; not followed")]
    #[diagnostic(help("use the URL of a server that redirects only to https"))]
    Downgrade { url: String },
    #[error("{url}: the server sent another part of the file than the requested one")]
    #[diagnostic(help("try again, or use another mirror"))]
    WrongRange { url: String },
    #[error("{url}: the file has {found}, expected {wanted}", found = counted(*.found, "byte"))]
    #[diagnostic(help("the server has another file than the requested one"))]
    Size {
        url: String,
        found: u64,
        wanted: u64,
    },
    #[error("{url}: the transfer ended after {found} of {wanted}", wanted = counted(*.wanted, "byte"))]
    #[diagnostic(help(
        "the part that was fetched is kept, and the same command continues from there"
    ))]
    CutShort {
        url: String,
        found: u64,
        wanted: u64,
    },
    #[error("{url}: larger than {limit}", limit = counted(*.limit, "byte"))]
    TooLarge { url: String, limit: u64 },
    #[error("checksum mismatch for {url}: its {algorithm} is {found}, but {by} has {wanted}")]
    #[diagnostic(help(
        "nothing of it was kept; the file was replaced or altered, on the server or on the way; if you want a new version of a box, run `stead box update`"
    ))]
    Digest {
        url: String,
        algorithm: Algorithm,
        found: String,
        wanted: String,
        by: String,
    },
    #[error("not enough space in {folder}: {needed} needed, {free} free", folder = .folder.shown(), free = bytes(*.free), needed = bytes(*.needed))]
    #[diagnostic(help("{FREE_SPACE}"))]
    NoRoom {
        folder: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error("{url} has no digest of {file}")]
    #[diagnostic(help("check that the checksum file is that of this image"))]
    NoChecksum { url: String, file: String },
    #[error("invalid signature of {url}: {message}")]
    #[diagnostic(help(
        "nothing was used; the file was altered, or signed with a key that the catalogue does not list"
    ))]
    Signature { url: String, message: String },
    #[error("cannot {doing} {path}: {source}", path = .path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
        #[help]
        hint: Option<String>,
    },
}

impl FetchError {
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| FetchError::Io {
            doing,
            path,
            hint: if_full(&source),
            source,
        }
    }
}

/// Returns what to do about an error, if there is no space left on the disk of stead's data.
pub fn if_full(error: &io::Error) -> Option<String> {
    (error.kind() == io::ErrorKind::StorageFull).then(|| FREE_SPACE.to_string())
}
