//! Starts OpenSSH's programs. Nothing else in stead does.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tokio::process::Child;

use super::error::GuestError;
use crate::host::process::Start;

/// Returns `ssh`, to which the caller adds the arguments.
#[expect(
    clippy::disallowed_methods,
    reason = "its input and output are streams, or the user's terminal"
)]
pub(super) fn ssh() -> Command {
    Command::new("ssh")
}

/// Returns `ssh` with a configuration, to which the caller adds the rest.
pub fn ssh_by(config: &Path) -> Command {
    let mut command = ssh();
    command.arg("-F").arg(config);
    command
}

/// Returns `scp` with a configuration, to which the caller adds the rest.
#[expect(
    clippy::disallowed_methods,
    reason = "it shows its progress on the user's terminal"
)]
pub fn scp(config: &Path) -> Command {
    let mut command = Command::new("scp");
    command.arg("-F").arg(config);
    command
}

/// Starts ssh with pipes for its output. Ctrl-C does not reach it: it goes to stead, which decides. If the child is
/// dropped, ssh is killed.
pub(super) fn start(ssh: Command, stdin: Stdio) -> Result<Child, GuestError> {
    tokio::process::Command::from(ssh)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .start()
        .map_err(GuestError::ssh)
}
