use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::report::{bytes, clean::Shown};

#[derive(Debug, Error, Diagnostic)]
pub enum BoxError {
    #[error("no box in the store is called {reference}{nearest}")]
    NotFound {
        reference: String,
        nearest: String,
        #[help]
        hint: String,
    },
    #[error("{reference} could be several boxes: {candidates}")]
    #[diagnostic(help("write more of the digest, or NAME:VERSION"))]
    Ambiguous {
        reference: String,
        candidates: String,
    },
    #[error("{source_name} is no box: {message}")]
    Manifest {
        source_name: String,
        message: String,
    },
    #[error("{path} is no box: {message}", path = path.shown())]
    #[diagnostic(help(
        "a box is a folder or a .tar.zst archive with a manifest.json; docs/reference/box-format.md describes it"
    ))]
    NotABox { path: PathBuf, message: String },
    #[error("{path}: {message}", path = path.shown())]
    #[diagnostic(help(
        "nothing of it was kept; get it again, or see whether it is what you meant"
    ))]
    BadImage { path: PathBuf, message: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Catalogue(#[from] super::catalogue::CatalogueError),
    #[error("box {reference} has not been fetched")]
    #[diagnostic(help("`stead up` fetches it"))]
    NotFetched { reference: String },
    #[error("Machinefile.lock says that box {reference} is {pinned}, which is not here{now}")]
    #[diagnostic(help(
        "get that box, or `stead box update` moves the lock file to the one of that name here"
    ))]
    Pinned {
        reference: String,
        pinned: String,
        now: String,
    },
    #[error("box {digest} was removed meanwhile")]
    #[diagnostic(help("the same command again takes what is there now"))]
    Removed { digest: String },
    #[error("{path}: {message}; it is refused", path = path.shown())]
    #[diagnostic(help("get the box again from where it came; nothing of this one was kept"))]
    Refused { path: PathBuf, message: String },
    #[error("{what} is not what its manifest says: sha256 is {found}, and should be {wanted}")]
    #[diagnostic(help("get the box again from where it came; nothing of this one was kept"))]
    WrongDigest {
        what: String,
        found: String,
        wanted: String,
    },
    #[error("box {name}: {path} was altered since it was added: its sha256 is {found}, and should be {wanted}", path = path.shown())]
    #[diagnostic(help(
        "nothing was booted from it; `stead box add` with the same box puts the file back"
    ))]
    Altered {
        name: String,
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("box {name}: {path} has {found} bytes, and should have {wanted} (sha256 {sha256})", path = path.shown())]
    #[diagnostic(help(
        "nothing was booted from it; `stead box add` with the same box puts the file back"
    ))]
    Resized {
        name: String,
        path: PathBuf,
        found: u64,
        wanted: u64,
        sha256: String,
    },
    #[error("box {name}: {path} is missing (sha256 {sha256})", path = path.shown())]
    #[diagnostic(help("`stead box add` with the same box puts the file back"))]
    Missing {
        name: String,
        path: PathBuf,
        sha256: String,
    },
    #[error("cannot {doing} {path}: {source}", path = path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
        #[help]
        hint: Option<String>,
    },
    #[error("{folder} has room for {free}, and {needed} may be needed", folder = folder.shown(), free = bytes(*.free), needed = bytes(*.needed))]
    #[diagnostic(help(
        "nothing was begun; free some space there (`stead box remove` takes boxes away), or set STEAD_DATA_DIR to a larger disk"
    ))]
    NoRoom {
        folder: PathBuf,
        needed: u64,
        free: u64,
    },
    #[error(
        "box {name} boots by a kernel beside its disk, and Vagrant can boot only what has its own bootloader"
    )]
    #[diagnostic(help(
        "make the machine from a box that boots by its own bootloader, such as debian-12-cloud"
    ))]
    NoBootloader { name: String },
    #[error("{path} was changed while it was read", path = path.shown())]
    #[diagnostic(help(
        "nothing of it was kept; run the same command again when nothing writes to that file"
    ))]
    Changed { path: PathBuf },
    #[error("qemu-img cannot write {path}: {message}", path = path.shown())]
    #[diagnostic(help(
        "nothing of it was kept; see that there is room and that you may write there, then run the same command again"
    ))]
    Convert { path: PathBuf, message: String },
    #[error("{recipe}: {message}")]
    #[diagnostic(help("docs/reference/recipes.md describes recipes"))]
    Recipe { recipe: String, message: String },
    #[error("building {name} needs {program}, which is not installed")]
    #[diagnostic(help("Debian: `apt install {package}`"))]
    MissingTool {
        name: String,
        program: String,
        package: &'static str,
    },
    #[error("building {name} failed while {phase}:\n{end}")]
    #[diagnostic(help("the whole log is {log}"))]
    Build {
        name: String,
        phase: String,
        end: String,
        log: String,
    },
}

impl BoxError {
    /// What came up while `path` was unpacked: the host's trouble, or the file's.
    pub(super) fn unpacking(path: &std::path::Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        move |error| match error.kind() {
            io::ErrorKind::StorageFull => BoxError::io("unpack into the store", path)(error),
            _ => BoxError::BadImage {
                path: path.to_path_buf(),
                message: format!("it cannot be unpacked: {error}"),
            },
        }
    }

    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            BoxError::Io {
            doing,
            path,
            hint: (source.kind() == io::ErrorKind::StorageFull).then(|| {
                "free some space there (`stead box remove` takes boxes away), or set STEAD_DATA_DIR to a larger disk".to_string()
            }),
            source,
        }
        }
    }
}
