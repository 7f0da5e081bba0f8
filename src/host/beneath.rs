//! A folder that is filled with foreign names: whatever a name is, nothing outside the folder is opened, made
//! or linked.
//!
//! The kernel refuses paths that lead out (openat2(2), `RESOLVE_BENEATH`). If it is too old, or a sandbox
//! forbids the call, stead opens one name at a time and follows no symlink, with the same result.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{Mode, mkdirat},
    unistd::{linkat, symlinkat},
};

/// An open folder. Paths below it are relative.
#[derive(Debug)]
pub struct Folder {
    folder: OwnedFd,
    path: PathBuf,
    /// Whether openat2(2) is used; tests also try without it.
    by_kernel: bool,
}

impl Folder {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Folder {
            folder: File::open(path)?.into(),
            path: path.to_path_buf(),
            by_kernel: true,
        })
    }

    /// Uses a folder that is already open; `path` is its name in messages.
    pub fn of(folder: OwnedFd, path: &Path) -> Self {
        Folder {
            folder,
            path: path.to_path_buf(),
            by_kernel: true,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder and the folders above it, if they are missing.
    pub fn make_folders(&self, below: &Path) -> io::Result<()> {
        let mut so_far = PathBuf::new();
        for name in names(below)? {
            so_far.push(name);
            match self.make_folder(&so_far, 0o755) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        // If something was there already, it must be a folder.
        self.descend(below).map(drop)
    }

    /// Makes one folder. It must not exist yet.
    pub fn make_folder(&self, below: &Path, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent(below)?;
        mkdirat(&parent, name, Mode::from_bits_truncate(mode))?;
        // The umask must not change the mode.
        let made = openat(
            &parent,
            name,
            OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        File::from(made).set_permissions(fs::Permissions::from_mode(mode))
    }

    /// Creates a file for writing. Its folder must exist.
    pub fn create(&self, below: &Path) -> io::Result<File> {
        let (parent, name) = self.parent(below)?;
        let file = openat(
            &parent,
            name,
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::from_bits_truncate(0o644),
        )?;
        Ok(file.into())
    }

    /// Opens a regular file for reading.
    pub fn read(&self, below: &Path) -> io::Result<File> {
        let (parent, name) = self.parent(below)?;
        // Opening a pipe would wait for its other end.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(&parent, name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(file)
    }

    /// Gives a regular file a second name.
    pub fn hard_link(&self, first: &Path, second: &Path) -> io::Result<()> {
        self.read(first)?;
        let (from, name) = self.parent(first)?;
        let (to, other) = self.parent(second)?;
        Ok(linkat(&from, name, &to, other, AtFlags::empty())?)
    }

    /// Makes a symlink. The caller must check its target: nothing here follows it.
    pub fn symlink(&self, target: &Path, below: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(below)?;
        Ok(symlinkat(target, &parent, name)?)
    }

    /// Returns the open folder of the path's last name, and that name.
    fn parent<'p>(&self, below: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let names = names(below)?;
        let name = *names.last().ok_or_else(|| refused(below, "it is empty"))?;
        let parent = below.parent().unwrap_or(Path::new(""));
        Ok((self.descend(parent)?, name))
    }

    /// Opens a folder below this one, or this one if the path is empty.
    pub fn folder(&self, below: &Path) -> io::Result<OwnedFd> {
        self.descend(below)
    }

    fn descend(&self, below: &Path) -> io::Result<OwnedFd> {
        let names = names(below)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        if names.is_empty() {
            return self.folder.try_clone();
        }
        if self.by_kernel {
            let how = OpenHow::new().flags(flags).resolve(
                ResolveFlag::RESOLVE_BENEATH
                    | ResolveFlag::RESOLVE_NO_SYMLINKS
                    | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            );
            match openat2(&self.folder, below, how) {
                // Linux before 5.6, or a filter of system calls that does not know this one.
                Err(Errno::ENOSYS | Errno::EPERM) => {}
                other => return Ok(other?),
            }
        }
        let mut at = self.folder.try_clone()?;
        for name in names {
            at = openat(at.as_fd(), name, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
        }
        Ok(at)
    }
}

/// Returns the names of a relative path. Fails if it goes up or starts at the root.
fn names(below: &Path) -> io::Result<Vec<&OsStr>> {
    below
        .components()
        .map(|part| match part {
            Component::Normal(name) => Ok(name),
            _ => Err(refused(below, "it leads out of the folder")),
        })
        .collect()
}

fn refused(below: &Path, why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{below:?} is refused: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Runs a test both ways: with the kernel's check, and name by name.
    fn each(test: impl Fn(&Folder, &Path)) {
        for by_kernel in [true, false] {
            let outer = tempfile::tempdir().unwrap();
            let inner = outer.path().join("inner");
            fs::create_dir(&inner).unwrap();
            fs::create_dir(outer.path().join("outside")).unwrap();
            fs::write(outer.path().join("outside/secret"), "secret").unwrap();
            let folder = Folder {
                by_kernel,
                ..Folder::open(&inner).unwrap()
            };
            test(&folder, outer.path());
            let outside: Vec<_> = fs::read_dir(outer.path().join("outside"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(outside, ["secret"]);
        }
    }

    #[test]
    fn what_stays_inside_is_made_and_read() {
        each(|folder, outer| {
            let place = Path::new("a/b/c");
            folder.make_folders(Path::new("a/b")).unwrap();
            folder.make_folders(Path::new("a/b")).unwrap();
            folder.create(place).unwrap().write_all(b"x").unwrap();
            folder.hard_link(place, Path::new("d")).unwrap();
            let mut text = String::new();
            let mut file = folder.read(Path::new("d")).unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "x");
            let again = folder.create(place).unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            assert!(folder.make_folders(place).is_err());
            folder.symlink(Path::new("b/c"), Path::new("a/l")).unwrap();
            assert!(outer.join("inner/a/l").is_file());
        });
    }

    #[test]
    fn what_leads_out_is_refused_whichever_way() {
        each(|folder, outer| {
            let absolute = outer.join("outside/new");
            for name in [
                Path::new("../outside/new"),
                Path::new("a/../../outside/new"),
                Path::new(".."),
                Path::new(""),
                &absolute,
            ] {
                assert!(folder.create(name).is_err(), "{name:?}");
                assert!(folder.read(name).is_err(), "{name:?}");
                assert!(folder.make_folder(name, 0o755).is_err(), "{name:?}");
                assert!(folder.symlink(Path::new("x"), name).is_err(), "{name:?}");
            }
            assert!(folder.make_folders(Path::new("../outside/new")).is_err());
        });
    }

    #[test]
    fn no_link_is_followed() {
        each(|folder, outer| {
            let outside = outer.join("outside");
            folder.symlink(&outside, Path::new("out")).unwrap();
            folder
                .symlink(&outside.join("secret"), Path::new("file"))
                .unwrap();
            folder
                .symlink(&outside.join("new"), Path::new("dangling"))
                .unwrap();
            for name in ["out/new", "out/secret", "file", "dangling"] {
                assert!(folder.create(Path::new(name)).is_err(), "{name}");
                assert!(folder.read(Path::new(name)).is_err(), "{name}");
            }
            assert!(folder.make_folders(Path::new("out/new")).is_err());
            assert!(folder.make_folders(Path::new("out")).is_err());
            assert!(
                folder
                    .hard_link(Path::new("out/secret"), Path::new("x"))
                    .is_err()
            );
            assert!(folder.hard_link(Path::new("file"), Path::new("x")).is_err());
        });
    }
}
