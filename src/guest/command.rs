//! Runs commands in the guest, over OpenSSH.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdout},
};

use crate::host::process::{Start, shown_script};

use super::{
    connection::{Opened, open},
    error::GuestError,
    files::MachineFiles,
    output::{LINGER, Output},
    ssh,
};

/// A longer line from a guest is passed on in pieces of this size, in bytes.
const LONGEST_LINE: usize = 1 << 20;

/// The output of a command of stead's own in a guest is smaller than this, in bytes, on each stream.
const MOST_SAID: usize = 8 << 20;

/// A machine that can be reached over SSH.
#[derive(Clone, Debug)]
pub struct Remote {
    pub machine: String,
    pub files: MachineFiles,
}

impl Remote {
    /// Returns `ssh` with this machine's configuration, to which the caller adds the rest.
    pub fn ssh(&self) -> std::process::Command {
        ssh::ssh_by(&self.files.ssh_config())
    }

    /// Starts a script, which the log has unless it is private.
    async fn open(&self, options: &[&str], script: &str) -> Result<Opened, GuestError> {
        tracing::debug!("in {}: {}", self.machine, shown_script(script));
        open(self, options, script).await
    }

    /// Runs a script for `sh` as the login user and collects its output. Where the login fails, the status is ssh's or
    /// the login shell's.
    ///
    /// # Errors
    /// If ssh cannot be run, or the output is larger than 8 MiB, which no command of stead's prints.
    pub async fn run(&self, script: &str) -> Result<Output, GuestError> {
        match self.open(&[], script).await? {
            Opened::Runs(child, _) => self.collect(child).await,
            Opened::Not(output) => Ok(output),
        }
    }

    /// Returns what a login prints, which programs that speak over ssh take for the guest's answer.
    ///
    /// # Errors
    /// If ssh cannot be run.
    pub async fn greeting(&self) -> Result<String, GuestError> {
        match self.open(&[], "true").await? {
            Opened::Runs(mut child, printed) => {
                drop(child.stdin.take());
                child.wait().await.map_err(GuestError::ssh)?;
                Ok(printed)
            }
            Opened::Not(_) => Ok(String::new()),
        }
    }

    /// Starts a script as the login user, with pipes for its three streams. If the login fails, this returns its output.
    pub async fn start(&self, script: &str) -> Result<Result<Child, Output>, GuestError> {
        Ok(self.open(&[], script).await?.into_result())
    }

    /// Like [`Self::start`], but gives up a connection that is not there after a minute. The machine was reached before,
    /// so one that does not answer for that long never will. `stead dial` waits for the banner; this is for what follows.
    pub async fn start_bounded(&self, script: &str) -> Result<Result<Child, Output>, GuestError> {
        let options = ["-o", "ConnectTimeout=60"];
        Ok(self.open(&options, script).await?.into_result())
    }

    /// Like [`Self::start`], for a script with a command that the user typed, which stays out of the log: it may have a
    /// password in it.
    pub async fn start_typed(&self, script: &str) -> Result<Result<Child, Output>, GuestError> {
        Ok(open(self, &[], script).await?.into_result())
    }

