use std::{io, path::PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::{boxes::fetch::FetchError, report::clean::Shown};

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
    #[error("{path} is no kernel that can be booted: {why}", path = path.shown())]
    NotAnImage {
        path: PathBuf,
        why: NotAnImage,
        #[help]
        remedy: String,
    },
    #[error("{path} is a kernel for {found}, and this host is {wanted}", path = path.shown())]
    #[diagnostic(help("give a kernel that was built for {wanted}"))]
    WrongArch {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("{folder} holds no kernel: there is no {missing}", folder = folder.shown())]
    #[diagnostic(help(
        "give the path of a kernel image, or the folder of a build in which `make` has run"
    ))]
    NoImage { folder: PathBuf, missing: String },
    #[error("{path} does not say which release it is", path = path.shown())]
    #[diagnostic(help(
        "give its modules too (modules=\"…/lib/modules/RELEASE\"): the folder's name says it"
    ))]
    NoRelease { path: PathBuf },
    #[error("the modules in {tree} are for {found}, and the kernel {image} is {wanted}", tree = tree.shown(), image = image.shown())]
    #[diagnostic(help(
        "give the modules of this kernel: a kernel loads no modules of another release"
    ))]
    OtherModules {
        tree: PathBuf,
        found: String,
        image: PathBuf,
        wanted: String,
    },
    #[error("{tree} holds no kernel modules", tree = tree.shown())]
    #[diagnostic(help(
        "give the folder …/lib/modules/RELEASE, or one that it lies in as lib/modules/RELEASE"
    ))]
    NoModules { tree: PathBuf },
    #[error("depmod is not installed, and the modules in {tree} have no modules.dep yet", tree = tree.shown())]
    #[diagnostic(help("Debian: `apt install kmod`"))]
    NoDepmod { tree: PathBuf },
    #[error("depmod failed on {tree}: {said}", tree = tree.shown())]
    #[diagnostic(help("are these modules whole?"))]
    Depmod { tree: PathBuf, said: String },
    #[error("a file of the project's kernel is a link to {path}, which is not in the project", path = path.shown())]
    #[diagnostic(help(
        "name that file or folder in `kernel` (image, modules=, config=); stead asks you about it then"
    ))]
    LeadsOut { path: PathBuf },
    #[error("{path}: {message}", path = path.shown())]
    #[diagnostic(help("the module is broken: get it again from where it came"))]
    BadModule { path: PathBuf, message: String },
    #[error(
        "{name} ({release}) has its modules' file system, squashfs, neither built in nor as a module, and its modules take {size}"
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
    #[error("this host runs {release}, and its image is nowhere: looked at {places}")]
    #[diagnostic(help(
        "a kernel in a container's or a cloud's keeping cannot be read from inside; give a `path` or a `package`"
    ))]
    NoHostImage { release: String, places: String },
    #[error("no kernel in the store is called {reference}{nearest}")]
    #[diagnostic(help("`stead kernel list` lists them"))]
    NotFound { reference: String, nearest: String },
    #[error("{reference} could be several kernels: {candidates}")]
    #[diagnostic(help("write more of the digest"))]
    Ambiguous {
        reference: String,
        candidates: String,
    },
    #[error("{source_name} is no kernel: {message}")]
    Manifest {
        source_name: String,
        message: String,
    },
    #[error("kernel {name}: {path} was altered since it was added: its sha256 is {found}, and should be {wanted}", path = path.shown())]
    #[diagnostic(help(
        "nothing was booted from it; `stead kernel remove {name}`, then get it again"
    ))]
    Altered {
        name: String,
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("{what} is not what its manifest says: sha256 is {found}, and should be {wanted}")]
    #[diagnostic(help("get the archive again from where it came; nothing of it was kept"))]
    WrongDigest {
        what: String,
        found: String,
        wanted: String,
    },
    #[error("{path} is no archive of a kernel: {message}", path = path.shown())]
    #[diagnostic(help("`stead kernel export` writes one; nothing of this one was kept"))]
    NotAnArchive { path: PathBuf, message: String },
    #[error("the capture {name} is {digest} by Machinefile.lock, and that is not in the store")]
    #[diagnostic(help(
        "get its archive from whoever captured it: `stead kernel import FILE`; or take the entry out of Machinefile.lock to boot another capture of that name"
    ))]
    PinnedCapture { name: String, digest: String },
    #[error(
        "which distribution the package {package} is of cannot be told: the box {name} does not say it in its name"
    )]
    #[diagnostic(help("say it: package \"{package}\" distribution=\"debian/12\""))]
    UnknownDistribution { package: String, name: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Network(FetchError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Package(#[from] super::package::PackageError),
}

impl KernelError {
    pub fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            let hint = (source.kind() == io::ErrorKind::PermissionDenied).then(|| {
                format!(
                    "make it readable, such as with `sudo chmod +r {}` (Ubuntu's kernels are only root's)",
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
