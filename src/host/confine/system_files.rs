//! The host's programs, libraries and files of settings, which confined programs may open.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::host::process::find_system;

/// Returns the folders of libraries, which have no files of users.
pub(super) fn library_folders() -> impl Iterator<Item = &'static Path> {
    [
        "/lib",
        "/lib32",
        "/lib64",
        "/usr/lib",
        "/usr/lib32",
        "/usr/lib64",
        "/usr/local/lib",
        "/nix/store",
        "/gnu/store",
    ]
    .into_iter()
    .map(Path::new)
    .filter(|path| path.is_dir())
}

/// Other files that a program opens when it starts.
const STARTING: [&str; 4] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/dev/urandom",
    "/dev/null",
];

pub(super) fn starting_files() -> impl Iterator<Item = &'static Path> {
    STARTING
        .into_iter()
        .map(Path::new)
        .filter(|path| path.exists())
}

/// Finds a program, and resolves symlinks.
pub(super) fn find(program: &str) -> io::Result<PathBuf> {
    find_system(program)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{program} is not installed"),
            )
        })?
        .canonicalize()
}

/// Returns the folders of programs, however they were installed, and of their libraries beside them.
pub(super) fn folders_of(programs: &[&str]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for program in programs.iter().filter_map(|program| find(program).ok()) {
        if let Some(folder) = program.parent() {
            folders.push(folder.to_path_buf());
            folders.extend(folder.parent().map(|above| above.join("lib")));
        }
    }
    folders
}

/// The folders of programs.
pub(super) const PROGRAMS: [&str; 6] = [
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/run/current-system/sw/bin",
];

/// Files that programs read about users, time and OpenSSL. They have nothing private.
pub(super) const LOOKED_UP: [&str; 11] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/localtime",
    "/etc/host.conf",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies",
    "/etc/userdb",
    "/run/systemd/userdb",
    "/var/lib/sss/mc",
];
