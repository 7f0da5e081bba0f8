//! Hands the terminal to another program.

use crate::{failure::Failure, host::process::become_program};

/// Replaces this process by `command`, which inherits its streams and terminal. The log has its arguments, except the last
/// `private` ones, which the user typed. Returns only on failure.
pub fn replace(mut command: std::process::Command, private: usize) -> Failure {
    let program = command.get_program().to_string_lossy().into_owned();
    let error = become_program(&mut command, private);
    if error.kind() == std::io::ErrorKind::NotFound {
        Failure::error(
            format!("{program} is not installed"),
            "install it (Debian: `apt install openssh-client`)",
        )
    } else {
        Failure::io(format!("run {program}"), &error)
    }
}
