//! Why a folder cannot be synced both ways.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{guest::GuestError, report::clean::Shown};

#[derive(Debug, Error, Diagnostic)]
pub enum TwoWayError {
    #[error("unison is not installed on the host")]
    #[diagnostic(help(
        "install it (Debian: `apt install unison`), or remove mode=\"two-way\" to copy only the host's edits, by rsync"
    ))]
    NoUnison,
    #[error("the host's unison is {version}, but mode=\"two-way\" needs 2.52 or newer")]
    #[diagnostic(help(
        "install a newer one: with an older one, data from the guest can overwrite memory and so run programs here; or remove mode=\"two-way\" to copy only the host's edits, by rsync"
    ))]
    OldUnison { version: String },
    #[error("cannot confine unison to the folder: {why}")]
    #[diagnostic(help(
        "stead runs unison only in a sandbox, because it does whatever the guest's unison tells it; {remedy}; or remove mode=\"two-way\" to copy only the host's edits, by rsync"
    ))]
    NoSandbox { why: String, remedy: String },
    #[error(
        "machine {machine} cannot run the host's unison ({version}), and does not have that version installed"
    )]
    #[diagnostic(help(
        "install unison {version} in the guest, the same version as on the host; or remove mode=\"two-way\" to copy only the host's edits, by rsync"
    ))]
    NoUnisonInGuest { machine: String, version: String },
    #[error("{from} does not exist any more", from = .from.shown())]
    #[diagnostic(help(
        "put it back (is a disk not mounted?), or remove its `sync` from the Machinefile; nothing was deleted in the guest"
    ))]
    Gone { from: PathBuf },
    #[error(
        "{empty} is empty, but was not when it was last synced with {other}; nothing was deleted"
    )]
    #[diagnostic(help(
        "if a disk should be mounted there, mount it; if {other} should be empty too, empty it yourself; to restore the files, copy them back with `stead copy`"
    ))]
    Emptied { empty: String, other: String },
    #[error("unison failed to sync {from} with {to} of {machine}: {said}", from = .from.shown())]
    #[diagnostic(help("no file is lost; `stead sync {machine}` tries again"))]
    Failed {
        from: PathBuf,
        to: String,
        machine: String,
        said: String,
    },
    #[error("cannot {doing} {path}: {source}", path = .path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Guest(#[from] GuestError),
}

pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> TwoWayError {
    let path = path.to_path_buf();
    move |source| TwoWayError::Io {
        doing,
        path,
        source,
    }
}
