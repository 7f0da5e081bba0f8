//! One SSH connection to a foreign host: it runs scripts, returns their answers, and writes nothing there.
//!
//! It is the user's own ssh, with their configuration, agent and prompts. On the host, one `sh` gets the
//! scripts one after the other. So an answer can be checked here, and the user asked, before the next script
//! is sent.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{error::GuestError, login::LOGIN, output::SSH_FAILED, ssh::ssh};
use crate::host::{process::Start, shell::shell_quote};

/// How many bytes of stderr are kept, from its end.
const SAID_LIMIT: usize = 16 << 10;

/// With these options, a dead connection is noticed after a minute.
const OPTIONS: [&str; 12] = [
    // The host gets no terminal, agent, display or port, whatever the configuration says.
    "-T",
    "-a",
    "-x",
    "-o",
    "ClearAllForwardings=yes",
    "-o",
    "RemoteCommand=none",
    "-o",
    "PermitLocalCommand=no",
    "-o",
    "ServerAliveInterval=15",
    "-oServerAliveCountMax=4",
];

pub struct HostSession {
    host: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    said: mpsc::Receiver<Vec<u8>>,
}

/// How a connection ended, with the last lines of stderr from ssh or the host.
#[derive(Debug)]
pub struct SessionEnd {
    pub status: ExitStatus,
    pub said: String,
}

impl SessionEnd {
    /// Whether ssh itself failed: it could not connect or log in, or lost the connection.
    pub fn is_ssh(&self) -> bool {
        self.status.code() == Some(SSH_FAILED)
    }
}

impl HostSession {
    /// Starts ssh to `host`, in a form that ssh(1) accepts (`name`, `user@name`, `ssh://user@name:port`),
    /// with the user's further options.
    pub fn open(host: &str, options: &[String]) -> Result<Self, GuestError> {
        let mut child = ssh()
            .args(options)
            .args(OPTIONS)
            .args(["--", host, LOGIN])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .start()
            .map_err(GuestError::ssh)?;
        let broken = || GuestError::Program {
            program: "ssh",
            message: "its standard streams are missing".into(),
        };
        let stdin = child.stdin.take().ok_or_else(broken)?;
        let stdout = child.stdout.take().ok_or_else(broken)?;
        let stderr = child.stderr.take().ok_or_else(broken)?;
        let (sender, said) = mpsc::channel();
        thread::spawn(move || {
            let _ = sender.send(last_of(stderr));
        });
        Ok(HostSession {
            host: host.to_string(),
            child,
            stdin: Some(stdin),
            stdout: BufReader::new(stdout),
            said,
        })
    }

