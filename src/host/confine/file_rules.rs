//! Confines programs that talk to a guest: they can only open the system's programs and libraries, and the
//! files that are granted. Nothing else is restricted.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    process::Command,
};

use super::{grant::Access, isolation::Isolation, landlock};

/// Prepared rules. There are none if the kernel has no Landlock ([`super::lack`] reports that).
pub struct FileRules(Option<landlock::Ruleset>);

impl FileRules {
    /// Prepares rules for a program that may open these files. The descriptors may be of `O_PATH`.
    ///
    /// # Errors
    /// If the kernel does not accept the rules.
    pub fn new(grants: &[(&OwnedFd, Access)]) -> io::Result<Self> {
        match Isolation::of_host() {
            Isolation::Landlock(version) => {
                landlock::Ruleset::around(version, grants).map(|rules| FileRules(Some(rules)))
            }
            Isolation::Namespaces | Isolation::Nothing => Ok(FileRules(None)),
        }
    }

    /// Applies the rules to the command, and to everything that it starts.
    pub fn apply(self, command: &mut Command) {
        let Some(rules) = self.0 else { return };
        let enforce = move || {
            nix::sys::prctl::set_no_new_privs()?;
            rules.enforce()
        };
        // SAFETY: between fork and exec this makes two system calls, on data prepared before.
        unsafe { command.pre_exec(enforce) };
    }
}
