//! Landlock: a program can open only the files that its rules name (landlock(7)).

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

use super::{
    grant::{Access, Grant},
    syscall::check,
    system_files::{LOOKED_UP, PROGRAMS, folders_of, library_folders, starting_files},
};

/// LANDLOCK_CREATE_RULESET_VERSION
const VERSION: u32 = 1;

/// Returns the version of Landlock's interface, if the kernel has it and it is enabled.
pub(super) fn version() -> Option<i32> {
    // SAFETY: the call only returns a number.
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

/// Rules that are prepared before the fork.
pub(super) struct Ruleset(OwnedFd);

impl Ruleset {
    /// `version` is the kernel's version, or an older one.
    pub(super) fn new(version: i32, program: &Path, grants: &[Grant]) -> io::Result<Self> {
        let abi = ABI::from(version.min(NEWEST));
        Self::built(Self::build(abi, program, grants))
    }

    /// Rules for a program that talks to a guest: they cover only files, because it needs the network.
    pub(super) fn around(version: i32, grants: &[(&OwnedFd, Access)]) -> io::Result<Self> {
        let abi = ABI::from(version.min(NEWEST));
        let build = || {
            let mut rules = Rules::begin(abi, None)?;
            rules.allow_libraries()?;
            let exec = AccessFs::Execute | AccessFs::ReadFile;
            for folder in PROGRAMS {
                rules.allow_named(Path::new(folder), exec | AccessFs::ReadDir)?;
            }
            for folder in folders_of(&["rsync", "ssh"]) {
                rules.allow_named(&folder, exec | AccessFs::ReadDir)?;
            }
            // ssh gets its connections from this very program.
            if let Ok(own) = crate::host::process::own_program() {
                rules.allow_named(&own, exec)?;
            }
            for path in LOOKED_UP.map(Path::new) {
                let folder = if path.is_dir() {
                    AccessFs::ReadDir.into()
                } else {
                    BitFlags::EMPTY
                };
                rules.allow_named(path, folder | AccessFs::ReadFile)?;
            }
            for (at, access) in grants {
                rules.allow(at, rights(abi, *access))?;
            }
            Ok(rules.end())
        };
        Self::built(build())
    }

    /// Rules for a process that has opened all that it needs, and connects to others.
    pub(super) fn of_traffic(version: i32) -> io::Result<Self> {
        let abi = ABI::from(version.min(NEWEST));
        Self::built(Rules::begin(abi, Some(AccessNet::BindTcp.into())).map(Rules::end))
    }

    fn built(built: Result<Option<Self>, landlock::RulesetError>) -> io::Result<Self> {
        built
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("the kernel's Landlock does not accept rules"))
    }

    fn build(
        abi: ABI,
        program: &Path,
        grants: &[Grant],
    ) -> Result<Option<Self>, landlock::RulesetError> {
        let mut rules = Rules::begin(abi, Some(AccessNet::from_all(abi)))?;
        rules.allow_named(program, AccessFs::Execute | AccessFs::ReadFile)?;
        rules.allow_libraries()?;
        for grant in grants {
            rules.allow(&grant.file, rights(abi, grant.access))?;
        }
        Ok(rules.end())
    }

    /// Applies the rules to this process, which must have set no-new-privileges.
    pub(super) fn enforce(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open.
        check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) })
    }
}

/// The newest version of Landlock's interface that this code uses.
const NEWEST: i32 = 6;

fn rights(abi: ABI, access: Access) -> BitFlags<AccessFs> {
    let files = AccessFs::from_file(abi);
    match access {
        Access::Read => AccessFs::ReadFile.into(),
        Access::Write => files & (AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate),
        Access::Tree => AccessFs::ReadFile | AccessFs::ReadDir,
        Access::Folder => AccessFs::from_all(abi) & !AccessFs::Execute,
    }
}

/// Rules under construction.
struct Rules {
    abi: ABI,
    ruleset: landlock::RulesetCreated,
}

impl Rules {
    /// With `net`, the rules also forbid this use of the network, and signals and abstract sockets to other processes,
    /// as far as this version supports that.
    fn begin(abi: ABI, net: Option<BitFlags<AccessNet>>) -> Result<Self, landlock::RulesetError> {
        let mut ruleset = landlock::Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(abi))?;
        if let Some(net) = net
            && abi >= ABI::V4
        {
            ruleset = ruleset.handle_access(net)?;
        }
        if net.is_some() && abi >= ABI::V6 {
            ruleset = ruleset.scope(Scope::from_all(abi))?;
        }
        let ruleset = ruleset.create()?;
        Ok(Rules { abi, ruleset })
    }

    fn allow(
        &mut self,
        at: &dyn AsFd,
        access: BitFlags<AccessFs>,
    ) -> Result<(), landlock::RulesetError> {
        (&mut self.ruleset)
            .add_rule(PathBeneath::new(at.as_fd(), access))
            .map(|_| ())
    }

    /// Allows access to a path. A path that does not exist needs no rule.
    fn allow_named(
        &mut self,
        path: &Path,
        access: BitFlags<AccessFs>,
    ) -> Result<(), landlock::RulesetError> {
        match PathFd::new(path) {
            Ok(at) => self.allow(&at, access),
            Err(_) => Ok(()),
        }
    }

    /// Allows access to libraries, and to the other files that a program opens when it starts.
    fn allow_libraries(&mut self) -> Result<(), landlock::RulesetError> {
        for folder in library_folders() {
            // The dynamic loader is among them, and is executed.
            self.allow_named(
                folder,
                AccessFs::Execute | AccessFs::ReadFile | AccessFs::ReadDir,
            )?;
        }
        for file in starting_files() {
            let access = if file.starts_with("/dev/null") {
                rights(self.abi, Access::Write) & !AccessFs::Truncate
            } else {
                AccessFs::ReadFile.into()
            };
            self.allow_named(file, access)?;
        }
        Ok(())
    }

    fn end(self) -> Option<Ruleset> {
        Option::<OwnedFd>::from(self.ruleset).map(Ruleset)
    }
}
