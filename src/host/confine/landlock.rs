//! Landlock: a program can open what its rules name and nothing else (landlock(7)).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    RulesetAttr, RulesetCreatedAttr, Scope,
};
use nix::libc;

use super::{Access, Grant, check, library_folders, starting_files};

/// LANDLOCK_CREATE_RULESET_VERSION
const VERSION: u32 = 1;

/// The version of the interface, where the kernel has it and it is on.
pub fn version() -> Option<i32> {
    // SAFETY: asks for a number.
    let found = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0,
            VERSION,
        )
    };
    i32::try_from(found).ok().filter(|version| *version >= 1)
}

/// Made ready before the fork.
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// `version` is what the kernel has, or less.
    pub(super) fn new(version: i32, program: &Path, grants: &[Grant]) -> io::Result<Self> {
        let abi = ABI::from(version.min(NEWEST));
        Self::build(abi, program, grants)
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("the kernel's Landlock takes no rules"))
    }

    fn build(
        abi: ABI,
        program: &Path,
        grants: &[Grant],
    ) -> Result<Option<Self>, landlock::RulesetError> {
        let files = AccessFs::from_file(abi);
        let read = AccessFs::ReadFile;
        let write = files & (AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate);
        let mut ruleset = landlock::Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(abi))?;
        if abi >= ABI::V4 {
            ruleset = ruleset.handle_access(AccessNet::from_all(abi))?;
        }
        if abi >= ABI::V6 {
            ruleset = ruleset.scope(Scope::from_all(abi))?;
        }
        let mut ruleset = ruleset.create()?;
        let mut allow = |at: &dyn AsFd, access: BitFlags<AccessFs>| {
            (&mut ruleset)
                .add_rule(PathBeneath::new(at.as_fd(), access))
                .map(|_| ())
        };
        let named = |path: &Path| PathFd::new(path).ok();
        if let Some(at) = named(program) {
            allow(&at, AccessFs::Execute | read)?;
        }
        for folder in library_folders() {
            if let Some(at) = named(folder) {
                // The one that loads the others is run as a program.
                allow(&at, AccessFs::Execute | read | AccessFs::ReadDir)?;
            }
        }
        for file in starting_files() {
            if let Some(at) = named(file) {
                let device = file.starts_with("/dev/null");
                allow(
                    &at,
                    if device {
                        write & !AccessFs::Truncate
                    } else {
                        read.into()
                    },
                )?;
            }
        }
        for grant in grants {
            let access = match grant.access {
                Access::Read => read.into(),
                Access::Write => write,
                Access::Folder => AccessFs::from_all(abi) & !AccessFs::Execute,
            };
            allow(&grant.file, access)?;
        }
        Ok(Option::<OwnedFd>::from(ruleset).map(Ruleset))
    }

    /// For this process from here on. It has given up new privileges.
    pub fn enforce(&self) -> io::Result<()> {
        // SAFETY: a descriptor that is open.
        check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) })
    }
}

/// That is known here.
const NEWEST: i32 = 6;
