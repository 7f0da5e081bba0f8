//! Why there is no certificate.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::report::clean::Shown;

#[derive(Debug, Error, Diagnostic)]
pub enum TlsError {
    #[error("cannot {doing} {}: {source}", path.shown())]
    #[diagnostic(help("stead keeps certificates there; it must be a folder of your own"))]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is damaged: {why}", path.shown())]
    #[diagnostic(help(
        "remove it, and stead makes another authority; `stead up` gives its certificates to machines, and `stead trust-ca` has this computer trust it"
    ))]
    Damaged { path: PathBuf, why: String },
    #[error("cannot make a certificate for {what}: {why}")]
    Made { what: String, why: String },
}

impl TlsError {
    pub(super) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| TlsError::File {
            doing,
            path,
            source,
        }
    }
}
