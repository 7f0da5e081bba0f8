//! Why something cannot be done with a box.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{
    host::{address, process::ProgramError, remedy},
    report::{bytes, clean::Shown},
    store::StoreError,
};

#[derive(Debug, Error, Diagnostic)]
pub enum BoxError {
    #[error("no box in the store is called {reference}{nearest}", reference = address::shown(.reference))]
    NotFound {
        reference: String,
        nearest: String,
        #[help]
        hint: String,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] StoreError),
    #[error("{source_name} is not a box: {message}")]
    Manifest {
        source_name: String,
        message: String,
    },
    #[error("{path} is not a box: {message}", path = path.shown())]
    #[diagnostic(help(
        "a box is a folder or a .tar.zst archive with a manifest.json; docs/reference/box-format.md describes it"
    ))]
    NotABox { path: PathBuf, message: String },
    #[error("{path}: {message}", path = path.shown())]
    #[diagnostic(help(
        "nothing was stored; get the file again, or check that it is the one that you meant"
    ))]
    BadImage { path: PathBuf, message: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Catalogue(#[from] super::catalogue::CatalogueError),
    #[error("box {reference} has not been fetched", reference = address::shown(.reference))]
    #[diagnostic(help("run `stead up` to fetch it"))]
    NotFetched { reference: String },
    #[error("Machinefile.lock pins box {reference} to {pinned}, which is not in the store{now}", reference = address::shown(.reference))]
    #[diagnostic(help(
        "add that box with `stead box add`, or run `stead box update` to pin the box that has this name here"
    ))]
    Pinned {
        reference: String,
        pinned: String,
        now: String,
    },
    #[error("box {digest} was removed in the meantime")]
    #[diagnostic(help("run the command again to use what is there now"))]
    Removed { digest: String },
    #[error("{path} was refused: {message}", path = path.shown())]
    #[diagnostic(help(
        "nothing was stored; the same file will be refused again, so use another box, or ask who made it for one without this"
    ))]
    Refused { path: PathBuf, message: String },
    #[error("{path} is not complete: {message}", path = path.shown())]
    #[diagnostic(help("nothing was stored; get the box again from its source"))]
    Incomplete { path: PathBuf, message: String },
    #[error("checksum mismatch for {what}: its sha256 is {found}, but its manifest lists {wanted}")]
    #[diagnostic(help("nothing was stored; get the box again from its source"))]
    WrongDigest {
        what: String,
        found: String,
        wanted: String,
    },
    #[error("cannot {doing} {path}: {source}", path = path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
        #[help]
        hint: Option<String>,
    },
    #[error("not enough space in {folder}: up to {needed} needed, {free} free", folder = folder.shown(), free = bytes(*.free), needed = bytes(*.needed))]
    #[diagnostic(help(
        "nothing was changed; free some space there (`stead box prune` and `stead box remove` delete boxes), or set STEAD_DATA_DIR to a folder on a larger disk"
    ))]
    NoRoom {
        folder: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error(
        "box {name} boots from a kernel beside its disk, but Vagrant boots only disks with a bootloader"
    )]
    #[diagnostic(help("make the machine from a box with a bootloader, such as debian-12-cloud"))]
    NoBootloader { name: String },
    #[error("{path} changed while stead was reading it", path = path.shown())]
    #[diagnostic(help(
        "nothing was stored; run the command again when nothing writes to that file"
    ))]
    Changed { path: PathBuf },
    #[error("qemu-img cannot write {path}: {message}", path = path.shown())]
    #[diagnostic(help(
        "nothing was kept; check that the disk has free space and that you may write there, then run the command again"
    ))]
    Convert { path: PathBuf, message: String },
    #[error("{recipe}: {message}")]
    #[diagnostic(help("docs/reference/recipes.md describes recipes"))]
    Recipe { recipe: String, message: String },
    #[error("building {name} needs {program}, which is not installed")]
    #[diagnostic(help("install it (Debian: `apt install {package}`)"))]
    MissingTool {
        name: String,
        program: String,
        package: &'static str,
    },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Run(#[from] ProgramError),
    #[error("building {name} failed while {phase}:\n{end}")]
    #[diagnostic(help("the whole log is in {log}"))]
    Build {
        name: String,
        phase: String,
        end: String,
        log: String,
    },
}

impl BoxError {
    /// Wraps an error of unpacking `path`: a full disk is the host's, anything else the file's.
    pub(super) fn unpacking(path: &std::path::Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        move |error| match error.kind() {
            io::ErrorKind::StorageFull => BoxError::io("unpack into the store", path)(error),
            _ => BoxError::BadImage {
                path: path.to_path_buf(),
                message: format!("it cannot be unpacked: {error}"),
            },
        }
    }

    /// Wraps an error of running qemu-img on `path`.
    pub(super) fn qemu_img(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            let doing = "run qemu-img on";
            let hint = match source.kind() {
                io::ErrorKind::NotFound => {
                    Some("install it (Debian: `apt install qemu-utils`)".to_string())
                }
                // fork(2)
                io::ErrorKind::WouldBlock => Some(remedy::MORE_PROCESSES.to_string()),
                _ => remedy::of(&source).map(str::to_string),
            };
            BoxError::Io {
                doing,
                path,
                hint,
                source,
            }
        }
    }

    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| BoxError::Io {
            doing,
            path,
            hint: remedy::of(&source).map(str::to_string),
            source,
        }
    }
}
