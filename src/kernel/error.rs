//! Why something cannot be done with a kernel.

use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{fetch::FetchError, report::clean::Shown, store::StoreError};

use super::image::NotAnImage;

#[derive(Debug, Error, Diagnostic)]
pub enum KernelError {
    #[error("cannot {doing} {path}: {source}", path = path.shown())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
        #[help]
        hint: Option<String>,
    },
    #[error("{path} is not a bootable kernel: {why}", path = path.shown())]
    NotAnImage {
        path: PathBuf,
        why: NotAnImage,
        #[help]
        remedy: String,
    },
    #[error("{path} is a kernel for {found}, but this host is {wanted}", path = path.shown())]
    #[diagnostic(help("give a kernel that was built for {wanted}"))]
    WrongArch {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("{folder} contains no kernel: there is no {missing}", folder = folder.shown())]
    #[diagnostic(help(
        "give the path of a kernel image, or the folder of a build in which `make` has run"
    ))]
    NoImage { folder: PathBuf, missing: String },
    #[error("cannot tell the release of the kernel {path}", path = path.shown())]
    #[diagnostic(help(
        "give its modules too (modules=\"…/lib/modules/RELEASE\"): the folder is named after the release"
    ))]
    NoRelease { path: PathBuf },
    #[error("the modules in {tree} are for {found}, but the kernel {image} is {wanted}", tree = tree.shown(), image = image.shown())]
    #[diagnostic(help(
        "give the modules of this kernel: a kernel loads no modules of another release"
    ))]
    OtherModules {
        tree: PathBuf,
        found: String,
        image: PathBuf,
        wanted: String,
    },
    #[error("{tree} contains no kernel modules", tree = tree.shown())]
    #[diagnostic(help(
        "give the folder …/lib/modules/RELEASE, or a folder that contains lib/modules/RELEASE"
    ))]
    NoModules { tree: PathBuf },
    #[error("the modules in {tree} have no modules.dep yet, and depmod is not installed", tree = tree.shown())]
    #[diagnostic(help("Debian: `apt install kmod`"))]
    NoDepmod { tree: PathBuf },
    #[error("depmod failed on {tree}: {said}", tree = tree.shown())]
    #[diagnostic(help("check that these modules are complete"))]
    Depmod { tree: PathBuf, said: String },
    #[error("a file of the project's kernel is a link to {path}, which is not in the project", path = path.shown())]
    #[diagnostic(help(
        "name that file or folder in `kernel` (image, modules=, config=); then stead asks you about it"
    ))]
    LeadsOut { path: PathBuf },
    #[error("{path}: {message}", path = path.shown())]
    #[diagnostic(help("the module is broken: get it again from its source"))]
    BadModule { path: PathBuf, message: String },
    #[error(
        "the modules of {name} ({release}) are too large for memory ({size}), and it has no squashfs to read them from a disk, neither built in nor as a module"
    )]
    #[diagnostic(help("build it with CONFIG_SQUASHFS=m (or y) and CONFIG_SQUASHFS_ZLIB=y"))]
    TooLargeForMemory {
        name: String,
        release: String,
        size: String,
    },
    #[error("kernel {name} ({release}) cannot boot a machine here:\n{findings}")]
    #[diagnostic(help("{remedies}"))]
    Unfit {
        name: String,
        release: String,
        findings: String,
        remedies: String,
    },
    #[error(
        "cannot find the image of {release}, the running kernel of this host: it is not in {places}"
    )]
    #[diagnostic(help(
        "give a `path` or a `package`; containers and some clouds do not contain their kernel"
    ))]
    NoHostImage { release: String, places: String },
    #[error("no kernel in the store is called {reference}{nearest}")]
    #[diagnostic(help("run `stead kernel list` to see all"))]
    NotFound { reference: String, nearest: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] StoreError),
    #[error("{source_name} is not a kernel: {message}")]
    Manifest {
        source_name: String,
        message: String,
    },
    #[error("checksum mismatch for {what}: its sha256 is {found}, but its manifest lists {wanted}")]
    #[diagnostic(help("nothing was stored; get the archive again from its source"))]
    WrongDigest {
        what: String,
        found: String,
        wanted: String,
    },
    #[error("{path} is not an archive of a kernel: {message}", path = path.shown())]
    #[diagnostic(help("nothing was stored; give a file that `stead kernel export` wrote"))]
    NotAnArchive { path: PathBuf, message: String },
    #[error("Machinefile.lock pins the capture {name} to {digest}, which is not in the store")]
    #[diagnostic(help(
        "get its archive from the person who captured it and run `stead kernel import FILE`, or delete the entry from Machinefile.lock to boot another capture of that name"
    ))]
    PinnedCapture { name: String, digest: String },
    #[error(
        "cannot tell which distribution the package {package} belongs to: the name of the box {name} does not contain one"
    )]
    #[diagnostic(help("name it: package \"{package}\" distribution=\"debian/12\""))]
    UnknownDistribution { package: String, name: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Network(FetchError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Package(#[from] crate::packages::PackageError),
}

impl KernelError {
    pub fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            let hint = (source.kind() == io::ErrorKind::PermissionDenied).then(|| {
                format!(
                    "make it readable, for example with `sudo chmod +r {}` (on Ubuntu only root can read kernels)",
                    path.shown()
                )
            });
            KernelError::Io {
                doing,
                path,
                source,
                hint,
            }
        }
    }
}
