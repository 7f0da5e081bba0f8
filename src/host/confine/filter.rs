//! Refuses the system calls that no tool for images needs: for the network, for other processes, and for
//! changing files by their names, which Landlock does not cover.

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
    pub(super) fn new() -> Self {
        let mut program = Vec::new();
        if let Some(architecture) = ARCHITECTURE.filter(|_| is_there()) {
            let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
            let load = |offset| {
                step(
                    (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
                    0,
                    0,
                    offset,
                )
            };
            let end = |action| step((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, action);
            let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
            let at_least = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
            // struct seccomp_data: the number of the call, then the architecture.
            program.extend([
                load(4),
                step(equal, 1, 0, architecture),
                end(libc::SECCOMP_RET_KILL_PROCESS),
                load(0),
            ]);
            // Jumps over the rest of the list and the step that allows the call.
            let over = |left: usize| u8::try_from(left + 1).unwrap_or(u8::MAX);
            let length = REFUSED.len();
            program.push(step(at_least, over(length), 0, X32));
            for (n, call) in REFUSED.iter().enumerate() {
                let call = u32::try_from(*call).unwrap_or(u32::MAX);
                program.push(step(equal, over(length - 1 - n), 0, call));
            }
            program.push(end(libc::SECCOMP_RET_ALLOW));
            program.push(end(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
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
