use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::report::{bytes, clean::Shown};

use super::digest::Algorithm;

#[derive(Debug, Error, Diagnostic)]
pub enum FetchError {
    #[error("cannot set up HTTP: {message}")]
    Client { message: String },
    #[error("{url}: {message}")]
    #[diagnostic(help(
        "what came is kept, and the same command goes on from there; behind a proxy, set HTTPS_PROXY"
    ))]
    Network { url: String, message: String },
    #[error("{url}: the server's certificate is not trusted: {message}")]
    #[diagnostic(help(
        "where it is signed by an authority of your own, set SSL_CERT_FILE to that authority's certificate"
    ))]
    Certificate { url: String, message: String },
    #[error("{url}: no byte came for {seconds} s")]
    #[diagnostic(help("what came is kept, and the same command goes on from there"))]
    Stalled { url: String, seconds: f64 },
    #[error("{url}: the server says {status} {reason}")]
    #[diagnostic(help("see whether the URL is right and still there"))]
    Status {
        url: String,
        status: u16,
        reason: String,
    },
    #[error("{url}: what answers there speaks no {wanted}: {message}")]
    #[diagnostic(help(
        "see whether the URL's host and port are those of a web server, and what listens there; where HTTPS_PROXY or HTTP_PROXY is set, it may be the proxy that answers"
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
        "nothing of it was fetched; use another URL, or tell whoever runs that server"
    ))]
    Redirect { url: String, to: String },
    #[error("{url}: redirected from https to an unprotected connection; not followed")]
    #[diagnostic(help("use the URL of a server that stays with https"))]
    Downgrade { url: String },
    #[error("{url}: the server sent another part of the file than it was asked for")]
    #[diagnostic(help("try again, or use another mirror"))]
    WrongRange { url: String },
    #[error("{url}: {found} bytes, and should be {wanted}")]
    #[diagnostic(help("the server has another file than the one that was asked for"))]
    Size {
        url: String,
        found: u64,
        wanted: u64,
    },
    #[error("{url}: it ended after {found} of {wanted} bytes")]
    #[diagnostic(help("what came is kept, and the same command goes on from there"))]
    CutShort {
        url: String,
        found: u64,
        wanted: u64,
    },
    #[error("{url}: larger than {limit} bytes")]
    TooLarge { url: String, limit: u64 },
    #[error("{url} is not what it should be: its {algorithm} is {found}, and {by} says {wanted}")]
    #[diagnostic(help(
        "nothing of it was kept; the file was replaced or altered, on the server or on the way; where a new one is meant, `stead box update` moves Machinefile.lock"
    ))]
    Digest {
        url: String,
        algorithm: Algorithm,
        found: String,
        wanted: String,
        by: String,
    },
    #[error("{folder} has room for {free}, and {needed} more are needed", folder = .folder.shown(), free = bytes(*.free), needed = bytes(*.needed))]
    #[diagnostic(help(
        "free some space there (`stead box prune`), or set STEAD_DATA_DIR to a larger disk"
    ))]
    NoRoom {
        folder: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error("{url} has no digest of {file}")]
    #[diagnostic(help("see whether the checksum file is the one of this image"))]
    NoChecksum { url: String, file: String },
    #[error("the signature of {url} is not good: {message}")]
    #[diagnostic(help(
        "nothing was used; the file was altered, or signed with a key that the catalogue does not name"
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
            hint: (source.kind() == io::ErrorKind::StorageFull).then(|| {
                "free some space there (`stead box prune`), or set STEAD_DATA_DIR to a larger disk"
                    .to_string()
            }),
            source,
        }
    }
}
