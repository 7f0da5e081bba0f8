//! Programs that work for a guest as they would, but for the files of this host: they open the system's
//! programs and libraries, and what they are given.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::PathBuf,
    process::Command,
};

use super::{Access, Means, find, landlock};

/// The rules, made ready. Where the kernel has no Landlock there are none ([`super::lack`] says so).
pub struct Wall(Option<landlock::Ruleset>);

impl Wall {
    /// Around a program that opens what is granted; an `OwnedFd` of `O_PATH` will do.
    ///
    /// # Errors
    /// Where the kernel does not take the rules.
    pub fn new(grants: &[(&OwnedFd, Access)]) -> io::Result<Self> {
        match Means::of_host() {
            Means::Landlock(version) => {
                landlock::Ruleset::around(version, grants).map(|rules| Wall(Some(rules)))
            }
            Means::Namespaces | Means::Nothing => Ok(Wall(None)),
        }
    }

    /// Has the command start behind it, and all that it starts.
    pub fn enclose(self, command: &mut Command) {
        let Some(rules) = self.0 else { return };
        let enforce = move || {
            nix::sys::prctl::set_no_new_privs()?;
            rules.enforce()
        };
        // SAFETY: between fork and exec two system calls are made, on what was made ready before.
        unsafe { command.pre_exec(enforce) };
    }
}

/// Where programs are that are run by name, however they were installed, and their libraries beside them.
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

/// Where programs are, besides the folders of libraries.
pub(super) const PROGRAMS: [&str; 6] = [
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/local/bin",
    "/run/current-system/sw/bin",
];

/// What programs look up of users, time and OpenSSL; nothing of a user's is in them.
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
