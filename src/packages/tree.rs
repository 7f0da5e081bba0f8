//! Writes a kernel's files from packages to the disk. Other files of the packages are skipped, and nothing outside of
//! the folder is written.
//!
//! Packages are foreign, so their paths are not trusted. Only this code makes folders, and it makes links last, so no
//! file is written through a link.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    host::{beneath::Folder, free_space, names::check_release},
    report::clean::Shown,
};

/// A kernel has about 5000 modules.
const MOST_FILES: usize = 100_000;
/// In bytes; the largest module trees have 1 GiB.
const MOST_BYTES: u64 = 4 << 30;
/// As PATH_MAX, in bytes.
const LONGEST_PATH: usize = 4096;
/// Most bytes that are unpacked from one package, including skipped files.
pub(super) const MOST_UNPACKED: u64 = 2 * MOST_BYTES;

/// Why a package could not be unpacked.
#[derive(Debug)]
pub(super) enum UnpackError {
    /// The package is damaged or malicious, with the reason.
    BadPackage(String),
    /// The host's disk failed, with the path.
    Io(PathBuf, io::Error),
}

impl UnpackError {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        UnpackError::BadPackage(message.into())
    }
}

/// The files of an unpacked kernel, all in one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// As `uname -r` will print it.
    pub release: String,
    pub image: PathBuf,
    pub config: Option<PathBuf>,
    pub system_map: Option<PathBuf>,
    /// `…/lib/modules/RELEASE`. Packages of modules have no modules.dep: depmod(8) writes it on the system that they are
    /// installed on.
    pub modules: Option<PathBuf>,
}

/// A folder into which a kernel's packages are unpacked.
pub(super) struct Tree {
    root: Folder,
    releases: BTreeSet<String>,
    folders: BTreeSet<PathBuf>,
    /// Targets by path of the link.
    links: BTreeMap<PathBuf, PathBuf>,
    files: usize,
    bytes: u64,
    room: free_space::Watch,
}

