//! Opens files and folders of the host that others may replace while stead works.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat},
    sys::stat::{Mode, SFlag, fstat},
    unistd::linkat,
};

use crate::report::clean::Shown;

/// Opens a regular file. A pipe or a device is refused, and not waited for.
///
/// # Errors
/// If it cannot be opened, or is something else.
pub fn file(path: &Path) -> io::Result<File> {
    let opened = File::options()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path);
    // Opening a socket fails.
    let metadata = match &opened {
        Ok(file) => file.metadata()?,
        Err(_) => match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(_) => return opened,
        },
    };
    match what(&metadata) {
        None => opened,
        Some(what) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("it is {what}, not a regular file"),
        )),
    }
}

/// Names the type of a file; `None`: a regular file.
fn what(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a folder"),
        () if kind.is_fifo() => Some("a pipe"),
        () if kind.is_socket() => Some("a socket"),
        () => Some("a device"),
    }
}

/// Names what is at a path where a file is expected. `None`: a regular file, or nothing.
pub fn in_place_of_file(path: &Path) -> Option<String> {
    match std::fs::metadata(path) {
        Ok(metadata) => what(&metadata).map(str::to_string),
        // A dangling symlink is reported too.
        Err(_) => std::fs::read_link(path)
            .ok()
            .map(|to| format!("a symlink to {}, which does not exist", to.shown())),
    }
}

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// If it cannot be read, is not a regular file, or is larger.
pub fn bytes(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bytes_of(file(path)?, limit)
}

/// Reads a regular file like [`bytes`], if it is in `root` (a path without symlinks) after all symlinks are resolved.
///
/// # Errors
/// Those of [`bytes`], and if it is elsewhere.
pub fn bytes_within(path: &Path, limit: u64, root: &Path) -> io::Result<Vec<u8>> {
    bytes_of(file_within(path, root)?, limit)
}

fn bytes_of(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // The file may grow meanwhile, so the limit is not checked by its size.
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {}", crate::report::bytes(limit)),
        ));
    }
    Ok(content)
}

/// Reads a text file like [`bytes`].
///
/// # Errors
/// Also if it is not UTF-8, with the line and column.
pub fn text(path: &Path, limit: u64) -> io::Result<String> {
    text_of(bytes(path, limit)?)
}

/// Reads a text file like [`text`], if it is in `root` as for [`bytes_within`].
pub fn text_within(path: &Path, limit: u64, root: &Path) -> io::Result<String> {
    text_of(bytes_within(path, limit, root)?)
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        // Everything before that is valid text.
        let before = String::from_utf8_lossy(before);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {line}, column {column} is not valid UTF-8; {SAVE_AS_UTF8}"),
        )
    })
}

/// What to do with a file that is not text.
pub const SAVE_AS_UTF8: &str = "save it as UTF-8 (`iconv -f ISO-8859-1 -t UTF-8` converts Latin-1)";

/// Opens a file like [`file`], if it is in `root` (a path without symlinks) after all symlinks are resolved.
pub fn file_within(path: &Path, root: &Path) -> io::Result<File> {
    let file = file(path)?;
    let found = std::fs::read_link(in_proc(&file))?;
    if found.starts_with(root) {
        return Ok(file);
    }
    Err(leads_out(&found, root))
}

/// Returns the error for a path that is outside the folder it must be in.
pub fn leads_out(found: &Path, root: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "it is a symlink to {}, which is not in {}",
            found.shown(),
            root.shown()
        ),
    )
}

/// Opens a file like [`file`], by an absolute path without symlinks. If there is a symlink in it now, somebody
/// has put it there since the path was found.
///
/// # Errors
/// Those of [`file`] and [`folder`].
pub fn file_in_place(path: &Path) -> io::Result<File> {
    match in_place(path) {
        Ok(found) => file(&in_proc(&found)),
        Err(_) if was_swapped(path) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it leads to another file than before: somebody put a symlink there meanwhile",
        )),
        Err(error) => Err(error),
    }
}

/// Reads a file like [`bytes`], by an absolute path without symlinks. If there is a symlink in it now, somebody
/// has put it there since the path was found.
///
/// # Errors
/// Those of [`folder`] and [`bytes`].
pub fn bytes_in_place(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bytes(&in_proc(&in_place(path)?), limit)
}

/// Finds a file or folder by an absolute path without symlinks, like [`folder`]. Open it by [`in_proc`].
pub fn in_place(path: &Path) -> io::Result<OwnedFd> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return folder(path);
    };
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found: OwnedFd = openat(&folder(above)?, name, flags, Mode::empty())?;
    // O_PATH opens a symlink itself.
    let kind = SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT;
    match kind {
        SFlag::S_IFLNK => Err(io::ErrorKind::NotADirectory.into()),
        _ => Ok(found),
    }
}

