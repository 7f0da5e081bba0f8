//! Every file and folder that stead keeps on the host: the only place that knows their names.

use std::path::{Path, PathBuf};

/// Overrides where stead keeps its data.
pub const DATA_DIR_VARIABLE: &str = "STEAD_DATA_DIR";

/// Where stead's data is. Nothing in it says which machines exist (libvirt alone does): it holds
/// images and the files that OpenSSH and QEMU want as files.
///
/// ```text
/// images/                 the libvirt pool: box files by sha256, one overlay per machine
/// boxes/<digest>.json     the manifest of each box in the store
/// verified/<sha256>.json  size, inode and mtime that a box file had when last hashed
/// used/<digest>           its time of change is when a box was last used
/// origins/<sha256>.json   which box a URL or file became
/// downloads/              files on their way, kept when the way breaks
/// catalogues/             copies of catalogues that projects name by URL
/// kernels/<digest>.json   the manifest of each kernel in the store
/// kernels/files/<sha256>  its configuration, drivers and facts
/// kernels/sources/        which kernel a path, package or capture became
/// runs/<run>/             what the commands of `stead run` printed, a file per kernel
/// oci/<sha256>.json       how boxes that are here are cut in registries
/// machines/<uuid>/        key, known_hosts, ssh_config, seed, console.log of one machine
/// watch/<project>.json    what the process that watches its folders says of itself; .log beside it
/// locks/<name>.lock       held while a command works on a machine or a box
/// ```
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    pub fn at(root: impl Into<PathBuf>) -> Self {
        DataDir { root: root.into() }
    }

    /// `$STEAD_DATA_DIR`, or `/var/lib/stead` for root (QEMU of qemu:///system runs as a user
    /// of its own, which cannot read root's home), or `$XDG_DATA_HOME/stead`.
    /// `None` when no home directory is known.
    pub fn find() -> Option<Self> {
        if let Some(dir) = std::env::var_os(DATA_DIR_VARIABLE).filter(|d| !d.is_empty()) {
            return Some(Self::at(dir));
        }
        if nix::unistd::geteuid().is_root() {
            return Some(Self::at("/var/lib/stead"));
        }
        dirs::data_dir().map(|d| Self::at(d.join("stead")))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The libvirt pool, and where box files are.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    pub fn boxes(&self) -> PathBuf {
        self.root.join("boxes")
    }
    /// Where boxes came from.
    pub fn origins(&self) -> PathBuf {
        self.root.join("origins")
    }
    /// Files on their way from the network.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }
    /// Copies of catalogues.
    pub fn catalogues(&self) -> PathBuf {
        self.root.join("catalogues")
    }
    /// When boxes were last used.
    pub fn used(&self) -> PathBuf {
        self.root.join("used")
    }
    /// Manifests of registries, of boxes that are here.
    pub fn oci(&self) -> PathBuf {
        self.root.join("oci")
    }
    /// What commands of `stead run` printed.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }
    pub fn kernels(&self) -> PathBuf {
        self.root.join("kernels")
    }
    pub fn verified(&self) -> PathBuf {
        self.root.join("verified")
    }
    pub fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }
    /// What the processes that watch folders say of themselves, and their logs.
    pub fn watch(&self) -> PathBuf {
        self.root.join("watch")
    }
    pub fn machines(&self) -> PathBuf {
        self.root.join("machines")
    }
    pub fn machine(&self, uuid: &uuid::Uuid) -> PathBuf {
        self.machines().join(uuid.to_string())
    }
}