impl Tree {
    /// `root` must exist and be empty, and only this process may write to it.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        Ok(Tree {
            root: Folder::open(root)?,
            releases: BTreeSet::new(),
            folders: BTreeSet::new(),
            links: BTreeMap::new(),
            files: 0,
            bytes: 0,
            room: free_space::Watch::default(),
        })
    }

    /// Returns the path of a package's entry below the folder; `None` if a kernel does not need the entry.
    ///
    /// # Errors
    /// If no honest package has such a path.
    pub(super) fn place(&mut self, path: &[u8]) -> Result<Option<PathBuf>, UnpackError> {
        let text = plain(path)?;
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
        let parts = match parts.as_slice() {
            ["usr", rest @ ..] if rest.first() == Some(&"lib") => rest,
            parts => parts,
        };
        let release = match parts {
            ["boot", file] => {
                let Some(release) = ["vmlinuz-", "vmlinux-", "config-", "System.map-"]
                    .iter()
                    .find_map(|prefix| file.strip_prefix(prefix))
                else {
                    return Ok(None);
                };
                release
            }
            // Links to the folder in which the kernel was built, which does not exist here.
            ["lib", "modules", _, "build" | "source", ..] => return Ok(None),
            ["lib", "modules", release, ..] => release,
            _ => return Ok(None),
        };
        if release.is_empty() {
            return Ok(None);
        }
        self.releases.insert(release.to_string());
        Ok(Some(parts.iter().collect()))
    }

    pub(super) fn folder(&mut self, place: &Path) -> Result<(), UnpackError> {
        self.count(0)?;
        self.folders_to(place)
    }

    /// Writes a file. `size` is its size in the package; no more is read.
    pub(super) fn file(
        &mut self,
        place: &Path,
        size: u64,
        reader: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        self.count(size)?;
        if let Some(parent) = place.parent() {
            self.folders_to(parent)?;
        }
        if self.links.contains_key(place) {
            return Err(twice(place));
        }
        let path = self.root.path().join(place);
        // In some packages only root can read the image, because it reveals the addresses of the host's own kernel. A
        // downloaded image is public.
        let mut file = self
            .root
            .create(place)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => twice(place),
                _ => UnpackError::Io(path.clone(), error),
            })?;
        let copied =
            copy(&mut reader.take(size), &mut file, &mut self.room).map_err(
                |error| match error {
                    CopyError::Read(error) => unreadable(&error),
                    CopyError::Write(error) => UnpackError::Io(path.clone(), error),
                },
            )?;
        if copied < size {
            return Err(UnpackError::bad(format!(
                "its file {} is truncated",
                place.shown()
            )));
        }
        Ok(())
    }

    /// Notes a symlink, which is made after all files. Links that leave this kernel's own files are refused.
    pub(super) fn link(&mut self, place: &Path, target: &[u8]) -> Result<(), UnpackError> {
        self.count(0)?;
        let refused = || {
            UnpackError::bad(format!(
                "its link {} leads out of the kernel's folder, to {:?}",
                place.shown(),
                String::from_utf8_lossy(target)
            ))
        };
        let text = std::str::from_utf8(target).map_err(|_| refused())?;
        if text.is_empty()
            || text.starts_with('/')
            || text.contains('\0')
            || text.len() > LONGEST_PATH
        {
            return Err(refused());
        }
        // The path to which it leads, from the root of the tree.
        let mut depth: Vec<&str> = place
            .parent()
            .into_iter()
            .flat_map(|parent| parent.iter())
            .filter_map(|part| part.to_str())
            .collect();
        // No link may climb above the folder of its own release.
        let floor = match depth.as_slice() {
            ["lib", "modules", _, ..] => 3,
            ["boot"] => 1,
            _ => return Err(refused()),
        };
        let mut down = false;
        for part in text.split('/') {
            match part {
                "" | "." => {}
                // A folder before this `..` may be a link, and then its parent is another folder.
                ".." if down => return Err(refused()),
                ".." => {
                    depth.pop();
                    if depth.len() < floor {
                        return Err(refused());
                    }
                }
                _ => down = true,
            }
        }
        if self
            .links
            .insert(place.to_path_buf(), PathBuf::from(text))
            .is_some()
        {
            return Err(twice(place));
        }
        Ok(())
    }

    /// Makes a hard link to an earlier file.
    pub(super) fn hard_link(&mut self, place: &Path, first: &[u8]) -> Result<(), UnpackError> {
        self.count(0)?;
        let none = |first: &[u8]| {
            UnpackError::bad(format!(
                "{} is a hard link to {:?}, which is not one of its files",
                place.shown(),
                String::from_utf8_lossy(first)
            ))
        };
        let Some(target) = self.place(first)? else {
            return Err(none(first));
        };
        if let Some(parent) = place.parent() {
            self.folders_to(parent)?;
        }
        if self.root.read(&target).is_err() {
            return Err(none(first));
        }
        if self.links.contains_key(place) {
            return Err(twice(place));
        }
        (self.root.hard_link(&target, place)).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => twice(place),
            _ => UnpackError::Io(self.root.path().join(place), error),
        })
    }

    /// Makes the links, and returns the kernel's files, with paths as if the folder were at `at`.
    ///
    /// # Errors
    /// If there is not exactly one kernel.
    pub(super) fn finish(mut self, at: &Path) -> Result<Unpacked, UnpackError> {
        let release = {
            let mut releases = self.releases.iter();
            match (releases.next(), releases.next()) {
                (Some(release), None) => release.clone(),
                (None, _) => return Err(UnpackError::bad("it contains no kernel")),
                (Some(_), Some(_)) => {
                    let names: Vec<&str> = self.releases.iter().map(String::as_str).collect();
                    return Err(UnpackError::bad(format!(
                        "it contains parts of several kernels: {}",
                        names.join(", ")
                    )));
                }
            }
        };
        check_release(&release).map_err(UnpackError::bad)?;
        for (place, target) in std::mem::take(&mut self.links) {
            if let Some(parent) = place.parent() {
                self.folders_to(parent)?;
            }
            (self.root.symlink(&target, &place)).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => twice(&place),
                _ => UnpackError::Io(self.root.path().join(&place), error),
            })?;
        }
        let first = |names: &[String]| {
            names
                .iter()
                .find(|name| self.root.path().join(name).is_file())
                .map(|name| at.join(name))
        };
        let modules = format!("lib/modules/{release}");
        let Some(image) = first(&[
            format!("boot/vmlinuz-{release}"),
            format!("boot/vmlinux-{release}"),
            format!("{modules}/vmlinuz"),
        ]) else {
            return Err(UnpackError::bad(format!(
                "it contains no image of kernel {release}"
            )));
        };
        Ok(Unpacked {
            image,
            config: first(&[
                format!("boot/config-{release}"),
                format!("{modules}/config"),
            ]),
            system_map: first(&[
                format!("boot/System.map-{release}"),
                format!("{modules}/System.map"),
            ]),
            modules: (self.root.path().join(&modules).is_dir()).then(|| at.join(&modules)),
            release,
        })
    }

    /// Counts a name whose content comes later.
    pub(super) fn announced(&mut self) -> Result<(), UnpackError> {
        self.count(0)
    }

    fn count(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.files > MOST_FILES {
            return Err(UnpackError::bad(format!(
                "it has more than {MOST_FILES} files"
            )));
        }
        if self.bytes > MOST_BYTES {
            return Err(UnpackError::bad(format!(
                "its files have more than {MOST_BYTES} bytes"
            )));
        }
        Ok(())
    }

    fn folders_to(&mut self, place: &Path) -> Result<(), UnpackError> {
        if self.folders.contains(place) {
            return Ok(());
        }
        let mut so_far = PathBuf::new();
        for part in place.iter() {
            so_far.push(part);
            if self.links.contains_key(&so_far) {
                return Err(twice(&so_far));
            }
            if self.folders.contains(&so_far) {
                continue;
            }
            (self.root.make_folder(&so_far, 0o755)).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => twice(&so_far),
                _ => UnpackError::Io(self.root.path().join(&so_far), error),
            })?;
            self.folders.insert(so_far.clone());
        }
        Ok(())
    }
}

