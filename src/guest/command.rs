//! Commands in the guest, over OpenSSH.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use super::{error::GuestError, files::MachineFiles};

/// OpenSSH's own exit code when it could not connect or lost the connection (ssh(1)).
pub const SSH_FAILED: i32 = 255;

/// How long the end of a command's output is waited for, once it is known that the command ended.
const LINGER: std::time::Duration = std::time::Duration::from_millis(300);

/// A machine that can be spoken to.
#[derive(Clone, Debug)]
pub struct Remote {
    pub machine: String,
    pub files: MachineFiles,
}

/// What a command in the guest said.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The last words of stderr, or of stdout where stderr is empty.
    pub fn last_words(&self) -> String {
        let text = if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        let lines: Vec<&str> = text.trim().lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Remote {
    /// `ssh` with this machine's configuration; the command's words are to be added.
    pub fn ssh(&self) -> std::process::Command {
        let mut command = std::process::Command::new("ssh");
        command.arg("-F").arg(self.files.ssh_config());
        command
    }

    fn spawn(&self, script: &str, stdin: Stdio) -> Result<Child, GuestError> {
        self.spawn_with(&[], script, stdin)
    }

    fn spawn_with(
        &self,
        options: &[&str],
        script: &str,
        stdin: Stdio,
    ) -> Result<Child, GuestError> {
        let mut ssh = self.ssh();
        ssh.args(["-T", "-o", "BatchMode=yes"]).args(options);
        ssh.args([&self.machine, script]);
        let mut command = Command::from(ssh);
        command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for stead, which decides; and a step that is given up takes ssh with it.
            .process_group(0)
            .kill_on_drop(true);
        command
            .spawn()
            .map_err(GuestError::spawn("ssh", "openssh-client"))
    }

    /// Runs a shell command line as the login user and gathers what it says.
    pub async fn run(&self, script: &str) -> Result<Output, GuestError> {
        let mut out = String::new();
        let mut err = String::new();
        let status = self
            .stream(script, None, &mut |is_error, line| {
                let to = if is_error { &mut err } else { &mut out };
                to.push_str(line);
                to.push('\n');
            })
            .await?;
        Ok(Output {
            status,
            stdout: out,
            stderr: err,
        })
    }

    /// Opens the ControlMaster where none answers, without a command of ours in the way.
    pub async fn connect(&self) -> Result<Output, GuestError> {
        self.run("true").await
    }

    /// Runs a shell command line as the login user, with `stdin` fed to it, and hands each line
    /// that it prints to `each` (whether it came on stderr, and the line without its end).
    pub async fn stream(
        &self,
        script: &str,
        stdin: Option<&[u8]>,
        each: &mut (dyn FnMut(bool, &str) + Send),
    ) -> Result<ExitStatus, GuestError> {
        let mut child = self.spawn(
            script,
            if stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            },
        )?;
        let feed = {
            let pipe = child.stdin.take();
            let bytes = stdin.unwrap_or_default();
            async move {
                if let Some(mut pipe) = pipe {
                    // The guest may stop reading early; its exit code tells the rest.
                    let _ = pipe.write_all(bytes).await;
                    let _ = pipe.shutdown().await;
                }
            }
        };
        exchange(child, feed, each).await
    }

    /// As [`Self::stream`], with standard input left open after `stdin` was fed: the guest sees its
    /// end when this is dropped, or when this process dies, and not before. It is over when `each`
    /// says so (`true`), whoever in the guest still holds the command's output, or when ssh ends,
    /// whose status is given then.
    pub async fn hold(
        &self,
        script: &str,
        stdin: &[u8],
        each: &mut (dyn FnMut(bool, &str) -> bool + Send),
    ) -> Result<Option<ExitStatus>, GuestError> {
        // It was reached before: a guest that does not answer for that long will not. The wait for its
        // first words is `stead dial`'s; this is for what follows.
        let mut child = self.spawn_with(&["-o", "ConnectTimeout=60"], script, Stdio::piped())?;
        let mut pipe = child.stdin.take();
        let mut out = child.stdout.take().map(lines_of);
        let mut err = child.stderr.take().map(lines_of);
        let feed = async {
            if let Some(pipe) = &mut pipe {
                // The guest may stop reading early; what it says tells the rest.
                let _ = pipe.write_all(stdin).await;
                let _ = pipe.flush().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::pin!(feed);
        let mut over = false;
        let mut ended = None;
        while !over && ended.is_none() {
            tokio::select! {
                () = &mut feed => {}
                line = next(&mut out), if out.is_some() => if let Some(line) = line {
                    over |= each(false, &line);
                },
                line = next(&mut err), if err.is_some() => if let Some(line) = line {
                    over |= each(true, &line);
                },
                status = child.wait() => {
                    ended = Some(status.map_err(GuestError::spawn("ssh", "openssh-client"))?);
                }
            }
        }
        // What was said before on the other of the two may still be on its way; and who goes on
        // holding the output is not waited for.
        while ended.is_none() {
            let more = async {
                tokio::select! {
                    line = next(&mut out), if out.is_some() => Ok((false, line)),
                    line = next(&mut err), if err.is_some() => Ok((true, line)),
                    status = child.wait() => Err(status),
                }
            };
            match tokio::time::timeout(LINGER, more).await {
                Ok(Ok((is_error, line))) => {
                    if let Some(line) = line {
                        each(is_error, &line);
                    }
                }
                Ok(Err(status)) => {
                    ended = Some(status.map_err(GuestError::spawn("ssh", "openssh-client"))?);
                }
                Err(_) => break,
            }
        }
        let mut rest = |is_error: bool, line: &str| {
            each(is_error, line);
        };
        drain(&mut out, false, &mut rest).await;
        drain(&mut err, true, &mut rest).await;
        Ok(ended)
    }

    /// Runs a shell command line as the login user with a file on its standard input; `sent` gets
    /// the bytes that are on their way.
    pub async fn send(
        &self,
        script: &str,
        file: &Path,
        sent: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Output, GuestError> {
        let mut from = tokio::fs::File::open(file)
            .await
            .map_err(GuestError::file("read", file))?;
        let mut child = self.spawn(script, Stdio::piped())?;
        let pipe = child.stdin.take();
        let feed = async {
            let Some(mut pipe) = pipe else { return Ok(()) };
            let mut buffer = vec![0; 1 << 16];
            let mut done = 0;
            loop {
                let n = from.read(&mut buffer).await?;
                // Where the guest stops reading early, its exit code and words tell why.
                if n == 0 || pipe.write_all(&buffer[..n]).await.is_err() {
                    let _ = pipe.shutdown().await;
                    return Ok(());
                }
                done += n as u64;
                sent(done);
            }
        };
        let mut fed = Ok(());
        let (mut out, mut err) = (String::new(), String::new());
        let status = exchange(child, async { fed = feed.await }, &mut |is_error, line| {
            let to = if is_error { &mut err } else { &mut out };
            to.push_str(line);
            to.push('\n');
        })
        .await?;
        fed.map_err(GuestError::file("read", file))?;
        Ok(Output {
            status,
            stdout: out,
            stderr: err,
        })
    }

    /// Ends the ControlMaster, if one runs.
    pub fn disconnect(&self) {
        if !self.files.control_socket().exists() {
            return;
        }
        let mut ssh = self.ssh();
        ssh.args(["-O", "exit", &self.machine])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It may have ended by itself; then there is nothing to do.
        let _ = ssh.status();
    }

    pub fn ssh_config(&self) -> std::path::PathBuf {
        self.files.ssh_config()
    }

    pub fn console_log(&self) -> std::path::PathBuf {
        self.files.console_log()
    }
}

/// Feeds a child and hands on its lines until it ends.
async fn exchange(
    mut child: Child,
    feed: impl Future<Output = ()>,
    each: &mut (dyn FnMut(bool, &str) + Send),
) -> Result<ExitStatus, GuestError> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ((), status) = tokio::join!(feed, read_lines(out, err, child.wait(), each));
    status.map_err(GuestError::spawn("ssh", "openssh-client"))
}

/// Hands on the lines of a process (whether on stderr, and the line without its end) until it ends,
/// and gives what `exit` gives.
pub async fn read_lines<T>(
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    exit: impl Future<Output = T>,
    each: &mut (dyn FnMut(bool, &str) + Send),
) -> T {
    let mut out = out.map(lines_of);
    let mut err = err.map(lines_of);
    let read = async {
        while out.is_some() || err.is_some() {
            tokio::select! {
                line = next(&mut out), if out.is_some() => if let Some(line) = line {
                    each(false, &line);
                },
                line = next(&mut err), if err.is_some() => if let Some(line) = line {
                    each(true, &line);
                },
            }
        }
    };
    // A ControlMaster that this ssh left behind keeps its stderr open, so the end of the
    // command is the end of ssh and of its stdout, not of its stderr.
    tokio::pin!(exit);
    let ended = tokio::select! {
        () = read => exit.await,
        ended = &mut exit => ended,
    };
    // What was already in the pipes when it ended.
    drain(&mut out, false, each).await;
    drain(&mut err, true, each).await;
    ended
}

struct Lines {
    pipe: BufReader<Box<dyn AsyncRead + Unpin + Send>>,
    /// What was read of the next line when somebody stopped waiting for it.
    begun: Vec<u8>,
}

fn lines_of(pipe: impl AsyncRead + Unpin + Send + 'static) -> Lines {
    Lines {
        pipe: BufReader::new(Box::new(pipe)),
        begun: Vec::new(),
    }
}

/// The next line; `None` (and the pipe forgotten) at its end. Bytes that are no UTF-8 are
/// replaced: a guest may print anything. Nothing is lost when this is dropped before it is done.
async fn next(pipe: &mut Option<Lines>) -> Option<String> {
    let lines = pipe.as_mut()?;
    let read = lines.pipe.read_until(b'\n', &mut lines.begun).await;
    let mut buffer = std::mem::take(&mut lines.begun);
    match read {
        Ok(_) if !buffer.is_empty() => {
            while matches!(buffer.last(), Some(b'\n' | b'\r')) {
                buffer.pop();
            }
            Some(String::from_utf8_lossy(&buffer).into_owned())
        }
        _ => {
            *pipe = None;
            None
        }
    }
}

/// Reads on until the pipe is empty for a moment or ends.
async fn drain(
    pipe: &mut Option<Lines>,
    is_error: bool,
    each: &mut (dyn FnMut(bool, &str) + Send),
) {
    while pipe.is_some() {
        match tokio::time::timeout(std::time::Duration::from_millis(20), next(pipe)).await {
            Ok(Some(line)) => each(is_error, &line),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    // The last line may have no end, and its pipe neither.
    if let Some(lines) = pipe.take().filter(|lines| !lines.begun.is_empty()) {
        each(is_error, &String::from_utf8_lossy(&lines.begun));
    }
}

/// Quotes one word for a POSIX shell.
pub fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// `scp` with this machine's configuration.
pub fn scp(config: &Path) -> std::process::Command {
    let mut command = std::process::Command::new("scp");
    command.arg("-F").arg(config);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(shell_quote("plain/path-1.0"), "plain/path-1.0");
        assert_eq!(shell_quote(""), "''");
        assert_eq!(shell_quote("it's $HOME"), "'it'\\''s $HOME'");
    }
}
