//! Writes files that must survive a crash and a power cut.
//!
//! A file is written under another name in the same folder, synced, renamed, and its folder synced
//! (rename(2), fsync(2)). So a reader sees either the old content or the new one, and later writes can rely on
//! it.

#![expect(
    clippy::disallowed_methods,
    reason = "these are the functions to use instead"
)]

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::memfd::{MFdFlags, memfd_create},
};
use tempfile::NamedTempFile;

use super::open::link;

/// The prefix of unfinished files. A killed stead leaves them; stores remove them.
pub const INCOMING: &str = ".incoming-";

/// The mode of a file that only the user can read.
pub const PRIVATE: u32 = 0o600;
/// The usual mode of a file that others may read.
pub const READABLE: u32 = 0o644;
/// The mode of files of a store, which never change. libvirt gives QEMU's user the files that QEMU uses.
pub const FIXED: u32 = 0o400;

/// Replaces or creates a file.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = folder_of(path);
    loop {
        match nameless(folder, content, mode)? {
            Some(file) if name_as(&file, path)? => return sync_folder(folder),
            // Its name was taken away, and open(2) lets it have none again.
            Some(_) => {}
            None => return persist(written(path, content)?, path, mode),
        }
    }
}

/// Gives a complete file without a name this one, and replaces a file that has it.
///
/// Linux can only rename what has a name already, so it gets one for a moment. That name follows from the final
/// one: what a killed stead leaves is removed when the file is next replaced. Several may do this at once: all
/// files are complete, and the last to rename wins, as with rename(2). `false`: another stead that replaces the
/// same file has removed this one.
fn name_as(file: &File, path: &Path) -> io::Result<bool> {
    let mut between = OsString::from(INCOMING);
    between.push(path.file_name().unwrap_or_default());
    let between = path.with_file_name(between);
    loop {
        match link(file, &between) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match fs::remove_file(&between) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => continue,
                }
            }
            other => other?,
        }
        return match fs::rename(&between, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                let _ = fs::remove_file(&between);
                Err(error)
            }
        };
    }
}

/// Creates a file; fails with [`io::ErrorKind::AlreadyExists`] if there is one.
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match nameless(folder_of(path), content, mode)? {
        Some(file) => link(&file, path)?,
        None => {
            let file = written(path, content)?;
            settle(file.path(), mode)?;
            file.persist_noclobber(path).map_err(|error| error.error)?;
        }
    }
    sync_folder(folder_of(path))
}

/// Replaces a file unless it has that content and mode already.
pub fn ensure(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let is_there = fs::metadata(path).is_ok_and(|metadata| {
        metadata.mode() & 0o7777 == mode && metadata.len() == content.len() as u64
    });
    if is_there && fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    replace(path, content, mode)
}

/// Returns a file without a name that has this content, to be the standard input of a program. It is in memory: the folder
/// of temporary files may be full, or not exist.
pub fn without_name(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("stead", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Creates an unfinished file in `folder`, for content that is written piece by piece; [`persist`] finishes
/// it.
pub fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(INCOMING)
        .tempfile_in(folder)
}

/// Gives an unfinished file its final name, and replaces a file that has it already.
pub fn persist(file: NamedTempFile, path: &Path, mode: u32) -> io::Result<()> {
    settle(file.path(), mode)?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder_of(path))
}

/// Makes a file the content of an unfinished one: it is moved, or copied if they are on different file
/// systems.
pub fn take(from: &Path, into: &mut NamedTempFile) -> io::Result<()> {
    match fs::rename(from, into.path()) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            io::copy(&mut File::open(from)?, into.as_file_mut())?;
            fs::remove_file(from)
        }
        other => {
            other?;
            *into.as_file_mut() = (File::options().read(true).write(true)).open(into.path())?;
            Ok(())
        }
    }
}

/// Renames a complete file or folder. Everything in the folder is synced first.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_dir() {
        nix::unistd::syncfs(File::open(from)?)?;
    } else if !metadata.is_symlink() {
        sync_one(&File::open(from)?)?;
    }
    fs::rename(from, to)?;
    let (old, new) = (folder_of(from), folder_of(to));
    sync_folder(new)?;
    if old != new {
        sync_folder(old)?;
    }
    Ok(())
}

/// Syncs a file that another program made, and its name.
pub fn sync(path: &Path) -> io::Result<()> {
    sync_one(&File::open(path)?)?;
    sync_folder(folder_of(path))
}

/// Syncs a folder's list of names.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    sync_one(&File::open(folder)?)
}

/// Makes a folder and the folders above it, if they are missing, with that mode, whatever the umask.
pub fn create_folder(folder: &Path, mode: u32) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        create_folder(above, mode)?;
    }
    match DirBuilder::new().mode(mode).create(folder) {
        // Another stead made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {
            return Ok(());
        }
        other => other?,
    }
    fs::set_permissions(folder, Permissions::from_mode(mode))?;
    sync_folder(folder_of(folder))
}

/// As [`create_folder`], for one that others must be able to enter: it gets what it lacks of the mode if it is there.
pub fn open_folder(folder: &Path, mode: u32) -> io::Result<()> {
    create_folder(folder, mode)?;
    let has = fs::metadata(folder)?.mode() & 0o7777;
    if has & mode == mode {
        return Ok(());
    }
    fs::set_permissions(folder, Permissions::from_mode(has | mode))
}

