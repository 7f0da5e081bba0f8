//! Runs a script of stead's own as root.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    process::{Command, ExitStatus},
};

use super::Start;

/// Runs a shell script as root, through sudo if this user is another one. `input` is its standard input.
///
/// # Errors
/// `NotFound` if there is no sudo.
#[expect(clippy::disallowed_methods, reason = "sudo asks on the terminal")]
pub fn run_as_root(
    script: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    input: File,
) -> io::Result<ExitStatus> {
    let mut command = match nix::unistd::geteuid().is_root() {
        true => Command::new("sh"),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--", "sh"]);
            sudo
        }
    };
    command.args(["-c", script]).args(arguments).stdin(input);
    command.start().and_then(|mut child| child.wait())
}
