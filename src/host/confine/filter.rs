//! Refuses the system calls that no tool for images needs: for the network, for other processes, and for
//! changing files by their names, which Landlock does not cover. And allows a process that passes traffic on only those
//! that this needs.

use std::io;

use nix::libc;

use super::syscall::check;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// Calls that fail with EPERM.
#[rustfmt::skip]
const REFUSED: &[libc::c_long] = &[
    libc::SYS_socket,
    // It can create sockets too, without this filter.
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_kill,
    libc::SYS_pidfd_open, libc::SYS_pidfd_getfd, libc::SYS_pidfd_send_signal,
    libc::SYS_truncate, libc::SYS_fchmodat, FCHMODAT2, libc::SYS_fchownat, libc::SYS_utimensat,
    libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_removexattr, libc::SYS_lremovexattr,
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_move_mount, libc::SYS_open_tree,
    libc::SYS_fsopen, libc::SYS_fsmount, libc::SYS_unshare, libc::SYS_setns, libc::SYS_chroot,
    libc::SYS_open_by_handle_at, libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd,
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
    libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget, libc::SYS_mq_open,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_kexec_load, libc::SYS_reboot,
    #[cfg(target_arch = "x86_64")] libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")] libc::SYS_chown,
    #[cfg(target_arch = "x86_64")] libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")] libc::SYS_utime,
    #[cfg(target_arch = "x86_64")] libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")] libc::SYS_futimesat,
];
/// The same number everywhere.
const FCHMODAT2: libc::c_long = 452;

/// All calls of a process that passes traffic on, apart from `socket`, which only makes sockets of IPv4. Memory, time and
/// the end of the process are among them.
#[rustfmt::skip]
const OF_TRAFFIC: &[libc::c_long] = &[
    libc::SYS_recvfrom, libc::SYS_recvmsg, libc::SYS_sendto, libc::SYS_sendmsg,
    libc::SYS_read, libc::SYS_readv, libc::SYS_write, libc::SYS_writev, libc::SYS_close,
    libc::SYS_connect, libc::SYS_shutdown, libc::SYS_getsockopt, libc::SYS_setsockopt,
    libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_ioctl, libc::SYS_fcntl, libc::SYS_fstat,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")] libc::SYS_poll,
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect, libc::SYS_madvise,
    libc::SYS_clock_gettime, libc::SYS_gettimeofday, libc::SYS_getrandom, libc::SYS_futex, libc::SYS_getpid,
    #[cfg(target_arch = "x86_64")] libc::SYS_time,
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_sigaltstack,
    libc::SYS_restart_syscall, libc::SYS_exit, libc::SYS_exit_group,
];

/// The bit in the numbers of x86's calls with 32-bit pointers.
const X32: u32 = 0x4000_0000;

/// Whether this kernel and architecture support the filter.
pub(super) fn is_there() -> bool {
    // SAFETY: the call has only numbers as arguments.
    ARCHITECTURE.is_some() && unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) } >= 0
}

/// A filter that is prepared before the fork.
pub(super) struct Filter {
    program: Vec<libc::sock_filter>,
}

impl Filter {
    /// For tools that read images.
    pub(super) fn new() -> Self {
        Self::build(|steps| {
            let length = REFUSED.len();
            steps.push(step(AT_LEAST, over(length), 0, X32));
            for (n, call) in REFUSED.iter().enumerate() {
                steps.push(step(EQUAL, over(length - 1 - n), 0, number(*call)));
            }
            steps.push(end(libc::SECCOMP_RET_ALLOW));
            steps.push(end(REFUSE));
        })
    }

    /// For a process that passes traffic on.
    pub(super) fn of_traffic() -> Self {
        Self::build(|steps| {
            // After the list come the steps for `socket`: its number, its family, that it is of IPv4.
            let length = OF_TRAFFIC.len();
            steps.push(step(AT_LEAST, over(length + 2), 0, X32));
            for (n, call) in OF_TRAFFIC.iter().enumerate() {
                steps.push(step(EQUAL, over(length + 2 - n), 0, number(*call)));
            }
            steps.push(step(EQUAL, 0, 2, number(libc::SYS_socket)));
            steps.push(load(FIRST_ARGUMENT));
            steps.push(step(EQUAL, 1, 0, libc::AF_INET as u32));
            steps.push(end(REFUSE));
            steps.push(end(libc::SECCOMP_RET_ALLOW));
        })
    }

    /// The steps after those that check the architecture and load the number of the call. There are none if the kernel
    /// has no filters.
    fn build(rest: impl FnOnce(&mut Vec<libc::sock_filter>)) -> Self {
        let mut program = Vec::new();
        if let Some(architecture) = ARCHITECTURE.filter(|_| is_there()) {
            program.extend([
                load(ITS_ARCHITECTURE),
                step(EQUAL, 1, 0, architecture),
                end(libc::SECCOMP_RET_KILL_PROCESS),
                load(ITS_NUMBER),
            ]);
            rest(&mut program);
        }
        Filter { program }
    }

    /// Applies the filter to this process, which must have set no-new-privileges.
    pub(super) fn install(&self) -> io::Result<()> {
        if self.program.is_empty() {
            return Ok(());
        }
        let program = libc::sock_fprog {
            len: self.program.len() as u16,
            filter: self.program.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel reads the program, which outlives the call.
        check(
            unsafe {
                libc::prctl(
                    libc::PR_SET_SECCOMP,
                    libc::SECCOMP_MODE_FILTER,
                    &raw const program,
                )
            }
            .into(),
        )
    }
}

const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

// Where struct seccomp_data has them. Of an argument, this is the lower half.
const ITS_NUMBER: u32 = 0;
const ITS_ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

fn step(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn load(offset: u32) -> libc::sock_filter {
    step(
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        0,
        0,
        offset,
    )
}

fn end(action: u32) -> libc::sock_filter {
    step((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, action)
}

/// A jump over so many steps of a list, and the one after it.
fn over(left: usize) -> u8 {
    u8::try_from(left + 1).unwrap_or(u8::MAX)
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}