/// Gives an open file a name that is free, in the same file system; a file without a name too (open(2), O_TMPFILE).
pub fn link(file: &File, to: &Path) -> io::Result<()> {
    let from = in_proc(file);
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    Ok(linkat(AT_FDCWD, &from, AT_FDCWD, to, follow)?)
}

/// Opens a folder by an absolute path without symlinks. If there is a symlink in it now, somebody has put it
/// there since the path was found.
///
/// # Errors
/// `NotADirectory` if a part of the path is a symlink or a file.
pub fn folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at: OwnedFd = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open("/")?
        .into();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => at = openat(&at, name, flags, Mode::empty())?,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(at)
}

/// Whether an absolute path that had no symlinks when it was found has one now. That is one reason for
/// [`folder`] and [`in_place`] to fail.
pub fn was_swapped(path: &Path) -> bool {
    path.canonicalize().is_ok_and(|found| found != path)
}

/// Returns a path to an open file or folder. It is valid in this process, and in a child until that executes
/// its program.
pub fn in_proc(open: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", open.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_file_that_was_swapped_for_a_link_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        fs::create_dir(at("p")).unwrap();
        fs::write(at("p/x"), "asked for").unwrap();
        fs::write(at("secret"), "secret").unwrap();
        let read = || {
            file_in_place(&at("p/x")).and_then(|mut file| {
                let mut text = String::new();
                file.read_to_string(&mut text).map(|_| text)
            })
        };
        assert_eq!(read().unwrap(), "asked for");
        fs::remove_file(at("p/x")).unwrap();
        assert_eq!(read().unwrap_err().kind(), io::ErrorKind::NotFound);
        symlink(at("secret"), at("p/x")).unwrap();
        assert!(read().unwrap_err().to_string().contains("another file"));
        fs::rename(at("p"), at("q")).unwrap();
        symlink("q", at("p")).unwrap();
        assert!(read().is_err());
    }

    #[test]
    fn only_files_are_opened_and_nothing_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        fs::create_dir(root.join("in")).unwrap();
        fs::write(root.join("in/f"), "x").unwrap();
        fs::write(root.join("secret"), "x").unwrap();
        symlink("f", root.join("in/link")).unwrap();
        symlink("../secret", root.join("in/out")).unwrap();
        assert_eq!(bytes_in_place(&root.join("in/f"), 9).unwrap(), b"x");
        for swapped in ["in/link", "in/out", "in/out/f"] {
            let error = bytes_in_place(&root.join(swapped), 9).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{swapped}");
        }
        nix::unistd::mkfifo(&root.join("pipe"), Mode::S_IRWXU).unwrap();
        assert!(file(&root.join("in/link")).is_ok());
        for not in ["pipe", "in"] {
            assert!(file(&root.join(not)).is_err(), "{not}");
        }
        let socket = root.join("socket");
        let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        for (path, words) in [
            (root.join("pipe"), "a pipe"),
            (root.join("in"), "a folder"),
            (socket, "a socket"),
            ("/dev/zero".into(), "a device"),
        ] {
            let error = file(&path).unwrap_err().to_string();
            assert_eq!(error, format!("it is {words}, not a regular file"));
            assert_eq!(in_place_of_file(&path).unwrap(), words);
        }
        let dangling = in_place_of_file(&root.join("dangling")).unwrap();
        assert_eq!(dangling, "a symlink to nowhere, which does not exist");
        assert_eq!(in_place_of_file(&root.join("in/link")), None);
        assert_eq!(in_place_of_file(&root.join("none")), None);
        let inside = root.join("in");
        assert!(file_within(&root.join("in/link"), &inside).is_ok());
        let error = file_within(&root.join("in/out"), &inside).unwrap_err();
        assert!(error.to_string().contains("is a symlink to"), "{error}");
    }

    #[test]
    fn what_is_too_large_or_no_text_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 40).unwrap();
        assert!(bytes(file.path(), 64 << 20).is_err());
        file.as_file().set_len(10).unwrap();
        assert_eq!(bytes(file.path(), 10).unwrap(), [0; 10]);
        assert!(bytes(file.path(), 9).is_err());
        fs::write(file.path(), b"one\n\xc3\xbcber \xfc\n").unwrap();
        let error = text(file.path(), 100).unwrap_err().to_string();
        assert!(
            error.starts_with("line 2, column 6 is not valid UTF-8"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_is_not_reached_by_a_symlink() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(root.join("other/b")).unwrap();
        assert!(folder(&root.join("a/b")).is_ok());
        fs::rename(root.join("a"), root.join("was")).unwrap();
        symlink("other", root.join("a")).unwrap();
        assert!(folder(&root.join("a/b")).is_err());
        assert!(folder(&root.join("a")).is_err());
        fs::write(root.join("file"), "").unwrap();
        assert!(folder(&root.join("file")).is_err());
        assert_eq!(
            folder(&root.join("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