    fn send(&mut self, script: &str) {
        // If ssh has ended already, its output and exit code tell more than a broken pipe.
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin
                .write_all(script.as_bytes())
                .and_then(|()| stdin.flush());
        }
    }

    /// Runs a script and returns its output up to the line `end`, the end of the connection, or `limit`
    /// bytes.
    pub fn ask(&mut self, script: &str, end: &str, limit: usize) -> Result<Vec<u8>, GuestError> {
        self.send(script);
        let mut answer = Vec::new();
        while answer.len() < limit {
            let start = answer.len();
            let room = (limit - start) as u64;
            let read = (&mut self.stdout)
                .take(room)
                .read_until(b'\n', &mut answer)
                .map_err(|error| self.broken(&error))?;
            if read == 0 || answer[start..].trim_ascii_end() == end.as_bytes() {
                break;
            }
        }
        Ok(answer)
    }

    /// Runs a script, and returns a reader for its output after the line `begin`. `None` if the connection
    /// ends before that line.
    pub fn stream(
        &mut self,
        script: &str,
        begin: &str,
    ) -> Result<Option<&mut dyn BufRead>, GuestError> {
        self.send(script);
        // This is the last script: sh ends after it.
        self.stdin = None;
        // A shell may print something first, but never that many lines.
        for _ in 0..10_000 {
            let mut line = Vec::new();
            let read = (&mut self.stdout)
                .take(1 << 16)
                .read_until(b'\n', &mut line)
                .map_err(|error| self.broken(&error))?;
            if read == 0 {
                return Ok(None);
            }
            if line.trim_ascii_end() == begin.as_bytes() {
                return Ok(Some(&mut self.stdout));
            }
        }
        Ok(None)
    }

    fn broken(&self, error: &std::io::Error) -> GuestError {
        GuestError::Program {
            program: "ssh",
            message: format!("reading from {}: {error}", self.host),
        }
    }

    /// Ends the connection.
    pub fn close(mut self) -> Result<SessionEnd, GuestError> {
        self.stdin = None;
        // Nothing more is needed, and a host that keeps sending must not keep ssh running.
        let _ = std::io::copy(&mut (&mut self.stdout).take(1 << 20), &mut std::io::sink());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if std::time::Instant::now() > deadline => {
                    let _ = self.child.kill();
                    break self.child.wait().map_err(GuestError::ssh)?;
                }
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(GuestError::ssh(error)),
            }
        };
        // A ControlMaster that this ssh left behind keeps its stderr open.
        let said = self
            .said
            .recv_timeout(Duration::from_millis(500))
            .unwrap_or_default();
        Ok(SessionEnd {
            status,
            said: readable(&said),
        })
    }
}

impl Drop for HostSession {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the script that packs these files (absolute paths) into one archive on stdout: a line `begin`,
/// the archive, and `end STATUS`; with `gzip`, the latter two are compressed. Symlinks are followed, so the
/// archive has none. `exclude` are paths too.
pub fn pack_script(
    begin: &str,
    end: &str,
    files: &[String],
    exclude: &[String],
    sudo: bool,
    gzip: bool,
) -> String {
    let relative = |path: &String| shell_quote(path.trim_start_matches('/'));
    let mut tar = String::from(if sudo { "sudo -n tar" } else { "tar" });
    tar.push_str(" -chf -");
    for path in exclude {
        tar.push_str(&format!(" --exclude={}", relative(path)));
    }
    tar.push_str(" --");
    for path in files {
        tar.push(' ');
        tar.push_str(&relative(path));
    }
    // At the lowest priority, because the host may be in production.
    let filter = if gzip { "nice -n 19 gzip -1" } else { "cat" };
    format!(
        "stead_pack() {{\n\
         PATH=$PATH:/usr/sbin:/sbin; LC_ALL=C; export PATH LC_ALL\n\
         cd / || exit 1\n\
         printf '\\n%s\\n' '{begin}'\n\
         {{ {tar} </dev/null; printf '\\n%s %s\\n' '{end}' \"$?\"; }} | {filter}\n\
         }}\n\
         stead_pack\n\
         exit\n"
    )
}

/// Reads a stream to its end, and returns its last bytes.
fn last_of(mut stream: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > 2 * SAID_LIMIT {
            kept.drain(..kept.len() - SAID_LIMIT);
        }
    }
    kept
}

/// Returns the last 5 lines, without control characters that a terminal would obey.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            line.trim_end()
                .chars()
                .filter(|c| !c.is_control())
                .collect()
        })
        .filter(|line: &String| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_quoted() {
        let script = pack_script(
            "n tar",
            "n status",
            &["/boot/it's".into(), "/lib/modules/6.1".into()],
            &["/lib/modules/6.1/build".into()],
            true,
            false,
        );
        assert!(script.contains(
            "sudo -n tar -chf - --exclude=lib/modules/6.1/build -- 'boot/it'\\''s' lib/modules/6.1 "
        ));
    }

    #[test]
    fn words_of_others_are_harmless() {
        assert_eq!(readable(b"a\x1b[31m\r\n\nb\n"), "a[31m\nb");
        assert_eq!(readable(b"1\n2\n3\n4\n5\n6\n"), "2\n3\n4\n5\n6");
    }
}
