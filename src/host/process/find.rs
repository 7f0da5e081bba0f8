//! Finds programs. Relative entries of PATH are ignored, since they depend on the working folder.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// The folders of system programs, which an ordinary user's PATH may lack.
pub const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Finds a program in PATH.
pub fn find(program: &str) -> Option<PathBuf> {
    find_all(program).next()
}

/// Finds all programs of that name in PATH, in its order.
pub fn find_all(program: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .collect();
    (folders.into_iter())
        .map(move |folder| folder.join(program))
        .filter(|path| is_program(path))
}

/// Finds a program in PATH, or else in the folders of system programs.
pub fn find_system(program: &str) -> Option<PathBuf> {
    let in_system = || {
        (SYSTEM_FOLDERS.iter())
            .map(|folder| Path::new(folder).join(program))
            .find(|path| is_program(path))
    };
    find(program).or_else(in_system)
}

fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}
