//! A folder that is filled by names that others chose: whatever a name says, nothing outside of the
//! folder is opened, made or linked.
//!
//! The kernel is asked to refuse what leads out (openat2(2), `RESOLVE_BENEATH`). One that is too
//! old for that, or a sandbox that knows no such call, gets a walk by one name at a time that
//! follows no link, which comes to the same.

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
    /// openat2(2) is asked; tests do without.
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

    /// Of a folder that is open; `path` is what it is called in messages.
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

    /// A folder and those above it, where they are not there.
    pub fn make_folders(&self, below: &Path) -> io::Result<()> {
        let mut so_far = PathBuf::new();
        for name in names(below)? {
            so_far.push(name);
            match self.make_folder(&so_far, 0o755) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        // What was there already has to be a folder.
        self.descend(below).map(drop)
    }

    /// One folder, which may not be there yet.
    pub fn make_folder(&self, below: &Path, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent(below)?;
        mkdirat(&parent, name, Mode::from_bits_truncate(mode))?;
        // Whatever the umask is.
        let made = openat(
            &parent,
            name,
            OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        File::from(made).set_permissions(fs::Permissions::from_mode(mode))
    }

    /// A new file, to be written. Its folder is there.
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

    /// A regular file, to be read.
    pub fn read(&self, below: &Path) -> io::Result<File> {
        let (parent, name) = self.parent(below)?;
        // One that is a pipe would wait for its other end.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(openat(&parent, name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(file)
    }

    /// A second name of a regular file.
    pub fn hard_link(&self, first: &Path, second: &Path) -> io::Result<()> {
        self.read(first)?;
        let (from, name) = self.parent(first)?;
        let (to, other) = self.parent(second)?;
        Ok(linkat(&from, name, &to, other, AtFlags::empty())?)
    }

    /// A symlink. Where it leads is the caller's to judge: nothing here follows it.
    pub fn symlink(&self, target: &Path, below: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(below)?;
        Ok(symlinkat(target, &parent, name)?)
    }

    /// The open folder that holds the last name, and that name.
    fn parent<'p>(&self, below: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let names = names(below)?;
        let name = *names
            .last()
            .ok_or_else(|| refused(below, "it names nothing"))?;
        let parent = below.parent().unwrap_or(Path::new(""));
        Ok((self.descend(parent)?, name))
    }

    /// An open folder below it, or itself where the path is empty.
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
                // Before Linux 5.6, and where a filter of system calls does not know it.
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

/// The names of a relative path. Fails for one that goes up or starts at the root.
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

    /// Both ways: the kernel's, and the walk.
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