fn twice(place: &Path) -> UnpackError {
    UnpackError::bad(format!("its entry {} occurs twice", place.shown()))
}

/// The error for an archive that cannot be unpacked.
pub(super) fn unreadable(error: &io::Error) -> UnpackError {
    UnpackError::bad(format!("cannot unpack it: {error}"))
}

/// Returns a path without `.` and empty parts. Packages' paths are relative, and some begin with `./`.
fn plain(path: &[u8]) -> Result<String, UnpackError> {
    let shown = || String::from_utf8_lossy(&path[..path.len().min(200)]).into_owned();
    let text = std::str::from_utf8(path).map_err(|_| {
        UnpackError::bad(format!("the name of its entry {:?} is not UTF-8", shown()))
    })?;
    if text.len() > LONGEST_PATH || text.contains('\0') {
        return Err(UnpackError::bad(format!(
            "its entry {:?} has an invalid name",
            shown()
        )));
    }
    if text.starts_with('/') || text.split('/').any(|part| part == "..") {
        return Err(UnpackError::bad(format!(
            "its entry {:?} leads out of the kernel's folder",
            shown()
        )));
    }
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    Ok(parts.join("/"))
}

/// The side of a copy that failed.
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

fn copy(
    reader: &mut dyn Read,
    file: &mut File,
    room: &mut free_space::Watch,
) -> Result<u64, CopyError> {
    use std::io::Write;
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        room.before(file, n as u64)
            .and_then(|()| file.write_all(&buffer[..n]))
            .map_err(CopyError::Write)?;
        total += n as u64;
    }
}

