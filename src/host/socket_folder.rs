//! The folder of a user's Unix sockets. It is short, since the path of a Unix socket may have at most 107 bytes
//! (unix(7)), and OpenSSH adds 17 while it binds one.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use thiserror::Error;

use crate::report::clean::Shown;

/// Why a folder cannot be used for sockets.
#[derive(Debug, Error, Diagnostic)]
pub enum SocketFolderError {
    #[error("cannot {doing} {path}: {why}", path = path.shown())]
    #[diagnostic(help(
        "set XDG_RUNTIME_DIR to a folder with a short path, which is yours and can be written"
    ))]
    File {
        doing: &'static str,
        path: PathBuf,
        why: io::Error,
    },
    #[error("cannot use {path} for {what}: it belongs to {by} and has mode {mode:03o}, but must be a folder of yours that nobody else can enter", path = path.shown())]
    InTheWay {
        path: PathBuf,
        what: &'static str,
        by: String,
        mode: u32,
        #[help]
        hint: String,
    },
}

/// Returns the folder of this user's sockets, which may not exist yet.
///
/// It is always in a folder of this user: after `su`, XDG_RUNTIME_DIR still names that of the other user,
/// who could not use or remove files that root makes there.
pub fn of_user() -> PathBuf {
    let told = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    of_user_in(told, nix::unistd::geteuid().as_raw())
}

fn of_user_in(told: Option<PathBuf>, uid: u32) -> PathBuf {
    let own = |dir: &Path| fs::metadata(dir).is_ok_and(|meta| meta.uid() == uid);
    // QEMU's options end at a comma.
    let plain = |dir: &Path| {
        (dir.to_str()).is_some_and(|text| !text.contains(|c: char| c == ',' || c.is_control()))
    };
    (told.into_iter())
        .find(|dir| dir.is_absolute() && dir.as_os_str().len() <= 60 && plain(dir) && own(dir))
        .map_or_else(
            // There is no login manager, the path is too long or odd, or the folder is another user's.
            || PathBuf::from(format!("/tmp/stead-{uid}")),
            |dir| dir.join("stead"),
        )
}

/// Makes such a folder for `what`, if it is missing.
///
/// # Errors
/// If it cannot be made, belongs to another user, or others can enter it.
pub fn make(folder: &Path, what: &'static str) -> Result<(), SocketFolderError> {
    let failed = |doing, why| SocketFolderError::File {
        doing,
        path: folder.to_path_buf(),
        why,
    };
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("create", error));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(folder).map_err(|error| failed("read", error))?;
    let is_own = metadata.uid() == nix::unistd::geteuid().as_raw();
    if metadata.is_dir() && is_own && metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    let uid = metadata.uid();
    let by = match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        _ => format!("user {uid}"),
    };
    let shown = folder.shown();
    Err(SocketFolderError::InTheWay {
        path: folder.to_path_buf(),
        what,
        by,
        mode: metadata.mode() & 0o777,
        hint: match is_own {
            true => format!("run `chmod 700 {shown}` if stead made it, or else remove it"),
            false => format!(
                "remove it (`sudo rm -r {shown}`), or set XDG_RUNTIME_DIR to a folder of yours"
            ),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After `su`, the runtime folder is still that of the other user: nothing is made in it.
    #[test]
    fn sockets_are_in_a_runtime_folder_of_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let of = |uid| of_user_in(Some(dir.path().to_path_buf()), uid);
        assert_eq!(of(uid), dir.path().join("stead"));
        assert_eq!(of(uid + 1), Path::new(&format!("/tmp/stead-{}", uid + 1)));
        assert_eq!(of_user_in(None, 7), Path::new("/tmp/stead-7"));
        let odd = dir.path().join("a,b");
        fs::create_dir(&odd).unwrap();
        let fallback = format!("/tmp/stead-{uid}");
        assert_eq!(of_user_in(Some(odd), uid), Path::new(&fallback));
    }
}
