//! Confines this very process, which has opened all that it needs: it passes traffic on, for guests that may take it
//! over.

use std::io;

use nix::{
    libc,
    sys::{
        prctl::{set_dumpable, set_no_new_privs, set_pdeathsig},
        resource::{Resource, getrlimit, setrlimit},
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    },
    unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid},
};

use super::{filter::Filter, landlock};

/// Who has no files: `nobody`, by its usual number.
const NOBODY: u32 = 65_534;

/// What a process that passes traffic on may do. It has its open files, and sockets of IPv4 by which it connects to
/// others. It opens no file, starts no program, and cannot become another user.
#[derive(Clone, Copy, Debug)]
pub struct TrafficOnly {
    /// How many files it may have open.
    pub files: u64,
    /// Its address space, in bytes.
    pub memory: u64,
    /// How long a file may become by what it writes to it, in bytes: its log.
    pub log: u64,
}

impl TrafficOnly {
    /// Confines this process, which has one thread, and which is killed when the thread that started it ends. Root
    /// becomes nobody. A kernel without Landlock or without filters of system calls does without.
    ///
    /// # Errors
    /// Which part failed, and why. The process has to end then.
    pub fn confine(self) -> Result<(), String> {
        let failed = |doing: &'static str| {
            move |error: nix::Error| format!("cannot {doing}: {}", io::Error::from(error))
        };
        self.limit().map_err(failed("limit its resources"))?;
        become_nobody().map_err(failed("become the user nobody"))?;
        // A change of the user resets these (prctl(2)).
        set_no_new_privs().map_err(failed("give up privileges"))?;
        set_dumpable(false).map_err(failed("hide its memory"))?;
        set_pdeathsig(Signal::SIGKILL).map_err(failed("end with stead-net"))?;
        if let Some(version) = landlock::version() {
            (landlock::Ruleset::of_traffic(version).and_then(|rules| rules.enforce()))
                .map_err(|error| format!("cannot give up files by Landlock: {error}"))?;
        }
        (Filter::of_traffic().install())
            .map_err(|error| format!("cannot filter its system calls: {error}"))
    }

    fn limit(self) -> nix::Result<()> {
        let set = |resource, most: u64| {
            let (_, hard) = getrlimit(resource)?;
            let most = most.min(hard);
            setrlimit(resource, most, most)
        };
        set(Resource::RLIMIT_NOFILE, self.files)?;
        set(Resource::RLIMIT_AS, self.memory)?;
        set(Resource::RLIMIT_FSIZE, self.log)?;
        set(Resource::RLIMIT_CORE, 0)?;
        // It starts no other process and no thread.
        set(Resource::RLIMIT_NPROC, 0)?;
        // A log that is full loses words, and does not end the process.
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler runs.
        unsafe { sigaction(Signal::SIGXFSZ, &ignore) }.map(drop)
    }
}

fn become_nobody() -> nix::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let done = setgroups(&[])
        .and_then(|()| setresgid(group, group, group))
        .and_then(|()| setresuid(user, user, user));
    match done {
        // The root of a namespace that has no other users (user_namespaces(7)): it has the rights of who made that.
        Err(nix::Error::EPERM | nix::Error::EINVAL) if is_alone() => drop_capabilities(),
        done => done,
    }
}

/// Whether this user namespace has one user.
fn is_alone() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let count = map.split_whitespace().nth(2).map(ToString::to_string);
    map.lines().count() == 1 && count.as_deref() == Some("1")
}

/// Drops all capabilities (capset(2)).
fn drop_capabilities() -> nix::Result<()> {
    /// _LINUX_CAPABILITY_VERSION_3, of this thread.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    const NONE: [u32; 6] = [0; 6];
    // SAFETY: the pointers are those of the structures in capset(2), as numbers.
    let done = unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), NONE.as_ptr()) };
    nix::errno::Errno::result(done).map(drop)
}