/// A reader with a limit. More bytes than that are an error, not the end.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, most: u64) -> Self {
        Bounded { inner, left: most }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it has more than {MOST_UNPACKED} bytes"),
            )
        })?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "6.1.0-1-test";

    fn tree() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::new(folder.path()).unwrap();
        (folder, tree)
    }

    fn put(tree: &mut Tree, path: &str) -> Result<(), UnpackError> {
        let Some(place) = tree.place(path.as_bytes())? else {
            return Ok(());
        };
        tree.file(&place, 1, &mut &b"x"[..])
    }

    fn message(result: Result<impl std::fmt::Debug, UnpackError>) -> String {
        match result.unwrap_err() {
            UnpackError::BadPackage(message) => message,
            disk => panic!("{disk:?}"),
        }
    }

    #[test]
    fn a_kernel_and_nothing_else() {
        let (folder, mut tree) = tree();
        for path in [
            format!("./boot/vmlinuz-{RELEASE}"),
            format!("./boot/config-{RELEASE}"),
            "./boot/grub.cfg".to_string(),
            format!("./usr/lib/modules/{RELEASE}/kernel/fs/x.ko.xz"),
            format!("./usr/lib/modules/{RELEASE}/build"),
            "./usr/share/doc/x".to_string(),
            "etc/passwd".to_string(),
        ] {
            put(&mut tree, &path).unwrap();
        }
        let at = Path::new("/there");
        let found = tree.finish(at).unwrap();
        assert_eq!(found.release, RELEASE);
        assert_eq!(found.image, at.join(format!("boot/vmlinuz-{RELEASE}")));
        assert_eq!(
            found.config,
            Some(at.join(format!("boot/config-{RELEASE}")))
        );
        assert_eq!(found.system_map, None);
        assert_eq!(
            found.modules,
            Some(at.join(format!("lib/modules/{RELEASE}")))
        );
        assert!(!folder.path().join("etc").exists());
        assert!(
            !folder
                .path()
                .join(format!("lib/modules/{RELEASE}/build"))
                .exists()
        );
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in [
            "/boot/vmlinuz-1",
            "../boot/vmlinuz-1",
            "./lib/modules/1/../../../x",
            "usr/share/../../etc/x",
            "boot/vmlinuz-\0",
        ] {
            let (_folder, mut tree) = tree();
            assert!(tree.place(path.as_bytes()).is_err(), "{path}");
        }
        let (_folder, mut tree) = tree();
        assert!(tree.place(b"boot/vmlinuz-\xff").is_err());
        // `.` is not a release.
        assert!(matches!(tree.place(b"lib/modules/."), Ok(None)));
    }

    #[test]
    fn links_stay_within_the_release() {
        let module = format!("lib/modules/{RELEASE}/kernel");
        for (target, good) in [
            ("x.ko", true),
            ("../kernel/x.ko", true),
            ("../../other/x.ko", false),
            ("../../../../etc/passwd", false),
            ("/etc/passwd", false),
            ("a/../x.ko", false),
            ("", false),
        ] {
            let (_folder, mut tree) = tree();
            let place = tree
                .place(format!("{module}/link").as_bytes())
                .unwrap()
                .unwrap();
            assert_eq!(
                tree.link(&place, target.as_bytes()).is_ok(),
                good,
                "{target}"
            );
        }
    }

    #[test]
    fn a_release_is_a_folder_and_no_link() {
        let (_folder, mut tree) = tree();
        let place = tree.place(b"lib/modules/1").unwrap().unwrap();
        assert!(tree.link(&place, b"2").is_err());
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let (folder, mut tree) = tree();
        put(&mut tree, &format!("boot/vmlinuz-{RELEASE}")).unwrap();
        let link = tree
            .place(format!("lib/modules/{RELEASE}/kernel").as_bytes())
            .unwrap()
            .unwrap();
        tree.link(&link, b"elsewhere").unwrap();
        let through = put(&mut tree, &format!("lib/modules/{RELEASE}/kernel/x.ko"));
        assert!(message(through).contains("occurs twice"));
        // The other way round: a folder that becomes a link.
        let folder_first = tree
            .place(format!("lib/modules/{RELEASE}/extra").as_bytes())
            .unwrap()
            .unwrap();
        tree.folder(&folder_first).unwrap();
        tree.link(&folder_first, b"kernel").unwrap();
        assert!(message(tree.finish(folder.path())).contains("occurs twice"));
    }

    #[test]
    fn hard_links_are_to_files_of_the_tree() {
        let (folder, mut tree) = tree();
        put(&mut tree, &format!("boot/vmlinuz-{RELEASE}")).unwrap();
        let place = tree
            .place(format!("lib/modules/{RELEASE}/vmlinuz").as_bytes())
            .unwrap()
            .unwrap();
        for first in ["etc/passwd", "boot/vmlinuz-other", "../../etc/passwd"] {
            let (_folder, mut tree) = self::tree();
            assert!(tree.hard_link(&place, first.as_bytes()).is_err(), "{first}");
        }
        tree.hard_link(&place, format!("./boot/vmlinuz-{RELEASE}").as_bytes())
            .unwrap();
        assert!(folder.path().join(place).is_file());
    }

    #[test]
    fn one_kernel_with_an_image() {
        let (folder, mut tree) = tree();
        put(&mut tree, "usr/share/x").unwrap();
        assert!(message(tree.finish(folder.path())).contains("no kernel"));
        let (folder, mut tree) = self::tree();
        put(&mut tree, "lib/modules/1/x.ko").unwrap();
        assert!(message(tree.finish(folder.path())).contains("contains no image"));
        let (folder, mut tree) = self::tree();
        put(&mut tree, "boot/vmlinuz-1").unwrap();
        put(&mut tree, "lib/modules/2/x.ko").unwrap();
        assert!(message(tree.finish(folder.path())).contains("several kernels: 1, 2"));
    }

    #[test]
    fn bounds() {
        let (_folder, mut tree) = tree();
        let place = tree.place(b"lib/modules/1/x").unwrap().unwrap();
        let refused = tree.file(&place, MOST_BYTES + 1, &mut io::empty());
        assert!(message(refused).contains("bytes"));
        let cut = self::tree().1.file(&place, 2, &mut &b"x"[..]);
        assert!(cut.is_err());
        let mut bounded = Bounded::new(io::repeat(0), 10);
        assert!(io::copy(&mut bounded, &mut io::sink()).is_err());
    }
}
