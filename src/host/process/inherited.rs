//! What a program that runs on gets from the one that started it.

#![expect(
    unsafe_code,
    reason = "files that this program has never opened have no owner in it"
)]

use nix::libc;

/// Closes all files that this program has inherited, except its standard input, output and error: a lock or a pipe of
/// whoever ran stead would be held for as long as this runs. Call it before anything is opened.
pub fn close() {
    // SAFETY: nothing has been opened yet, so nobody in this program has one of these files (close_range(2)). A kernel
    // before 5.9 lacks the call, and then they stay open.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}
