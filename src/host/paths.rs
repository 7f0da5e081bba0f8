//! Every file and folder that stead keeps on the host: the only place that knows their names.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::file;

/// Overrides where stead keeps its data.
pub const DATA_DIR_VARIABLE: &str = "STEAD_DATA_DIR";

/// A folder of the user's alone.
pub const CLOSED: u32 = 0o700;
/// One through which others come to what they know by name and may open.
const PASSABLE: u32 = 0o711;

/// In the file `layout`. 1: closed to others.
const LAYOUT: &str = "1";

/// The folders that nobody but the user has anything to do with.
const OWN: [&str; 14] = [
    "ansible",
    "boxes",
    "catalogues",
    "downloads",
    "kernels",
    "locks",
    "logs",
    "oci",
    "origins",
    "runs",
    "trust",
    "used",
    "verified",
    "watch",
];

/// Where stead's data is. Nothing in it says which machines exist (libvirt alone does): it holds
/// images and the files that OpenSSH and QEMU want as files.
///
/// ```text
/// images/                 the libvirt pool: box files by sha256, one overlay per machine
/// boxes/<digest>.json     the manifest of each box in the store
/// verified/<sha256>.json  size, inode and mtime that a box file had when last hashed
/// used/<digest>           its time of change is when a box was last used
/// named/<digest>          boxes that answer to a bare name, and how they came by it
/// origins/<sha256>.json   which box a URL or file became
/// downloads/              files on their way, kept when the way breaks
/// catalogues/             copies of catalogues that projects name by URL
/// kernels/<digest>.json   the manifest of each kernel in the store
/// kernels/files/<sha256>  its configuration, drivers and facts
/// kernels/sources/        which kernel a path, package or capture became
/// runs/<run>/             what the commands of `stead run` printed, a file per kernel
/// ansible/runs/           inventory and variables of a playbook while it runs
/// ansible/requirements/   roles and collections that playbooks require, by the file that lists them
/// oci/<sha256>.json       how boxes that are here are cut in registries
/// machines/<uuid>/        key, known_hosts, ssh_config, seed, console.log of one machine
/// watch/<project>.json    what the process that watches its folders says of itself; .log beside it
/// trust/<project>.json    what its user has agreed that a project may do to this host
/// locks/<name>.lock       held while a command works on a machine or a box
/// logs/                   what tools said while a box was built
/// layout                  of which version the folder is
/// ```
///
/// Nobody else comes in: with root's, QEMU of qemu:///system, which has a user of its own, passes through
/// the data folder, `images` and `machines` to the files that libvirt makes its own. The names in them are no
/// secret (QEMU's arguments have them), so files in them are closed too.
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

    /// Makes the folders where they are missing, closed to others, and closes those of a stead that did
    /// not do so, once.
    ///
    /// # Errors
    /// Where something in it is another user's.
    pub fn prepare(&self) -> io::Result<()> {
        let passable = if nix::unistd::geteuid().is_root() {
            PASSABLE
        } else {
            CLOSED
        };
        if let Some(above) = self.root.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(above)?;
        }
        file::create_folder(&self.root, passable)?;
        let layout = self.root.join("layout");
        let is_closed = fs::read_to_string(&layout).is_ok_and(|it| it.trim() == LAYOUT);
        for folder in [self.images(), self.machines()] {
            file::create_folder(&folder, passable)?;
        }
        for name in OWN {
            file::create_folder(&self.root.join(name), CLOSED)?;
        }
        if is_closed {
            return Ok(());
        }
        set_mode(&self.root, passable)?;
        for folder in [self.images(), self.machines()] {
            set_mode(&folder, passable)?;
        }
        for name in OWN {
            set_mode(&self.root.join(name), CLOSED)?;
        }
        // What is in the others is behind a closed door.
        close_files(&self.images())?;
        for machine in fs::read_dir(self.machines())? {
            let machine = machine?.path();
            if machine.is_dir() {
                close_files(&machine)?;
                for name in ["unison", "sealed"] {
                    let folder = machine.join(name);
                    if folder.is_dir() {
                        set_mode(&folder, CLOSED)?;
                    }
                }
            }
        }
        file::replace(&layout, format!("{LAYOUT}\n").as_bytes(), file::PRIVATE)
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
    /// Which boxes answer to a bare name.
    pub fn named(&self) -> PathBuf {
        self.root.join("named")
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
    /// Private folders of runs of Ansible's.
    pub fn ansible_runs(&self) -> PathBuf {
        self.root.join("ansible/runs")
    }
    /// Roles and collections of requirements files.
    pub fn ansible_requirements(&self) -> PathBuf {
        self.root.join("ansible/requirements")
    }
    /// Compiled Python of Ansible's runs.
    pub fn ansible_compiled(&self) -> PathBuf {
        self.root.join("ansible/compiled")
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
    /// What tools said.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// What users have agreed that projects may do.
    pub fn trust(&self) -> PathBuf {
        self.root.join("trust")
    }
    pub fn machines(&self) -> PathBuf {
        self.root.join("machines")
    }
    pub fn machine(&self, uuid: &uuid::Uuid) -> PathBuf {
        self.machines().join(uuid.to_string())
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Takes from others what they may do with the files of a folder.
fn close_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && metadata.mode() & 0o077 != 0 {
            match set_mode(&entry.path(), metadata.mode() & 0o700) {
                // Another stead may have taken it away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything below a folder that others may read, write or enter.
    fn open_to_others(folder: &Path, open: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            if metadata.mode() & 0o077 != 0 {
                open.push(format!(
                    "{:o} {}",
                    metadata.mode() & 0o7777,
                    entry.file_name().to_string_lossy()
                ));
            }
            if metadata.is_dir() && metadata.mode() & 0o011 != 0 {
                open_to_others(&entry.path(), open);
            }
        }
    }

    fn assert_closed(data: &DataDir) {
        let mut open = Vec::new();
        open_to_others(data.root(), &mut open);
        open.sort();
        let root = nix::unistd::geteuid().is_root();
        let expected: &[&str] = if root {
            &["711 images", "711 machines"]
        } else {
            &[]
        };
        assert_eq!(open, expected);
        let mode = fs::metadata(data.root()).unwrap().mode() & 0o7777;
        assert_eq!(mode, if root { PASSABLE } else { CLOSED });
    }

    #[test]
    fn new_folders_are_closed_to_others() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::at(place.path().join("a/stead"));
        data.prepare().unwrap();
        assert_closed(&data);
        for folder in [
            data.boxes(),
            data.origins(),
            data.downloads(),
            data.catalogues(),
            data.used(),
            data.oci(),
            data.runs(),
            data.kernels(),
            data.verified(),
            data.locks(),
            data.watch(),
            data.logs(),
        ] {
            assert!(folder.is_dir(), "{} is missing in OWN", folder.display());
        }
    }

    #[test]
    fn folders_of_an_older_stead_are_closed_once() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::at(place.path());
        let machine = data.machines().join("1");
        for folder in [
            data.images(),
            data.locks(),
            machine.join("unison"),
            data.root().join("ansible/runs"),
        ] {
            fs::create_dir_all(&folder).unwrap();
            set_mode(&folder, 0o755).unwrap();
        }
        for file in [
            data.images().join("box-1.qcow2"),
            data.images().join("stead-shop-web-1.qcow2"),
            machine.join("virtiofsd-0.log"),
        ] {
            fs::write(&file, "secret").unwrap();
            set_mode(&file, 0o644).unwrap();
        }
        set_mode(&machine, PASSABLE).unwrap();
        data.prepare().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&data.images().join("box-1.qcow2")), 0o600);
        assert_eq!(mode(&machine.join("virtiofsd-0.log")), 0o600);
        assert_eq!(mode(&machine.join("unison")), CLOSED);
        assert_eq!(mode(&data.locks()), CLOSED);
        // A user who opens one again has a reason.
        set_mode(&data.runs(), 0o755).unwrap();
        data.prepare().unwrap();
        assert_eq!(mode(&data.runs()), 0o755);
    }
}
