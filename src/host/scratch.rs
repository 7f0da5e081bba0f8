//! Temporary folders that are removed however the process ends: when they are dropped, before a signal ends the process,
//! and after a kill by another process, which finds that nobody holds the lock in them.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{fcntl::OFlag, unistd::geteuid};

use super::{
    file,
    interrupt::{LastAct, before_end},
    process::Start,
};

/// The file in each such folder that its process holds a lock on. A folder without it is not one of these.
const LOCK: &str = "stead.lock";

/// A temporary folder, which others can enter.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    _held: File,
    _last: LastAct,
}

impl Scratch {
    /// Makes a folder in `base` whose name begins with `prefix`.
    ///
    /// # Errors
    /// If it cannot be made, or the file system has no locks.
    #[expect(
        clippy::disallowed_methods,
        reason = "in a temporary folder, of which nothing is kept"
    )]
    pub fn new(base: &Path, prefix: &str) -> io::Result<Self> {
        let made = tempfile::Builder::new().prefix(prefix).tempdir_in(base)?;
        fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755))?;
        // The lock is held before the file has its name, so that nobody finds it free.
        let (unfinished, lock) = (made.path().join(".lock"), made.path().join(LOCK));
        let held = File::options()
            .create_new(true)
            .write(true)
            .mode(file::PRIVATE)
            .open(&unfinished)?;
        held.try_lock().map_err(io::Error::from)?;
        fs::rename(unfinished, lock)?;
        let folder = made.keep();
        let removed = folder.clone();
        Ok(Scratch {
            folder,
            _held: held,
            _last: before_end(move || remove(&removed)),
        })
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// A temporary folder of tempfile's that is also removed before a signal ends the process. What a kill leaves of it is
/// for its owner to find.
#[derive(Debug)]
pub struct Temporary {
    folder: tempfile::TempDir,
    _last: LastAct,
}

impl Temporary {
    pub fn of(folder: tempfile::TempDir) -> Self {
        let removed = folder.path().to_path_buf();
        Temporary {
            folder,
            _last: before_end(move || drop(fs::remove_dir_all(removed))),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Returns the folders in `base` with this prefix that killed processes of this user left.
pub fn abandoned(base: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = (fs::read_dir(base).into_iter().flatten().flatten())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .filter(|folder| free(folder).is_some())
        .collect();
    found.sort();
    found
}

/// Removes a folder that [`abandoned`] found, unless a process holds it now.
///
/// # Errors
/// If a part of it cannot be removed.
pub fn remove_abandoned(folder: &Path) -> io::Result<()> {
    let Some(_held) = free(folder) else {
        return Ok(());
    };
    remove(folder);
    match folder.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(io::Error::other("a part of it cannot be removed")),
    }
}

/// Returns the lock of a folder if the folder and the lock are this user's and nobody holds it. Others may make folders
/// of such names in /var/tmp, too.
fn free(folder: &Path) -> Option<File> {
    let own = geteuid().as_raw();
    let metadata = folder.symlink_metadata().ok()?;
    if !metadata.is_dir() || metadata.uid() != own {
        return None;
    }
    let lock = File::options()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(folder.join(LOCK))
        .ok()?;
    let metadata = lock.metadata().ok()?;
    (metadata.is_file() && metadata.uid() == own && lock.try_lock().is_ok()).then_some(lock)
}

/// Removes a folder, but nothing that is mounted in it. Files that were made in a user namespace belong to other users
/// outside of it, so they are removed in such a namespace.
fn remove(folder: &Path) {
    run(&["rm"], folder);
    if !geteuid().is_root() && folder.symlink_metadata().is_ok() {
        run(&["unshare", "--map-auto", "--map-root-user", "rm"], folder);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it also runs before a signal ends the process, when no program is run otherwise"
)]
fn run(words: &[&str], folder: &Path) {
    // What cannot be removed is left for the next process.
    let _ = Command::new(words[0])
        .args(&words[1..])
        .args(["-rf", "--one-file-system", "--"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .start()
        .and_then(|mut child| child.wait());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_folders_that_nobody_holds_are_removed() {
        let base = tempfile::tempdir().unwrap();
        let at = |name: &str| base.path().join(name);
        let held = Scratch::new(base.path(), "work-").unwrap();
        let left = {
            let scratch = Scratch::new(base.path(), "work-").unwrap();
            let left = at("work-left");
            fs::rename(scratch.path(), &left).unwrap();
            left
        };
        fs::create_dir(left.join("more")).unwrap();
        // Not stead's: no lock in it, another name, or a link.
        fs::create_dir(at("work-users-own")).unwrap();
        fs::create_dir(at("other")).unwrap();
        fs::write(at("other").join(LOCK), "").unwrap();
        symlink(at("other"), at("work-link")).unwrap();
        fs::create_dir(at("work-pipe")).unwrap();
        let pipe = at("work-pipe").join(LOCK);
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(at("work-links")).unwrap();
        symlink(at("other").join(LOCK), at("work-links").join(LOCK)).unwrap();
        assert_eq!(abandoned(base.path(), "work-"), std::slice::from_ref(&left));
        remove_abandoned(&left).unwrap();
        remove_abandoned(held.path()).unwrap();
        assert!(!left.exists() && held.path().exists() && at("other").join(LOCK).exists());
        let path = held.path().to_path_buf();
        drop(held);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 5);
    }
}
