//! Errors of captures.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::report::clean::Shown;

use super::super::KernelError;

#[derive(Debug, Error, Diagnostic)]
pub enum CaptureError {
    #[error("{host} is {machine}, but this host is {here}: its kernel cannot boot a machine here")]
    #[diagnostic(help("capture on a host of that architecture"))]
    OtherArch {
        host: String,
        machine: String,
        here: String,
    },
    #[error(
        "cannot find the image of {release}, the running kernel of {host}: it is neither in /boot nor in /lib/modules/{release}"
    )]
    #[diagnostic(help(
        "if {host} is a container, capture the host that it runs on; if the image was removed since the boot, use `--facts`, which fetches the kernel's package"
    ))]
    NoImage { host: String, release: String },
    #[error("{path} on {host} can only be read by root, and sudo asks for a password there")]
    #[diagnostic(help(
        "use `--facts`, which needs no rights and fetches the kernel's package from the distribution; or log in as root; or let everybody read the image: `sudo chmod +r {path}`"
    ))]
    Unreadable { host: String, path: String },
    #[error("{host} has no tar")]
    #[diagnostic(help(
        "install it there, or use `--facts`, which fetches the kernel's package from the distribution"
    ))]
    NoTar { host: String },
    #[error(
        "{host} runs {running}, but the image on its disk is {found}: it was replaced since the boot"
    )]
    #[diagnostic(help(
        "reboot it into that image first, so that stead captures the running kernel"
    ))]
    Replaced {
        host: String,
        running: String,
        found: String,
    },
    #[error("no package on {host} contains its kernel {release}")]
    #[diagnostic(help(
        "it was built there or installed by hand: use `--full`, which copies the files themselves"
    ))]
    NoPackage { host: String, release: String },
    #[error("the transfer from {host} broke off after {got}{said}")]
    #[diagnostic(help("nothing was stored; try again"))]
    BrokeOff {
        host: String,
        got: String,
        said: String,
    },
    #[error("tar on {host} failed (exit {status}){said}")]
    #[diagnostic(help(
        "nothing was stored; fix this on {host}, or use `--facts`, which copies no files"
    ))]
    Tar {
        host: String,
        status: String,
        said: String,
    },
    #[error("the archive from {host} was refused: {name}: {why}")]
    #[diagnostic(help("nothing was stored; check which program {host} runs as tar"))]
    Refused {
        host: String,
        name: String,
        why: &'static str,
    },
    #[error("{host} did not send an archive: {message}")]
    #[diagnostic(help("nothing was stored; check whether a login to {host} prints anything"))]
    Garbled { host: String, message: String },
    #[error("cannot {doing} {path}: {source}", path = path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Kernel(#[from] KernelError),
}

impl CaptureError {
    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| CaptureError::Io {
            doing,
            path,
            source,
        }
    }

    /// Adds what the host or ssh printed, if anything.
    pub fn with_words(mut self, words: &str) -> Self {
        if let CaptureError::BrokeOff { said, .. } | CaptureError::Tar { said, .. } = &mut self
            && !words.is_empty()
        {
            *said = format!(": {words}");
        }
        self
    }
}