    /// Collects the output of a script that was started and gets no input.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn collect(&self, mut child: Child) -> Result<Output, GuestError> {
        drop(child.stdin.take());
        gather(&self.machine, child, async {}).await
    }

    /// Opens the ControlMaster if none runs, by a command that does nothing.
    pub async fn connect(&self) -> Result<Output, GuestError> {
        self.run("true").await
    }

    /// Runs a script with a command that the user typed, without input. It stays out of the log. `each` is as for
    /// [`Self::stream`].
    pub async fn stream_typed(
        &self,
        script: &str,
        each: &mut (dyn FnMut(bool, &str) + Send),
    ) -> Result<ExitStatus, GuestError> {
        match self.start_typed(script).await? {
            Ok(mut child) => {
                drop(child.stdin.take());
                exchange(child, async {}, each).await
            }
            Err(output) => Ok(output.pass_on(each)),
        }
    }

    /// Runs a script as the login user, with `stdin` as its standard input. `each` gets each line of its output (whether
    /// it is from stderr, and the line without its end).
    pub async fn stream(
        &self,
        script: &str,
        stdin: Option<&[u8]>,
        each: &mut (dyn FnMut(bool, &str) + Send),
    ) -> Result<ExitStatus, GuestError> {
        let mut child = match self.start(script).await? {
            Ok(child) => child,
            Err(output) => return Ok(output.pass_on(each)),
        };
        let feed = {
            let pipe = child.stdin.take();
            let bytes = stdin.unwrap_or_default();
            async move {
                if let Some(mut pipe) = pipe {
                    // The guest may stop reading early; its exit code shows whether it failed.
                    let _ = pipe.write_all(bytes).await;
                    let _ = pipe.shutdown().await;
                }
            }
        };
        exchange(child, feed, each).await
    }

    /// Like [`Self::stream`], but standard input stays open after `stdin` was sent: the guest sees its end
    /// only when this future is dropped, or when this process dies. This returns when `each` returns
    /// `true`, even if a process in the guest still holds the command's output, or when ssh ends; then
    /// with its status.
    pub async fn hold(
        &self,
        script: &str,
        stdin: &[u8],
        each: &mut (dyn FnMut(bool, &str) -> bool + Send),
    ) -> Result<Option<ExitStatus>, GuestError> {
        let mut child = match self.start_bounded(script).await? {
            Ok(child) => child,
            Err(output) => {
                let mut rest = |is_error: bool, line: &str| {
                    each(is_error, line);
                };
                return Ok(Some(output.pass_on(&mut rest)));
            }
        };
        let mut pipe = child.stdin.take();
        let mut out = child.stdout.take().map(lines_of);
        let mut err = child.stderr.take().map(lines_of);
        let feed = async {
            if let Some(pipe) = &mut pipe {
                // The guest may stop reading early; its output shows why.
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
                    ended = Some(status.map_err(GuestError::ssh)?);
                }
            }
        }
        // Earlier output on the other stream may still be on its way. Processes that keep the streams open
        // are not waited for.
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
                    ended = Some(status.map_err(GuestError::ssh)?);
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

    /// Like [`Self::run`], with `input` as the command's standard input, which the log does not show.
    pub async fn run_with(&self, script: &str, input: &[u8]) -> Result<Output, GuestError> {
        let mut child = match self.start(script).await? {
            Ok(child) => child,
            Err(output) => return Ok(output),
        };
        let pipe = child.stdin.take();
        let feed = async {
            if let Some(mut pipe) = pipe {
                // If the guest stops reading early, its exit code and output show why.
                let _ = pipe.write_all(input).await;
                let _ = pipe.shutdown().await;
            }
        };
        gather(&self.machine, child, feed).await
    }

    /// Runs a script as the login user, with a file as its standard input; `sent` gets the
    /// number of bytes sent so far.
    pub async fn send(
        &self,
        script: &str,
        file: &Path,
        sent: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Output, GuestError> {
        let mut from = tokio::fs::File::open(file)
            .await
            .map_err(GuestError::file("read", file))?;
        let mut child = match self.start(script).await? {
            Ok(child) => child,
            Err(output) => return Ok(output),
        };
        let pipe = child.stdin.take();
        let feed = async {
            let Some(mut pipe) = pipe else { return Ok(()) };
            let mut buffer = vec![0; 1 << 16];
            let mut done = 0;
            loop {
                let n = from.read(&mut buffer).await?;
                // If the guest stops reading early, its exit code and output show why.
                if n == 0 || pipe.write_all(&buffer[..n]).await.is_err() {
                    let _ = pipe.shutdown().await;
                    return Ok(());
                }
                done += n as u64;
                sent(done);
            }
        };
        let mut fed = Ok(());
        let output = gather(&self.machine, child, async { fed = feed.await }).await?;
        fed.map_err(GuestError::file("read", file))?;
        Ok(output)
    }

    /// Ends the ControlMasters that run.
    pub fn disconnect(&self) {
        for socket in self.files.control_sockets() {
            let mut ssh = self.ssh();
            ssh.arg("-S")
                .arg(socket)
                .args(["-O", "exit", &self.machine])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            // An error means that it has just ended by itself.
            let _ = ssh.start().and_then(|mut child| child.wait());
        }
    }

    pub fn ssh_config(&self) -> std::path::PathBuf {
        self.files.ssh_config()
    }

    pub fn console_log(&self) -> std::path::PathBuf {
        self.files.console_log()
    }
}

/// Feeds a child and collects its output until it ends. A child that prints too much is killed.
pub(super) async fn gather(
    machine: &str,
    child: Child,
    feed: impl Future<Output = ()>,
) -> Result<Output, GuestError> {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let too_much = tokio::sync::Notify::new();
    let mut each = |is_error: bool, line: &str| {
        let to = if is_error { &mut stderr } else { &mut stdout };
        if to.len() + line.len() < MOST_SAID {
            to.push_str(line);
            to.push('\n');
        } else {
            too_much.notify_one();
        }
    };
    let status = tokio::select! {
        status = exchange(child, feed, &mut each) => status?,
        () = too_much.notified() => return Err(GuestError::TooMuch {
            machine: machine.to_string(),
            limit: MOST_SAID as u64,
        }),
    };
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Feeds a child and passes its lines on until it ends.
async fn exchange(
    mut child: Child,
    feed: impl Future<Output = ()>,
    each: &mut (dyn FnMut(bool, &str) + Send),
) -> Result<ExitStatus, GuestError> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ((), status) = tokio::join!(feed, read_lines(out, err, child.wait(), each));
    status.map_err(GuestError::ssh)
}

