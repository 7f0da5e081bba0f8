//! Limits a program's resources, and its rights as root.

use std::io;

use nix::libc;

use super::syscall::check;

/// The limits of a program (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Address space, in bytes.
    pub memory: u64,
    /// Time on a CPU, in seconds.
    pub cpu: u64,
    /// The largest file that it may write, in bytes.
    pub file: u64,
}

/// How many files may be open at the same time.
const OPEN: u64 = 256;
/// CAP_DAC_OVERRIDE is kept, because files of root's libvirt belong to another user.
const KEPT: libc::c_ulong = 1;
/// The highest number that a capability may have in any kernel.
const MOST: libc::c_ulong = 63;

impl Limits {
    pub(super) fn apply(self) -> io::Result<()> {
        let set = |resource, soft: u64, hard: u64| {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: the calls get plain data that outlives them. A limit set from outside is never raised.
            unsafe {
                check(libc::getrlimit(resource, &raw mut limit).into())?;
                limit.rlim_max = limit.rlim_max.min(hard);
                limit.rlim_cur = limit.rlim_max.min(soft);
                check(libc::setrlimit(resource, &raw const limit).into())
            }
        };
        set(libc::RLIMIT_AS, self.memory, self.memory)?;
        // The soft limit ends the program by SIGXCPU, the hard one by SIGKILL.
        set(libc::RLIMIT_CPU, self.cpu, self.cpu.saturating_add(5))?;
        set(libc::RLIMIT_FSIZE, self.file, self.file)?;
        set(libc::RLIMIT_NOFILE, OPEN, OPEN)?;
        set(libc::RLIMIT_CORE, 0, 0)
    }
}

/// Drops all of root's capabilities except one, and keeps this process and its children from gaining others.
pub(super) fn drop_privileges() -> io::Result<()> {
    // SAFETY: the calls have only numbers as arguments.
    unsafe {
        for capability in (0..=MOST).filter(|capability| *capability != KEPT) {
            // An error means that there is no such capability, or that an ordinary user may not drop it.
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
