//! What a command in a guest leaves: its output and its status.

use std::{process::ExitStatus, time::Duration};

/// OpenSSH's own exit code when it could not connect or lost the connection (ssh(1)).
pub const SSH_FAILED: i32 = 255;

/// How long to wait for trailing output after a command has ended.
pub const LINGER: Duration = Duration::from_millis(300);

/// The output of a command in the guest.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Returns the last 5 lines of stderr, or of stdout if stderr is empty.
    pub fn last_words(&self) -> String {
        let stderr = about_connection(&self.stderr);
        let text = if stderr.trim().is_empty() {
            &self.stdout
        } else {
            &stderr
        };
        let lines: Vec<&str> = text.trim().lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Passes its lines on like those of a command, and returns its status.
    pub(super) fn pass_on(self, each: &mut (dyn FnMut(bool, &str) + Send)) -> ExitStatus {
        self.stdout.lines().for_each(|line| each(false, line));
        self.stderr.lines().for_each(|line| each(true, line));
        self.status
    }
}

/// Returns what ssh has said, without its own words about a connection that `stead dial` did not hand it: `stead dial` has
/// said why before.
pub fn about_connection(said: &str) -> String {
    let others: Vec<&str> = (said.lines()).filter(|line| !is_about_dial(line)).collect();
    if others.len() == said.lines().count() {
        return said.to_string();
    }
    // Its hint is not ssh's, and neither is the name of an error.
    let said = others.join("\n");
    let said = said.split("\n\nhint: ").next().unwrap_or_default();
    let said = said.trim().trim_start_matches("error: ");
    match said {
        "" => "its SSH server cannot be reached".into(),
        said => said.to_string(),
    }
}

/// Whether a line is ssh's, about a ProxyCommand that hands it no connection (OpenSSH, sshconnect.c and monitor_fdpass.c).
pub fn is_about_dial(line: &str) -> bool {
    line.contains("proxy dialer did not pass back a connection") || line.contains("mm_receive_fd: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_of_steads_own_dialling_is_told_in_steads_words() {
        const SSH: &str = "mm_receive_fd: recvmsg: expected received 1 got 0\r\n\
            proxy dialer did not pass back a connection\r\n";
        let dialled = "error: web cannot be reached: no SSH server answers\n\nhint: `stead logs web` shows its console\n";
        assert_eq!(
            about_connection(&format!("{dialled}{SSH}")),
            "web cannot be reached: no SSH server answers"
        );
        assert_eq!(about_connection(SSH), "its SSH server cannot be reached");
        let denied = "stead@web: Permission denied (publickey).\n";
        assert_eq!(about_connection(denied), denied);
    }
}
