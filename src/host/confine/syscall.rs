//! Results of system calls.

use std::io;

/// Turns the result of a system call into an error, if it is one.
pub(super) fn check(result: i64) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
