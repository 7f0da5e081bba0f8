//! How much a program may take, and what it may not do as root.

use std::io;

use nix::libc;

use super::check;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space, in bytes.
    pub memory: u64,
    /// Time on a CPU, in seconds.
    pub cpu: u64,
    /// No file grows larger, in bytes.
    pub file: u64,
}

/// Files that are open at once.
const OPEN: u64 = 256;
/// CAP_DAC_OVERRIDE: files of root's libvirt belong to another user.
const KEPT: libc::c_ulong = 1;
/// No kernel has more capabilities.
const MOST: libc::c_ulong = 63;

impl Limits {
    pub(super) fn apply(self) -> io::Result<()> {
        let set = |resource, soft: u64, hard: u64| {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: plain data that outlives the calls. A limit that was set outside is never raised.
            unsafe {
                check(libc::getrlimit(resource, &raw mut limit).into())?;
                limit.rlim_max = limit.rlim_max.min(hard);
                limit.rlim_cur = limit.rlim_max.min(soft);
                check(libc::setrlimit(resource, &raw const limit).into())
            }
        };
        set(libc::RLIMIT_AS, self.memory, self.memory)?;
        // The first ends it by SIGXCPU, the second by SIGKILL.
        set(libc::RLIMIT_CPU, self.cpu, self.cpu.saturating_add(5))?;
        set(libc::RLIMIT_FSIZE, self.file, self.file)?;
        set(libc::RLIMIT_NOFILE, OPEN, OPEN)?;
        set(libc::RLIMIT_CORE, 0, 0)
    }
}

/// No program that it starts has more rights than it, and of root's it has one only.
pub(super) fn drop_privileges() -> io::Result<()> {
    // SAFETY: numbers alone.
    unsafe {
        for capability in (0..=MOST).filter(|capability| *capability != KEPT) {
            // Not there, or it has no right to give up: an ordinary user.
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        );
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())
    }
}
