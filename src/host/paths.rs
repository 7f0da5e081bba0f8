//! The names of the files and folders that stead keeps on the host.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User, geteuid};

use super::{file, open};
use crate::report::clean::Shown;

/// The environment variable with the path of stead's data folder.
pub const DATA_DIR_VARIABLE: &str = "STEAD_DATA_DIR";

/// The mode of a folder that only the user can enter.
pub const CLOSED: u32 = 0o700;
/// The mode of a folder that others can pass through, to files whose names they know and may open.
pub const PASSABLE: u32 = 0o711;

/// The content of the file `layout`. 1: closed to others.
const LAYOUT: &str = "1";

/// The folders that only the user needs.
const OWN: [&str; 17] = [
    "ansible",
    "authority",
    "boxes",
    "catalogues",
    "downloads",
    "kernels",
    "locks",
    "logs",
    "logs/runs",
    "networks",
    "oci",
    "origins",
    "runs",
    "trust",
    "used",
    "verified",
    "watch",
];

/// What else is in the folder.
const FURTHER: [&str; 5] = ["digests", "images", "layout", "machines", "named"];

/// The folder with stead's data. It does not record which machines exist (only libvirt does): it has images,
/// and the files that OpenSSH and QEMU need.
///
/// ```text
/// images/                 the libvirt pool: box files by sha256, one overlay per machine
/// boxes/<digest>.json     the manifest of each box in the store
/// digests/<sha256>        the digest of a provisioner whose files had the stamps that the name is a hash of
/// verified/<sha256>.json  size, inode and mtime that a file of a store had when last hashed
/// used/<digest>           an empty file; its modification time is when the box was last used
/// named/<digest>          boxes that a bare name may mean, and how they got the name
/// origins/<sha256>.json   which box a URL or file became
/// downloads/              unfinished downloads, kept so that they can be resumed
/// downloads/packages/     lists of packages as repositories publish them
/// catalogues/             copies of catalogues that projects name by URL
/// kernels/<digest>.json   the manifest of each kernel in the store
/// kernels/files/<sha256>  its configuration, drivers and facts
/// kernels/sources/        which kernel a path, package or capture became
/// runs/<run>/             the output of the commands of `stead run`, a file per kernel
/// ansible/runs/           inventory and variables of a playbook while it runs
/// ansible/requirements/   roles and collections that playbooks require, by the file that lists them
/// authority/              the user's certificate authority: its key, and ca.pem, its certificate
/// oci/<sha256>.json       how registries split boxes of the store into chunks
/// machines/<uuid>/        keys, certificate, known_hosts, ssh_config, seed, console.log of one machine
/// networks/<project>.json the state of the process that is the project's network; .log beside it
/// watch/<project>.json    the state of the process that watches the project's folders; .log beside it
/// trust/<project>.json    what the user allows a project to do to this host
/// locks/<name>.lock       held while a command works on a machine or a box
/// logs/                   the output of tools while a box was built
/// logs/runs/              what the last runs that changed something did, a file per run
/// layout                  the version of this folder
/// ```
///
/// Other users cannot enter it. In root's, QEMU of qemu:///system, which runs as a user of its own, can pass
/// through the data folder, `images` and `machines` to the files that libvirt gives to that user. The names in
/// them are not secret (QEMU's arguments have them), so the files in them are closed too.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    pub fn at(root: impl Into<PathBuf>) -> Self {
        DataDir { root: root.into() }
    }

    /// Returns `$STEAD_DATA_DIR`, or `/var/lib/stead` for root (QEMU of qemu:///system runs as a user of its
    /// own, which cannot read root's home), or `$XDG_DATA_HOME/stead`. `None` if no home folder is known.
    pub fn find() -> Option<Self> {
        if let Some(dir) = std::env::var_os(DATA_DIR_VARIABLE).filter(|d| !d.is_empty()) {
            return Some(Self::at(dir));
        }
        if nix::unistd::geteuid().is_root() {
            return Some(Self::at("/var/lib/stead"));
        }
        dirs::data_dir().map(|d| Self::at(d.join("stead")))
    }

    /// Checks that the folder is this user's alone, and that this stead knows its layout. What another user can change
    /// there leads to programs, keys and disks, so root must not use it.
    ///
    /// # Errors
    /// If it is not. The text says what to do.
    pub fn check(&self) -> io::Result<()> {
        let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        if !self.root.is_absolute() {
            return refused(format!(
                "it is a relative path, which leads to another folder in each project; set {DATA_DIR_VARIABLE} (or HOME and XDG_DATA_HOME) to an absolute path"
            ));
        }
        // libvirt's XML and OpenSSH's configuration take no others.
        if (self.root.to_str()).is_none_or(|path| path.contains(char::is_control)) {
            return refused(format!(
                "its path has characters that are no text; set {DATA_DIR_VARIABLE} to a folder with a plain name"
            ));
        }
        let own = geteuid();
        let metadata = match fs::metadata(&self.root) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(metadata) = &metadata
            && metadata.uid() != own.as_raw()
        {
            return refused(format!(
                "it belongs to {}, and you are {}; set {DATA_DIR_VARIABLE} to a folder of your own{}",
                named(metadata.uid()),
                named(own.as_raw()),
                or_unset(),
            ));
        }
        if own.is_root()
            && let Some((part, owner)) = foreign_part(&self.root)
        {
            return refused(format!(
                "{} belongs to {}, who can replace what is in it, and you are root; set {DATA_DIR_VARIABLE} to a folder that only root can change{}",
                part.shown(),
                named(owner),
                or_unset(),
            ));
        }
        // A folder that is still empty is closed by `prepare`.
        if metadata.is_some_and(|metadata| metadata.mode() & 0o022 != 0)
            && fs::read_dir(&self.root)?.next().is_some()
        {
            return refused(format!(
                "other users can write in it; if nobody has put anything there, run `chmod go-w {}`",
                crate::host::shell::shell_quote(&self.root.to_string_lossy())
            ));
        }
        match self.layout()?.as_deref() {
            None if self.is_of_others()? => refused(format!(
                "it has files that are not stead's; set {DATA_DIR_VARIABLE} to a new folder, or to an empty one"
            )),
            None | Some(LAYOUT) => Ok(()),
            Some(other) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "its layout is {other:?}, and this stead knows only {LAYOUT:?}; a newer stead has changed it: use that one, or set {DATA_DIR_VARIABLE} to another folder"
                ),
            )),
        }
    }

    /// Whether it has files, and none that stead makes: a home, or a project. stead would close it and fill it.
    fn is_of_others(&self) -> io::Result<bool> {
        let mut names = match fs::read_dir(&self.root) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<io::Result<Vec<_>>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        names.retain(|name| name != "lost+found");
        let is_own = |name: &OsString| {
            (OWN.iter().chain(&FURTHER)).any(|own| name == own)
                || name.to_string_lossy().starts_with(file::INCOMING)
        };
        Ok(!names.is_empty() && !names.iter().any(is_own))
    }

    /// Returns the content of the file `layout`; `None`: there is none, or it is empty.
    fn layout(&self) -> io::Result<Option<String>> {
        match open::text(&self.root.join("layout"), 64) {
            Ok(text) => Ok(Some(text.trim().to_string()).filter(|it| !it.is_empty())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io::Error::new(
                error.kind(),
                format!("its file `layout`: {error}"),
            )),
        }
    }

    /// Makes the missing folders, closed to others, and once closes those that an older stead left open.
    ///
    /// # Errors
    /// If something in it belongs to another user, or [`Self::check`] fails.
    pub fn prepare(&self) -> io::Result<()> {
        self.check()?;
        let passable = if nix::unistd::geteuid().is_root() {
            PASSABLE
        } else {
            CLOSED
        };
        if let Some(above) = self.root.parent() {
            match geteuid().is_root() {
                // QEMU's user passes through them, whatever root's umask.
                true => file::create_folder(above, 0o755)?,
                false => DirBuilder::new()
                    .recursive(true)
                    .mode(0o755)
                    .create(above)?,
            }
        }
        file::open_folder(&self.root, passable)?;
        let layout = self.root.join("layout");
        let is_closed = self.layout()?.is_some();
        for folder in [self.images(), self.machines()] {
            file::open_folder(&folder, passable)?;
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
        // Files in the other folders cannot be reached any more.
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

    /// Returns the first folder, from the top, that a user cannot pass through on the way to the images, and its mode. Access
    /// control lists are not read: with one, the user may.
    pub fn closed_to(&self, user: u32, group: u32) -> Option<(PathBuf, u32)> {
        let images = std::path::absolute(self.images()).ok()?;
        let mut parts: Vec<&Path> = images.ancestors().collect();
        parts.reverse();
        parts.into_iter().find_map(|part| {
            let metadata = fs::metadata(part).ok()?;
            let bit = match (metadata.uid() == user, metadata.gid() == group) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            let is_closed = user != 0 && metadata.mode() & bit == 0;
            is_closed.then(|| (part.to_path_buf(), metadata.mode() & 0o7777))
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The libvirt pool, which also has the box files.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    pub fn boxes(&self) -> PathBuf {
        self.root.join("boxes")
    }
    /// Which boxes a bare name may mean.
    pub fn named(&self) -> PathBuf {
        self.root.join("named")
    }
    /// Where boxes came from.
    pub fn origins(&self) -> PathBuf {
        self.root.join("origins")
    }
    /// Unfinished downloads.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Lists of packages as repositories publish them.
    pub fn package_lists(&self) -> PathBuf {
        self.downloads().join("packages")
    }
    /// Copies of catalogues.
    pub fn catalogues(&self) -> PathBuf {
        self.root.join("catalogues")
    }
    /// When boxes were last used.
    pub fn used(&self) -> PathBuf {
        self.root.join("used")
    }
    /// Registries' manifests of boxes in the store.
    pub fn oci(&self) -> PathBuf {
        self.root.join("oci")
    }
    /// The output of the commands of `stead run`.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }
    /// Private folders of Ansible's runs.
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
    /// Digests of provisioners' inputs, by the stamps of their files.
    pub fn digests(&self) -> PathBuf {
        self.root.join("digests")
    }
    pub fn verified(&self) -> PathBuf {
        self.root.join("verified")
    }
    pub fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }
    /// The states and logs of the processes that watch folders.
    pub fn watch(&self) -> PathBuf {
        self.root.join("watch")
    }
    /// The states and logs of the processes that are projects' networks.
    pub fn networks(&self) -> PathBuf {
        self.root.join("networks")
    }
    /// The output of tools.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    /// The logs of the last runs that changed something.
    pub fn run_logs(&self) -> PathBuf {
        self.logs().join("runs")
    }
    /// What users allow projects to do.
    pub fn trust(&self) -> PathBuf {
        self.root.join("trust")
    }
    /// The user's certificate authority.
    pub fn authority(&self) -> PathBuf {
        self.root.join("authority")
    }
    pub fn machines(&self) -> PathBuf {
        self.root.join("machines")
    }
    pub fn machine(&self, uuid: &uuid::Uuid) -> PathBuf {
        self.machines().join(uuid.to_string())
    }
}

/// What root may do otherwise, if it has chosen the folder.
fn or_unset() -> &'static str {
    let is_chosen = std::env::var_os(DATA_DIR_VARIABLE).is_some_and(|dir| !dir.is_empty());
    match geteuid().is_root() && is_chosen {
        true => ", or unset it: root's own is /var/lib/stead",
        false => "",
    }
}

/// Names a user for messages.
fn named(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("user {uid}"),
    }
}

/// Returns a part of a path, as it is written or with its symlinks resolved, that does not belong to root, and its owner.
fn foreign_part(path: &Path) -> Option<(PathBuf, u32)> {
    let written = std::path::absolute(path).ok()?;
    let there = written.ancestors().find(|part| part.exists())?;
    let resolved = there.canonicalize().ok();
    (written.ancestors())
        .chain(resolved.iter().flat_map(|path| path.ancestors()))
        .find_map(|part| {
            let owner = part.symlink_metadata().ok()?.uid();
            (owner != 0).then(|| (part.to_path_buf(), owner))
        })
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Removes all rights of other users to the files of a folder.
fn close_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && metadata.mode() & 0o077 != 0 {
            match set_mode(&entry.path(), metadata.mode() & 0o700) {
                // Another stead may have removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

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
            data.authority(),
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
            data.run_logs(),
        ] {
            assert!(folder.is_dir(), "{} is missing in OWN", folder.display());
        }
    }

    #[test]
    fn a_folder_that_is_not_steads_stays_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let home = DataDir::at(place.path().join("home"));
        fs::create_dir_all(home.root().join("Documents")).unwrap();
        set_mode(home.root(), 0o755).unwrap();
        let said = home.prepare().unwrap_err().to_string();
        assert!(said.contains("files that are not stead's"), "{said}");
        assert_eq!(fs::metadata(home.root()).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(home.root()).unwrap().count(), 1);
        // A new file system, and one of a killed stead.
        for name in ["lost+found", "images"] {
            let data = DataDir::at(place.path().join(format!("new-{name}")));
            fs::create_dir_all(data.root().join(name)).unwrap();
            data.prepare().unwrap();
        }
    }

    #[test]
    fn only_an_absolute_path_of_text_is_used() {
        let said = |path: &str| DataDir::at(path).check().unwrap_err().to_string();
        assert!(said("rel/stead").contains("a relative path"));
        assert!(said("").contains("a relative path"));
        assert!(said("/new\nline/stead").contains("plain name"));
        let odd: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"/b\xff/stead");
        let said = DataDir::at(odd).check().unwrap_err().to_string();
        assert!(said.contains("plain name"), "{said}");
    }

    #[test]
    fn the_folder_that_keeps_a_user_out_is_named() {
        let place = tempfile::tempdir().unwrap();
        let above = place.path().canonicalize().unwrap().join("above");
        let data = DataDir::at(above.join("stead"));
        fs::create_dir_all(data.images()).unwrap();
        for folder in [place.path(), &above, data.root(), &data.images()] {
            set_mode(folder, 0o711).unwrap();
        }
        let (own, other) = (geteuid().as_raw(), geteuid().as_raw() + 4242);
        let group = fs::metadata(&above).unwrap().gid();
        assert_eq!(data.closed_to(other, group + 1), None);
        set_mode(&above, 0o710).unwrap();
        let closed = Some((above.clone(), 0o710));
        assert_eq!(data.closed_to(other, group + 1), closed);
        assert_eq!(data.closed_to(other, group), None);
        assert_eq!(data.closed_to(own, group + 1), None);
    }

    #[test]
    fn a_folder_of_another_layout_or_open_to_others_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::at(place.path().join("stead"));
        fs::create_dir(data.root()).unwrap();
        set_mode(data.root(), 0o777).unwrap();
        // Still empty.
        data.prepare().unwrap();
        data.prepare().unwrap();
        let said = || data.prepare().unwrap_err().to_string();
        for mode in [0o777, 0o720] {
            set_mode(data.root(), mode).unwrap();
            assert!(said().contains("other users can write in it"), "{}", said());
        }
        set_mode(data.root(), CLOSED).unwrap();
        let layout = data.root().join("layout");
        fs::write(&layout, "2\n").unwrap();
        assert!(
            said().contains("a newer stead has changed it"),
            "{}",
            said()
        );
        assert_eq!(fs::read_to_string(&layout).unwrap(), "2\n");
        fs::remove_file(&layout).unwrap();
        nix::unistd::mkfifo(&layout, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(said().contains("`layout`: it is a pipe"), "{}", said());
        fs::remove_file(&layout).unwrap();
        data.prepare().unwrap();
    }

    /// Only root can make folders of other users.
    #[test]
    fn root_uses_no_folder_that_another_user_can_replace() {
        if !geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let home = place.path().canonicalize().unwrap().join("home");
        let data = DataDir::at(home.join("stead"));
        fs::create_dir_all(data.root()).unwrap();
        let give = |path: &Path, uid| std::os::unix::fs::lchown(path, Some(uid), None).unwrap();
        let said = |data: &DataDir| data.prepare().unwrap_err().to_string();
        data.prepare().unwrap();
        give(data.root(), 4242);
        assert!(said(&data).contains("it belongs to user 4242, and you are root"));
        give(data.root(), 0);
        give(&home, 4242);
        assert!(said(&data).contains("home belongs to user 4242, who can replace"));
        // A link to a folder of root's, in another user's folder.
        let link = DataDir::at(home.join("link"));
        let own = place.path().join("own");
        fs::create_dir(&own).unwrap();
        std::os::unix::fs::symlink(&own, link.root()).unwrap();
        assert!(said(&link).contains("belongs to user 4242"));
        assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
        let missing = DataDir::at(home.join("new"));
        assert!(said(&missing).contains("belongs to user 4242"));
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
        // If a user opens a folder again, it stays open.
        set_mode(&data.runs(), 0o755).unwrap();
        data.prepare().unwrap();
        assert_eq!(mode(&data.runs()), 0o755);
    }
}