/// Writes and syncs a file without a name; `None` if the file system does not support that (open(2),
/// O_TMPFILE).
fn nameless(folder: &Path, content: &[u8], mode: u32) -> io::Result<Option<File>> {
    let opened = File::options()
        .read(true)
        .write(true)
        .mode(PRIVATE)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(folder);
    let mut file = match opened {
        Ok(file) => file,
        // The first is the proper error; kernels and file systems that do not know the flag return the others.
        Err(error)
            if (error.raw_os_error().map(Errno::from_raw)).is_some_and(|it| {
                matches!(it, Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL)
            }) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    sync_one(&file)?;
    Ok(Some(file))
}

fn written(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = temporary(folder_of(path))?;
    file.write_all(content)?;
    Ok(file)
}

/// Sets the mode of a file and syncs it, by its name: a program may have put a new file there.
fn settle(path: &Path, mode: u32) -> io::Result<()> {
    let file = File::options()
        .read(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    sync_one(&file)
}

fn sync_one(file: &File) -> io::Result<()> {
    match file.sync_all() {
        // fsync(2): this file system cannot sync this. Some cannot sync folders.
        Err(error)
            if (error.raw_os_error().map(Errno::from_raw))
                .is_some_and(|it| matches!(it, Errno::EINVAL | Errno::EROFS | Errno::ENOTSUP)) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        replace(&path, b"one", READABLE).unwrap();
        assert_eq!(mode(&path), READABLE);
        replace(&path, b"two", PRIVATE).unwrap();
        assert_eq!(mode(&path), PRIVATE);
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["key"]);
    }

    #[test]
    fn a_folder_that_others_enter_is_opened_again() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("images");
        fs::create_dir(&folder).unwrap();
        for (has, then) in [(0o700, 0o711), (0o755, 0o755), (0o600, 0o711)] {
            fs::set_permissions(&folder, Permissions::from_mode(has)).unwrap();
            open_folder(&folder, 0o711).unwrap();
            assert_eq!(mode(&folder), then, "{has:o}");
        }
    }

    #[test]
    fn what_a_killed_stead_left_is_gone_with_the_next_replacement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(folder.path().join(".incoming-key"), "half").unwrap();
        replace(&path, b"whole", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(names(folder.path()), ["key"]);
        fs::create_dir(folder.path().join("other")).unwrap();
        assert!(replace(&folder.path().join("other"), b"x", PRIVATE).is_err());
        assert_eq!(names(folder.path()), ["key", "other"]);
    }

    #[test]
    fn several_that_replace_a_file_at_once_never_fail_and_leave_one_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::thread::scope(|scope| {
            for content in [b"a", b"b", b"c", b"d"] {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..100 {
                        replace(path, &content.repeat(100), PRIVATE).unwrap();
                    }
                });
            }
        });
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), 100);
        assert!(content.iter().all(|byte| *byte == content[0]));
        assert_eq!(names(folder.path()), ["key"]);
    }

    #[test]
    fn one_that_is_there_is_not_replaced_by_create() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Machinefile");
        create(&path, b"mine", READABLE).unwrap();
        let error = create(&path, b"new", READABLE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        let error = create(&folder.path().join("link"), b"new", READABLE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(folder.path()), ["Machinefile", "link"]);
    }

    #[test]
    fn a_file_that_is_right_is_left_alone_and_one_that_is_not_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ssh_config");
        ensure(&path, b"same", PRIVATE).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        ensure(&path, b"same", PRIVATE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        // A power cut may leave it empty.
        fs::write(&path, b"").unwrap();
        ensure(&path, b"same", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"same");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        ensure(&path, b"same", PRIVATE).unwrap();
        assert_eq!(mode(&path), PRIVATE);
    }

    #[test]
    fn what_a_program_put_under_the_temporary_name_is_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = temporary(folder.path()).unwrap();
        let other = folder.path().join("other");
        fs::write(&other, "converted").unwrap();
        fs::rename(&other, file.path()).unwrap();
        let path = folder.path().join("image");
        persist(file, &path, FIXED).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"converted");
        assert_eq!(mode(&path), FIXED);
    }

    #[test]
    fn a_link_in_the_place_of_the_temporary_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::write(&outside, "x").unwrap();
        fs::set_permissions(&outside, Permissions::from_mode(PRIVATE)).unwrap();
        let file = temporary(folder.path()).unwrap();
        fs::remove_file(file.path()).unwrap();
        std::os::unix::fs::symlink(&outside, file.path()).unwrap();
        assert!(persist(file, &folder.path().join("new"), READABLE).is_err());
        assert_eq!(mode(&outside), PRIVATE);
    }

    #[test]
    fn a_file_of_another_file_system_is_taken_too() {
        let (here, there) = (
            tempfile::tempdir_in("/var/tmp").unwrap(),
            tempfile::tempdir_in("/dev/shm").unwrap(),
        );
        let device = |folder: &tempfile::TempDir| fs::metadata(folder.path()).unwrap().dev();
        assert_ne!(device(&here), device(&there), "this test needs two");
        for folder in [&here, &there] {
            let from = folder.path().join("part");
            fs::write(&from, "whole").unwrap();
            let mut file = temporary(here.path()).unwrap();
            take(&from, &mut file).unwrap();
            assert!(!from.exists());
            let path = here.path().join("image");
            persist(file, &path, FIXED).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"whole");
        }
    }

    #[test]
    fn folders_are_made_with_their_mode_and_renamed() {
        let base = tempfile::tempdir().unwrap();
        let deep = base.path().join("a/b");
        create_folder(&deep, 0o711).unwrap();
        create_folder(&deep, 0o700).unwrap();
        assert_eq!(mode(&deep), 0o711);
        assert_eq!(mode(&base.path().join("a")), 0o711);
        rename(&deep, &base.path().join("c")).unwrap();
        assert_eq!(names(base.path()), ["a", "c"]);
        assert!(create_folder(&base.path().join("f"), 0o700).is_ok());
        fs::write(base.path().join("file"), "").unwrap();
        assert!(create_folder(&base.path().join("file"), 0o700).is_err());
    }
}