/// Passes the lines of a process to `each` (whether on stderr, and the line without its end) until it
/// ends. Returns the result of `exit`.
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
    // A ControlMaster that this ssh left behind keeps its stderr open, so this waits for the end of ssh,
    // not for that of its stderr.
    tokio::pin!(exit);
    let ended = tokio::select! {
        () = read => exit.await,
        ended = &mut exit => ended,
    };
    // Output that was in the pipes when it ended.
    drain(&mut out, false, each).await;
    drain(&mut err, true, each).await;
    ended
}

struct Lines {
    pipe: BufReader<Box<dyn AsyncRead + Unpin + Send>>,
    /// The start of a line whose read was cancelled.
    begun: Vec<u8>,
}

fn lines_of(pipe: impl AsyncRead + Unpin + Send + 'static) -> Lines {
    Lines {
        pipe: BufReader::new(Box::new(pipe)),
        begun: Vec::new(),
    }
}

/// Returns the next line, or a piece of a very long one. At the end of the pipe it returns `None` and drops
/// the pipe. Bytes that are not UTF-8 are replaced: a guest may print anything. If the future is dropped
/// early, nothing is lost.
async fn next(pipe: &mut Option<Lines>) -> Option<String> {
    let lines = pipe.as_mut()?;
    while let Ok(read) = lines.pipe.fill_buf().await {
        if read.is_empty() {
            break;
        }
        let room = LONGEST_LINE - lines.begun.len();
        let end = memchr::memchr(b'\n', &read[..room.min(read.len())]);
        let taken = end.map_or(room.min(read.len()), |at| at + 1);
        lines.begun.extend_from_slice(&read[..taken]);
        lines.pipe.consume(taken);
        if end.is_some() || lines.begun.len() == LONGEST_LINE {
            return Some(line(std::mem::take(&mut lines.begun)));
        }
    }
    let rest = std::mem::take(&mut lines.begun);
    *pipe = None;
    (!rest.is_empty()).then(|| line(rest))
}

fn line(mut bytes: Vec<u8>) -> String {
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until the pipe ends, or has nothing for 20 ms.
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
    // The last line may have no line end, and the pipe may stay open.
    if let Some(lines) = pipe.take().filter(|lines| !lines.begun.is_empty()) {
        each(is_error, &String::from_utf8_lossy(&lines.begun));
    }
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    /// Runs `sh -c` here in place of a guest's shell.
    async fn said(script: &str) -> Result<Output, GuestError> {
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        gather("web", child, async {}).await
    }

    #[tokio::test]
    async fn what_a_guest_prints_is_bounded() {
        for endless in [
            "yes | tr -d '\\n'",
            "yes | tr -d '\\n' >&2",
            "yes",
            "cat /dev/zero",
        ] {
            let error = said(endless).await.unwrap_err().to_string();
            assert!(
                error.contains("web printed more than 8.0 MiB"),
                "{endless}: {error}"
            );
        }
        let output = said("printf 'a\\r\\n\\nb'; echo c >&2").await.unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), ("a\n\nb\n", "c\n"));
    }

    #[tokio::test]
    async fn a_line_without_an_end_comes_in_pieces() {
        let mut child = Command::new("sh")
            .args([
                "-c",
                "head -c 2500000 /dev/zero | tr '\\0' x; echo; echo end",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lengths = Vec::new();
        let out = child.stdout.take();
        read_lines(out, None, child.wait(), &mut |_, line| {
            lengths.push(line.len())
        })
        .await
        .unwrap();
        assert_eq!(
            lengths,
            [LONGEST_LINE, LONGEST_LINE, 2_500_000 - 2 * LONGEST_LINE, 3]
        );
    }

    /// Reads 1.5 GB without a line end, in a process that may use 1 GB.
    #[test]
    fn a_guest_that_prints_no_newline_takes_no_memory() {
        let output = std::process::Command::new("prlimit")
            .arg("--as=1000000000")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "guest::command::tests::within_little_memory"])
            .args(["--ignored", "--test-threads=1"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    #[ignore = "a part of another test"]
    #[tokio::test]
    async fn within_little_memory() {
        let mut child = Command::new("head")
            .args(["-c", "1500000000", "/dev/zero"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut bytes = 0;
        let out = child.stdout.take();
        read_lines(out, None, child.wait(), &mut |_, line| bytes += line.len())
            .await
            .unwrap();
        assert_eq!(bytes, 1_500_000_000);
        let endless = "cat /dev/zero";
        assert!(matches!(
            said(endless).await,
            Err(GuestError::TooMuch { .. })
        ));
    }
}
